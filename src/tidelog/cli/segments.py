"""What stands in the files of a partition, read and written without the store? (for repair)

Floor 9: imports the native CRC; otherwise plain Python over bytes, by docs/format.md, so that it is a second opinion on
the files and not the first one again. Thread rule: pure functions; a `Seals` belongs to one thread.

Every byte is hostile: lengths are bounded by what is there before they are used.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from typing import NamedTuple

from tidelog.native import crc32c

HEADER_BYTES = 61
PREFIX_BYTES = 12
CRC_FROM = 21
MIN_RECORD_BYTES = 7
FORCED_RECORD_BYTES = 15
"""From this length on a filler's record has four bytes of value to choose."""
INDEX_INTERVAL_BYTES = 4096
INDEX_ENTRY_BYTES = 8
TIME_ENTRY_BYTES = 12
SEALS_MAGIC = b"tdseals1"
SEALS_HEADER_BYTES = 64
SEAL_BYTES = 48
CONTROL = 0x20
CONTROL_KEY = b"\0\0\x7f\xff"
"""Version 0 and a type that Kafka does not use."""

_HEADER = struct.Struct(">qiibIhiqqqhii")
_SEAL = struct.Struct("<qqqIIIII")
_SEGMENT = re.compile(r"\d{20}\.log", re.ASCII)
_FIXED = b"\0\0\0\0\x02"
"""Leader epoch 0 and magic 2, bytes 12 to 16 of every batch."""


def is_segment(name: str) -> bool:
    """Whether a file name is that of a segment's log."""
    return _SEGMENT.fullmatch(name) is not None


class Batch(NamedTuple):
    """One batch that is whole."""

    position: int
    size_bytes: int
    base_offset: int
    last_offset: int
    max_timestamp_ms: int


class Hole(NamedTuple):
    """Bytes that are no batch, and the offsets that were in them. `next_offset` -1: not known."""

    begin: int
    end: int
    first_offset: int
    next_offset: int
    header_whole: bool
    """Whether the first 21 bytes can still be what was written."""


@dataclass(slots=True)
class Walk:
    """What was found from the beginning of a segment to its end."""

    base_offset: int
    batches: list[Batch] = field(default_factory=list)
    holes: list[Hole] = field(default_factory=list)
    end: int = 0
    """Position behind the last batch or hole."""
    header_crc: int = 0
    max_timestamp_ms: int = -1


def parse(data: bytes | bytearray, position: int) -> Batch | None:
    """The batch at `position` if its header is possible and its CRC right."""
    if position + HEADER_BYTES > len(data):
        return None
    (base, length, epoch, magic, crc, _attributes, delta, _first, newest, *_rest, count) = _HEADER.unpack_from(
        data, position
    )
    size = length + PREFIX_BYTES
    if magic != 2 or epoch != 0 or size < HEADER_BYTES or position + size > len(data):
        return None
    if base < 0 or delta < 0 or not 0 <= count <= delta + 1:
        return None
    if crc32c(memoryview(data)[position + CRC_FROM : position + size]) != crc:
        return None
    return Batch(position, size, base, base + delta, newest)


def walk(data: bytes | bytearray, base_offset: int, end_offset: int, length: int = -1) -> Walk:
    """Every batch and every hole of a segment that begins at `base_offset` and ends at `end_offset`, in `length` bytes
    (-1: not known; then zeros at the end are taken for space that was allocated ahead)."""
    found = Walk(base_offset)
    # Zeros at the end of a batch belong to it: the last batch may reach past this, but none begins there.
    used = len(data.rstrip(b"\0")) if length < 0 else min(length, len(data))
    position, expected = 0, base_offset
    while position < used:
        batch = parse(data, position)
        if batch is not None and batch.base_offset >= expected and (not found.batches or batch.base_offset == expected):
            found.batches.append(batch)
            found.header_crc = crc32c(memoryview(data)[position : position + CRC_FROM], found.header_crc)
            found.max_timestamp_ms = max(found.max_timestamp_ms, batch.max_timestamp_ms)
            position, expected = position + batch.size_bytes, batch.last_offset + 1
            continue
        hole = _hole(data, position, expected, end_offset, used)
        found.holes.append(hole)
        position = hole.end
        if hole.next_offset < 0:
            break
        expected = hole.next_offset
    found.end = position
    return found


