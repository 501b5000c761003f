"""What does committing cost by pytest-benchmark, and is the committed offset the one a dictionary would hold?

`pytest benchmarks --benchmark-enable`; without the option each runs once, as a test.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

import tidelog

pytestmark = pytest.mark.benchmark(group="1,000 x commit", disable_gc=False)
COUNT = 1000


class Oracle:
    """Committed offsets in plain Python: of the next message wanted, by partition."""

    def __init__(self) -> None:
        self.committed: dict[int, int] = {}

    def commit(self, message: Any) -> None:
        """Everything up to `message` is done."""
        self.committed[message.partition] = message.offset + 1


def each(commit: Any, messages: list[Any]) -> None:
    """Commits every message by itself."""
    for message in messages:
        commit(message)


def received(consumer: Any) -> list[Any]:
    """COUNT messages, in an order in which commits also go backwards."""
    messages: list[Any] = []
    while len(messages) < COUNT:
        messages += consumer.receive_many(COUNT)
    random.Random(7).shuffle(messages)
    return messages


def test_commit(benchmark: Any, tmp_path: Path) -> None:
    oracle = Oracle()
    with tidelog.open(tmp_path / "bench.log") as log:
        queue = log.queue("values", partitions=2)
        for number in range(COUNT):
            queue.send(str(number).encode(), partition=number % 2)
        with queue.consumer(delivery="manual") as consumer:
            messages = received(consumer)
            benchmark(each, consumer.commit, messages)
            each(oracle.commit, messages)
            assert {key.partition: offset for key, offset in consumer.committed.items()} == oracle.committed
    with tidelog.open(tmp_path / "bench.log") as log, log["values"].consumer(delivery="manual") as consumer:
        assert {key.partition: offset for key, offset in consumer.position.items()} == oracle.committed


def test_commit_oracle(benchmark: Any, tmp_path: Path) -> None:
    oracle = Oracle()
    with tidelog.open(tmp_path / "bench.log") as log:
        queue = log.queue("values", partitions=1)
        queue.send_many([b"value"] * COUNT)
        with queue.consumer(delivery="manual") as consumer:
            messages = received(consumer)
        benchmark(each, oracle.commit, messages)
        assert list(oracle.committed) == [0]
