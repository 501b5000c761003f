"""Do batches pack and unpack as Kafka's own classes do, and is hostile input refused before it costs anything?"""

from __future__ import annotations

import builtins
import gzip
import importlib
import random
import struct
import threading
import tracemalloc
from collections.abc import Callable
from typing import Any

import cramjam
import lz4.frame  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidelog import compression as c
from tidelog.errors import DecodeError, NotSupported

PACKED = [c.GZIP, c.SNAPPY, c.LZ4, c.ZSTD]
# The records of three messages and their containers, as parsed and checked by Kafka 4.3.0's own classes.
RECORDS = bytes.fromhex("1a000000046b310a68656c6c6f001e000a02010a776f726c64020268027616000504046b330102026e01")
VECTORS = {
    c.GZIP: "1f8b08000000000002039362606060c936e4ca48cdc9c9679063e06262e42acf2fca496162ca602a1363606561c936666462ca63"
    "04007e2fecd32a000000",
    c.SNAPPY: "82534e415050590000000001000000010000002c2aa41a000000046b310a68656c6c6f001e000a02010a776f726c640202680276"
    "16000504046b330102026e01",
    c.LZ4: "04224d186040822a0000801a000000046b310a68656c6c6f001e000a02010a776f726c64020268027616000504046b330102026e01"
    "00000000",
    c.ZSTD: "28b52ffd202a5101001a000000046b310a68656c6c6f001e000a02010a776f726c64020268027616000504046b330102026e01",
}
SNAPPY_RAW = bytes.fromhex(VECTORS[c.SNAPPY])[20:]


def refused(codec: int, data: bytes, because: str, **caps: int) -> None:
    with pytest.raises(DecodeError, match=because):
        c.decompress(codec, data, **caps)


@pytest.mark.parametrize("codec", PACKED)
def test_reads_kafkas_own_bytes(codec: int) -> None:
    assert c.decompress(codec, bytes.fromhex(VECTORS[codec])) == RECORDS


@pytest.mark.parametrize("codec", [c.SNAPPY, c.LZ4])
def test_writes_kafkas_own_bytes(codec: int) -> None:
    assert c.compress(codec, RECORDS).hex() == VECTORS[codec]


def test_reads_snappy_as_librdkafka_and_little_endian_writers_frame_it() -> None:
    assert c.decompress(c.SNAPPY, SNAPPY_RAW) == RECORDS
    little = b"\x82SNAPPY\x00" + struct.pack("<ii", 1, 1) + struct.pack(">i", len(SNAPPY_RAW)) + SNAPPY_RAW
    assert c.decompress(c.SNAPPY, little) == RECORDS


def test_names_and_ids() -> None:
    assert [c.codec_id(name) for name in c.NAMES] == [0, 1, 2, 3, 4]
    assert c.codec_id(None) == c.codec_id("uncompressed") == 0
    assert [c.codec_name(codec) for codec in range(5)] == list(c.NAMES)
    with pytest.raises(ValueError, match="'lzma' does not exist: use one of none, gzip, snappy, lz4, zstd"):
        c.codec_id("lzma")
    for codec in (5, 6, 7, -1):
        for call in (c.codec_name, c.ensure, lambda x: c.compress(x, b""), lambda x: c.decompress(x, b"a")):
            with pytest.raises(DecodeError, match="is not one of Kafka's"):
                call(codec)


@pytest.mark.parametrize("codec", [c.NONE, *PACKED])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_round_trip_of_sizes_and_buffers(codec: int, kind: Callable[[bytes], Any]) -> None:
    noise = random.Random(7).randbytes(700_000)
    for data in (b"", b"x", RECORDS * 3000, noise, bytes(5_000_000), noise[:32768], noise[:32769]):
        packed = c.compress(codec, kind(data))
        assert type(packed) is bytes
        assert c.decompress(codec, kind(packed)) == data
        assert c.decompress(codec, packed, max_bytes=len(data)) == data


