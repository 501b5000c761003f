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
from tests.guarantees.cells import Cell, application_cells, cells

OLD, FRESH = ["a", "b", "c", "d"], ["e", "f"]

# By delivery, where the group may stand: not before what was committed ten flush intervals earlier, and not behind what
# was committed at last.
AFTER_A_CUT = {
    "at-least-once": (2, 5),
    "at-most-once": (3, 6),
    "manual": (2, 5),
    "exactly-once": (2, 5),
    "none": (0, 0),
}
AFTER_A_SYNCED_COMMIT = dict.fromkeys(AFTER_A_CUT, (6, 6)) | {"none": (0, 0)}
AFTER_A_CLOSE = AFTER_A_SYNCED_COMMIT | {"manual": (5, 5)}
SYNCED_TRANSACTIONS = (5, 5)
"""Where an exactly-once group stands after a cut: f was in hand."""


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


def expect(cell: Cell, found: dict[str, Any], kept: bool, stands: tuple[int, int], once: bool = False) -> None:
    """Nothing but the end is lost, no offset is given out twice, and the group goes on where it may. `once`: and what
    came of the messages is there once each; else some of what is fresh may be missing or be there twice."""
    history = found["history"]
    assert history[: len(OLD)] == OLD and history == (OLD + FRESH)[: len(history)]
    if kept or cell.ack == "synced":
        assert history == OLD + FRESH
    assert found["next"] >= found["end"] >= len(OLD + FRESH)
    least, most = stands
    assert found["got"][cell.delivery] in [[*history[at:], "after"] for at in range(least, most + 1)]
    if cell.delivery == "exactly-once":
        results = found["results"]
        if once or kept:
            assert results == [*OLD, *FRESH, "after"]
        assert results[:2] == OLD[:2] and all(results.count(value) == 1 for value in [*OLD[:2], "after"])
        assert set(results) <= {*OLD, *FRESH, "after"} and len(results) <= 2 + 2 * len("cde") + len(["f", "after"])


def expect_after_a_cut(cell: Cell, when: str) -> None:
    """What a group had committed in the last two intervals may be gone, but not with a synced transaction."""
    once = cell.delivery == "exactly-once" and cell.ack == "synced"
    expect(cell, cut(cell.ack, when), False, SYNCED_TRANSACTIONS if once else AFTER_A_CUT[cell.delivery], once)


@cells("directory")
def test_power_cut(cell: Cell) -> None:
    expect_after_a_cut(cell, "open")


@cells("directory")
def test_power_cut_after_a_synced_commit(cell: Cell) -> None:
    expect(cell, cut(cell.ack, "committed"), False, AFTER_A_SYNCED_COMMIT[cell.delivery], once=True)


@cells("directory")
def test_power_cut_after_kill(cell: Cell) -> None:
    expect_after_a_cut(cell, "killed")


@cells("directory")
def test_power_cut_after_close(cell: Cell) -> None:
    expect(cell, cut(cell.ack, "closed"), True, AFTER_A_CLOSE[cell.delivery])


@application_cells()
def test_application_power_cut(cell: Cell) -> None:
    """Everything was handled and committed. Again is what was committed in the last two intervals, or with synced
    transactions nothing; what came of the old ones is there once."""
    found = cut(cell.ack, "open")
    history, (story, results) = found["history"], found["applications"][cell.delivery]
    once = cell.delivery == "exactly-once" and cell.ack == "synced"
    assert story in [[*history[at:], "after"] for at in range(len(OLD + FRESH) if once else len(OLD), 7)]
    assert results[: len(OLD)] == OLD and results[-1] == "after" and set(results) <= {*OLD, *FRESH, "after"}
    if once:
        assert results == [*OLD, *FRESH, "after"]
    elif cell.delivery == "at-least-once":
        assert len(set(results)) == len(results), "what was sent before is recognised by its id"
    else:
        assert len(results) <= len(OLD) + 2 * len(FRESH) + 1


@cells("memory")
def test_memory_power_cut(cell: Cell) -> None:
    """A directory in RAM is gone; one that had to stand on a disk is found by the next one and removed."""
    with tidelog.open("memory:") as log:
        actor = Actor(log)
        actor.make()
        actor.send(["a", "b"], cell.ack)
        actor.join("first", cell.delivery, cell.ack)
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
