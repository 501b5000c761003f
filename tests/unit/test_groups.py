"""Do the consumers of a group share its partitions, hand them over when they should, and lose nothing on the way?

Several consumers of one process, called in turn by one thread, so that every step is where the test puts it. What other
processes do to a group is in tests/processes/test_group_processes.py.
"""

from __future__ import annotations

import gc
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.members import committed, drain, fill, look, numbers_of, parts
from tidelog.channel import Queue
from tidelog.consumer import Consumer
from tidelog.errors import Timeout
from tidelog.log import Log

# --- sharing ---


def test_consumers_share_the_partitions(tide: Log, queue: Queue[bytes]) -> None:
    assert tide.can.rebalancing
    a, b, c = (queue.consumer() for _ in range(3))
    assert (a.assignment, b.assignment, c.assignment) == (parts(0, 1, 2, 3), (), ())
    look(a, b, c)
    assert sorted(map(len, (a.assignment, b.assignment, c.assignment))) == [1, 1, 2]
    assert numbers_of(a) | numbers_of(b) | numbers_of(c) == {0, 1, 2, 3}
    assert len({a.member, b.member, c.member}) == 3
    assert a.generation == b.generation == c.generation
    before = a.generation
    b.close()
    look(a, c)
    assert len(a.assignment) == len(c.assignment) == 2
    assert a.generation != before
    c.close()
    look(a)
    assert a.assignment == parts(0, 1, 2, 3)
    a.close()


def test_more_consumers_than_partitions(queue: Queue[bytes]) -> None:
    consumers = [queue.consumer() for _ in range(6)]
    look(*consumers)
    assert sorted(len(one.assignment) for one in consumers) == [0, 0, 1, 1, 1, 1]
    fill(queue, 5)
    assert sorted(drain(*consumers)) == sorted(b"%d-%d" % (p, n) for p in range(4) for n in range(5))
    idle = next(one for one in consumers if not one.assignment)
    assert (idle.lag, idle.position, idle.committed) == (0, {}, {})
    for one in consumers:
        one.close()


def test_what_was_handled_is_committed_before_another_takes_over(queue: Queue[bytes]) -> None:
    fill(queue, 10)
    with queue.consumer() as a, queue.consumer() as b:
        got = [a.receive(timeout=5).value for _ in range(3)]
        got += [b.receive(timeout=5).value for _ in range(3)]
        assert numbers_of(a) | numbers_of(b) == {0, 1, 2, 3}
        assert not numbers_of(a) & numbers_of(b)
        got += drain(a, b)
    assert Counter(got) == Counter(b"%d-%d" % (p, n) for p in range(4) for n in range(10)), "each exactly once"
    assert committed(queue) == dict.fromkeys(range(4), 10)


def test_a_message_in_hand_keeps_its_partition(queue: Queue[bytes]) -> None:
    """A handler that takes its time causes nothing: the newcomer waits for what it is to have."""
    fill(queue, 10)
    with queue.consumer() as a:
        in_hand = a.receive(timeout=5)
        with queue.consumer() as b:
            time.sleep(0.3)
            with pytest.raises(Timeout):
                b.receive(timeout=0.3)
            assert b.assignment == ()
            assert a.assignment == parts(0, 1, 2, 3)
            assert in_hand.partition not in committed(queue)
            a.receive(timeout=5)
            assert committed(queue)[in_hand.partition] == 1
            assert b.receive(timeout=5).partition not in numbers_of(a)


def test_what_was_read_ahead_of_a_lost_partition_is_not_delivered(tide: Log) -> None:
    queue = tide.queue("orders", partitions=2)
    fill(queue, 100, partitions=2)
    for delivery in ("at-least-once", "at-most-once", "manual"):
        topic = tide.topic(delivery, partitions=2)
        fill(topic, 100, partitions=2)
        with topic.consumer("g", delivery=delivery) as a:
            first = a.receive(timeout=5)  # and has read far ahead of it, in both
            b = topic.consumer("g", delivery=delivery)
            got = [next(a) for _ in range(60)]
            mine = numbers_of(a)
            assert len(mine) == 1
            assert {message.partition for message in got[1:]} == mine
            (other,) = {0, 1} - mine
            expected = 1 if first.partition == other and delivery != "manual" else 0
            assert b.receive(timeout=5).offset == expected
            assert numbers_of(b) == {other}
            b.close()


