"""What can be done with a queue or a topic?

Floor 7: may import patterns, producer, consumer, skew, engine.base, codec, config, message, errors, and the compiled
sender.
Thread rule: everything may be called from any thread.

Sending is inherited from the compiled `Sender` as it is: no Python stands between `orders.send(...)` and the log. What
other processes did to the channel (more partitions, other limits) is noticed by every other method, by the catalogue's
generation; `send` goes on with what it knew until then, which is right too: partitions only grow.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from enum import Enum
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar, overload

from tidelog import compression as _compression
from tidelog._native import Batch, Reader, Receipt, Sender
from tidelog.codec import Codec
from tidelog.config import Duration, Retention, parse_dedup_count, parse_dedup_window, parse_retention
from tidelog.consumer import Consumer, Delivery, Isolation, Strategy, check_group, is_uncommitted
from tidelog.engine.base import Changes, Committed, Engine, Opened
from tidelog.errors import ChannelNotFound
from tidelog.message import Message, epoch_ms_array
from tidelog.patterns.request import Asking, Exchange
from tidelog.places import Start, Stop, check_start, check_stop, resolve
from tidelog.share import OnChange

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tidelog.skew import Skew

__all__ = ["Channel", "Queue", "Topic"]

T = TypeVar("T")

SKEW_BATCH_MESSAGES = 10_000


class _Keep(Enum):
    KEEP = "keep"


_KEEP: Final = _Keep.KEEP


class Channel(Sender, Asking[T], Generic[T]):
    """What queues and topics share; made by `log.queue`, `log.topic` and `log[name]`."""

    def __init__(self, engine: Engine, opened: Opened, exchange: Exchange) -> None:
        """Programs call the methods named above instead."""
        self._engine = engine
        self._opened = opened
        self._exchange = exchange
        self._answer = opened.shared.answer = exchange.answers.hook(exchange.reply)
        self._refreshing = threading.Lock()
        self._name = opened.definition.name
        engine.attach_sender(self, opened)

    if TYPE_CHECKING:

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
            """Send one message; it is visible to every process when this returns."""

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
            """Send many messages: an iterable, or for a dtype channel a structured array or a dict of columns."""

    # --- what it is ---

    @property
    def name(self) -> str:
        """The channel's name."""
        return self._name

    @property
    def kind(self) -> Literal["queue", "topic"]:
        """Point-to-point or publish-subscribe."""
        return self._opened.definition.kind

    @property
    def carries(self) -> Literal["document", "command", "event"]:
        """What its messages are, for descriptions."""
        return self._opened.definition.carries

    @property
    def codec(self) -> Codec:
        """How values become bytes: `.name` ("raw", "json", ...), `.dtype`, `.type_name`."""
        return self._opened.codec

    @property
    def partitions(self) -> int:
        """The number of partitions."""
        return len(self.opened().partitions)

    @property
    def retention(self) -> tuple[int, int, bool]:
        """(retention_ms, retention_bytes per partition, consumed); -1: no such limit."""
        definition = self.opened().definition
        return definition.retention_ms, definition.retention_bytes, definition.retention_consumed

    @property
    def compression(self) -> str:
        """How batches are packed where a producer does not say: "none", "gzip", "snappy", "lz4" or "zstd"."""
        return self.opened().definition.compression

    @property
    def max_message_bytes(self) -> int:
        """The largest key and value together."""
        return self.opened().definition.max_message_bytes

    @property
    def dedup_count(self) -> int:
        """Among how many ids of a partition a repeated `id=` is a duplicate; 0: never."""
        return self.opened().definition.dedup_count

    @property
    def dedup_window(self) -> float:
        """How many seconds old that id may be."""
        return self.opened().definition.dedup_window_ms / 1000

    def bounds(self, partition: int) -> tuple[int, int]:
        """(log start offset, log end offset) of a partition. Raises ValueError if there is no such partition."""
        return self._partition(partition).partitions[partition].bounds()

    def describe(self, partition: int) -> dict[str, int]:
        """Sizes and counts of a partition: log_start, log_end, bytes, segments and what else the engine knows."""
        return self._partition(partition).partitions[partition].describe()

    def __repr__(self) -> str:
        definition = self._opened.definition
        return (
            f"<{type(self).__name__} {self._name} of {self._opened.codec.type_name}, "
            f"{len(definition.partitions)} partitions, in {self._engine.name}>"
        )

    def opened(self) -> Opened:
        """The handles behind this channel, as they are now; for producers and consumers.

        Raises ChannelNotFound if the channel was dropped (also if another of this name was created since), Closed.
        """
        opened = self._opened
        if opened.generation == self._engine.generation:
            return opened
        with self._refreshing:
            if self._opened.generation == self._engine.generation:
                return self._opened
            fresh = self._engine.definition(self._name)
            if fresh.id != opened.definition.id:
                raise ChannelNotFound(
                    f"the channel {self._name!r} was dropped and created again: get the new one with "
                    f"log[{self._name!r}]"
                )
            if fresh == opened.definition:  # the change was another channel's
                self._opened = Opened(
                    opened.definition,
                    opened.codec,
                    opened.shared,
                    opened.decompress,
                    opened.partitions,
                    self._engine.generation,
                )
            else:
                adapted = self._engine.open(fresh, opened.codec)
                adapted.shared.answer = self._answer
                # A compiled sender never changes, so that no lock is needed to send: the instance gets another one's
                # methods, which stand before those of its class.
                sender = Sender()
                self._engine.attach_sender(sender, adapted)
                self.__dict__.update(send=sender.send, send_many=sender.send_many)
                self._opened = adapted
            return self._opened

    # --- receiving ---

    def tail(
        self, *, start: Start = "latest", isolation: Isolation = "read-committed", busy_poll: Duration = 0.0
    ) -> Consumer[T]:
        """An ephemeral subscription: what is published from now on, without a group and without committed offsets."""
        return Consumer(
            self._engine, [self.opened()], group=None, start=start, isolation=isolation, busy_poll=busy_poll
        )

    def _consumer(self, group: str, **options: Any) -> Consumer[T]:
        check_group(group)
        return Consumer(self._engine, [self.opened()], group=group, **options)

    def scan(
        self,
        start: Start = "earliest",
        stop: Stop = "end",
        partition: int | None = None,
        *,
        isolation: Isolation = "read-committed",
    ) -> Iterator[Message[T]]:
        """The history from `start` to `stop`, without a group: "end" is the log end as it is when the partition's turn
        comes. Without `partition` all of them, one after the other.

        Raises OffsetOutOfRange for an offset below the log start, ValueError or TypeError for arguments out of range.
        """
        if stop is None:
            raise ValueError("scan ends: give stop='end', a datetime or an offset; to follow, use tail() or consumer()")
        opened = self._partition(partition)
        numbers = range(len(opened.partitions)) if partition is None else (partition,)
        check_start(start)  # what is wrong shows here, not at the first message
        check_stop(stop)
        uncommitted = is_uncommitted(isolation)
        parts = (self._part(opened, number, start, stop, uncommitted) for number in numbers)
        return chain.from_iterable(part for part in parts if part is not None)

    def read(self, offsets: Any, partition: int | None = None, *, isolation: Isolation = "read-committed") -> Batch[T]:
        """The messages at `offsets` (an int64 array or any sequence, in any order), in the order asked for.

        `partition` may be left out where there is only one. Raises OffsetOutOfRange for an offset without a message.
        """
        import numpy as np

        number = self._only(partition)
        wanted = np.asarray(offsets)
        if wanted.ndim != 1 or (wanted.size and wanted.dtype.kind not in "iu"):
            raise TypeError(f"offsets are integers in one dimension, not {wanted.dtype} of shape {wanted.shape}")
        opened = self._opened
        return opened.partitions[number].read_at(
            np.ascontiguousarray(wanted, dtype=np.int64), opened.shared, number, uncommitted=is_uncommitted(isolation)
        )

    @overload
    def find(self, timestamps: datetime, partition: int | None = None) -> int: ...
    @overload
    def find(self, timestamps: Any, partition: int | None = None) -> NDArray[np.int64]: ...
    def find(self, timestamps: Any, partition: int | None = None) -> Any:
        """For each time the first offset whose message is not older; the log end where there is none.

        `timestamps`: one datetime (answers an int), or a datetime64 array or an iterable of datetimes and seconds since
        1970 (answers an array). `partition` may be left out where there is only one.
        """
        number = self._only(partition)
        opened = self._opened
        if isinstance(timestamps, datetime):
            return resolve(opened, number, timestamps, uncommitted=True)
        return opened.partitions[number].find(epoch_ms_array(timestamps), opened.decompress)

    def skew(self, hottest: int = 10, *, live: bool = False) -> Skew:
        """How unevenly the messages fall on the partitions, the `hottest` most frequent keys, and `.advice`.

        By reading every message, or with `live` at once: partitions by their log ends, keys by what senders have
        sampled since the machine started (one message in 64; each key's share with its error, see `HotKey.error`).
        Raises ValueError for `hottest` below 0.
        """
        if hottest < 0:
            raise ValueError(f"hottest={hottest}: give how many keys to tell, 0 or more")
        from tidelog.skew import SkewCounter
        from tidelog.skew import live as live_skew

        opened = self.opened()
        if live:
            held = []
            for part in opened.partitions:
                known = part.describe()
                held.append((part.count_from(known["log_start"]), known["bytes"]))
            return live_skew(held, opened.partitions[0].sampled(), hottest)
        counter = SkewCounter(len(opened.partitions))
        for number in range(len(opened.partitions)):
            reader = self._part(opened, number, "earliest", "end", False)
            if reader is None:
                continue
            while batch := reader.receive_many(SKEW_BATCH_MESSAGES, timeout=0):
                counter.add(number, batch.keys, sum(map(len, batch.raws)))
        return counter.result(hottest)

    def _part(self, opened: Opened, number: int, start: Start, stop: Stop, uncommitted: bool) -> Reader | None:
        """A reader of one partition from start to stop, None if nothing lies between."""
        first = resolve(opened, number, start, uncommitted=uncommitted)
        end = resolve(opened, number, "end", uncommitted=uncommitted)
        if stop not in ("end", None):
            end = min(end, resolve(opened, number, stop, uncommitted=uncommitted))
        if first >= end:
            return None
        reader = Reader()
        self._engine.attach_reader(reader, [(opened, number)], uncommitted=uncommitted)
        reader._seek(0, first)
        reader._stop_at([end])
        return reader

    # --- keeping ---

    def trim(self, before: int | datetime, partition: int | None = None) -> None:
        """Remove the messages before an offset or a time, in one partition or in all; they are gone at once.

        A consumer that had read some of them into memory still hands those over. An offset past the log end means
        everything. Raises ValueError or TypeError for arguments out of range.
        """
        opened = self._partition(partition)
        for number in range(len(opened.partitions)) if partition is None else (partition,):
            handle = opened.partitions[number]
            start, end = handle.bounds()
            wanted = min(resolve(opened, number, before, uncommitted=True), end)
            if wanted > start:
                handle.trim(wanted)

    def configure(
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
        """Change what is given: `retention` (timedelta, bytes per partition, "consumed", or None to keep everything),
        the number of `partitions` (it can only grow, and keys move), limits, compression, and within how many ids and
        seconds a repeated `id=` is a duplicate (a window that grows knows no more than it did; 0 ids: none is).

        Raises ValueError or TypeError for values out of range, NotSupported, ChannelNotFound, NoSpace, StorageFailed.
        """
        limits = None if retention is _KEEP else parse_retention(retention)
        if compression is not None:
            compression = _compression.codec_name(_compression.codec_id(compression))
        count = None if dedup_count is None else parse_dedup_count(dedup_count)
        window_ms = None if dedup_window is None else parse_dedup_window(dedup_window)
        self.opened()  # that it is this channel, and not another of its name
        self._engine.configure(
            self._name,
            Changes(
                partitions=partitions,
                retention=limits,
                max_message_bytes=max_message_bytes,
                segment_bytes=segment_bytes,
                compression=compression,
                dedup_count=count,
                dedup_window_ms=window_ms,
            ),
        )
        self.opened()

    def sync(self) -> None:
        """Return when every message of the channel that is visible now is on disk. Raises StorageFailed, NoSpace."""
        for partition in self.opened().partitions:
            partition.sync()

    def offsets(self) -> list[Committed]:
        """How far each group has come in this channel, by group and partition."""
        self.opened()
        return [row for row in self._engine.committed() if row.channel == self._name]

    # --- inside ---

    def _partition(self, partition: int | None) -> Opened:
        """The handles, if `partition` is None or one of them."""
        opened = self.opened()
        count = len(opened.partitions)
        if partition is not None and (isinstance(partition, bool) or not isinstance(partition, int)):
            raise TypeError(f"a partition is an int, not {type(partition).__name__}")
        if partition is not None and not 0 <= partition < count:
            raise ValueError(f"{self._name!r} has no partition {partition}: it has 0 to {count - 1}")
        return opened

    def _only(self, partition: int | None) -> int:
        opened = self._partition(partition)
        if partition is not None:
            return partition
        if len(opened.partitions) == 1:
            return 0
        raise ValueError(f"which partition of {self._name!r}? It has {len(opened.partitions)}: give partition=")


class Queue(Channel[T]):
    """Point-to-point: each message goes to exactly one receiver. Its one group bears the queue's name."""

    def consumer(
        self,
        *,
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
        """Receive from the queue.

        `start`: where to begin as long as nothing was committed: "earliest", "latest", a datetime or an offset. `stop`:
        "end" drains what is there now and ends. `delivery`: "at-least-once", "at-most-once" or "manual" (see
        `Consumer`). `busy_poll`: seconds to spin before sleeping.

        Its consumers share the partitions by `strategy`: "sticky" (even counts, fewest moves), "range" or
        "round-robin" (Kafka's); where they disagree, the oldest one's holds. `member`: a name; the partitions of a
        consumer with a name wait `member_timeout` (default 10 seconds) for it to come back, and a newer one of the
        same name takes its place: the older raises Fenced. `max_processing`: the most seconds between two calls that
        receive, after which others go on without it and its commits raise Fenced; None: as long as its process lives.
        `on_assign`, `on_revoke`: called with a list of `Assigned` when partitions have come, and before they go, by
        the calls that receive; in on_revoke one may still commit. An on_assign that raised is called again by the next
        receive, before anything is read. on_revoke is also called when `with` is left without an exception. Raises
        ValueError or TypeError for options out of range, Full when there are 512 consumers.
        """
        return self._consumer(
            self.name,
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
        busy_poll: Duration = 0.0,
        strategy: Strategy = "sticky",
        member: str | None = None,
        member_timeout: Duration | None = None,
        max_processing: Duration | None = None,
        on_assign: OnChange | None = None,
        on_revoke: OnChange | None = None,
    ) -> Consumer[T]:
        """Receive as `group`, which goes on where it had committed; the options are those of `Queue.consumer`.
        Without a group: `tail`."""
        return self._consumer(
            group,
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
