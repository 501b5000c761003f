"""Is a key the same bytes everywhere, do user rules stay in bounds, and are channel names safe as file names?"""

from __future__ import annotations

import struct
import uuid
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidelog import names
from tidelog import partitioner as p


def murmur2(data: bytes) -> int:
    """Kafka's 32-bit murmur2, the oracle."""
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    h = (0x9747B28C ^ len(data)) & mask
    whole = len(data) & ~3
    for (k,) in struct.iter_unpack("<I", data[:whole]):
        k = k * m & mask
        k ^= k >> 24
        h = (h * m & mask) ^ (k * m & mask)
    if rest := data[whole:]:
        h = (h ^ int.from_bytes(rest, "little")) * m & mask
    h = (h ^ (h >> 13)) * m & mask
    return h ^ (h >> 15)


# (key, murmur2 of its bytes, partition of 12), from Kafka 4.3.0's own classes.
VECTORS: list[tuple[Any, int, int]] = [
    ("", 275646681, 9),
    (b"\0", 375494588, 8),
    ("a", 2731586172, 4),
    ("abc", 479470107, 3),
    ("kafka", 3496464228, 4),
    (bytearray(b"foobar"), 3504634814, 6),
    (memoryview(b"user-12345"), 4051476243, 7),
    (b"\xff\xff\xff\xff", 644171429, 5),
    ("é中", 4005141372, 4),
    (0, 3772207363, 11),
    (np.int64(0), 3772207363, 11),
    (np.bytes_(b"1234"), 2680781588, 0),
]


@pytest.mark.parametrize(("key", "hashed", "partition"), VECTORS)
def test_keys_reach_kafkas_partition(key: p.Key, hashed: int, partition: int) -> None:
    data = p.key_bytes(key)
    assert type(data) is bytes
    assert murmur2(data) == hashed
    assert (hashed & 0x7FFFFFFF) % 12 == partition


def test_what_a_key_is() -> None:
    assert p.key_bytes(None) is None
    same = b"abc"
    assert p.key_bytes(same) is same
    assert p.key_bytes("") == b""
    assert p.key_bytes(1) == bytes(7) + b"\x01"
    assert p.key_bytes(-1) == b"\xff" * 8
    assert p.key_bytes(2**63 - 1) == b"\x7f" + b"\xff" * 7
    assert p.key_bytes(np.uint8(255)) == bytes(7) + b"\xff"
    assert p.key_bytes(b"a\0") == b"a\0"  # plain bytes keep their NULs
    assert p.key_bytes(np.bytes_(b"a\0\0")) == b"a"
    assert p.key_bytes(np.str_("é")) == "é".encode()


@given(st.integers(-(2**63), 2**63 - 1))
def test_int_keys_are_javas_longs(number: int) -> None:
    assert p.key_bytes(number) == struct.pack(">q", number)


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 10**30, np.uint64(2**63)])
def test_int_keys_that_are_no_long(number: Any) -> None:
    with pytest.raises(ValueError, match="does not fit in 8 bytes signed"):
        p.key_bytes(number)


@pytest.mark.parametrize("key", [True, False, np.True_])
def test_bool_is_no_key(key: Any) -> None:
    with pytest.raises(TypeError, match="is a bool"):
        p.key_bytes(key)


@pytest.mark.parametrize("key", [1.5, np.float64(1), (1, 2), ["a"], object(), uuid.uuid4(), np.array(["a", "b"])])
def test_other_types_are_no_keys(key: Any) -> None:
    with pytest.raises(TypeError, match="cannot be a key: a key is bytes, str, int"):
        p.key_bytes(key)


def test_a_str_without_utf8_is_no_key() -> None:
    with pytest.raises(ValueError, match="cannot be written as UTF-8") as caught:
        p.key_bytes("\ud800")
    assert type(caught.value) is ValueError


def test_many_keys() -> None:
    assert p.key_list(["a", b"b", None, 1]) == [b"a", b"b", None, bytes(7) + b"\x01"]
    assert p.key_list(f"k{n}" for n in range(3)) == [b"k0", b"k1", b"k2"]
    assert p.key_list(np.array([b"tea", b"t", b""])) == [b"tea", b"t", b""]
    assert p.key_list(np.array(["é", "a"])) == ["é".encode(), b"a"]
    assert p.key_list(np.array([1, -1], "i2")) == [bytes(7) + b"\x01", b"\xff" * 8]
    assert p.key_list(np.array(["a", None], object)) == [b"a", None]
    with pytest.raises(TypeError, match="key 1: 1.5|key 1: float cannot be a key"):
        p.key_list(["a", 1.5])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="key 2: the key 9223372036854775808"):
        p.key_list(np.array([0, 1, 2**63], "u8"))
    for wrong in (np.array([1.5]), np.array([True]), np.array([["a"]])):
        with pytest.raises(TypeError, match="cannot hold keys"):
            p.key_list(wrong)


