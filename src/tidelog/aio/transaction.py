"""How do coroutines make messages and a consumer's offsets visible together, or not at all?

Floor 8: may import aio.*, transaction, engine.base, config. Thread rule: a `Transaction` belongs to one running loop;
tasks of it may send at the same time, and one of them ends it.

Beginning, committing and giving up take locks and wait for the disk, so they are made on a thread of the producer, one
after the other. Whoever waits for one of them and is cancelled goes on waiting, and is cancelled then: behind
`async with` it is always known what has become of the transaction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from tidelog.aio.channel import Channel
from tidelog.aio.receipt import Receipt
from tidelog.aio.sending import Sending
from tidelog.aio.threads import Threads
from tidelog.config import Duration, duration_ms
from tidelog.engine.base import Engine, Opened
from tidelog.errors import Error
from tidelog.transaction import TIMEOUT_SECONDS, check_parties
from tidelog.transaction import Transaction as SyncTransaction

if TYPE_CHECKING:
    from tidelog.aio.consumer import Consumer
    from tidelog.aio.producer import Producer

__all__ = ["Transaction"]

T = TypeVar("T")
R = TypeVar("R")


class Transaction:
    """Messages and offsets that become visible together; made by `log.transaction(...)` of `tidelog.aio` and entered by
    `async with`. What leaving does, and what becomes of it, is as with `tidelog.Log.transaction`; a cancellation is an
    exception, and aborts."""

    def __init__(
        self,
        threads: Threads,
        engine: Engine,
        producer: Producer,
        consumers: Sequence[Consumer[Any]],
        *,
        timeout: Duration = TIMEOUT_SECONDS,
        level: str = "synced",
    ) -> None:
        """Programs call `log.transaction(...)`. Raises what `tidelog.Log.transaction` raises."""
        self._threads = threads
        self._engine = engine
        self._producer = producer
        self._consumers = list(consumers)
        self._options: dict[str, Any] = {"timeout": timeout, "level": level}
        self._sendings: dict[int, tuple[Opened, Sending]] = {}
        # What is wrong with the arguments shows here; names are opened, and groups are joined, when it is entered.
        gathering: Any = getattr(producer, "_gathering", producer)
        check_parties(engine, gathering, (), level)
        duration_ms(timeout, "timeout", least_ms=1)
        self._inner: SyncTransaction | None = None

    @property
    def state(self) -> str:
        """As `tidelog.Transaction.state`: "new", "open", "committed", "aborted" or "unknown"."""
        return "new" if self._inner is None else self._inner.state

    async def send(
        self,
        channel: Channel[T],
        value: T,
        *,
        key: Any = None,
        headers: Mapping[str, Any] | Iterable[tuple[str, Any]] | None = None,
        id: str | None = None,
        partition: int | None = None,
        timestamp: datetime | float | None = None,
    ) -> Receipt:
        """Send one message, which readers see after the commit; the arguments are those of `channel.send`. Raises what
        `tidelog.Transaction.send` raises. Cancelled, the message may have been sent or not."""
        options: dict[str, Any] = {
            "key": key,
            "headers": headers,
            "id": id,
            "partition": partition,
            "timestamp": timestamp,
        }
        return await self._sending(channel).send(value, options)

    async def send_many(
        self,
        channel: Channel[T],
        values: Any,
        *,
        keys: Any = None,
        headers: Sequence[Any] | None = None,
        ids: Iterable[str | None] | None = None,
        partition: int | None = None,
        timestamp: Any = None,
    ) -> Receipt:
        """Send many messages; the arguments are those of `channel.send_many`, the rest is as with `send`."""
        options = {"keys": keys, "headers": headers, "ids": ids, "partition": partition, "timestamp": timestamp}
        return await self._sending(channel).send_many(values, options)

    async def commit(self) -> None:
        """As `tidelog.Transaction.commit`."""
        inner = self._entered()
        async with _Held(self._consumers):
            await self._through(inner.commit)

    async def abort(self) -> None:
        """As `tidelog.Transaction.abort`."""
        await self._through(self._entered().abort)

    async def close(self) -> None:
        """As `tidelog.Transaction.close`: aborts it, unless it has ended or has not begun."""
        if self._inner is not None:
            await self._through(self._inner.close)

    async def __aenter__(self) -> Self:
        if self._inner is not None:
            raise RuntimeError("a transaction is entered once: make another one with log.transaction(...)")
        async with _Held(self._consumers) as readers:
            try:
                await self._through(partial(self._begin, readers))
            except BaseException:
                if self.state == "open":  # begun, and cancelled: nobody will leave it
                    await self._give_up()
                raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            await self._give_up()
            return
        inner = self._entered()
        try:
            async with _Held(self._consumers if inner.state == "open" else ()):
                await self._through(partial(inner.__exit__, None, None, None))
        except BaseException:
            await self._give_up()  # as far as it is open still: another task is inside a consumer
            raise

    def __repr__(self) -> str:
        return f"<aio.Transaction of {self._producer.name!r} {self.state}>"

    def _begin(self, readers: Sequence[Any]) -> None:
        """On the producer's thread."""
        inner = SyncTransaction(self._engine, self._producer._gathering, readers, **self._options)
        self._inner = inner
        inner.__enter__()

    def _entered(self) -> SyncTransaction:
        if self._inner is None:
            raise RuntimeError("the transaction has not begun: enter it with `async with log.transaction(...) as tx:`")
        return self._inner

    async def _give_up(self) -> None:
        """Abort while an error is on its way out, which says more than what aborting raises."""
        if self.state == "open":
            with suppress(Error):
                await self._through(self._entered().close)

    async def _through(self, function: Callable[[], R]) -> R:
        """What `function` answers, called on the producer's thread; a cancellation waits for it."""
        job = self._producer._ending.submit(function)
        cancelled: asyncio.CancelledError | None = None
        while not job.done():
            try:
                await asyncio.wait([job])
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            job.exception()  # it is somebody's now
            raise cancelled
        return job.result()

    def _sending(self, channel: Channel[Any]) -> Sending:
        inner = self._entered()
        opened = channel.opened()
        known = self._sendings.get(id(opened))
        if known is None:
            sending = self._producer._sending(channel).within(inner._inside, self._options["level"] == "synced")
            known = self._sendings[id(opened)] = (opened, sending)  # the handles stay, and with them their id
        return known[1]


class _Held:
    """All consumers of a transaction, which no other task may be inside of meanwhile."""

    def __init__(self, consumers: Sequence[Consumer[Any]]) -> None:
        self._consumers = consumers
        self._held: list[Consumer[Any]] = []

    async def __aenter__(self) -> list[Any]:
        try:
            readers = []
            for consumer in self._consumers:
                readers.append(await consumer._hold())
                self._held.append(consumer)
            return readers
        except BaseException:
            self._let_go()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._let_go()

    def _let_go(self) -> None:
        for consumer in self._held:
            consumer._let_go()