def test_close_frees_at_once_and_garbage_too(queue: Queue[bytes]) -> None:
    a, b = queue.consumer(), queue.consumer()
    look(a, b)
    a.close()
    look(b)
    assert b.assignment == parts(0, 1, 2, 3)
    c = queue.consumer()
    look(b, c)
    assert len(c.assignment) == 2
    del c
    gc.collect()
    look(b)
    assert b.assignment == parts(0, 1, 2, 3)
    b.close()


def test_a_message_that_failed_comes_to_another(queue: Queue[bytes]) -> None:
    fill(queue, 2, partitions=1)
    with pytest.raises(RuntimeError, match="failed"), queue.consumer() as failing:
        assert failing.receive(timeout=5).value == b"0-0"
        assert failing.receive(timeout=5).value == b"0-1"
        other = queue.consumer()
        raise RuntimeError("failed")
    assert drain(other) == [b"0-1"]
    other.close()


def test_groups_do_not_touch_each_other(tide: Log) -> None:
    topic = tide.topic("events", partitions=2)
    fill(topic, 5, partitions=2)
    a, b = topic.consumer("a"), topic.consumer("b")
    assert a.assignment == b.assignment == parts(0, 1, channel="events")
    assert len(drain(a)) == len(drain(b)) == 10
    a.close()
    b.close()


def test_a_consumer_that_waits_is_woken_for_its_partitions(queue: Queue[bytes]) -> None:
    fill(queue, 1)
    a = queue.consumer()
    a.receive(timeout=5)
    b = queue.consumer()
    found: list[bytes] = []
    thread = threading.Thread(target=lambda: found.append(b.receive(timeout=30).value))
    thread.start()
    time.sleep(0.2)
    assert not found
    begin = time.monotonic()
    a.close()
    thread.join(20)
    assert len(found) == 1
    assert time.monotonic() - begin < 5
    b.close()


# --- what is assigned now ---


def test_pause_seek_and_lag_speak_of_what_is_assigned(queue: Queue[bytes]) -> None:
    fill(queue, 10)
    with queue.consumer() as a, queue.consumer() as b:
        a.pause()
        assert a.lag == 40
        assert len(a.receive_many(1, timeout=0)) == 0
        assert b.receive_many(1, timeout=5)
        assert len(a.assignment) == len(b.assignment) == 2
        assert (a.lag, b.lag) == (20, 19)
        assert set(a.position) == set(a.assignment) == set(a.committed)
        gone = min(numbers_of(b))
        calls: list[Callable[[], Any]] = [lambda: a.seek((gone, 0)), lambda: a.pause(gone), lambda: a.resume(gone)]
        for call in calls:
            with pytest.raises(ValueError, match="not assigned"):
                call()
        with pytest.raises(ValueError, match="not read"):
            a.pause(channel="elsewhere")
        a.seek("latest")
        assert (a.lag, b.lag) == (0, 19)
        a.seek("earliest")
        assert len(a.receive_many(1, timeout=0)) == 0
        a.resume()
        assert {message.partition for message in a.receive_many(100, timeout=5)} == numbers_of(a)


def test_a_partition_that_comes_again_is_not_paused(queue: Queue[bytes]) -> None:
    fill(queue, 5)
    a = queue.consumer()
    a.pause()
    b = queue.consumer()
    assert len(a.receive_many(5, timeout=0)) == 0
    kept = numbers_of(a)
    assert len(kept) == 2
    b.close()
    found = {message.partition for message in (*a.receive_many(100, timeout=5), *a.receive_many(100, timeout=0.05))}
    assert found == {0, 1, 2, 3} - kept
    a.close()


# --- growing ---


def test_partitions_that_are_added_are_picked_up(tide: Log) -> None:
    queue = tide.queue("orders", partitions=1)
    with queue.consumer(start="latest") as a, queue.consumer(start="latest") as b:
        look(a, b)
        queue.configure(partitions=4)
        fill(queue, 3)
        got = drain(a, b)
        assert sorted(got) == sorted(b"%d-%d" % (p, n) for p in range(4) for n in range(3)), "from their beginning"
        assert len(a.assignment) == len(b.assignment) == 2
        (a if 3 in numbers_of(a) else b).seek((3, 0))


