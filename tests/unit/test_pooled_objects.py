"""Do receipts and messages that are made out of a pool hold what they should, and nothing once they are gone?"""

from __future__ import annotations

import gc
import sys
from typing import Any

import tidelog
from tidelog.log import Log

MORE_THAN_A_POOL = 1000


def churn(topic: Any, tail: Any, rounds: int) -> None:
    """Receipts and messages that come and go, one at a time, some held, and more at once than a pool takes."""
    held: list[Any] = []
    for number in range(rounds):
        value = b"%d" % number
        held.append(topic.send(value))
        message = tail.receive(5)
        assert message.value == value and held[-1].offset == message.offset
        if number % 3 == 0:
            held.append(message)
        if len(held) > MORE_THAN_A_POOL:
            held.clear()


def test_nothing_is_counted_twice_or_not_at_all(tide: Log) -> None:
    topic: Any = tide.topic("events", partitions=1)
    with topic.tail() as tail:
        churn(topic, tail, 3000)
        gc.collect()
        nothing = sys.getrefcount(None)
        handles = sys.getrefcount(topic.opened().partitions[0])
        churn(topic, tail, 12_000)
        gc.collect()
        assert abs(sys.getrefcount(None) - nothing) < 200
        assert abs(sys.getrefcount(topic.opened().partitions[0]) - handles) < 10


def test_what_is_kept_stays_as_it_was(tide: Log) -> None:
    topic: Any = tide.topic("events", partitions=3)
    receipts = [topic.send(b"%d" % number, partition=number % 3) for number in range(MORE_THAN_A_POOL)]
    with topic.tail(start="earliest") as tail:
        messages = [tail.receive(5) for _ in receipts]
        for _ in range(MORE_THAN_A_POOL):
            topic.send(b"more")
            tail.receive(5)
    assert [(r.partition, r.offset, r.count, r.duplicate) for r in receipts] == [
        (number % 3, number // 3, 1, False) for number in range(MORE_THAN_A_POOL)
    ]
    assert sorted(int(message.value) for message in messages) == list(range(MORE_THAN_A_POOL))
    assert all(message.raw == message.value and message.channel == "events" for message in messages)


def test_a_value_outlives_its_message_and_a_message_its_batch(tide: Log) -> None:
    topic: Any = tide.topic("events", partitions=1)
    topic.send_many([b"%d" % number for number in range(MORE_THAN_A_POOL)])
    with topic.tail(start="earliest") as tail:
        values = [message.value for message in tail.receive_many(MORE_THAN_A_POOL)]
        last = tail.receive_many(1) if tail.lag else None
    assert last is None
    assert values == [b"%d" % number for number in range(MORE_THAN_A_POOL)]


def test_a_class_of_its_own_is_not_pooled(tide: Log) -> None:
    class Noted(tidelog.Receipt):
        note = "mine"

    for _ in range(MORE_THAN_A_POOL):
        assert Noted().note == "mine"
    receipt = tide.topic("events", partitions=1).send(b"x")
    assert type(receipt) is tidelog.Receipt
