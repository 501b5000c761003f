"""What is delivered again, and what is lost, when a process is killed, or a receiver fails?

Every test sends a, b, c and d to one partition. Its first receiver has taken a and b, and b is in hand: the manual one
has committed a. What the next one gets is the guarantee.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import tidelog
from tests.guarantees.actor import Actor, Remote
from tests.guarantees.cells import Cell, cells, expect_results

AFTER_A_FAILURE = {
    "at-least-once": ["b", "c", "d"],
    "at-most-once": ["c", "d"],
    "manual": ["b", "c", "d"],
    "exactly-once": ["b", "c", "d"],
    "none": ["a", "b", "c", "d"],
}
"""By delivery, what a receiver gets that follows one which failed with b in hand."""
AFTER_AN_END = AFTER_A_FAILURE | {"at-least-once": ["c", "d"], "exactly-once": ["c", "d"]}
"""The same, when the first one has ended its `with` without an exception."""


def take_two(receiver: Actor | Remote, cell: Cell) -> None:
    """The first receiver takes a and b."""
    receiver.join("first", cell.delivery, cell.ack)
    assert receiver.receive("first") == "a"
    if cell.delivery == "manual":
        receiver.commit("first")
    assert receiver.receive("first") == "b"


def expect_next(receiver: Actor | Remote, cell: Cell, values: list[str]) -> None:
    """Another receiver gets these."""
    receiver.join("next", cell.delivery, cell.ack)
    assert receiver.rest("next", len(values)) == values


@cells("directory")
def test_receiver_killed(cell: Cell, directory: Path, remote: Callable[..., Remote]) -> None:
    victim, other = remote(directory), remote(directory)
    other.send(["a", "b", "c", "d"], cell.ack)
    take_two(victim, cell)
    victim.kill()
    expect_next(other, cell, AFTER_A_FAILURE[cell.delivery])
    expect_results(cell, other, ["a", "b", "c", "d"])


@cells("directory")
def test_sender_killed(cell: Cell, directory: Path, remote: Callable[..., Remote]) -> None:
    """Acknowledged messages are there. What it was about to send is there or not: whole, in order, once."""
    sender, other = remote(directory), remote(directory)
    assert sender.send(["a", "b", "c", "d"], cell.ack) == [0, 1, 2, 3]
    other.join("first", cell.delivery, cell.ack)
    assert [other.receive("first") for _ in range(3)] == ["a", "b", "c"]
    sender.begin("send_without_end")
    sender.answer()
    sender.kill()
    other.handle_together("first", 200)
    value, *more = other.rest("first", 101)
    assert value == "d"
    assert more == [f"more {number}" for number in range(len(more))]
    assert other.send(["after"], cell.ack) == [4 + len(more)]
    assert other.rest("first", 1) == ["after"]
    expect_results(cell, other, ["a", "b", "c", "d", *more, "after"])


@cells("directory")
def test_everybody_killed(cell: Cell, tmp_path: Path, remote: Callable[..., Remote]) -> None:
    sender, receiver = remote(tmp_path / "log"), remote(tmp_path / "log")
    sender.make()
    sender.send(["a", "b", "c", "d"], cell.ack)
    take_two(receiver, cell)
    sender.kill()
    receiver.kill()
    after = remote(tmp_path / "log")
    expect_next(after, cell, AFTER_A_FAILURE[cell.delivery])
    expect_results(cell, after, ["a", "b", "c", "d"])


@cells()
def test_receiver_raises(cell: Cell, here: Callable[[str], Actor]) -> None:
    actor = here(cell.engine)
    actor.make()
    actor.send(["a", "b", "c", "d"], cell.ack)
    take_two(actor, cell)
    actor.leave("first", "raise")
    expect_next(actor, cell, AFTER_A_FAILURE[cell.delivery])
    expect_results(cell, actor, ["a", "b", "c", "d"])


@cells()
def test_receiver_ends(cell: Cell, here: Callable[[str], Actor]) -> None:
    actor = here(cell.engine)
    actor.make()
    actor.send(["a", "b", "c", "d"], cell.ack)
    take_two(actor, cell)
    actor.leave("first", "done")
    expect_next(actor, cell, AFTER_AN_END[cell.delivery])
    expect_results(cell, actor, ["a", "b", "c", "d"])


@cells("memory")
def test_memory_killed(cell: Cell, remote: Callable[..., Remote]) -> None:
    """A log in memory ends with its process: nothing of it is found again."""
    victim = remote("memory:")
    victim.make()
    victim.send(["a", "b", "c", "d"], cell.ack)
    take_two(victim, cell)
    place = victim.place()
    assert os.path.isdir(place)
    victim.kill()
    with tidelog.open("memory:") as log:
        assert list(log) == []
        assert not os.path.exists(place), "what a killed process leaves is removed by the next one"
        actor = Actor(log)
        actor.make()
        expect_next(actor, cell, [])
        expect_results(cell, actor, [])
        actor.leave("next")


@pytest.mark.parametrize("delivery", ["at-least-once", "manual"])
def test_a_batch_is_delivered_again_as_a_whole(delivery: str, here: Callable[[str], Actor]) -> None:
    """The row of a receiver that fails, with receive_many: what was in the batch is what was in hand."""
    actor = here("memory")
    actor.make()
    actor.send(["a", "b", "c", "d"], "written")
    actor.join("first", delivery)
    assert len(actor.receivers["first"].receive_many(3)) == 3
    actor.leave("first", "raise")
    expect_next(actor, Cell("memory", "written", delivery), ["a", "b", "c", "d"])
