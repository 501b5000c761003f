"""What is a member told, what is its name worth, and how long may it take?"""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.unit.members import committed, drain, fill, look, numbers_of, parts
from tidelog.channel import Queue
from tidelog.consumer import Assigned
from tidelog.errors import Fenced, Timeout
from tidelog.log import Log

# --- on_assign, on_revoke ---


def test_what_is_told_and_when(queue: Queue[bytes]) -> None:
    fill(queue, 3)
    told: list[tuple[str, str, tuple[Assigned, ...]]] = []

    def teller(who: str) -> dict[str, Any]:
        return {
            "on_assign": lambda new: told.append((who, "+", tuple(new))),
            "on_revoke": lambda old: told.append((who, "-", tuple(old))),
        }

    with queue.consumer(**teller("a")) as a:
        assert a.assignment == parts(0, 1, 2, 3)
        assert told == [], "the calls that receive tell"
        a.receive(timeout=5)
        assert told == [("a", "+", parts(0, 1, 2, 3))]
        with queue.consumer(**teller("b")) as b:
            a.receive(timeout=5)
            b.receive(timeout=5)
            lost = tuple(part for part in parts(0, 1, 2, 3) if part not in a.assignment)
            assert told[1:] == [("a", "-", lost), ("b", "+", lost)], "given back before it is taken"
            assert b.assignment == lost
        assert told[3:] == [("b", "-", lost)], "left without an exception"
        a.receive(timeout=5)
        assert told[4:] == [("a", "+", lost)]
    assert told[5:] == [("a", "-", parts(0, 1, 2, 3))]
    told.clear()
    consumer = queue.consumer(**teller("c"))
    consumer.receive(timeout=5)
    consumer.close()
    assert [what for _, what, _ in told] == ["+"], "close alone calls nothing, as it commits nothing"


def test_manual_commits_in_on_revoke(queue: Queue[bytes]) -> None:
    fill(queue, 10)
    done: dict[int, Any] = {}

    def save(lost: list[Assigned]) -> None:
        for part in lost:
            if part.partition in done:
                a.commit(done[part.partition])

    a = queue.consumer(delivery="manual", on_revoke=save)
    for _ in range(12):
        message = a.receive(timeout=5)
        done[message.partition] = message
    assert committed(queue) == {}
    b = queue.consumer(delivery="manual")
    a.receive_many(1, timeout=0)
    lost = {0, 1, 2, 3} - numbers_of(a)
    assert committed(queue) == {partition: done[partition].offset + 1 for partition in lost if partition in done}
    others = b.receive_many(1000, timeout=5)
    assert others
    assert b.assignment == parts(*sorted(lost))
    for message in others:
        assert message.partition not in done or message.offset > done[message.partition].offset
    a.close()
    b.close()


def test_what_may_be_called_inside(queue: Queue[bytes]) -> None:
    fill(queue, 10)
    refused: list[BaseException] = []

    def on_assign(new: list[Assigned]) -> None:
        for part in new:
            consumer.seek((part.partition, 5))
            consumer.pause(part.partition)
            consumer.resume(part.partition)
        assert consumer.lag == 5 * len(consumer.assignment)
        for call in (
            lambda: consumer.receive(timeout=0),
            lambda: next(consumer),
            lambda: consumer.receive_many(5, timeout=0),
        ):
            try:
                call()
            except RuntimeError as error:
                refused.append(error)

    consumer = queue.consumer(on_assign=on_assign)
    assert consumer.receive(timeout=5).offset == 5
    assert len(refused) == 3
    assert "may commit, seek" in str(refused[0])
    consumer.close()


def test_an_error_in_a_callback_comes_out_and_breaks_nothing(queue: Queue[bytes]) -> None:
    fill(queue, 10)

    told: list[list[Assigned]] = []

    def fail(_: list[Assigned]) -> None:
        raise LookupError("told")

    def fail_at_first(new: list[Assigned]) -> None:
        told.append(new)
        for part in new:
            a.seek((part.partition, 1))
            if len(told) % 2:
                raise LookupError("told")

    a = queue.consumer(on_assign=fail_at_first, on_revoke=fail)
    with pytest.raises(LookupError):
        a.receive(timeout=5)
    assert a.receive(timeout=5).offset == 1, "nothing is read before it went through"
    assert [tuple(new) for new in told] == [parts(0, 1, 2, 3)] * 2
    b = queue.consumer()
    with pytest.raises(LookupError):
        a.receive(timeout=5)
    assert len(a.assignment) == 2
    assert b.receive(timeout=5).partition not in numbers_of(a)
    assert len(a.receive_many(100, timeout=5)) > 0
    b.close()
    with pytest.raises(LookupError):
        a.receive(timeout=5)
    assert a.assignment == parts(0, 1, 2, 3)
    assert a.receive_many(100, timeout=5).offsets.min() > 0
    assert len(told) == 4
    assert told[2] == told[3]
    a.close()


def test_what_went_before_on_assign_was_told_of_it_is_told_of_no_more(queue: Queue[bytes]) -> None:
    fill(queue, 10)
    told: list[tuple[str, tuple[Assigned, ...]]] = []

    def on_assign(new: list[Assigned]) -> None:
        told.append(("+", tuple(new)))
        if len(told) == 1:
            raise LookupError("told")

    a = queue.consumer(on_assign=on_assign, on_revoke=lambda old: told.append(("-", tuple(old))))
    with pytest.raises(LookupError):
        a.receive(timeout=5)
    b = queue.consumer()
    a.receive(timeout=5)
    assert told == [("+", parts(0, 1, 2, 3)), ("+", a.assignment)]
    assert len(a.assignment) == 2
    a.close()
    b.close()


# --- names ---


