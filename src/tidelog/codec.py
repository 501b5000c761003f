"""How does a value become bytes and bytes a value again, for the type a channel was given?

Floor 3: may import errors, and rows (which imports numpy) once a dtype is given. msgspec is imported here; pydantic
never (its models are known by their methods). Thread rule: a `Codec` never changes after it was built and all its
functions may be called from any thread, always outside all locks.

What is checked: at sending, the value's own class (`isinstance`, with the exact class as fast path; about 25 ns), not
its fields and not the items of a container: msgspec encoders do not look at types. At receiving, everything: decoding
is strict, so a wrong field sent by somebody else is a `DecodeError` that names the field. JSON has no NaN: msgspec
writes null for it, which a float field refuses to read; use codec="msgpack" or a dtype for such data.
"""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin, is_typeddict

import msgspec

from tidelog.errors import DecodeError, SchemaMismatch

if TYPE_CHECKING:
    import numpy as np

    from tidelog._native import Message

Encode: TypeAlias = Callable[[Any], bytes]
Decode: TypeAlias = Callable[["bytes | memoryview"], Any]
Schema: TypeAlias = "dict[str, Any] | None"

NAMES = ("raw", "utf-8", "json", "msgpack", "dtype")
"""Every codec name that a definition may hold."""

_ENCODE_FAILURES = (TypeError, ValueError, OverflowError, RecursionError)
_DECODE_FAILURES = (ValueError, TypeError, RecursionError)  # msgspec's and pydantic's own derive from ValueError


class Codec:
    """One channel's way between values and bytes.

    `name`: one of NAMES. `type_name`: for descriptions ("Order"). `encode`: value -> bytes, raises SchemaMismatch; None
    means that values are bytes already. `decode`: bytes or memoryview -> value, raises DecodeError; None means bytes.
    `encode_many`, `decode_many`: lists of them, cheaper than one by one; the error names the place in the list.
    `dtype`: numpy dtype of fixed-width rows, or None. `descr`: the same as nested lists that JSON can hold.
    `signature`: what opening a channel again compares: the name, and the rows' layout. Of a union whose members a
    header tells apart (see unions): `types`: the members' codecs by name, `type_of`: value -> name of its type, raises
    SchemaMismatch, `decode_message`: (message, bytes) -> value; None for everything else.
    """

    __slots__ = (
        "_schema",
        "decode",
        "decode_many",
        "decode_message",
        "descr",
        "dtype",
        "encode",
        "encode_many",
        "name",
        "signature",
        "type_name",
        "type_of",
        "types",
    )

    def __init__(
        self,
        name: str,
        type_name: str,
        encode: Encode | None = None,
        decode: Decode | None = None,
        *,
        classes: tuple[type, ...] | None = None,
        schema: Callable[[], Schema] = lambda: None,
        dtype: np.dtype[Any] | None = None,
    ) -> None:
        """`encode` and `decode` may raise the builtin errors: the checks and tidelog's errors are put around them here.
        `classes`: what a value must be an instance of; None: anything."""
        self.name = name
        self.type_name = type_name
        self.dtype = dtype
        self.descr = None if dtype is None else dtype_descr(dtype)
        self.signature = name if self.descr is None else f"{name} {msgspec.json.encode(self.descr).decode()}"
        self._schema = schema
        self.encode: Encode | None = None
        self.decode: Decode | None = None
        self.encode_many: Callable[[Iterable[Any]], list[bytes]] | None = None
        self.decode_many: Callable[[Iterable[bytes | memoryview]], list[Any]] | None = None
        self.types: Mapping[str, Codec] | None = None
        self.type_of: Callable[[Any], str] | None = None
        self.decode_message: Callable[[Message[Any], bytes], Any] | None = None
        if encode is not None:
            self.encode, self.encode_many = _checked_encoders(encode, type_name, classes)
        if decode is not None:
            self.decode, self.decode_many = _checked_decoders(decode, type_name)

    def __repr__(self) -> str:
        return f"<Codec {self.name} of {self.type_name}>"

    def schema(self) -> Schema:
        """JSON Schema of the values for API descriptions, or None where there is none to give (bytes, exotic types)."""
        return self._schema()

    def rows(self, values: Any) -> np.ndarray[Any, np.dtype[Any]]:
        """`values` as one contiguous array of this codec's dtype, copied only if needed.

        `values`: an array of the dtype, an array or a dict of columns with the same names, or an iterable of rows.
        Raises TypeError if this is no dtype codec, SchemaMismatch if names differ, lengths differ or values do not fit.
        """
        if self.dtype is None or self.encode_many is None:
            raise TypeError(f"a channel of {self.type_name} has no rows: only a numpy dtype has")
        from tidelog import rows

        return rows.as_rows(self.dtype, values, self.encode_many)


