"""How are messages of several channels sent with one ack level, and gathered into batches?

Floor 6: may import engine.base, compression, config, envelope, partitioner, message, errors, and the compiled sender.
Thread rule: everything may be called from any thread.

Without `linger` every call goes straight to a compiled sender. With it, messages are encoded and checked when `send` is
called (so that one bad value never spoils a batch) and gathered per channel and partition until a batch is full or
`linger` has passed. The thread that watches the clock is no daemon: it ends by itself when nothing is left to send, so
a program that ends without closing its producer still sends what it has gathered.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from tidelog import compression as _compression
from tidelog import envelope
from tidelog._native import Receipt, Sender, murmur2
from tidelog.config import Duration, duration_ms
from tidelog.engine.base import Engine, Opened
from tidelog.errors import Closed, NotSupported, TooLarge
from tidelog.lingering import Gathered, Gathering, Waiting
from tidelog.message import Headers, epoch_ms
from tidelog.partitioner import Partitioner, check_partition, choose, key_bytes

if TYPE_CHECKING:
    pass

__all__ = ["BATCH_BYTES", "Channelish", "Producer"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

BATCH_BYTES = 1 << 20
"""A gathered batch goes out when it is this large, whatever the clock says."""
ACKS = ("written", "synced")
_IDLE_SECONDS = 0.05  # how long the clock's thread stays after the last message
_SLICE_SECONDS = 0.05  # how often it looks whether the program is ending


class Channelish(Protocol[T_co]):
    """What a producer needs of a channel; `Queue` and `Topic` have it."""

    @property
    def name(self) -> str: ...
    def opened(self) -> Opened:
        """The channel's handles, as they are now."""


