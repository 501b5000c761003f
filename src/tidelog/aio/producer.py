"""How does a coroutine send to several channels with one ack level, and gather messages into batches?

Floor 8: may import aio.*, producer, engine.base, config, partitioner, errors. Thread rule: coroutines belong to a
running loop, and several loops may use one producer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar

from tidelog.aio.channel import Channel
from tidelog.aio.receipt import Receipt
from tidelog.aio.sending import Sending
from tidelog.aio.threads import Threads
from tidelog.aio.worker import Worker
from tidelog.config import Duration
from tidelog.engine.base import Engine
from tidelog.errors import Closed
from tidelog.message import Position
from tidelog.partitioner import Partitioner
from tidelog.producer import Producer as SyncProducer

__all__ = ["Producer"]

T = TypeVar("T")

BATCHES_UNDERWAY = 8
"""A producer whose gathered batches are not written as fast as they are filled makes its senders wait from here on."""


class Producer:
    """Sends to any channel of a log; made by `log.producer(...)` of `tidelog.aio`. Use it as `async with`, or await
    `close`.

    Errors of messages whose receipt nobody asked are raised by `flush` and `close`. A `name` is opened by `async with`,
    or by the first call that sends; see `tidelog.Producer` for what it means.
    """

    def __init__(
        self,
        threads: Threads,
        engine: Engine,
        *,
        ack: str = "written",
        linger: Duration = 0.0,
        compression: str | None = None,
        partitioner: Partitioner | None = None,
        name: str | None = None,
    ) -> None:
        """Programs call `log.producer(...)`. Raises what `tidelog.Log.producer` raises."""
        self._threads = threads
        self._engine = engine
        self._options: dict[str, Any] = {"compression": compression, "partitioner": partitioner}
        self._gathering = _Gathering(threads, engine, ack=ack, linger=linger, name=name, **self._options)
        self._lingers = bool(self._gathering._linger)
        self._synced = ack == "synced"
        self._sendings: dict[str, Sending] = {}
        self._ending = Worker("tidelog-transactions")  # where its transactions begin and end

    @property
    def name(self) -> str | None:
        """The name it was made with."""
        return self._gathering.name

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._gathering.closed

    async def send(
        self,
        channel: Channel[T],
        value: T,
        *,
        key: Any = None,
        headers: Mapping[str, Any] | Iterable[tuple[str, Any]] | None = None,
        id: str | None = None,
        partition: int | None = None,
        timestamp: datetime | float | None = None,
    ) -> Receipt:
        """Send one message; the arguments are those of `channel.send`. With `linger` the receipt completes later; with
        ack="synced" this returns when the message is on disk.

        A cancelled send may have sent its message or not. Raises what `tidelog.Producer.send` raises.
        """
        options: dict[str, Any] = {
            "key": key,
            "headers": headers,
            "id": id,
            "partition": partition,
            "timestamp": timestamp,
        }
        await self._open_name()
        if not self._lingers:
            return await self._sending(channel).send(value, options)
        receipt = self._gathering.send(channel, value, **options)
        if self._threads.sends.pending(self._gathering) > BATCHES_UNDERWAY:
            await self._threads.sends.submit(_nothing)
        return Receipt(receipt, self._threads.sends)

    async def send_many(
        self,
        channel: Channel[T],
        values: Any,
        *,
        keys: Any = None,
        headers: Sequence[Any] | None = None,
        ids: Iterable[str | None] | None = None,
        partition: int | None = None,
        timestamp: Any = None,
    ) -> Receipt:
        """Send many messages; the arguments are those of `channel.send_many`. They are batches already, so they do not
        linger; what was gathered for the channel before goes out first."""
        await self._open_name()
        sending = self._sending(channel)
        if self._lingers:
            self._gathering._send_gathered(channel.opened().definition.id)
            if self._gathering.name is not None:  # what could not be sent must not be overtaken
                await self._threads.sends.submit(self._gathering._raise_kept, channel.opened().definition.id)
        options = {"keys": keys, "headers": headers, "ids": ids, "partition": partition, "timestamp": timestamp}
        return await sending.send_many(values, options)

    async def last(self, channel: Channel[Any]) -> list[Position | None]:
        """Where this name wrote last in each partition of a channel, as `tidelog.Producer.last` says."""
        await self._open_name()
        return await self._threads.sends.submit(self._gathering.last, channel)

    async def flush(self) -> None:
        """Return when everything that was given to `send` is in the log, at this producer's ack level.

        Raises the first error of messages that could not be sent and whose receipt nobody asked; once.
        """
        await self._threads.sends.submit(self._gathering.flush)

    async def close(self) -> None:
        """Flush, then refuse further messages; idempotent. Raises like `flush`. Cancelled, it is carried out all the
        same."""
        await self._threads.sends.submit(self._gathering.close)

    async def __aenter__(self) -> Self:
        self._check_open()
        await self._open_name()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.close()
        except Exception:
            if kind is None:  # an error on its way out says more than what it made fail
                raise

    def __repr__(self) -> str:
        return f"<aio.{repr(self._gathering)[2:]}"

    def _sending(self, channel: Channel[Any]) -> Sending:
        self._check_open()
        opened = channel.opened()
        sending = self._sendings.get(opened.definition.id)
        if sending is None or sending.opened is not opened:
            named = self._gathering._named
            sending = Sending(self._threads, self._engine, opened, synced=self._synced, named=named, **self._options)
            self._sendings[opened.definition.id] = sending
        return sending

    async def _open_name(self) -> None:
        if self._gathering.name is not None and self._gathering._named is None:
            self._check_open()
            await self._threads.sends.submit(self._gathering._open_name)  # it may wait for the disk

    def _check_open(self) -> None:
        if self.closed:
            raise Closed("the producer was closed: make a new one with log.producer()")


class _Gathering(SyncProducer):
    """Gathers in the loop, and sends what was gathered on a thread."""

    _opens_late = True

    def __init__(self, threads: Threads, engine: Engine, **options: Any) -> None:
        super().__init__(engine, **options)
        self._threads = threads

    def __repr__(self) -> str:
        return f"<_{super().__repr__()[1:]}"

    def _send_gathered(self, channel: str, last: bool = False) -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            super()._send_gathered(channel, last)
        else:
            self._threads.sends.submit(super()._send_gathered, channel, tag=self)


def _nothing() -> None:
    """What waits in the order of a thread, and no more."""
