"""How are messages of several channels sent with one ack level, and gathered into batches?

Floor 6: may import engine.base, compression, config, envelope, partitioner, message, errors, and the compiled sender.
Thread rule: everything may be called from any thread.

Without `linger` every call goes straight to a compiled sender (Dispatch). With it, messages are encoded and checked
when `send` is called, so that one bad value never spoils a batch, and gathered per channel and partition until a batch
is full or `linger` has passed. The thread that watches the clock is no daemon: it ends by itself when nothing is left,
so a program that ends without closing its producer still sends what it has gathered.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar, cast

from tidelog import compression as _compression
from tidelog import envelope
from tidelog._native import Dispatch, Named, Position, Receipt, Sender, murmur2
from tidelog.config import Duration, duration_ms
from tidelog.engine.base import Engine, Opened
from tidelog.errors import Closed, Error, Fenced, NotSupported, TooLarge
from tidelog.lingering import Gathered, Gathering, Waiting
from tidelog.message import Headers, epoch_ms
from tidelog.partitioner import Partitioner, check_partition, choose, key_bytes

if TYPE_CHECKING:
    from tidelog._native import Partition

__all__ = ["BATCH_BYTES", "Channelish", "Producer"]

T_co = TypeVar("T_co", covariant=True)

BATCH_BYTES = 1 << 20
"""A gathered batch goes out when it is this large, whatever the clock says."""
ACKS = ("written", "synced")
_IDLE_SECONDS = 0.05  # how long the clock's thread stays after the last message
_SLICE_SECONDS = 0.05  # how often it looks whether the program is ending
_RETRY_SECONDS = 0.1  # what is kept is sent again after this, or after `linger` where that is longer


class Channelish(Protocol[T_co]):
    """What a producer needs of a channel; `Queue` and `Topic` have it."""

    @property
    def name(self) -> str: ...
    def opened(self) -> Opened:
        """The channel's handles, as they are now."""


