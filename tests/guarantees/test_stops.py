"""What happens while a process is stopped, and what once it goes on?

One partition. The first receiver has "a" in hand when its process gets SIGSTOP, and nothing is committed but by
at-most-once. A second one of the group waits.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.guarantees.actor import Remote
from tests.guarantees.cells import Cell, cells, expect_results
from tidelog.errors import Fenced

LIMIT_SECONDS = 0.3
STOPPED_SECONDS = 0.7


@cells("directory")
def test_receiver_stopped(cell: Cell, directory: Path, remote: Callable[..., Remote]) -> None:
    """It keeps its partition, and goes on as if nothing had been. Without a group others are not concerned at all."""
    stopped, other = remote(directory), remote(directory)
    other.send(["a", "b"], cell.ack)
    stopped.join("first", cell.delivery, cell.ack)
    other.join("next", cell.delivery, cell.ack)
    assert stopped.receive("first") == "a"
    stopped.signal(signal.SIGSTOP)
    others = [] if cell.in_group else ["a", "b"]
    assert other.rest("next", len(others), STOPPED_SECONDS) == others
    stopped.signal(signal.SIGCONT)
    if cell.delivery == "manual":
        stopped.commit("first")
    assert stopped.rest("first", 1) == ["b"]
    if cell.delivery == "manual":
        stopped.commit_all("first")
    stopped.leave("first")
    assert other.rest("next", 0) == []
    expect_results(cell, other, ["a", "b"])


@cells("directory")
def test_receiver_stopped_with_max_processing(cell: Cell, directory: Path, remote: Callable[..., Remote]) -> None:
    stopped, other = remote(directory), remote(directory)
    other.send(["a", "b"], cell.ack)
    options = {"max_processing": LIMIT_SECONDS} if cell.in_group else {}
    stopped.join("first", cell.delivery, cell.ack, **options)
    other.join("next", cell.delivery, cell.ack)
    assert stopped.receive("first") == "a"
    stopped.signal(signal.SIGSTOP)
    expect_taken_over(cell, stopped, other, lambda: stopped.signal(signal.SIGCONT))


@cells("directory")
def test_sender_stopped(cell: Cell, directory: Path, remote: Callable[..., Remote]) -> None:
    """What it had acknowledged is there, others send and receive; it goes on where it was."""
    stopped, other = remote(directory), remote(directory)
    stopped.send(["a"], cell.ack)
    stopped.signal(signal.SIGSTOP)
    other.send(["b"], cell.ack)
    other.join("first", cell.delivery, cell.ack)
    assert other.rest("first", 2) == ["a", "b"]
    stopped.signal(signal.SIGCONT)
    stopped.send(["c"], cell.ack)
    assert other.rest("first", 1) == ["c"]
    expect_results(cell, other, ["a", "b", "c"])


@cells("memory")
def test_memory_stopped(cell: Cell, remote: Callable[..., Remote]) -> None:
    """All who use it are stopped at once, and all go on."""
    process = remote("memory:")
    process.make()
    process.send(["a", "b"], cell.ack)
    process.join("first", cell.delivery, cell.ack)
    assert process.receive("first") == "a"
    process.signal(signal.SIGSTOP)
    time.sleep(STOPPED_SECONDS)
    process.signal(signal.SIGCONT)
    process.join("next", cell.delivery, cell.ack)
    others = [] if cell.in_group else ["a", "b"]
    assert process.rest("next", len(others)) == others
    assert process.rest("first", 1) == ["b"]
    expect_results(cell, process, ["a", "b"])


@cells("memory")
def test_memory_stopped_with_max_processing(cell: Cell, remote: Callable[..., Remote]) -> None:
    """Time goes on while a process is stopped: who had a message in hand is overdue when it goes on."""
    process = remote("memory:")
    process.make()
    process.send(["a", "b"], cell.ack)
    process.join("first", cell.delivery, cell.ack, **({"max_processing": LIMIT_SECONDS} if cell.in_group else {}))
    process.join("next", cell.delivery, cell.ack)
    assert process.receive("first") == "a"
    process.signal(signal.SIGSTOP)
    time.sleep(STOPPED_SECONDS)
    process.signal(signal.SIGCONT)
    expect_taken_over(cell, process, process, lambda: None)


def expect_taken_over(cell: Cell, late: Remote, other: Remote, go_on: Callable[[], None]) -> None:
    """The others have what the late one had, from what is committed on; it is refused, then is a member again."""
    if not cell.in_group:
        assert other.rest("next", 2) == ["a", "b"]
        go_on()
        assert late.rest("first", 1) == ["b"]
        return
    first = other.receive("next")
    assert first == ("b" if cell.delivery == "at-most-once" else "a")
    go_on()
    if cell.delivery == "manual":
        with pytest.raises(Fenced):
            late.commit("first")
    if cell.delivery in ("at-least-once", "exactly-once"):
        with pytest.raises(Fenced):
            late.receive("first", 0.3)
    assert late.receive("first", 0.3) is None, "it has joined anew, and the partition is another's"
    more = ["b"] if first == "a" else []
    assert other.rest("next", len(more)) == more
    if cell.delivery == "manual":
        other.commit_all("next")
    other.leave("next")
    assert late.rest("first", 0) == []
    expect_results(cell, other, ["a", "b"])
