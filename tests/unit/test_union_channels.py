"""Do channels of several types give each value back as the type that it was sent as?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Generic, NamedTuple, TypedDict, TypeVar

import msgspec
import pydantic
import pytest

import tidelog
from tidelog.codec import codec_for

T = TypeVar("T")


class Created(msgspec.Struct):
    """An event."""

    id: int
    sku: str = ""


class Cancelled(msgspec.Struct):
    """Another one, with a field of the same name."""

    id: int


class Amended(Created):
    """More than Created; a channel that knows only Created takes it for one."""

    note: str = ""


@dataclass
class Paid:
    """A dataclass."""

    id: int
    cents: int


class Shipped(TypedDict):
    """A dict."""

    id: int
    parcel: str


class Returned(TypedDict, total=False):
    """A dict whose keys may be missing."""

    id: int
    reason: str


class Place(NamedTuple):
    """A tuple."""

    x: int
    y: int


class Invoice(pydantic.BaseModel):
    """A pydantic model."""

    id: int
    total: float


class Receipt(pydantic.BaseModel):
    """Another one."""

    id: int


class Box(msgspec.Struct, Generic[T]):
    """A generic class."""

    inside: T


class Cat(msgspec.Struct, tag=True):
    """Says in its bytes what it is."""

    name: str


class Dog(msgspec.Struct, tag="doggy"):
    """So does this."""

    name: str


@pytest.fixture
def log() -> Any:
    with tidelog.open("memory:") as opened:
        yield opened


def received(channel: Any) -> list[Any]:
    return list(channel.scan())


CASES: list[tuple[Any, list[Any], list[str]]] = [
    (Created | Cancelled, [Created(1, "tea"), Cancelled(1), Created(2)], ["Created", "Cancelled", "Created"]),
    (Created | Paid | Shipped, [Paid(1, 250), {"id": 1, "parcel": "p"}, Created(3)], ["Paid", "Shipped", "Created"]),
    (Shipped | Returned, [{"id": 1, "parcel": "p"}, {"id": 2}, {}], ["Shipped", "Returned", "Returned"]),
    (Invoice | Receipt, [Invoice(id=1, total=2.5), Receipt(id=1)], ["Invoice", "Receipt"]),
    (Invoice | Created, [Created(1), Invoice(id=1, total=0.0)], ["Created", "Invoice"]),
    (Place | Paid, [Place(1, 2), Paid(3, 4)], ["Place", "Paid"]),
    (Box[int] | Created, [Box(3), Created(1)], ["Box[int]", "Created"]),
    (Annotated[Created | Cancelled, "events"], [Cancelled(9)], ["Cancelled"]),
    (Cat | Created, [Cat("tom"), Created(1)], ["Cat", "Created"]),
]


@pytest.mark.parametrize(("type_", "values", "names"), CASES, ids=[str(i) for i in range(len(CASES))])
@pytest.mark.parametrize("way", ["send", "send_many", "list with ids", "iterator", "producer", "linger", "lz4"])
def test_every_value_comes_back_as_it_was_sent(
    log: tidelog.Log, type_: Any, values: list[Any], names: list[str], way: str
) -> None:
    events = log.topic("events", type_, partitions=1, compression="lz4" if way == "lz4" else None)
    if way == "send":
        for value in values:
            events.send(value)
    elif way in ("send_many", "lz4"):
        events.send_many(values)
    elif way == "list with ids":
        events.send_many(values, ids=[f"id-{i}" for i in range(len(values))], headers={"src": "web"})
    elif way == "iterator":
        events.send_many(iter(values), headers=[{"n": str(i)} for i in range(len(values))])
    else:
        with log.producer(linger=5.0 if way == "linger" else 0.0) as producer:
            for value in values:
                producer.send(events, value, headers={"src": "web"})
    messages = received(events)
    assert [message.value for message in messages] == values
    assert [type(message.value) for message in messages] == [type(value) for value in values]
    assert [message.headers["type"].decode() for message in messages] == names
    if way == "list with ids":
        assert [message.id for message in messages] == [f"id-{i}" for i in range(len(values))]
        assert all(message.headers["src"] == b"web" for message in messages)
    if way == "iterator":
        assert [message.headers["n"] for message in messages] == [str(i).encode() for i in range(len(values))]
    with events.consumer("all") as consumer:
        assert consumer.receive_many(100, timeout=5.0).values == values, "columns see the types too"


def test_a_channel_of_one_type_has_no_such_header(log: tidelog.Log) -> None:
    for name, type_, value in [
        ("a", Created, Created(1)),
        ("b", Created | None, None),
        ("c", int | str, "x"),
        ("d", Cat | Dog, Dog("rex")),
        ("e", list[Created], [Created(1)]),
    ]:
        channel = log.topic(name, type_, partitions=1)
        channel.send(value)
        channel.send_many([value])
        for message in received(channel):
            assert message.value == value
            assert len(message.headers) == 0


def test_msgpack(log: tidelog.Log) -> None:
    events = log.topic("events", Created | Paid, codec="msgpack", partitions=1)
    events.send(Paid(1, 2))
    (message,) = received(events)
    assert message.value == Paid(1, 2)
    assert message.raw == msgspec.msgpack.encode(Paid(1, 2))


def test_bytes_are_those_of_the_member_alone(log: tidelog.Log) -> None:
    log.topic("events", Created | Cancelled, partitions=1).send(Cancelled(7))
    assert log["events"].codec.name == "json"
    (message,) = received(log["events"])
    assert message.value == message.raw == b'{"id":7}'
    assert message.headers["type"] == b"Cancelled"


def test_a_subclass_is_sent_as_the_member(log: tidelog.Log) -> None:
    events = log.topic("events", Created | Cancelled, partitions=1)
    events.send(Amended(1, "tea", "x"))
    (message,) = received(events)
    assert message.headers["type"] == b"Created"
    assert message.value == Created(1, "tea")


def test_a_message_that_is_passed_on_says_its_type_once(log: tidelog.Log) -> None:
    events = log.topic("events", Created | Cancelled, partitions=1)
    events.send(Created(1), headers={"type": "Cancelled", "src": "x"})
    events.send_many([Created(2)], headers={"type": "nothing"})
    with log.producer() as producer:
        producer.send(events, Created(3), headers={"type": "nothing"})
    for message in received(events):
        assert [name for name, _ in message.headers.all].count("type") == 1
        assert message.headers["type"] == b"Created"


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        (None, "has no header 'type', which says which of Created, Cancelled"),
        ({"type": "Refunded"}, "the header 'type' says 'Refunded', and the channel was opened with Created, Cancelled"),
        ({"type": b"\xff\xfe"}, "the header 'type' says '��'"),
        ({"type": "x" * 10_000}, "the header 'type' says 'x"),
        ({"type": ""}, "the header 'type' says ''"),
    ],
)
def test_an_unknown_or_missing_type(log: tidelog.Log, headers: Any, said: str) -> None:
    log.topic("events", Created | Cancelled, partitions=1)
    log["events"].opened()
    raw = log.topic("events", Created, partitions=1)  # the same codec, one type: no header of its own
    raw.send(Created(1), headers=headers)
    events = log.topic("events", Created | Cancelled)
    (message,) = received(events)
    with pytest.raises(tidelog.DecodeError) as caught:
        message.value  # noqa: B018
    assert said in str(caught.value) and len(str(caught.value)) < 500
    assert message.raw == b'{"id":1,"sku":""}'
    with events.consumer("g") as consumer, pytest.raises(tidelog.DecodeError, match="message 0: "):
        consumer.receive_many(10, timeout=5.0).values  # noqa: B018


def test_a_wrong_body_under_a_known_type(log: tidelog.Log) -> None:
    raw = log.topic("events", Paid, partitions=1)
    raw.send(Paid(1, 2), headers={"type": "Shipped"})
    events = log.topic("events", Created | Shipped)
    (message,) = received(events)
    with pytest.raises(tidelog.DecodeError, match="parcel"):
        message.value  # noqa: B018


def test_values_of_no_member(log: tidelog.Log) -> None:
    events = log.topic("events", Created | Shipped | Returned, partitions=1)
    with pytest.raises(tidelog.SchemaMismatch, match=r"expected Created | Shipped | Returned, got Paid"):
        events.send(Paid(1, 2))
    with pytest.raises(tidelog.SchemaMismatch, match="value 1: expected"):
        events.send_many([Created(1), Cancelled(1)])
    with pytest.raises(tidelog.SchemaMismatch, match="keys id, colour is none of"):
        events.send({"id": 1, "colour": "red"})
    with log.producer(linger=1.0) as producer, pytest.raises(tidelog.SchemaMismatch, match="got int"):
        producer.send(events, 3)
    assert events.bounds(0) == (0, 0), "nothing was sent"


def test_dicts_that_fit_two_members(log: tidelog.Log) -> None:
    class Other(TypedDict):
        id: int

    events = log.topic("events", Returned | Other)
    with pytest.raises(tidelog.SchemaMismatch, match="may be Returned or Other: give these types different keys"):
        events.send({"id": 1})


def test_unions_that_cannot_be() -> None:
    def another() -> type:
        class Created(msgspec.Struct):
            number: int

        return Created

    with pytest.raises(TypeError, match="two of its classes have the name 'Created'"):
        codec_for(Created | another())
    with pytest.raises(TypeError, match="and int is none"):
        codec_for(Created | Cancelled | int)
    with pytest.raises(TypeError, match="None is none"):
        codec_for(Invoice | None)
    with pytest.raises(TypeError, match="names one generic class twice"):
        codec_for(Box[int] | Box[str])
    with pytest.raises(ValueError, match="does not fit"):
        codec_for(Invoice | Receipt, "msgpack")


def test_the_schema_has_every_member() -> None:
    schema = codec_for(Created | Invoice | Paid).schema()
    assert schema is not None
    text = msgspec.json.encode(schema).decode()
    assert len(schema["oneOf"]) == 3
    for name in ("Created", "Invoice", "Paid", "sku", "total", "cents"):
        assert f'"{name}"' in text


def test_partitioners_and_keys_see_the_value(log: tidelog.Log) -> None:
    events = log.topic("events", Created | Cancelled, partitions=4)
    values = [Created(i) if i % 2 else Cancelled(i) for i in range(40)]
    events.send_many(values, keys=lambda value: f"k{value.id % 5}")
    by_key: dict[bytes | None, list[int]] = {}
    for message in received(events):
        by_key.setdefault(message.key, []).append(message.value.id)
    assert sorted(by_key) == [f"k{i}".encode() for i in range(5)]
    assert all(ids == sorted(ids) and len(ids) == 8 for ids in by_key.values())
