"""How is one message written: by kcat's format tokens, as a JSON envelope, as a row, as a line for people?

Floor 9: imports output, parse; messages are taken as they are (`.key`, `.raw`, ...). Thread rule: pure functions.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from tidelog.cli.output import tsv_cell, visible
from tidelog.cli.parse import unescape

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Shown(Protocol):
    """What a message must have to be shown (`tidelog.message.Message` has it)."""

    @property
    def key(self) -> bytes | None: ...
    @property
    def headers(self) -> Any: ...
    @property
    def timestamp(self) -> datetime: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def channel(self) -> str: ...
    @property
    def value(self) -> Any: ...
    @property
    def raw(self) -> bytes: ...


Write = Callable[[Shown], bytes]


def raw(message: Shown) -> bytes:
    """The bytes of the value as they stand in the log."""
    return bytes(message.raw)


def timestamp_ms(message: Shown) -> int:
    """Milliseconds since 1970, exactly."""
    return (message.timestamp - _EPOCH) // timedelta(milliseconds=1)


def header_pairs(message: Shown) -> list[tuple[str, bytes]]:
    """All headers in order, repeats included."""
    headers = message.headers
    pairs = getattr(headers, "all", None)
    return [(name, bytes(value)) for name, value in (headers.items() if pairs is None else pairs)]


def _headers(message: Shown) -> bytes:
    return b",".join(name.encode() + b"=" + value for name, value in header_pairs(message))


TOKENS: dict[str, Write] = {
    "t": lambda message: message.channel.encode(),
    "p": lambda message: b"%d" % message.partition,
    "o": lambda message: b"%d" % message.offset,
    "k": lambda message: message.key or b"",
    "K": lambda message: b"%d" % (-1 if message.key is None else len(message.key)),
    "s": raw,
    "S": lambda message: b"%d" % len(raw(message)),
    "T": lambda message: b"%d" % timestamp_ms(message),
    "h": _headers,
}
"""kcat's tokens: channel, partition, offset, key, key length (-1: none), value, its length, timestamp (ms), headers."""


def compile_format(text: str) -> Write:
    r"""The writer for a format such as `%t[%p]@%o %k %s\n`. Raises ValueError for a token that does not exist."""
    parts: list[bytes | Write] = []
    plain = ""
    characters = iter(text)
    for character in characters:
        if character != "%":
            plain += character
            continue
        token = next(characters, "")
        if token == "%":
            plain += "%"
        elif token in TOKENS:
            parts += [unescape(plain), TOKENS[token]]
            plain = ""
        else:
            raise ValueError(f"%{token} is no token: use %{' %'.join(TOKENS)} or %%")
    parts.append(unescape(plain))
    return lambda message: b"".join(part if isinstance(part, bytes) else part(message) for part in parts)


def envelope(message: Shown) -> bytes:
    """kcat's JSON envelope on one line; bytes that are no text stand as base64 under `key_base64`, `payload_base64`."""
    fields: dict[str, Any] = {
        "topic": message.channel,
        "partition": message.partition,
        "offset": message.offset,
        "tstype": "create",
        "ts": timestamp_ms(message),
    }
    pairs = header_pairs(message)
    if pairs:
        fields["headers"] = [text for name, value in pairs for text in (name, value.decode("utf-8", "replace"))]
    _put(fields, "key", message.key)
    _put(fields, "payload", raw(message))
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _put(fields: dict[str, Any], name: str, data: bytes | None) -> None:
    try:
        fields[name] = None if data is None else data.decode()
    except UnicodeDecodeError:
        fields[f"{name}_base64"] = base64.b64encode(data or b"").decode()


def value_text(message: Shown, rows: bool) -> str:
    """The value for people: text, hex where it is none, and fields of a row (`rows`: the channel holds a dtype)."""
    if rows:
        return json.dumps(_row(message.value), default=str, ensure_ascii=False)
    data = raw(message)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "0x" + data.hex()


def _row(value: Any) -> Any:
    """A numpy row as plain values."""
    names = value.dtype.names
    if names is None:
        return value.tolist()
    items = ((name, value[name].tolist()) for name in names)
    return {name: item.decode("utf-8", "replace") if isinstance(item, bytes) else item for name, item in items}


def local_time(message: Shown) -> str:
    """The timestamp in the local zone, to the millisecond."""
    return message.timestamp.astimezone().strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def line(message: Shown, rows: bool, key: str) -> bytes:
    """A line for people: partition, offset, time, key, value."""
    head = f"{message.partition:>3} {message.offset:>10}  {local_time(message)}  {key}  "
    return (head + visible(value_text(message, rows)) + "\n").encode()


def tsv(message: Shown, rows: bool) -> bytes:
    """Partition, offset, timestamp (ms), key and value between tabs; tabs and line ends in them are escaped."""
    key = "" if message.key is None else message.key.decode("utf-8", "backslashreplace")
    cells = [str(message.partition), str(message.offset), str(timestamp_ms(message)), key, value_text(message, rows)]
    return ("\t".join(map(tsv_cell, cells)) + "\n").encode()