def _checked_encoders(
    encode: Encode, expected: str, classes: tuple[type, ...] | None
) -> tuple[Encode, Callable[[Iterable[Any]], list[bytes]]]:
    exact: object = classes[0] if classes else None
    # bool is an int for Python, but "true" is no number for whoever reads it.
    no_bool = classes is not None and bool not in classes and (int in classes or float in classes)

    def encode_one(value: Any) -> bytes:
        if type(value) is not exact and not (classes is None or isinstance(value, classes)):
            raise SchemaMismatch(f"expected {expected}, got {type(value).__qualname__}: send what the channel holds")
        if no_bool and isinstance(value, bool):
            raise SchemaMismatch(f"expected {expected}, got bool: write int({value}) if a number is meant")
        try:
            return encode(value)
        except _ENCODE_FAILURES as error:
            raise SchemaMismatch(f"this {type(value).__qualname__} cannot be written as {expected}: {error}") from error

    def encode_many(values: Iterable[Any]) -> list[bytes]:
        items = values if isinstance(values, list | tuple) else list(values)  # what the iterable raises is not ours
        try:
            return [encode(value) if type(value) is exact else encode_one(value) for value in items]
        except _ENCODE_FAILURES:
            pass
        result = []
        for value in items:  # the slow way, to name the place
            try:
                result.append(encode_one(value))
            except SchemaMismatch as error:
                raise SchemaMismatch(f"value {len(result)}: {error}") from error
        return result

    return encode_one, encode_many


def _checked_decoders(
    decode: Decode, expected: str
) -> tuple[Decode, Callable[[Iterable[bytes | memoryview]], list[Any]]]:
    def decode_one(data: bytes | memoryview) -> Any:
        try:
            return decode(data)
        except _DECODE_FAILURES as error:
            raise DecodeError(
                f"these {len(data)} bytes are not {expected}: {error}; read `.raw`, or open the channel as bytes"
            ) from error

    def decode_many(items: Iterable[bytes | memoryview]) -> list[Any]:
        data = items if isinstance(items, list | tuple) else list(items)
        try:
            return list(map(decode, data))
        except _DECODE_FAILURES:
            pass
        result = []
        for item in data:
            try:
                result.append(decode_one(item))
            except DecodeError as error:
                raise DecodeError(f"message {len(result)}: {error}") from error
        return result

    return decode_one, decode_many


