"""What is done with one message: how is the function called, and when does the message count as handled?

Floor 8: may import handler, outcome, dead_letter, event_loop, steps, envelope, message. Thread rule: what is made here
may be called from any thread.

An attempt is one function (message, subject) -> None that raises when the message was not handled. It is put together
once per handler, so that nothing is decided per message that can be decided before.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from typing import Any, TypeAlias

from tidelog import envelope
from tidelog.app.dead_letter import REDRIVEN_FOR
from tidelog.app.event_loop import EventLoop
from tidelog.app.handler import Handler
from tidelog.app.outcome import Outcome
from tidelog.app.steps import watched, watched_async
from tidelog.message import Message

__all__ = ["Attempt", "AttemptAsync", "attempt", "attempt_async"]

Attempt: TypeAlias = Callable[[Message[Any], Any], None]
"""(message, subject): the subject is the message, or for a handler of batches a batch of this one message."""
AttemptAsync: TypeAlias = Callable[[Message[Any], Any], Awaitable[None]]


def attempt(handler: Handler, outcome: Outcome, events: EventLoop) -> Attempt:
    """For the calling thread; a coroutine is waited for."""
    handling = envelope.current.set  # never reset: the next message takes its place
    function = watched(handler.name, handler.function if not handler.is_async else _waiting(handler.function, events))
    if handler.takes == "batch":

        def of_batch(message: Message[Any], subject: Any) -> None:
            handling(message)
            outcome.returned_batch(function(subject))

        return _skipping(handler, of_batch)
    if handler.takes == "message":

        def of_message(message: Message[Any], _: Any) -> None:
            handling(message)
            result = function(message)
            if result is not None:
                outcome.returned(message, result)

        return _skipping(handler, of_message)

    def of_value(message: Message[Any], _: Any) -> None:
        handling(message)
        result = function(message.value)
        if result is not None:
            outcome.returned(message, result)

    return _skipping(handler, of_value)


def attempt_async(handler: Handler, outcome: Outcome) -> AttemptAsync:
    """For the event loop; handlers of batches are not called this way."""
    call, takes_value = watched_async(handler.name, _completing(handler.function)), handler.takes == "value"
    skips = handler.channel.kind == "topic"
    handling = envelope.current.set  # each task has a context of its own

    async def run(message: Message[Any], _: Any) -> None:
        if skips and is_for_others(message, handler.group):
            return
        handling(message)
        result = await call(message.value if takes_value else message)
        if result is not None:
            outcome.returned(message, result)

    return run


def is_for_others(message: Message[Any], group: str) -> bool:
    """Whether a message was sent back from a dead-letter channel for another group than this one."""
    headers = message.headers
    return len(headers) > 0 and headers.get(REDRIVEN_FOR, group.encode()) != group.encode()


def _skipping(handler: Handler, inner: Attempt) -> Attempt:
    """On a topic: what was sent back for another group counts as handled."""
    if handler.channel.kind != "topic" or handler.takes == "batch":
        return inner
    group = handler.group

    def run(message: Message[Any], subject: Any) -> None:
        if not is_for_others(message, group):
            inner(message, subject)

    return run


def _waiting(function: Callable[[Any], Any], events: EventLoop) -> Callable[[Any], Any]:
    def call(subject: Any) -> Any:
        return events.call(complete(function(subject)))

    return call


def _completing(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda subject: complete(function(subject))


async def complete(result: Any) -> Any:
    """What an async function answers in the end; of an async generator a generator of what it yields."""
    if isinstance(result, AsyncGenerator):
        return _each([value async for value in result])
    if inspect.isawaitable(result):
        return await result
    return result


def _each(values: list[Any]) -> Iterator[Any]:
    yield from values