def test_a_sleeping_consumer_notices_more_partitions(tide: Log) -> None:
    topic = tide.topic("events", partitions=1)
    kinds: list[Callable[[], Consumer[Any]]] = [lambda: topic.consumer("g", start="latest"), topic.tail]
    for opened in kinds:
        consumer = opened()
        count = topic.partitions
        found: list[Any] = []
        thread = threading.Thread(target=lambda c=consumer, f=found: f.append(c.receive(timeout=30)))
        thread.start()
        time.sleep(0.1)
        topic.configure(partitions=count + 1)
        topic.send(b"new", partition=count)
        thread.join(20)
        assert [(message.partition, message.value) for message in found] == [(count, b"new")]
        consumer.close()


def test_added_partitions_are_behind_an_end_as_it_was(tide: Log) -> None:
    queue = tide.queue("orders", partitions=1)
    fill(queue, 3, partitions=1)
    with queue.consumer(stop="end") as consumer:
        queue.configure(partitions=2)
        queue.send(b"later", partition=1)
        assert [message.value for message in consumer] == [b"0-0", b"0-1", b"0-2"]


# --- several channels ---


def test_members_with_different_channels(tide: Log) -> None:
    one, two, three = (tide.topic(name, partitions=3) for name in ("one", "two", "three"))
    for topic in (one, two, three):
        topic.send_many([b"x"] * 9, keys=[b"%d" % number for number in range(9)])
    a = tide.consumer(one, group="g")
    b = tide.consumer(one, two, group="g")
    c = tide.consumer(two, three, group="g")
    assert len(drain(a, b, c)) == 27
    assert {assigned.channel for assigned in a.assignment} == {"one"}
    assert {assigned.channel for assigned in b.assignment} <= {"one", "two"}
    assert {assigned.channel for assigned in c.assignment} <= {"two", "three"}
    everything = [*a.assignment, *b.assignment, *c.assignment]
    assert len(everything) == len(set(everything)) == 9
    assert sorted(map(len, (a.assignment, b.assignment, c.assignment))) == [3, 3, 3]
    c.close()
    look(a, b)
    assert {assigned.channel for assigned in (*a.assignment, *b.assignment)} == {"one", "two"}
    assert len(a.assignment) == len(b.assignment) == 3
    a.close()
    b.close()


@pytest.mark.parametrize(
    ("strategy", "wanted"),
    [
        ("range", [{("x", 0), ("x", 1), ("y", 0), ("y", 1)}, {("x", 2), ("y", 2)}]),
        ("round-robin", [{("x", 0), ("x", 2), ("y", 1)}, {("x", 1), ("y", 0), ("y", 2)}]),
    ],
)
def test_kafkas_strategies(tide: Log, strategy: Any, wanted: list[set[tuple[str, int]]]) -> None:
    y, x = tide.topic("y", partitions=3), tide.topic("x", partitions=3)
    a = tide.consumer(y, x, group="g", strategy=strategy, member="a")
    b = tide.consumer(x, y, group="g", strategy=strategy, member="b")
    look(a, b)
    assert [set(a.assignment), set(b.assignment)] == wanted
    a.close()
    b.close()


# --- an end ---


def test_each_ends_when_its_own_are_finished(queue: Queue[bytes]) -> None:
    fill(queue, 50)
    a = queue.consumer(stop="end")
    got = Counter([a.receive(timeout=5).value])
    b = queue.consumer(stop="end")
    assert not b.receive_many(1, timeout=0), "a has everything while it handles its first message"
    with pytest.raises(Timeout, match="within"):
        b.receive(timeout=0.05)
    done = threading.Thread(target=lambda: got.update(message.value for message in b))
    done.start()
    got.update(message.value for message in a)
    a.close()
    done.join(20)
    assert not done.is_alive()
    b.close()
    assert got == Counter(b"%d-%d" % (p, n) for p in range(4) for n in range(50))


def test_one_without_partitions_ends_at_once(tide: Log) -> None:
    queue = tide.queue("single", partitions=1)
    queue.send(b"x")
    with queue.consumer(stop="end") as a, queue.consumer(stop="end") as b:
        assert list(b) == []
        assert [message.value for message in a] == [b"x"]
