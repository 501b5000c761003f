"""How do numpy values become fixed-width rows, and rows values again?

Floor 3: may import errors; imports numpy, so codec imports this file only once a dtype is given.
Thread rule: pure functions, and closures without state; callable from any thread.

Nothing is cut or wrapped silently: text longer than its field, integers out of range, fractions for integer fields and
unknown or missing columns are errors. Only rounding into floating-point fields is allowed, as numpy users expect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from tidelog.errors import DecodeError, SchemaMismatch

_ROUNDED = {("f", "f"), ("c", "c"), ("c", "f"), ("f", "i"), ("f", "u")}  # (wanted, given) kinds where rounding is usual

MAX_ROW_BYTES = 256 << 20
"""The largest message there can be, so the largest row too."""


def dtype_from_descr(descr: list[Any]) -> np.dtype[Any]:
    """The dtype of a layout that `codec.check_descr` has accepted. Raises DecodeError if numpy refuses it, or if a row
    would be larger than MAX_ROW_BYTES."""
    try:
        plain = len(descr) == 1 and descr[0][0] == ""
        dtype = _field(descr[0]) if plain else _struct(descr)
    except (TypeError, ValueError, OverflowError, MemoryError) as error:
        raise DecodeError(f"numpy cannot make a dtype of {descr!r:.200}: {error}") from error
    if dtype.hasobject or dtype.subdtype or dtype.names == () or not 0 < dtype.itemsize <= MAX_ROW_BYTES:
        raise DecodeError(f"the dtype {descr!r:.200} has no fields, or rows of {dtype.itemsize} bytes")
    return dtype


def _struct(descr: list[Any]) -> np.dtype[Any]:
    names, formats, offsets = [], [], []
    position = 0
    for field in descr:
        part = _field(field)
        if field[0]:  # a field without a name is padding
            names.append(field[0])
            formats.append(part)
            offsets.append(position)
        position += part.itemsize
        if position > MAX_ROW_BYTES:
            raise ValueError(f"a row of more than {MAX_ROW_BYTES} bytes")
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": position})


def _field(field: list[Any]) -> np.dtype[Any]:
    kind = field[1]
    part = _struct(kind) if isinstance(kind, list) else np.dtype(kind)
    return np.dtype((part, tuple(field[2]))) if len(field) == 3 else part


def row_codec(dtype: np.dtype[Any]) -> tuple[Callable[[Any], bytes], Callable[[bytes | memoryview], Any]]:
    """(encode, decode) of single rows; they raise TypeError and ValueError, which the codec turns into its own."""
    size = dtype.itemsize
    is_text = dtype.kind in "SU"

    def encode(value: Any) -> bytes:
        if isinstance(value, np.generic | np.ndarray) and value.dtype == dtype:
            if value.shape != ():
                raise TypeError(f"it is an array of shape {value.shape}: use send_many")
            return value.tobytes()
        if is_text or dtype.names is None:
            _check_scalar(value, dtype, "the value")
        elif not isinstance(value, tuple) or len(value) != len(dtype.names):
            raise TypeError(f"a row is a value of this dtype or a tuple of {len(dtype.names)} fields")
        else:
            for name, part in zip(dtype.names, value, strict=True):
                _check_scalar(part, dtype[name], f"field {name!r}")
        row = np.zeros((), dtype)  # zeros: padding bytes are stored too
        row[()] = value
        return row.tobytes()

    def decode(data: bytes | memoryview) -> Any:
        if len(data) != size:
            raise ValueError(f"a row has {size} bytes")
        # A row of a structured dtype is a view: it must not hang on to a mapped file.
        return np.frombuffer(data if type(data) is bytes else bytes(data), dtype)[0]

    return encode, decode


def _check_scalar(value: Any, dtype: np.dtype[Any], what: str) -> None:
    """Refuse what numpy would cut or wrap. Nested and array fields are left to numpy's own rules."""
    if dtype.kind == "S" and isinstance(value, str):
        value = value.encode("ascii")  # numpy's rule; UnicodeEncodeError is a ValueError
    if dtype.kind in "SU" and dtype.subdtype is None:
        if not isinstance(value, bytes if dtype.kind == "S" else str):
            raise TypeError(f"{what} is text of {dtype}, not {type(value).__qualname__}")
        room = dtype.itemsize if dtype.kind == "S" else dtype.itemsize // 4
        if len(value) > room:
            raise ValueError(f"{what} has room for {room} characters, not for {len(value)}")
    elif dtype.kind in "iu":
        if isinstance(value, bool | np.bool_) or not hasattr(value, "__index__"):
            raise TypeError(f"{what} is an integer, not {type(value).__qualname__}")
        limits = np.iinfo(dtype)
        if not limits.min <= int(value) <= limits.max:
            raise ValueError(f"{what} cannot hold {int(value)}: {dtype} is {limits.min}..{limits.max}")
    elif dtype.kind == "b" and not isinstance(value, bool | np.bool_):
        raise TypeError(f"{what} is a bool, not {type(value).__qualname__}")
    elif dtype.kind in "fc" and isinstance(value, str | bytes):
        raise TypeError(f"{what} is a number, not {type(value).__qualname__}")


