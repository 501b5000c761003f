"""What is a handler: which function, for which channel, and what does the function take?

Floor 8: may import channels, retry, message, config. Thread rule: a `Handler` never changes after it was made.

What a function takes is read from the annotation of its first parameter: `Message[T]` is the message, `Batch[T]` many
of them, everything else (or none) the value.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args, get_origin

from tidelog.app.channels import ChannelSpec
from tidelog.app.retry import Retry
from tidelog.config import Duration
from tidelog.message import Batch, Message

__all__ = ["Bound", "ChannelSpec", "Concurrency", "Handler", "Takes", "bind", "check_payload", "check_result", "fits"]

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
    delivery: Literal["at-least-once", "at-most-once", "exactly-once"] = "at-least-once"
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
    result: Any = UNKNOWN
    """What it returns, as it is annotated."""


def bind(function: Callable[..., Any], names: Mapping[str, Any] | None = None, *, answers: bool = False) -> Bound:
    """Read a handler's signature; `names`: what is in sight where the function was written. `answers`: a list is one
    answer, only what an iterator yields are several.

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
    result = hints.get("return", UNKNOWN)
    return Bound(takes, payload, _returned(result, answers), is_async, result)


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


def _returned(hint: Any, answers: bool) -> Any:
    """The type of one value that is sent: `T`, `T | None`, `list[T]`, `Iterator[T]` and the like are all T; of answers
    a list is one."""
    if hint is None or hint is type(None):
        return None
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (typing.Union, types.UnionType):
        rest = [one for one in inner if one is not type(None)]
        if len(rest) == 1:
            return _returned(rest[0], answers)
        return hint
    many = Iterator | AsyncIterator if answers else list | Iterable | AsyncIterable
    if answers and origin in (Iterable, AsyncIterable):  # what generators may be annotated with as well
        many = Iterable | AsyncIterable
    if inspect.isclass(origin) and inner and issubclass(origin, many):
        if origin in (dict, tuple, set, frozenset) or issubclass(origin, Mapping):
            return hint
        return _said(inner[0])
    return _said(hint)


def check_payload(handler: str, channel: ChannelSpec, payload: Any) -> None:
    """Raise TypeError if the function is annotated with another class than the channel's values have."""
    have = channel.type
    if have is None and channel.channel is None and channel.codec in (None, "raw"):
        have = bytes
    if get_origin(payload) is list and have is not None and get_origin(have) is not list and have is not list:
        inner = _called(get_args(payload)[0])
        raise TypeError(
            f"the handler {handler} takes {_called(payload)}, but a message of {channel.name!r} is one "
            f"{_called(have)}: annotate Batch[{inner}] to get many at once"
        )
    if not fits(have, payload):
        raise TypeError(
            f"the handler {handler} takes {_called(payload)}, but the messages of {channel.name!r} are "
            f"{_called(have)}: make both the same type"
        )


def check_result(handler: str, bound: Bound, type_: Any, what: str) -> None:
    """Raise TypeError if the function is annotated to return something else than values of `type_`, which `what` are
    ("the messages of 'invoices'")."""
    if bound.result is None or bound.result is type(None):
        raise TypeError(f"the handler {handler} returns None, but {what} are what it returns: annotate that")
    if type_ is None or bound.returns is UNKNOWN or bound.result == type_:
        return
    lists = list in (type_, get_origin(type_))
    if not fits(type_, bound.returns) and not (lists and fits(type_, bound.result)):
        raise TypeError(
            f"the handler {handler} returns {_called(bound.returns)}, but {what} are {_called(type_)}: make both the "
            f"same type"
        )


def fits(one: Any, other: Any) -> bool:
    """Whether values of two types may be the same; True also where that cannot be told."""
    ones, others = _classes(one), _classes(other)
    if ones is None or others is None:
        return True
    try:
        return any(issubclass(a, b) or issubclass(b, a) for a in ones for b in others)
    except TypeError:  # TypedDicts do not answer
        return True


def _classes(type_: Any) -> tuple[type, ...] | None:
    """The classes of a type, None if it does not say."""
    if get_origin(type_) in (typing.Union, types.UnionType):
        found = [_classes(one) for one in get_args(type_) if one is not type(None)]
        return None if None in found else tuple(one for part in found if part for one in part)
    if get_origin(type_) in (list, dict, tuple, set, frozenset):
        return (get_origin(type_),)
    if not isinstance(type_, type) or type_ is object or typing.is_typeddict(type_) or type_.__module__ == "numpy":
        return None
    return (type_,)


def _called(type_: Any) -> str:
    return type_.__name__ if isinstance(type_, type) and not get_args(type_) else str(type_)
