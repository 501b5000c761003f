"""Where do the coroutines of an application run?

Floor 8: may import nothing of tidelog. Thread rule: every method from any thread, except `call` from the loop's own.

One event loop on one thread, started when the first coroutine needs it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable
from typing import Any

__all__ = ["EventLoop"]

WIND_UP_SECONDS = 5.0
"""How long coroutines have to end once they were cancelled."""


class EventLoop:
    """An asyncio loop on a thread of its own."""

    def __init__(self, name: str) -> None:
        """`name`: of the thread."""
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The running loop, started if need be."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._run, args=(self._loop,), name=self._name, daemon=True)
                self._thread.start()
            return self._loop

    @staticmethod
    def _run(loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        loop.run_forever()

    def call(self, awaitable: Awaitable[Any]) -> Any:
        """Wait for `awaitable` on the loop, from another thread. Raises what it raises, RuntimeError on the loop's."""
        if threading.current_thread() is self._thread:
            raise RuntimeError(
                "an async hook cannot be waited for on the event loop itself: make this hook a plain def"
            )
        return asyncio.run_coroutine_threadsafe(_coroutine(awaitable), self.loop).result()

    def close(self) -> None:
        """Cancel what still runs and end the thread; idempotent."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None:
            return
        try:
            asyncio.run_coroutine_threadsafe(_wind_up(), loop).result(WIND_UP_SECONDS)
        except TimeoutError:  # a coroutine that swallows its cancellation, or blocks: its thread is a daemon
            return
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _coroutine(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


async def _wind_up() -> None:
    me = asyncio.current_task()
    tasks = [task for task in asyncio.all_tasks() if task is not me]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    loop = asyncio.get_running_loop()
    await loop.shutdown_asyncgens()
    await loop.shutdown_default_executor()
