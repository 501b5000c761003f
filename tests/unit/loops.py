"""How do tests run coroutines: on asyncio's own loop and on uvloop, with a log of their own?

Used by tests only.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import uvloop

from tidelog.aio import Log

R = TypeVar("R")

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


def run(main: Callable[[], Coroutine[Any, Any, R]], loop: str = "asyncio") -> R:
    """What `main()` answers on a fresh loop. Whatever went wrong beside it on the loop fails the test too."""
    wrong: list[dict[str, Any]] = []
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.get_loop().set_exception_handler(lambda _, context: wrong.append(context))
        result = runner.run(main())
    assert not wrong, wrong
    return result


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Return once `condition()` holds; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.002)


async def give_up(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait until it has ended."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def counted(log: Log, group: str) -> int:
    """How many messages a group has committed, all partitions together (of channels that were never trimmed)."""
    return sum(max(row.offset, 0) for row in await log.offsets() if row.group == group)


async def ticks(gaps: list[float], every: float = 0.01) -> None:
    """Tick for ever, and note by how much each tick came later than `every` seconds after the one before."""
    before = time.monotonic()
    while True:
        await asyncio.sleep(every)
        now = time.monotonic()
        gaps.append(now - before - every)
        before = now


async def all_of(*awaitables: Awaitable[Any]) -> list[Any]:
    """`asyncio.gather` with a time limit that no working program needs."""
    async with asyncio.timeout(60):
        return list(await asyncio.gather(*awaitables))
