"""How is a question asked, and how are its answers gathered?

Floor 7: may import the other patterns, engine.base, codec, config, envelope, errors. Thread rule: questions may be
asked from any thread; `Replies` belong to one thread at a time.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Self, TypeVar

from tidelog import envelope
from tidelog.codec import Codec
from tidelog.config import Duration, duration_ms
from tidelog.errors import Timeout
from tidelog.patterns.mailbox import Mailbox, Slot
from tidelog.patterns.mailboxes import Mailboxes
from tidelog.patterns.reply import Answers

if TYPE_CHECKING:
    from tidelog._native import Channelled, Message, Receipt

__all__ = ["Asking", "Exchange", "Replies", "envelope_of"]

T = TypeVar("T")

_OURS = frozenset({envelope.MESSAGE_ID, envelope.CORRELATION_ID, envelope.REPLY_TO})


class Exchange(NamedTuple):
    """What the channels of one log need to ask and to answer."""

    mailboxes: Mailboxes
    answers: Answers
    reply: Codec | None
    """How answers to this channel's messages are written; None: it was opened without `reply=`."""


class Replies(Generic[T]):
    """The answers to one question, as they come: an iterator of messages, and a context manager.

    It ends when `limit` answers were given or `timeout` has passed. An answer's `value` is of the type that the channel
    was opened with as `reply=`; of one that says what went wrong it raises ReplyError. Answers that come later are
    dropped and counted (`late`). A responder that dies between answering and committing answers again once it is back:
    that answer is one more, with the same `correlation_id`. With `durable=` an answer counts as handled when the next
    is asked for, or when `with` is left without an exception; what was not handled, `Channel.resume` brings again.
    """

    def __init__(
        self, mailboxes: Mailboxes, mailbox: Mailbox, slot: Slot, id: str | None, until: float | None, limit: int | None
    ) -> None:
        """Programs call `channel.ask` and `channel.resume` instead."""
        self._mailboxes = mailboxes
        self._mailbox = mailbox
        self._slot = slot
        self._id = id
        self._until = until
        self._left = limit
        self._closed = False

    @property
    def id(self) -> str | None:
        """The question's id, which its answers carry as `correlation_id`; None of resumed replies."""
        return self._id

    @property
    def late(self) -> int:
        """How many answers to this process's questions came too late (or beyond a limit) and were dropped."""
        return self._mailboxes.late

    @property
    def closed(self) -> bool:
        """Whether no more answers will be given."""
        return self._closed

    def __iter__(self) -> Iterator[Message[T]]:
        return self

    def __next__(self) -> Message[T]:
        """The next answer; waits for it. Raises StopIteration at the limit or the time-out, Closed, ChannelNotFound."""
        self._mailbox.settle(self._slot)
        if self._closed or self._left == 0 or not self._mailbox.wait(self._slot, self._until):
            self.close()
            raise StopIteration
        if self._left is not None:
            self._left -= 1
        return self._mailbox.take(self._slot)

    def close(self) -> None:
        """Wait for no more answers; idempotent."""
        if not self._closed:
            self._closed = True
            self._mailbox.forget(self._slot)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and not self._closed:
            self._mailbox.settle(self._slot)
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            self.close()

    def __repr__(self) -> str:
        return f"<Replies to {self._id or self._mailbox.name}{' closed' if self._closed else ''}>"


