"""What was configured: the options of a store and of a channel, and what a URL means?

Floor 3: may import compression (for the names of codecs), names. Reads no file and no environment of its own: the
environment is handed in. Thread rule: frozen values and pure functions, callable from any thread.

Users give seconds (float) or `timedelta` and plain numbers of bytes; here everything is whole numbers with the unit in
the name. -1 means "no limit", as in Kafka's configuration.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal, TypeAlias
from urllib.parse import parse_qsl, unquote, urlsplit

from tidelog import compression as _compression
from tidelog.names import MAX_PARTITIONS

MIB = 1 << 20
DEFAULT_PARTITIONS = 4
DEFAULT_MAX_MESSAGE_BYTES = 16 * MIB
MAX_MESSAGE_BYTES = 256 * MIB
MAX_SEGMENT_BYTES = (1 << 31) - 1  # positions inside a segment are signed 32 bit in Kafka's formats
MIN_SEGMENT_BYTES = 64 << 10  # one allocation chunk
DEFAULT_DEDUP_COUNT = 100_000
DEFAULT_DEDUP_WINDOW_MS = 600_000
MAX_DEDUP_COUNT = 10_000_000
MAX_DEDUP_WINDOW_MS = 30 * 24 * 3600 * 1000
MAX_DURATION_MS = 100 * 366 * 24 * 3600 * 1000

Duration: TypeAlias = float | timedelta
"""Seconds as a number, or a timedelta."""
Retention: TypeAlias = timedelta | int | Literal["consumed"] | None
Kind: TypeAlias = Literal["queue", "topic"]
Carries: TypeAlias = Literal["document", "command", "event"]
Engine: TypeAlias = Literal["embedded", "memory", "kafka"]

CARRIES: tuple[Carries, ...] = ("document", "command", "event")


def duration_ms(value: Duration, what: str, *, least_ms: int = 0) -> int:
    """Milliseconds of `value` (seconds or timedelta), rounded up so that a small wait never becomes none.

    `what` names the option in messages. Raises TypeError, or ValueError outside `least_ms` .. 100 years.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | timedelta):
        raise TypeError(f"{what} is a number of seconds or a timedelta, not {type(value).__name__}")
    seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)
    if not math.isfinite(seconds) or seconds * 1000 > MAX_DURATION_MS:
        raise ValueError(f"{what}={value} is too long: give seconds, at most 100 years")
    # Decimal fractions of a second are not exact in binary: 0.007 * 1000 must stay 7.
    result = math.ceil(round(seconds * 1000, 6)) or int(seconds > 0)
    if result < least_ms:
        raise ValueError(f"{what}={value} is too short: at least {least_ms / 1000:g} seconds")
    return result


def _whole(value: int, what: str, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} is an int, not {type(value).__name__}")
    if not least <= value <= most:
        raise ValueError(f"{what}={value} is outside {least} .. {most}")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreOptions:
    """How one process uses a store. Raises TypeError or ValueError for values out of range."""

    flush_interval_ms: int = 1000
    """Written data reaches the disk within twice this time."""
    lock_timeout_ms: int = 30_000
    """How long to wait for a lock of another process before `Locked`."""
    segment_bytes: int = 1 << 30
    """Size at which a partition goes on in a new file; default for new channels."""
    segment_ms: int = 7 * 24 * 3600 * 1000
    """Age at which it does."""
    create: bool = True
    """Make the directory if it is missing; False: ask for an existing store."""
    look: bool = False
    """Change nothing at all: no recovery, no repair, no clean close. Whatever would change something then fails."""

    def __post_init__(self) -> None:
        _whole(self.flush_interval_ms, "flush_interval_ms", 1, 3_600_000)
        _whole(self.lock_timeout_ms, "lock_timeout_ms", 0, MAX_DURATION_MS)
        _whole(self.segment_bytes, "segment_bytes", MIN_SEGMENT_BYTES, MAX_SEGMENT_BYTES)
        _whole(self.segment_ms, "segment_ms", 1, MAX_DURATION_MS)

    @classmethod
    def of(
        cls,
        *,
        flush_interval: Duration | None = None,
        lock_timeout: Duration | None = None,
        segment_bytes: int | None = None,
        create: bool = True,
    ) -> StoreOptions:
        """From the keywords of `tidelog.open`; None means the default. Raises TypeError or ValueError."""
        given: dict[str, Any] = {"create": create}
        if flush_interval is not None:
            given["flush_interval_ms"] = duration_ms(flush_interval, "flush_interval", least_ms=1)
        if lock_timeout is not None:
            given["lock_timeout_ms"] = duration_ms(lock_timeout, "lock_timeout")
        if segment_bytes is not None:
            given["segment_bytes"] = segment_bytes
        return cls(**given)


