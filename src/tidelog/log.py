"""How is a log opened, and which channels does it have?

Floor 7: may import channel, producer, consumer, engine.*, codec, config, errors. Thread rule: everything may be called
from any thread; after fork() the child opens the log anew.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast, overload

from tidelog.channel import Channel, Queue, Topic
from tidelog.codec import Codec, codec_for
from tidelog.config import (
    Carries,
    ChannelOptions,
    Duration,
    Kind,
    Retention,
    StoreOptions,
    Target,
    check_channel_options,
    parse_url,
)
from tidelog.consumer import Consumer, Delivery, Isolation, Strategy, check_channels
from tidelog.engine.base import Can, Committed, Engine
from tidelog.engine.embedded import EmbeddedEngine
from tidelog.errors import ChannelNotFound, NotSupported
from tidelog.partitioner import Partitioner
from tidelog.patterns.mailboxes import Mailboxes
from tidelog.patterns.reply import Answers
from tidelog.patterns.request import Exchange
from tidelog.places import Start, Stop
from tidelog.producer import Producer
from tidelog.share import OnChange
from tidelog.skew_watch import WARN_SHARE, Listener
from tidelog.storage.definitions import Definition, Wanted, compare, reply_of
from tidelog.transaction import TIMEOUT_SECONDS, Level, Transaction

if TYPE_CHECKING:
    from tidelog.group import Groups

__all__ = ["Log", "open"]

T = TypeVar("T")


def open(
    url: str | os.PathLike[str] | None = None,
    *,
    create: bool = True,
    flush_interval: Duration | None = None,
    lock_timeout: Duration | None = None,
    segment_bytes: int | None = None,
) -> Log:
    """Open a log, and create it if there is none (unless `create` is False).

    `url`: a directory, "tidelog:///absolute/directory", "memory:" (a private one that vanishes at close), or None for
    $TIDELOG_URL. Any number of processes of the host may have a directory open at once. `flush_interval` (seconds or
    timedelta, default 1 s): written messages are on disk within twice this time. `lock_timeout` (default 30 s): how
    long to wait for what another process holds, before Locked. `segment_bytes` (default 1 GiB): size of a partition's
    files, for channels created from now on. Options may stand in the URL too ("memory:?flush_interval=0.1"); keywords
    win.

    Raises ValueError or TypeError for arguments out of range, NotSupported (file system, engine), Locked, Corrupt,
    NoSpace, StorageFailed.
    """
    target = parse_url(url)
    given: dict[str, Any] = dict(target.options)
    keywords = {"flush_interval": flush_interval, "lock_timeout": lock_timeout, "segment_bytes": segment_bytes}
    given.update({name: value for name, value in keywords.items() if value is not None})
    return Log(_engine(target, given, create))


def _engine(target: Target, options: Mapping[str, Any], create: bool) -> Engine:
    if target.engine == "kafka":
        raise NotSupported(
            "this version opens logs on this host only: give a directory, tidelog:///absolute/path or memory:"
        )
    return EmbeddedEngine(target.path, StoreOptions.of(create=create, **options))


class Log(Mapping[str, Channel[Any]]):
    """An open log: a mapping from names to channels; made by `tidelog.open`.

    Use it as a context manager, or call `close`. A log that is forgotten is closed when it is garbage, or when the
    program ends.
    """

    def __init__(self, engine: Engine) -> None:
        """Programs call `tidelog.open` instead."""
        self._engine = engine
        self._lock = threading.Lock()
        self._mailboxes = Mailboxes(engine)
        self._answers = Answers(engine)
        # The same handle for whoever opens the same channel with the same type; handles nobody uses are forgotten.
        self._channels: weakref.WeakValueDictionary[Hashable, Channel[Any]] = weakref.WeakValueDictionary()

    # --- what it is ---

    @property
    def can(self) -> Can:
        """What this log's engine can do; engines differ nowhere else."""
        return self._engine.can

    @property
    def name(self) -> str:
        """Where the log is, as it was opened."""
        return self._engine.name

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._engine.closed

    @property
    def engine(self) -> Engine:
        """What does the work, for tools that look into a store."""
        return self._engine

    def __repr__(self) -> str:
        return f"<Log {self._engine.name}{' closed' if self._engine.closed else ''}>"

    # --- channels ---

    @overload
    def queue(
        self,
        name: str,
        type: None = None,
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
        reply: Any = None,
    ) -> Queue[bytes]: ...
    @overload
    def queue(
        self,
        name: str,
        type: type[T],
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
        reply: Any = None,
    ) -> Queue[T]: ...
    @overload
    def queue(
        self,
        name: str,
        type: Any,
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
        reply: Any = None,
    ) -> Queue[Any]: ...
    def queue(self, name: str, type: Any = None, **options: Any) -> Queue[Any]:
        """The queue `name` of values of `type`, created if there is none: each message goes to exactly one receiver.

        `type`: bytes (None), str, a msgspec Struct, dataclass, TypedDict, pydantic model or numpy dtype.
        `partitions`: how many (default 4); given for a queue that exists, they are compared. `retention`: a timedelta
        (age), an int (bytes per partition), "consumed", or None to keep everything. `max_message_bytes`: key and value
        together (default 16 MiB, at most 256 MiB). `segment_bytes`: size of a partition's files. `carries`: "command"
        (default), "event" or "document". `codec`: "json" (default), "msgpack" or "raw". `compression`: how batches are
        packed: "none" (default), "gzip", "snappy", "lz4" or "zstd". `dedup_count`, `dedup_window`: a message sent with
        `id=` is a duplicate when its id is among the last so many ids of its partition (default 100,000, at most
        10,000,000; 0: ids are not looked for) and younger than so many seconds (default 600, at most 30 days).
        `reply`: the type of answers to its messages, for `ask` and `Message.reply`.

        Options other than type, codec and partitions matter at creation only; change them later with `configure`.
        Raises SchemaMismatch if the channel exists with another kind, codec, dtype or number of partitions, ValueError
        or TypeError for a name or option out of range, NotSupported (naming the package to install), Locked, Full,
        NoSpace, StorageFailed.
        """
        return cast("Queue[Any]", self._channel("queue", name, type, options))

    @overload
    def topic(
        self,
        name: str,
        type: None = None,
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
        reply: Any = None,
    ) -> Topic[bytes]: ...
    @overload
    def topic(
        self,
        name: str,
        type: type[T],
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
        reply: Any = None,
    ) -> Topic[T]: ...
    @overload
    def topic(
        self,
        name: str,
        type: Any,
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
        reply: Any = None,
    ) -> Topic[Any]: ...
    def topic(self, name: str, type: Any = None, **options: Any) -> Topic[Any]:
        """The topic `name` of values of `type`, created if there is none: every group gets every message.

        Options and errors are those of `queue`; it carries "event" unless told otherwise.
        """
        return cast("Topic[Any]", self._channel("topic", name, type, options))

    def __getitem__(self, name: str) -> Channel[Any]:
        """The channel as it is: rows where it holds a dtype, otherwise values are bytes. Raises ChannelNotFound."""
        try:
            definition = self._engine.definition(name)
        except (TypeError, ValueError) as error:
            raise ChannelNotFound(f"there can be no channel {name!r}: {error}") from error
        return self._handle(
            ("as stored", name),
            definition,
            lambda: _stored_codec(definition.codec, definition.type, definition.dtype),
            lambda: _stored_reply(definition),
        )

    def get(self, name: str, default: Any = None) -> Any:
        """`log[name]`, or `default` if there is no such channel."""
        try:
            return self[name]
        except ChannelNotFound:
            return default

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._engine.names()

    def __iter__(self) -> Iterator[str]:
        return iter(self._engine.names())

    def __len__(self) -> int:
        return len(self._engine.names())

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def drop(self, name: str) -> None:
        """Remove a channel with its messages and committed offsets, for every process. Raises ChannelNotFound."""
        self._engine.drop(name)

    # --- producers, consumers ---

    def producer(
        self,
        *,
        ack: str = "written",
        linger: Duration = 0.0,
        compression: str | None = None,
        partitioner: Partitioner | None = None,
        name: str | None = None,
    ) -> Producer:
        """A producer for any of the log's channels.

        `ack`: "written" (visible to every process, survives the death of all of them) or "synced" (on disk before a
        receipt completes). `linger` (seconds or timedelta): gather messages of `send` into batches for this long.
        `compression`: "none", "gzip", "snappy", "lz4", "zstd"; None: as the channel says. `partitioner`: a function
        (key bytes or None, value, partitions) -> partition.

        `name` (str, up to 184 bytes): the producer keeps its identity across restarts and processes, as in Kafka.
        Opening the name fences whoever had it open: their next call raises Fenced. Messages carry (producer id, epoch,
        sequence), and what is sent again after an error is recognised; `Producer.last` tells a restarted program where
        to go on.
        """
        return Producer(
            self._engine, ack=ack, linger=linger, compression=compression, partitioner=partitioner, name=name
        )

    def consumer(
        self,
        *channels: Channel[Any],
        group: str,
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
    ) -> Consumer[Any]:
        """One consumer of several channels (at most 64) as `group`; the options are those of `Queue.consumer`.

        Raises ValueError for a queue under another group than its own (its messages go to one group only), TypeError
        for what is no channel.
        """
        check_channels(channels, group)
        return Consumer(
            self._engine,
            [channel.opened() for channel in channels],
            group=group,
            start=start,
            stop=stop,
            delivery=delivery,
            isolation=isolation,
            busy_poll=busy_poll,
            strategy=strategy,
            member=member,
            member_timeout=member_timeout,
            max_processing=max_processing,
            on_assign=on_assign,
            on_revoke=on_revoke,
        )

    def transaction(
        self,
        producer: Producer,
        *consumers: Consumer[Any],
        timeout: Duration = TIMEOUT_SECONDS,
        level: Level = "synced",
    ) -> Transaction:
        """Messages to any number of channels, and what `consumers` hand over, as one decision:

            with log.transaction(producer, consumer) as tx:
                tx.send_many(invoices, [bill(order) for order in consumer.receive_many()])

        `producer` has a name, and one transaction at a time; its own `send` is refused meanwhile (RuntimeError).
        `consumers`: none or several, at-least-once or manual; what they had handed over before and not committed goes
        along. `timeout` (seconds or timedelta): then anybody may abort it, since readers wait at its first message.
        `level`: "synced" (it survives a power cut, for a sync of each partition and one more) or "written": all or
        nothing when processes die, while a power cut may take a part of it. Raises ValueError or TypeError.
        """
        return Transaction(self._engine, producer, consumers, timeout, level)

    @property
    def groups(self) -> Groups:
        """The consumer groups by name: members, offsets, lag; `reset` and `delete`."""
        from tidelog.group import Groups  # many programs never ask

        return Groups(self._engine)

    def offsets(self) -> list[Committed]:
        """How far each group has come in each partition, by group, channel and partition."""
        return self._engine.committed()

    def on_skew(self, listener: Listener, *, threshold: float = WARN_SHARE) -> None:
        """Call `listener` with a `SkewEvent` when one key has at least `threshold` (0 to 1) of what is sent to a
        channel of several partitions.

        It is called by whatever thread of this process sends, after its message is in the log; once a minute at most
        for each key of a channel (of more than 1,000 keys within a minute, those told first may be told again). Keys
        are sampled: nothing is said before 512 samples, some 33,000 messages, and a sender of a channel with a hot key
        looks for others once a second. From a quarter on the logger `tidelog.skew` warns too. Raises ValueError,
        TypeError.
        """
        self._engine.skew_watch.on(listener, threshold)

    def sync(self) -> None:
        """Return when everything that is visible now is on disk. Raises StorageFailed, NoSpace."""
        self._engine.sync()

    # --- life ---

    def close(self) -> None:
        """Close producers and consumers, then the log; idempotent. Blocked calls of other threads raise Closed.

        Raises the first error of a producer's messages that could not be sent, after everything is closed.
        """
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except Exception:
            if kind is None:  # an error on its way out says more than what it made fail
                raise

    # --- inside ---

    def _channel(self, kind: Kind, name: str, type_: Any, options: dict[str, Any]) -> Channel[Any]:
        check_channel_options(kind, options)
        reply = options.pop("reply", None)
        wanted = ChannelOptions.of(kind, **options)
        codec = codec_for(type_, wanted.codec)
        answers = None if reply is None else codec_for(reply)
        definition = self._engine.create(name, kind, codec, wanted, answers)
        compare(
            definition,
            Wanted(
                kind=kind,
                codec=codec.name,
                dtype=codec.descr,
                partitions=wanted.partitions,
                reply=reply_of(answers),
            ),
        )
        key = (name, _hashable(type_), codec.signature, _hashable(reply))
        return self._handle(key, definition, lambda: codec, lambda: answers or _stored_reply(definition))

    def _handle(
        self,
        key: Hashable,
        definition: Definition,
        codec: Callable[[], Codec],
        reply: Callable[[], Codec | None] = lambda: None,
    ) -> Channel[Any]:
        with self._lock:
            known = self._channels.get(key)
            with suppress(ChannelNotFound):  # a handle on a channel of this name that was dropped
                if known is not None and known.opened().definition.id == definition.id:
                    return known
            opened = self._engine.open(definition, codec())
            kind = Queue if definition.kind == "queue" else Topic
            made: Channel[Any] = kind(self._engine, opened, Exchange(self._mailboxes, self._answers, reply()))
            self._channels[key] = made
            return made


def _hashable(type_: Any) -> Hashable:
    """Something that stands for a type in a dictionary; types that cannot be hashed are never the same."""
    try:
        hash(type_)
    except TypeError:
        return object()
    return (id(type_.__class__), type_)  # numpy's dtypes compare equal to builtin classes


def _stored_codec(codec: str, type_name: str, dtype: list[Any] | None) -> Codec:
    """Rows where the channel holds a dtype, otherwise bytes under the stored codec's name."""
    if dtype is not None:
        from tidelog.rows import dtype_from_descr

        return codec_for(dtype_from_descr(dtype))
    return Codec(codec, type_name)


def _stored_reply(definition: Definition) -> Codec | None:
    """The same for its answers; None if none are foreseen."""
    stored = definition.reply
    return None if stored is None else _stored_codec(stored.codec, stored.type, stored.dtype)
