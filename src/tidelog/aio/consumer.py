"""How does a coroutine receive messages, and what may a cancellation do to it?

Floor 8: may import aio.*, channel, consumer, engine.base, message, config, errors, and the compiled reader.
Thread rule: a `Consumer` belongs to one task at a time of the loop that first used it; only `end` may be called from
any thread.

Nothing is handed over but in the very step that returns it to the caller: what has to wait or to block only moves
messages into the reader's buffer. So a cancelled call has taken nothing, and what it left on a thread the next call
waits for before anything else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from tidelog._native import POLL_BLOCKS, POLL_NOTHING, POLL_READY, WouldBlock, reader_next, reader_poll
from tidelog.aio.callbacks import Callbacks
from tidelog.aio.receipt import Receipt
from tidelog.aio.threads import Threads, store_of
from tidelog.aio.worker import Worker
from tidelog.channel import Channel as SyncChannel
from tidelog.config import Duration
from tidelog.consumer import Assigned
from tidelog.consumer import Consumer as SyncConsumer
from tidelog.engine.base import Engine
from tidelog.errors import Closed, Timeout
from tidelog.message import Batch, Message
from tidelog.places import Start

__all__ = ["Consumer"]

T = TypeVar("T")
R = TypeVar("R")

STEPS = 64
"""So many messages in a row are handed over before other tasks get their turn."""
STEPS_OF_A_BATCH = 16


class Consumer(Generic[T]):
    """Receives messages of one or more channels; made by `queue.consumer()`, `topic.consumer(group=...)`,
    `topic.tail()` and `log.consumer(...)` of `tidelog.aio`.

    Use it as `async with` and iterate it with `async for`, or await `receive` and `receive_many`. When a message is
    committed is the rule of `tidelog.Consumer`: with at-least-once when the next one is asked for, or when `async with`
    is left without an exception.

    Every call may be cancelled: a cancelled receive has taken no message. It has asked for the next one, though, so
    with at-least-once the one before may be committed by it.
    """

    def __init__(
        self, threads: Threads, engine: Engine, channels: Sequence[SyncChannel[Any]], options: dict[str, Any]
    ) -> None:
        """Programs call the methods named above instead. It joins its group at its first use."""
        self._threads = threads
        self._engine = engine
        self._channels = list(channels)
        self._options = options
        # A consumer whose program wants to be told may be held up by it, and must not hold up others.
        told = options.get("on_assign") is not None or options.get("on_revoke") is not None
        self._worker = Worker("tidelog-consumer") if told else threads.reads
        self._callbacks: Callbacks | None = None
        self._inner: _Inner[T] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None  # the one inside
        self._woken: asyncio.Future[bool] | None = None  # what it waits for
        self._job: asyncio.Future[Any] | None = None  # what goes on, or went on, in a thread
        self._polls = False  # and what a later call must hear of, if it failed
        self._failed: BaseException | None = None
        self._parting: asyncio.Future[None] | None = None
        self._steps = STEPS
        self._closed = False
        threads.note(self)

    # --- receiving ---

    def __aiter__(self) -> AsyncIterator[Message[T]]:
        return self

    async def __anext__(self) -> Message[T]:
        """The next message. Ends when every partition has reached its `stop`. Raises as `receive` does."""
        message = self._at_once()
        if message is not None:
            return message
        message = await self._take(None)
        if message is None:
            raise StopAsyncIteration
        return message

    async def receive(self, timeout: Duration | None = None) -> Message[T]:
        """The next message; waits `timeout` seconds (None: for ever), then raises Timeout.

        Raises Timeout also when every partition has reached its stop, Closed, OffsetOutOfRange (once; the next call
        goes on at the log start), Corrupt, Fenced.
        """
        message = await self._take(_deadline(timeout))
        if message is None:
            if timeout is None:
                raise Timeout("every partition was read up to its stop: there is no message left to receive")
            raise Timeout(f"no message came within {timeout} s; call again or give more time")
        return message

    async def receive_many(self, count: int = 1000, timeout: Duration | None = None) -> Batch[T]:
        """Up to `count` messages that are there; waits for the first one only, and is empty when `timeout` seconds
        passed (None: for ever) or every partition has reached its stop. Raises as `receive` does."""
        if count <= 0:
            raise ValueError(f"count is 1 or more, not {count}")
        deadline = _deadline(timeout)
        inner = await self._enter()
        try:
            await self._make_way()
            while True:
                await self._ready(inner, count, deadline)
                try:
                    batch = inner.receive_many(count, 0)
                except WouldBlock:  # the group has turned in between
                    continue
                self._steps -= STEPS_OF_A_BATCH
                return batch
        finally:
            self._task = None

    def _at_once(self) -> Message[T] | None:
        """The next message if it is in the buffer and nothing else is to be seen to first."""
        inner = self._inner
        if inner is None or self._task is not None or self._closed or self._steps <= 0:
            return None
        return self._buffered(inner)

    def _buffered(self, inner: _Inner[T]) -> Message[T] | None:
        if self._job is not None or self._failed is not None:
            return None
        try:
            message = reader_next(inner)
        except WouldBlock:  # the group has turned
            return None
        if message is not None:
            self._steps -= 1
        return message

    async def _take(self, deadline: float | None) -> Message[T] | None:
        """The next message; None once `deadline` has passed, or at the end."""
        inner = await self._enter()
        try:
            await self._make_way()
            while True:
                message = self._buffered(inner)
                if message is not None:
                    return message
                if not await self._ready(inner, 0, deadline):
                    return None
        finally:
            self._task = None

    async def _make_way(self) -> None:
        """Let other tasks have their turn now and then, before anything is taken."""
        if self._steps <= 0:
            self._steps = STEPS
            await asyncio.sleep(0)

    async def _ready(self, inner: _Inner[T], many: int, deadline: float | None) -> bool:
        """Whether there is something to hand over, as soon as there is; False: at the end, or after the deadline."""
        loop = asyncio.get_running_loop()
        while True:
            await self._quiet()
            if self._failed is not None:
                failed, self._failed = self._failed, None
                raise failed
            try:
                answer = reader_poll(inner, many, False)
            except WouldBlock:
                answer = POLL_BLOCKS
            if answer == POLL_BLOCKS:
                answer = await self._on_thread(True, inner.poll, many)
            if answer != POLL_NOTHING:
                return answer == POLL_READY
            left = None if deadline is None else deadline - loop.time()
            if left is not None and left <= 0:
                return False
            self._steps = STEPS
            self._woken = loop.create_future()
            try:
                self._check_open()  # a close from another thread looks at `_woken` after it has said that it closes
                if not await self._threads.wait(self._engine, inner, self._woken, left):
                    return False
            finally:
                self._woken = None
            self._check_open()

    async def reply(
        self, message: Message[Any], value: Any = None, *, error: Any = None, headers: Any = None
    ) -> Receipt:
        """Answer a message that asks for an answer; arguments and errors are those of `Message.reply`. Cancelled before
        it has begun, nothing is sent."""
        answer = partial(message.reply, value, error=error, headers=headers)
        receipt = await self._threads.sends.submit(answer, tag=self, skip=True)
        return Receipt(receipt, self._threads.disk)

    # --- committing, moving ---

    async def commit(self, upto: Message[T] | Batch[T] | None = None, *, level: str | None = None) -> None:
        """Store the offset behind a message, behind every message of a batch, or behind everything handed over (None).

        level="synced" returns once the offsets are on disk. Raises Fenced when the partition was lost, ValueError for
        messages of other partitions, another level, or a consumer without a group. A cancelled commit has been made
        once it has begun to wait for the disk.
        """
        written = None if level == "synced" else level
        if self._callbacks is not None and self._callbacks.told():
            await self._call(lambda inner: inner.commit(upto, level=written))
        else:
            inner = await self._enter()
            try:
                await self._quiet()
                inner.commit(upto, level=written)
            finally:
                self._task = None
        if level == "synced":
            await self._threads.disk.submit(store_of(self._engine).sync_offsets)

    async def seek(
        self,
        to: Message[Any] | tuple[int, int] | Start,
        *,
        channel: str | None = None,
        partition: int | None = None,
    ) -> None:
        """Deliver next: this very message; (partition, offset); in every partition the first message at or after a
        time; "earliest" or "latest". Arguments and errors are those of `tidelog.Consumer.seek`."""
        await self._call(lambda inner: inner.seek(to, channel=channel, partition=partition))
        self._failed = None

    async def pause(self, partition: int | None = None, *, channel: str | None = None) -> None:
        """Deliver nothing from this partition (None: from all) until `resume`; leases and positions stay."""
        await self._call(lambda inner: inner.pause(partition, channel=channel))

    async def resume(self, partition: int | None = None, *, channel: str | None = None) -> None:
        """Undo `pause`."""
        await self._call(lambda inner: inner.resume(partition, channel=channel))

    # --- where it stands ---

    @property
    def group(self) -> str | None:
        """The group's name; None for a tail."""
        group: str | None = self._options["group"]
        return group

    @property
    def closed(self) -> bool:
        """Whether `close` was called, or the log was closed."""
        return self._closed

    @property
    def member(self) -> str | None:
        """Its name in the group, given or made up; None for a tail, and before it was used."""
        return None if self._inner is None else self._inner.member

    @property
    def generation(self) -> int | None:
        """Counts the assignments of the group: another number whenever consumers have come or gone; None for a tail,
        and before it was used."""
        return None if self._inner is None else self._inner.generation

    @property
    def assignment(self) -> tuple[Assigned, ...]:
        """The partitions that this consumer has now; none before it was used."""
        return () if self._inner is None else self._inner.assignment

    @property
    def position(self) -> dict[Assigned, int]:
        """The offset that is delivered next, by partition; empty before it was used."""
        return {} if self._inner is None else self._inner.position

    @property
    def committed(self) -> dict[Assigned, int | None]:
        """The group's committed offset, by partition; None where there is none; empty before it was used."""
        return {} if self._inner is None else self._inner.committed

    async def lag(self) -> int:
        """Messages from the positions to the ends of the log, all partitions together; 0: everything was delivered."""
        return await self._call(lambda inner: inner.lag)

    def __repr__(self) -> str:
        channels = ", ".join(channel.name for channel in self._channels)
        return f"<aio.Consumer of {channels} group={self.group!r}{' closed' if self._closed else ''}>"

    # --- life ---

    async def close(self) -> None:
        """Give the partitions back; idempotent, and a task that waits in another call raises Closed.

        Commits nothing: leaving `async with` does, or `commit`. Cancelled, it is carried out all the same.
        """
        self.end()
        if self._inner is not None:
            self._inner._cancel()
        if self._parting is None:
            if self._loop is None:  # never used
                return
            # In the order of the thread: behind the joining, should that still go on.
            self._parting = self._worker.submit(self._part)
            self._parting.add_done_callback(_seen)
        if self._callbacks is not None and self._callbacks.told():
            return  # the thread waits for the function that calls this: it is closed behind it
        await asyncio.wait([self._parting])
        self._parting.result()

    def end(self) -> None:
        """Refuse further calls and wake a task that waits; for a log that is being closed. Callable from any thread."""
        self._closed = True
        loop, woken = self._loop, self._woken
        if loop is not None and woken is not None:
            with suppress(RuntimeError):  # the loop was closed
                loop.call_soon_threadsafe(_wake, woken)

    async def __aenter__(self) -> Self:
        try:
            await self._enter()
        except BaseException:  # nobody will leave a block that was not entered
            self.end()
            if self._loop is not None and self._parting is None:
                self._parting = self._worker.submit(self._part)
                self._parting.add_done_callback(_seen)
            raise
        self._task = None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self._inner is not None and not self._closed:
                await self._quiet()
                await self._on_thread(False, self._inner._finish)
        finally:
            await self.close()

    # --- inside ---

    async def _enter(self) -> _Inner[T]:
        """One task at a time, of one loop; joins the group at the first call. Whoever enters resets `_task`."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        self._check_open()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise RuntimeError("a consumer belongs to the event loop that used it first: open one for each loop")
        if self._task is not None:
            raise RuntimeError(
                f"the task {self._task.get_name()!r} is inside this consumer, and "
                f"{task.get_name() if task is not None else 'another'!r} called it too: open one for each task"
            )
        if self._inner is not None:
            self._task = task
            return self._inner
        self._task = task
        try:
            await self._quiet()
            inner = await self._on_thread(False, self._join)
            self._check_open()
            return inner
        except BaseException:
            self._task = None
            raise

    async def _hold(self) -> _Inner[T]:
        """For a transaction: no other task is inside until `_let_go`."""
        inner = await self._enter()
        try:
            await self._quiet()
        except BaseException:
            self._task = None
            raise
        return inner

    def _let_go(self) -> None:
        self._task = None

    def _join(self) -> _Inner[T]:
        """On a thread."""
        self._check_open()
        if self._inner is None:
            assert self._loop is not None
            callbacks = self._callbacks = Callbacks(self._loop)
            options = dict(self._options)
            for name in ("on_assign", "on_revoke"):
                options[name] = callbacks.telling(options.get(name))
            self._inner = _Inner(self._engine, [channel.opened() for channel in self._channels], **options)
        return self._inner

    def _part(self) -> None:
        """On a thread, after `_join`."""
        if self._inner is not None:
            self._inner.close()

    async def _call(self, function: Callable[[_Inner[T]], R]) -> R:
        if self._inner is not None and self._callbacks is not None and self._callbacks.told():
            return await self._callbacks.run(partial(function, self._inner))
        inner = await self._enter()
        try:
            await self._quiet()
            return await self._on_thread(False, function, inner)
        finally:
            self._task = None

    async def _on_thread(self, polls: bool, function: Callable[..., R], *arguments: Any) -> R:
        """What `function` answers. A cancellation leaves it going on, and the next call waits for it."""
        self._steps = STEPS
        job = self._worker.submit(function, *arguments)
        self._job, self._polls = job, polls
        job.add_done_callback(_seen)
        await asyncio.wait([job])
        self._job = None
        return job.result()

    async def _quiet(self) -> None:
        """Wait for what a cancelled call left going on in a thread."""
        job = self._job
        if job is not None:
            await asyncio.wait([job])
            self._job = None
            error = job.exception()
            if self._polls:
                self._failed = error

    def _check_open(self) -> None:
        if self._closed:
            raise Closed("the consumer was closed: make a new one with channel.consumer()")


class _Inner(SyncConsumer[T]):
    """The consumer behind it, whose group moves on only where that may take its time."""

    _patient = False

    def poll(self, many: int) -> int:
        """On a thread: `reader_poll`, which may block and turn."""
        self._patient = True
        try:
            return reader_poll(self, many, True)
        finally:
            self._patient = False

    def _turned(self) -> float | None:
        if not self._patient:
            raise WouldBlock
        return super()._turned()


def _seen(job: asyncio.Future[Any]) -> None:
    """Its error is nobody's if no other call follows."""
    if not job.cancelled():
        job.exception()


def _wake(woken: asyncio.Future[bool]) -> None:
    if not woken.done():
        woken.set_result(True)


def _deadline(timeout: Duration | None) -> float | None:
    """The time of the running loop at which a time-out ends; None: never. Raises ValueError, TypeError."""
    if timeout is None:
        return None
    seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
    if not seconds >= 0:
        raise ValueError(f"a timeout is 0 or more seconds, or None to wait for ever, not {timeout!r}")
    return None if seconds > 4e9 else asyncio.get_running_loop().time() + seconds