def as_rows(
    dtype: np.dtype[Any], values: Any, encode_many: Callable[[Iterable[Any]], list[bytes]]
) -> np.ndarray[Any, np.dtype[Any]]:
    """`values` as one contiguous array of `dtype`: see `Codec.rows`. Raises SchemaMismatch."""
    if isinstance(values, np.ndarray):
        if values.ndim != 1:
            raise SchemaMismatch(f"rows are an array of one dimension, not of {values.ndim}: use .reshape(-1)")
        if values.dtype == dtype:
            return np.ascontiguousarray(values)
        if dtype.names is not None and values.dtype.names is not None:
            return _from_columns(dtype, {name: values[name] for name in values.dtype.names})
        if dtype.names is None and values.dtype.names is None:
            out = np.zeros(len(values), dtype)
            _fill(out, values, "the array")
            return out
        raise SchemaMismatch(f"expected rows of {dtype}, got an array of {values.dtype}")
    if isinstance(values, Mapping):
        if dtype.names is None:
            raise SchemaMismatch(f"rows of {dtype} have no columns: give an array")
        return _from_columns(dtype, {name: np.asarray(column) for name, column in values.items()})
    data = b"".join(encode_many(values))
    return np.frombuffer(data, dtype) if data else np.empty(0, dtype)


def _from_columns(dtype: np.dtype[Any], columns: Mapping[Any, np.ndarray[Any, Any]]) -> np.ndarray[Any, np.dtype[Any]]:
    names = dtype.names or ()
    if set(columns) != set(names):
        missing = [name for name in names if name not in columns]
        unknown = [name for name in columns if name not in names]
        raise SchemaMismatch(f"columns do not match the dtype: missing {missing}, unknown {unknown}")
    lengths = {name: len(column) if column.ndim else -1 for name, column in columns.items()}
    if len(set(lengths.values())) != 1 or -1 in lengths.values():
        raise SchemaMismatch(f"columns differ in length: {lengths} (-1: no column but a single value)")
    out = np.zeros(next(iter(lengths.values())), dtype)  # zeros: padding bytes are stored too
    for name, column in columns.items():
        _fill(out[name], column, f"column {name!r}")
    return out


def _fill(out: np.ndarray[Any, Any], column: np.ndarray[Any, Any], what: str) -> None:
    """Copy `column` into `out` if every value fits."""
    wanted, given = out.dtype, column.dtype
    if column.shape != out.shape:
        raise SchemaMismatch(f"{what} has the shape {column.shape}, its rows need {out.shape}")
    if (wanted.kind in "SU") != (given.kind in "SU"):
        raise SchemaMismatch(f"{what} is {given}, which is not {wanted}: convert it first")
    if not np.can_cast(given, wanted, "safe"):
        if wanted.kind in "iu" and given.kind in "iu":
            limits = np.iinfo(wanted)
            if column.size and not (limits.min <= int(column.min()) and int(column.max()) <= limits.max):
                raise SchemaMismatch(f"{what} has values outside {limits.min}..{limits.max}, the range of {wanted}")
        elif wanted.kind in "SU" and given.kind in "SU":
            room = wanted.itemsize // (4 if wanted.kind == "U" else 1)
            if column.size and int(np.char.str_len(column).max()) > room:
                raise SchemaMismatch(f"{what} has text longer than the {room} characters of {wanted}")
        elif (wanted.kind, given.kind) not in _ROUNDED:
            raise SchemaMismatch(f"{what} is {given}, which is not safely {wanted}: convert it first")
    try:
        np.copyto(out, column, casting="unsafe")
    except (TypeError, ValueError) as error:  # text that is not ASCII into S
        raise SchemaMismatch(f"{what} does not fit {wanted}: {error}") from error
