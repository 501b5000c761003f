"""Does the cost of an append depend on how large the log is already?

One partition of 1 MiB to 8 GiB (less where the disk has not twice that free; the report says how far). At each size:
`send` of 6,000 values of 100 bytes, about 1 MiB of log a sample, against `queue.SimpleQueue.put` in turn, four times as
many pairs as elsewhere. Up to 32 MiB each sample has a partition of its own, since samples would make it grow: filled,
then sent a sample that does not count; from 64 MiB on all go to one, which is synced after filling, so that writing
back what filled it does not count as the cost of size. (The small ones are not: a sync also writes the pages that were
made ready for the next 4 MiB at most, and to touch those again costs as much as sending, which samples of all sizes
must have behind them, or none.) Memory is touched first, so that a virtual machine which hands it back to its host does
not count either. Filling goes by `send_many` of 64 KiB values. The verdict is the largest deviation of a size's ratio
from the median of all sizes: at most 10 %.
"""

from __future__ import annotations

import os
import shutil
import statistics
from functools import partial
from typing import Any

import tidelog
from benchmarks.baselines import put_ns
from benchmarks.harness import Context, Figure, interleave
from benchmarks.send import send_ns, some_values

MIB = 1 << 20
SIZES = [1 << power for power in range(14)]  # MiB
FILLER_BYTES = 64 << 10
OWN_UP_TO_MIB = 32


def sizes(ctx: Context) -> list[int]:
    """The sizes in MiB that fit: twice as much must be free."""
    ctx.work.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(ctx.work).free // MIB
    return [1, OWN_UP_TO_MIB * 2] if ctx.smoke else [size for size in SIZES if 2 * size <= free]


def deviation(points: list[Figure]) -> float:
    """How far the ratio at one size is from the median of all, at most; as a part of it."""
    ratios = [point.judgeable or 0.0 for point in points]
    middle = statistics.median(ratios)
    return max(abs(ratio / middle - 1) for ratio in ratios)


def summary(name: str, title: str, points: list[Figure]) -> Figure:
    """The verdict on a curve."""
    return Figure(name, title, unit="", measured=[deviation(points)], reach=0.1, judged="value", place="disk")


def fill(topic: Any, size_mib: int) -> None:
    """Brings a channel's one partition to a size."""
    filler = [os.urandom(FILLER_BYTES)] * 64
    while (lacking := size_mib * MIB - topic.describe(0)["bytes"]) > 0:
        topic.send_many(filler[: max(1, min(len(filler), lacking // FILLER_BYTES))])


def fresh_ns(log: tidelog.Log, size_mib: int, values: list[bytes], rounds: int) -> float:
    """Nanoseconds of one send to a partition of its own that has been filled, and sent to."""
    topic = log.topic("fresh", partitions=1)
    fill(topic, size_mib - 1)
    send_ns(topic.send, values, rounds)
    elapsed = send_ns(topic.send, values, rounds)
    log.drop("fresh")
    return elapsed


def warm_put_ns(values: list[bytes], rounds: int) -> float:
    """Nanoseconds of one put, behind a sample that does not count: filling a log leaves nothing of it in the caches."""
    put_ns(values, rounds)
    return put_ns(values, rounds)


def run(ctx: Context) -> list[Figure]:
    """A curve and its verdict."""
    values, rounds, points = some_values(ctx.size(1_000, 100)), 6, []
    with ctx.log() as log:
        topic = log.topic("values", partitions=1)
        for size in sizes(ctx):
            if size <= OWN_UP_TO_MIB:
                measured = partial(fresh_ns, log, size, values, rounds)
            else:
                fill(topic, size)
                topic.sync()
                measured = partial(send_ns, topic.send, values, rounds)
            ctx.warm_memory()
            ours, theirs = interleave(measured, partial(warm_put_ns, values, rounds), ctx.size(4, 1) * ctx.pairs)
            points.append(
                Figure(
                    name=f"growth_{size}",
                    title=f"`send` into a log of {size:,} MiB",
                    unit="ns",
                    measured=ours,
                    against="`queue.SimpleQueue.put`",
                    baseline=theirs,
                    place="disk",
                    series="growth",
                    x=float(size),
                )
            )
            ctx.say(f"{size:,} MiB: {points[-1].judgeable:.2f} x put")
    last = int(points[-1].x or 0)
    return [*points, summary("growth", f"cost of an append, 1 MiB to {last:,} MiB: largest deviation", points)]
