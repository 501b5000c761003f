"""Are the values that are made up for a channel values of its type?"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, TypedDict

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidelog.codec import codec_for
from tidelog.testing.strategies import of_type
from tidelog.testing.typed import distinct


class Item(msgspec.Struct):
    sku: str
    pieces: Annotated[int, msgspec.Meta(ge=1, le=5)]
    code: Annotated[str, msgspec.Meta(pattern="^[a-m]+$")] = "a"


class Order(msgspec.Struct):
    id: int
    items: list[Item]
    parent: Order | None = None


@dataclasses.dataclass
class Point:
    x: float
    y: float
    tags: dict[str, int]


class Row(TypedDict):
    name: str
    pair: tuple[int, bool]


class Left(msgspec.Struct, tag=True):
    a: int


class Right(msgspec.Struct, tag=True):
    b: str


TICK = np.dtype([("sym", "S8"), ("px", "f8"), ("qty", "i4")])


@pytest.mark.parametrize(
    "type_", [None, bytes, str, int, float, Order, Point, Row, Left | Right, list[Item], dict[str, int]]
)
def test_a_channel_takes_them_and_gives_them_back(type_: Any) -> None:
    codec = codec_for(type_)
    encode, decode = codec.encode or bytes, codec.decode or bytes

    @given(of_type(type_))
    def check(value: Any) -> None:
        assert decode(encode(value)) == value

    check()


def test_rows() -> None:
    codec = codec_for(TICK)
    assert codec.encode is not None
    for value in distinct(of_type(TICK), 5, 1, codec.encode):
        assert len(codec.encode(value)) == TICK.itemsize


def test_distinct_values() -> None:
    found = distinct(of_type(Order), 8, 1, msgspec.json.encode)
    assert len({one.id for one in found}) == 8
    assert found == distinct(of_type(Order), 8, 1, msgspec.json.encode)
    assert found != distinct(of_type(Order), 8, 2, msgspec.json.encode)
    assert sorted(distinct(of_type(bool), 9, 1, msgspec.json.encode)) == [False, True]


def test_what_cannot_be_sent_is_left_out() -> None:
    def odd_only(value: int) -> bytes:
        if value % 2 == 0:
            raise ValueError(value)
        return b"%d" % value

    assert all(value % 2 for value in distinct(st.integers(0, 99), 5, 1, odd_only))
