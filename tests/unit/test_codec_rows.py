"""How do rows of numbers become bytes, and which layouts are refused?"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from tests.unit.coded import TICK, decode, encode
from tidelog import rows
from tidelog.codec import check_descr, codec_for, dtype_descr
from tidelog.errors import DecodeError, SchemaMismatch

# --- rows ---

ALIGNED = np.dtype([("a", "i1"), ("b", "f8"), ("c", "U3")], align=True)
NESTED = np.dtype([("grid", "f4", (2, 3)), ("inner", [("x", "<i4"), ("when", "M8[ns]")]), ("big", ">u2")])
LAYOUTS = [TICK, ALIGNED, NESTED, np.dtype("f8"), np.dtype(">i2"), np.dtype("S5"), np.dtype("M8[25us]"), np.dtype("V7")]


@pytest.mark.parametrize("dtype", LAYOUTS)
def test_layouts_survive_json(dtype: np.dtype[Any]) -> None:
    descr = msgspec.json.decode(msgspec.json.encode(dtype_descr(dtype)))
    check_descr(descr)
    again = rows.dtype_from_descr(descr)
    assert again.itemsize == dtype.itemsize
    assert dtype_descr(again) == descr
    data = np.arange(3 * dtype.itemsize, dtype="u1").tobytes()
    assert np.frombuffer(data, again).tobytes() == np.frombuffer(data, dtype).tobytes()
    assert again.names == dtype.names
    if dtype.names:
        assert all(again.fields[name][:2] == dtype.fields[name][:2] for name in dtype.names)  # type: ignore[index]


@pytest.mark.parametrize(
    ("dtype", "because"),
    [
        (np.dtype("O"), "holds Python objects"),
        (np.dtype([("a", "i4"), ("b", "O")]), "holds Python objects"),
        (np.dtype("S"), "has no bytes"),
        (np.dtype([]), "has no bytes"),
        (np.dtype({"names": [], "formats": [], "itemsize": 4}), "no fields"),
        (np.dtype(("f8", 3)), "make it a field"),
        (np.dtype({"names": ["a", "b"], "formats": ["i4", "i4"], "offsets": [0, 2]}), "cannot be stored as rows"),
        (np.dtype([("a", "i4"), ("b", "S")]), "cannot be stored as rows"),
    ],
)
def test_dtypes_that_are_no_rows(dtype: np.dtype[Any], because: str) -> None:
    with pytest.raises(TypeError, match=because):
        codec_for(dtype)


HOSTILE: list[Any] = [
    None, {}, [], "f8", [["a"]], [["a", "<f8", [1], 2]], [[1, "<f8"]], [["a", "O"]], [["a", "|O8"]], [["a", "<f8,<f8"]],
    [["a", "<f8"], ["a", "<f8"]], [["a", []]], [["a", "<f8", []]], [["a", "<f8", [0]]], [["a", "<f8", [-1]]],
    [["a", "<f8", [True]]], [["a", "<f8", 3]], [["a", "S0"]], [["a", 3]], [["a", "|S9999999999"]], [["a", "<M8[']; x"]],
]  # fmt: skip


@pytest.mark.parametrize("descr", HOSTILE)
def test_hostile_layouts(descr: Any) -> None:
    with pytest.raises(DecodeError):
        check_descr(descr)


def test_layouts_that_only_numpy_can_refuse() -> None:
    deep: list[Any] = [["a", "<f8"]]
    for _ in range(40):
        deep = [["a", deep]]
    with pytest.raises(DecodeError, match="nested at most"):
        check_descr(deep)
    huge = [["a", "|V999999999"]]
    for descr in (huge, [["a", "<f8", [2**30, 2**30]]], [["", "<f8", [2]]], [["a", "<M8[zz]"]], [["", "|V4"]] * 2):
        check_descr(descr)
        with pytest.raises(DecodeError):
            rows.dtype_from_descr(descr)


def test_single_rows() -> None:
    codec = codec_for(TICK)
    array = np.array([(b"tea", 1.5, 3), (b"milk", 2.5, 4)], TICK)
    data = encode(codec, array[0])
    assert data == array[:1].tobytes()
    for same in ((b"tea", 1.5, 3), ("tea", np.float64(1.5), np.int64(3)), array[:1].reshape(())):
        assert encode(codec, same) == data
    row = decode(codec, memoryview(data))
    assert row == array[0]
    assert row["sym"] == b"tea"
    plain = codec_for(np.dtype("i2"))
    assert decode(plain, encode(plain, 300)) == 300
    assert encode(plain, np.int16(-1)) == b"\xff\xff"
    assert decode(codec_for(np.dtype("S5")), encode(codec_for(np.dtype("S5")), b"abc")) == b"abc"


@pytest.mark.parametrize(
    ("value", "because"),
    [
        ((b"toolongname", 1.0, 1), "room for 8 characters, not for 11"),
        (("té", 1.0, 1), "ascii"),
        ((b"a", 1.0, 1.5), "is an integer, not float"),
        ((b"a", 1.0, True), "is an integer, not bool"),
        ((b"a", 1.0, 2**31), "cannot hold 2147483648"),
        ((b"a", "1", 1), "is a number, not str"),
        ((1, 1.0, 1), "is text"),
        ((b"a", 1.0), "a tuple of 3 fields"),
        ([b"a", 1.0, 1], "a tuple of 3 fields"),
        ({"sym": b"a", "px": 1.0, "qty": 1}, "a tuple of 3 fields"),
        (np.zeros(2, TICK), "use send_many"),
        (np.zeros(1, "f8")[0], "a tuple of 3 fields"),
    ],
)
def test_rows_that_would_be_cut_are_refused(value: Any, because: str) -> None:
    with pytest.raises(SchemaMismatch, match=because):
        encode(codec_for(TICK), value)


def test_many_rows() -> None:
    codec = codec_for(TICK)
    array = np.array([(b"tea", 1.5, 3), (b"milk", 2.5, 4)], TICK)
    assert codec.rows(array) is array
    strided = codec.rows(np.repeat(array, 2)[::2])
    assert strided.flags.c_contiguous
    assert strided.tobytes() == array.tobytes()
    swapped = array.astype([("sym", "S8"), ("px", ">f8"), ("qty", ">i4")])
    columns = {"qty": [3, 4], "sym": np.array([b"tea", b"milk"]), "px": np.array([1.5, 2.5], "f4")}
    for same in (swapped, columns, [(b"tea", 1.5, 3), (b"milk", 2.5, 4)], iter(array)):
        result = codec.rows(same)
        assert result.dtype == TICK
        assert result.tobytes() == array.tobytes()
    assert len(codec.rows([])) == 0
    assert codec_for(np.dtype("f4")).rows(np.array([1, 2])).tolist() == [1.0, 2.0]
    assert codec.rows({"sym": ["té"[:1]], "px": [1], "qty": [1]})["sym"].tolist() == [b"t"]


@pytest.mark.parametrize(
    ("values", "because"),
    [
        (np.zeros((2, 2), TICK), "one dimension"),
        (np.zeros(2), "expected rows of"),
        ({"sym": [b"a"], "px": [1.0]}, r"missing \['qty'\], unknown \[\]"),
        ({"sym": [b"a"], "px": [1.0], "qty": [1], "x": [1]}, r"missing \[\], unknown \['x'\]"),
        ({"sym": [b"a"], "px": [1.0], "qty": [1, 2]}, "differ in length"),
        ({"sym": b"a", "px": 1.0, "qty": 1}, "differ in length"),
        ({"sym": [b"toolongname"], "px": [1.0], "qty": [1]}, "longer than the 8 characters"),
        ({"sym": ["é"], "px": [1.0], "qty": [1]}, "does not fit"),
        ({"sym": [5], "px": [1.0], "qty": [1]}, "convert it first"),
        ({"sym": [b"a"], "px": [1.0], "qty": [2**31]}, r"outside -2147483648\.\.2147483647"),
        ({"sym": [b"a"], "px": [1.0], "qty": [1.5]}, "not safely int32"),
        ({"sym": [b"a"], "px": [[1.0]], "qty": [1]}, "has the shape"),
        ([(b"a", 1.0, 1), (b"a", 1.0)], "value 1: "),
    ],
)
def test_many_rows_that_would_be_cut_are_refused(values: Any, because: str) -> None:
    with pytest.raises(SchemaMismatch, match=because):
        codec_for(TICK).rows(values)


def test_rows_of_a_plain_dtype_have_no_columns() -> None:
    with pytest.raises(SchemaMismatch, match="have no columns"):
        codec_for(np.dtype("f8")).rows({"a": [1]})
