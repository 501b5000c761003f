"""What does an id add to a `send`, when no message had it before?

Timed: `for value, name in pairs: send(value, id=name)` over 10,000 values of 100 bytes with ids of 16 characters,
against `send(value)` in the same loop; the window of the partition is full, 100,000 ids. One thread, one partition, ack
written, on disk.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from time import perf_counter_ns
from typing import Any

from benchmarks.harness import Context, Figure, interleave
from benchmarks.send import some_values

WINDOW = 100_000


def run(ctx: Context) -> list[Figure]:
    """One figure."""
    values, numbers = some_values(ctx.size(10_000, 100)), count()

    def pairs() -> list[tuple[bytes, str]]:
        return [(value, f"order-{next(numbers):010}") for value in values]

    def with_id(send: Callable[..., Any]) -> float:
        fresh = pairs()
        start = perf_counter_ns()
        for value, name in fresh:
            send(value, id=name)
        return (perf_counter_ns() - start) / len(fresh)

    def without(send: Callable[..., Any]) -> float:
        fresh = pairs()
        start = perf_counter_ns()
        for value, _name in fresh:
            send(value)
        return (perf_counter_ns() - start) / len(fresh)

    with ctx.log() as log:
        topic = log.topic("values", partitions=1)
        filled = ctx.size(WINDOW, 100)
        topic.send_many([b""] * filled, ids=[f"filler-{number}" for number in range(filled)])
        for _ in range(4):
            with_id(topic.send)
            without(topic.send)
        ours, theirs = interleave(lambda: with_id(topic.send), lambda: without(topic.send), ctx.pairs)
    return [
        Figure(
            name="send_id",
            title="`send` of a message with an id, window of 100,000",
            unit="ns",
            measured=ours,
            against="`send` without one",
            baseline=theirs,
            reach=1.6,
            place="disk",
            table=True,
        )
    ]
