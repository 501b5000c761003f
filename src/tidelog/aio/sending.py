"""How does a coroutine send without ever stopping its event loop?

Floor 8: may import aio.threads, aio.receipt, engine.base, and the compiled sender. Thread rule: `send` and `send_many`
belong to a running loop, of any thread.

A message is appended in the loop, which takes about a microsecond, unless somebody holds the partition's lock for more
than a millisecond or the append needs the system: then the same call is made on the thread of the sends. As long as one
is there, later ones for the same channel go behind it, so that messages keep the order in which they were sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from copy import copy
from functools import partial
from typing import Any

from tidelog._native import Receipt as SyncReceipt
from tidelog._native import Sender, WouldBlock
from tidelog.aio.receipt import Receipt
from tidelog.aio.threads import Threads
from tidelog.engine.base import Engine, Opened

__all__ = ["Sending"]

STEPS = 64
"""So many messages in a row are sent before other tasks get their turn."""


class Sending:
    """Sends to one channel, with one ack level, compression and partitioner."""

    def __init__(
        self,
        threads: Threads,
        engine: Engine,
        opened: Opened,
        *,
        synced: bool = False,
        compression: str | None = None,
        partitioner: Callable[[bytes | None, Any, int], int] | None = None,
        named: Any = None,
    ) -> None:
        """Raises NotSupported for a compression whose package is missing (naming it)."""
        self.opened = opened
        self._threads = threads
        self._synced = synced
        self._steps = STEPS
        self._quick, self._patient = Sender(), Sender()
        for sender in (self._quick, self._patient):
            # Never a compiled sender of level synced: the disk is waited for on its own thread, by one sync for all
            # messages that were appended meanwhile.
            engine.attach_sender(
                sender,
                opened,
                compression=compression,
                partitioner=partitioner,
                named=named,
            )
        self._quick._never_wait()

    def within(self, transacting: Any, through: bool) -> Sending:
        """The same as part of a transaction; `through`: a sync will follow."""
        inner = copy(self)
        inner._synced = False
        inner._quick, inner._patient = (sender._within(transacting, through) for sender in (self._quick, self._patient))
        return inner

    async def send(self, value: Any, options: dict[str, Any]) -> Receipt:
        """Append one message; `options`: the keywords of `Sender.send`."""
        receipt: SyncReceipt | None = None
        if not self._threads.sends.pending(self):
            try:
                receipt = self._quick.send(value, **options)
            except WouldBlock as blocked:
                options["partition"] = blocked.args[0]
        if receipt is None:
            again = partial(self._patient.send, value, **options)
            receipt = await self._threads.sends.submit(again, tag=self, skip=True)
        else:
            self._steps -= 1
        if self._synced:
            await self._sync(receipt)
        elif self._steps <= 0:
            # Behind the message and not before it: tasks that send in the order of their creation keep it.
            self._steps = STEPS
            await asyncio.sleep(0)
        return Receipt(receipt, self._threads.disk)

    async def send_many(self, values: Any, options: dict[str, Any]) -> Receipt:
        """Append many messages on the thread of the sends; `options`: the keywords of `Sender.send_many`."""
        # What belongs to the caller's thread (generators, functions of keys) runs there; lists may change meanwhile.
        if self.opened.codec.dtype is None:
            values = tuple(values)
            if callable(keys := options["keys"]):
                options["keys"] = [keys(value) for value in values]
        given: dict[str, Any] = {
            name: list(option) if isinstance(option, Iterator) else option for name, option in options.items()
        }
        call = partial(self._patient.send_many, values, **given)
        receipt = await self._threads.sends.submit(call, tag=self, skip=True)
        if self._synced:
            await self._sync(receipt)
        return Receipt(receipt, self._threads.disk)

    async def _sync(self, receipt: SyncReceipt) -> None:
        await self._threads.disk.submit(receipt.result, None, "synced")
