"""What does an application's handler cost beside its own work, and how long does a question take?

Timed: (a) a typed message (msgspec Struct as JSON, three fields) from the log to a sync handler that counts it, at
concurrency 1: 50,000 messages that wait in one partition, from the first handled to the last, per message. Against
FastStream's in-memory broker in the same process: `publish` to a handler of the same type, 1,000 at a time, per
message. (b) `ask_one` to a responder in another process, 100 bytes each way, 500 times a sample, less twice the raw
futex round trip of the same run: what is left is ours. On disk.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import sys
import threading
from functools import partial
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import msgspec
import numpy as np

import tidelog
from benchmarks.baselines import checked, compiled
from benchmarks.child import Child, obey
from benchmarks.harness import VALUE_BYTES, Context, Figure, interleave

PAGE = 4096


class Order(msgspec.Struct):
    """What is sent."""

    id: int
    sku: str
    quantity: int


def dispatch_us(log: tidelog.Log, turns: list[int], count: int) -> float:
    """Microseconds of one message in a handler of ours."""
    turn = len(turns)
    turns.append(turn)
    queue = log.queue(f"orders-{turn}", Order, partitions=1)
    queue.send_many([Order(i, "tea", 3) for i in range(count)])
    app = tidelog.App(f"bench-{turn}", log=log)
    times = [0, 0]
    seen = 0
    done = threading.Event()

    @app.on(queue)
    def handle(order: Order) -> None:
        nonlocal seen
        if seen == 0:
            times[0] = perf_counter_ns()
        seen += 1
        if seen == count:
            times[1] = perf_counter_ns()
            done.set()

    app.start()
    if not done.wait(60):
        raise RuntimeError(f"{seen} of {count} messages were handled within a minute")
    app.stop()
    log.drop(queue.name)
    return (times[1] - times[0]) / (count - 1) / 1000


def faststream_us(count: int) -> float:
    """Microseconds of one message from FastStream's publish to its handler, in memory."""
    from fast_depends.msgspec import MsgSpecSerializer
    from faststream.kafka import KafkaBroker, TestKafkaBroker

    broker = KafkaBroker(serializer=MsgSpecSerializer())  # its quickest for this type
    seen = 0

    @broker.subscriber("orders")
    async def handle(order: Order) -> None:
        nonlocal seen
        seen += 1

    async def work() -> float:
        async with TestKafkaBroker(broker) as test:
            await test.publish(Order(0, "tea", 3), "orders")
            start = perf_counter_ns()
            for i in range(count):
                await test.publish(Order(i, "tea", 3), "orders")
            return (perf_counter_ns() - start) / count / 1000

    elapsed = asyncio.run(work())
    if seen != count + 1:
        raise RuntimeError(f"FastStream handled {seen} of {count + 1} messages")
    return elapsed


class Asker:
    """Both sides of the questions and of the raw exchange."""

    def __init__(self, folder: Path) -> None:
        """Opens the log in `folder`."""
        self.log = tidelog.open(folder / "bench.log")
        self.questions = self.log.queue("questions", bytes, reply=bytes, partitions=1)
        fd = os.open(folder / "page", os.O_RDWR)
        self.page = mmap.mmap(fd, PAGE)
        os.close(fd)
        self.address = int(np.frombuffer(self.page, np.uint8).ctypes.data)
        self.value = os.urandom(VALUE_BYTES)
        self.first = 1

    def answer(self, count: int) -> int:
        """The child's side."""
        with self.questions.consumer() as consumer:
            for _ in range(count):
                consumer.receive(60.0).reply(self.value)
        return count

    def answer_raw(self, count: int) -> int:
        """The child's side of the baseline."""
        first, self.first = self.first, self.first + count
        compiled().bl_pong(self.address, first, count, False)
        return count

    def ask_us(self, child: Child, count: int) -> float:
        """Microseconds of one question."""
        child.tell("answer", count)
        start = perf_counter_ns()
        for _ in range(count):
            self.questions.ask_one(self.value, timeout=60.0)
        elapsed = perf_counter_ns() - start
        child.expect(str(count))
        return elapsed / count / 1000

    def twice_raw_us(self, child: Child, count: int) -> float:
        """Twice the microseconds of one exchange by hand."""
        first, self.first = self.first, self.first + count
        child.tell("raw", count)
        elapsed = checked(compiled().bl_ping(self.address, first, count, False))
        child.expect(str(count))
        return 2 * elapsed / count / 1000


def run(ctx: Context) -> list[Figure]:
    """Dispatch, then questions."""
    with ctx.log() as log:
        turns: list[int] = []
        ours, theirs = interleave(
            partial(dispatch_us, log, turns, ctx.size(50_000, 500)),
            partial(faststream_us, ctx.size(1_000, 50)),
            ctx.pairs,
        )
    with ctx.directory() as folder:
        (folder / "page").write_bytes(bytes(PAGE))
        asker = Asker(folder)
        count = ctx.size(500, 20)
        with Child("benchmarks.app", folder) as child:
            asked, raw = interleave(
                partial(asker.ask_us, child, count), partial(asker.twice_raw_us, child, count), ctx.pairs
            )
        asker.log.close()
    shared: dict[str, Any] = {"unit": "us", "measured": ours, "place": "disk"}
    return [
        Figure(name="app_dispatch", title="`App` handler of a typed message", reach=15.0, judged="value", **shared),
        Figure(
            name="app_against_faststream",
            title="`App` handler of a typed message",
            against="FastStream's in-memory publish to handler",
            baseline=theirs,
            reach=1 / 8,
            table=True,
            **shared,
        ),
        Figure(
            name="ask_one",
            title="`ask_one` between processes, over 2 x a raw futex",
            unit="us",
            measured=asked,
            against="2 x a raw futex round trip",
            baseline=raw,
            reach=60.0,
            judged="excess",
            place="disk",
            table=True,
        ),
    ]


def main() -> None:
    """The child."""
    asker = Asker(Path(sys.argv[1]))
    compiled()
    obey({"answer": asker.answer, "raw": asker.answer_raw})
    asker.log.close()


if __name__ == "__main__":
    main()