class Producer:
    """Sends to any channel of a log; made by `log.producer(...)`.

    Errors of messages whose receipt nobody asked are raised by `flush` and `close`.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        ack: str = "written",
        linger: Duration = 0.0,
        compression: str | None = None,
        partitioner: Partitioner | None = None,
        name: str | None = None,
    ) -> None:
        """Programs call `log.producer(...)`, which documents the options.

        Raises ValueError or TypeError for options out of range, NotSupported for `name`, or for a compression whose
        package is missing (naming it).
        """
        if name is not None:
            raise NotSupported(
                f"producer(name={name!r}): this engine has no named producers (see log.can.named_producers): leave the "
                f"name out, and give messages an id= that your receivers can recognise repetitions by"
            )
        if ack not in ACKS:
            raise ValueError(f"ack={ack!r} does not exist: use one of {', '.join(ACKS)}")
        if partitioner is not None and not callable(partitioner):
            raise TypeError("partitioner is a function (key, value, partitions) -> partition")
        _compression.ensure(_compression.codec_id(compression))
        self._engine = engine
        self._synced = ack == "synced"
        self._linger = duration_ms(linger, "linger") / 1000
        self._compression = compression
        self._partitioner = partitioner
        self._pid = os.getpid()
        self._closed = False
        # Never taken as `with self._changed`: an interrupt inside that Python code would leave it locked for ever.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._sending = threading.RLock()  # held while gathered messages go out, so that they keep their order
        self._senders: dict[str, tuple[Opened, Sender]] = {}
        self._gathered: dict[str, Gathered] = {}
        self._failed: list[Gathering] = []
        self._clock: threading.Thread | None = None
        engine.adopt(self)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def send(
        self,
        channel: Channelish[T],
        value: T,
        *,
        key: Any = None,
        headers: Mapping[str, Any] | Iterable[tuple[str, Any]] | None = None,
        id: str | None = None,
        partition: int | None = None,
        timestamp: datetime | float | None = None,
    ) -> Receipt:
        """Send one message; the arguments are those of `channel.send`. With `linger` the receipt completes later.

        Raises SchemaMismatch for a value that is not of the channel's type, TooLarge, NoSpace, StorageFailed, Closed.
        """
        opened = channel.opened()
        if not self._linger:
            return self._sender(opened).send(
                value, key=key, headers=headers, id=id, partition=partition, timestamp=timestamp
            )
        message = self._checked(opened, value, key, headers, id, partition, timestamp)
        return self._gather(opened, message)

    def send_many(
        self,
        channel: Channelish[T],
        values: Any,
        *,
        keys: Any = None,
        headers: Sequence[Any] | None = None,
        ids: Sequence[str] | None = None,
        partition: int | None = None,
        timestamp: Any = None,
    ) -> Receipt:
        """Send many messages; the arguments are those of `channel.send_many`. They are batches already, so they do not
        linger; what was gathered for the channel before goes out first. Raises like `send`."""
        opened = channel.opened()
        if not self._linger:
            return self._sender(opened).send_many(
                values, keys=keys, headers=headers, ids=ids, partition=partition, timestamp=timestamp
            )
        with self._sending:
            self._send_gathered(opened.definition.id)
            return self._sender(opened).send_many(
                values, keys=keys, headers=headers, ids=ids, partition=partition, timestamp=timestamp
            )

    def flush(self) -> None:
        """Return when everything that was given to `send` is in the log, at this producer's ack level.

        Raises the first error of messages that could not be sent and whose receipt nobody asked; once.
        """
        if os.getpid() != self._pid:
            return
        for channel in list(self._gathered):
            self._send_gathered(channel)
        with self._sending:  # what another thread has taken out and not sent yet, the clock's above all
            pass
        self._raise_failure()

    def close(self) -> None:
        """Flush, then refuse further messages; idempotent. Raises like `flush`."""
        if os.getpid() != self._pid:  # a forked child: what is gathered here is its parent's to send
            self._closed = True
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
        self._engine.forget(self)
        self.flush()

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except Exception:
            if kind is None:  # an error on its way out says more than what it made fail
                raise

    def __repr__(self) -> str:
        state = " closed" if self._closed else ""
        return f"<Producer ack={'synced' if self._synced else 'written'} linger={self._linger:g}{state}>"

    # --- straight through ---

    def _open(self) -> None:
        if self._closed:
            raise Closed("the producer was closed: make a new one with log.producer()")

    def _sender(self, opened: Opened, *, gathered: bool = False) -> Sender:
        """The compiled sender of a channel. `gathered`: one that takes encoded values."""
        if not gathered:
            self._open()
        name = f"{opened.definition.id} {gathered}"
        known = self._senders.get(name)
        if known is not None and known[0] is opened:
            return known[1]
        sender = Sender()
        self._engine.attach_sender(
            sender,
            self._engine.open(opened.definition, _raw_codec()) if gathered else opened,
            synced=self._synced,
            compression=self._compression,
            partitioner=None if gathered else self._partitioner,
        )
        self._senders[name] = (opened, sender)
        return sender

    # --- gathering ---

    def _checked(
        self, opened: Opened, value: Any, key: Any, headers: Any, id: str | None, partition: int | None, timestamp: Any
    ) -> Waiting:
        """Everything that can be wrong with one message is found here, before it joins a batch."""
        count = len(opened.partitions)
        encode = opened.codec.encode
        data = bytes(value) if encode is None and isinstance(value, bytes | bytearray | memoryview) else value
        if encode is not None:
            data = encode(value)
        elif type(data) is not bytes:
            raise TypeError(f"the channel {opened.definition.name!r} takes bytes, not {type(value).__name__}")
        if id is not None and not isinstance(id, str):
            raise TypeError(f"id is a str, not {type(id).__name__}")
        key = key_bytes(key)
        size = len(data) + (len(key) if key else 0)
        if size > opened.definition.max_message_bytes:
            raise TooLarge(
                f"a message of {size} bytes: the channel {opened.definition.name!r} takes at most "
                f"{opened.definition.max_message_bytes}: raise it with configure(max_message_bytes=...), or send less"
            )
        if partition is not None:
            partition = check_partition(partition, count)
        elif self._partitioner is not None:
            partition = choose(self._partitioner, key, value, count)
        elif count == 1:
            partition = 0
        elif key is not None or id is not None:
            partition = (murmur2(key if key is not None else str(id)) & 0x7FFF_FFFF) % count
        if opened.codec.type_of is not None:
            named = (envelope.TYPE, opened.codec.type_of(value))
            headers = [pair for pair in envelope.pairs(headers) if pair[0] != envelope.TYPE] + [named]
        kept = None if headers is None else Headers(headers.items() if isinstance(headers, Mapping) else headers)
        if timestamp is not None:
            epoch_ms(timestamp, "timestamp")
        return Waiting(data, key, kept, id, partition, time.time() if timestamp is None else timestamp, size)

    def _gather(self, opened: Opened, message: Waiting) -> Receipt:
        channel = opened.definition.id
        with self._lock:
            self._open()
            gathered = self._gathered.get(channel)
            if gathered is None:
                gathered = self._gathered[channel] = Gathered(opened)
            gathered.opened = opened
            partition = gathered.sticky if message.partition is None else message.partition
            batch = gathered.batches.get(partition)
            if batch is None:
                batch = gathered.batches[partition] = Gathering(self, channel)
                batch.due = time.monotonic() + self._linger
                if self._clock is None:
                    clock = threading.Thread(target=self._tick, name="tidelog-linger", daemon=False)
                    clock.start()
                    self._clock = clock
                else:
                    self._changed.notify_all()
            receipt = batch.add(message)
            full = batch.bytes >= BATCH_BYTES
        if full:
            self._send_gathered(channel)
        return receipt

    def _send_gathered(self, channel: str) -> None:
        """Send what is gathered for a channel. Errors go to the receipts, and to whoever flushes."""
        with self._sending:
            gathered: Gathered | None = None
            try:
                with self._lock:
                    if (gathered := self._gathered.get(channel)) is None:
                        return
                    del self._gathered[channel]
                for partition, batch in gathered.batches.items():
                    try:
                        batch.send(self._sender(gathered.opened, gathered=True), partition)
                    except Exception as error:
                        self._note_failure(batch, error)
            except BaseException as error:
                # An interrupt: whoever waits for what was taken out and not sent must be told, or waits for ever.
                if gathered is not None and self._gathered.get(channel) is not gathered:
                    for batch in gathered.batches.values():
                        if not batch.done.is_set():
                            self._note_failure(batch, error)
                raise

    def _note_failure(self, batch: Gathering, error: BaseException) -> None:
        batch.fail(error)
        with self._lock:
            self._failed.append(batch)

    def _raise_failure(self) -> None:
        with self._lock:
            failed, self._failed = self._failed, []
        for batch in failed:
            if batch.error is not None and not batch.asked:
                raise batch.error

    def _tick(self) -> None:
        """The clock's thread: sends what has lingered long enough, and ends when nothing came for a while."""
        idle_since = time.monotonic()
        while True:
            with self._lock:
                now = time.monotonic()
                first = {
                    channel: min(batch.due for batch in gathered.batches.values())
                    for channel, gathered in self._gathered.items()
                }
                if first:
                    idle_since = now
                if self._closed or now - idle_since > _IDLE_SECONDS:  # `close` sends what is left itself
                    self._clock = None
                    return
                # Once the main thread has ended, the program waits for this one alone: nothing lingers any more.
                ending = not threading.main_thread().is_alive()
                due = [channel for channel, moment in first.items() if ending or moment <= now]
                if not due:
                    self._changed.wait(min([_SLICE_SECONDS, *(moment - now for moment in first.values())]))
            for channel in due:
                self._send_gathered(channel)


def _raw_codec() -> Any:
    from tidelog.codec import codec_for

    return codec_for(bytes)
