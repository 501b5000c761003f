"""What is both awaited and entered: `await aio.open(...)`, `async with aio.open(...)`?

Floor 8: imports nothing of tidelog. Thread rule: belongs to one task.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Generic, TypeVar

__all__ = ["Opening"]

C = TypeVar("C", bound=AbstractAsyncContextManager[Any])
"""What is opened; entering it answers itself."""


class Opening(Awaitable[C], Generic[C]):
    """Something that is about to be opened: await it, or enter it with `async with`, once."""

    __slots__ = ("_made", "_make")

    def __init__(self, make: Callable[[], Awaitable[C]]) -> None:
        """Made by the functions that open something."""
        self._make = make
        self._made: C | None = None

    def __await__(self) -> Generator[Any, None, C]:
        return self._make().__await__()

    async def __aenter__(self) -> C:
        self._made = await self._make()
        await self._made.__aenter__()
        return self._made

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._made is not None
        await self._made.__aexit__(kind, error, trace)
