"""Where did messages go that a coroutine sent?

Floor 8: may import aio.threads, aio.worker, config, message, errors. Thread rule: `result` belongs to a running loop;
everything else may be called from any thread.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tidelog._native import Receipt as SyncReceipt
from tidelog.aio.worker import Worker
from tidelog.config import Duration, duration_ms
from tidelog.errors import Timeout
from tidelog.message import Position

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Receipt"]


class Receipt:
    """What `await send(...)` answers. Complete at once, unless its producer lets messages linger: then `result` is
    awaited before the rest is asked."""

    __slots__ = ("_receipt", "_worker")

    def __init__(self, receipt: SyncReceipt, worker: Worker) -> None:
        """Made by `send`. `worker`: where waiting is done."""
        self._receipt = receipt
        self._worker = worker

    @property
    def done(self) -> bool:
        """Whether the messages are in the log, or failed."""
        return self._receipt.done

    @property
    def count(self) -> int:
        """How many messages were sent."""
        return self._receipt.count

    @property
    def partition(self) -> int:
        """The partition of the (last) message."""
        return self._complete().partition

    @property
    def offset(self) -> int:
        """The offset of the (last) message."""
        return self._complete().offset

    @property
    def partitions(self) -> NDArray[np.int32]:
        """The partition of every message."""
        return self._complete().partitions

    @property
    def offsets(self) -> NDArray[np.int64]:
        """The offset of every message in its partition."""
        return self._complete().offsets

    @property
    def duplicate(self) -> bool:
        """Whether the message, or every one of them, was in the log already."""
        return self._complete().duplicate

    @property
    def duplicates(self) -> NDArray[np.bool_]:
        """Which of the messages were in the log already."""
        return self._complete().duplicates

    async def result(self, timeout: Duration | None = None, level: str | None = None) -> Position:
        """The Position of the (last) message; waits for its batch if it lingers. `level="synced"`: for the disk too.

        Raises Timeout after `timeout` seconds (nothing was lost: await it again), StorageFailed, NoSpace, ValueError
        (another level), and what sending raised.
        """
        if self._receipt.done and level in (None, "written"):
            return self._receipt.result()
        if level not in (None, "written", "synced"):
            raise ValueError(f"the level {level!r} does not exist: 'written' or 'synced'")
        waiting = self._worker.submit(self._receipt.result, None, level)
        if timeout is None:
            return await waiting
        try:
            async with asyncio.timeout(duration_ms(timeout, "timeout") / 1000):
                return await waiting
        except TimeoutError as error:
            if isinstance(error, Timeout):
                raise
            raise Timeout(
                f"the messages were not {level or 'written'} after {timeout} s; nothing was lost: call again or give "
                f"more time"
            ) from None

    def __repr__(self) -> str:
        return repr(self._receipt) if self._receipt.done else "<Receipt of a message that waits for its batch>"

    def _complete(self) -> SyncReceipt:
        if not self._receipt.done:
            raise RuntimeError("the message still waits for its batch: `await receipt.result()` first")
        return self._receipt
