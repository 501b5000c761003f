"""Which headers surround a value, and what do they hold?

Floor 3: imports nothing of tidelog. Thread rule: pure functions; `current` is a context variable, so each thread and
each task has its own.

Headers cost bytes in every message, so they are written only where something needs them: `id=`, questions and answers,
channels of several types, retries. Everywhere else a message's place in the log is its id.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tidelog._native import Message

MESSAGE_ID: Final = "message-id"
"""Names the message; answers refer to it."""
CORRELATION_ID: Final = "correlation-id"
"""In an answer: the question's. In a question: what the answer is to carry."""
REPLY_TO: Final = "reply-to"
"""The channel where an answer is wanted."""
CONTENT_TYPE: Final = "content-type"
"""Media type of the value."""
TYPE: Final = "type"
"""Which of a channel's several types the value is: the class's name."""
MESSAGE_KIND: Final = "message-kind"
""""document", "command" or "event", where it is not what the channel carries."""
TRACEPARENT: Final = "traceparent"
"""W3C trace context; passed on, never made here."""
TRACESTATE: Final = "tracestate"
"""Belongs to traceparent."""
ATTEMPT: Final = "attempt"
"""Which attempt at handling the message this is; 1 where it is absent."""
ERROR: Final = "error"
"""In an answer that is an error, and in a dead letter: the name of the error's class, without its module."""
ERROR_TEXT: Final = "error-text"
"""Beside it: what the error says."""

SPRING_REPLY_TOPIC: Final = "kafka_replyTopic"
"""Spring Kafka's reply-to: the topic's name in UTF-8."""
SPRING_REPLY_PARTITION: Final = "kafka_replyPartition"
"""Spring Kafka's partition of the reply topic: 4 bytes, big-endian."""
SPRING_CORRELATION_ID: Final = "kafka_correlationId"
"""Spring Kafka's correlation id: any bytes, echoed as they are."""

MEDIA_TYPES: Mapping[str, str] = {
    "raw": "application/octet-stream",
    "utf-8": "text/plain; charset=utf-8",
    "json": "application/json",
    "msgpack": "application/msgpack",
    "dtype": "application/octet-stream",
}
"""What `content-type` says, by codec name."""

current: ContextVar[Message[Any] | None] = ContextVar("tidelog_current_message", default=None)
"""The message that is being handled here, whose trace the messages sent meanwhile belong to."""


def new_id() -> str:
    """A unique id that sorts by the time it was made: a UUIDv7 as text (36 characters).

    48 bits are milliseconds since 1970, the next 12 the part of the millisecond (steps of 244 ns), 62 are random. There
    is no state behind it, so threads and forked children need no care.
    """
    nanoseconds = time.time_ns()
    milliseconds, rest = divmod(nanoseconds, 1_000_000)
    first = (milliseconds & 0xFFFF_FFFF_FFFF) << 16 | 0x7000 | (rest << 12) // 1_000_000
    second = int.from_bytes(os.urandom(8), "big") & 0x3FFF_FFFF_FFFF_FFFF | 0x8000_0000_0000_0000
    text = f"{first:016x}{second:016x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def error_text(error: BaseException) -> str:
    """What an error says. A KeyError says its key as Python writes it, quotes and all: here it is the key as text."""
    return str(error.args[0]) if isinstance(error, KeyError) and len(error.args) == 1 else str(error)


def pairs(headers: Mapping[str, Any] | Iterable[tuple[str, Any]] | None) -> list[tuple[str, Any]]:
    """Headers as a list of pairs. Raises TypeError or ValueError for what is neither a mapping nor pairs."""
    if headers is None:
        return []
    items = headers.items() if isinstance(headers, Mapping) else headers
    return [(name, value) for name, value in items]


def enclose(
    own: list[tuple[str, Any]],
    given: Mapping[str, Any] | Iterable[tuple[str, Any]] | None,
    cause: Message[Any] | None,
) -> list[tuple[str, Any]]:
    """`own` headers, then the caller's, without those whose names `own` has, then the trace of `cause` unless the
    caller gives one. Raises like `pairs`."""
    if given is not None:
        names = {name for name, _ in own}
        own = own + [(name, value) for name, value in pairs(given) if name not in names]
    if cause is not None:
        headers = cause.headers
        trace = headers.get(TRACEPARENT)
        if trace is not None and all(name != TRACEPARENT for name, _ in own):
            own = [*own, (TRACEPARENT, trace)]
            state = headers.get(TRACESTATE)
            if state is not None:
                own.append((TRACESTATE, state))
    return own
