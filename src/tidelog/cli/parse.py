"""What does a word on the command line mean: an offset, a time, a duration, a size, a header?

Floor 9: imports nothing of tidelog. Every function raises ValueError with a sentence; `argument` makes one of them a
type for argparse. Thread rule: pure functions.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, TypeVar

T = TypeVar("T")

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_SIZES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+)")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Start:
    """Where reading begins: at the log start or end, `value` messages before the end, at an offset, or at a time."""

    kind: Literal["beginning", "end", "last", "offset", "time"]
    value: int = 0
    time: datetime | None = None


def argument(parse: Callable[[str], T]) -> Callable[[str], T]:
    """`parse` as a `type=` of argparse: its own sentence is shown."""

    def convert(text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def start(text: str, now: datetime | None = None) -> Start:
    """`beginning`, `end`, `-10` (the last ten), `123` (an offset) or `@TIME`."""
    word = text.strip().lower()
    if word in ("beginning", "start", "earliest"):
        return Start("beginning")
    if word in ("end", "latest"):
        return Start("end")
    if word.startswith("@"):
        return Start("time", time=time(text.strip()[1:], now))
    if re.fullmatch(r"-?\d{1,19}", word, re.ASCII) and -(1 << 63) < int(word) < 1 << 63:
        number = int(word)
        return Start("last", -number) if word.startswith("-") else Start("offset", number)
    raise ValueError(f"{text!r} is no offset: use beginning, end, -10, 123, @2026-11-01 or @-15m")


def time(text: str, now: datetime | None = None) -> datetime:
    """An ISO date or time (local unless it names a zone), `-15m` for a time ago, or milliseconds since 1970."""
    word = text.strip()
    if word.startswith("-"):
        return (now or datetime.now(UTC)) - duration(word[1:])
    if re.fullmatch(r"\d{11,15}", word, re.ASCII):
        return datetime.fromtimestamp(int(word) / 1000, UTC)
    try:
        moment = datetime.fromisoformat(word)
        return moment if moment.tzinfo else moment.astimezone()
    except (ValueError, OverflowError):
        raise ValueError(
            f"{text!r} is no time: use 2026-11-01, 2026-11-01T12:30, 2026-11-01T12:30Z, -15m or milliseconds since 1970"
        ) from None


def before(text: str, now: datetime | None = None) -> int | datetime:
    """An offset, or `@TIME`."""
    wanted = start(text, now)
    if wanted.kind == "time" and wanted.time is not None:
        return wanted.time
    if wanted.kind != "offset":
        raise ValueError(f"{text!r} is neither an offset nor a time: use 123, @2026-11-01 or @-7d")
    return wanted.value


def duration(text: str) -> timedelta:
    """`500ms`, `30s`, `15m`, `2h`, `7d`, `2w`, or several: `1h30m`."""
    rest, seconds = text.strip(), 0.0
    while rest:
        found = _DURATION.match(rest)
        if not found or found.group(2) not in _UNITS:
            break
        seconds += float(found.group(1)) * _UNITS[found.group(2)]
        rest = rest[found.end() :].lstrip()
    if rest or not seconds:
        raise ValueError(f"{text!r} is no duration: use 500ms, 30s, 15m, 2h, 7d or 1h30m")
    try:
        return timedelta(seconds=seconds)
    except OverflowError:
        raise ValueError(f"{text!r} is too long: at most {timedelta.max.days} days") from None


def size(text: str) -> int:
    """A number of bytes: `1500`, `64KiB`, `10MB`, `1GiB`."""
    found = _SIZE.fullmatch(text.strip())
    unit = found.group(2).lower() if found else "?"
    if not found or unit not in _SIZES:
        raise ValueError(f"{text!r} is no size: use 1500, 64KiB, 10MB or 1GiB")
    return int(float(found.group(1)) * _SIZES[unit])


def count(text: str) -> int:
    """A positive number: `5000`, `10_000`, `50k`, `1M`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([km]?)", text.strip().lower().replace("_", "").replace(",", ""))
    result = int(float(found.group(1)) * _SIZES[found.group(2)]) if found else 0
    if result <= 0:
        raise ValueError(f"{text!r} is no number above zero: use 5000, 50k or 1M")
    return result


def retention(text: str) -> timedelta | int | Literal["consumed"] | None:
    """An age (`7d`), bytes per partition (`10GB`), `consumed`, or `none`."""
    word = text.strip()
    if word == "none":
        return None
    if word == "consumed":
        return "consumed"
    try:
        # 10m is ten minutes; so that 10M cannot be taken for it, a size here ends in B.
        return size(word) if word.isdecimal() or word.upper().endswith("B") else duration(word)
    except ValueError:
        pass
    raise ValueError(f"{text!r} is no retention: use an age (7d), bytes per partition (10GB), consumed or none")


def header(text: str) -> tuple[str, bytes]:
    """`name=value`."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ValueError(f"{text!r} is no header: write name=value")
    return name, value.encode("utf-8", "surrogateescape")


def unescape(text: str) -> bytes:
    r"""Text with \n \t \r \0 \\ and \xNN as the bytes they stand for."""
    simple = {"n": b"\n", "t": b"\t", "r": b"\r", "0": b"\0", "\\": b"\\"}
    parts = re.split(r"\\(x[0-9a-fA-F]{2}|.|$)", text, flags=re.DOTALL)
    result = bytearray()
    for position, part in enumerate(parts):
        if position % 2 == 0:
            result += part.encode("utf-8", "surrogateescape")
        elif len(part) == 3:
            result.append(int(part[1:], 16))
        elif part in simple:
            result += simple[part]
        else:
            raise ValueError(f"\\{part} in {text!r} is no escape: use \\n, \\t, \\r, \\0, \\\\ or \\x1f")
    return bytes(result)
