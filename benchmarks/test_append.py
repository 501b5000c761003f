"""What does appending cost by pytest-benchmark, and is what was appended what a plain list holds?

`pytest benchmarks --benchmark-enable`; without the option each runs once, as a test. The oracle in plain Python stands
beside each: it is timed in the same group, and its answer is what the log must hold.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tidelog

pytestmark = pytest.mark.benchmark(disable_gc=False)
VALUES = [os.urandom(100) for _ in range(1000)]
ROW = np.dtype([("id", "<i8"), ("body", "u1", (1016,))])


@pytest.fixture
def log(tmp_path: Path) -> Iterator[tidelog.Log]:
    """A log in a directory of its own."""
    with tidelog.open(tmp_path / "bench.log") as opened:
        yield opened


class Oracle:
    """A log in plain Python: what was sent, and receipts with the offsets."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []

    def send(self, value: bytes) -> int:
        """The offset of the message."""
        self.messages.append(value)
        return len(self.messages) - 1

    def send_many(self, values: list[bytes]) -> range:
        """The offsets of the messages."""
        first = len(self.messages)
        self.messages += values
        return range(first, len(self.messages))


def each(send: Callable[[bytes], Any]) -> Any:
    """Sends every value by itself; the last answer."""
    answer = None
    for value in VALUES:
        answer = send(value)
    return answer


def held(topic: Any) -> list[bytes]:
    """Everything in the channel."""
    return [message.value for message in topic.scan()]


@pytest.mark.benchmark(group="1,000 x send")
def test_send(benchmark: Any, log: tidelog.Log) -> None:
    topic = log.topic("values", partitions=1)
    receipt = benchmark(each, topic.send)
    messages = held(topic)
    oracle = Oracle()
    while len(oracle.messages) < len(messages):
        last = each(oracle.send)
    assert messages == oracle.messages
    assert receipt.offset == last


@pytest.mark.benchmark(group="1,000 x send")
def test_send_oracle(benchmark: Any) -> None:
    oracle = Oracle()
    assert benchmark(each, oracle.send) == len(oracle.messages) - 1


@pytest.mark.benchmark(group="send_many of 1,000")
def test_send_many(benchmark: Any, log: tidelog.Log) -> None:
    topic = log.topic("values", partitions=1)
    receipt = benchmark(topic.send_many, VALUES)
    messages = held(topic)
    oracle = Oracle()
    while len(oracle.messages) < len(messages):
        offsets = oracle.send_many(VALUES)
    assert messages == oracle.messages
    assert receipt.offsets.tolist() == list(offsets)


@pytest.mark.benchmark(group="send_many of 1,000")
def test_send_many_oracle(benchmark: Any) -> None:
    oracle = Oracle()
    assert len(benchmark(oracle.send_many, VALUES)) == len(VALUES)


@pytest.mark.benchmark(group="send_many of 1,000 rows of 1 KiB")
def test_send_rows(benchmark: Any, log: tidelog.Log) -> None:
    rows = np.zeros(1000, ROW)
    rows["id"] = np.arange(1000)
    rows["body"] = np.random.default_rng(1).integers(0, 256, (1000, 1016))
    topic: Any = log.topic("rows", ROW, partitions=1)
    benchmark(topic.send_many, rows)
    oracle = [row.tobytes() for row in rows]
    raws = [message.raw for message in topic.scan()]
    assert len(raws) % len(oracle) == 0 and raws == oracle * (len(raws) // len(oracle))


@pytest.mark.benchmark(group="send_many of 1,000 rows of 1 KiB")
def test_send_rows_oracle(benchmark: Any) -> None:
    rows, kept = np.zeros(1000, ROW), []
    benchmark(lambda: kept.extend(row.tobytes() for row in rows))
    assert kept[-1] == bytes(ROW.itemsize)