def _hole(data: bytes | bytearray, begin: int, expected: int, end_offset: int, used: int) -> Hole:
    base, length = struct.unpack(">qi", bytes(data[begin : begin + PREFIX_BYTES]).ljust(PREFIX_BYTES, b"\0"))
    size = length + PREFIX_BYTES
    plausible = base == expected and size >= HEADER_BYTES + MIN_RECORD_BYTES and begin + size <= len(data)
    plausible = plausible and bytes(data[begin + PREFIX_BYTES : begin + PREFIX_BYTES + len(_FIXED)]) == _FIXED
    if plausible:
        after = parse(data, begin + size)
        if after is not None and after.base_offset > expected:
            return Hole(begin, begin + size, expected, after.base_offset, True)
        if begin + size >= used and end_offset > expected:
            return Hole(begin, begin + size, expected, end_offset, True)
    place = data.find(_FIXED, begin + 1)
    while place >= 0:
        batch = parse(data, place - PREFIX_BYTES) if place - PREFIX_BYTES > begin else None
        if batch is not None and expected < batch.base_offset and (end_offset < 0 or batch.last_offset < end_offset):
            return Hole(begin, batch.position, expected, batch.base_offset, False)
        place = data.find(_FIXED, place + 1)
    return Hole(begin, used, expected, end_offset if end_offset > expected else -1, False)


# --- a batch without messages, of any length ---


def filler(data: bytes | bytearray, hole: Hole, around: Walk) -> bytes | None:
    """A batch that fills `hole` exactly; None if there is none (no end known, or too few bytes)."""
    size, delta = hole.end - hole.begin, hole.next_offset - 1 - hole.first_offset
    if not 0 <= delta < 1 << 31:
        return None
    before = [batch.max_timestamp_ms for batch in around.batches if batch.position < hole.begin]
    newest = max(before, default=-1)
    record = b"" if size == HEADER_BYTES else _record(size - HEADER_BYTES)
    if record is None:
        return None
    attributes, count = (CONTROL, 1) if record else (0, 0)
    head = struct.pack(">qii", hole.first_offset, size - PREFIX_BYTES, 0) + b"\x02"
    body = struct.pack(">hiqqqhii", attributes, delta, newest, newest, -1, -1, -1, count) + record
    crc = crc32c(body)
    if hole.header_whole:
        wanted = struct.unpack_from(">I", data, hole.begin + 17)[0]
        # The last four bytes of the value stand before the count of headers, which is the last byte.
        forced = _with_crc(bytearray(body), len(body) - 5, wanted) if len(record) >= FORCED_RECORD_BYTES else None
        if forced is not None:
            body, crc = forced, wanted
    return head + struct.pack(">I", crc) + body


def _record(size: int) -> bytes | None:
    """A control record of exactly `size` bytes: a value of zeros, no headers; None if `size` is below the least.

    The key names a type that nobody knows, which clients pass over; it is left out where there is no room for it."""
    for key in (_varint(len(CONTROL_KEY)) + CONTROL_KEY, _varint(-1)):
        for value in range(size - MIN_RECORD_BYTES - len(key) + 1, max(-1, size - 32), -1):
            rest = b"\0\0\0" + key + _varint(value) + bytes(value) + b"\0"
            length = _varint(len(rest))
            if len(length) + len(rest) == size:
                return length + rest
            if len(length) + len(rest) == size - 1:  # a length has grown by a byte: write it in one more
                return length[:-1] + bytes([length[-1] | 0x80, 0]) + rest
    return None


def _varint(value: int) -> bytes:
    value = value << 1 if value >= 0 else (-value << 1) - 1
    result = bytearray()
    while value > 0x7F:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    result.append(value)
    return bytes(result)


def _with_crc(body: bytearray, at: int, wanted: int) -> bytes:
    """`body` with the four bytes at `at` chosen so that its CRC-32C is `wanted`.

    The CRC is linear: changing bit i of the four bytes always flips the same bits of the CRC, and the 32 patterns are
    independent. So the flips that are needed are found by elimination.
    """
    body[at : at + 4] = bytes(4)
    plain = crc32c(body)
    rows: dict[int, tuple[int, int]] = {}  # highest bit -> (pattern, which bits of the four bytes make it)
    for bit in range(32):
        body[at : at + 4] = (1 << bit).to_bytes(4, "little")
        pattern, made = crc32c(body) ^ plain, 1 << bit
        while pattern and pattern.bit_length() in rows:
            known, by = rows[pattern.bit_length()]
            pattern, made = pattern ^ known, made ^ by
        if pattern:
            rows[pattern.bit_length()] = (pattern, made)
    missing, chosen = plain ^ wanted, 0
    while missing:
        known, by = rows[missing.bit_length()]
        missing, chosen = missing ^ known, chosen ^ by
    body[at : at + 4] = chosen.to_bytes(4, "little")
    return bytes(body)


# --- indexes ---


def build_indexes(found: Walk, *, finished: bool) -> tuple[bytes, bytes]:
    """(offset index, time index) as appending would have made them; `finished`: the segment is complete."""
    index, times = bytearray(), bytearray()
    since, newest, newest_offset, noted = 0, -1, -1, -1
    for batch in found.batches:
        if batch.max_timestamp_ms > newest:
            newest, newest_offset = batch.max_timestamp_ms, batch.last_offset
        if since > INDEX_INTERVAL_BYTES:
            if newest > noted:
                times += struct.pack(">qi", newest, newest_offset - found.base_offset)
                noted = newest
            index += struct.pack(">ii", batch.last_offset - found.base_offset, batch.position)
            since = 0
        since += batch.size_bytes
    if finished and newest > noted:
        times += struct.pack(">qi", newest, newest_offset - found.base_offset)
    return bytes(index), bytes(times)


