"""Which values does a channel's type have?

Floor 8: may import codec, message and hypothesis. Thread rule: Hypothesis runs a test in one thread.

Small values, as an example would have them: short texts that can be printed, numbers within a few digits, lists of a
few items. What a program must stand beyond that is for its own strategies.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable
from typing import Any

import msgspec
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tidelog.errors import Error

__all__ = ["distinct", "of_type"]

_TEXT = st.text(st.characters(min_codepoint=97, max_codepoint=122), min_size=1, max_size=8)
_PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    bytes: st.binary(min_size=1, max_size=12),
    str: _TEXT,
    int: st.integers(0, 9999),
    float: st.integers(0, 999_900).map(lambda cents: cents / 100),
    bool: st.booleans(),
    None: st.none(),
    type(None): st.none(),
    Any: st.one_of(st.integers(0, 9999), _TEXT),
    object: st.one_of(st.integers(0, 9999), _TEXT),
}
_FEW = 3


def of_type(type_: Any) -> st.SearchStrategy[Any]:
    """Values of a channel's type: None (bytes), bytes, str, numbers, msgspec.Struct, dataclass, TypedDict, a NumPy
    dtype, lists and dicts of them, unions, and whatever `hypothesis.strategies.from_type` knows.

    Raises hypothesis.errors.InvalidArgument or ResolutionFailed, when a value is drawn, for what nothing is known of.
    """
    if type_ is None:
        return _PLAIN[bytes]
    if hasattr(type_, "fields") and hasattr(type_, "itemsize"):  # a dtype; NumPy is not loaded for the others
        from hypothesis.extra import numpy as arrays

        return arrays.from_dtype(type_, allow_nan=False, allow_infinity=False)
    plain = _PLAIN.get(type_) if isinstance(type_, type) or type_ is Any else None
    if plain is not None:
        return plain
    made = _composed(type_)
    return st.from_type(type_) if made is None else made


def _composed(type_: Any) -> st.SearchStrategy[Any] | None:
    """Of what consists of other types; None: something else."""
    origin, inner = typing.get_origin(type_), typing.get_args(type_)
    if origin is typing.Annotated:
        return _annotated(inner[0], inner[1:])
    if origin in (typing.Union, types.UnionType):
        return st.one_of([of_type(one) for one in inner])
    if origin in (list, set, frozenset):
        items = st.lists(of_type(inner[0]), max_size=_FEW)
        return items if origin is list else items.map(origin)
    if origin is dict:
        return st.dictionaries(of_type(inner[0]), of_type(inner[1]), max_size=_FEW)
    if origin is tuple:
        if inner[-1:] == (Ellipsis,):
            return st.lists(of_type(inner[0]), max_size=_FEW).map(tuple)
        return st.tuples(*(of_type(one) for one in inner))
    if not isinstance(type_, type):
        return None
    if issubclass(type_, msgspec.Struct):
        fields = msgspec.structs.fields(type_)
        return _built(type_, {one.name: one.type for one in fields})
    if dataclasses.is_dataclass(type_):
        hints = typing.get_type_hints(type_, include_extras=True)
        return _built(type_, {one.name: hints[one.name] for one in dataclasses.fields(type_) if one.init})
    if typing.is_typeddict(type_):
        return st.fixed_dictionaries(
            {name: of_type(hint) for name, hint in typing.get_type_hints(type_, include_extras=True).items()}
        )
    return None


def _built(class_: Callable[..., Any], fields: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Deferred, as a class may have fields of its own type."""
    return st.deferred(lambda: st.builds(class_, **{name: of_type(type_) for name, type_ in fields.items()}))


def _annotated(type_: Any, notes: tuple[Any, ...]) -> st.SearchStrategy[Any]:
    """Within the bounds that msgspec.Meta gives to a number; other constraints by trying."""
    meta = next((note for note in notes if isinstance(note, msgspec.Meta)), None)
    if meta is None:
        return of_type(type_)
    if type_ is int:
        low = meta.ge if meta.ge is not None else 0 if meta.gt is None else meta.gt + 1
        high = meta.le if meta.le is not None else max(low, 0) + 9999 if meta.lt is None else meta.lt - 1
        return st.integers(int(low), int(high))
    return of_type(type_).filter(lambda value: _fits(value, typing.Annotated[type_, meta]))


def _fits(value: Any, type_: Any) -> bool:
    try:
        msgspec.convert(value, type_)
    except msgspec.ValidationError:
        return False
    return True


def distinct(strategy: st.SearchStrategy[Any], count: int, number: int, encode: Callable[[Any], bytes]) -> list[Any]:
    """`count` values of `strategy` that differ in what `encode` makes of them, and in their `id` if they have one; the
    same for the same seed `number`; fewer if there are not so many. What cannot be encoded is left out."""
    found: dict[bytes, Any] = {}
    names: set[str] = set()

    @seed(number)
    @settings(
        max_examples=50 * count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(value: Any) -> None:
        try:
            data = encode(value)
        except (Error, TypeError, ValueError, OverflowError):
            return
        name = _name(value)
        if len(found) < count and data not in found and (name is None or name not in names):
            found[data] = value
            if name is not None:
                names.add(name)

    collect()
    return list(found.values())


def _name(value: Any) -> str | None:
    """What tells it from others, where it says so: two orders of one number are one order for most services."""
    own = value.get("id") if isinstance(value, dict) else getattr(value, "id", None)
    return None if own is None else repr(own)
