"""What is delivered again when the consumers of a group come, go, or are expelled?

Two partitions of three messages each; a receiver without a group reads all of them, whoever else there is. Everything
is called in turn by one thread, so that every hand-over is where the test puts it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import pytest

from tests.guarantees.actor import WAIT_SECONDS, Actor
from tests.guarantees.cells import Cell, cells, expect_results
from tidelog.errors import Fenced

LIMIT_SECONDS = 0.2
ALL = [f"{partition}{number}" for partition in range(2) for number in range(3)]


@pytest.fixture
def actor(cell: Cell, here: Callable[[str], Actor]) -> Actor:
    actor = here(cell.engine)
    actor.make(partitions=2)
    return actor


def send(actor: Actor, ack: str) -> None:
    for partition in range(2):
        actor.send([value for value in ALL if value[0] == str(partition)], ack, partition)


def share(actor: Actor) -> None:
    """Let both have one partition."""
    first, second = actor.receivers["first"], actor.receivers["second"]
    end = time.monotonic() + WAIT_SECONDS
    while not len(first.assignment) == len(second.assignment) == 1:
        assert actor.receive("first", 0.01) is None and actor.receive("second", 0.01) is None
        assert time.monotonic() < end


def take_turns(actor: Actor, cell: Cell, count: int, *names: str) -> list[str]:
    """All messages that come, asked for by these in turn: `count` must, then there is silence."""
    found: list[str] = []
    end = time.monotonic() + WAIT_SECONDS
    silent = 0
    while silent < 4 * len(names) or (len(found) < count and time.monotonic() < end):
        for name in names:
            value = actor.receive(name, 0.03)
            silent = silent + 1 if value is None else 0
            if value is not None:
                found.append(value)
                if cell.delivery == "manual":
                    actor.commit(name)
    return found


@cells()
def test_member_joins(cell: Cell, actor: Actor) -> None:
    """While the first has a message in hand."""
    send(actor, cell.ack)
    actor.join("first", cell.delivery, cell.ack)
    found = [actor.receive("first") or ""]
    actor.join("second", cell.delivery, cell.ack)
    if cell.delivery == "manual":
        actor.commit("first")
    if cell.in_group:
        found += take_turns(actor, cell, len(ALL) - 1, "first", "second")
        assert sorted(found) == ALL, "nothing twice, nothing lost"
        expect_results(cell, actor, ALL, in_order=False)
        assert sorted(actor.held("first") + actor.held("second")) == [0, 1]
        assert actor.held("first") and actor.held("second")
    else:
        found += take_turns(actor, cell, 2 * len(ALL) - 1, "first", "second")
        assert Counter(found) == Counter(ALL * 2)


@cells()
def test_member_leaves(cell: Cell, actor: Actor) -> None:
    """By close(), with a message in hand that only at-most-once has committed."""
    actor.join("first", cell.delivery, cell.ack)
    actor.join("second", cell.delivery, cell.ack)
    if cell.in_group:
        share(actor)
    send(actor, cell.ack)
    in_hand = actor.receive("second")
    actor.leave("second", "close")
    again = [value for value in ALL if cell.delivery != "at-most-once" or value != in_hand]
    assert sorted(take_turns(actor, cell, len(again), "first")) == again
    expect_results(cell, actor, ALL, in_order=False)


@cells()
def test_member_expelled(cell: Cell, actor: Actor) -> None:
    """It has handled one message for longer than max_processing; then it goes on, as a new member."""
    actor.join("first", cell.delivery, cell.ack)
    if not cell.in_group:  # there is nothing to be expelled from
        send(actor, cell.ack)
        first = actor.receive("first") or ""
        time.sleep(2 * LIMIT_SECONDS)
        assert sorted([first, *actor.rest("first", len(ALL) - 1)]) == ALL
        return
    actor.join("second", cell.delivery, cell.ack, max_processing=LIMIT_SECONDS)
    share(actor)
    send(actor, cell.ack)
    in_hand = actor.receive("second")
    time.sleep(2 * LIMIT_SECONDS)
    again = [value for value in ALL if cell.delivery != "at-most-once" or value != in_hand]
    assert sorted(take_turns(actor, cell, len(again), "first")) == again
    if cell.delivery == "manual":
        with pytest.raises(Fenced):
            actor.commit("second")
    if cell.delivery in ("at-least-once", "exactly-once"):
        with pytest.raises(Fenced):
            actor.receive("second", 0)
    assert take_turns(actor, cell, 0, "first", "second") == []
    expect_results(cell, actor, ALL, in_order=False)
    assert actor.held("first") and actor.held("second")


@pytest.mark.parametrize("engine", ["directory", "memory"])
@pytest.mark.parametrize("many", [False, True], ids=["message", "batch"])
def test_a_late_commit_never_moves_a_group_back(engine: str, many: bool, here: Callable[[str], Actor]) -> None:
    """Also when the expelled member has its partition again, which others have gone on with meanwhile."""
    actor = here(engine)
    actor.make()
    actor.send(list("abcdefg"), "written")
    actor.join("first", "manual", max_processing=LIMIT_SECONDS)
    late = actor.receivers["first"]
    in_hand = late.receive_many(2) if many else late.receive(timeout=WAIT_SECONDS)
    time.sleep(2 * LIMIT_SECONDS)
    actor.join("second", "manual")
    assert [actor.receive("second") for _ in "abcdef"] == list("abcdef")
    actor.commit("second")
    actor.leave("second")
    assert actor.receive("first") == "g"
    with pytest.raises(Fenced):
        late.commit(in_hand)
    assert [row.offset for row in actor.orders.offsets()] == [6]
    actor.commit("first")
    assert [row.offset for row in actor.orders.offsets()] == [7]


def test_who_never_asks_is_expelled_too(here: Callable[[str], Actor]) -> None:
    """`max_processing` counts from the moment a consumer is made, so that one which hangs before its first call is no
    exception; it joins anew when it asks."""
    actor = here("memory")
    actor.make()
    actor.send(["a", "b"], "written")
    actor.join("first", "at-least-once", max_processing=LIMIT_SECONDS)
    actor.join("second", "at-least-once")
    assert actor.receive("second") == "a"
    assert actor.receive("first", 0) is None
    actor.leave("second")
    assert actor.receive("first") == "b"
