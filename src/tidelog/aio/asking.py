"""How does a coroutine ask a question?

Floor 8: may import aio.*, patterns.*, channel, engine.base, codec, config, envelope, errors. Thread rule: coroutines
belong to a running loop, of any thread.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from tidelog.aio.opening import Opening
from tidelog.aio.replies import Postmen, Replies
from tidelog.aio.sending import Sending
from tidelog.aio.threads import Threads
from tidelog.codec import Codec
from tidelog.config import Duration
from tidelog.engine.base import Engine
from tidelog.errors import Timeout
from tidelog.message import Message
from tidelog.patterns.mailbox import Mailbox
from tidelog.patterns.request import Asking as SyncAsking
from tidelog.patterns.request import envelope_of

if TYPE_CHECKING:
    from tidelog._native import Channelled

__all__ = ["Asking"]

T = TypeVar("T")


class Asking(Generic[T]):
    """The half of a channel that asks questions; see `Channel`."""

    _threads: Threads
    _engine: Engine
    _postmen: Postmen
    _channel: SyncAsking[T]

    @property
    def reply(self) -> Codec | None:
        """How answers to its messages become bytes: `.name`, `.type_name`; None: it was opened without `reply=`."""
        return self._channel.reply

    def ask(
        self,
        value: T,
        *,
        timeout: Duration | None = None,
        limit: int | None = None,
        key: Any = None,
        headers: Mapping[str, Any] | Iterable[tuple[str, Any]] | None = None,
        id: str | None = None,
        durable: str | None = None,
    ) -> Opening[Replies[Any]]:
        """Send a question and get the Replies to it: `async with channel.ask(...) as replies`, or
        `replies = await channel.ask(...)`. Arguments and errors are those of `tidelog.Channel.ask`."""
        return Opening(lambda: self._ask(value, timeout, limit, key, headers, id, durable))

    async def ask_one(
        self,
        value: T,
        *,
        timeout: Duration | None = None,
        key: Any = None,
        headers: Mapping[str, Any] | Iterable[tuple[str, Any]] | None = None,
        id: str | None = None,
        durable: str | None = None,
    ) -> Message[Any]:
        """Send a question and wait for its first answer; arguments and errors are those of
        `tidelog.Channel.ask_one`.

        Cancelled, the question may have been sent; its answer is then dropped, or kept for `resume` with `durable=`.
        """
        seconds, mailbox, shared, question = await self._prepare(timeout, 1, headers, id, durable)
        slot = mailbox.expect(question.encode(), shared, 1)
        try:
            until = _deadline(seconds)
            await self._send_question(mailbox, value, key, headers, question, id)
            if not await self._postmen.of(mailbox).wait(slot, until):
                raise Timeout(
                    f"no answer to the question {question} came from {self._channel.name!r} within {seconds:g} s: is a "
                    f"responder running? The question stays in the channel; a later answer will be dropped"
                )
            message = mailbox.take(slot)
            if durable is not None:
                mailbox.owe(slot)
            return message
        finally:
            mailbox.forget(slot)

    def resume(
        self, durable: str, *, timeout: Duration | None = None, limit: int | None = None
    ) -> Opening[Replies[Any]]:
        """The answers to earlier questions that were asked with `durable=` this name and not handled; to be awaited or
        entered like `ask`. Arguments and errors are those of `tidelog.Channel.resume`."""
        return Opening(lambda: self._resume(durable, timeout, limit))

    def _sender(self) -> Sending:
        raise NotImplementedError

    async def _ask(
        self,
        value: T,
        timeout: Duration | None,
        limit: int | None,
        key: Any,
        headers: Any,
        id: str | None,
        durable: str | None,
    ) -> Replies[Any]:
        seconds, mailbox, shared, question = await self._prepare(timeout, limit, headers, id, durable)
        slot = mailbox.expect(question.encode(), shared, limit)
        replies = self._replies(mailbox, slot, question, seconds, limit)
        try:
            await self._send_question(mailbox, value, key, headers, question, id)
        except BaseException:
            replies.end()
            raise
        return replies

    async def _resume(self, durable: str, timeout: Duration | None, limit: int | None) -> Replies[Any]:
        seconds, mailbox, shared, _ = await self._prepare(timeout, limit, None, "", durable)
        slot = mailbox.expect_rest(shared, limit)
        return self._replies(mailbox, slot, None, seconds, limit)

    def _replies(
        self, mailbox: Mailbox, slot: Any, id: str | None, seconds: float | None, limit: int | None
    ) -> Replies[Any]:
        mailboxes = self._channel._exchange.mailboxes
        return Replies(self._postmen.of(mailbox), mailboxes, slot, id, _deadline(seconds), limit)

    async def _prepare(
        self, timeout: Duration | None, limit: int | None, headers: Any, id: str | None, durable: str | None
    ) -> tuple[float | None, Mailbox, Channelled, str]:
        """As of the channel for threads, on one unless nothing is to be made or looked up."""
        own = self._channel._exchange.mailboxes._own
        if durable is None and own is not None and own._generation == self._engine.generation:
            return self._channel._prepare(timeout, limit, headers, id, None)
        return await self._threads.calls.submit(self._channel._prepare, timeout, limit, headers, id, durable)

    async def _send_question(
        self, mailbox: Mailbox, value: T, key: Any, headers: Any, question: str, id: str | None
    ) -> None:
        sender = self._sender()
        options = envelope_of(mailbox, key, headers, question, id, len(sender.opened.partitions))
        await sender.send(value, options)


def _deadline(seconds: float | None) -> float | None:
    return None if seconds is None else time.monotonic() + seconds
