"""Does each lane notice the mistake it is there for?

A test that cannot fail proves nothing, so the core holds mistakes that TL_BUG=<name> switches on in a test build.
table.py says which program must catch which. A run of the tests takes eight of them, drawn by a seed that is printed
(TIDELOG_BUGS_SEED gives one); `python -m tests.bugs.test_bugs --all` takes all, names after it take those.
"""

from __future__ import annotations

import functools
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import builds
from tests.bugs.table import BUGS, Bug, Program

SAMPLE = 8
TIMEOUT_SECONDS = 300.0
TESTS = Path(__file__).resolve().parent.parent


@functools.cache
def built(program: Program) -> Path:
    """The compiled program. Raises builds.BuildFailed."""
    return builds.program(TESTS / program.source, builds.TEST, extra=[TESTS / name for name in program.extra])


def run(program: Path, arguments: tuple[str, ...], bug: str) -> tuple[int, str]:
    """(exit code, what it said on stderr); bug "" is none. A run that does not end counts as exit code -1."""
    environment = {**os.environ, "TL_BUG": bug}
    process = subprocess.Popen(
        [program, *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    try:
        _, said = process.communicate(timeout=TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        _, said = process.communicate()
        return -1, said + f"\nran longer than {TIMEOUT_SECONDS:g} s"
    return process.returncode, said


def verdict(bug: Bug) -> str:
    """What is wrong with the lane of a bug, or "". Raises builds.BuildFailed."""
    code, said = run(built(bug.program), bug.arguments, bug.name)
    command = f"TL_BUG={bug.name} {bug.program.source.removesuffix('.c')} {' '.join(bug.arguments)}"
    if code == 0:
        return f"{command}: the bug was not caught"
    # CHECK in a test of tests/native says what failed and aborts.
    if code not in (1, -signal.SIGABRT) or not re.search(r"[a-z]", said):
        return f"{command}: exit code {code} instead of 1 (or an abort) with a message\n{said[-3000:]}"
    return ""


def control(program: Program, arguments: tuple[str, ...]) -> str:
    """What a run without a bug finds wrong, or ""."""
    code, said = run(built(program), arguments, "")
    return (
        "" if code == 0 else f"{program.source} {' '.join(arguments)}: exit code {code} without a bug\n{said[-3000:]}"
    )


def judge(bugs: list[Bug]) -> list[str]:
    """Run them one after the other, and each of their commands once without a bug; say what is wrong."""
    wrong: list[str] = []
    for bug in bugs:
        began = time.monotonic()
        found = verdict(bug)
        print(
            f"{bug.name:32} {bug.lane:10} {'MISSED' if found else 'caught'} after {time.monotonic() - began:.1f} s",
            flush=True,
        )
        wrong += [found] if found else []
    for program, arguments in dict.fromkeys((bug.program, bug.arguments) for bug in bugs):
        found = control(program, arguments)
        print(f"{'no bug':32} {program.source:10} {'WRONG' if found else 'ok'}", flush=True)
        wrong += [found] if found else []
    return wrong


@pytest.mark.timeout(1500)
def test_sampled_bugs_are_caught() -> None:
    seed = int(os.environ.get("TIDELOG_BUGS_SEED") or time.time_ns() % 1_000_000)
    print(f"TIDELOG_BUGS_SEED={seed}")
    try:
        wrong = judge(random.Random(seed).sample(BUGS, min(SAMPLE, len(BUGS))))
    except builds.BuildFailed as error:
        pytest.fail(str(error), pytrace=False)
    if wrong:
        pytest.fail("\n".join([f"TIDELOG_BUGS_SEED={seed}", *wrong]), pytrace=False)


def test_every_bug_has_a_lane() -> None:
    header = (builds.NATIVE / "include" / "tidelog" / "os.h").read_text()
    names = re.findall(r"X\(([A-Z_]+)\)", header.split("#define TL_BUG_LIST(X)")[1].split("#define")[0])
    assert len(names) >= 22
    assert sorted(bug.name for bug in BUGS) == sorted(names)


def main(arguments: list[str]) -> int:
    """`--all`, or the names of bugs; 1 if one was missed."""
    known = {bug.name: bug for bug in BUGS}
    if not arguments or (arguments != ["--all"] and not set(arguments) <= set(known)):
        print(f"usage: python -m tests.bugs.test_bugs --all | NAME...\n{' '.join(known)}", file=sys.stderr)
        return 2
    wrong = judge(BUGS if arguments == ["--all"] else [known[name] for name in arguments])
    for found in wrong:
        print(found, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
