"""Which channel does a handler mean, and how is it opened once there is a log?

Floor 8: may import log, channel, config, names, errors. Thread rule: a `ChannelSpec` never changes; an
`AppChannel` may be used from any thread.

An application names its channels when its module is imported, long before a log is open (or without one at all: a
description needs none). So what stands here is what was asked for; `open` makes the channel of a log out of it. The
test harness opens the same specs in a log in memory.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast, overload

from tidelog.channel import Channel, Queue
from tidelog.config import Carries, ChannelOptions, Retention
from tidelog.errors import SchemaMismatch
from tidelog.names import check_channel

if TYPE_CHECKING:
    from datetime import datetime

    import numpy as np
    from numpy.typing import NDArray

    from tidelog.channel import _Keep
    from tidelog.codec import Codec
    from tidelog.config import Duration
    from tidelog.consumer import Consumer, Delivery, Isolation, Strategy
    from tidelog.engine.base import Committed, Opened
    from tidelog.log import Log
    from tidelog.message import Batch, Message, Receipt
    from tidelog.patterns.request import Replies
    from tidelog.places import Start, Stop
    from tidelog.share import OnChange
    from tidelog.skew import Skew

__all__ = ["AppChannel", "ChannelLike", "ChannelSpec", "spec_of"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelSpec:
    """A channel as an application asked for it; None where it did not say."""

    name: str
    kind: Literal["queue", "topic"]
    type: Any = None
    """Of the values; None: bytes, or whatever an open `channel` has."""
    reply: Any = None
    """Type of the answers (publish / async response); an open `channel` knows only their codec."""
    partitions: int | None = None
    carries: Carries | None = None
    codec: str | None = None
    retention: Retention = None
    either: bool = field(default=False, compare=False, repr=False)
    """Only the name was given, and nothing depends on the kind: a channel that exists is taken as it is."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The other keywords of `log.queue` and `log.topic`."""
    channel: Channel[Any] | None = field(default=None, compare=False, repr=False)
    """The channel itself, where the application gave an open one."""

    def open(self, log: Log) -> Channel[Any]:
        """The channel in `log`, created there if there is none; of an open `channel` of another log its double.

        Raises SchemaMismatch, and what `log.queue` raises.
        """
        if self.channel is not None:
            if log.engine is self.channel._engine:
                return self.channel
            return _copied(self.channel, log)
        if self.name in log:
            found = log[self.name]
            if found.kind != self.kind and not self.either:
                raise SchemaMismatch(_wrong_kind(self.name, found.kind))
            if self.either and self.type is None:
                return found
            if self.type is None and self.codec is None and self.partitions is None and self.reply is None:
                return found
        given = {"partitions": self.partitions, "carries": self.carries, "codec": self.codec, "reply": self.reply}
        options = {name: value for name, value in given.items() if value is not None} | dict(self.options)
        if self.retention is not None:
            options["retention"] = self.retention
        kind = log[self.name].kind if self.either and self.name in log else self.kind
        make = cast("Callable[..., Channel[Any]]", log.queue if kind == "queue" else log.topic)
        return make(self.name, self.type, **options)


def _wrong_kind(name: str, kind: str) -> str:
    if kind == "topic":
        return f"{name!r} is a topic, and is used as a queue here: declare it with app.topic(), or give group="
    return f"{name!r} is a queue, and is used as a topic here: declare it with app.queue(), and leave group= out"


def _copied(channel: Channel[Any], log: Log) -> Channel[Any]:
    """The same channel in another log. Its codec is taken as it is, since a codec does not tell its type."""
    definition = channel.opened().definition
    options = ChannelOptions.of(
        definition.kind,
        partitions=len(definition.partitions),
        carries=definition.carries,
        max_message_bytes=definition.max_message_bytes,
        compression=definition.compression,
        dedup_count=definition.dedup_count,
        dedup_window=definition.dedup_window_ms / 1000,
    )
    made = log.engine.create(channel.name, definition.kind, channel.codec, options, channel.reply)
    key = ("copied", channel.name, channel.codec.signature)
    return log._handle(key, made, lambda: channel.codec, lambda: channel.reply)


