"""Which functions of the user are called around the life of an application, and when?

Floor 8: may import message, config. Thread rule: hooks are added before the application starts; `failed` is called from
whichever thread a handler failed on.

    before_start   the log is open, nothing is received yet; raising stops the start
    after_start    every handler receives
    on_error       a handler failed; gets a `Failure` that says what follows
    before_stop    nothing new is received, what is in flight goes on
    after_stop     every handler has ended and committed; the log is still open
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from tidelog.message import Message

__all__ = ["MOMENTS", "Failure", "Hooks"]

logger = logging.getLogger("tidelog.app")

MOMENTS = ("before_start", "after_start", "on_error", "before_stop", "after_stop")


@dataclass(frozen=True, slots=True)
class Failure:
    """A handler failed with a message; what `on_error` gets."""

    handler: str
    """Name of the handler."""
    message: Message[Any]
    """The message; of a failed batch the first one."""
    error: Exception
    attempt: int
    """1 for the first; 0 for a batch as a whole."""
    then: Literal["retry", "dead-letter", "answer", "stop"]
    """What follows: another attempt, the dead-letter channel, an error answer, or the end of the application."""


class Hooks:
    """The hooks of one application."""

    def __init__(self, call: Callable[[Any], Any]) -> None:
        """`call` waits for what an async hook returned."""
        self._call = call
        self._hooks: dict[str, list[Callable[..., Any]]] = {moment: [] for moment in MOMENTS}

    def add(self, moment: str, function: Callable[..., Any]) -> None:
        """Have `function` called at `moment`. Raises TypeError for what cannot be called."""
        if not callable(function):
            raise TypeError(f"{moment} takes a function, not {function!r}")
        self._hooks[moment].append(function)

    def run(self, moment: str) -> None:
        """Call the hooks of a moment in the order they were added. Raises what they raise."""
        for function in self._hooks[moment]:
            self._one(function)

    def run_all(self, moment: str) -> Exception | None:
        """The same, but each of them whatever the others do; answers the first error."""
        first: Exception | None = None
        for function in self._hooks[moment]:
            try:
                self._one(function)
            except Exception as error:
                logger.exception("the hook %s of %s failed", getattr(function, "__name__", function), moment)
                first = first or error
        return first

    def failed(self, failure: Failure) -> None:
        """Call on_error. What a hook raises is logged: it must not decide what becomes of the message."""
        for function in self._hooks["on_error"]:
            try:
                self._one(function, failure)
            except Exception:
                logger.exception("the hook %s of on_error failed", getattr(function, "__name__", function))

    def _one(self, function: Callable[..., Any], *arguments: Any) -> None:
        result = function(*arguments)
        if inspect.isawaitable(result):
            self._call(result)
