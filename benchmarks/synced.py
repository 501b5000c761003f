"""What does `ack="synced"` cost one writer, and how do eight processes share the cost?

Timed: (a) `producer.send(topic, value)` of 100 bytes with ack="synced", 50 in a row in one process, per message;
against a C loop of pwrite of as many bytes as one such message takes on disk into allocated space, and fdatasync.
(b) eight processes that each send 50 synced messages to one partition at the same time: messages per second of all
together, against one of these processes alone. Both in a directory on disk: in memory there is nothing to wait for.
"""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import tidelog
from benchmarks.baselines import checked, compiled
from benchmarks.child import Child, obey
from benchmarks.harness import VALUE_BYTES, Context, Figure, interleave

WRITERS = 8
FILE_BYTES = 64 << 20


def synced_us(send: Any, topic: Any, count: int) -> float:
    """Microseconds of one synced message."""
    value = os.urandom(VALUE_BYTES)
    start = perf_counter_ns()
    for _ in range(count):
        send(topic, value)
    return (perf_counter_ns() - start) / count / 1000


class ByHand:
    """pwrite and fdatasync."""

    def __init__(self, path: Path, size: int) -> None:
        """A new file of FILE_BYTES; records of `size` bytes."""
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.posix_fallocate(self.fd, 0, FILE_BYTES)
        os.fsync(self.fd)
        self.at, self.record = 0, os.urandom(size)

    def us(self, count: int) -> float:
        """Microseconds of one record."""
        size = len(self.record)
        if self.at + count * size > FILE_BYTES:
            self.at = 0
        elapsed = checked(compiled().bl_pwrite_synced(self.fd, self.at, self.record, size, count))
        self.at += count * size
        return elapsed / count / 1000

    def close(self) -> None:
        """Closes the file."""
        os.close(self.fd)


def together(children: list[Child], count: int) -> float:
    """Messages per second of all children at once."""
    start = perf_counter_ns()
    for child in children:
        child.tell("send", count)
    for child in children:
        child.expect(str(count))
    return len(children) * count / (perf_counter_ns() - start) * 1e9


def run(ctx: Context) -> list[Figure]:
    """One writer, then eight."""
    count = ctx.size(50, 3)
    with ctx.directory() as folder, tidelog.open(folder / "bench.log") as log:
        topic: Any = log.topic("values", partitions=1)
        topic.send(os.urandom(VALUE_BYTES))
        by_hand = ByHand(folder / "by-hand", topic.describe(0)["bytes"])
        with log.producer(ack="synced") as producer:
            one = interleave(partial(synced_us, producer.send, topic, count), partial(by_hand.us, count), ctx.pairs)
        by_hand.close()
        with ExitStack() as stack:
            children = [stack.enter_context(Child("benchmarks.synced", folder)) for _ in range(ctx.size(WRITERS, 2))]
            eight = interleave(partial(together, children, count), partial(together, children[:1], count), ctx.pairs)
    return [
        Figure(
            name="synced_one",
            title="synced, one writer",
            unit="us",
            measured=one[0],
            against="pwrite + fdatasync",
            baseline=one[1],
            reach=1 / 0.9,
            aim=1.0,
            place="disk",
            table=True,
            notes={"bytes of the baseline's record": len(by_hand.record)},
        ),
        Figure(
            name="synced_eight",
            title="synced, 8 processes",
            unit="/s",
            measured=eight[0],
            against="synced, one writer",
            baseline=eight[1],
            sign=">=",
            reach=3.0,
            aim=4.0,
            place="disk",
            table=True,
        ),
    ]


def main() -> None:
    """The child."""
    with tidelog.open(Path(sys.argv[1]) / "bench.log") as log, log.producer(ack="synced") as producer:
        topic = log.topic("values", partitions=1)

        def send(count: int) -> int:
            synced_us(producer.send, topic, count)
            return count

        obey({"send": send})


if __name__ == "__main__":
    main()
