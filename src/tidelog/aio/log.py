"""How does a coroutine open a log, and which channels does it have?

Floor 8: may import aio.*, log, channel, consumer, engine.base, config, partitioner. Thread rule: coroutines belong to a
running loop, and several loops in several threads may use one log; everything else may be called from any thread. After
fork() the child opens the log anew.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, NoReturn, Self, TypeVar, overload

from tidelog.aio.callbacks import OnChange
from tidelog.aio.channel import Channel, Queue, Topic
from tidelog.aio.consumer import Consumer
from tidelog.aio.opening import Opening
from tidelog.aio.producer import Producer
from tidelog.aio.replies import Postmen
from tidelog.aio.threads import Threads
from tidelog.aio.transaction import Transaction
from tidelog.aio.worker import Worker
from tidelog.channel import Channel as SyncChannel
from tidelog.channel import Queue as SyncQueue
from tidelog.config import Duration
from tidelog.consumer import Delivery, Isolation, Strategy, check_channels
from tidelog.engine.base import Can, Committed
from tidelog.errors import ChannelNotFound, Corrupt, NotSupported
from tidelog.group import Groups
from tidelog.log import Log as SyncLog
from tidelog.log import open as open_sync
from tidelog.partitioner import Partitioner
from tidelog.places import Start, Stop
from tidelog.skew_watch import WARN_SHARE, Listener
from tidelog.transaction import TIMEOUT_SECONDS, Level

__all__ = ["Log", "open"]

T = TypeVar("T")
R = TypeVar("R")


def open(
    url: str | os.PathLike[str] | None = None,
    *,
    create: bool = True,
    flush_interval: Duration | None = None,
    lock_timeout: Duration | None = None,
    segment_bytes: int | None = None,
) -> Opening[Log]:
    """Open a log without blocking the event loop: `async with tidelog.aio.open(url) as log`, or
    `log = await tidelog.aio.open(url)`. Arguments and errors are those of `tidelog.open`."""
    opener = partial(
        open_sync,
        url,
        create=create,
        flush_interval=flush_interval,
        lock_timeout=lock_timeout,
        segment_bytes=segment_bytes,
    )
    return Opening(partial(_open, opener))


async def _open(opener: Callable[[], SyncLog]) -> Log:
    threads = Threads()
    opening = threads.calls.submit(opener)
    try:
        await asyncio.wait([opening])
    except BaseException:  # cancelled: what is opened nevertheless is closed, behind it on the same thread
        opening.add_done_callback(partial(_close_unwanted, threads.calls))
        raise
    return Log(opening.result(), threads)


def _close_unwanted(calls: Worker, opening: asyncio.Future[SyncLog]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        calls.submit(opening.result().close)


class Log:
    """An open log; made by `tidelog.aio.open`. The same names as `tidelog.Log`, awaitable.

    Use it as `async with`, or await `close`.
    """

    def __init__(self, log: SyncLog, threads: Threads | None = None) -> None:
        """`log`: an open one, which is closed with this one. Programs call `tidelog.aio.open` instead."""
        self._log = log
        self._engine = log.engine
        self._threads = Threads() if threads is None else threads
        self._closing = Worker("tidelog-close")
        self._postmen = Postmen(self._threads, self._engine)

    # --- what it is ---

    @property
    def can(self) -> Can:
        """What this log's engine can do; engines differ nowhere else."""
        return self._log.can

    @property
    def name(self) -> str:
        """Where the log is, as it was opened."""
        return self._log.name

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._log.closed

    @property
    def sync_log(self) -> SyncLog:
        """The same open log for code that may block; closed with this one."""
        return self._log

    def __repr__(self) -> str:
        return f"<aio.{repr(self._log)[1:]}"

    # --- channels ---

    @overload
    async def queue(self, name: str, type: None = None, **options: Any) -> Queue[bytes]: ...
    @overload
    async def queue(self, name: str, type: type[T], **options: Any) -> Queue[T]: ...
    @overload
    async def queue(self, name: str, type: Any, **options: Any) -> Queue[Any]: ...
    async def queue(self, name: str, type: Any = None, **options: Any) -> Queue[Any]:
        """The queue `name` of values of `type`, created if there is none: each message goes to exactly one receiver.
        Arguments and errors are those of `tidelog.Log.queue`."""
        made = await self._threads.calls.submit(lambda: self._log.queue(name, type, **options))
        return Queue(self._threads, self._engine, self._postmen, made)

    @overload
    async def topic(self, name: str, type: None = None, **options: Any) -> Topic[bytes]: ...
    @overload
    async def topic(self, name: str, type: type[T], **options: Any) -> Topic[T]: ...
    @overload
    async def topic(self, name: str, type: Any, **options: Any) -> Topic[Any]: ...
    async def topic(self, name: str, type: Any = None, **options: Any) -> Topic[Any]:
        """The topic `name` of values of `type`, created if there is none: every group gets every message.
        Arguments and errors are those of `tidelog.Log.topic`."""
        made = await self._threads.calls.submit(lambda: self._log.topic(name, type, **options))
        return Topic(self._threads, self._engine, self._postmen, made)

    async def __getitem__(self, name: str) -> Channel[Any]:
        """`await log[name]`: the channel as it is. Raises ChannelNotFound."""
        found: SyncChannel[Any] = await self._threads.calls.submit(self._log.__getitem__, name)
        kind = Queue if isinstance(found, SyncQueue) else Topic
        return kind(self._threads, self._engine, self._postmen, found)

    async def get(self, name: str, default: Any = None) -> Any:
        """`await log[name]`, or `default` if there is no such channel."""
        try:
            return await self[name]
        except ChannelNotFound:
            return default

    def __contains__(self, name: object) -> bool:
        """Whether there is a channel of this name. In the loop, since `in` cannot be awaited: by what is known, or by
        looking for one small file, never by a lock. Raises Closed, Forked, StorageFailed."""
        if not isinstance(name, str):
            return False
        try:
            self._engine.definition(name)
        except (Corrupt, NotSupported):  # there is one, which cannot be read
            return True
        except (ChannelNotFound, ValueError):
            return False
        return True

    async def names(self) -> list[str]:
        """The names of all channels, sorted; `async for name in log` goes through the same."""
        return await self._threads.calls.submit(lambda: list(self._log))

    async def __aiter__(self) -> AsyncIterator[str]:
        for name in await self.names():
            yield name

    def __iter__(self) -> NoReturn:
        # Without it Python would ask for log[0], log[1] and so on, and take each coroutine for an item.
        raise TypeError("a log of tidelog.aio is gone through with `async for name in log`, or `await log.names()`")

    async def drop(self, name: str) -> None:
        """Remove a channel with its messages and committed offsets, for every process. Raises ChannelNotFound."""
        await self._threads.calls.submit(self._log.drop, name)

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
        """A producer for any of the log's channels; arguments and errors are those of `tidelog.Log.producer`."""
        return Producer(
            self._threads,
            self._engine,
            ack=ack,
            linger=linger,
            compression=compression,
            partitioner=partitioner,
            name=name,
        )

    def consumer(
        self,
        *channels: Channel[Any],
        group: str,
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
    ) -> Consumer[Any]:
        """One consumer of several channels (at most 64) as `group`; the options are those of `Queue.consumer`.

        Raises ValueError for a queue under another group than its own, because its messages go to one group only, and
        TypeError or ValueError for what is no name of a group.
        """
        for channel in channels:
            if not isinstance(channel, Channel):
                raise TypeError(f"{channel!r} is no channel: give one of tidelog.aio.Log.queue() or topic()")
        inner = [channel.sync_channel for channel in channels]
        check_channels(inner, group)
        options = {
            "group": group,
            "start": start,
            "stop": stop,
            "delivery": delivery,
            "isolation": isolation,
            "strategy": strategy,
            "member": member,
            "member_timeout": member_timeout,
            "max_processing": max_processing,
            "on_assign": on_assign,
            "on_revoke": on_revoke,
        }
        return Consumer(self._threads, self._engine, inner, options)

    def transaction(
        self,
        producer: Producer,
        *consumers: Consumer[Any],
        timeout: Duration = TIMEOUT_SECONDS,
        level: Level = "synced",
    ) -> Transaction:
        """Messages to any number of channels, and what `consumers` hand over, as one decision: enter it by `async
        with`. Arguments and errors are those of `tidelog.Log.transaction`."""
        return Transaction(self._threads, self._engine, producer, consumers, timeout=timeout, level=level)

    async def offsets(self) -> list[Committed]:
        """How far each group has come in each partition, by group, channel and partition."""
        return await self._threads.calls.submit(self._log.offsets)

    def on_skew(self, listener: Listener, *, threshold: float = WARN_SHARE) -> None:
        """Call `listener`, a plain function, with a `SkewEvent` when a key has too much of a channel; see
        `tidelog.Log.on_skew`. It is called by what sends: in the loop, or on a thread of the log for `send_many`; it
        must not block. Raises ValueError, TypeError."""
        self._log.on_skew(listener, threshold=threshold)

    async def sync(self) -> None:
        """Return when everything that is visible now is on disk. Raises StorageFailed, NoSpace."""
        await self._threads.disk.submit(self._log.sync)

    @property
    def groups(self) -> Groups:
        """The consumer groups by name, for `call`: what they answer may take files and locks, so
        `await log.call(log.groups.reset, "audit", to="latest")`."""
        return self._log.groups

    async def call(self, function: Callable[..., R], *arguments: Any, **options: Any) -> R:
        """What `function(*arguments, **options)` answers, called on the thread of this log that looks and creates: for
        what has no coroutine of its own. Cancelled, the call is made all the same."""
        return await self._threads.calls.submit(partial(function, *arguments, **options))

    # --- life ---

    async def close(self) -> None:
        """Close producers and consumers, then the log; idempotent. Tasks that wait in other calls raise Closed.

        Raises the first error of a producer's messages that could not be sent, after everything is closed. Cancelled,
        it is carried out all the same.
        """
        self._threads.end()
        # On a thread of its own, since a call that blocks one of the others ends only by this.
        await self._closing.submit(self._log.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(*(() if kind is None else (Exception,))):  # an error on its way out says more
            await self.close()
