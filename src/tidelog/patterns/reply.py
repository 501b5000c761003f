"""How does an answer get to whoever asked?

Floor 7: may import engine.base, codec, envelope, names, errors, and the compiled sender. Thread rule: everything may be
called from any thread.

Where an answer goes, a header of the question says, and that may come from anybody. So nothing is created because of
it; the name must be one that channels can have; the channel must be there, hold bytes or exactly the type of the
answer, and must not carry commands: nobody gets a service to give orders in its name by asking it a question.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from tidelog import envelope
from tidelog._native import Sender
from tidelog.codec import Codec, codec_for
from tidelog.engine.base import Engine
from tidelog.errors import ChannelNotFound, Closed, DecodeError, InvalidArgument, ReplyError, SchemaMismatch
from tidelog.names import check_channel
from tidelog.storage.definitions import Definition

if TYPE_CHECKING:
    from tidelog._native import Message, Receipt

__all__ = ["Answers", "answer_decoder"]

MAX_TARGETS = 1024
"""So many reply channels are kept ready; the oldest make room."""
MAX_TEXT_CHARS = 4096
"""What an error says is cut here: it travels in a header."""

Given: TypeAlias = "Mapping[str, Any] | Iterable[tuple[str, Any]] | None"


ASKERS_FAULT = "the question's return address is wrong"
"""Noted on an error whose cause is not the answer."""


class _Target(NamedTuple):
    definition: Definition
    generation: int
    sender: Sender


class Answers:
    """Sends answers to questions that were received from one log."""

    def __init__(self, engine: Engine) -> None:
        # Every received message leads here; it must not keep a log open that everybody else has forgotten.
        self._engine = weakref.ref(engine)
        self._raw = codec_for(bytes)
        self._targets: dict[str, _Target] = {}
        self._lock = threading.Lock()

    def hook(self, codec: Codec | None) -> Callable[[Message[Any], Any, Any, Given], Receipt]:
        """What `Message.reply` calls for messages of a channel whose answers are written by `codec` (None: bytes)."""
        return partial(self.send, codec or self._raw)

    def send(self, codec: Codec, message: Message[Any], value: Any, error: Any, headers: Given) -> Receipt:
        """Answer `message`; see `Message.reply`."""
        engine = self._engine()
        if engine is None or engine.closed:
            raise Closed("the log that the question came from was closed: open it again with tidelog.open")
        received = message.headers
        try:
            name, partition = _address(message, received)
            target = self._target(engine, name)
            _check(target.definition, codec, message.channel)
            if partition is not None and partition >= len(target.definition.partitions):
                raise InvalidArgument(
                    f"the question wants its answer in partition {partition} of {name!r}, which has "
                    f"{len(target.definition.partitions)}: skip the question"
                )
        except (SchemaMismatch, InvalidArgument, DecodeError) as wrong:
            wrong.add_note(ASKERS_FAULT)
            raise
        own = _correlation(message, received)
        if error is not None:
            own += _error_headers(error)
        data = b"" if value is None and error is not None else _encode(codec, value, own)
        try:
            return target.sender.send(data, headers=envelope.enclose(own, headers, message), partition=partition)
        except ChannelNotFound as gone:
            raise _gone(name) from gone

    def _target(self, engine: Engine, name: str) -> _Target:
        known = self._targets.get(name)
        generation = engine.generation
        if known is not None and known.generation == generation:
            return known
        try:
            check_channel(name)
            definition = engine.definition(name)
        except ValueError as error:
            raise ChannelNotFound(
                f"the question wants its answer in {name[:100]!r}, which can be no channel: {error}; skip the question"
            ) from error
        except ChannelNotFound as error:
            raise _gone(name) from error
        if known is not None and known.definition == definition:
            sender = known.sender
        else:
            sender = Sender()
            engine.attach_sender(sender, engine.open(definition, self._raw))
        target = _Target(definition, generation, sender)
        with self._lock:
            self._targets.pop(name, None)
            while len(self._targets) >= MAX_TARGETS:
                del self._targets[next(iter(self._targets))]
            self._targets[name] = target
        return target


def is_askers_fault(error: Exception) -> bool:
    """Whether `Message.reply` raised it because of the return address, which answering again cannot mend."""
    return ASKERS_FAULT in getattr(error, "__notes__", ())


def answer_decoder(codec: Codec) -> Callable[[Message[Any], bytes], Any]:
    """(message, bytes) -> value of an answer written by `codec`; it raises ReplyError for one that is an error."""

    def plain(message: Message[Any], data: bytes) -> Any:
        if codec.decode_message is not None:
            return codec.decode_message(message, data)
        return data if codec.decode is None else codec.decode(data)

    def decode(message: Message[Any], data: bytes) -> Any:
        headers = message.headers
        said = headers.get(envelope.ERROR)
        if said is None:
            return plain(message, data)
        kind = said.decode("utf-8", "replace")
        text = headers.get(envelope.ERROR_TEXT, b"").decode("utf-8", "replace")
        value = None
        if data:
            try:
                value = plain(message, data)
            except DecodeError:
                value = data
        raise ReplyError(f"the responder answered {kind}: {text}" if text else f"the responder answered {kind}",
                         kind=kind, text=text, value=value)  # fmt: skip

    return decode


def _address(message: Message[Any], received: Mapping[str, bytes]) -> tuple[str, int | None]:
    """(channel, partition or None) where the answer is wanted."""
    given = received.get(envelope.REPLY_TO)
    if given is not None:
        return given.decode("utf-8", "replace"), None
    given = received.get(envelope.SPRING_REPLY_TOPIC)
    if given is None:
        raise InvalidArgument(
            f"the message at offset {message.offset} of {message.channel}-{message.partition} asks for no answer: it "
            f"has no header {envelope.REPLY_TO!r}; look at message.reply_to before replying"
        )
    number = received.get(envelope.SPRING_REPLY_PARTITION)
    if number is not None and (len(number) != 4 or number[0] > 0x7F):
        raise DecodeError(
            f"the header {envelope.SPRING_REPLY_PARTITION!r} is {number[:16]!r}, and not 4 bytes of a partition's "
            f"number, big-endian: skip the question, its sender is wrong"
        )
    return given.decode("utf-8", "replace"), None if number is None else int.from_bytes(number, "big")


def _check(definition: Definition, codec: Codec, asked: str) -> None:
    """Raise SchemaMismatch for a channel that takes no such answers."""
    if definition.name == asked:
        raise SchemaMismatch(
            f"the question wants its answer in {asked!r}, the channel it was asked on: skip the question"
        )
    if definition.carries == "command":
        raise SchemaMismatch(
            f"the question wants its answer in {definition.name!r}, which carries commands, and an answer is none: "
            f"skip the question, or create the channel for answers with carries='document'"
        )
    if definition.codec != "raw" and (definition.codec, definition.dtype) != (codec.name, codec.descr):
        raise SchemaMismatch(
            f"the question wants its answer in {definition.name!r}, which holds {definition.type} and not "
            f"{codec.type_name}: skip the question, or create the channel for answers without a type"
        )


def _correlation(message: Message[Any], received: Mapping[str, bytes]) -> list[tuple[str, Any]]:
    own: list[tuple[str, Any]] = []
    foreign = received.get(envelope.SPRING_CORRELATION_ID)
    asked = received.get(envelope.CORRELATION_ID) or received.get(envelope.MESSAGE_ID)
    if asked is not None or foreign is None:
        own.append((envelope.CORRELATION_ID, message.id if asked is None else asked))
    if foreign is not None:
        own.append((envelope.SPRING_CORRELATION_ID, foreign))
    return own


def _encode(codec: Codec, value: Any, own: list[tuple[str, Any]]) -> bytes:
    """The bytes of an answer; what describes them joins `own`."""
    own.append((envelope.CONTENT_TYPE, envelope.MEDIA_TYPES[codec.name]))
    if codec.type_of is not None:
        own.append((envelope.TYPE, codec.type_of(value)))
    if codec.encode is not None:
        return codec.encode(value)
    if value is None:
        return b""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise SchemaMismatch(
        f"answers here are bytes, not {type(value).__qualname__}: give bytes, or open the channel with reply=, the "
        f"type of its answers"
    )


def _error_headers(error: Any) -> list[tuple[str, Any]]:
    if isinstance(error, BaseException):
        kind, text = type(error).__name__, envelope.error_text(error)
    elif isinstance(error, str):
        kind, text = "Error", error
    else:
        raise TypeError(f"error= is an exception or a str, not {type(error).__qualname__}: give its data as the value")
    # What an error says may hold anything; it must not fail on its way.
    return [(envelope.ERROR, kind), (envelope.ERROR_TEXT, text[:MAX_TEXT_CHARS].encode("utf-8", "replace"))]


def _gone(name: str) -> ChannelNotFound:
    return ChannelNotFound(
        f"the question wants its answer in {name!r}, and there is no such channel (any more): nobody waits for the "
        f"answer, go on with the next message"
    )
