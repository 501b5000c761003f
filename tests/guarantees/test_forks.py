"""What can a forked child do to the messages of its parent? Nothing, in every cell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.guarantees.actor import Remote
from tests.guarantees.cells import Cell, cells


@cells()
def test_fork(cell: Cell, tmp_path: Path, remote: Callable[..., Remote]) -> None:
    parent = remote("memory:" if cell.engine == "memory" else tmp_path / "log")
    parent.make()
    parent.send(["a", "b", "c"], cell.ack)
    parent.join("first", cell.delivery)
    assert parent.receive("first") == "a"
    received, committed, sent, scanned, closed = parent.fork("first")
    assert (received, committed, sent, scanned, closed) == ("Forked", "Forked", "Forked", "Forked", "nothing")
    if cell.delivery == "manual":
        parent.commit("first")
    assert parent.receive("first") == "b", "the parent is not concerned, and a was committed as ever"
    parent.leave("first", "raise")
    parent.join("next", cell.delivery)
    expected = {"at-least-once": ["b", "c"], "at-most-once": ["c"], "manual": ["b", "c"], "none": ["a", "b", "c"]}
    again = expected[cell.delivery]
    assert parent.rest("next", len(again)) == again