@given(codec=st.sampled_from([c.NONE, *PACKED]), data=st.binary(max_size=3000))
def test_round_trip_of_anything(codec: int, data: bytes) -> None:
    assert c.decompress(codec, c.compress(codec, data)) == data


def test_lz4_frames_are_what_javas_reader_takes() -> None:
    packed = c.compress(c.LZ4, random.Random(1).randbytes(200_000))
    assert packed[4] == 0x60  # version 01, independent blocks, no checksums, no size
    assert packed[5] == 0x40  # 64 KiB blocks
    other = lz4.frame.compress(
        RECORDS, block_size=lz4.frame.BLOCKSIZE_MAX4MB, content_checksum=True, block_checksum=True, store_size=True
    )
    assert c.decompress(c.LZ4, other) == RECORDS


def test_snappy_blocks_hold_at_most_32_kib() -> None:
    packed = c.compress(c.SNAPPY, random.Random(1).randbytes(100_000))
    position, sizes = 16, []
    while position < len(packed):
        (length,) = struct.unpack_from(">i", packed, position)
        sizes.append(cramjam.snappy.decompress_raw_len(packed[position + 4 : position + 4 + length]))
        position += 4 + length
    assert sizes == [32768, 32768, 32768, 100_000 - 3 * 32768]


@pytest.mark.parametrize("codec", PACKED)
def test_every_cut_is_refused(codec: int) -> None:
    packed = bytes.fromhex(VECTORS[codec])
    for length in range(len(packed)):
        if codec == c.SNAPPY and length == 16:
            continue  # a header alone is an empty batch, which Java also writes
        refused(codec, packed[:length], "truncated|corrupt")


@pytest.mark.parametrize("codec", PACKED)
@pytest.mark.parametrize("junk", [b"\0", b"junk", bytes(300_000)])
def test_bytes_after_the_end_are_refused(codec: int, junk: bytes) -> None:
    for packed in (bytes.fromhex(VECTORS[codec]), c.compress(codec, bytes(600_000))):
        refused(codec, packed + junk, "follow the end|truncated|corrupt")


@pytest.mark.parametrize("codec", PACKED)
def test_every_flipped_byte_is_data_or_a_typed_error(codec: int) -> None:
    packed = bytearray.fromhex(VECTORS[codec])
    errors = 0
    for place in range(len(packed)):
        for mask in (1, 0x80, 0xFF):
            packed[place] ^= mask
            try:
                assert len(c.decompress(codec, bytes(packed), max_bytes=1 << 20)) <= 1 << 20
            except DecodeError:
                errors += 1
            packed[place] ^= mask
    assert errors >= 10


@given(codec=st.sampled_from(PACKED), data=st.binary(max_size=200))
def test_garbage_is_a_typed_error(codec: int, data: bytes) -> None:
    prefix = {c.GZIP: b"\x1f\x8b\x08", c.SNAPPY: b"", c.LZ4: b"\x04\x22\x4d\x18", c.ZSTD: b"\x28\xb5\x2f\xfd"}[codec]
    for hostile in (data, prefix + data):
        try:
            c.decompress(codec, hostile, max_bytes=1 << 16)
        except DecodeError as error:
            assert str(error).startswith(c.codec_name(codec))


@pytest.mark.parametrize("codec", PACKED)
def test_a_bomb_is_refused_without_the_memory_it_asks_for(codec: int) -> None:
    bomb = c.compress(codec, bytes(48 << 20))
    for cap in (0, 1, 1 << 20):
        c.ensure(codec)
        tracemalloc.start()
        refused(codec, bomb, "unpack to more than", max_bytes=cap)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < cap + (12 << 20)
    refused(codec, bomb, "unpack to more than", max_ratio=2)
    assert c.decompress(codec, bomb) == bytes(48 << 20)


