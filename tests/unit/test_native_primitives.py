"""Are the public primitives right against independent implementations, for every kind of input?"""

from __future__ import annotations

import bisect
import struct
import subprocess
import sys
from typing import Any

import google_crc32c
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.partitioner.default import murmur2 as kafka_murmur2

from tidelog import _native as n
from tidelog.partitioner import key_bytes

KEYS = st.one_of(st.binary(max_size=40), st.text(max_size=20), st.integers(-(1 << 63), (1 << 63) - 1))


@given(st.binary(max_size=5000), st.integers(0, 5000))
def test_crc_chains_and_equals_another_implementation(data: bytes, cut: int) -> None:
    assert n.crc32c(data) == google_crc32c.value(data)
    assert n.crc32c(data[cut:], n.crc32c(data[:cut])) == google_crc32c.value(data)


def test_crc_of_large_buffers_and_of_every_kind_of_bytes() -> None:
    data = bytes(range(256)) * 4096  # beyond the size up to which the GIL is kept
    expected = google_crc32c.value(data)
    array = np.frombuffer(data, "u4")
    for one in (data, bytearray(data), memoryview(data), array):
        assert n.crc32c(one) == expected
    assert n.crc32c_name() in {"table", "sse42", "pclmul", "avx512", "armv8"}
    with pytest.raises((BufferError, ValueError)):
        n.crc32c(array[::2])
    with pytest.raises(TypeError):
        n.crc32c("text")
    with pytest.raises(OverflowError):
        n.crc32c(b"", 1 << 32)


@given(KEYS)
def test_murmur2_is_kafkas(key: Any) -> None:
    assert n.murmur2(key) == kafka_murmur2(key_bytes(key)) & 0xFFFFFFFF


def test_murmur2_known_values() -> None:
    assert n.murmur2(b"") == 275646681
    assert n.murmur2("kafka") == 3496464228
    assert n.murmur2(bytearray(b"foobar")) == 3504634814


@pytest.mark.parametrize("key", [None, True, 1.5, object()])
def test_murmur2_refuses_what_is_no_key(key: Any) -> None:
    with pytest.raises(TypeError):
        n.murmur2(key)


def rule(key: bytes | None, partitions: int) -> int:
    return -1 if key is None else (kafka_murmur2(key) & 0x7FFFFFFF) % partitions


@given(st.lists(st.one_of(st.none(), KEYS), max_size=600), st.integers(1, 1 << 20))
def test_partition_of_many_keys(keys: list[Any], partitions: int) -> None:
    got = n.partition(keys, partitions)
    assert got.dtype == np.int32
    assert got.tolist() == [rule(key_bytes(key), partitions) for key in keys]
    assert n.partition(iter(keys), partitions).tolist() == got.tolist()


@pytest.mark.parametrize("dtype", ["S5", "i1", "i4", "i8", ">i8", "u4", "u8", "U3"])
def test_partition_of_arrays_follows_the_rule_for_single_keys(dtype: str) -> None:
    random = np.random.default_rng(7)
    array = random.integers(0, 120, 1000).astype(dtype)
    for view in (array, array[::3], array[::-1]):
        expected = [rule(key_bytes(key), 7) for key in view.tolist()]
        assert n.partition(view, 7).tolist() == expected


def test_partition_of_text_with_and_without_padding_agrees() -> None:
    assert (
        n.partition(np.array([b"a", b"abc", b""], "S8"), 100).tolist() == n.partition([b"a", b"abc", b""], 100).tolist()
    )


def test_partition_refuses_wrong_arguments() -> None:
    for partitions in (0, -1, 1 << 31):
        with pytest.raises(ValueError, match="partitions"):
            n.partition([b"a"], partitions)
    with pytest.raises(ValueError, match="8 bytes"):
        n.partition(np.array([1 << 63], "u8"), 4)
    with pytest.raises(TypeError):
        n.partition([b"a", 1.5], 4)
    assert n.partition([], 4).tolist() == []
    assert n.partition(np.empty(0, "S3"), 4).tolist() == []


@given(
    st.lists(st.integers(1, 1 << 20), unique=True, max_size=200),
    st.lists(st.integers(-5, 1 << 21), max_size=200),
    st.integers(0, 1 << 40),
)
def test_lookup_is_a_lower_bound(entries: list[int], offsets: list[int], base: int) -> None:
    entries.sort()
    index = b"".join(struct.pack(">ii", offset, 100 + place * 7) for place, offset in enumerate(entries))
    wanted = np.array(offsets, "i8") + base
    expected = []
    for offset in offsets:
        place = bisect.bisect_right(entries, offset) - 1
        expected.append(100 + place * 7 if place >= 0 else 0)
    assert n.lookup(index, wanted, base).tolist() == expected
    assert n.lookup(memoryview(index), wanted[::-1], base).tolist() == expected[::-1]


def test_lookup_refuses_half_entries_and_other_types() -> None:
    with pytest.raises(ValueError, match="8 bytes"):
        n.lookup(b"1234567", np.array([1]))
    with pytest.raises(TypeError, match="integers"):
        n.lookup(b"", np.array([1.5]))
    with pytest.raises(TypeError, match="one dimension"):
        n.lookup(b"", np.zeros((2, 2), "i8"))
    assert n.lookup(b"", np.array([3, 4])).tolist() == [0, 0]


def test_build_says_how_it_was_made() -> None:
    assert set(n.BUILD) == {"compiler", "machine", "optimized", "sanitizer", "test_points", "cython"}


def test_importing_the_extension_does_not_import_numpy() -> None:
    code = "import sys, tidelog._native; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
