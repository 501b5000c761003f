"""Does the core stay whole when any call to the system fails, and when memory runs out?

fault_io.c is the driver: it says which call failed in which work, and how to run that one case again. Every case is a
process of its own over a store in memory. The black box of the same question, a real full file system, is not here.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import builds

DRIVER = Path(__file__).parent / "fault_io.c"
WORKS = re.findall(r'^    \{"([a-z-]+)", \d+, ', (DRIVER.parent / "work.h").read_text(), re.M)
# Cases that met a fault: fewer mean that a work has lost its calls.
FEWEST = {
    "create": 900,
    "batches": 500,
    "through-file": 350,
    "sync": 100,
    "housekeep": 450,
    "commit": 100,
    "trim": 400,
    "drop": 1000,
    "close": 450,
    "reopen-clean": 300,
    "reopen-clean-boot": 300,
    "reopen-same-boot": 180,
    "reopen-new-boot": 400,
    "join": 200,
    "read": 400,
}
FEWEST_OF_HEAP = 400
ENVIRONMENT = {**os.environ, **builds.SANITIZER_ENVIRONMENT}


def drive(variant: builds.Variant, *arguments: str, environment: dict[str, str] | None = None) -> tuple[int, str]:
    """(exit code, output) of the driver."""
    try:
        program = builds.program(DRIVER, variant)
    except builds.BuildFailed as error:
        pytest.fail(str(error), pytrace=False)
    done = subprocess.run(
        [program, *arguments],
        env={**ENVIRONMENT, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=240,
        check=False,
    )
    return done.returncode, done.stdout


def counted(code: int, output: str) -> int:
    """How many runs met a fault; fails the test when one broke."""
    if code:
        pytest.fail(f"exit code {code}\n{output[-20000:]}", pytrace=False)
    match = re.search(r"(\d+) runs met a fault", output)
    assert match is not None, output
    print(output, end="")
    return int(match[1])


@pytest.mark.timeout(600)
@pytest.mark.parametrize("work", WORKS)
def test_every_call_fails_in_turn(work: str) -> None:
    assert counted(*drive(builds.TEST, "-w", work)) >= FEWEST[work]


@pytest.mark.timeout(600)
def test_out_of_memory_in_turn() -> None:
    """With AddressSanitizer, whose leak check ends every run."""
    assert counted(*drive(builds.ASAN, "-e", "heap")) >= FEWEST_OF_HEAP


@pytest.mark.timeout(600)
def test_under_sanitizers() -> None:
    """A sample of the calls: each of them that can fail with EIO or short writes, one in five."""
    for kind in ("EIO", "EIO-done", "short-EIO"):
        assert counted(*drive(builds.ASAN, "-e", kind, "-m", "once", "-s", "5")) > 0


def test_a_broken_rule_is_seen() -> None:
    code, output = drive(builds.TEST, "-w", "sync", "-e", "EIO", environment={"TL_BUG": "FSYNC_RETRIED"})
    assert code == 1 and "succeeded although" in output and "FAILED" in output, output


def main() -> int:
    """Every work with single faults, pairs of them, and lacks of memory, each printed as it goes; 1 if one broke."""
    broken = 0
    for arguments in ((), ("-m", "pair"), ("-e", "heap"), ("-e", "heap", "-m", "pair")):
        for work in WORKS:
            for variant in (builds.TEST, builds.ASAN):
                done = subprocess.run(
                    [builds.program(DRIVER, variant), "-w", work, *arguments], check=False, env=ENVIRONMENT
                )
                broken += done.returncode != 0
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
