"""Which threads does a log have behind its event loops, and how does a loop wait for messages?

Floor 8: may import aio.worker, engine.base, errors and the compiled waiter. Thread rule: `wait` belongs to a running
loop, of any thread; everything else may be called from any thread.

At most five threads for a log, each started when it is first needed and ended when it is idle: `calls` (opening,
creating, looking), `sends` (what a lock holds up, and batches), `disk` (waiting for it), `reads` (what is not in
memory, and the groups), and the waiter, which all logs of the process on one store share.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from tidelog._native import Reader, Store, Waiter
from tidelog.aio.worker import Worker
from tidelog.engine.base import Engine
from tidelog.errors import NotSupported

__all__ = ["Ending", "Threads"]


class Ending(Protocol):
    """What must know that its log is being closed."""

    def end(self) -> None:
        """Wake whoever waits, who then raises Closed. Called from any thread."""


class Threads:
    """The threads of one open log, and what waits on it."""

    def __init__(self) -> None:
        """They start when they are needed."""
        self.calls = Worker("tidelog-calls")
        self.sends = Worker("tidelog-sends")
        self.disk = Worker("tidelog-disk")
        self.reads = Worker("tidelog-reads")
        self._lock = threading.Lock()
        self._waiter: Waiter | None = None
        self._release: weakref.finalize[[], Threads] | None = None
        self._tellers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Teller] = weakref.WeakKeyDictionary()
        self._endings: weakref.WeakSet[Ending] = weakref.WeakSet()

    async def wait(self, engine: Engine, reader: Reader, woken: asyncio.Future[bool], seconds: float | None) -> bool:
        """Return True when there may be something for `reader`, False when `seconds` have passed; or what becomes of
        `woken`, a fresh future of the running loop that the caller may complete before."""
        loop = asyncio.get_running_loop()
        waiter = self.waiter(engine)
        watch = waiter.watch(reader, self.teller(loop), partial(_complete, woken, True))
        timer = None if seconds is None else loop.call_later(seconds, _complete, woken, False)
        try:
            return await woken
        finally:
            waiter.unwatch(watch)
            if timer is not None:
                timer.cancel()

    def note(self, ending: Ending) -> None:
        """Tell `ending` when the log is closed; it is not kept alive."""
        with self._lock:
            self._endings.add(ending)

    def end(self) -> None:
        """The log is being closed: everything that waits is woken, and the waiter loses a user."""
        with self._lock:
            endings = list(self._endings)
        for ending in endings:
            ending.end()
        if self._release is not None:
            self._release()

    def waiter(self, engine: Engine) -> Waiter:
        """The waiter of the log's store."""
        with self._lock:
            if self._waiter is None:
                self._waiter = Waiter.of(store_of(engine))
                self._release = weakref.finalize(self, self._waiter.release)
            return self._waiter

    def teller(self, loop: asyncio.AbstractEventLoop) -> Callable[[list[Callable[[], object]]], None]:
        """What a watch calls: it has functions called on `loop`."""
        with self._lock:
            teller = self._tellers.get(loop)
            if teller is None:
                teller = self._tellers[loop] = _Teller(loop)
            return teller


class _Teller:
    """Has functions called on a loop from the waiter's thread: all that are due by one wake-up of the loop."""

    __slots__ = ("_loop",)

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)

    def __call__(self, functions: list[Callable[[], object]]) -> None:
        loop = self._loop()
        if loop is not None:
            loop.call_soon_threadsafe(_call_all, functions)


def _call_all(functions: list[Callable[[], object]]) -> None:
    for function in functions:
        function()


def _complete(future: asyncio.Future[bool], result: bool) -> None:
    if not future.done():
        future.set_result(result)


def store_of(engine: Any) -> Store:
    """The compiled store behind an engine. Raises NotSupported for an engine without one."""
    store = getattr(engine, "store", None)
    if not isinstance(store, Store):
        raise NotSupported(
            f"tidelog.aio works on directories of this host, not on {engine.name}: use tidelog.open there"
        )
    return store
