"""What can a coroutine do with a queue or a topic?

Floor 8: may import aio.*, channel, consumer, engine.base, config, message. Thread rule: coroutines belong to a running
loop, and several loops may use one channel; everything else may be called from any thread.

The same names as `tidelog.Channel`. What only sends or looks at memory is done in the loop; what may read a file, take
a lock or wait for the disk is done on a thread of the log.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from tidelog.aio.asking import Asking
from tidelog.aio.callbacks import OnChange
from tidelog.aio.consumer import Consumer
from tidelog.aio.receipt import Receipt
from tidelog.aio.replies import Postmen
from tidelog.aio.sending import Sending
from tidelog.aio.threads import Threads
from tidelog.channel import _KEEP, _Keep
from tidelog.channel import Channel as SyncChannel
from tidelog.codec import Codec
from tidelog.config import Duration, Retention
from tidelog.consumer import Delivery, Isolation, Strategy, check_group
from tidelog.engine.base import Committed, Engine, Opened
from tidelog.message import Batch, Message
from tidelog.places import Start, Stop

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tidelog.skew import Skew

__all__ = ["Channel", "Queue", "Topic"]

T = TypeVar("T")

SCAN_MESSAGES = 256
"""So many messages of a scan are fetched at once."""


class Channel(Asking[T], Generic[T]):
    """What queues and topics share; made by `log.queue`, `log.topic` and `log[name]` of `tidelog.aio`."""

    _channel: SyncChannel[T]

    def __init__(self, threads: Threads, engine: Engine, postmen: Postmen, channel: SyncChannel[T]) -> None:
        """Programs call the methods named above instead."""
        self._threads = threads
        self._engine = engine
        self._postmen = postmen
        self._channel = channel
        self._sending: Sending | None = None

    # --- what it is ---

    @property
    def name(self) -> str:
        """The channel's name."""
        return self._channel.name

    @property
    def kind(self) -> Literal["queue", "topic"]:
        """Point-to-point or publish-subscribe."""
        return self._channel.kind

    @property
    def carries(self) -> Literal["document", "command", "event"]:
        """What its messages are, for descriptions."""
        return self._channel.carries

    @property
    def codec(self) -> Codec:
        """How values become bytes: `.name` ("raw", "json", ...), `.dtype`, `.type_name`."""
        return self._channel.codec

    @property
    def partitions(self) -> int:
        """The number of partitions, as it is known here: they only grow, and `bounds`, `configure` or opening a
        consumer notices it."""
        return len(self.opened().partitions)

    @property
    def retention(self) -> tuple[int, int, bool]:
        """(retention_ms, retention_bytes per partition, consumed), as it is known here; -1: no such limit."""
        definition = self.opened().definition
        return definition.retention_ms, definition.retention_bytes, definition.retention_consumed

    @property
    def compression(self) -> str:
        """How batches are packed where a producer does not say: "none", "gzip", "snappy", "lz4" or "zstd"; as it is
        known here."""
        return self.opened().definition.compression

    @property
    def max_message_bytes(self) -> int:
        """The largest key and value together, as it is known here."""
        return self.opened().definition.max_message_bytes

    @property
    def dedup_count(self) -> int:
        """Among how many ids of a partition a repeated `id=` is a duplicate, as it is known here; 0: never."""
        return self.opened().definition.dedup_count

    @property
    def dedup_window(self) -> float:
        """How many seconds old that id may be, as it is known here."""
        return self.opened().definition.dedup_window_ms / 1000

    @property
    def sync_channel(self) -> SyncChannel[T]:
        """The channel for code that may block, on the same open log."""
        return self._channel

    def opened(self) -> Opened:
        """The handles behind this channel as they are known, for producers."""
        return self._channel._opened

    async def bounds(self, partition: int) -> tuple[int, int]:
        """(log start offset, log end offset) of a partition. Raises ValueError if there is no such partition."""
        return await self._threads.calls.submit(self._channel.bounds, partition)

    async def describe(self, partition: int) -> dict[str, int]:
        """Sizes and counts of a partition: log_start, log_end, bytes, segments and what else the engine knows."""
        return await self._threads.calls.submit(self._channel.describe, partition)

    def __repr__(self) -> str:
        return f"<aio.{repr(self._channel)[1:]}"

    # --- sending ---

    async def send(
        self,
        value: T,
        *,
        key: Any = None,
        headers: Mapping[str, Any] | Iterable[tuple[str, Any]] | None = None,
        id: str | None = None,
        partition: int | None = None,
        timestamp: datetime | float | None = None,
    ) -> Receipt:
        """Send one message; it is visible to every process when this returns. Arguments and errors are those of
        `tidelog.Channel.send`.

        No thread is involved unless a lock is held up. A cancelled send may have sent its message or not; it never
        sends it twice, and messages sent one after the other by this channel keep their order in each partition.
        """
        options = {"key": key, "headers": headers, "id": id, "partition": partition, "timestamp": timestamp}
        return await self._sender().send(value, options)

    async def send_many(
        self,
        values: Any,
        *,
        keys: Any = None,
        headers: Sequence[Any] | None = None,
        ids: Iterable[str | None] | None = None,
        partition: int | None = None,
        timestamp: Any = None,
    ) -> Receipt:
        """Send many messages: an iterable, or for a dtype channel a structured array or a dict of columns (which must
        not change meanwhile). Arguments and errors are those of `tidelog.Channel.send_many`.

        They are encoded and appended on a thread. Cancelled before that has begun, none is sent; afterwards all are.
        """
        options = {"keys": keys, "headers": headers, "ids": ids, "partition": partition, "timestamp": timestamp}
        return await self._sender().send_many(values, options)

    def _sender(self) -> Sending:
        opened = self.opened()
        if self._sending is None or self._sending.opened is not opened:
            self._sending = Sending(self._threads, self._engine, opened)
        return self._sending

    # --- receiving ---

    def tail(self, *, start: Start = "latest", isolation: Isolation = "read-committed") -> Consumer[T]:
        """An ephemeral subscription, without a group and without committed offsets: what is published from its first
        use on (entering `async with`, or the first receive). There is no `busy_poll`, as with `Queue.consumer`."""
        return self._consumer(group=None, start=start, isolation=isolation)

    def _consumer(self, **options: Any) -> Consumer[T]:
        return Consumer(self._threads, self._engine, [self._channel], options)

    async def scan(
        self,
        start: Start = "earliest",
        stop: Stop = "end",
        partition: int | None = None,
        *,
        isolation: Isolation = "read-committed",
    ) -> AsyncIterator[Message[T]]:
        """The history from `start` to `stop`, without a group; arguments and errors are those of
        `tidelog.Channel.scan`, raised at the first message."""
        calls = self._threads.calls
        messages = await calls.submit(lambda: self._channel.scan(start, stop, partition, isolation=isolation))
        while some := await calls.submit(_some, messages):
            for message in some:
                yield message

    async def read(
        self, offsets: Any, partition: int | None = None, *, isolation: Isolation = "read-committed"
    ) -> Batch[T]:
        """The messages at `offsets` (an int64 array or any sequence, in any order), in the order asked for.

        `partition` may be left out where there is only one. Raises OffsetOutOfRange for an offset without a message.
        """
        return await self._threads.calls.submit(lambda: self._channel.read(offsets, partition, isolation=isolation))

    @overload
    async def find(self, timestamps: datetime, partition: int | None = None) -> int: ...
    @overload
    async def find(self, timestamps: Any, partition: int | None = None) -> NDArray[np.int64]: ...
    async def find(self, timestamps: Any, partition: int | None = None) -> Any:
        """For each time the first offset whose message is not older; the log end where there is none. Arguments are
        those of `tidelog.Channel.find`."""
        return await self._threads.calls.submit(self._channel.find, timestamps, partition)

    async def skew(self, hottest: int = 10, *, live: bool = False) -> Skew:
        """How unevenly the messages fall on the partitions, the `hottest` most frequent keys, and `.advice`; arguments
        are those of `tidelog.Channel.skew`."""
        return await self._threads.calls.submit(lambda: self._channel.skew(hottest, live=live))

    # --- keeping ---

    async def trim(self, before: int | datetime, partition: int | None = None) -> None:
        """Remove the messages before an offset or a time, in one partition or in all; they are gone at once."""
        await self._threads.calls.submit(self._channel.trim, before, partition)

    async def configure(
        self,
        *,
        retention: Retention | Literal[_Keep.KEEP] = _KEEP,
        partitions: int | None = None,
        max_message_bytes: int | None = None,
        segment_bytes: int | None = None,
        compression: str | None = None,
        dedup_count: int | None = None,
        dedup_window: Duration | None = None,
    ) -> None:
        """Change retention, the number of partitions, limits, compression, the window of ids; arguments and errors are
        those of `tidelog.Channel.configure`."""
        await self._threads.calls.submit(
            lambda: self._channel.configure(
                retention=retention,
                partitions=partitions,
                max_message_bytes=max_message_bytes,
                segment_bytes=segment_bytes,
                compression=compression,
                dedup_count=dedup_count,
                dedup_window=dedup_window,
            )
        )

    async def sync(self) -> None:
        """Return when every message of the channel that is visible now is on disk. Raises StorageFailed, NoSpace."""
        await self._threads.disk.submit(self._channel.sync)

    async def offsets(self) -> list[Committed]:
        """How far each group has come in this channel, by group and partition."""
        return await self._threads.calls.submit(self._channel.offsets)


