"""Which of a channel's several types is a value, and how does a receiver know?

Floor 3: may import codec, envelope, errors. Thread rule: what is made here never changes; callable from any thread.

The rule: a union of classes with fields (`Created | Cancelled`: Struct, dataclass, TypedDict, NamedTuple, attrs or
pydantic classes) is told apart by the header `type`, which holds the class's name. Only where the bytes say it already
there is no such header: unions of tagged msgspec Structs, and unions with at most one class with fields
(`Order | None`, `int | str`), which msgspec tells apart itself.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin, is_typeddict

import msgspec

from tidelog.codec import Codec, Schema, codec_for, type_name
from tidelog.envelope import TYPE
from tidelog.errors import DecodeError, SchemaMismatch

if TYPE_CHECKING:
    from tidelog._native import Message


def union_codec(type_: Any, codec: str | None) -> Codec | None:
    """The codec of a union that is told apart by a header; None if `type_` is no such union.

    Raises TypeError for members that cannot stand in one, ValueError for a codec that does not fit.
    """
    members = _members(type_)
    if len(members) < 2:
        return None
    with_fields = [member for member in members if _has_fields(member)]
    foreign = any(hasattr(_plain(member), "model_validate_json") for member in with_fields)
    if len(with_fields) < 2 and not foreign:
        return None
    if not foreign and all(_is_tagged(member) for member in with_fields):
        return None
    shown = type_name(type_)
    others = [type_name(member) for member in members if member not in with_fields]
    if others:
        raise TypeError(
            f"{shown} cannot be the type of a channel: a union of several classes holds classes with fields only, and "
            f"{', '.join(others)} is none: leave it out, or wrap it in a class"
        )
    named: dict[str, Codec] = {}
    for member in members:
        name = type_name(member)
        if name in named:
            raise TypeError(
                f"{shown} cannot be the type of a channel: two of its classes have the name {name!r}, by which "
                f"receivers tell them apart: rename one"
            )
        named[name] = codec_for(member, codec)
    kinds = {member.name for member in named.values()}
    if len(kinds) > 1:
        raise ValueError(f"the members of {shown} need one codec, not {' and '.join(sorted(kinds))}: give codec=")
    return _UnionCodec(shown, dict(zip(named, members, strict=True)), named)


class _UnionCodec(Codec):
    """Chooses among the codecs of the members."""

    __slots__ = ("_classes", "_exact", "_known", "_records")

    def __init__(self, shown: str, members: Mapping[str, Any], codecs: Mapping[str, Codec]) -> None:
        super().__init__(next(iter(codecs.values())).name, shown, schema=lambda: _one_of(codecs))
        self._known = ", ".join(codecs)
        self._records = {name: _plain(member) for name, member in members.items() if is_typeddict(_plain(member))}
        self._classes = [(_plain(member), name) for name, member in members.items() if name not in self._records]
        self._exact = dict(self._classes)
        if len(self._exact) != len(self._classes):
            raise TypeError(f"{shown} cannot be the type of a channel: it names one generic class twice")
        self.types = codecs
        self.type_of = self._type_of
        self.encode = self._encode
        self.encode_many = self._encode_many
        self.decode = self._decode_alone
        self.decode_many = None
        self.decode_message = self._decode_message

    def _type_of(self, value: Any) -> str:
        found: str | None = self._exact.get(type(value))
        if found is not None:
            return found
        for cls, name in self._classes:
            if isinstance(value, cls):
                return name
        if isinstance(value, dict):
            return self._record_of(value)
        raise SchemaMismatch(f"expected {self.type_name}, got {type(value).__qualname__}: send what the channel holds")

    def _record_of(self, value: dict[Any, Any]) -> str:
        """The one TypedDict whose keys a dict has."""
        keys = value.keys()
        fits = [
            name
            for name, record in self._records.items()
            if record.__required_keys__ <= keys and keys <= record.__annotations__.keys() | record.__required_keys__
        ]
        if len(fits) == 1:
            return fits[0]
        listed = ", ".join(map(str, list(keys)[:10]))
        if not fits:
            raise SchemaMismatch(f"a dict with the keys {listed} is none of {self.type_name}: give it the keys of one")
        raise SchemaMismatch(
            f"a dict with the keys {listed} may be {' or '.join(fits)}: give these types different keys, or use classes"
        )

    def _encode(self, value: Any) -> bytes:
        encode = self.types[self._type_of(value)].encode  # type: ignore[index]
        assert encode is not None
        return encode(value)

    def _encode_many(self, values: Iterable[Any]) -> list[bytes]:
        result: list[bytes] = []
        for value in values:
            try:
                result.append(self._encode(value))
            except SchemaMismatch as error:
                raise SchemaMismatch(f"value {len(result)}: {error}") from error
        return result

    def _decode_alone(self, data: bytes | memoryview) -> Any:
        raise DecodeError(
            f"{len(data)} bytes alone do not say which of {self._known} they are: the header {TYPE!r} of a message does"
        )

    def _decode_message(self, message: Message[Any], data: bytes) -> Any:
        said = message.headers.get(TYPE)
        if said is None:
            raise DecodeError(
                f"the message has no header {TYPE!r}, which says which of {self._known} its {len(data)} bytes are; "
                f"read `.raw`, or open the channel as bytes"
            )
        known: Mapping[str, Codec] = self.types or {}
        codec = known.get(said.decode("utf-8", "replace"))
        if codec is None or codec.decode is None:
            raise DecodeError(
                f"the header {TYPE!r} says {said[:100].decode('utf-8', 'replace')!r}, and the channel was opened with "
                f"{self._known}: add the type, read `.raw`, or open the channel as bytes"
            )
        return codec.decode(data)


def _members(type_: Any) -> tuple[Any, ...]:
    """What a union is of, flat; of anything else nothing."""
    if get_origin(type_) is Annotated:
        return _members(get_args(type_)[0])
    if not isinstance(type_, type) and hasattr(type_, "__value__"):  # the `type` statement
        return _members(type_.__value__)
    if get_origin(type_) not in (Union, types.UnionType):
        return ()
    result: list[Any] = []
    for argument in get_args(type_):
        result.extend(_members(argument) or (argument,))
    return tuple(result)


def _plain(type_: Any) -> Any:
    """The class behind a generic alias or an annotation."""
    if get_origin(type_) is Annotated:
        return _plain(get_args(type_)[0])
    return get_origin(type_) or type_


def _has_fields(type_: Any) -> bool:
    cls = _plain(type_)
    if not isinstance(cls, type):
        return False
    return (
        issubclass(cls, msgspec.Struct)
        or dataclasses.is_dataclass(cls)
        or is_typeddict(cls)
        or hasattr(cls, "__attrs_attrs__")
        or hasattr(cls, "model_validate_json")
        or (issubclass(cls, tuple) and hasattr(cls, "_fields"))
    )


def _is_tagged(type_: Any) -> bool:
    cls = _plain(type_)
    return issubclass(cls, msgspec.Struct) and cls.__struct_config__.tag is not None


def _one_of(codecs: Mapping[str, Codec]) -> Schema:
    """One schema for all members; shared definitions move to the root, where their references look for them."""
    found: list[dict[str, Any]] = []
    definitions: dict[str, Any] = {}
    for name, codec in codecs.items():
        schema = codec.schema()
        if schema is None:
            return None
        schema = dict(schema)
        definitions.update(schema.pop("$defs", {}))
        found.append(schema if "$ref" in schema else {"title": name, **schema})
    return {"oneOf": found, "$defs": definitions} if definitions else {"oneOf": found}