def parse_retention(retention: Retention) -> tuple[int, int, bool]:
    """(retention_ms, retention_bytes, retention_consumed); -1 where there is no such limit.

    A timedelta is the age, an int bytes per partition, "consumed" keeps what some group has not read, None all.
    Raises TypeError or ValueError.
    """
    if retention is None:
        return -1, -1, False
    if retention == "consumed":
        return -1, -1, True
    if isinstance(retention, timedelta):
        return duration_ms(retention, "retention", least_ms=1), -1, False
    if isinstance(retention, int) and not isinstance(retention, bool):
        return -1, _whole(retention, "retention (bytes per partition)", 1, (1 << 63) - 1), False
    raise TypeError(
        f"retention={retention!r}: give a timedelta for an age, an int for bytes per partition, 'consumed', or None to "
        f"keep everything"
    )


def parse_dedup_count(count: int) -> int:
    """Among how many ids a repeated one is a duplicate, checked. Raises TypeError or ValueError."""
    return _whole(count, "dedup_count", 0, MAX_DEDUP_COUNT)


def parse_dedup_window(window: Duration) -> int:
    """Milliseconds that an id is remembered. Raises TypeError or ValueError."""
    result = duration_ms(window, "dedup_window", least_ms=1)
    if result > MAX_DEDUP_WINDOW_MS:
        raise ValueError(f"dedup_window={window} is too long: give seconds, at most 30 days")
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelOptions:
    """How a channel was asked for. Raises TypeError or ValueError for values out of range."""

    carries: Carries
    """What the messages are, for descriptions."""
    partitions: int | None = None
    """Partition count; None: not asked for (DEFAULT_PARTITIONS for a new channel, whatever there is for an old one)."""
    retention_ms: int = -1
    retention_bytes: int = -1
    """Per partition, as in Kafka."""
    retention_consumed: bool = False
    max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES
    """The largest key and value together."""
    segment_bytes: int | None = None
    """None: the store's."""
    codec: str | None = None
    """None: the default of the type."""
    compression: str = "none"
    """How batches are packed where the producer does not say."""
    dedup_count: int = DEFAULT_DEDUP_COUNT
    """A message whose id is among the last so many ids of its partition is a duplicate; 0: ids are not looked for."""
    dedup_window_ms: int = DEFAULT_DEDUP_WINDOW_MS
    """How old that id may be."""

    def __post_init__(self) -> None:
        if self.carries not in CARRIES:
            raise ValueError(f"carries={self.carries!r} does not exist: use one of {', '.join(CARRIES)}")
        if self.partitions is not None:
            _whole(self.partitions, "partitions", 1, MAX_PARTITIONS)
        _whole(self.retention_ms, "retention_ms", -1, MAX_DURATION_MS)
        _whole(self.retention_bytes, "retention_bytes", -1, (1 << 63) - 1)
        _whole(self.max_message_bytes, "max_message_bytes", 1, MAX_MESSAGE_BYTES)
        if self.segment_bytes is not None:
            _whole(self.segment_bytes, "segment_bytes", MIN_SEGMENT_BYTES, MAX_SEGMENT_BYTES)
        _compression.codec_id(self.compression)
        parse_dedup_count(self.dedup_count)
        _whole(self.dedup_window_ms, "dedup_window_ms", 1, MAX_DEDUP_WINDOW_MS)

    @classmethod
    def of(
        cls,
        kind: Kind,
        *,
        partitions: int | None = None,
        retention: Retention = None,
        max_message_bytes: int | None = None,
        segment_bytes: int | None = None,
        carries: Carries | None = None,
        codec: str | None = None,
        compression: str | None = None,
        dedup_count: int | None = None,
        dedup_window: Duration | None = None,
    ) -> ChannelOptions:
        """From the keywords of `log.queue` and `log.topic`; None means the default. Raises TypeError or ValueError."""
        age_ms, size_bytes, consumed = parse_retention(retention)
        return cls(
            carries=carries or ("command" if kind == "queue" else "event"),
            partitions=partitions,
            retention_ms=age_ms,
            retention_bytes=size_bytes,
            retention_consumed=consumed,
            max_message_bytes=DEFAULT_MAX_MESSAGE_BYTES if max_message_bytes is None else max_message_bytes,
            segment_bytes=segment_bytes,
            codec=codec,
            compression=_compression.codec_name(_compression.codec_id(compression)),
            dedup_count=DEFAULT_DEDUP_COUNT if dedup_count is None else dedup_count,
            dedup_window_ms=DEFAULT_DEDUP_WINDOW_MS if dedup_window is None else parse_dedup_window(dedup_window),
        )


