"""What do tests of running applications share: waiting for what is to come, where a group stands, ways to handle?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from tidelog.app import App, Retry
from tidelog.message import Message

WAIT_SECONDS = 30.0
SOON = Retry(attempts=3, first=0.01, jitter=0)


class Order(msgspec.Struct):
    id: int


def until(holds: Callable[[], object], app: App | None = None) -> None:
    """Wait until something holds, as long as the application has no failure."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert app is None or app.failure is None, app.failure
        assert time.monotonic() < deadline, "it did not come to hold"
        time.sleep(0.002)


def committed(channel: Any) -> dict[int, int]:
    return {row.partition: row.offset for row in channel.offsets() if row.offset >= 0}


def lag(channel: Any) -> int:
    return sum(row.lag for row in channel.offsets())


MODES = [
    pytest.param(False, 1, id="inline"),
    pytest.param(False, 4, id="threads"),
    pytest.param(False, "key", id="threads by key"),
    pytest.param(True, 1, id="one task"),
    pytest.param(True, "key", id="tasks by key"),
]


def register(app: App, is_async: bool, function: Callable[[Message[Any]], Any], channel: Any, **options: Any) -> None:
    """The same function as a plain one or as a coroutine."""
    if is_async:

        async def handle(message: Message[Any]) -> Any:
            await asyncio.sleep(0)
            return function(message)

        app.on(channel, **options)(handle)
    else:

        def handle_(message: Message[Any]) -> Any:
            return function(message)

        app.on(channel, **options)(handle_)
