"""What does a transaction cost beside the same work without one?

Timed: (a) `with log.transaction(producer, consumer, level="written")` around one `send_many` of 500 messages of 100
bytes, with the offset of 500 received ones, one partition each; against `send_many` of the same messages through a
producer without a name, and `commit` of the batch. (b) The same with level="synced", over one and three partitions;
against as many raw `pwrite` of the same bytes and `fdatasync`, and one more, of a file that was written before. What is
received is received before the clock starts. On disk.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import tidelog
from benchmarks.harness import VALUE_BYTES, Context, Figure, interleave

MESSAGES = 500
RAW_BYTES = 8 << 20


class Work:
    """500 messages in, 500 messages out, again and again."""

    def __init__(self, log: tidelog.Log, stack: ExitStack) -> None:
        """`stack`: closes what is opened."""
        self.log = log
        self.values = [b"v" * VALUE_BYTES] * MESSAGES
        self.source = log.topic("source", partitions=1)
        self.target = log.topic("target", partitions=3)
        self.consumer: Any = stack.enter_context(self.source.consumer("bench", delivery="manual"))
        self.plain = stack.enter_context(log.producer())
        self.named = stack.enter_context(log.producer(name="bench"))

    def received(self) -> Any:
        """The next 500."""
        self.source.send_many(self.values)
        batch = self.consumer.receive_many(MESSAGES)
        assert len(batch) == MESSAGES
        return batch

    def without(self) -> float:
        """Nanoseconds of sending and committing."""
        batch = self.received()
        start = perf_counter_ns()
        self.plain.send_many(self.target, self.values, partition=0)
        self.consumer.commit(batch)
        return perf_counter_ns() - start

    def within(self, level: Any, partitions: int) -> float:
        """Nanoseconds of a transaction."""
        self.received()
        start = perf_counter_ns()
        with self.log.transaction(self.named, self.consumer, level=level) as tx:
            for number in range(partitions):
                tx.send_many(self.target, self.values, partition=number)
        return perf_counter_ns() - start


class Raw:
    """A file that is written and synced."""

    def __init__(self, path: Path) -> None:
        """Makes it, large enough that nothing but data is synced later."""
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
        os.pwrite(self.descriptor, bytes(RAW_BYTES), 0)
        os.fsync(self.descriptor)
        self.data = b"v" * (MESSAGES * (VALUE_BYTES + 8))
        self.at = 0

    def synced(self, times: int) -> float:
        """Nanoseconds of so many writes and syncs."""
        start = perf_counter_ns()
        for _ in range(times):
            os.pwrite(self.descriptor, self.data, self.at)
            os.fdatasync(self.descriptor)
        elapsed = perf_counter_ns() - start
        self.at = (self.at + len(self.data)) % (RAW_BYTES - len(self.data))
        return elapsed


def run(ctx: Context) -> list[Figure]:
    """Three figures."""
    with ctx.directory() as folder, ExitStack() as stack:
        log = stack.enter_context(tidelog.open(folder / "bench.log"))
        work, raw = Work(log, stack), Raw(folder / "raw")
        stack.callback(os.close, raw.descriptor)
        pairs = ctx.size(400, 5)
        ours, theirs = interleave(partial(work.within, "written", 1), work.without, pairs)
        figures = [
            Figure(
                name="transaction_written",
                title="a written transaction of 500 messages and an offset",
                unit="us",
                measured=[sample / 1e3 for sample in ours],
                against="`send_many` and `commit`",
                baseline=[sample / 1e3 for sample in theirs],
                reach=1.5,
                place="disk",
                table=True,
            )
        ]
        for partitions in (1, 3):
            ours, theirs = interleave(
                partial(work.within, "synced", partitions), partial(raw.synced, partitions + 1), ctx.size(40, 3)
            )
            figures.append(
                Figure(
                    name=f"transaction_synced_{partitions}",
                    title=f"a synced transaction over {partitions} partition{'s' if partitions > 1 else ''}",
                    unit="ms",
                    measured=[sample / 1e6 for sample in ours],
                    against=f"{partitions + 1} raw `pwrite` and `fdatasync`",
                    baseline=[sample / 1e6 for sample in theirs],
                    reach=1.2,
                    place="disk",
                    table=partitions == 3,
                )
            )
        return figures
