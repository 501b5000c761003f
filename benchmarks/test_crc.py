"""What does CRC-32C cost by pytest-benchmark, and is the sum that of the definition?

`pytest benchmarks --benchmark-enable`; without the option each runs once, as a test.
"""

from __future__ import annotations

import random
from typing import Any

import google_crc32c
import pytest

from tidelog import native

SIZES = [64, 4096, 65536]


def data_of(size: int) -> bytes:
    """Always the same bytes."""
    return random.Random(size).randbytes(size)


def _table() -> list[int]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return table


TABLE = _table()


def oracle(data: bytes) -> int:
    """CRC-32C a byte at a time."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


@pytest.mark.parametrize("size", SIZES)
def test_crc(benchmark: Any, size: int) -> None:
    benchmark.group = f"CRC-32C of {size} bytes"
    data = data_of(size)
    assert benchmark(native.crc32c, data) == oracle(data)


@pytest.mark.parametrize("size", SIZES)
def test_crc_google(benchmark: Any, size: int) -> None:
    benchmark.group = f"CRC-32C of {size} bytes"
    data = data_of(size)
    assert benchmark(google_crc32c.value, data) == oracle(data)


@pytest.mark.parametrize("size", SIZES)
def test_crc_oracle(benchmark: Any, size: int) -> None:
    benchmark.group = f"CRC-32C of {size} bytes"
    benchmark(oracle, data_of(size))
    assert oracle(b"123456789") == 0xE3069283  # the check value of the polynomial's definition