def test_a_name_comes_back_to_its_partitions(tide: Log, queue: Queue[bytes]) -> None:
    a, b = queue.consumer(member="a"), queue.consumer(member="b")
    assert a.member == "a"
    look(a, b)
    before, generation = (a.assignment, b.assignment), a.generation
    b.close()
    look(a)
    assert (a.assignment, a.generation) == (before[0], generation), "nobody gets what waits for b"
    fill(queue, 3)
    assert {message.partition for message in a.receive_many(100, timeout=5)} <= numbers_of(a)
    b = queue.consumer(member="b")
    assert b.assignment == before[1]
    assert drain(a, b)
    assert (a.assignment, b.assignment) == before
    assert a.generation == b.generation == generation
    a.close()
    b.close()


def test_a_name_is_waited_for_only_so_long(queue: Queue[bytes]) -> None:
    a, b = queue.consumer(), queue.consumer(member="b", member_timeout=0.3)
    look(a, b)
    b.close()
    look(a)
    assert len(a.assignment) == 2
    deadline = time.monotonic() + 10
    while len(a.assignment) < 4 and time.monotonic() < deadline:
        a.receive_many(1, timeout=0.05)
    assert a.assignment == parts(0, 1, 2, 3)
    a.close()


def test_the_newer_of_a_name_takes_its_place(queue: Queue[bytes]) -> None:
    fill(queue, 10)
    told: list[Any] = []
    old = queue.consumer(member="m", delivery="manual", on_revoke=told.append)
    message = old.receive(timeout=5)
    new = queue.consumer(member="m", delivery="manual")
    assert new.receive(timeout=5).offset == 0
    assert new.assignment == parts(0, 1, 2, 3)
    with pytest.raises(Fenced, match=r"has the name of this one now.*close this one"):
        old.commit(message)
    for _ in range(3):
        with pytest.raises(Fenced, match="name 'm'"):
            old.receive(timeout=5)
    assert told == [list(parts(0, 1, 2, 3))], "said once"
    assert old.assignment == ()
    old.close()
    assert new.receive_many(100, timeout=5)
    assert new.assignment == parts(0, 1, 2, 3)
    new.close()


# --- a limit on handling ---


def test_who_takes_too_long_is_expelled(queue: Queue[bytes]) -> None:
    fill(queue, 10)
    slow = queue.consumer(max_processing=0.3)
    message = slow.receive(timeout=5)
    other = queue.consumer()
    deadline = time.monotonic() + 20
    got: list[Any] = []
    while len(other.assignment) < 4 and time.monotonic() < deadline:
        got += other.receive_many(1000, timeout=0.05)
    assert other.assignment == parts(0, 1, 2, 3)
    assert (message.partition, 0) in {(one.partition, one.offset) for one in got}, "not committed, so it comes again"
    with pytest.raises(Fenced, match=r"max_processing.*receive again to join anew"):
        slow.commit(message)
    other.receive_many(1000, timeout=0)
    assert committed(queue) == dict.fromkeys(range(4), 10)
    look(slow, other)
    assert len(slow.assignment) == len(other.assignment) == 2, "it has joined anew"
    slow.close()
    other.close()


def test_at_least_once_of_an_expelled_one_says_fenced_once(queue: Queue[bytes]) -> None:
    fill(queue, 2)
    slow = queue.consumer(max_processing=0.2)
    slow.receive(timeout=5)
    time.sleep(0.6)
    with queue.consumer() as other:
        other.receive_many(100, timeout=5)
        with pytest.raises(Fenced, match=r"group 'orders'.*receive again to join anew") as caught:
            slow.receive(timeout=0)
        assert "open a new" not in str(caught.value)
        look(slow, other)
        assert len(slow.assignment) == 2
    slow.close()


def test_a_late_commit_is_fenced_although_nobody_took_over(tide: Log, queue: Queue[bytes]) -> None:
    fill(queue, 2)
    slow = queue.consumer(max_processing=0.1, delivery="manual")
    message = slow.receive(timeout=5)
    deadline = time.monotonic() + 20
    while tide.engine.members("orders").members and time.monotonic() < deadline:
        time.sleep(0.02)
    with pytest.raises(Fenced):
        slow.commit(message)
    with pytest.raises(Fenced):
        slow.commit()
    assert committed(queue) == {}
    assert slow.receive(timeout=5).offset == 0
    assert slow.assignment == parts(0, 1, 2, 3)
    slow.close()


def test_waiting_is_not_handling(queue: Queue[bytes]) -> None:
    with queue.consumer(max_processing=0.2) as consumer, queue.consumer() as other:
        look(consumer, other)
        before = consumer.generation
        for _ in range(4):
            with pytest.raises(Timeout):
                consumer.receive(timeout=0.25)
        look(other)
        assert consumer.generation == other.generation == before
        assert len(consumer.assignment) == 2


def test_iterating_tells_the_group_of_every_message(queue: Queue[bytes]) -> None:
    """Messages of one read are handed over without a look at the log; each has the whole time all the same."""
    fill(queue, 10)
    with queue.consumer(max_processing=0.4) as consumer:
        before = consumer.generation
        for _, _ in zip(range(10), consumer, strict=False):
            time.sleep(0.1)
        assert consumer.generation == before


def test_a_long_handler_without_a_limit_keeps_everything(queue: Queue[bytes]) -> None:
    fill(queue, 1)
    with queue.consumer() as a, queue.consumer() as b:
        a.receive(timeout=5)
        while not b.assignment:
            a.receive_many(1, timeout=0)
            b.receive_many(1, timeout=0)
        generation = a.generation
        begin = time.monotonic()
        while time.monotonic() - begin < 2:
            b.receive_many(1, timeout=0.1)
        assert (a.generation, b.generation) == (generation, generation)
