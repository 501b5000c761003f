"""Does the cost of an append depend on how many other partitions there are, and what does going round them cost?

One store with a topic of one partition, and another topic whose partitions grow from 1 to 10,000, each holding a
message. At each number: (a) `send` to the one partition as in send.py (100,000 a sample) against
`queue.SimpleQueue.put` in turn; (b) `send(value, partition=i)` round robin over the others, at least 20,000 a sample,
against put too; a round that does not count has created every file. The verdict on (a) is the largest deviation of a
number's ratio from the median of all: at most 10 %. (b) is printed.
"""

from __future__ import annotations

from functools import partial
from time import perf_counter_ns
from typing import Any

from benchmarks.baselines import put_ns
from benchmarks.growth import summary
from benchmarks.harness import VALUE_BYTES, Context, Figure, interleave
from benchmarks.send import send_ns, some_values

NUMBERS = [1, 10, 100, 1_000, 10_000]


def round_robin_ns(send: Any, value: bytes, partitions: int, rounds: int) -> float:
    """Nanoseconds of one send."""
    start = perf_counter_ns()
    for _ in range(rounds):
        for number in range(partitions):
            send(value, partition=number)
    return (perf_counter_ns() - start) / (rounds * partitions)


def run(ctx: Context) -> list[Figure]:
    """Two curves and a verdict."""
    values, rounds = some_values(ctx.size(10_000, 100)), ctx.size(10, 2)
    put = partial(put_ns, values, rounds)
    alone, around = [], []
    with ctx.log() as log:
        one: Any = log.topic("one", partitions=1)
        others: Any = log.topic("others", partitions=1)
        for number in NUMBERS[:2] if ctx.smoke else NUMBERS:
            if others.partitions < number:
                others.configure(partitions=number)
            round_robin_ns(others.send, values[0], number, 1)
            log.sync()
            common: dict[str, Any] = {"unit": "ns", "against": "`queue.SimpleQueue.put`", "place": "disk", "x": number}
            ctx.warm_memory()
            ours, theirs = interleave(partial(send_ns, one.send, values, rounds), put, ctx.pairs)
            alone.append(
                Figure(
                    f"beside_{number}",
                    f"`send` to one partition beside {number:,} others",
                    measured=ours,
                    baseline=theirs,
                    series="beside",
                    **common,
                )
            )
            turns = ctx.size(max(1, 20_000 // number), 2)
            ours, theirs = interleave(
                partial(round_robin_ns, others.send, bytes(VALUE_BYTES), number, turns), put, ctx.pairs
            )
            around.append(
                Figure(
                    f"round_robin_{number}",
                    f"`send` round robin over {number:,} partitions",
                    measured=ours,
                    baseline=theirs,
                    series="round robin",
                    **common,
                )
            )
            ctx.say(f"{number:,} partitions: {alone[-1].judgeable:.2f} and {around[-1].judgeable:.2f} x put")
    title = f"cost of an append beside 1 to {int(alone[-1].x or 0):,} partitions: largest deviation"
    return [*alone, *around, summary("many_partitions", title, alone)]
