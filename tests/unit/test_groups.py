"""Do the consumers of a group share its partitions, hand them over when they should, and lose nothing on the way?

Several consumers of one process, called in turn by one thread, so that every step is where the test puts it. What other
processes do to a group is in tests/processes/test_group_processes.py.
"""

from __future__ import annotations

import gc
import os
import random
import signal
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import pytest

from tidelog.channel import Queue, Topic
from tidelog.consumer import Assigned, Consumer
from tidelog.errors import Closed, Fenced, Forked, Timeout
from tidelog.log import Log
from tidelog.log import open as open_log


def parts(*numbers: int, channel: str = "orders") -> tuple[Assigned, ...]:
    return tuple(Assigned(channel, number) for number in numbers)


def numbers_of(consumer: Consumer[Any]) -> set[int]:
    return {assigned.partition for assigned in consumer.assignment}


def look(*consumers: Consumer[Any], rounds: int = 3) -> None:
    """Let each ask for a message that is not there, so that all hand over and take what they are to."""
    for _ in range(rounds):
        for consumer in consumers:
            with pytest.raises(Timeout):
                consumer.receive(timeout=0)


def fill(queue: Queue[Any] | Topic[Any], count: int, partitions: int = 4) -> None:
    for partition in range(partitions):
        queue.send_many([b"%d-%d" % (partition, number) for number in range(count)], partition=partition)


def committed(queue: Queue[Any] | Topic[Any]) -> dict[int, int]:
    return {row.partition: row.offset for row in queue.offsets() if row.offset >= 0}


def drain(*consumers: Consumer[Any]) -> list[bytes]:
    """Everything, asked for by all in turn until nobody gets anything more."""
    found: list[bytes] = []
    idle = 0
    while idle < 3:
        idle += 1
        for consumer in consumers:
            batch = consumer.receive_many(3, timeout=0)
            if batch:
                idle = 0
                found += batch.values
    return found


@pytest.fixture
def queue(tide: Log) -> Queue[bytes]:
    return tide.queue("orders", partitions=4)


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

    def fail(_: list[Assigned]) -> None:
        raise LookupError("told")

    a = queue.consumer(on_assign=fail, on_revoke=fail)
    with pytest.raises(LookupError):
        a.receive(timeout=5)
    assert a.receive(timeout=5).offset == 0
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
    a.close()


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


# --- other lives ---


def test_a_forked_child_does_nothing_to_the_group(tide: Log, queue: Queue[bytes]) -> None:
    fill(queue, 3)
    consumer = queue.consumer()
    consumer.receive(timeout=5)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            consumer.receive(timeout=0)
        except Forked:
            code = 0
        consumer.close()
        del consumer
        gc.collect()
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert len(drain(consumer)) == 11
    assert consumer.assignment == parts(0, 1, 2, 3)
    consumer.close()


def test_closing_the_log_leaves(tmp_path: Any) -> None:
    one, other = open_log(tmp_path / "x"), open_log(tmp_path / "x")
    a = one.queue("orders", partitions=4).consumer()
    b = other.queue("orders").consumer()
    look(a, b)
    one.close()
    with pytest.raises(Closed):
        a.receive(timeout=0)
    look(b)
    assert b.assignment == parts(0, 1, 2, 3)
    other.close()


def test_who_has_left_does_not_join_anew(tide: Log, queue: Queue[bytes]) -> None:
    """A close from another thread comes between a look that says "expelled" and the joining."""
    consumer = queue.consumer()
    membership = tide.engine.join("orders", [(queue.opened(), number) for number in range(4)])
    membership.leave()
    membership.leave()
    with pytest.raises(Closed):
        membership.rejoin(consumer)
    assert len(tide.engine.members("orders").members) == 1
    consumer.close()


class Interrupted(Exception):
    """What the signal handler raises."""


def test_interrupts_at_any_place_leave_a_group_whole(queue: Queue[bytes]) -> None:
    """A signal handler that raises may do so anywhere in Python code, in the middle of a hand-over too."""
    rng = random.Random(7)

    def interrupt(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    hits = rounds = 0
    try:
        victim, other = queue.consumer(), queue.consumer()
        while hits < 150:
            rounds += 1
            try:
                signal.setitimer(signal.ITIMER_REAL, rng.random() * 1e-4 + 1e-6)
                try:
                    for _ in range(30):
                        victim.receive_many(1, timeout=0)
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            except Interrupted:
                hits += 1
            fill(queue, 1)
            if rng.random() < 0.7:
                other.close()
                other = queue.consumer()
            other.receive_many(5, timeout=0)
    finally:
        signal.signal(signal.SIGALRM, before)
    drain(victim, other)
    assert len(victim.assignment) == len(other.assignment) == 2
    assert not numbers_of(victim) & numbers_of(other)
    assert committed(queue) == dict.fromkeys(range(4), rounds)
    victim.close()
    other.close()


@pytest.mark.parametrize("delivery", ["at-least-once", "at-most-once"])
def test_a_random_life_of_a_group(tide: Log, delivery: Any) -> None:
    """Consumers come, go with everything committed, receive and grow more partitions at random: without a death each
    message is handled exactly once, and in order within its partition."""
    rng = random.Random(4)
    topic = tide.topic("events", partitions=3)
    open_: list[Consumer[bytes]] = []
    handled: dict[int, list[int]] = defaultdict(list)
    sent = 0

    def handle(consumer: Consumer[bytes], count: int) -> None:
        for message in consumer.receive_many(count, timeout=0):
            handled[message.partition].append(message.offset)

    for step in range(1500):
        dice = rng.random()
        if dice < 0.08 and len(open_) < 8:
            open_.append(topic.consumer("g", delivery=delivery).__enter__())
        elif dice < 0.13 and open_:
            open_.pop(rng.randrange(len(open_))).__exit__(None, None, None)
        elif dice < 0.14 and topic.partitions < 9:
            topic.configure(partitions=topic.partitions + 1)
        elif dice < 0.4:
            count = rng.randrange(1, 20)
            topic.send_many([b"x"] * count, partition=rng.randrange(topic.partitions))
            sent += count
        elif open_:
            consumer = rng.choice(open_)
            if rng.random() < 0.5:
                handle(consumer, rng.randrange(1, 9))
            else:
                for _ in range(rng.randrange(1, 9)):
                    try:
                        message = consumer.receive(timeout=0)
                    except Timeout:
                        break
                    handled[message.partition].append(message.offset)
        if step % 100 == 99:
            held = [part for consumer in open_ for part in consumer.assignment]
            assert len(held) == len(set(held))
    last = topic.consumer("g", delivery=delivery)
    open_.append(last)
    for _ in range(200):
        for consumer in open_:
            handle(consumer, 1000)
    for consumer in open_:
        consumer.__exit__(None, None, None)
    assert sum(map(len, handled.values())) == sent
    for offsets in handled.values():
        assert offsets == list(range(len(offsets)))
