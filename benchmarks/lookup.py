"""How fast are many offsets found in an offset index of a million entries?

Timed: `tidelog.native.lookup(index, offsets)` of 1,000,000 offsets, random and sorted, in an index of 1,000,000 entries
(8 MB of big-endian pairs, as they are on disk). Against `numpy.searchsorted` of the same offsets on one int64 array of
the entries' offsets, which finds slots and not yet positions. Both answer a fresh array. The answers are compared.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import perf_counter_ns
from typing import Any

import numpy as np

from benchmarks.harness import Context, Figure, interleave
from tidelog import native

Array = np.ndarray[Any, Any]


def some_index(entries: int) -> tuple[bytes, Array, Array]:
    """(the index as it is on disk, the offsets of its entries, their positions)."""
    random = np.random.default_rng(2)
    offsets = np.cumsum(random.integers(1, 1000, entries))
    positions = np.arange(1, entries + 1) * 1024
    table = np.empty((entries, 2), ">u4")
    table[:, 0], table[:, 1] = offsets, positions
    return table.tobytes(), offsets.astype(np.int64), positions.astype(np.int64)


def ns_each(find: Callable[[], Array], count: int) -> float:
    """Nanoseconds of one query."""
    start = perf_counter_ns()
    find()
    return (perf_counter_ns() - start) / count


def run(ctx: Context) -> list[Figure]:
    """Random and sorted queries."""
    count = ctx.size(1_000_000, 2_000)
    index, offsets, positions = some_index(count)
    random = np.random.default_rng(3).integers(0, int(offsets[-1]) + 1000, count)
    figures = []
    for order, queries in (("random", random), ("sorted", np.sort(random))):
        slots = np.searchsorted(offsets, queries, side="right")
        expected = np.where(slots > 0, positions[slots - 1], 0)
        assert (native.lookup(index, queries) == expected).all()
        ours, theirs = interleave(
            partial(ns_each, partial(native.lookup, index, queries), count),
            partial(ns_each, partial(np.searchsorted, offsets, queries, side="right"), count),
            ctx.pairs,
        )
        figures.append(
            Figure(
                name=f"lookup_{order}",
                title=f"`native.lookup` of {order} offsets in 1 M entries, per offset",
                unit="ns",
                measured=ours,
                against="`numpy.searchsorted`",
                baseline=theirs,
                reach=2.0,
                aim=1.0,
                table=True,
            )
        )
    return figures
