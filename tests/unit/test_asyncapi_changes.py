"""Is every change that breaks somebody found, and no other called so?

Each schema case is checked against an independent oracle too: jsonschema validates samples of values by both schemas.
What is called compatible must hold for every sample.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any

import jsonschema
import msgspec
import pytest

from tests.descriptions.apps import APPS, Described, Invoice, On, Order, Quote, QuoteRequest, Refused, queue, topic
from tests.descriptions.real import REAL
from tidelog.asyncapi.changes import Change, compare
from tidelog.asyncapi.document import describe
from tidelog.asyncapi.schema_changes import compare_schemas
from tidelog.errors import DecodeError


def changes(old: Described, new: Described) -> list[tuple[bool, str, str]]:
    """What changed between two applications: breaking or not, where, what."""
    return [(one.breaking, one.path, one.what) for one in compare(describe(old), describe(new))]


def described(*handlers: On, **more: Any) -> Described:
    """An application."""
    return Described("app", list(handlers), **more)


def struct(name: str, *fields: Any, **more: Any) -> type:
    """A class with these fields."""
    return msgspec.defstruct(name, fields, **more)


@pytest.mark.parametrize("name", [*APPS, *REAL])
def test_nothing_changed(name: str) -> None:
    document = describe({**APPS, **REAL}[name])
    assert compare(document, copy.deepcopy(document)) == []


# --- schemas ---

# name, old schema, new schema, breaking where the application only receives, breaking where it sends
SCHEMAS: list[tuple[str, Any, Any, bool, bool]] = [
    ("type changed", {"type": "string"}, {"type": "boolean"}, True, True),
    ("number to integer", {"type": "number"}, {"type": "integer"}, True, True),
    ("integer to number", {"type": "integer"}, {"type": "number"}, False, True),
    ("typed to anything", {"type": "integer"}, {}, False, True),
    ("anything to typed", {}, {"type": "integer"}, True, True),
    ("null allowed", {"type": "string"}, {"anyOf": [{"type": "string"}, {"type": "null"}]}, False, True),
    ("null refused", {"type": ["string", "null"]}, {"type": "string"}, True, True),
    (
        "list of types is a choice",
        {"type": ["string", "null"]},
        {"oneOf": [{"type": "null"}, {"type": "string"}]},
        False,
        False,
    ),
    ("enum narrowed", {"enum": ["a", "b"]}, {"enum": ["a"]}, True, True),
    ("enum widened", {"enum": ["a"]}, {"enum": ["a", "b"]}, False, True),
    ("enum in another order", {"enum": ["a", "b"]}, {"enum": ["b", "a"]}, False, False),
    ("const is an enum of one", {"const": "a"}, {"enum": ["a"]}, False, False),
    ("limited to values", {"type": "string"}, {"type": "string", "enum": ["a"]}, True, True),
    ("no longer limited", {"type": "string", "enum": ["a"]}, {"type": "string"}, False, True),
    ("minimum raised", {"type": "integer", "minimum": 1}, {"type": "integer", "minimum": 2}, True, True),
    ("minimum lowered", {"type": "integer", "minimum": 2}, {"type": "integer", "minimum": 1}, False, True),
    ("minimum given", {"type": "integer"}, {"type": "integer", "minimum": 1}, True, True),
    ("minimum gone", {"type": "integer", "minimum": 1}, {"type": "integer"}, False, True),
    ("maximum lowered", {"type": "integer", "maximum": 2}, {"type": "integer", "maximum": 1}, True, True),
    ("maximum raised", {"type": "integer", "maximum": 1}, {"type": "integer", "maximum": 2}, False, True),
    ("longer text refused", {"type": "string", "maxLength": 2}, {"type": "string", "maxLength": 1}, True, True),
    ("shorter list refused", {"type": "array"}, {"type": "array", "minItems": 1}, True, True),
    ("pattern given", {"type": "string"}, {"type": "string", "pattern": "^a$"}, True, True),
    ("pattern gone", {"type": "string", "pattern": "^a$"}, {"type": "string"}, False, True),
    ("pattern changed", {"type": "string", "pattern": "^a$"}, {"type": "string", "pattern": "^b$"}, True, True),
    ("format changed", {"type": "string", "format": "date"}, {"type": "string", "format": "uuid"}, True, True),
    (
        "items changed",
        {"type": "array", "items": {"type": "string"}},
        {"type": "array", "items": {"type": "null"}},
        True,
        True,
    ),
    (
        "tuple shortened",
        {"type": "array", "items": [{"type": "null"}, {"type": "null"}], "additionalItems": False},
        {"type": "array", "items": [{"type": "null"}], "additionalItems": False},
        True,
        True,
    ),
    (
        "field removed",
        {"type": "object", "properties": {"a": {}, "b": {}}},
        {"type": "object", "properties": {"a": {}}},
        True,
        True,
    ),
    (
        "field added",
        {"type": "object", "properties": {"a": {"type": "null"}}},
        {"type": "object", "properties": {"a": {"type": "null"}, "c": {}}},
        False,
        False,
    ),
    (
        "field added where no others are allowed",
        {"type": "object", "properties": {"a": {}}, "additionalProperties": False},
        {"type": "object", "properties": {"a": {}, "b": {}}, "additionalProperties": False},
        False,
        True,
    ),
    (
        "required field added",
        {"type": "object", "properties": {"a": {}}},
        {"type": "object", "properties": {"a": {}, "b": {}}, "required": ["b"]},
        True,
        True,
    ),
    (
        "field became required",
        {"type": "object", "properties": {"a": {}}},
        {"type": "object", "properties": {"a": {}}, "required": ["a"]},
        True,
        True,
    ),
    (
        "field became optional",
        {"type": "object", "properties": {"a": {}}, "required": ["a"]},
        {"type": "object", "properties": {"a": {}}},
        False,
        True,
    ),
    (
        "others refused",
        {"type": "object", "properties": {"a": {}}},
        {"type": "object", "properties": {"a": {}}, "additionalProperties": False},
        True,
        True,
    ),
    (
        "values of a mapping changed",
        {"type": "object", "additionalProperties": {"type": "integer"}},
        {"type": "object", "additionalProperties": {"type": "string"}},
        True,
        True,
    ),
    (
        "a field within a field",
        {"type": "object", "properties": {"a": {"type": "object", "properties": {"b": {"type": "null"}}}}},
        {"type": "object", "properties": {"a": {"type": "object", "properties": {"b": {"type": "string"}}}}},
        True,
        True,
    ),
    (
        "alternative removed",
        {"anyOf": [{"type": "string"}, {"type": "integer"}]},
        {"anyOf": [{"type": "integer"}]},
        True,
        True,
    ),
    (
        "alternatives by tag, in another order",
        {
            "anyOf": [
                {"type": "object", "properties": {"t": {"enum": ["x"]}}, "required": ["t"]},
                {"type": "object", "properties": {"t": {"enum": ["y"]}}, "required": ["t"]},
            ]
        },
        {
            "anyOf": [
                {"type": "object", "properties": {"t": {"enum": ["y"]}}, "required": ["t"]},
                {"type": "object", "properties": {"t": {"enum": ["x"]}}, "required": ["t"]},
            ]
        },
        False,
        False,
    ),
    (
        "texts only",
        {"type": "string", "title": "a", "default": "x"},
        {"type": "string", "description": "b"},
        False,
        False,
    ),
    ("allOf of one", {"allOf": [{"type": "string"}], "default": "a"}, {"type": "string"}, False, False),
    (
        "rows of another layout",
        {"type": "string", "x-tidelog-dtype": [["", "<i8"]]},
        {"type": "string", "x-tidelog-dtype": [["", "<i4"]]},
        True,
        True,
    ),
    ("nothing is allowed any more", {"type": "string"}, False, True, True),
]

SAMPLES: list[Any] = [
    *(None, True, 0, 1, 2, 3, 1.5, -1, "", "a", "b", "ab", "abc", "2026-01-31", [], [1], ["a"], [None], [None, None]),
    *({}, {"a": 1}, {"a": None}, {"a": None, "c": 1}, {"b": 1}, {"a": 1, "b": 2}, {"c": "x"}, {"a": {"b": None}}),
    *({"a": {"b": "x"}}, {"t": "x"}, {"t": "y"}, {"a": "x"}),
]


def breaks(old: Any, new: Any, writes: bool) -> bool:
    """Does a change of a schema break somebody?"""
    follow = (lambda value: value, lambda value: value)
    return any(one.breaking for one in compare_schemas("it", old, new, follow, writes))


@pytest.mark.parametrize(
    ("old", "new", "received", "sent"), [row[1:] for row in SCHEMAS], ids=[row[0] for row in SCHEMAS]
)
def test_schemas(old: Any, new: Any, received: bool, sent: bool) -> None:
    assert breaks(old, new, writes=False) == received
    assert breaks(old, new, writes=True) == sent


def fits(schema: Any, value: Any) -> bool:
    return bool(jsonschema.Draft7Validator(schema).is_valid(value))


PAIRS = [(one, other) for one, other in itertools.product([row[i] for row in SCHEMAS for i in (1, 2)], repeat=2)]


def test_what_is_called_compatible_is_so_for_every_sample() -> None:
    """All pairs of all schemas above, most of which have nothing to do with each other."""
    wrong = []
    compatible = 0
    for old, new in PAIRS:
        before = [value for value in SAMPLES if fits(old, value)]
        after = [value for value in SAMPLES if fits(new, value)]
        if not breaks(old, new, writes=False):
            compatible += 1
            wrong += [(old, new, value) for value in before if not fits(new, value)]
        if not breaks(old, new, writes=True):
            # Fields that old receivers pass over are compatible, although the old schema does not name them.
            wrong += [(old, new, value) for value in after if not fits(old, value)]
    assert compatible > 100
    assert not wrong, wrong[:5]


def test_a_type_that_holds_itself() -> None:
    old = describe(APPS["all types"])
    new = copy.deepcopy(old)
    new["components"]["schemas"]["Tree"]["properties"]["name"] = {"type": "integer"}
    found = compare(old, new)
    assert [(one.path, one.breaking) for one in found] == [("channels.tree.Tree.payload.name", True)]


# --- documents ---

take = On("take", queue("orders", Order))
Order2 = struct("Order", ("id", int), ("sku", str), ("qty", int, 1), ("note", str | None, None))

DOCUMENTS: dict[str, tuple[Described, Described, list[tuple[bool, str, str]]]] = {
    "channel added": (
        described(),
        described(channels=[queue("x")]),
        [
            (False, "channels.x", "channel added"),
            (False, "operations.send.x", "operation added"),
        ],
    ),
    "channel removed": (
        described(take, channels=[queue("x")]),
        described(take),
        [
            (True, "channels.x", "channel removed"),
            (True, "operations.send.x", "operation removed"),
        ],
    ),
    "operation removed": (
        described(On("a", topic("t"), "a"), On("b", topic("t"), "b")),
        described(On("a", topic("t"), "a")),
        [(True, "operations.b", "operation removed")],
    ),
    "operation added": (
        described(On("a", topic("t"), "a")),
        described(On("a", topic("t"), "a"), On("b", topic("t"), "b")),
        [(False, "operations.b", "operation added")],
    ),
    "handler renamed": (
        described(On("a", topic("t"), "a")),
        described(On("b", topic("t"), "a")),
        [(False, "operations.a", "renamed to b")],
    ),
    "group changed": (
        described(On("a", topic("t"), "a")),
        described(On("a", topic("t"), "b")),
        [(True, "operations.a", "group changed from a to b")],
    ),
    "partitions changed": (
        described(On("a", queue("t", partitions=4))),
        described(On("a", queue("t", partitions=8))),
        [(True, "channels.t.partitions", "changed from 4 to 8")],
    ),
    "retention changed": (
        described(On("a", queue("t", retention=100))),
        described(On("a", queue("t", retention=200))),
        [(False, "channels.t.retention.bytes", "changed from 100 to 200")],
    ),
    "a queue became a topic": (
        described(On("a", queue("t"), "t")),
        described(On("a", topic("t"), "t")),
        [(True, "channels.t", "a queue became a topic")],
    ),
    "format changed": (
        described(On("a", queue("t", Quote))),
        described(On("a", queue("t", Quote, codec="msgpack"))),
        [
            (True, "channels.t.Quote", "format changed from application/json to application/msgpack"),
            (True, "channels.t.Quote.headers.content-type", 'enum without "application/json"'),
            (False, "channels.t.Quote.headers.content-type", 'enum with "application/msgpack"'),
        ],
    ),
    "message added, received": (
        described(On("a", queue("t", Quote | Refused))),
        described(On("a", queue("t", Quote | Refused | QuoteRequest))),
        [(False, "channels.t.QuoteRequest", "message added")],
    ),
    "message added, sent": (
        described(channels=[queue("t", Quote | Refused)]),
        described(channels=[queue("t", Quote | Refused | QuoteRequest)]),
        [(True, "channels.t.QuoteRequest", "message added")],
    ),
    "message removed": (
        described(On("a", queue("t", Quote | Refused | QuoteRequest))),
        described(On("a", queue("t", Quote | Refused))),
        [(True, "channels.t.QuoteRequest", "message removed")],
    ),
    "the only message renamed": (
        described(On("a", queue("t", struct("A", ("x", int))))),
        described(On("a", queue("t", struct("B", ("x", int))))),
        [(False, "channels.t.A", "message renamed to B")],
    ),
    "reply removed": (
        described(On("a", queue("q", QuoteRequest, reply=Quote))),
        described(On("a", queue("q", QuoteRequest))),
        [
            (True, "operations.a.reply", "reply removed"),
            (True, "channels.q.QuoteRequest", "correlation id moved from $message.header#/correlation-id to none"),
        ],
    ),
    "reply of another type": (
        described(On("a", queue("q", QuoteRequest, reply=Quote))),
        described(On("a", queue("q", QuoteRequest, reply=struct("Quote", ("sku", str), ("cents", float))))),
        [(True, "operations.a.reply.Quote.payload.cents", "type changed from integer to number")],
    ),
    "asked for another type": (
        described(channels=[queue("q", QuoteRequest, reply=Quote)]),
        described(channels=[queue("q", QuoteRequest, reply=struct("Quote", ("sku", str), ("cents", float)))]),
        [(False, "operations.send.q.reply.Quote.payload.cents", "type changed from integer to number")],
    ),
    "delivery changed": (
        described(On("a", queue("t"))),
        described(On("a", queue("t"), delivery="at-most-once")),
        [(False, "operations.a", "delivery changed from at-least-once to at-most-once")],
    ),
    "a field of what is sent": (
        described(On("a", queue("t"), sends=queue("u", struct("A", ("x", int), ("y", str))))),
        described(On("a", queue("t"), sends=queue("u", struct("A", ("x", int))))),
        [(True, "channels.u.A.payload.y", "field removed")],
    ),
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents(name: str) -> None:
    old, new, expected = DOCUMENTS[name]
    found = changes(old, new)
    assert [one for one in found if one in expected] == sorted(expected, key=lambda one: (not one[0], found.index(one)))
    if name not in ("reply removed",):
        assert set(found) == set(expected)


def test_every_change_says_why() -> None:
    for old, new, _ in DOCUMENTS.values():
        for change in compare(describe(old), describe(new)):
            assert change.reason and change.path and change.what


def test_what_breaks_stands_first() -> None:
    old, new = described(take, channels=[queue("x")]), described(take, channels=[queue("y")])
    found = [one.breaking for one in compare(describe(old), describe(new))]
    assert found == sorted(found, reverse=True) and True in found and False in found


Spoil = Callable[[dict[str, Any]], object]
BY_HAND: dict[str, tuple[Spoil, str]] = {
    "key": (
        lambda it: it["components"]["messages"]["Order"]["bindings"]["kafka"].update(key={"type": "integer"}),
        "key changed: type changed from string to integer",
    ),
    "no key": (
        lambda it: it["components"]["messages"]["Order"].pop("bindings"),
        "key changed: type changed from string to anything",
    ),
    "address": (
        lambda it: it["channels"]["orders"].update(address="orders-2"),
        "address changed to orders-2",
    ),
    "required header": (
        lambda it: it["components"]["messages"]["Order"]["headers"].update(required=["traceparent"]),
        "field became required",
    ),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_changes_by_hand(name: str) -> None:
    spoil, what = BY_HAND[name]
    old = describe(APPS["one-way, the other side"])
    new = copy.deepcopy(old)
    spoil(new)
    assert what in [one.what for one in compare(old, new) if one.breaking]


def test_ids_and_places_do_not_matter() -> None:
    """Written otherwise, by hand: other keys, messages in place instead of components, no address."""
    old = describe(described(On("take", queue("orders", Quote))))
    message = copy.deepcopy(old["components"]["messages"]["Quote"])
    message["payload"] = old["components"]["schemas"]["Quote"]
    for name, part in message["headers"]["properties"].items():
        if "$ref" in part:
            message["headers"]["properties"][name] = old["components"]["schemas"][f"header.{name}"]
    channel = {**old["channels"]["orders"], "messages": {"m": message}}
    del channel["address"]
    operation = {**old["operations"]["take"], "messages": [{"$ref": "#/channels/orders/messages/m"}]}
    new = {**old, "channels": {"orders": channel}, "operations": {"take": operation}}
    del new["components"]
    assert compare(old, new) == []


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ({}, "no AsyncAPI 3 document"),
        ({"asyncapi": "2.6.0"}, "'2.6.0'"),
        ({"asyncapi": "3.0.0", "channels": {"a": {"$ref": "#/components/channels/a"}}}, "leads nowhere"),
        ({"asyncapi": "3.0.0", "channels": {"a": {"$ref": "other.yaml#/a"}}}, "another file"),
        ({"asyncapi": "3.0.0", "channels": {"a": {"$ref": "#/channels/a"}}}, "in a circle"),
        (
            {
                "asyncapi": "3.0.0",
                "channels": {"orders": {"messages": {"Order": {"payload": {"$ref": "#/components/schemas/A"}}}}},
                "components": {"schemas": {"A": {"anyOf": [{"$ref": "#/components/schemas/A"}]}}},
            },
            "no end",
        ),
        ({"asyncapi": "3.0.0", "channels": []}, None),
        ({"asyncapi": "3.0.0", "channels": ["a"]}, "an object must stand there"),
        ({"asyncapi": "3.0.0", "operations": {"a": {"action": "send"}}}, "none of its channels"),
    ],
)
def test_what_is_no_description(document: Any, complaint: str | None) -> None:
    whole = describe(described(take))
    if complaint is None:
        assert all(isinstance(one, Change) for one in compare(document, whole))
        return
    with pytest.raises(DecodeError, match=complaint):
        compare(document, whole)


def test_classes_of_applications() -> None:
    """The whole way, from a changed class to the complaint."""
    found = changes(described(take), described(On("take", queue("orders", Order2))))
    assert {(one[0], one[2]) for one in found} == {
        (False, "minimum changed from 1 to none"),
        (False, "minLength changed from 1 to none"),
        (False, "maxLength changed from 32 to none"),
        (False, "maximum changed from 1000 to none"),
    }
    assert all(
        one[0]
        for one in changes(described(On("a", queue("t", Invoice))), described(On("a", queue("t", int))))
        if "type" in one[2]
    )
