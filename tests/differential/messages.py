"""Which messages are exchanged with other implementations, and how are those that came compared with those that went?

Used by the tests of this directory only; imports nothing of tidelog. Everything random follows from a seed.
"""

from __future__ import annotations

import random
import string
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

START_MS = 1_700_000_000_000

_TEXT = string.ascii_letters + string.digits  # without spaces, so that what a tool prints can be taken apart again
_NAMES = ("trace", "träger", "a", "b", "漢字", "x-long-name-of-a-header")


class Record(NamedTuple):
    """One message with everything that a log keeps of it; None is a null key or value."""

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]


def made(seed: int, count: int, *, text: bool = False, nulls: bool = True, huge_bytes: int = 1_200_000) -> list[Record]:
    """`count` messages at offsets 0, 1, 2, ...

    `text`: keys and values are letters and digits, and header names are ASCII. `nulls`: some values are null. One in
    1,000 has `huge_bytes` of value, more than a batch usually holds. Timestamps go up and down, some back by
    years.
    """
    dice = random.Random(seed)
    names = tuple(name for name in _NAMES if name.isascii()) if text else _NAMES
    huge_at = dice.randrange(min(count, 1000))

    def data(length: int) -> bytes:
        if text:
            return "".join(dice.choices(_TEXT[: dice.choice((3, 62))], k=length)).encode()
        return dice.randbytes(length) if dice.random() < 0.5 else bytes(dice.choices(b"abc\0\n", k=length))

    def value(index: int) -> bytes | None:
        if index % 1000 == huge_at:
            return data(huge_bytes)
        kind = dice.random()
        if nulls and kind < 0.1:
            return None
        return data(0 if kind < 0.15 else dice.randrange(20_000) if kind < 0.16 else dice.randrange(1, 300))

    records = []
    for index in range(count):
        timestamp_ms = START_MS + 50 * index + dice.randrange(-10_000, 10_000)
        if dice.random() < 0.02:
            timestamp_ms = dice.randrange(START_MS)
        key = None if dice.random() < 0.25 else data(dice.choice((0, 1, 5, 16, 100)))
        headers = []
        if dice.random() < 0.25:
            for _ in range(dice.randrange(1, 5)):
                headers.append((dice.choice(names), None if dice.random() < 0.25 else data(dice.randrange(30))))
        records.append(Record(index, timestamp_ms, key, value(index), tuple(headers)))
    return records


def load(path: Path) -> list[Record]:
    """The records in a file that Batches.java wrote."""
    data = path.read_bytes()
    at = 0

    def integer(layout: str, size: int) -> int:
        nonlocal at
        at += size
        return int(struct.unpack_from(layout, data, at - size)[0])

    def bytes_() -> bytes | None:
        nonlocal at
        length = integer(">i", 4)
        if length < 0:
            return None
        at += length
        assert at <= len(data), f"{path} ends inside a record"
        return data[at - length : at]

    records = []
    while at < len(data):
        offset, timestamp_ms = integer(">q", 8), integer(">q", 8)
        key, value = bytes_(), bytes_()
        headers = []
        for _ in range(integer(">i", 4)):
            name = bytes_()
            assert name is not None
            headers.append((name.decode(), bytes_()))
        records.append(Record(offset, timestamp_ms, key, value, tuple(headers)))
    return records


def of_message(message: Any) -> Record:
    """A message that tidelog has delivered on a channel of bytes."""
    return Record(message.offset, message.timestamp_ms, message.key, message.value, tuple(message.headers.all))


def assert_same(came: Iterable[Record], went: Sequence[Record], who: str) -> None:
    """Fails with the first difference, shortened: a test runner's own report of 20,000 records helps nobody."""
    came = list(came)
    for index, (theirs, ours) in enumerate(zip(came, went, strict=False)):
        for field, there, here in zip(Record._fields, theirs, ours, strict=True):
            if there != here:
                raise AssertionError(
                    f"{who}: record {index} (offset {ours.offset}) has {field} {_short(there)}, but {_short(here)} was "
                    f"written"
                )
    assert len(came) == len(went), f"{who}: {len(came)} records came, {len(went)} were written"


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 200 else f"{shown[:120]} ... {shown[-60:]} ({len(shown)} characters)"
