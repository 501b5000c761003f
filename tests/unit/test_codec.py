"""Does every kind of type go to bytes and back, strictly, and do wrong values and bytes raise what they should?"""

from __future__ import annotations

import math
import subprocess
import sys
import threading
import typing
from collections.abc import Iterator
from typing import Any, Literal

import msgspec
import numpy as np
import pydantic
import pydantic.alias_generators
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.coded import (
    TICK,
    VALUES,
    Gift,
    Model,
    Movie,
    Name,
    Order,
    Person,
    Point,
    Refunded,
    Sold,
    Street,
    Unknown,
    decode,
    encode,
)
from tidelog.codec import codec_for
from tidelog.errors import DecodeError, SchemaMismatch


def test_a_model_with_aliases_reads_what_it_wrote() -> None:
    codec = codec_for(Person)
    person = Person(fullName="Ann", livesIn=[Street(houseNumber=3)], year=1999)
    data = encode(codec, person)
    assert msgspec.json.decode(data) == {"fullName": "Ann", "livesIn": [{"houseNumber": 3}], "bornIn": 1999}
    assert decode(codec, data) == person
    schema = codec.schema()
    assert schema is not None and {"fullName", "livesIn"} <= set(schema["properties"])
    assert set(schema["$defs"]["Street"]["properties"]) == {"houseNumber"}


def test_a_model_that_cannot_read_what_it_writes_is_refused() -> None:
    class Inner(pydantic.BaseModel):
        size: int = pydantic.Field(validation_alias="in", serialization_alias="out")

    class Outer(pydantic.BaseModel):
        inner: dict[str, list[Inner] | None]

    class Renamed(pydantic.BaseModel):
        size: int = pydantic.Field(validation_alias="in")

        @pydantic.model_validator(mode="before")
        @classmethod
        def translate(cls, data: Any) -> Any:
            return {"in": data.get("size", data.get("in"))}

    class ByName(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(populate_by_name=True)

        size: int = pydantic.Field(validation_alias="in")

    for type_ in (Inner, Outer):
        with pytest.raises(TypeError, match="Inner.size is written as 'out', and no field is read by that name"):
            codec_for(type_)
    for value in (Renamed(size=3), ByName(size=3)):
        codec = codec_for(type(value))
        assert decode(codec, encode(codec, value)) == value


@pytest.mark.parametrize(("type_", "value"), VALUES)
@pytest.mark.parametrize("name", [None, "msgpack"])
def test_round_trip(type_: Any, value: Any, name: str | None) -> None:
    if name == "msgpack" and type_ in (Model, msgspec.Raw):
        return  # a model has its own JSON only; a Raw holds the bytes of one codec
    codec = codec_for(type_, name)
    data = encode(codec, value)
    assert type(data) is bytes
    assert codec.encode_many is not None
    assert codec.decode_many is not None
    assert codec.encode_many(iter([value, value])) == [data, data]
    for given_data in (data, memoryview(data)):
        result = decode(codec, given_data)
        assert result == (Order(1, "tea", 3) if type(value) is Gift else value)
    assert codec.decode_many([data, memoryview(data)]) == [decode(codec, data)] * 2


def test_bytes_go_to_the_core_as_they_are() -> None:
    for codec in (
        codec_for(),
        codec_for(bytes),
        codec_for(memoryview),
        codec_for(Order, "raw"),
        codec_for(TICK, "raw"),
    ):
        assert (codec.name, codec.type_name, codec.signature) == ("raw", "bytes", "raw")
        assert [codec.encode, codec.decode, codec.encode_many, codec.decode_many, codec.dtype] == [None] * 5
        assert codec.schema() is None
    with pytest.raises(TypeError, match="has no rows"):
        codec_for().rows([b"a"])


@pytest.mark.parametrize(
    ("type_", "name", "codec", "signature"),
    [
        (str, "str", "utf-8", "utf-8"),
        (Order, "Order", "json", "json"),
        (Model, "Model", "json", "json"),
        (list[Order], "list[Order]", "json", "json"),
        (Sold | Refunded, "Sold | Refunded", "json", "json"),
        (typing.Optional[Order], "Order | None", "json", "json"),  # noqa: UP045
        (Literal["a", 1], "Literal['a', 1]", "json", "json"),
        (np.dtype("f8"), "float64", "dtype", 'dtype [["","<f8"]]'),
        (np.float32, "float32", "dtype", 'dtype [["","<f4"]]'),
        (TICK, "dtype[sym, px, qty]", "dtype", 'dtype [["sym","|S8"],["px","<f8"],["qty","<i4"]]'),
    ],
)
def test_names_and_signatures(type_: Any, name: str, codec: str, signature: str) -> None:
    built = codec_for(type_)
    assert (built.type_name, built.name, built.signature) == (name, codec, signature)
    assert codec in repr(built)


def test_schemas() -> None:
    schema = codec_for(Order).schema()
    assert schema is not None
    assert schema["$defs"]["Order"]["required"] == ["id", "sku"]
    assert codec_for(Order, "msgpack").schema() == schema
    assert codec_for(str).schema() == {"type": "string"}
    assert codec_for(Model).schema() == Model.model_json_schema()
    ticks = codec_for(TICK).schema()
    assert ticks is not None
    assert ticks["x-tidelog-dtype"][0] == ["sym", "|S8"]
    msgspec.json.encode([schema, ticks])
    assert codec_for(msgspec.msgpack.Ext, "msgpack").schema() is None


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (str, b"a"),
        (str, None),
        (Order, {"id": 1, "sku": "a"}),
        (Order, Sold(1)),
        (Order, None),
        (Point, (1.0, 2.0)),
        (Movie, Order(1, "a")),
        (Model, {"id": 1}),
        (Model, Order(1, "a")),
        (int, True),
        (float, True),
        (int | str, False),
        (int, "1"),
        (list[int], (1, 2)),
        (Sold | Refunded, Order(1, "a")),
        (Literal["a"], 1),
        (Any, object()),
        (dict, {"a": object()}),
        (Name, 3),
    ],
)
def test_wrong_values_are_a_schema_mismatch(type_: Any, value: Any) -> None:
    codec = codec_for(type_)
    with pytest.raises(SchemaMismatch) as caught:
        encode(codec, value)
    assert codec.type_name in str(caught.value)
    assert codec.encode_many is not None
    with pytest.raises(SchemaMismatch, match="value 0: "):
        codec.encode_many([value])


