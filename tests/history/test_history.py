"""Does a run of real processes under the nemesis keep every promise, and would it notice if one was broken?

run.py says how. `python tests/history/run.py --runs 100` is the long form. Minutes: `pytest -m lane tests/history`.
Of the mistakes a few are drawn for each run (the seed is printed); `-m "lane and slow"` makes them all.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.history.bugs import BUGS, PLAIN, WITHIN

pytestmark = pytest.mark.lane
RUN = Path(__file__).with_name("run.py")
SHORT = (
    *("--seconds", "4", "--kills", "40", "--stops", "3", "--forks", "1", "--full", "0"),
    *("--operations", "250000", "--transactions", "1000"),
)
SAMPLE = 2
"""Of either table."""
ATTEMPTS = 5


def run(*arguments: str, seconds: float) -> subprocess.CompletedProcess[str]:
    """One run of run.py, ended after so many seconds."""
    return subprocess.run(
        [sys.executable, str(RUN), *arguments],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=seconds,
        stdin=subprocess.DEVNULL,
        check=False,
    )


@pytest.mark.timeout(300)
def test_every_promise_is_kept() -> None:
    """At least 1,000,000 operations, 50,000 transactions among them, 200 kills, 50 stops and 100 rebalances."""
    done = run(seconds=280)
    print(done.stdout)
    if done.returncode:
        pytest.fail(f"exit code {done.returncode}\n{done.stdout[-1500:]}\n{done.stderr[-8000:]}", pytrace=False)


@pytest.mark.timeout(400)
def test_sampled_mistakes_are_found() -> None:
    seed = time.time_ns()
    chosen = [bug for table in (PLAIN, WITHIN) for bug in random.Random(seed).sample(sorted(table), SAMPLE)]
    print(f"seed {seed}: {', '.join(chosen)}")
    for bug in chosen:
        expect_found(bug)


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.parametrize("bug", BUGS)
def test_a_mistake_is_found(bug: str) -> None:
    expect_found(bug)


def expect_found(bug: str) -> None:
    """A short run with a mistake planted is told as one of the anomalies that it makes. Whether a mistake is made at
    all hangs on who dies when, so a run that kept every promise is followed by another one."""
    for attempt in range(ATTEMPTS):
        done = run("--bug", bug, *SHORT, seconds=180)
        print(done.stdout, done.stderr[-3000:])
        if done.returncode or attempt == ATTEMPTS - 1:
            break
    assert done.returncode == 1, (
        f"{ATTEMPTS} runs did not notice the mistake {bug}:\n{done.stdout}{done.stderr[-3000:]}"
    )
    told = [line.partition(":")[0] for line in done.stderr.splitlines()]
    assert set(told) & set(BUGS[bug][1]), f"{bug} was to be told as one of {BUGS[bug][1]}:\n{done.stderr[-3000:]}"
