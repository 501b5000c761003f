"""What can a forked child do to the messages of its parent? Nothing, in every cell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.guarantees.actor import Remote
from tests.guarantees.cells import Cell, cells, expect_results


@cells()
def test_fork(cell: Cell, tmp_path: Path, remote: Callable[..., Remote]) -> None:
    parent = remote("memory:" if cell.engine == "memory" else tmp_path / "log")
    parent.make()
    parent.send(["a", "b", "c"], cell.ack)
    parent.join("first", cell.delivery, cell.ack)
    assert parent.receive("first") == "a"
    received, committed, sent, scanned, closed = parent.fork("first")
    assert (received, committed, sent, scanned, closed) == ("Forked", "Forked", "Forked", "Forked", "nothing")
    if cell.delivery == "manual":
        parent.commit("first")
    assert parent.receive("first") == "b", "the parent is not concerned, and a was committed as ever"
    parent.leave("first", "raise")
    parent.join("next", cell.delivery, cell.ack)
    again = {"at-most-once": ["c"], "none": ["a", "b", "c"]}.get(cell.delivery, ["b", "c"])
    assert parent.rest("next", len(again)) == again
    expect_results(cell, parent, ["a", "b", "c"])