def test_values_that_msgspec_cannot_write() -> None:
    loop: list[Any] = []
    loop.append(loop)
    for type_, value in ((list, loop), (dict, {1.5j: 1}), (str, "\ud800"), (Order, Order("\ud800", "a"))):  # type: ignore[arg-type]
        with pytest.raises(SchemaMismatch, match="cannot be written as"):
            encode(codec_for(type_), value)


def test_encode_many_names_the_place_and_leaves_foreign_errors_alone() -> None:
    codec = codec_for(Order)
    assert codec.encode_many is not None
    with pytest.raises(SchemaMismatch, match="value 2: expected Order, got str"):
        codec.encode_many([Order(1, "a"), Gift(1, "b"), "c"])

    def broken() -> Iterator[Order]:
        yield Order(1, "a")
        raise ValueError("mine")

    with pytest.raises(ValueError, match="^mine$"):
        codec.encode_many(broken())


@pytest.mark.parametrize(
    ("type_", "data", "because"),
    [
        (str, b"\xff", "invalid start byte"),
        (Order, b'{"id":"1","sku":"a"}', r"Expected `int`, got `str` - at `\$.id`"),
        (Order, b'{"id":1}', "missing required field `sku`"),
        (Order, b'{"id":1,"sku":"a"} x', "trailing characters"),
        (Order, b"", "truncated"),
        (int, b"1.5", "Expected `int`"),
        (Movie, b'{"name":"x"}', "year"),
        (Sold | Refunded, b'{"type":"Other","id":1}', "Other"),
        (Model, b'{"id":"x"}', "id"),
        (Model, b"\xff", "Invalid JSON|invalid"),
        (Any, b"[" * 100_000, "recursion|truncated"),
        (TICK, b"\0" * 19, "a row has 20 bytes"),
    ],
)
def test_wrong_bytes_are_a_decode_error(type_: Any, data: bytes, because: str) -> None:
    codec = codec_for(type_)
    with pytest.raises(DecodeError, match=because) as caught:
        decode(codec, data)
    assert codec.type_name in str(caught.value)
    assert ".raw" in str(caught.value)
    assert codec.decode_many is not None
    with pytest.raises(DecodeError, match="message 0: "):
        codec.decode_many(iter([data]))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_a_decode_error(data: bytes) -> None:
    for type_, name in ((Order, None), (Any, None), (Any, "msgpack"), (Order, "msgpack"), (Model, None), (str, None)):
        try:
            decode(codec_for(type_, name), data)
        except DecodeError:
            continue


@pytest.mark.parametrize("type_", [Unknown, list[Unknown], dict[str, Unknown | None], object(), 3, Order | Sold | int])
def test_types_that_cannot_be_written(type_: Any) -> None:
    with pytest.raises(TypeError, match="cannot be the type of a channel"):
        codec_for(type_)


@pytest.mark.parametrize(
    ("type_", "codec", "because"),
    [
        (Order, "pickle", "does not exist: use one of raw, utf-8, json, msgpack, dtype"),
        (None, "json", "needs a type"),
        (TICK, "json", "does not fit"),
        (Order, "dtype", "needs a numpy dtype, not Order"),
        (Order, "utf-8", "is for str, not Order"),
        (Model, "msgpack", "does not fit Model"),
    ],
)
def test_codecs_that_do_not_fit(type_: Any, codec: str, because: str) -> None:
    with pytest.raises(ValueError, match=because):
        codec_for(type_, codec)


def test_str_may_also_be_json() -> None:
    assert encode(codec_for(str, "json"), 'a"') == b'"a\\""'


def test_nan_needs_msgpack() -> None:
    assert math.isnan(decode(codec_for(float, "msgpack"), encode(codec_for(float, "msgpack"), math.nan)))
    with pytest.raises(DecodeError):
        decode(codec_for(float), encode(codec_for(float), math.nan))


def test_one_codec_serves_many_threads() -> None:
    codec = codec_for(Order)
    wrong: list[Any] = []

    def work(n: int) -> None:
        for i in range(2000):
            value = Order(i, str(n) * 50, n)
            if decode(codec, encode(codec, value)) != value:
                wrong.append(value)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_importing_stays_cheap() -> None:
    code = (
        "import sys, tidelog.codec as c; assert 'numpy' not in sys.modules; c.codec_for(int); c.codec_for(str);"
        "assert not {'numpy', 'pydantic', 'lz4', 'cramjam', 'tidelog.rows'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})
