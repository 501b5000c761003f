"""What does one message of `read(offsets)` cost?

Timed: `read(offsets)` of 1,000,000 sorted offsets out of 10,000,000 messages of 100 bytes that were sent in batches of
1,000; the answer is a Batch whose bytes have been copied and checked. "with values" makes the list of values too.
Against what a program does with records of a fixed size in a file: the list of `data[100 * i : 100 * i + 100]` of an
mmap of the same values, for the same offsets. Everything is in the page cache. On disk, one partition.
"""

from __future__ import annotations

import mmap
from functools import partial
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np

from benchmarks.harness import VALUE_BYTES, Context, Figure, interleave
from benchmarks.send import some_values


def read_ns(topic: Any, offsets: Any, with_values: bool) -> float:
    """Nanoseconds of one message."""
    start = perf_counter_ns()
    batch = topic.read(offsets)
    if with_values:
        batch.values  # noqa: B018
    elapsed = perf_counter_ns() - start
    assert len(batch) == len(offsets)
    return elapsed / len(offsets)


def slices_ns(data: mmap.mmap, offsets: list[int]) -> float:
    """Nanoseconds of one slice."""
    start = perf_counter_ns()
    [data[VALUE_BYTES * i : VALUE_BYTES * i + VALUE_BYTES] for i in offsets]
    return (perf_counter_ns() - start) / len(offsets)


def write_values(path: Path, values: list[bytes], rounds: int) -> None:
    """The same values without a log."""
    with path.open("wb") as file:
        for _ in range(rounds):
            file.write(b"".join(values))


def run(ctx: Context) -> list[Figure]:
    """Without and with values."""
    values = some_values(1000)
    rounds, wanted = ctx.size(10_000, 20), ctx.size(1_000_000, 2_000)
    count = rounds * len(values)
    offsets = np.sort(np.random.default_rng(4).choice(count, wanted, replace=False))
    figures = []
    with ctx.directory() as folder, ctx.log() as log:
        topic: Any = log.topic("values", partitions=1)
        for _ in range(rounds):
            topic.send_many(values)
        write_values(folder / "values", values, rounds)
        log.sync()
        some = offsets[:: max(1, wanted // 1000)]
        assert topic.read(some).values == [values[i % len(values)] for i in some]
        with (folder / "values").open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data:
            by_hand = partial(slices_ns, data, offsets.tolist())
            for with_values in (False, True):
                ours, theirs = interleave(partial(read_ns, topic, offsets, with_values), by_hand, ctx.pairs)
                figures.append(
                    Figure(
                        name="read_at_values" if with_values else "read_at",
                        title="`read(offsets)` of 1 M sorted offsets, per message" + (", with values" * with_values),
                        unit="ns",
                        measured=ours,
                        against="slices of an mmap",
                        baseline=theirs,
                        reach=None if with_values else 300,
                        aim=None if with_values else 150,
                        judged="value",
                        place="disk",
                        table=not with_values,
                    )
                )
    return figures
