"""Does anything hang, crash or get lost when Python interrupts, forks, spawns, closes beside, or ends?

lives.py and endings.py have the programs; each runs in a fresh interpreter here, with a watchdog of its own and one
around it.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tidelog.log import open as open_log

HERE = Path(__file__).parent


def live(program: str, *arguments: object, code: int = 0) -> str:
    """Runs a program and expects an exit code; answers what it said."""
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-W", "error::ResourceWarning", HERE / program, *map(str, arguments)],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=110,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == code, f"exit code {done.returncode}, not {code}\n{said[-6000:]}"
    return said


# 10,000 interrupts and 200 forks, in programs of a few seconds each.
@pytest.mark.parametrize(
    ("name", "rounds", "seed"),
    [
        ("interrupted_sends", 2500, 7),
        ("interrupted_sends", 2500, 8),
        ("interrupted_receives", 2500, 11),
        ("interrupted_receives", 2500, 12),
        ("many_signals", 1500, 1),
        ("closing_beside", 30, 3),
        ("forks_everywhere", 100, 1),
        ("forks_everywhere", 100, 2),
        ("pools", 20, 1),
        ("one_handle", 1000, 1),
        ("kept_after_close", 1, 1),
    ],
)
def test_life(name: str, rounds: int, seed: int, tmp_path: Path) -> None:
    assert live("lives.py", name, tmp_path / "life.log", rounds, seed) == ""
    with open_log(tmp_path / "life.log", lock_timeout=2) as log:  # nobody is left inside, nothing is damaged
        for channel in log:
            for partition in log[channel].opened().partitions:
                found: list[object] = []
                partition.check(lambda *place, found=found: found.append(place))
                assert not found


@pytest.mark.parametrize(
    ("name", "code", "there"),
    [
        ("ends_by_itself", 0, [b"0", b"1"]),
        ("ends_by_exit", 0, [b"0", b"1"]),
        ("ends_in_a_cycle", 0, [b"0", b"1"]),
        ("ends_with_a_generator", 0, [b"0", b"1"]),
        ("ends_by_error", 1, [b"0", b"1"]),
        ("ends_at_once", 0, [b"0"]),
        ("ends_by_signal", -signal.SIGTERM, [b"0"]),
    ],
)
def test_an_interpreter_ends(name: str, code: int, there: list[bytes], tmp_path: Path) -> None:
    """With handles open: it ends, says nothing, and what was acked (and, in good order, what lingered) is there."""
    said = live("endings.py", name, tmp_path / "life.log", code=code)
    assert said == ""
    with open_log(tmp_path / "life.log", lock_timeout=2) as log:
        values = [message.value for message in log["orders"].scan()]
        assert values[: len(there)] == there
        assert set(values) <= {b"0", b"1", b"2"}
        with log["orders"].consumer(stop="end") as consumer:
            assert len(list(consumer)) == len(values), "what was in hand when the program ended comes again"