class Queue(Channel[T]):
    """Point-to-point: each message goes to exactly one receiver. Its one group bears the queue's name."""

    def consumer(
        self,
        *,
        start: Start = "earliest",
        stop: Stop = None,
        delivery: Delivery = "at-least-once",
        isolation: Isolation = "read-committed",
        strategy: Strategy = "sticky",
        member: str | None = None,
        member_timeout: Duration | None = None,
        max_processing: Duration | None = None,
        on_assign: OnChange | None = None,
        on_revoke: OnChange | None = None,
    ) -> Consumer[T]:
        """Receive from the queue; arguments are those of `tidelog.Queue.consumer`, but there is no `busy_poll`: a spin
        would stop the event loop, and on a thread it would save less than the loop takes to be told. What is wrong with
        the others is raised at its first use: entering `async with`, or the first receive. `on_assign` and `on_revoke`
        may be coroutine functions; they are called on the event loop, and may commit, seek, pause and resume."""
        return self._consumer(
            group=self.name,
            start=start,
            stop=stop,
            delivery=delivery,
            isolation=isolation,
            strategy=strategy,
            member=member,
            member_timeout=member_timeout,
            max_processing=max_processing,
            on_assign=on_assign,
            on_revoke=on_revoke,
        )


class Topic(Channel[T]):
    """Publish-subscribe: every group gets every message."""

    def consumer(
        self,
        group: str,
        *,
        start: Start = "earliest",
        stop: Stop = None,
        delivery: Delivery = "at-least-once",
        isolation: Isolation = "read-committed",
        strategy: Strategy = "sticky",
        member: str | None = None,
        member_timeout: Duration | None = None,
        max_processing: Duration | None = None,
        on_assign: OnChange | None = None,
        on_revoke: OnChange | None = None,
    ) -> Consumer[T]:
        """Receive as `group`, which goes on where it had committed; the options are those of `Queue.consumer`. Raises
        TypeError or ValueError for what is no name of a group."""
        check_group(group)
        return self._consumer(
            group=group,
            start=start,
            stop=stop,
            delivery=delivery,
            isolation=isolation,
            strategy=strategy,
            member=member,
            member_timeout=member_timeout,
            max_processing=max_processing,
            on_assign=on_assign,
            on_revoke=on_revoke,
        )


def _some(messages: Iterator[Message[T]]) -> list[Message[T]]:
    return list(islice(messages, SCAN_MESSAGES))
