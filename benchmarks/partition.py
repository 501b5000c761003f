"""What does choosing the partition of a 16-byte key cost, for many keys at once?

Timed: `tidelog.native.partition(keys, 12)` of 100,000 keys, given as a list of bytes and as an array of S16, per key.
Against `queue.SimpleQueue.put`, the unit in which sending is told.
"""

from __future__ import annotations

import os
from functools import partial
from time import perf_counter_ns
from typing import Any

import numpy as np

from benchmarks.baselines import put_ns
from benchmarks.harness import Context, Figure, interleave
from benchmarks.send import some_values
from tidelog import native


def partition_ns(keys: Any, rounds: int) -> float:
    """Nanoseconds of one key."""
    start = perf_counter_ns()
    for _ in range(rounds):
        native.partition(keys, 12)
    return (perf_counter_ns() - start) / (rounds * len(keys))


def run(ctx: Context) -> list[Figure]:
    """A list and an array."""
    count, rounds = ctx.size(100_000, 1_000), ctx.size(10, 2)
    keys = [os.urandom(15) + b"k" for _ in range(count)]  # no NUL at the end, which S would strip
    array = np.array(keys, "S16")
    assert (native.partition(keys, 12) == native.partition(array, 12)).all()
    theirs = partial(put_ns, some_values(ctx.size(10_000, 100)), 10)
    figures = []
    for name, given, title in (("partition", keys, "list of bytes"), ("partition_array", array, "array of S16")):
        ours, put = interleave(partial(partition_ns, given, rounds), theirs, ctx.pairs)
        figures.append(
            Figure(
                name=name,
                title=f"murmur2 partition of 16-byte keys, {title}, per key",
                unit="ns",
                measured=ours,
                against="`queue.SimpleQueue.put`",
                baseline=put,
                reach=0.15,
                aim=0.05,
                table=True,
            )
        )
    return figures