@pytest.mark.parametrize("codec", [c.NONE, *PACKED])
def test_the_cap_is_exact(codec: int) -> None:
    data = random.Random(3).randbytes(5000)
    packed = c.compress(codec, data)
    assert c.decompress(codec, packed, max_bytes=5000) == data
    refused(codec, packed, "unpack to more than the 4999 bytes", max_bytes=4999)


def test_a_snappy_header_that_lies_allocates_nothing() -> None:
    refused(c.SNAPPY, b"\xff\xff\xff\xff\x0f" + bytes(100), "claim to unpack to 4294967295", max_bytes=1 << 40)
    refused(c.SNAPPY, b"\xff\xff\xff\xff\xff\xff", "no varint")
    refused(c.SNAPPY, b"\xff\xff", "truncated")
    header = bytes.fromhex(VECTORS[c.SNAPPY])[:16]
    for length in (0, -1, -(2**31)):
        refused(c.SNAPPY, header + struct.pack(">i", length) + SNAPPY_RAW, "a block of")
    refused(c.SNAPPY, header + struct.pack(">i", 2**31 - 1) + SNAPPY_RAW, "truncated")


def test_floods_of_tiny_parts_are_refused() -> None:
    refused(c.GZIP, gzip.compress(b"") * 1100, "more than 1024 parts")
    refused(c.ZSTD, c.compress(c.ZSTD, b"") * 1100, "more than 1024 parts")
    header = bytes.fromhex(VECTORS[c.SNAPPY])[:16]
    refused(c.SNAPPY, header + (b"\0\0\0\1" + b"\0") * 70_000, "more than 65536 blocks")


def test_several_gzip_members_and_zstd_frames_are_one_batch() -> None:
    for codec in (c.GZIP, c.ZSTD):
        one, two = c.compress(codec, RECORDS), c.compress(codec, bytes(400_000))
        assert c.decompress(codec, one + two + one) == RECORDS + bytes(400_000) + RECORDS
    skippable = b"\x50\x2a\x4d\x18" + struct.pack("<I", 5) + b"hello"
    assert c.decompress(c.ZSTD, skippable + c.compress(c.ZSTD, RECORDS)) == RECORDS


@pytest.mark.parametrize(
    ("name", "blocked", "install"),
    [
        ("zstd", ("compression", "backports"), "pip install 'tidelog[zstd]'"),
        ("snappy", ("cramjam",), "pip install 'tidelog[snappy]'"),
        ("lz4", ("lz4",), "pip install lz4"),
    ],
)
def test_a_missing_package_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, blocked: tuple[str, ...], install: str
) -> None:
    def refuse(path: str) -> object:
        if path.split(".")[0] in blocked:
            raise ImportError(path)
        return builtins.__import__(path)

    monkeypatch.setattr(importlib, "import_module", refuse)
    monkeypatch.setattr(c, "_kept", threading.local())
    c._load.cache_clear()
    try:
        for call in (c.ensure, lambda codec: c.compress(codec, b"a"), lambda codec: c.decompress(codec, b"a")):
            with pytest.raises(NotSupported) as caught:
                call(c.codec_id(name))
            assert install in str(caught.value)
        c.ensure(c.GZIP)
    finally:
        c._load.cache_clear()


def test_threads_share_nothing() -> None:
    data = [bytes([n]) * 100_000 for n in range(8)]
    wrong: list[int] = []

    def work(n: int) -> None:
        for _ in range(50):
            for codec in PACKED:
                if c.decompress(codec, c.compress(codec, data[n])) != data[n]:
                    wrong.append(n)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_zstd_compressor_that_failed_is_not_kept() -> None:
    c.compress(c.ZSTD, RECORDS)
    with pytest.raises(TypeError):
        c.compress(c.ZSTD, "text")  # type: ignore[arg-type]
    assert c._kept.zstd is None
    assert c.decompress(c.ZSTD, c.compress(c.ZSTD, RECORDS)) == RECORDS
