"""Record batches as a Kafka client makes them, written by the layout of the format and not by the code under test."""

from __future__ import annotations

import struct
from typing import Any

from tidelog import _native
from tidelog.native import crc32c

BASE_MS = 1_700_000_000_000


def varint(value: int) -> bytes:
    """Zigzag LEB128."""
    number = (value << 1) ^ (value >> 63)
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def record(delta: int, value: bytes) -> bytes:
    body = b"\0" + varint(0) + varint(delta) + varint(-1) + varint(len(value)) + value + varint(0)
    return varint(len(body)) + body


def batch(producer_id: int, epoch: int, sequence: int, values: list[bytes], attributes: int = 0) -> bytes:
    """One batch of these values; its base offset is 0, as a client sends it."""
    records = b"".join(record(delta, value) for delta, value in enumerate(values))
    rest = struct.pack(
        ">hiqqqhii",
        attributes,
        len(values) - 1,
        BASE_MS,
        BASE_MS,
        producer_id,
        epoch,
        sequence,
        len(values),
    )
    rest += records
    return struct.pack(">qiibI", 0, 9 + len(rest), -1, 2, crc32c(rest)) + rest


def append(partition: Any, data: bytes) -> tuple[int, bool]:
    """(offset of its first message, whether it was there already); raises what the rules say."""
    return _native._append_encoded(partition, data, struct.unpack_from(">i", data, 57)[0], BASE_MS)