def test_a_users_rule_is_asked_and_checked() -> None:
    asked = []

    def rule(key: bytes | None, value: Any, partitions: int, /) -> int:
        asked.append((key, value, partitions))
        return value  # type: ignore[no-any-return]

    assert p.choose(rule, b"k", 2, 3) == 2
    assert p.choose(rule, None, np.int32(0), 3) == 0
    assert asked == [(b"k", 2, 3), (None, 0, 3)]
    for wrong in (3, -1, 10**20):
        with pytest.raises(ValueError, match=r"rule answered .* partitions 0\.\.2"):
            p.choose(rule, None, wrong, 3)
    for other in (True, 1.0, None, "1"):
        with pytest.raises(TypeError, match="rule answered .* a partition is an int"):
            p.choose(rule, None, other, 3)


def test_what_a_rule_raises_passes_through() -> None:
    class Rule:
        def __call__(self, key: bytes | None, value: Any, partitions: int, /) -> int:
            return {}[key]  # type: ignore[index]

    with pytest.raises(KeyError):
        p.choose(Rule(), b"a", None, 3)


def test_partition_numbers() -> None:
    assert p.check_partition(0, 1) == 0
    with pytest.raises(ValueError, match="partition 4 does not exist: the channel has partitions 0..3"):
        p.check_partition(4, 4)


# --- names ---


@pytest.mark.parametrize("name", ["a", "A.b_c-9", "x" * 249, "...", "-", "a.json", "__mine", "orders-0", ".tmp-1"])
def test_good_names(name: str) -> None:
    assert names.check_channel(name) is name
    assert names.parse_partition_directory(names.partition_directory(name, 99_999)) == (name, 99_999)
    assert len(names.partition_directory(name, 99_999)) <= 255


@pytest.mark.parametrize(
    ("name", "because"),
    [
        ("", "cannot be empty"),
        (".", "directory of its own"),
        ("..", "directory of its own"),
        ("x" * 250, "has 250 characters"),
        ("a/b", "'/'"),
        ("../etc/passwd", "'/'"),
        ("a\0", "x00"),
        ("a b", "' '"),
        ("a\n", "n'"),
        ("café", "'é'"),
        ("١", "character"),
        ("a:b", "':'"),
        (".deleted", "reserved"),
        (".deleted-5", "reserved"),
        ("__consumer_offsets", "reserved"),
    ],
)
def test_bad_names(name: str, because: str) -> None:
    with pytest.raises(ValueError, match=because):
        names.check_channel(name)


def test_names_of_other_types_and_internal_names() -> None:
    with pytest.raises(TypeError, match="is a str, not bytes"):
        names.check_channel(b"a")  # type: ignore[arg-type]
    assert names.check_channel("__consumer_offsets", internal=True)


@given(st.text(max_size=300))
def test_whatever_passes_stays_in_the_store(name: str) -> None:
    try:
        names.check_channel(name)
    except ValueError:
        return
    assert name.isascii()
    assert "/" not in name
    assert name not in ("", ".", "..")


def test_collisions_of_dot_and_underscore() -> None:
    assert names.collides_with("a.b", ["x", "a_b"]) == "a_b"
    assert names.collides_with("a.b", ["a.b", "a-b", "a.b.c"]) is None
    assert names.check_new("a.b", ["a.b"]) == "a.b"
    with pytest.raises(ValueError, match=r"'a\.b_c' collides with the channel 'a_b\.c'"):
        names.check_new("a.b_c", ["a_b.c"])


@pytest.mark.parametrize(
    "directory",
    [
        "orders",
        "orders-",
        "-1",
        "orders-07",
        "orders-1x",
        "orders-100000",
        "orders-٣",
        ".deleted-5",
        "..-1",
        "a/b-1",
        "",
    ],
)
def test_directories_of_no_partition(directory: str) -> None:
    assert names.parse_partition_directory(directory) is None


def test_partition_directories() -> None:
    assert names.parse_partition_directory("a-1-0") == ("a-1", 0)
    assert names.parse_partition_directory("a--1") == ("a-", 1)
    for wrong in (-1, 100_000):
        with pytest.raises(ValueError, match="is not in 0..99999"):
            names.partition_directory("a", wrong)