CHANNEL_OPTIONS = (
    "partitions",
    "retention",
    "max_message_bytes",
    "segment_bytes",
    "carries",
    "codec",
    "compression",
    "dedup_count",
    "dedup_window",
    "reply",
)
"""The keywords of `log.queue` and `log.topic`, and of those of an application."""


def check_channel_options(kind: Kind, options: Mapping[str, Any]) -> None:
    """Raise TypeError if `log.queue` or `log.topic` (by `kind`) knows no such option."""
    for name in options:
        if name not in CHANNEL_OPTIONS:
            import difflib  # only on the way to an error message

            close = difflib.get_close_matches(name, CHANNEL_OPTIONS, 1, 0.5)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(CHANNEL_OPTIONS)}"
            raise TypeError(f"{kind}() got an unexpected option {name!r}: {hint}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a URL points at."""

    engine: Engine
    path: str | None = None
    """The directory, for embedded."""
    servers: tuple[str, ...] = ()
    """"host:port", for kafka."""
    tls: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the URL under the names and in the types of `tidelog.open`'s keywords, which win over them."""


def _seconds(text: str) -> float:
    return float(text)


def _one_of(*allowed: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"use one of {', '.join(allowed)}")
        return text

    return check


_STORE_URL_OPTIONS: Mapping[str, Callable[[str], Any]] = {
    "flush_interval": _seconds,
    "lock_timeout": _seconds,
    "segment_bytes": int,
}
_KAFKA_URL_OPTIONS: Mapping[str, Callable[[str], Any]] = {
    "ack": _one_of("written", "synced"),
    "compression": _one_of(*_compression.NAMES),
    "client_id": str,
    "sasl": _one_of("plain", "scram-sha-256", "scram-sha-512"),
}
_FORMS = "a path, tidelog:///absolute/path, memory:, kafka://host:9092,host:9092 or kafkas://host:9093"


def parse_url(url: str | os.PathLike[str] | None, environ: Mapping[str, str] | None = None) -> Target:
    """What `tidelog.open(url)` is to open; None asks `environ["TIDELOG_URL"]` (default: the process's environment).

    Anything without a scheme is a path. Raises TypeError for other types, ValueError (with the allowed forms) for an
    unset variable, an unknown scheme, host or option, and an option given twice.
    """
    if url is None:
        url = (os.environ if environ is None else environ).get("TIDELOG_URL", "")
        if not url:
            raise ValueError(f"no store was given and TIDELOG_URL is not set: give {_FORMS}")
    try:
        text = os.fsdecode(os.fspath(url))
    except TypeError:
        raise TypeError(f"a store is a str or a path, not {type(url).__name__}: give {_FORMS}") from None
    if not text or "\0" in text:
        raise ValueError(f"{text!r} names no store: give {_FORMS}")
    scheme, colon, rest = text.partition(":")
    if not isinstance(url, str) or not colon or (scheme not in _SCHEMES and not rest.startswith("//")):
        return Target(engine="embedded", path=text)
    if scheme not in _SCHEMES:
        raise ValueError(f"{text!r}: the scheme {scheme!r} is unknown: give {_FORMS}")
    return _SCHEMES[scheme](text)


def _store_target(text: str) -> Target:
    parts = urlsplit(text)
    if parts.netloc or not parts.path.startswith("/") or not text.startswith("tidelog:///"):
        raise ValueError(
            f"{text!r}: write tidelog:///absolute/path with three slashes; a served store is opened by kafka://host:9092"
        )
    path = unquote(parts.path)
    if "\0" in path or parts.fragment:
        raise ValueError(f"{text!r}: write '#' in a path as %23; a path has no NUL")
    return Target(engine="embedded", path=path, options=_options(text, parts.query, _STORE_URL_OPTIONS))


def _memory_target(text: str) -> Target:
    parts = urlsplit(text)
    if parts.netloc or parts.path or parts.fragment:
        raise ValueError(f"{text!r}: a store in memory has no name: write memory:")
    return Target(engine="memory", options=_options(text, parts.query, _STORE_URL_OPTIONS))


def _kafka_target(text: str) -> Target:
    parts = urlsplit(text)
    if not parts.netloc:
        raise ValueError(f"{text!r}: write kafka://host:9092, with two slashes and a server")
    if "@" in parts.netloc:
        # The text is not repeated here: it holds a secret.
        raise ValueError("user and password do not belong in a URL, which ends up in logs: use kafka_config={...}")
    if parts.path not in ("", "/") or parts.fragment:
        raise ValueError(f"{text!r}: nothing but options (?name=value) may follow the servers")
    return Target(
        engine="kafka",
        servers=tuple(_server(text, server) for server in parts.netloc.split(",")),
        tls=parts.scheme == "kafkas",
        options=_options(text, parts.query, _KAFKA_URL_OPTIONS),
    )


def _server(text: str, server: str) -> str:
    host, port = server, "9092"
    if not server.endswith("]") and ":" in server:
        host, _, port = server.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not bare or any(character in "[]/ \t" for character in bare) or (":" in bare and bare == host):
        raise ValueError(f"{text!r}: {server!r} is no server: write host:9092, or [::1]:9092")
    if not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65_536):
        raise ValueError(f"{text!r}: {port!r} is no port: use 1 to 65535")
    return f"{host}:{int(port)}"


def _options(text: str, query: str, known: Mapping[str, Callable[[str], Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise ValueError(f"{text!r}: write options as ?name=value&name=value") from None
    for name, value in pairs:
        if name not in known:
            import difflib  # only on the way to an error message

            close = difflib.get_close_matches(name, known, 1, 0.5)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
            raise ValueError(f"{text!r}: the option {name!r} is unknown: {hint}")
        if name in result:
            raise ValueError(f"{text!r}: the option {name!r} is given twice")
        try:
            result[name] = known[name](value)
        except ValueError as error:
            raise ValueError(f"{text!r}: {name}={value!r} is wrong: {error}") from None
    if known is _STORE_URL_OPTIONS:
        StoreOptions.of(**result)  # out of range shows here, with the URL at hand
    return result


_SCHEMES: Mapping[str, Callable[[str], Target]] = {
    "tidelog": _store_target,
    "memory": _memory_target,
    "kafka": _kafka_target,
    "kafkas": _kafka_target,
}
