"""What does a transaction cost beside the same work without one?

Timed: (a) `with log.transaction(producer, consumer, level="written")` around one `send_many` of 500 messages of 100
bytes, with the offset of 500 received ones, one partition each; against `send_many` of the same messages through a
producer without a name, and `commit` of the batch. (b) The same with level="synced", over one and three partitions;
against as many raw `pwrite` of the same bytes into allocated space, each with its `fdatasync`, and one more of 256
bytes into a file that was written before, as a record of a transaction is. What is received is received before the
clock starts. On disk.
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
RAW_BYTES = 64 << 20
RECORDS_BYTES = 1 << 16


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
    """Files that are written and synced."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        """Makes them. `stack`: closes what is opened."""
        self.descriptors = [os.open(folder / name, os.O_RDWR | os.O_CREAT) for name in ("data", "records")]
        for descriptor in self.descriptors:
            stack.callback(os.close, descriptor)
        os.pwrite(self.descriptors[1], bytes(RECORDS_BYTES), 0)
        os.fsync(self.descriptors[1])
        self.data = b"v" * (MESSAGES * (VALUE_BYTES + 8))
        self.at = RAW_BYTES

    def synced(self, partitions: int) -> float:
        """Nanoseconds of what so many partitions and a record take."""
        data, records = self.descriptors
        if self.at + partitions * len(self.data) > RAW_BYTES:
            os.ftruncate(data, 0)
            os.posix_fallocate(data, 0, RAW_BYTES)
            os.fsync(data)
            self.at = 0
        start = perf_counter_ns()
        for _ in range(partitions):
            os.pwrite(data, self.data, self.at)
            os.fdatasync(data)
            self.at += len(self.data)
        os.pwrite(records, self.data[:256], 0)
        os.fdatasync(records)
        return perf_counter_ns() - start


def run(ctx: Context) -> list[Figure]:
    """Three figures."""
    with ctx.directory() as folder, ExitStack() as stack:
        log = stack.enter_context(tidelog.open(folder / "bench.log"))
        work, raw = Work(log, stack), Raw(folder, stack)
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
                partial(work.within, "synced", partitions), partial(raw.synced, partitions), ctx.size(40, 3)
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
