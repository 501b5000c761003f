"""Does a group stay whole through forks, interrupts and any order of events?"""

from __future__ import annotations

import gc
import os
import random
import signal
from collections import defaultdict
from typing import Any

import pytest

from tests.unit.members import committed, drain, fill, look, numbers_of, parts
from tidelog.channel import Queue
from tidelog.consumer import Consumer
from tidelog.errors import Closed, Forked, Timeout
from tidelog.log import Log
from tidelog.log import open as open_log

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
