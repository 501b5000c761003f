"""What does choosing partitions cost by pytest-benchmark, and does Kafka's rule written in Python choose the same?

`pytest benchmarks --benchmark-enable`; without the option each runs once, as a test.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from tidelog import native

pytestmark = pytest.mark.benchmark(group="partition of 1,000 keys of 16 bytes")
KEYS = [random.Random(number).randbytes(15) + b"k" for number in range(1000)]
PARTITIONS = 12


def murmur2(key: bytes) -> int:
    """Kafka's hash, from its definition (org.apache.kafka.common.utils.Utils.murmur2)."""
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    h = 0x9747B28C ^ len(key)
    whole = len(key) // 4 * 4
    for at in range(0, whole, 4):
        k = int.from_bytes(key[at : at + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = h * m & mask ^ k
    if whole < len(key):
        h = (h ^ int.from_bytes(key[whole:], "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15


def oracle(keys: list[bytes], partitions: int) -> list[int]:
    """Kafka's rule."""
    return [(murmur2(key) & 0x7FFFFFFF) % partitions for key in keys]


@pytest.mark.parametrize("kind", ["list", "array"])
def test_partition(benchmark: Any, kind: str) -> None:
    keys = np.array(KEYS, "S16") if kind == "array" else KEYS
    assert benchmark(native.partition, keys, PARTITIONS).tolist() == oracle(KEYS, PARTITIONS)


@pytest.mark.parametrize("size", range(12))
def test_every_length(size: int) -> None:
    key = bytes(range(250, 250 - size, -1))
    assert native.murmur2(key) & 0xFFFFFFFF == murmur2(key)


def test_partition_oracle(benchmark: Any) -> None:
    found = benchmark(oracle, KEYS, PARTITIONS)
    assert len(set(found)) == PARTITIONS
    assert murmur2(b"21") == -973932308 & 0xFFFFFFFF  # Kafka's own test vector