def indexes_fit(found: Walk, index: bytes, times: bytes) -> bool:
    """Whether every entry is genuine: it names a batch, and the last offset or the largest timestamp of it. Indexes are
    sparse, so fewer entries than appending would make are no damage. Zeros at the end are space allocated ahead."""
    ends = {batch.position: batch.last_offset for batch in found.batches}
    newest = {batch.last_offset: batch.max_timestamp_ms for batch in found.batches}
    before = 0
    for relative, position in struct.iter_unpack(">ii", _entries(index, INDEX_ENTRY_BYTES)):
        if position <= before or ends.get(position) != found.base_offset + relative:
            return False
        before = position
    before = -1
    for timestamp_ms, relative in struct.iter_unpack(">qi", _entries(times, TIME_ENTRY_BYTES)):
        if timestamp_ms <= before or newest.get(found.base_offset + relative) != timestamp_ms:
            return False
        before = timestamp_ms
    return True


def _entries(data: bytes, size: int) -> bytes:
    """Whole entries up to the zeros."""
    used = -(-len(data.rstrip(b"\0")) // size) * size
    return data[: min(used, len(data) // size * size)]


# --- seals ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """What is known of a complete segment."""

    base_offset: int
    end_offset: int
    max_timestamp_ms: int
    length: int
    header_crc: int
    index_entries: int
    time_entries: int
    batches: int

    def data(self) -> bytes:
        """The entry of the file."""
        fields = (
            self.base_offset,
            self.end_offset,
            self.max_timestamp_ms,
            self.length,
            self.header_crc,
            self.index_entries,
            self.time_entries,
            self.batches,
        )
        packed = _SEAL.pack(*fields)
        return packed + struct.pack("<I", crc32c(packed))


class Seals:
    """The file `seals` of a partition."""

    def __init__(self, original: bytes) -> None:
        self.original = original
        self._data = bytearray(original)
        head = SEALS_MAGIC + struct.pack("<II", 1, SEAL_BYTES)
        head = head.ljust(SEALS_HEADER_BYTES - 4, b"\0")
        head += struct.pack("<I", crc32c(head))
        if original:
            self._data[:SEALS_HEADER_BYTES] = head

    @property
    def changed(self) -> bool:
        """Whether the file must be written."""
        return bytes(self._data) != self.original

    def data(self) -> bytes:
        """The whole file."""
        return bytes(self._data)

    def of(self, base_offset: int) -> Seal | None:
        """The seal of the complete segment that begins at `base_offset`, if it is there and whole."""
        for at in self._entries():
            seal = self._read(at)
            if seal is not None and seal.base_offset == base_offset and seal.length:
                return seal
        return None

    def ordinal_of(self, base_offset: int) -> int:
        """The number of the segment that begins at `base_offset`, complete or active; -1: not known."""
        for ordinal, at in enumerate(self._entries()):
            seal = self._read(at)
            if seal is not None and seal.base_offset == base_offset:
                return ordinal
        return 0 if base_offset == 0 else -1

    def put(self, seal: Seal) -> None:
        """Store a seal where its segment's is: at the entry of this base offset, or at the one damaged entry behind the
        entry that ends there."""
        previous_ends_here = False
        for at in self._entries():
            known = self._read(at)
            if (known is not None and known.base_offset == seal.base_offset) or (known is None and previous_ends_here):
                self._data[at : at + SEAL_BYTES] = seal.data()
                return
            if known is None and at == SEALS_HEADER_BYTES and seal.base_offset == 0:
                self._data[at : at + SEAL_BYTES] = seal.data()
                return
            previous_ends_here = known is not None and known.end_offset == seal.base_offset

    def _entries(self) -> range:
        return range(SEALS_HEADER_BYTES, len(self._data) - SEAL_BYTES + 1, SEAL_BYTES)

    def _read(self, at: int) -> Seal | None:
        packed = bytes(self._data[at : at + SEAL_BYTES])
        if struct.unpack("<I", packed[-4:])[0] != crc32c(packed[:-4]):
            return None
        names = (
            "base_offset",
            "end_offset",
            "max_timestamp_ms",
            "length",
            "header_crc",
            "index_entries",
            "time_entries",
            "batches",
        )
        return Seal(**dict(zip(names, _SEAL.unpack(packed[:-4]), strict=True)))


def read_seals(path: str) -> Seals:
    """The file, or an empty one where none was written yet. Raises OSError."""
    try:
        with open(path, "rb") as file:
            return Seals(file.read())
    except FileNotFoundError:
        return Seals(b"")
