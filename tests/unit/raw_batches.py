"""Record batches as a Kafka client makes them, written by the layout of the format and not by the code under test."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, TypeAlias

import google_crc32c

from tidelog import _native

Headers: TypeAlias = Sequence[tuple[str, bytes | None]]

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


def field(data: bytes | None) -> bytes:
    """A length and that many bytes; null has the length -1."""
    return varint(-1) if data is None else varint(len(data)) + data


def record(
    delta: int, value: bytes | None, key: bytes | None = None, headers: Headers = (), later_ms: int = 0
) -> bytes:
    """One record, `delta` offsets and `later_ms` behind the first of its batch; `headers`: name and value, or None."""
    body = b"\0" + varint(later_ms) + varint(delta) + field(key) + field(value) + varint(len(headers))
    body += b"".join(field(name.encode()) + field(content) for name, content in headers)
    return varint(len(body)) + body


def framed(
    records: list[bytes],
    *,
    base_offset: int = 0,
    epoch_of_leader: int = -1,
    attributes: int = 0,
    first_ms: int = BASE_MS,
    last_ms: int | None = None,
    producer_id: int = -1,
    epoch: int = -1,
    sequence: int = -1,
) -> bytes:
    """Records with the header of a batch before them. `last_ms`: the largest timestamp, None: the first one."""
    rest = struct.pack(
        ">hiqqqhii",
        attributes,
        len(records) - 1,
        first_ms,
        first_ms if last_ms is None else last_ms,
        producer_id,
        epoch,
        sequence,
        len(records),
    )
    rest += b"".join(records)
    crc = int(google_crc32c.value(rest))
    return struct.pack(">qiibI", base_offset, 9 + len(rest), epoch_of_leader, 2, crc) + rest


def batch(producer_id: int, epoch: int, sequence: int, values: list[bytes], attributes: int = 0) -> bytes:
    """One batch of these values; its base offset is 0, as a client sends it."""
    records = [record(delta, value) for delta, value in enumerate(values)]
    return framed(records, producer_id=producer_id, epoch=epoch, sequence=sequence, attributes=attributes)


def append(partition: Any, data: bytes) -> tuple[int, bool]:
    """(offset of its first message, whether it was there already); raises what the rules say."""
    return _native._append_encoded(partition, data, struct.unpack_from(">i", data, 57)[0], BASE_MS)
