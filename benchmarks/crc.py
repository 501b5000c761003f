"""How fast is CRC-32C over 64 KiB?

Timed: `tidelog.native.crc32c(data)` over 64 KiB that stay in the cache, 1,000 calls a sample; against
`google_crc32c.value(data)` through its own extension. The sums are compared.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from time import perf_counter_ns

import google_crc32c

from benchmarks.harness import Context, Figure, interleave
from tidelog import _native, native

SIZE = 1 << 16


def gigabytes(crc: Callable[[bytes], int], data: bytes, rounds: int) -> float:
    """GB/s."""
    start = perf_counter_ns()
    for _ in range(rounds):
        crc(data)
    return rounds * len(data) / (perf_counter_ns() - start)


def run(ctx: Context) -> list[Figure]:
    """One figure."""
    data, rounds = os.urandom(SIZE), ctx.size(1000, 5)
    assert google_crc32c.implementation == "c", "google-crc32c has no compiled extension here"
    assert native.crc32c(data) == google_crc32c.value(data)
    ours, theirs = interleave(
        partial(gigabytes, native.crc32c, data, rounds),
        partial(gigabytes, google_crc32c.value, data, rounds),
        ctx.pairs,
    )
    return [
        Figure(
            name="crc",
            title="CRC-32C, 64 KiB",
            unit="GB/s",
            measured=ours,
            against="google-crc32c",
            baseline=theirs,
            sign=">=",
            reach=0.95,
            aim=1.2,
            table=True,
            notes={"implementation": _native.crc32c_name()},
        )
    ]
