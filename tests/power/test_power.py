"""Do power cuts, simulated and real, and full disks break a promise? The lane at the size that a change must pass.

Imports tests.builds. Needs root for mounts and loop devices: without it the tests fail, they are not skipped. Longer
runs are in `./dev torture power`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import builds

HERE = Path(__file__).parent
STATES = 100_000
CUTS = 100
CYCLES = 50
NOT_RUN = 77


def model() -> Path:
    """The program that simulates power cuts."""
    return builds.program(HERE / "power_model.c", builds.TEST)


def run(command: list[str], seconds: int, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run to the end; what it says is shown."""
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        env={**os.environ, **environment},
    )
    print(done.stdout[-4000:], done.stderr[-4000:], sep="")
    return done


@pytest.mark.timeout(600)
def test_simulated_cuts() -> None:
    done = run([str(model()), "--states", str(STATES), "--seconds", "420"], 500)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.timeout(300)
@pytest.mark.root
def test_real_cuts() -> None:
    done = run([sys.executable, str(HERE / "cuts.py"), "--cuts", str(CUTS)], 280)
    assert done.returncode != NOT_RUN, "NOT RUN: it needs root and loop devices"
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.timeout(300)
@pytest.mark.root
def test_full_disks() -> None:
    done = run([sys.executable, str(HERE / "full_disk.py"), "--cycles", str(CYCLES)], 280)
    assert done.returncode != NOT_RUN, "NOT RUN: it needs root and loop devices"
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("bug", ["OFFSET_REUSED_AFTER_CUT", "DIRECTORY_NOT_SYNCED", "LEASE_NOT_SYNCED"])
def test_a_broken_rule_is_seen(bug: str) -> None:
    assert run([str(model()), "--states", "30000", "--seconds", "120"], 280, TL_BUG=bug).returncode == 1


def main() -> int:
    """The long lane."""
    commands = [
        [str(model()), "--states", "1000000", "--seconds", "36000"],
        [sys.executable, str(HERE / "cuts.py"), "--cuts", "1000"],
        [sys.executable, str(HERE / "full_disk.py"), "--cycles", "500"],
    ]
    return max(abs(subprocess.run(command, check=False).returncode) for command in commands)


if __name__ == "__main__":
    sys.exit(main())
