"""Is damage of any file found, named, and kept to what it damaged?

Two C drivers over a store in memory: damage_segment flips bits and cuts files under an open store, damage_reopen
damages files that nobody has open. Both print the arguments that run one failing case again. test_checkpoint.c and
test_offsets_damage.c flip every bit of those two formats by themselves; here a store is opened over them.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import builds

HERE = Path(__file__).parent


def drive(noun: str, variant: builds.Variant, *arguments: str, bug: str = "") -> tuple[int, str]:
    """(exit code, output) of tests/damage/damage_<noun>.c."""
    try:
        program = builds.program(HERE / f"damage_{noun}.c", variant)
    except builds.BuildFailed as error:
        pytest.fail(str(error), pytrace=False)
    done = subprocess.run(
        [program, *arguments],
        env={**os.environ, **builds.SANITIZER_ENVIRONMENT, "TL_BUG": bug},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=500,
        check=False,
    )
    return done.returncode, done.stdout


def passes(least: int, noun: str, variant: builds.Variant, *arguments: str) -> None:
    """The driver ends well after at least `least` cases."""
    code, output = drive(noun, variant, *arguments)
    if code:
        pytest.fail(f"exit code {code}\n{output[-20000:]}", pytrace=False)
    match = re.search(r"ok (\d+) checks", output)
    assert match is not None and int(match[1]) >= least, output
    print(output, end="")


@pytest.mark.timeout(600)
def test_every_bit_and_every_length_under_an_open_store() -> None:
    passes(1_300_000, "segment", builds.TEST)


@pytest.mark.timeout(600)
def test_open_store_under_sanitizers() -> None:
    passes(40_000, "segment", builds.ASAN, "-s", "31")


@pytest.mark.timeout(600)
def test_files_damaged_while_closed() -> None:
    passes(15_000, "reopen", builds.TEST, "-m", "500")


@pytest.mark.timeout(600)
def test_closed_files_under_sanitizers() -> None:
    passes(1_200, "reopen", builds.ASAN, "-m", "40")


@pytest.mark.timeout(600)
def test_a_broken_rule_is_seen() -> None:
    """A tail that is believed without its CRC."""
    arguments = ("-i", "unclean", "-c", "flip", "-m", "300")
    code, output = drive("reopen", builds.TEST, *arguments, bug="TAIL_CRC_NOT_CHECKED")
    assert code != 0 and "though what is left is whole" in output, output


def main() -> int:
    """All of the log read and checked for every bit, every bit and length of closed files; 1 if one broke."""
    environment = {**os.environ, **builds.SANITIZER_ENVIRONMENT}
    most = "4000000000"
    runs = [("segment", ["-a"]), *[("reopen", ["-i", image, "-m", most]) for image in ("clean", "unclean")]]
    broken = 0
    for variant in (builds.TEST, builds.ASAN):
        for noun, arguments in runs:
            command = [builds.program(HERE / f"damage_{noun}.c", variant), *arguments]
            broken += subprocess.run(command, check=False, env=environment).returncode != 0
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
