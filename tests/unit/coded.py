"""Types and values that tests of codecs write and read."""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime
import enum
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, TypedDict, TypeVar

import msgspec
import numpy as np
import pydantic
import pydantic.alias_generators

from tidelog.codec import Codec

T = TypeVar("T")


class Order(msgspec.Struct):
    id: int
    sku: str
    qty: int = 1


class Gift(Order):
    note: str = ""


class Sold(msgspec.Struct, tag=True):
    id: int


class Refunded(msgspec.Struct, tag=True):
    id: int


class Box(msgspec.Struct, Generic[T]):
    item: T


class Node(msgspec.Struct):
    next: Node | None = None


@dataclasses.dataclass
class Point:
    x: float
    y: float


class Movie(TypedDict):
    name: str
    year: int


class Pair(NamedTuple):
    a: int
    b: str


class Color(enum.Enum):
    RED = "red"


class Model(pydantic.BaseModel):
    id: int
    when: datetime.datetime | None = None


class Unknown:
    pass


Name = NewType("Name", str)
TICK = np.dtype([("sym", "S8"), ("px", "f8"), ("qty", "i4")])

VALUES: list[tuple[Any, Any]] = [
    (str, "é"),
    (Order, Order(1, "tea", 3)),
    (Order, Gift(1, "tea", 3, "hello")),
    (Point, Point(1.5, -2.0)),
    (Movie, {"name": "Alien", "year": 1979}),
    (Pair, Pair(1, "b")),
    (Color, Color.RED),
    (Model, Model(id=3)),
    (dict, {"a": [1, None, "x"]}),
    (list[Order], [Order(1, "a"), Order(2, "b")]),
    (dict[str, int], {"a": 1}),
    (tuple[int, str], (1, "a")),
    (int, 2**53),
    (float, 1.5),
    (float, 3),
    (bool, True),
    (Any, {"any": "thing"}),
    (Sold | Refunded, Refunded(3)),
    (int | None, None),
    (Literal["a", 1], "a"),
    (Annotated[int, msgspec.Meta(ge=0)], 5),
    (Name, "n"),
    (Box[int], Box(3)),
    (Node, Node(Node())),
    (datetime.datetime, datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)),
    (collections.abc.Sequence[int], [1, 2]),
    (msgspec.Raw, msgspec.Raw(b"[1]")),
]


def encode(codec: Codec, value: Any) -> bytes:
    assert codec.encode is not None
    return codec.encode(value)


def decode(codec: Codec, data: bytes | memoryview) -> Any:
    assert codec.decode is not None
    return codec.decode(data)


class Street(pydantic.BaseModel):
    number: int = pydantic.Field(alias="houseNumber")


BORN = pydantic.AliasChoices("year", "bornIn")


class Person(pydantic.BaseModel):
    """Read and written by the names that others know."""

    model_config = pydantic.ConfigDict(alias_generator=pydantic.alias_generators.to_camel)

    full_name: str
    lives_in: list[Street]
    born_in: int = pydantic.Field(validation_alias=BORN, serialization_alias="bornIn")
    secret: str = pydantic.Field("", validation_alias="password", exclude=True)
