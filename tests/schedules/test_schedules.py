"""Does the core keep its promises in every order in which its processes can run, and whoever dies wherever?

schedules.c says how: the C code itself runs under a scheduler that decides at every step which of several virtual
processes goes on, and whether one of them dies there. The core is compiled so that each access to shared memory can be
such a step. As a lane 1,000,000 different schedules are run, with a new seed each time; it is printed, and what fails
prints the command that replays it. `python -m tests.schedules.test_schedules --schedules 50000000 --jobs 2` runs as
many as asked. A scenario is a C file in this directory and a line in scenarios.h.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests import builds

pytestmark = pytest.mark.lane

HERE = Path(__file__).parent
SCHEDULES = 1_000_000

# As ThreadSanitizer wants it; accesses.c stands in the place of its library.
STEPS = builds.Variant(
    "steps", ("-O2", "-g", "-fsanitize=thread", "-Wno-tsan", "--param=tsan-instrument-func-entry-exit=0", "-DTL_TEST")
)
# They walk through half a megabyte of their own memory at every opening, or compute only.
UNWATCHED = ("checkpoint_open.c", "checkpoint_scan.c", "crc32c.c", "murmur2.c")

# Of each scenario the level that must be searched completely: preemptions and deaths at coarse steps. All of them are
# searched completely for one preemption or one death at fine steps.
COMPLETE = {
    "append": "2+1",
    "batches": "2+0",
    "offsets": "2+1",
    "first": "2+0",
    "roll": "2+0",
    "sleep": "2+0",
    "sleepers": "2+0",
    "drop": "2+0",
    "sync": "1+1",
    "trim": "1+1",
    "leave": "0+1",
    "enter": "0+1",
    "flush": "1+1",
    "selves": "1+1",
    "names": "0+1",
    "retry": "0+1",
    "heirs": "0+1",
    "ids": "0+1",
    "window": "1+1",
    "growth": "0+1",
    "retaken": "0+1",
    "commit": "0+1",
    "expire": "0+1",
    "visible": "0+1",
    "two": "0+1",
    "late": "0+1",
    "takeover": "0+1",
    "successor": "1+1",
    "synced": "0+1",
    "across": "0+1",
}

# Seeded bugs, the scenario that must notice each, and what it says.
BUGS = {
    "TAIL_BEFORE_COPY": ("append", "."),
    "END_SLOT_WITHOUT_TAG": ("append", "do not fit together"),
    "STOPPED_OWNER_ROBBED": ("append", "."),
    "NO_ZERO_TO_RESERVE": ("batches", "stands something"),
    "SEAL_AFTER_TAIL": ("roll", "."),
    "STRAY_SEGMENT_KEPT": ("roll", "a file stands where the next segment must go"),
    "LOG_START_AFTER_UNLINK": ("trim", "a segment is missing"),
    "NO_BARRIER_BEFORE_SLEEPERS": ("sleep", "a wake-up was lost"),
    "ZOMBIE_COMMIT_ACCEPTED": ("offsets", "a commit"),
    "WRITER_IGNORES_DROP": ("drop", "."),
    "READY_STORED_FIRST": ("leave", "was acknowledged before"),
    "CLEAN_MARK_KEPT": ("leave", "was acknowledged before"),
    "CLOSE_WITHOUT_GATE": ("leave", "."),
    "INCARNATION_NOT_BUMPED": ("enter", "somebody hangs"),
    "SEQUENCE_NOT_CHECKED": ("retry", "one before it was missing"),
    "EPOCH_NOT_CHECKED": ("retry", "."),
    "WINDOW_OF_ONE": ("retry", "."),
    "PRODUCERS_NOT_MARKED": ("retry", "one message is said to be at"),
    "NAME_NOT_FENCED": ("selves", "an older self"),
    "ID_NOTED_BEFORE_TAIL": ("ids", "(is not in the log|stands elsewhere)"),
    "IDS_COMPLETE_FIRST": ("ids", "one message"),
    "ID_WINDOW_FORGETS": ("growth", "one message"),
    "ID_NOT_UNDONE": ("ids", "stands something"),
    "IDS_NOT_REBUILT": ("window", "."),
    "COMMIT_FORGETS_A_PARTITION": ("commit", "a reader does not see it"),
    "ABORT_NOT_INDEXED": ("two", "its message is visible"),
    "LSO_NOT_REPAIRED": ("two", "stop before a transaction that is over"),
    "LSO_AFTER_TAIL": ("visible", "a wake-up was lost"),
    "LATE_MARKER_HITS_NEXT": ("late", "."),
    "OFFSETS_WITHOUT_LEASE_CHECK": ("takeover", "transaction 2"),
    "TAKER_DOES_NOT_FINISH": ("takeover", "transaction 2"),
    "MARKER_BEFORE_RECORD_SYNC": ("synced", "its record is not on the disk"),
}
BUDGET = 60_000


def program() -> Path:
    """The compiled lane. Raises builds.BuildFailed."""
    sources = sorted(path for path in HERE.glob("*.c") if path.name != "schedules.c")
    unwatched = [builds.compiled(builds.NATIVE / "src" / name, builds.TEST) for name in UNWATCHED]
    return builds.program(
        HERE / "schedules.c", STEPS, extra=[*sources, *unwatched], flags=["-fno-sanitize=all", f"-I{builds.NATIVE}/src"]
    )


def run(*arguments: str, bug: str = "", seconds: float = 600) -> subprocess.CompletedProcess[str]:
    """One run of the lane."""
    return subprocess.run(
        [str(program()), *arguments],
        env={**os.environ, "TL_BUG": bug},
        capture_output=True,
        text=True,
        errors="replace",
        timeout=seconds,
        check=False,
    )


def levels(report: str) -> dict[str, set[str]]:
    """For each scenario of a report the levels that were searched completely."""
    found = re.findall(r"^(\w+)(?: +[\d.]+){5} (.*)$", report, re.MULTILINE)
    return {name: set(re.findall(r"(\d\+\df?): \d+\*", rest)) for name, rest in found}


@pytest.mark.timeout(600)
def test_a_million_schedules() -> None:
    done = run("--schedules", str(SCHEDULES), "--jobs", str(min(2, os.cpu_count() or 1)))
    print(done.stdout)
    if done.returncode:
        pytest.fail(f"exit code {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-8000:]}", pytrace=False)
    complete = levels(done.stdout)
    assert set(complete) >= set(COMPLETE)
    for name, level in COMPLETE.items():
        assert complete[name] >= {"0+0", "1+0", "0+1", "1+0f", "0+1f", level}, name


@pytest.mark.timeout(200)
@pytest.mark.parametrize("bug", BUGS)
def test_seeded_bugs_are_found(bug: str) -> None:
    """Each is found within the budget, and the command that is printed finds it again."""
    scenario, said = BUGS[bug]
    done = run("--schedules", str(BUDGET), "--scenario", scenario, "--seed", "1", bug=bug, seconds=180)
    assert done.returncode == 1, f"{bug} was not found\n{done.stdout}"
    assert re.search(rf"FAILED: {scenario}: .*{said}", done.stderr), done.stderr
    replay = re.search(r"replay: (.*)", done.stderr)
    assert replay is not None, done.stderr
    again = run(*shlex.split(replay[1])[1:], bug=bug, seconds=60)
    print(done.stderr)
    assert again.returncode == 1, again.stdout[-2000:]
    assert re.search(said, again.stdout.splitlines()[-1]), again.stdout[-2000:]


def main(arguments: list[str]) -> int:
    """Run the lane with the arguments of the program."""
    return subprocess.run([str(program()), *arguments], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
