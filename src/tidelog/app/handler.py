"""What is a handler: which function, for which channel, and what does the function take?

Floor 8: may import channels, retry, message, config. Thread rule: a `Handler` never changes after it was made.

What a function takes is read from the annotation of its first parameter: `Message[T]` is the message, `Batch[T]` many
of them, everything else (or none) the value.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args, get_origin

from tidelog.app.channels import ChannelSpec
from tidelog.app.retry import Retry
from tidelog.config import Duration
from tidelog.message import Batch, Message

__all__ = ["Bound", "ChannelSpec", "Concurrency", "Handler", "Takes", "bind", "check_payload"]

Takes: TypeAlias = Literal["value", "message", "batch"]
Pattern: TypeAlias = Literal["one-way", "publish-subscribe", "async-response"]
Concurrency: TypeAlias = int | Literal["key"]

UNKNOWN: Any = object()
"""A parameter or result without an annotation, or with one that says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """One function of an application and the channel whose messages it gets."""

    name: str
    """The function's name; unique in the application."""
    function: Callable[..., Any]
    channel: ChannelSpec
    group: str
    """Consumer group; a queue's has the queue's name."""
    pattern: Pattern
    takes: Takes
    sends: ChannelSpec | None = None
    """Where what the function returns is sent."""
    key: Callable[[Any], Any] | None = None
    """Key of a returned value; None: the incoming message's."""
    reply: Any = None
    """Type of the answers, for async-response."""
    retries: Retry = field(default_factory=lambda: Retry(attempts=1))
    dead_letter: ChannelSpec | None = None
    concurrency: Concurrency = 1
    delivery: Literal["at-least-once", "at-most-once"] = "at-least-once"
    start: Any = "earliest"
    max_processing: Duration | None = None
    batch: int = 1000
    """The most messages of one `Batch`."""
    description: str | None = None
    """The function's docstring."""
    is_async: bool = False


@dataclass(frozen=True, slots=True)
class Bound:
    """What a function's signature says."""

    takes: Takes
    payload: Any
    """Type of the value (of `Message[T]` and `Batch[T]`: T), UNKNOWN if it does not say."""
    returns: Any
    """Type of one returned value: of `list[T]` and of generators T; UNKNOWN if it does not say."""
    is_async: bool


def bind(function: Callable[..., Any], names: Mapping[str, Any] | None = None) -> Bound:
    """Read a handler's signature; `names`: what is in sight where the function was written.

    Raises TypeError if it does not take exactly one argument.
    """
    name = name_of(function)
    if not callable(function):
        raise TypeError(f"a handler is a function, not {function!r}")
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except ValueError:  # some callables written in C do not tell
        return Bound("value", UNKNOWN, UNKNOWN, False)
    positional = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    needed = [
        one for one in parameters if one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
    ]
    star = any(one.kind is one.VAR_POSITIONAL for one in parameters)
    if len(needed) > 1 or not (positional or star) or any(one.kind is one.KEYWORD_ONLY for one in needed):
        raise TypeError(
            f"the handler {name} takes {len(needed)} arguments, but is given one: the value, or a Message[...] or "
            f"Batch[...] if it is annotated so"
        )
    first = positional[0].name if positional else ""
    hints = _hints(function, names)
    takes, payload = _first(hints.get(first, UNKNOWN))
    call = function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004
    is_async = any(check(each) for check in _ASYNC for each in (function, call))
    return Bound(takes, payload, _returned(hints.get("return", UNKNOWN)), is_async)


_ASYNC = (inspect.iscoroutinefunction, inspect.isasyncgenfunction)


def name_of(function: Callable[..., Any]) -> str:
    """The function's name, for people and for ids."""
    return str(getattr(function, "__name__", type(function).__name__))


def _hints(function: Callable[..., Any], names: Mapping[str, Any] | None) -> dict[str, Any]:
    """The annotations as types; as written where they name what is not in sight."""
    target = function
    if not inspect.isroutine(target) and not isinstance(target, type):
        target = type(function).__call__
    target = inspect.unwrap(target)
    for local in (None, dict(names or {})):
        try:
            return typing.get_type_hints(target, localns=local)
        except (NameError, TypeError, AttributeError, SyntaxError):
            continue
    return dict(getattr(target, "__annotations__", {}))


def _first(hint: Any) -> tuple[Takes, Any]:
    origin = get_origin(hint) or hint
    if isinstance(hint, str):  # a name that is not in sight yet: a class defined below, or an import for checkers only
        word = hint.partition("[")[0].rpartition(".")[2].strip()
        if word in ("Message", "Batch"):
            return "message" if word == "Message" else "batch", UNKNOWN
        return "value", UNKNOWN
    for takes, class_ in (("message", Message), ("batch", Batch)):
        if origin is class_:
            inner = get_args(hint)
            return typing.cast("Takes", takes), _said(inner[0]) if inner else UNKNOWN
    return "value", _said(hint)


def _said(hint: Any) -> Any:
    """UNKNOWN for what says nothing about a type."""
    if hint is Any or hint is object or isinstance(hint, typing.TypeVar | str):
        return UNKNOWN
    return hint


def _returned(hint: Any) -> Any:
    """The type of one value that is sent: `T`, `T | None`, `list[T]`, `Iterator[T]` and the like are all T."""
    if hint is None or hint is type(None):
        return None
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (typing.Union, types.UnionType):
        rest = [one for one in inner if one is not type(None)]
        if len(rest) == 1:
            return _returned(rest[0])
        return hint
    if inspect.isclass(origin) and inner and issubclass(origin, list | Iterable | AsyncIterable):
        if origin in (dict, tuple, set, frozenset) or issubclass(origin, Mapping):
            return hint
        return _said(inner[0])
    return _said(hint)


def check_payload(handler: str, channel: ChannelSpec, payload: Any) -> None:
    """Raise TypeError if the function is annotated with another class than the channel's values have."""
    have = channel.type
    if have is None and channel.channel is None and channel.codec in (None, "raw"):
        have = bytes
    if not (isinstance(have, type) and isinstance(payload, type)):
        return
    try:
        fits = issubclass(have, payload) or issubclass(payload, have)
    except TypeError:  # TypedDicts and parametrised classes do not answer
        return
    if not fits and getattr(payload, "__module__", "") != "numpy":
        raise TypeError(
            f"the handler {handler} takes {payload.__name__}, but the messages of {channel.name!r} are "
            f"{have.__name__}: make both the same type"
        )
