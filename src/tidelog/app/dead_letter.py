"""How does a message that nobody can handle get to its dead-letter channel, and what is written beside it?

Floor 8: may import log, channel, codec, envelope, errors, message. Thread rule: a `DeadLetters` may be used
from any thread.

The copy has the original key, the original bytes of the value (they are never decoded, since that may be what failed)
and the original headers, and headers that say where it was and why it is here. It is sent by a sender of bytes whatever
the dead-letter channel's own type is.
"""

from __future__ import annotations

import os
import traceback
from typing import TYPE_CHECKING, Any, TypeVar

from tidelog import envelope
from tidelog._native import Sender
from tidelog.codec import Codec
from tidelog.message import Message

if TYPE_CHECKING:
    from tidelog.channel import Channel

__all__ = ["FROM_CHANNEL", "FROM_OFFSET", "FROM_PARTITION", "OWN_HEADERS", "REDRIVEN", "DeadLetters", "raw_sender"]

FROM_CHANNEL = "dead-letter-channel"
FROM_PARTITION = "dead-letter-partition"
FROM_OFFSET = "dead-letter-offset"
FROM_GROUP = "dead-letter-group"
ATTEMPTS = "attempts"
TRACEBACK = "traceback"

OWN_HEADERS = frozenset(
    {FROM_CHANNEL, FROM_PARTITION, FROM_OFFSET, FROM_GROUP, envelope.ERROR, envelope.ERROR_TEXT, ATTEMPTS, TRACEBACK}
)
"""What is added here, and taken off again by a redrive."""

REDRIVEN = "redriven"
"""How often a message was sent back from a dead-letter channel; it stays with the message when it fails again."""
REDRIVEN_FOR = "redriven-for"
"""The group for which it was sent back: other groups of a topic have handled it already and skip it."""

E = TypeVar("E", bound=BaseException)

_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep

ERROR_TEXT_MAX = 2_000
TRACEBACK_MAX = 8_000


def raw_sender(channel: Channel[Any]) -> Sender:
    """A sender of bytes to `channel`, whatever type it was opened with."""
    engine = channel._engine
    sender = Sender()
    engine.attach_sender(sender, engine.open(channel.opened().definition, Codec("raw", "bytes")))
    return sender


class DeadLetters:
    """One dead-letter channel, for the messages of one handler."""

    def __init__(self, channel: Channel[Any], group: str, sender: Any = None) -> None:
        """`sender`: what sends bytes to the channel; None: whoever puts one there does so at once."""
        self.name = channel.name
        self._group = group
        self._sender = raw_sender(channel) if sender is None else sender

    def put(self, message: Message[Any], error: BaseException, attempts: int) -> None:
        """Write the copy of a message that failed `attempts` times. Raises what `send` raises."""
        headers = [(name, value) for name, value in message.headers.all if name not in OWN_HEADERS]
        headers += [
            (FROM_CHANNEL, message.channel.encode()),
            (FROM_PARTITION, b"%d" % message.partition),
            (FROM_OFFSET, b"%d" % message.offset),
            (FROM_GROUP, self._group.encode()),
            (envelope.ERROR, type(error).__name__.encode()),
            (envelope.ERROR_TEXT, _text(envelope.error_text(error), ERROR_TEXT_MAX)),
            (ATTEMPTS, b"%d" % attempts),
            (TRACEBACK, _text("".join(traceback.format_exception(bared(error))), TRACEBACK_MAX, end=True)),
        ]
        self._sender.send(message.raw, key=message.key, headers=headers)


def bared(error: E) -> E:
    """The error without the frames of this package at the beginning of its traceback: it begins in the handler."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None and trace.tb_frame.f_code.co_filename.startswith(_HERE):
        trace = trace.tb_next
    return error.with_traceback(trace)


def type_name(error: BaseException) -> str:
    """The class of an error, with its module unless that is Python itself."""
    class_ = type(error)
    return class_.__qualname__ if class_.__module__ == "builtins" else f"{class_.__module__}.{class_.__qualname__}"


def _text(text: str, most: int, *, end: bool = False) -> bytes:
    """`text` as UTF-8, shortened to `most` characters: its beginning, or with `end` its end."""
    if len(text) > most:
        text = "..." + text[-most:] if end else text[:most] + "..."
    return text.encode("utf-8", "backslashreplace")
