"""Which thread does what an event loop must not wait for?

Floor 8: imports nothing of tidelog. Thread rule: `submit` belongs to a running loop, of any thread; everything else may
be called from any thread. After fork() the child starts anew, with no calls and no thread.

One thread for all calls of a worker, in the order they came: a thread for each call would cost more than most calls,
and what waits for the same lock or the same disk does not get it sooner by waiting in parallel.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import Counter, deque
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Any, TypeVar

__all__ = ["Worker"]

R = TypeVar("R")

IDLE_SECONDS = 5.0
"""A thread without work ends after so long; the next call starts another one."""


class Worker:
    """A thread that makes calls one after the other and tells the loops that asked for them."""

    def __init__(self, name: str) -> None:
        """`name`: of the thread, for people who look at a process."""
        self._name = name
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Condition(threading.Lock())
        self._calls: deque[_Call] = deque()
        self._pending: Counter[Hashable] = Counter()
        self._thread: threading.Thread | None = None

    def submit(
        self, function: Callable[..., R], *arguments: Any, tag: Hashable = None, skip: bool = False
    ) -> asyncio.Future[R]:
        """Have `function(*arguments)` called; the future of the running loop gets what becomes of it.

        Cancelling the future drops the outcome; the call is made all the same, unless `skip` is set and it has not
        begun. `tag`: what `pending` is asked for.
        """
        if os.getpid() != self._pid:
            self._begin()
        loop = asyncio.get_running_loop()
        call = _Call(loop, loop.create_future(), function, arguments, tag, skip)
        with self._lock:
            self._calls.append(call)
            if tag is not None:
                self._pending[tag] += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            else:
                self._lock.notify()
        return call.future

    def pending(self, tag: Hashable) -> int:
        """How many calls under `tag` have not ended yet."""
        return self._pending[tag]

    def _run(self) -> None:
        while True:
            with self._lock:
                while not self._calls:
                    if not self._lock.wait(IDLE_SECONDS) and not self._calls:
                        self._thread = None
                        return
                call = self._calls.popleft()
            call.make()
            if call.tag is not None:
                with self._lock:
                    self._pending[call.tag] -= 1
                    if not self._pending[call.tag]:
                        del self._pending[call.tag]
            call.tell()
            del call  # an idle thread keeps nothing alive


class _Call:
    """One call, and whom to tell what became of it."""

    __slots__ = ("arguments", "error", "function", "future", "loop", "result", "skip", "tag")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        future: asyncio.Future[Any],
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        tag: Hashable,
        skip: bool,
    ) -> None:
        self.loop, self.future, self.function = loop, future, function
        self.arguments, self.tag, self.skip = arguments, tag, skip
        self.result: Any = None
        self.error: BaseException | None = None

    def make(self) -> None:
        if self.skip and self.future.cancelled():
            return
        try:
            self.result = self.function(*self.arguments)
        except BaseException as error:
            self.error = error

    def tell(self) -> None:
        with suppress(RuntimeError):  # the loop was closed: nobody waits there any more
            self.loop.call_soon_threadsafe(self._finish)

    def _finish(self) -> None:
        """On the loop's thread."""
        if self.future.done():
            return
        if self.error is None:
            self.future.set_result(self.result)
        elif isinstance(self.error, StopIteration):  # a future refuses it
            self.future.set_exception(RuntimeError("the call ended an iteration"))
        else:
            self.future.set_exception(self.error)