class Asking(Generic[T]):
    """The half of a channel that asks questions; see `Channel`."""

    _exchange: Exchange
    _typed: tuple[Mailbox, Channelled] | None = None

    if TYPE_CHECKING:
        name: Any
        send: Any
        opened: Any

    @property
    def reply(self) -> Codec | None:
        """How answers to its messages become bytes: `.name`, `.type_name`; None: it was opened without `reply=`."""
        return self._exchange.reply

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
    ) -> Replies[Any]:
        """Send a question, and answer with the Replies to it: none, one or many.

        The question stays in the channel until somebody has handled it, so it survives a restart of its responder.
        `timeout`: seconds (from now) after which the replies end, None: never. `limit`: how many to wait for, None: any
        number. `id`: the question's id, default a new one. `durable`: a name for replies that outlive this process:
        when it was restarted, `resume` brings the answers that are left; only one process at a time may use a name.

        Raises TypeError if the channel was opened without `reply=`, ValueError for options out of range and for headers
        that the question needs itself, Locked for a durable name in use, and otherwise like `send`.
        """
        seconds, mailbox, shared, question = self._prepare(timeout, limit, headers, id, durable)
        slot = mailbox.expect(question.encode(), shared, limit)
        replies: Replies[Any] = Replies(self._exchange.mailboxes, mailbox, slot, question, _deadline(seconds), limit)
        try:
            self._send_question(mailbox, value, key, headers, question, id)
        except BaseException:
            replies.close()
            raise
        return replies

    def ask_one(
        self,
        value: T,
        *,
        timeout: Duration | None = None,
        key: Any = None,
        headers: Mapping[str, Any] | Iterable[tuple[str, Any]] | None = None,
        id: str | None = None,
        durable: str | None = None,
    ) -> Message[Any]:
        """Send a question and wait for its first answer; arguments and errors are those of `ask`.

        Raises Timeout if none came within `timeout` seconds (None: wait for ever). A durable answer counts as handled
        when the next thing is asked for under its name, or the log is closed.
        """
        seconds, mailbox, shared, question = self._prepare(timeout, 1, headers, id, durable)
        slot = mailbox.expect(question.encode(), shared, 1)
        try:
            until = _deadline(seconds)
            self._send_question(mailbox, value, key, headers, question, id)
            if not mailbox.wait(slot, until):
                raise Timeout(
                    f"no answer to the question {question} came from {self.name!r} within {seconds:g} s: is a "
                    f"responder running? The question stays in the channel; a later answer will be dropped"
                )
            message = mailbox.take(slot)
            if durable is not None:
                mailbox.owe(slot)
            return message
        finally:
            mailbox.forget(slot)

    def resume(self, durable: str, *, timeout: Duration | None = None, limit: int | None = None) -> Replies[Any]:
        """The answers to earlier questions that were asked with `durable=` this name and not handled: those that are
        there, and those that come within `timeout` seconds (None: wait for ever; 0: only those that are there).

        Which question each one answers, its `correlation_id` says. A name nobody asked with yet gets its reply channel
        now. Raises like `ask`.
        """
        seconds, mailbox, shared, _ = self._prepare(timeout, limit, None, "", durable)
        slot = mailbox.expect_rest(shared, limit)
        return Replies(self._exchange.mailboxes, mailbox, slot, None, _deadline(seconds), limit)

    def _prepare(
        self, timeout: Duration | None, limit: int | None, headers: Any, id: str | None, durable: str | None
    ) -> tuple[float | None, Mailbox, Channelled, str]:
        """(seconds to wait, where answers arrive, their type, the question's id)."""
        mailboxes, _, codec = self._exchange
        if codec is None:
            raise TypeError(
                f"{self.name!r} was opened without reply=, the type of its answers: open it with "
                f"reply=bytes, or the type that they have"
            )
        seconds = None if timeout is None else duration_ms(timeout, "timeout") / 1000
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int)):
            raise TypeError(f"limit is an int, not {type(limit).__name__}")
        if limit is not None and limit < 1:
            raise ValueError(f"limit={limit}: a question waits for one answer at least")
        if id is not None and not isinstance(id, str):
            raise TypeError(f"id is a str, not {type(id).__name__}")
        if headers is not None:
            for name, _value in envelope.pairs(headers):
                if name in _OURS:
                    raise ValueError(f"the header {name!r} is the question's own: give id= or durable= instead")
        mailbox = mailboxes.own() if durable is None else mailboxes.durable(durable, self.name)
        typed = self._typed
        if typed is None or typed[0] is not mailbox:
            typed = self._typed = (mailbox, mailbox.typed(codec))
        return seconds, mailbox, typed[1], envelope.new_id() if id is None else id

    def _send_question(
        self, mailbox: Mailbox, value: T, key: Any, headers: Any, question: str, id: str | None
    ) -> Receipt:
        options = envelope_of(mailbox, key, headers, question, id, len(self.opened().partitions))
        return self.send(value, **options)  # type: ignore[no-any-return]


def envelope_of(
    mailbox: Mailbox, key: Any, headers: Any, question: str, id: str | None, partitions: int
) -> dict[str, Any]:
    """The keywords that a question is sent with; `id`: as the caller gave it, None: `question` was made for it.

    A new id cannot be a duplicate, so it is only written: looking for it would cost something. The partition follows
    from it, as it would from one that was given: without a key, questions spread over all responders.
    """
    own = [(envelope.CORRELATION_ID, question), (envelope.REPLY_TO, mailbox.name)]
    partition = None
    if id is None:
        own.append((envelope.MESSAGE_ID, question))
        if key is None:
            partition = int(question[-8:], 16) % partitions
    enclosed = envelope.enclose(own, headers, envelope.current.get())
    return {"key": key, "headers": enclosed, "id": id, "partition": partition}


def _deadline(seconds: float | None) -> float | None:
    return None if seconds is None else time.monotonic() + seconds
