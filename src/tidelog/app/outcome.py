"""What follows when a handler has returned, and what when it has raised?

Floor 8: may import dead_letter, handler, hooks, steps, patterns, envelope, errors, message. Thread rule: an
`Outcome` may be used from any thread.

Returned: the value is sent on, or becomes the answer, before the message counts as handled. Raised: the message is
tried again after a wait; when its attempts are used up it goes to the dead-letter channel, a request gets an error as
its answer, and where neither is there to take it the application stops, so that nothing is lost.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from tidelog import envelope
from tidelog.app import steps
from tidelog.app.dead_letter import DeadLetters, bared, type_name
from tidelog.app.handler import Handler
from tidelog.app.hooks import Failure, Hooks
from tidelog.errors import ChannelNotFound, DecodeError, Error
from tidelog.message import Batch, Message
from tidelog.patterns.reply import is_askers_fault

if TYPE_CHECKING:
    from tidelog.app.channels import ChannelSpec
    from tidelog.channel import Channel

__all__ = ["Fatal", "Outcome"]

logger = logging.getLogger("tidelog.app")

STORAGE_WAIT_SECONDS = 1.0
"""How long to wait before a dead letter is written again that could not be written (a full disk)."""


class Fatal(Exception):
    """The application must stop because of `error`: a message could neither be handled nor put aside."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