def codec_for(type_: Any = None, codec: str | None = None) -> Codec:
    """The codec of a channel of `type_`: None and bytes are raw, str is UTF-8, a numpy dtype is fixed-width rows, a
    pydantic model is JSON, everything msgspec knows (Struct, dataclass, TypedDict, attrs, builtins, containers, tagged
    unions) is JSON or, with codec="msgpack", MessagePack, and a union of classes is told apart by the header `type`.
    codec="raw" sends and receives bytes whatever the type is.

    Raises TypeError if the type cannot be written, ValueError for an unknown codec or one that does not fit the type.
    """
    if codec is not None and codec not in NAMES:
        raise ValueError(f"codec {codec!r} does not exist: use one of {', '.join(NAMES)}")
    # By identity: numpy's dtypes compare equal to builtin classes.
    if codec == "raw" or (codec is None and any(type_ is known for known in (None, bytes, bytearray, memoryview))):
        return Codec("raw", "bytes")
    if type_ is None:
        raise ValueError(f"codec {codec!r} needs a type: give the class of the messages, or codec='raw'")
    dtype = _as_dtype(type_)
    if dtype is not None:
        _only(codec, "dtype", type_)
        return _dtype_codec(dtype)
    if codec == "dtype":
        raise ValueError(f"codec 'dtype' needs a numpy dtype, not {type_name(type_)}")
    if type_ is str and codec in (None, "utf-8"):
        return Codec("utf-8", "str", str.encode, _decode_text, classes=(str,), schema=lambda: {"type": "string"})
    if codec == "utf-8":
        raise ValueError(f"codec 'utf-8' is for str, not {type_name(type_)}")
    if hasattr(type_, "model_dump_json") and hasattr(type_, "model_validate_json"):
        _only(codec, "json", type_)
        return _pydantic_codec(type_)
    if get_args(type_) or hasattr(type_, "__value__"):
        from tidelog.unions import union_codec  # which makes codecs of its members by this function

        union = union_codec(type_, codec)
        if union is not None:
            return union
    return _msgspec_codec(type_, codec or "json")


def _only(codec: str | None, name: str, type_: Any) -> None:
    if codec not in (None, name):
        raise ValueError(f"codec {codec!r} does not fit {type_name(type_)}: leave it out ({name!r}) or use 'raw'")


def _decode_text(data: bytes | memoryview) -> str:
    return str(data, "utf-8")


def _require_readable(model: Any, seen: set[Any]) -> None:
    """Raise TypeError for a pydantic model, or one inside it, that writes a field by one name and reads it by another.

    A model with validators or serializers of its own for the whole may well translate: it is believed.
    """
    for part in get_args(model):
        _require_readable(part, seen)
    if not hasattr(model, "__pydantic_decorators__") or not hasattr(model, "model_fields") or model in seen:
        return
    seen.add(model)
    own, config = model.__pydantic_decorators__, model.model_config
    by_name = config.get("populate_by_name") or config.get("validate_by_name")
    by_alias = config.get("validate_by_alias", True)
    for name, field in model.model_fields.items():
        written = name if field.serialization_alias is None else field.serialization_alias
        alias = name if field.validation_alias is None else field.validation_alias
        read = [alias] if isinstance(alias, str) else getattr(alias, "choices", [])
        fits = (by_alias and written in read) or (by_name and written == name) or field.exclude
        if not (fits or own.model_validators or own.model_serializers):
            raise TypeError(
                f"{type_name(model)}.{name} is written as {written!r}, and no field is read by that name: give it "
                f"alias=, which is for both, or make the validation alias AliasChoices(..., {written!r})"
            )
        _require_readable(field.annotation, seen)


def _pydantic_codec(model: Any) -> Codec:
    """How strict decoding is, the model's own `model_config` says. The JSON has the fields' aliases: it is what others
    see, and what the schema describes."""
    _require_readable(model, set())
    validate = model.model_validate_json

    def encode(value: Any) -> bytes:
        return value.model_dump_json(by_alias=True).encode()  # type: ignore[no-any-return]

    def decode(data: bytes | memoryview) -> Any:
        return validate(data if type(data) is bytes else bytes(data))

    def schema() -> Schema:
        try:
            return model.model_json_schema(by_alias=True)  # type: ignore[no-any-return]
        except Exception:  # the model's own code; a description is never worth a failure
            return None

    return Codec("json", type_name(model), encode, decode, classes=(model,), schema=schema)


