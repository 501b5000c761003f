"""How do `on_assign` and `on_revoke` run on the event loop, while a thread waits for them?

Floor 8: may import share. Thread rule: `tell` belongs to the thread that looks after the group, `run` to the loop.

Partitions come and go on a thread, because that may take locks; what a program wants to be told it is told on its loop.
Meanwhile the consumer is in the hands of that thread: what the function asks of it (commit, seek, pause) is passed back
to the thread, which does it in between.
"""

from __future__ import annotations

import asyncio
import inspect
import queue
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeAlias, TypeVar

from tidelog.share import Assigned

__all__ = ["Callbacks", "OnChange"]

R = TypeVar("R")

OnChange: TypeAlias = Callable[[list[Assigned]], "Awaitable[object] | object"]
"""What a program wants to be told when partitions come or go: a function or a coroutine function."""


class Callbacks:
    """Tells one consumer's program on its loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """`loop`: where the program runs."""
        self._loop = loop
        self._asked: queue.SimpleQueue[Callable[[], bool]] = queue.SimpleQueue()
        self._task: asyncio.Task[None] | None = None

    def telling(self, function: OnChange | None) -> Callable[[list[Assigned]], object] | None:
        """What to give to the consumer instead of `function`."""
        # What cannot be called is refused by the consumer, which says why.
        return partial(self._tell, function) if callable(function) else function

    def told(self) -> bool:
        """Whether the running task is one of the program's functions, or was started by it."""
        return self._task is not None and asyncio.current_task() is self._task

    async def run(self, function: Callable[[], R]) -> R:
        """What `function()` answers, on the thread that waits for the task that calls this."""
        done: asyncio.Future[R] = self._loop.create_future()

        def make() -> bool:
            try:
                result = function()
            except BaseException as error:
                self._loop.call_soon_threadsafe(_fail, done, error)
            else:
                self._loop.call_soon_threadsafe(_succeed, done, result)
            return False

        self._asked.put(make)
        return await done

    def _tell(self, function: OnChange, parts: list[Assigned]) -> None:
        """On the thread. Raises what `function` raises."""
        errors: list[BaseException] = []

        def ended(task: asyncio.Task[None]) -> None:
            self._task = None
            error = asyncio.CancelledError() if task.cancelled() else task.exception()
            if error is not None:
                errors.append(error)
            self._asked.put(lambda: True)

        def start() -> None:
            self._task = self._loop.create_task(_call(function, parts))
            self._task.add_done_callback(ended)

        self._loop.call_soon_threadsafe(start)
        while not self._asked.get()():
            pass
        if errors:
            raise errors[0]


async def _call(function: OnChange, parts: list[Assigned]) -> None:
    answer: Any = function(parts)
    if inspect.isawaitable(answer):
        await answer


def _succeed(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
