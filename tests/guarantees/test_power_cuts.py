"""What is left, and what is delivered again, after the power was cut?

Real cuts of a file system by cut.py, which says what happens before one; it needs root and a loop device, and where
they are missing these tests fail. A cut serves all deliveries.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import tidelog
from tests.guarantees.actor import ROOT, Actor
from tests.guarantees.cells import Cell, cells

OLD, FRESH = ["a", "b", "c", "d"], ["e", "f"]

# By delivery, where the group may stand: not before what was committed ten flush intervals earlier, and not behind what
# was committed at last.
AFTER_A_CUT = {"at-least-once": (2, 5), "at-most-once": (3, 6), "manual": (2, 5), "none": (0, 0)}
AFTER_A_SYNCED_COMMIT = {"at-least-once": (6, 6), "at-most-once": (6, 6), "manual": (6, 6), "none": (0, 0)}
AFTER_A_CLOSE = {"at-least-once": (6, 6), "at-most-once": (6, 6), "manual": (5, 5), "none": (0, 0)}


@functools.cache
def cut(ack: str, when: str) -> dict[str, Any]:
    """What is there after it."""
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("cut.py"), ack, when],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, f"exit code {done.returncode} (77: it cannot run here): {done.stdout}{done.stderr}"
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def expect(cell: Cell, found: dict[str, Any], kept: bool, stands: tuple[int, int]) -> None:
    """Nothing but the end is lost, no offset is given out twice, and the group goes on where it may."""
    history = found["history"]
    assert history[: len(OLD)] == OLD and history == (OLD + FRESH)[: len(history)]
    if kept or cell.ack == "synced":
        assert history == OLD + FRESH
    assert found["next"] >= found["end"] >= len(OLD + FRESH)
    least, most = stands
    assert found["got"][cell.delivery] in [[*history[at:], "after"] for at in range(least, most + 1)]


@cells("directory")
def test_power_cut(cell: Cell) -> None:
    expect(cell, cut(cell.ack, "open"), False, AFTER_A_CUT[cell.delivery])


@cells("directory")
def test_power_cut_after_a_synced_commit(cell: Cell) -> None:
    expect(cell, cut(cell.ack, "committed"), False, AFTER_A_SYNCED_COMMIT[cell.delivery])


@cells("directory")
def test_power_cut_after_kill(cell: Cell) -> None:
    expect(cell, cut(cell.ack, "killed"), False, AFTER_A_CUT[cell.delivery])


@cells("directory")
def test_power_cut_after_close(cell: Cell) -> None:
    expect(cell, cut(cell.ack, "closed"), True, AFTER_A_CLOSE[cell.delivery])


@cells("memory")
def test_memory_power_cut(cell: Cell) -> None:
    """A directory in RAM is gone; one that had to stand on a disk is found by the next one and removed."""
    with tidelog.open("memory:") as log:
        actor = Actor(log)
        actor.make()
        actor.send(["a", "b"], cell.ack)
        actor.join("first", cell.delivery)
        assert actor.receive("first") == "a"
        place = Path(actor.place())
        left = place.with_name(place.name[:-4] + "left")
        # Nobody holds its lock, as after a cut; its name comes last, for any `memory:` may remove it from then on.
        copied = place.with_name(f"copy-of-{place.name}")
        shutil.copytree(place, copied)
        copied.rename(left)
        actor.leave("first")
    try:
        with tidelog.open("memory:") as log:
            assert list(log) == []
            assert not os.path.exists(left)
    finally:
        shutil.rmtree(left, ignore_errors=True)