class Producer(Dispatch):
    """Sends to any channel of a log; made by `log.producer(...)`.

    Errors of messages whose receipt nobody asked are raised by `flush` and `close`.

    With a `name` it is the same producer again after a restart, and the only one: whoever opens the name later, in any
    process, fences it, so that its next call raises Fenced and nothing more of it gets into the log. `last` says how
    far the name has come. With `linger` as well, messages that could not be sent for a reason that may pass
    (`error.retriable`, an interrupt) stay gathered, and the next `flush` sends them in the same place: none is lost,
    and none is doubled, also where it is not known whether they are in the log already. Without `linger` an error
    reaches the caller at once, and what is then sent again is another message (give it an `id`).
    """

    _opens_late = False

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

        Raises ValueError or TypeError for options out of range, NotSupported for `name` where the engine has none, or
        for a compression whose package is missing (naming it); opening a name also Full, Locked, NoSpace,
        StorageFailed.
        """
        if name is not None and not isinstance(name, str):
            raise TypeError(f"the name of a producer is a str, not {type(name).__name__}")
        if name is not None and not engine.can.named_producers:
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
        self._name = name
        self._named: Named | None = None
        engine.adopt(self)
        if not self._opens_late:
            self._open_name()

    @property
    def name(self) -> str | None:
        """The name it was made with."""
        return self._name

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def _send(self, channel: Channelish[Any], value: Any, **options: Any) -> Receipt:
        """`send`, where the compiled sender of the channel is not known."""
        opened = channel.opened()
        if self._linger:
            return self._gather(opened, self._checked(opened, value, **options))
        return self._know(channel, opened).send(value, **options)

    def _send_many(self, channel: Channelish[Any], values: Any, **options: Any) -> Receipt:
        opened = channel.opened()
        if not self._linger:
            return self._know(channel, opened).send_many(values, **options)
        with self._sending:
            self._send_gathered(opened.definition.id)
            self._raise_kept(opened.definition.id)  # what is sent now would overtake it
            return self._sender(opened).send_many(values, **options)

    def last(self, channel: Channelish[Any]) -> list[Position | None]:
        """Where this name wrote last in each partition of a channel; None: nowhere that the log knows of. By partition.

        It counts what any earlier self of the name wrote, and stays true: an earlier self that still runs can add
        nothing any more. So a program that reads a source again after a restart goes on behind it. What is gathered and
        not sent yet does not count. The log forgets a name when 65,536 others wrote to the partition after it.
        Raises ValueError for a producer without a name, Fenced, Closed, Locked, Corrupt.
        """
        if self._name is None:
            raise ValueError("a producer without a name leaves no trace: make it with log.producer(name=...)")
        self._open()
        self._open_name()
        assert self._named is not None
        found: list[Position | None] = []
        for number, partition in enumerate(channel.opened().partitions):
            offset = self._named.last(_native_partition(partition))
            found.append(None if offset is None else Position(number, offset))
        return found

    def flush(self) -> None:
        """Return when everything that was given to `send` is in the log, at this producer's ack level.

        Raises the first error of messages that could not be sent and whose receipt nobody asked; once. Of a named
        producer: also the error that keeps messages from being sent, as long as they are kept.
        """
        if os.getpid() != self._pid:
            return
        for channel in list(self._gathered):
            self._send_gathered(channel)
        with self._sending:  # what another thread has taken out and not sent yet, the clock's above all
            pass
        self._raise_failure()
        self._raise_kept(None)

    def close(self) -> None:
        """Flush, then refuse further messages; idempotent. Raises like `flush`: what could not be sent then is given
        up."""
        if os.getpid() != self._pid:  # a forked child: what is gathered here is its parent's to send
            self._closed = True
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._forget()
            self._changed.notify_all()
        self._engine.forget(self)
        try:
            self.flush()
        finally:
            self._give_up()
            if self._named is not None:
                self._named.close()

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
        state = state if self._name is None else f" name={self._name!r}{state}"
        return f"<Producer ack={'synced' if self._synced else 'written'} linger={self._linger:g}{state}>"

    # --- the name ---

    def _open_name(self) -> None:
        """Open the name, once. Where `_opens_late`, on the first thread that may wait."""
        if self._name is None or self._named is not None:
            return
        with self._sending:
            if self._named is None:
                try:
                    self._named = self._engine.name_producer(self._name)
                except BaseException:
                    self._closed = True
                    self._engine.forget(self)
                    raise

    # --- straight through ---

    def _open(self) -> None:
        if self._closed:
            raise Closed("the producer was closed: make a new one with log.producer()")

    def _sender(self, opened: Opened, *, gathered: bool = False) -> Sender:
        """The compiled sender of a channel. `gathered`: one that takes encoded values."""
        if not gathered:
            self._open()
        name = f"{opened.definition.id} {gathered}"
        if (known := self._senders.get(name)) is not None and known[0] is opened:
            return known[1]
        sender = Sender()
        self._engine.attach_sender(
            sender,
            self._engine.open(opened.definition, _raw_codec()) if gathered else opened,
            synced=self._synced,
            compression=self._compression,
            partitioner=None if gathered else self._partitioner,
            named=self._named,
        )
        self._senders[name] = (opened, sender)
        return sender

    def _know(self, channel: Channelish[Any], opened: Opened) -> Sender:
        """The compiled sender of a channel, which the base class finds from now on; with `linger` it must not."""
        sender = self._sender(opened)
        if not self._linger:
            self._remember(channel, sender, opened.generation)
        return sender

    # --- gathering ---

    def _checked(
        self,
        opened: Opened,
        value: Any,
        key: Any = None,
        headers: Any = None,
        id: str | None = None,
        partition: int | None = None,
        timestamp: Any = None,
    ) -> Waiting:
        """Everything that can be wrong with one message is found here, before it joins a batch."""
        count, encode = len(opened.partitions), opened.codec.encode
        data = bytes(value) if encode is None and isinstance(value, bytes | bytearray | memoryview) else value
        if encode is not None:
            data = encode(value)
        elif type(data) is not bytes:
            raise TypeError(f"the channel {opened.definition.name!r} takes bytes, not {type(value).__name__}")
        if id is not None and not isinstance(id, str):
            raise TypeError(f"a message id is a str, not {type(id).__name__}")
        if id == "":
            raise ValueError("a message id has at least one character: give id=None for none")
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
        if self._named is not None and self._named.fenced:  # sooner than when its batch goes out
            raise Fenced(f"a newer producer of the name {self._name!r} was opened: stop this one, or open a new one")
        with self._lock:
            self._open()
            if self._named is not None:
                self._named.check()  # now, and not when the batch goes out
            self._start_clock()
            gathered = self._gathered.get(channel) or Gathered(opened)
            gathered.opened = opened
            partition = gathered.sticky if message.partition is None else message.partition
            batches = gathered.batches.get(partition, ())
            if batches and not batches[-1].begun:
                batch = batches[-1]
                receipt = batch.add(message)
            else:
                # An interrupt may come between any two steps, so a batch is seen once it is whole: the clock, and what
                # sends, never meet an empty one, nor a channel without any.
                batch = Gathering(self, channel)
                batch.due = time.monotonic() + self._linger
                receipt = batch.add(message)
                gathered.batches[partition] = [*batches, batch]
                self._gathered[channel] = gathered
                self._changed.notify_all()
            full = batch.bytes >= BATCH_BYTES
        if full:
            self._send_gathered(channel)
        return receipt

    def _send_gathered(self, channel: str, last: bool = False) -> None:
        """Send what is gathered for a channel. Errors go to the receipts, and to whoever flushes; what can be sent
        again is kept, unless this is the last time."""
        with self._sending:
            gathered: Gathered | None = None
            try:
                with self._lock:
                    if (gathered := self._gathered.get(channel)) is None:
                        return
                    del self._gathered[channel]
                for partition, batches in gathered.batches.items():
                    for at, batch in enumerate(batches):
                        try:
                            sender = self._sender(gathered.opened, gathered=True)
                            batch.send(sender, partition, self._sequences(gathered.opened, partition))
                        except Exception as error:
                            if last or not self._keeps(error):
                                self._note_failure(batch, error)
                                continue
                            self._keep(batch, error)
                            for later in batches[at + 1 :]:  # stays behind it, and whoever asks for it is told why
                                later.kept = error
                            break
                self._put_back(channel, gathered)
            except BaseException as error:
                # An interrupt: whoever waits for what was taken out and not sent must be told, or waits for ever.
                if gathered is not None and self._gathered.get(channel) is not gathered:
                    for batches in gathered.batches.values():
                        for batch in batches:
                            if self._named is None and not batch.done.is_set():
                                self._note_failure(batch, error)
                            elif not batch.done.is_set() and batch.begun:
                                self._keep(batch, error)
                    self._put_back(channel, gathered)
                raise

    def _sequences(self, opened: Opened, partition: int) -> Callable[[], int] | None:
        """What tells the sequence of the next message in a partition; None: this producer has no name."""
        named = self._named
        if named is None:
            return None
        return lambda: named.next_sequence(_native_partition(opened.partitions[partition]))

    def _keeps(self, error: Exception) -> bool:
        return self._named is not None and isinstance(error, Error) and error.retriable

    def _keep(self, batch: Gathering, error: BaseException) -> None:
        batch.begun = True
        batch.kept = error
        batch.due = time.monotonic() + max(self._linger, _RETRY_SECONDS)

    def _put_back(self, channel: str, gathered: Gathered) -> None:
        """What was taken out and not sent goes before what was gathered meanwhile."""
        with self._lock:
            if gathered.drop_done():
                newer = self._gathered.get(channel)
                if newer is not None and newer is not gathered:
                    gathered.put_before(newer)
                self._gathered[channel] = gathered
                self._start_clock()

    def _start_clock(self) -> None:
        """Under the lock."""
        if self._clock is None and not self._closed:
            clock = threading.Thread(target=self._tick, name="tidelog-linger", daemon=False)
            clock.start()
            self._clock = clock

    def _raise_kept(self, channel: str | None) -> None:
        """Raise why messages of a channel (None: of any) are kept and not sent, if there are such."""
        with self._lock:
            for name, gathered in self._gathered.items():
                for batches in gathered.batches.values():
                    if channel in (None, name) and batches and batches[0].kept is not None:
                        raise batches[0].kept

    def _give_up(self) -> None:
        """What is still gathered when the producer is closed was tried to be sent a moment ago."""
        with self._lock:
            gathered, self._gathered = self._gathered, {}
        closed = Closed("the producer was closed before the message could be sent")
        for one in gathered.values():
            for batches in one.batches.values():
                for batch in batches:
                    batch.fail(batches[0].kept or closed)

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
                    channel: min(batches[0].due for batches in gathered.batches.values())
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
                self._send_gathered(channel, ending)


def _raw_codec() -> Any:
    from tidelog.codec import codec_for

    return codec_for(bytes)


def _native_partition(partition: Any) -> Partition:
    """What an engine that has named producers has behind a partition."""
    return cast("Partition", partition)