def _msgspec_codec(type_: Any, codec: str) -> Codec:
    name = type_name(type_)
    try:
        unknown = _custom_type(msgspec.inspect.type_info(type_), set())
        if unknown is not None:
            raise TypeError(f"{unknown.__qualname__} is no type that can be written")
        decoder: Any = msgspec.json.Decoder(type_) if codec == "json" else msgspec.msgpack.Decoder(type_)
    except (TypeError, ValueError, NameError, RecursionError) as error:
        raise TypeError(
            f"{name} cannot be the type of a channel: {error}; use bytes, str, a numpy dtype, a msgspec.Struct, "
            f"dataclass, TypedDict, pydantic model, or builtin types and containers of these"
        ) from error
    encoder: Any = msgspec.json.Encoder() if codec == "json" else msgspec.msgpack.Encoder()

    def schema() -> Schema:
        try:
            return msgspec.json.schema(type_)
        except (TypeError, ValueError):
            return None

    return Codec(codec, name, encoder.encode, decoder.decode, classes=_classes(type_), schema=schema)


def _custom_type(node: Any, seen: set[int]) -> type | None:
    """The first class within a msgspec type description that msgspec has no format for. Types may be recursive."""
    if isinstance(node, msgspec.inspect.CustomType):
        return node.cls
    if isinstance(node, msgspec.inspect.Type | msgspec.inspect.Field) and id(node) not in seen:
        seen.add(id(node))
        children = [getattr(node, field) for field in node.__struct_fields__ if field not in ("cls", "default")]
    elif isinstance(node, tuple):
        children = list(node)
    else:
        return None
    return next((found for child in children if (found := _custom_type(child, seen)) is not None), None)


def _classes(type_: Any) -> tuple[type, ...] | None:
    """The classes whose instances are values of an annotation, seen from outside; None: not to be said that way."""
    origin = get_origin(type_)
    if type_ is None:
        return (types.NoneType,)
    if type_ is Any:  # a class since Python 3.11, though nothing is an instance of it
        return None
    if origin is Annotated:
        return _classes(get_args(type_)[0])
    if origin is Literal:
        return tuple({type(argument) for argument in get_args(type_)})
    if origin in (Union, types.UnionType):
        parts = [_classes(argument) for argument in get_args(type_)]
        return None if None in parts else tuple(part for group in parts if group for part in group)
    for alias in ("__supertype__", "__value__"):  # NewType, and the `type` statement
        if origin is None and not isinstance(type_, type) and hasattr(type_, alias):
            return _classes(getattr(type_, alias))
    plain = origin if isinstance(origin, type) else type_
    if is_typeddict(plain):
        return (dict,)
    if not isinstance(plain, type) or plain is object:
        return None
    return (float, int) if plain is float else (plain,)


def type_name(type_: Any) -> str:
    """A short name for people: "Order", "list[Order]", "Order | Refund"."""
    arguments = get_args(type_)
    origin = get_origin(type_)
    if origin is Annotated:
        return type_name(arguments[0])
    if origin in (Union, types.UnionType):
        return " | ".join(type_name(argument) for argument in arguments)
    if type_ in (None, types.NoneType):
        return "None"
    if arguments:
        inner = ", ".join(repr(part) if origin is Literal else type_name(part) for part in arguments)
        return f"{getattr(origin, '__name__', origin)}[{inner}]"
    return str(getattr(type_, "__name__", type_))


# --- numpy dtypes: fixed-width rows ---


def _as_dtype(type_: Any) -> np.dtype[Any] | None:
    """The dtype if `type_` is one, or a numpy scalar class. Without numpy imported by the caller it cannot be one."""
    numpy = sys.modules.get("numpy")
    if not (hasattr(numpy, "dtype") and hasattr(numpy, "generic")):  # not there, or another thread is importing it now
        return None
    assert numpy is not None
    if isinstance(type_, numpy.dtype):
        return type_  # type: ignore[no-any-return]
    return numpy.dtype(type_) if isinstance(type_, type) and issubclass(type_, numpy.generic) else None


