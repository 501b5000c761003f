"""What does committing one message cost?

Timed: `for message in messages: commit(message)` over 10,000 messages that a consumer with delivery="manual" has
received, ten times; against the same loop of `queue.SimpleQueue.put`. A commit is visible to every process; on disk it
is within the flush interval. On disk, one partition.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import perf_counter_ns
from typing import Any

from benchmarks.baselines import put_ns
from benchmarks.harness import Context, Figure, interleave
from benchmarks.send import some_values


def commit_ns(commit: Callable[[Any], None], messages: list[Any], rounds: int) -> float:
    """Nanoseconds of one commit."""
    start = perf_counter_ns()
    for _ in range(rounds):
        for message in messages:
            commit(message)
    return (perf_counter_ns() - start) / (rounds * len(messages))


def run(ctx: Context) -> list[Figure]:
    """One figure."""
    values, rounds = some_values(ctx.size(10_000, 100)), ctx.size(10, 2)
    with ctx.log() as log:
        queue = log.queue("values", partitions=1)
        queue.send_many(values)
        with queue.consumer(delivery="manual") as consumer:
            messages = list(consumer.receive_many(len(values)))
            while len(messages) < len(values):
                messages += consumer.receive_many(len(values))
            ours, theirs = interleave(
                partial(commit_ns, consumer.commit, messages, rounds), partial(put_ns, values, rounds), ctx.pairs
            )
            assert list(consumer.committed.values()) == [len(values)]
    return [
        Figure(
            name="commit",
            title="`commit`",
            unit="ns",
            measured=ours,
            against="`queue.SimpleQueue.put`",
            baseline=theirs,
            reach=3.0,
            aim=1.5,
            place="disk",
            table=True,
        )
    ]
