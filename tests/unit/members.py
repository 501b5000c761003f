"""What do tests of groups ask of consumers that share a queue?"""

from __future__ import annotations

from typing import Any

import pytest

from tidelog.channel import Queue, Topic
from tidelog.consumer import Assigned, Consumer
from tidelog.errors import Timeout


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
