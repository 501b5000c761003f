"""Does a store lose, repeat or invent anything when its process is killed at a named point?

crash_points.c says how. As a test 5,000 kills are made, with a new seed each time; it is printed, and what fails prints
the command that replays it. `python -m tests.crash.test_points --kills 100000` makes as many as asked.
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
NAMES = (
    "appends.c",
    "catalogue.c",
    "children.c",
    "commits.c",
    "members.c",
    "model.c",
    "plan.c",
    "transactions.c",
    "verify.c",
    "work.c",
)
SOURCES = [HERE / name for name in NAMES]
KILLS = 5000
KILLS_IN_TRANSACTIONS = 2000

# Points of the core that no child of this lane comes by, and why.
NOT_REACHED = {
    "checkpoint.sync.failed": "a sync fails: tests/faults",
    "housekeeper.leases": "2^29 messages were written since the lease was taken",
    "recover.segment_aside": "whole segments are lost in a power cut only: tests/power",
}


def program(variant: builds.Variant = builds.TEST) -> Path:
    """The compiled lane. Raises builds.BuildFailed."""
    return builds.program(HERE / "crash_points.c", variant, extra=SOURCES)


def points_of_the_core() -> set[str]:
    """The name of every TL_POINT under native/src."""
    sources = "".join(path.read_text() for path in builds.core_sources())
    return set(re.findall(r'TL_POINT\("([^"]+)"\)', sources))


def points_reached(output: str) -> set[str]:
    """The names in the table that the lane prints."""
    return set(re.findall(r"^([a-z_]+(?:\.[a-z_]+)+) +\d+ +\d+$", output, re.MULTILINE))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("transactions", [0, 1])
def test_kills_at_points(transactions: int) -> None:
    kills = KILLS_IN_TRANSACTIONS if transactions else KILLS
    try:
        command = [str(program()), "--kills", str(kills), "--jobs", str(min(2, os.cpu_count() or 1))]
        command += ["--transactions", str(transactions)]
    except builds.BuildFailed as error:
        pytest.fail(str(error), pytrace=False)
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=500, check=False)
    print(done.stdout)
    if done.returncode:
        pytest.fail(f"exit code {done.returncode}\n{done.stdout[-1500:]}\n{done.stderr[-8000:]}", pytrace=False)


# Lives that once went wrong, with what was wrong.
KNOWN_LIVES = {
    # The lease was on disk, its taker died before the words said so, and a clean close took the words for the truth:
    # the next opener filled 2^30 offsets of a partition that nobody had written to.
    "lease ahead of its word": (
        "11720496999397701367",
        (
            "s:x:lease.begin:2:12609813394502521671,k:c:lease.durable:1:0,"
            "c:x:records.synced:1:6840321751384694955,k:c:lease.durable:2:0"
        ),
    ),
}


@pytest.mark.parametrize("name", KNOWN_LIVES)
def test_known_lives_end_well(name: str) -> None:
    life, plan = KNOWN_LIVES[name]
    command = [str(program()), "--life", life, "--plan", plan]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-4000:]


def test_points_not_reached_are_known() -> None:
    """A point that is gone from the core is no reason to go on listing it."""
    assert set(NOT_REACHED) <= points_of_the_core()


def main(arguments: list[str]) -> int:
    """Run the lane with the arguments of the program; print the points of the core that it never came by."""
    done = subprocess.run(
        [str(program()), *arguments], stdout=subprocess.PIPE, text=True, errors="replace", check=False
    )
    print(done.stdout, end="")
    missing = points_of_the_core() - points_reached(done.stdout)
    for name in sorted(missing):
        print(f"never reached: {name} ({NOT_REACHED.get(name, 'no reason is known')})")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
