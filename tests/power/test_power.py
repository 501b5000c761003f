"""Do the power lanes run, do they catch what they should, and do they say so when they cannot run?

A few seconds of each here; at their real size they are lanes of .ci/run (tests/power/model.py, cuts.py, full_disk.py).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import builds
from tests.power import mounts

HERE = Path(__file__).parent


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The finished program with all that it printed."""
    return subprocess.run(
        command,
        cwd=builds.ROOT,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=110,
        check=False,
    )


@pytest.fixture(scope="module")
def model() -> Path:
    try:
        return builds.program(HERE / "power_model.c", builds.TEST)
    except builds.BuildFailed as error:
        pytest.fail(str(error), pytrace=False)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("transactions", ["0", "1"])
def test_model(model: Path, transactions: str) -> None:
    done = run(model, "--states", "4000", "--seconds", "100", "--transactions", transactions, TL_BUG="")
    assert done.returncode == 0, done.stdout


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "bug",
    [
        "OFFSET_REUSED_AFTER_CUT",
        "DIRECTORY_NOT_SYNCED",
        "TAIL_CRC_NOT_CHECKED",
        "LEASE_NOT_SYNCED",
        "MARKER_BEFORE_RECORD_SYNC",
    ],
)
def test_model_catches(model: Path, bug: str) -> None:
    transactions = "1" if bug == "MARKER_BEFORE_RECORD_SYNC" else "0"
    done = run(model, "--states", "4000", "--seconds", "100", "--transactions", transactions, TL_BUG=bug)
    assert done.returncode == 1 and "VIOLATION" in done.stdout and "--replay" in done.stdout, done.stdout


@pytest.mark.parametrize("lane", ["cuts.py", "full_disk.py"])
def test_says_not_run(lane: str, tmp_path: Path) -> None:
    """Without the tools or the rights the lane is no success."""
    done = run(sys.executable, HERE / lane, PATH=str(tmp_path))
    assert done.returncode == mounts.NOT_RUN and done.stdout.startswith("NOT RUN: "), done.stdout
