"""What does finding offsets in an index cost by pytest-benchmark, and does bisect find the same?

`pytest benchmarks --benchmark-enable`; without the option each runs once, as a test.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from typing import Any

import numpy as np
import pytest

from benchmarks.lookup import some_index
from tidelog import native

pytestmark = pytest.mark.benchmark(group="10,000 offsets in 10,000 entries")
INDEX, OFFSETS, _ = some_index(10_000)
QUERIES = np.random.default_rng(6).integers(0, int(OFFSETS[-1]) + 1000, 10_000)
QUERIES[0], QUERIES[1] = 0, OFFSETS[-1]


def oracle(index: bytes, queries: list[int]) -> list[int]:
    """The position of the last entry at or below each offset, 0 where there is none."""
    entries = list(struct.iter_unpack(">II", index))
    offsets = [offset for offset, _ in entries]
    found = []
    for query in queries:
        slot = bisect_right(offsets, query)
        found.append(entries[slot - 1][1] if slot else 0)
    return found


@pytest.mark.parametrize("order", ["random", "sorted"])
def test_lookup(benchmark: Any, order: str) -> None:
    queries = np.sort(QUERIES) if order == "sorted" else QUERIES
    assert benchmark(native.lookup, INDEX, queries).tolist() == oracle(INDEX, queries.tolist())


def test_lookup_oracle(benchmark: Any) -> None:
    found = benchmark(oracle, INDEX, QUERIES.tolist())
    assert found[0] == 0 and found[1] == struct.unpack(">I", INDEX[-4:])[0]
