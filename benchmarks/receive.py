"""What does receiving a 100-byte message cost, as a list of values and as `Message`s?

Timed: (a) `receive_many().values`, a thousand at a time, until everything is there; (b) `for message in consumer:
message.value`. Each sample first sends 100,000 fresh messages in batches of 1,000 off the clock, so that decoding and
the check of the CRC are done for the first time; the consumer of (a) stays, that of (b) is made for each sample with
stop="end", off the clock. Both are consumers of a queue with the default delivery, so that committing is in it. Against
`SimpleQueue.get` of the same number of values. On disk; the pages are in memory, since they were just written.
"""

from __future__ import annotations

from functools import partial
from time import perf_counter_ns
from typing import Any

import tidelog
from benchmarks.baselines import get_ns
from benchmarks.harness import Context, Figure, interleave
from benchmarks.send import some_values


def filled(queue: tidelog.Queue[bytes], values: list[bytes], count: int) -> None:
    """Sends `count` messages in batches."""
    for _ in range(count // len(values)):
        queue.send_many(values)


def values_ns(queue: tidelog.Queue[bytes], consumer: tidelog.Consumer[bytes], values: list[bytes], count: int) -> float:
    """Nanoseconds of one message as a list of values."""
    filled(queue, values, count)
    left = count
    start = perf_counter_ns()
    while left:
        left -= len(consumer.receive_many().values)
    return (perf_counter_ns() - start) / count


def messages_ns(queue: tidelog.Queue[bytes], values: list[bytes], count: int) -> float:
    """Nanoseconds of one message that is iterated over and whose value is touched."""
    filled(queue, values, count)
    with queue.consumer(stop="end") as consumer:
        left = consumer.lag
        start = perf_counter_ns()
        for message in consumer:
            message.value  # noqa: B018
        elapsed = perf_counter_ns() - start
        assert left - consumer.lag == count
    return elapsed / count


def run(ctx: Context) -> list[Figure]:
    """Both ways, on disk."""
    values, count = some_values(1000), ctx.size(100_000, 2_000)
    theirs = partial(get_ns, some_values(ctx.size(10_000, 100)), 10)
    with ctx.log() as log:
        queue: Any = log.queue("values", partitions=1)
        with queue.consumer() as consumer:
            by_values = interleave(partial(values_ns, queue, consumer, values, count), theirs, ctx.pairs)
    with ctx.log() as log:
        queue = log.queue("messages", partitions=1)
        by_messages = interleave(partial(messages_ns, queue, values, count), theirs, ctx.pairs)
    return [
        _figure("receive_values", "`receive_many(...).values`, per message", by_values, 1.0, 0.5),
        _figure("receive_messages", "iterating messages and touching the value", by_messages, 2.5, 1.5),
    ]


def _figure(name: str, title: str, samples: tuple[list[float], list[float]], reach: float, aim: float) -> Figure:
    return Figure(
        name=name,
        title=title,
        unit="ns",
        measured=samples[0],
        against="`queue.SimpleQueue.get`",
        baseline=samples[1],
        reach=reach,
        aim=aim,
        place="disk",
        table=True,
    )
