"""Which applications are described in the tests: every pattern, every kind of type, every way to name a channel?

The records have the shape of tidelog.app's own and no more, so that a description is tested by what it reads.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated, Any, Literal, TypedDict

import msgspec
import numpy as np
import pydantic
from msgspec import Meta

# --- the shape ---


@dataclass(frozen=True)
class Spec:
    """A channel."""

    name: str
    kind: str = "queue"
    type: Any = None
    reply: Any = None
    partitions: int | None = None
    carries: str | None = None
    codec: str | None = None
    retention: Any = None


def queue(name: str, type: Any = None, **more: Any) -> Spec:
    """A queue."""
    return Spec(name, "queue", type, **more)


def topic(name: str, type: Any = None, **more: Any) -> Spec:
    """A topic."""
    return Spec(name, "topic", type, **more)


@dataclass(frozen=True)
class On:
    """A handler."""

    name: str
    channel: Spec
    group: str | None = None
    sends: Spec | None = None
    dead_letter: Any = None
    delivery: str = "at-least-once"
    concurrency: Any = 1
    description: str | None = None


@dataclass(frozen=True)
class Described:
    """An application."""

    name: str
    handlers: Sequence[On] = ()
    channels: Sequence[Spec] = ()
    url: Any = None
    version: str = "1.0.0"
    description: str | None = None


# --- types ---


class Order(msgspec.Struct):
    """What a customer wants. Prices are the shop's matter."""

    id: Annotated[int, Meta(ge=1)]
    sku: Annotated[str, Meta(min_length=1, max_length=32, examples=["tea"])]
    qty: Annotated[int, Meta(ge=1, le=1000)] = 1
    note: str | None = None


class Invoice(msgspec.Struct, forbid_unknown_fields=True):
    """What a customer owes."""

    order: Order
    total: decimal.Decimal
    due: datetime.date
    state: Literal["open", "paid"] = "open"


class Created(msgspec.Struct):
    """Something began."""

    id: uuid.UUID
    at: datetime.datetime


class Cancelled(msgspec.Struct):
    """Something ended before it was done."""

    id: uuid.UUID
    reason: str


class QuoteRequest(msgspec.Struct):
    """What does it cost?"""

    sku: str
    qty: int


class Quote(msgspec.Struct):
    """It costs this."""

    sku: str
    cents: int


class Refused(msgspec.Struct):
    """There is no price."""

    sku: str
    why: str


class Colour(enum.Enum):
    """Of a thing."""

    RED = "red"
    GREEN = "green"


@dataclass
class Plain:
    """A dataclass."""

    name: str
    colours: list[Colour]
    size: tuple[int, int]
    weights: dict[str, float] = field(default_factory=dict)


class Typed(TypedDict, total=False):
    """A TypedDict."""

    name: str
    count: int


class Inner(pydantic.BaseModel):
    """Within."""

    value: int = pydantic.Field(ge=3, multiple_of=5)


class Model(pydantic.BaseModel):
    """A pydantic model."""

    title: str = pydantic.Field(max_length=10, examples=["tea"])
    inner: Inner
    many: list[Inner] = []
    pair: tuple[int, str] = (1, "a")
    code: str = pydantic.Field("AB12", pattern=r"^[A-Z]{2}\d{2}$")


class Patterned(msgspec.Struct):
    """No example can be made up for it."""

    code: Annotated[str, Meta(pattern=r"^[A-Z]{2}\d{2}$")]


class Tree(msgspec.Struct):
    """Holds itself."""

    name: str
    children: list[Tree] = []
    parent: Tree | None = None


class Cat(msgspec.Struct, tag="cat"):
    """Tagged."""

    lives: int


class Dog(msgspec.Struct, tag="dog"):
    """Tagged as well."""

    tricks: set[str]


class Zoo(msgspec.Struct):
    """Holds a tagged union."""

    animals: list[Cat | Dog]
    raw: bytes
    anything: Any
    ratio: Annotated[float, Meta(gt=0, lt=1)]
    pause: timedelta
    when: datetime.time


class Compact(msgspec.Struct, array_like=True):
    """An array on the wire."""

    x: int
    y: float = 0.5


Tick = np.dtype([("sym", "S8"), ("px", "<f8"), ("qty", "<i4"), ("book", "<f4", (2, 3))])

TYPES: dict[str, Any] = {
    "bytes": None,
    "text": str,
    "order": Order,
    "invoice": Invoice,
    "dataclass": Plain,
    "typed-dict": Typed,
    "pydantic": Model,
    "patterned": Patterned,
    "tree": Tree,
    "zoo": Zoo,
    "compact": Compact,
    "rows": Tick,
    "numbers": np.dtype("<i8"),
    "list": list[Order],
    "mapping": dict[str, int],
    "number": int,
    "anything": Any,
    "optional": Order | None,
    "tagged": Cat | Dog,
    "union": Created | Cancelled,
}


def _twin() -> type:
    """Another class that is called Order."""
    return msgspec.defstruct("Order", [("number", str)])


# --- applications ---

orders = queue("orders", Order, partitions=8, retention=timedelta(days=7))
invoices = queue("invoices", Invoice, carries="document")
prices = topic("prices", Tick, partitions=2, retention=1 << 30)
changes = topic("changes", Created | Cancelled, retention="consumed")
quotes = queue("quotes", QuoteRequest, reply=Quote | Refused)

APPS: dict[str, Described] = {
    "one-way": Described(
        "billing",
        [
            On(
                "bill",
                orders,
                sends=invoices,
                dead_letter="orders.dead",
                concurrency="key",
                description="Write the invoice. One for each order.\n\nNothing is sent twice.",
            )
        ],
        url="shop.log",
        description="Writes invoices.",
    ),
    "one-way, the other side": Described("shop", channels=[orders], url="tidelog:///var/lib/shop"),
    "publish-subscribe": Described(
        "charts",
        [
            On("plot", prices, "chart", concurrency=4),
            On("audit", prices, "audit", delivery="at-most-once"),
            On("watch", changes, "charts", sends=topic("alarms", str)),
        ],
        [prices, changes],
        url="memory:",
    ),
    "async-response": Described("pricing", [On("quote", quotes, description="Say what it costs.")]),
    "async-response, the other side": Described("basket", channels=[quotes, topic("polls", str, reply=int)]),
    "cluster": Described("far", [On("bill", orders)], url="kafkas://a:9093,b:9093?sasl=scram-sha-256"),
    "plain cluster": Described("near", [On("bill", orders)], url="kafka://localhost"),
    "all types": Described(
        "zoo",
        [On(f"on_{name.replace('-', '_')}", topic(name, type), "zoo") for name, type in TYPES.items()],
    ),
    "all types, packed": Described(
        "packed",
        channels=[queue(name, TYPES[name], codec="msgpack") for name in ("order", "dataclass", "zoo", "compact")],
    ),
    "all types, asked": Described(
        "asked",
        channels=[queue(name, type, reply=type if type is not None else bytes) for name, type in TYPES.items()],
    ),
    "names": Described(
        "names",
        [
            On("handle", quotes),
            On("handle", orders, dead_letter=queue("dead")),
            On("handle", queue("twins", _twin()), dead_letter="dead"),
            On("send.alarms", topic("prices", Tick), "alarms", sends=queue("alarms", str)),
        ],
        [queue("reply.quotes", str), queue("reply.twins", str)],
    ),
    "nothing": Described("nothing"),
}