class Outcome:
    """What one handler's returns and failures lead to, in one log."""

    def __init__(
        self,
        handler: Handler,
        opened: Callable[[ChannelSpec], Channel[Any]],
        hooks: Hooks,
        through: Callable[[Channel[Any], bool], Any] | None = None,
    ) -> None:
        """Opens the channels that the handler sends to, by `opened`. `through`: what sends to one of them (as bytes,
        whatever type it has?), None: the channel itself. Raises what `opened` raises."""
        self.handler = handler
        self._hooks = hooks
        self._retry = handler.retries
        self._answers = handler.pattern == "async-response"
        self._sends: Any = None
        if handler.sends is not None:
            channel = opened(handler.sends)
            self._sends = channel if through is None else through(channel, False)
            type_ = handler.sends.type
            self._lists_are_values = type_ is list or getattr(type_, "__origin__", None) is list
        self._dead: DeadLetters | None = None
        if handler.dead_letter is not None:
            dead = opened(handler.dead_letter)
            self._dead = DeadLetters(dead, handler.group, None if through is None else through(dead, True))
        self.cares = self._answers or self._sends is not None
        """Whether anything at all is done with what the handler returns."""

    # --- returned ---

    def returned(self, message: Message[Any], result: Any) -> None:
        """Send on what the handler returned for a message. Raises what `send` raises, and what a generator raises."""
        if result is None:
            return
        if self._answers:
            self._answer(message, result)
            return
        if self._sends is None:
            return
        headers = _passed_on(message)
        key_of = self.handler.key
        name = f"{message.id}.{self.handler.name}"
        if not self._is_many(result):
            key = message.key if key_of is None else key_of(result)
            self._sends.send(result, key=key, headers=headers, id=name)
            return
        # All of them before the first is sent: a generator that fails half way has sent nothing then.
        values = list(result)
        if values:
            keys = [message.key] * len(values) if key_of is None else [key_of(value) for value in values]
            ids = [f"{name}.{index}" for index in range(len(values))]
            self._sends.send_many(
                values, keys=keys, headers=None if headers is None else [headers] * len(values), ids=ids
            )

    def _answer(self, message: Message[Any], result: Any) -> None:
        """Answer whoever asked; a message that asks for no answer gets none."""
        if message.reply_to is None:
            return
        values = list(result) if isinstance(result, Iterator) else (result,)
        try:
            for value in values:
                self._step("before-send", message, message.reply_to)
                message.reply(value)
                self._step("after-send", message, message.reply_to)
        except ChannelNotFound as error:  # the asker has gone: nobody is there to be told
            logger.debug("%s: the answer to %s has no receiver: %s", self.handler.name, place(message), error)
        except Error as error:
            if not is_askers_fault(error):
                raise
            # What was asked is done, and doing it again helps nobody.
            logger.warning("%s: the question %s cannot be answered: %s", self.handler.name, place(message), error)

    def returned_batch(self, result: Any) -> None:
        """Send on what a handler of batches returned. It has no one key or id, as it comes from many messages."""
        if result is None or self._sends is None:
            return
        key_of = self.handler.key
        if hasattr(result, "dtype") or isinstance(result, dict):  # rows or columns, to a channel of a dtype
            self._sends.send_many(result)
        elif self._is_many(result):
            values = list(result)
            if values:
                self._sends.send_many(values, keys=None if key_of is None else [key_of(value) for value in values])
        else:
            self._sends.send(result, key=None if key_of is None else key_of(result))

    def _is_many(self, result: Any) -> bool:
        return isinstance(result, Iterator) or (isinstance(result, list) and not self._lists_are_values)

    # --- raised ---

    def failed(self, message: Message[Any], error: Exception, attempt: int) -> float | None:
        """What becomes of a message whose `attempt` failed: seconds until the next one, or None: it is settled.

        Raises Fatal when nothing can take it.
        """
        hopeless = isinstance(error, DecodeError) and not _decodes(message)
        if not hopeless and attempt < self._retry.attempts:
            wait = self._retry.delay(attempt)
            logger.warning(
                "%s failed at %s (attempt %d of %d), again in %.3g s: %s: %s",
                self.handler.name,
                place(message),
                attempt,
                self._retry.attempts,
                wait,
                type_name(error),
                error,
            )
            self._report(message, error, attempt, "retry")
            return wait
        answer = self._answers and message.reply_to is not None
        if self._dead is None and not answer:
            self._report(message, error, attempt, "stop")
            error.add_note(
                f"{self.handler.name} failed at {place(message)}, attempt {attempt}: the application stops, and the "
                f"message is handled again when it starts. Give the handler dead_letter= to put such messages aside"
            )
            raise Fatal(error)
        refused: Error | None = None
        try:
            if self._dead is not None:
                self._step("before-send", message, self._dead.name)
                self._dead.put(message, error, attempt)
                self._step("after-send", message, self._dead.name)
            if answer:
                refused = self._answer_error(message, error)
        except Exception as failure:
            if not (isinstance(failure, Error) and failure.retriable):
                raise Fatal(failure) from error
            logger.error("what failed at %s cannot be put aside yet: %s", place(message), failure)
            return STORAGE_WAIT_SECONDS
        if self._dead is not None:
            where, level, trace = self._dead.name, logging.ERROR, bared(error)
        else:  # whoever asked is told, and may well have asked for what cannot be
            where, level, trace = "an error answer", logging.WARNING, None
        if refused is not None:
            where = f"{where if self._dead is not None else 'nobody'}, and cannot be answered ({refused})"
        logger.log(
            level,
            "%s failed at %s after %d attempt%s, to %s: %s: %s",
            self.handler.name,
            place(message),
            attempt,
            "" if attempt == 1 else "s",
            where,
            type_name(error),
            error,
            exc_info=trace,
        )
        self._report(message, error, attempt, "dead-letter" if self._dead is not None else "answer")
        return None

    def _answer_error(self, message: Message[Any], error: Exception) -> Error | None:
        """Answers with the error; or says why that is refused: a wrong return address is the asker's fault, and must
        not stop the service for everybody else."""
        try:
            message.reply(None, error=error)
        except Error as refused:
            if refused.retriable:
                raise
            return refused
        return None

    def _step(self, name: str, message: Message[Any], where: str) -> None:
        if steps.watcher is not None:
            steps.watcher(name, self.handler.name, message, where)

    def batch_failed(self, batch: Batch[Any], error: Exception) -> None:
        """A batch failed as a whole; it is handed over again message by message, which shows whose fault it was."""
        logger.warning(
            "%s failed with a batch of %d messages from %s on, again one by one: %s: %s",
            self.handler.name,
            len(batch),
            place(batch[0]),
            type_name(error),
            error,
        )
        self._report(batch[0], error, 0, "retry")

    def _report(self, message: Message[Any], error: Exception, attempt: int, then: Any) -> None:
        self._hooks.failed(Failure(self.handler.name, message, error, attempt, then))


def place(message: Message[Any]) -> str:
    """Where a message stands, for people."""
    return f"{message.channel}-{message.partition}@{message.offset}"


def _passed_on(message: Message[Any]) -> list[tuple[str, Any]] | None:
    """Correlation id and trace of a message, which stand in what is sent because of it too."""
    headers = message.headers
    if not len(headers):
        return None
    correlation = headers.get(envelope.CORRELATION_ID)
    own: list[tuple[str, Any]] = [] if correlation is None else [(envelope.CORRELATION_ID, correlation)]
    return envelope.enclose(own, None, message) or None


def _decodes(message: Message[Any]) -> bool:
    """Whether the value can be read: a DecodeError may also come from what the handler itself decodes."""
    try:
        message.value  # noqa: B018
    except DecodeError:
        return False
    return True