def _dtype_codec(dtype: np.dtype[Any]) -> Codec:
    from tidelog import rows

    descr = dtype_descr(dtype)
    encode, decode = rows.row_codec(dtype)
    schema = {"type": "string", "contentMediaType": "application/octet-stream", "x-tidelog-dtype": descr}
    name = str(dtype) if dtype.names is None else f"dtype[{', '.join(dtype.names)}]"
    return Codec("dtype", name, encode, decode, schema=lambda: schema, dtype=dtype)


def dtype_descr(dtype: np.dtype[Any]) -> list[Any]:
    """The layout of a dtype as nested lists that JSON can hold: [[name, format] or [name, format, shape], ...].

    A plain dtype has one entry with the name "". Names "" beside others are padding. Raises TypeError for a dtype that
    rows in a file cannot have: object fields, no bytes, fields that overlap or are out of order, arrays as a whole.
    """
    if dtype.hasobject:
        raise TypeError(
            f"{dtype} holds Python objects, which no file can hold: use fixed-width fields (S, U, i, f, M8)"
        )
    if dtype.itemsize == 0 or dtype.names == ():
        raise TypeError(f"{dtype} has no bytes or no fields: give every field a width, for example 'S8'")
    if dtype.subdtype is not None:
        raise TypeError(f"{dtype} is an array as a whole: make it a field, np.dtype([('v', ...)])")
    try:
        descr = _plain_descr(dtype.descr)
        check_descr(descr)
    except ValueError as error:  # numpy's own for fields that overlap, or ours
        raise TypeError(f"{dtype} cannot be stored as rows: {error}") from error
    return descr


def _plain_descr(descr: Any) -> list[Any]:
    """Tuples to lists, titles dropped: a title is no part of the layout."""
    result = []
    for name, kind, *shape in descr:
        plain = [name[1] if isinstance(name, tuple) else name, _plain_descr(kind) if isinstance(kind, list) else kind]
        result.append([*plain, list(shape[0])] if shape else plain)
    return result


# What numpy's `descr` writes for data without pointers; anything else in a file is refused before numpy sees it.
_FORMAT = re.compile(
    r"[<>|](b1|[iu][1248]|f(2|4|8|16)|c(8|16|32)|[SUV][1-9][0-9]{0,8}|[mM]8(\[[0-9]{0,9}[a-zA-Zμ]{1,7}\])?)"
)
_MAX_DEPTH = 16
_MAX_FIELDS = 4096


def check_descr(descr: Any, depth: int = 0) -> None:
    """Raise DecodeError unless `descr` (from a file: hostile) is a layout as `dtype_descr` makes it. Needs no numpy."""
    if not isinstance(descr, list) or not 1 <= len(descr) <= _MAX_FIELDS or depth > _MAX_DEPTH:
        raise DecodeError(f"a dtype is a list of 1 to {_MAX_FIELDS} fields, nested at most {_MAX_DEPTH} deep")
    names: set[str] = set()
    for field in descr:
        if not isinstance(field, list) or len(field) not in (2, 3) or not isinstance(field[0], str):
            raise DecodeError(f"a dtype's field is [name, format] or [name, format, shape], not {field!r:.80}")
        name, kind = field[0], field[1]
        if name in names:
            raise DecodeError(f"the dtype has two fields of the name {name!r:.80}")
        names.update([name] if name else [])  # padding has no name and may stand more than once
        if isinstance(kind, list):
            check_descr(kind, depth + 1)
        elif not isinstance(kind, str) or not _FORMAT.fullmatch(kind):
            raise DecodeError(f"the dtype's field {name!r:.80} has the unknown format {kind!r:.80}")
        shape = field[2] if len(field) == 3 else [1]
        if not isinstance(shape, list) or not 1 <= len(shape) <= _MAX_DEPTH:
            raise DecodeError(f"the dtype's field {name!r:.80} has a wrong shape")
        if not all(type(side) is int and 0 < side < 1 << 31 for side in shape):
            raise DecodeError(f"the dtype's field {name!r:.80} has a wrong shape")