class AppChannel(Generic[T]):
    """A channel that an application declared; made by `app.queue` and `app.topic`.

    It is opened in the application's log at its first use, and from then on does whatever a channel does: `send`,
    `send_many`, `ask`, `scan`, and everything else. In a test it is the channel of the test's log.
    """

    def __init__(self, spec: ChannelSpec, log: Callable[[], Log]) -> None:
        """Programs call `app.queue` or `app.topic`. `log`: answers the application's log, opening it if need be."""
        self.spec = spec
        self._log = log
        self._opened: tuple[object, Channel[T]] | None = None

    @property
    def name(self) -> str:
        """The channel's name."""
        return self.spec.name

    @property
    def kind(self) -> Literal["queue", "topic"]:
        """Point-to-point or publish-subscribe."""
        return self.spec.kind

    @property
    def channel(self) -> Channel[T]:
        """The channel itself, in the application's log. Raises what `log.queue` and `tidelog.open` raise."""
        log = self._log()
        known = self._opened
        if known is None or known[0] is not log.engine:
            known = log.engine, self.spec.open(log)
            self._opened = known
        return known[1]

    if TYPE_CHECKING:
        # What a type checker sees; all of it is the channel's own, and documented there.

        @property
        def carries(self) -> Literal["document", "command", "event"]:
            """As `Channel.carries`."""

        @property
        def codec(self) -> Codec:
            """As `Channel.codec`."""

        @property
        def reply(self) -> Codec | None:
            """As `Channel.reply`."""

        @property
        def partitions(self) -> int:
            """As `Channel.partitions`."""

        @property
        def retention(self) -> tuple[int, int, bool]:
            """As `Channel.retention`."""

        @property
        def compression(self) -> str:
            """As `Channel.compression`."""

        @property
        def max_message_bytes(self) -> int:
            """As `Channel.max_message_bytes`."""

        @property
        def dedup_count(self) -> int:
            """As `Channel.dedup_count`."""

        @property
        def dedup_window(self) -> float:
            """As `Channel.dedup_window`."""

        def bounds(self, partition: int) -> tuple[int, int]:
            """As `Channel.bounds`."""

        def describe(self, partition: int) -> dict[str, int]:
            """As `Channel.describe`."""

        def send(
            self,
            value: T,
            *,
            key: Any = None,
            headers: Mapping[str, Any] | Iterable[tuple[str, Any]] | None = None,
            id: str | None = None,
            partition: int | None = None,
            timestamp: datetime | float | None = None,
        ) -> Receipt:
            """As `Channel.send`."""

        def send_many(
            self,
            values: Any,
            *,
            keys: Any = None,
            headers: Mapping[str, Any] | Sequence[Any] | None = None,
            ids: Iterable[str | None] | None = None,
            partition: int | None = None,
            timestamp: Any = None,
        ) -> Receipt:
            """As `Channel.send_many`."""

        def ask(
            self,
            value: T,
            *,
            timeout: Duration | None = None,
            limit: int | None = None,
            key: Any = None,
            headers: Mapping[str, Any] | Iterable[tuple[str, Any]] | None = None,
            id: str | None = None,
            durable: str | None = None,
        ) -> Replies[Any]:
            """As `Channel.ask`."""

        def ask_one(
            self,
            value: T,
            *,
            timeout: Duration | None = None,
            key: Any = None,
            headers: Mapping[str, Any] | Iterable[tuple[str, Any]] | None = None,
            id: str | None = None,
            durable: str | None = None,
        ) -> Message[Any]:
            """As `Channel.ask_one`."""

        def resume(self, durable: str, *, timeout: Duration | None = None, limit: int | None = None) -> Replies[Any]:
            """As `Channel.resume`."""

        def consumer(
            self,
            *group: str,
            start: Start = "earliest",
            stop: Stop = None,
            delivery: Delivery = "at-least-once",
            isolation: Isolation = "read-committed",
            busy_poll: Duration = 0.0,
            strategy: Strategy = "sticky",
            member: str | None = None,
            member_timeout: Duration | None = None,
            max_processing: Duration | None = None,
            on_assign: OnChange | None = None,
            on_revoke: OnChange | None = None,
        ) -> Consumer[T]:
            """As `Queue.consumer`, or with a group as `Topic.consumer`."""

        def tail(
            self, *, start: Start = "latest", isolation: Isolation = "read-committed", busy_poll: Duration = 0.0
        ) -> Consumer[T]:
            """As `Channel.tail`."""

        def scan(
            self,
            start: Start = "earliest",
            stop: Stop = "end",
            partition: int | None = None,
            *,
            isolation: Isolation = "read-committed",
        ) -> Iterator[Message[T]]:
            """As `Channel.scan`."""

        def read(
            self, offsets: Any, partition: int | None = None, *, isolation: Isolation = "read-committed"
        ) -> Batch[T]:
            """As `Channel.read`."""

        @overload
        def find(self, timestamps: datetime, partition: int | None = None) -> int: ...
        @overload
        def find(self, timestamps: Any, partition: int | None = None) -> NDArray[np.int64]: ...
        def find(self, timestamps: Any, partition: int | None = None) -> Any:
            """As `Channel.find`."""

        def skew(self, hottest: int = 10, *, live: bool = False) -> Skew:
            """As `Channel.skew`."""

        def trim(self, before: int | datetime, partition: int | None = None) -> None:
            """As `Channel.trim`."""

        def configure(
            self,
            *,
            retention: Retention | Literal[_Keep.KEEP] = _Keep.KEEP,
            partitions: int | None = None,
            max_message_bytes: int | None = None,
            segment_bytes: int | None = None,
            compression: str | None = None,
            dedup_count: int | None = None,
            dedup_window: Duration | None = None,
        ) -> None:
            """As `Channel.configure`."""

        def sync(self) -> None:
            """As `Channel.sync`."""

        def offsets(self) -> list[Committed]:
            """As `Channel.offsets`."""

    else:

        def send(self, value: T, **options: Any) -> Receipt:
            """Send one message; the options and errors are those of `channel.send`."""
            return self.channel.send(value, **options)

        def send_many(self, values: Any, **options: Any) -> Receipt:
            """Send many messages; the options and errors are those of `channel.send_many`."""
            return self.channel.send_many(values, **options)

        def ask(self, value: T, **options: Any) -> Replies[Any]:
            """Ask a question; the options and errors are those of `channel.ask`."""
            return self.channel.ask(value, **options)

        def ask_one(self, value: T, **options: Any) -> Message[Any]:
            """Ask a question and wait for one answer; the options and errors are those of `channel.ask_one`."""
            return self.channel.ask_one(value, **options)

        def __getattr__(self, name: str) -> Any:
            if name.startswith("_"):
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            return getattr(self.channel, name)

    def opened(self) -> Opened:
        """The handles behind the channel, for producers and consumers."""
        return self.channel.opened()

    def __repr__(self) -> str:
        return f"<AppChannel {self.spec.kind} {self.spec.name!r}>"


