"""How does a coroutine wait for the answers to its question?

Floor 8: may import aio.threads, patterns.*, engine.base, message, errors. Thread rule: `Replies` belong to one task at
a time of the loop that asked.

Answers arrive in the mailbox that the threads of the process use too. A thread that waits there reads for everybody; a
loop reads in one go whenever the waiter says that something came, and goes on with other tasks meanwhile.
"""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Generic, Self, TypeVar

from tidelog.aio.threads import Threads
from tidelog.engine.base import Engine
from tidelog.errors import Error
from tidelog.message import Message
from tidelog.patterns.mailbox import Mailbox, Slot
from tidelog.patterns.mailboxes import Mailboxes

__all__ = ["Postmen", "Replies"]

T = TypeVar("T")

LOOK_SECONDS = 0.1
"""While a thread reads for everybody it may leave something behind when it goes: a loop then looks so often."""


class Replies(Generic[T]):
    """The answers to one question, as they come: for `async for`, and `async with`; made by `channel.ask`.

    It ends when `limit` answers were given or `timeout` has passed. What an answer holds, and what `durable=` does, is
    as with `tidelog.Replies`. A cancelled wait has taken no answer.
    """

    def __init__(
        self,
        postman: Postman,
        mailboxes: Mailboxes,
        slot: Slot,
        id: str | None,
        until: float | None,
        limit: int | None,
    ) -> None:
        """Programs call `channel.ask` and `channel.resume` instead."""
        self._postman = postman
        self._mailboxes = mailboxes
        self._mailbox = postman.mailbox
        self._slot = slot
        self._id = id
        self._until = until
        self._left = limit
        self._closed = False

    @property
    def id(self) -> str | None:
        """The question's id, which its answers carry as `correlation_id`; None of resumed replies."""
        return self._id

    @property
    def late(self) -> int:
        """How many answers to this process's questions came too late (or beyond a limit) and were dropped."""
        return self._mailboxes.late

    @property
    def closed(self) -> bool:
        """Whether no more answers will be given."""
        return self._closed

    def __aiter__(self) -> AsyncIterator[Message[T]]:
        return self

    async def __anext__(self) -> Message[T]:
        """The next answer; waits for it. Ends at the limit or the time-out. Raises Closed, ChannelNotFound."""
        self._mailbox.settle(self._slot)
        if self._closed or self._left == 0 or not await self._postman.wait(self._slot, self._until):
            self.end()
            raise StopAsyncIteration
        if self._left is not None:
            self._left -= 1
        return self._mailbox.take(self._slot)

    async def close(self) -> None:
        """Wait for no more answers; idempotent."""
        self.end()

    def end(self) -> None:
        """The same where nothing can be awaited."""
        if not self._closed:
            self._closed = True
            self._mailbox.forget(self._slot)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and not self._closed:
            self._mailbox.settle(self._slot)
        self.end()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            self.end()

    def __repr__(self) -> str:
        return f"<aio.Replies to {self._id or self._mailbox.name}{' closed' if self._closed else ''}>"


class Postman:
    """Reads one mailbox for the tasks of one loop."""

    def __init__(self, threads: Threads, engine: Engine, mailbox: Mailbox) -> None:
        """Made on the loop."""
        self.mailbox = mailbox
        self._threads = threads
        self._engine = engine
        self._thread = threading.get_ident()
        self._waiting: set[asyncio.Future[None]] = set()
        self._watch: object = None
        self._timer: asyncio.TimerHandle | None = None

    async def wait(self, slot: Slot, until: float | None) -> bool:
        """Whether there is an answer; waits for it until the monotonic time `until` (None: for ever).

        Raises Closed when the log is closed, ChannelNotFound when the reply channel was dropped.
        """
        if slot.notify is not None:
            raise RuntimeError("another task waits for these answers: replies belong to one task at a time")
        loop = asyncio.get_running_loop()
        self.mailbox.poll()
        while not slot.inbox:
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                return False
            woken = loop.create_future()
            slot.notify = partial(self._notify, woken)
            timer = None if left is None else loop.call_later(left, _complete, woken)
            self._waiting.add(woken)
            try:
                if self._watch is None:
                    self._look()
                await woken
            finally:
                slot.notify = None
                self._waiting.discard(woken)
                if timer is not None:
                    timer.cancel()
                if not self._waiting:
                    self._rest()
            self.mailbox.poll()
        return True

    def _notify(self, woken: asyncio.Future[None]) -> None:
        """From whichever thread reads."""
        if threading.get_ident() == self._thread:
            _complete(woken)
        else:
            with suppress(RuntimeError):  # the loop was closed
                woken.get_loop().call_soon_threadsafe(_complete, woken)

    def _look(self) -> None:
        """Hand out what is there, and have the waiter tell when there is more."""
        self._rest()
        if not self._waiting:
            return
        loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        try:
            self.mailbox.poll()
            waiter = self._threads.waiter(self._engine)
            self._watch = waiter.watch(self.mailbox.reader, self._threads.teller(loop), self._look)
        except Error:  # each finds out by itself what is wrong
            for woken in self._waiting:
                _complete(woken)
            return
        if self.mailbox.led:
            self._timer = loop.call_later(LOOK_SECONDS, self._look)

    def _rest(self) -> None:
        """Nobody waits any more, or the watch has told."""
        if self._watch is not None:
            self._threads.waiter(self._engine).unwatch(self._watch)
            self._watch = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Postmen:
    """The postmen of one log: one for each mailbox and loop."""

    def __init__(self, threads: Threads, engine: Engine) -> None:
        """They are made when they are needed."""
        self._threads = threads
        self._engine = engine
        self._lock = threading.Lock()
        self._known: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Mailbox, Postman]]
        self._known = weakref.WeakKeyDictionary()

    def of(self, mailbox: Mailbox) -> Postman:
        """The one of this mailbox on the running loop."""
        loop = asyncio.get_running_loop()
        with self._lock:
            known = self._known.setdefault(loop, {})
            postman = known.get(mailbox)
            if postman is None:
                postman = known[mailbox] = Postman(self._threads, self._engine, mailbox)
            return postman


def _complete(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)