ChannelLike = Channel[Any] | AppChannel[Any] | str
"""How a channel may be named: an open one, one that the application declared, or its name."""


def spec_of(channel: object, kind: Literal["queue", "topic"], type_: Any = None, **asked: Any) -> ChannelSpec:
    """The spec of what was given as a channel; `kind`, `type_` and `asked` describe it where it is only a name.

    Raises TypeError for anything else, ValueError for what can be no name.
    """
    if isinstance(channel, AppChannel):
        return channel.spec
    if isinstance(channel, Channel):
        return ChannelSpec(
            name=channel.name,
            kind="queue" if isinstance(channel, Queue) else "topic",
            reply=channel.reply,
            partitions=channel.partitions,
            carries=channel.carries,
            codec=channel.codec.name,
            channel=channel,
        )
    if isinstance(channel, str) and channel:
        check_channel(channel)
        return ChannelSpec(name=channel, kind=kind, type=type_, **asked)
    if inspect.isroutine(channel) or inspect.isclass(channel):
        raise TypeError(
            f"{getattr(channel, '__name__', channel)} is no channel: write @app.on(channel) or @app.answers(channel) "
            f"above a function, with the channel whose messages it handles"
        )
    raise TypeError(
        f"{channel!r} is no channel: give one that app.queue(), app.topic(), log.queue() or log.topic() made, or a name"
    )
