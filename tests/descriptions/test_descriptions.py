"""Do AsyncAPI's own parser and schema find anything wrong in the descriptions that tidelog makes, and would they?"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest

from tests.descriptions.apps import APPS
from tests.descriptions.overlooked import overlooked
from tests.descriptions.parser import ask, schema, serious
from tests.descriptions.real import REAL
from tidelog.asyncapi.document import describe
from tidelog.asyncapi.text import write_json, write_yaml

pytestmark = [pytest.mark.node, pytest.mark.timeout(400)]

DOCUMENTS = {name: describe(app) for name, app in {**APPS, **REAL}.items()}


def schema_errors(document: dict[str, Any], version: str = "3.0.0") -> list[str]:
    """What the schema of an AsyncAPI version does not allow."""
    validator = jsonschema.Draft7Validator(schema(version))
    return [f"{error.json_path}: {error.message[:200]}" for error in validator.iter_errors(document)]


def test_the_parser_finds_nothing() -> None:
    said = ask({name: write_json(document) for name, document in DOCUMENTS.items()})
    assert not {name: found for name, complaints in said.items() if (found := serious(complaints))}
    # Nothing else is said either, except that 3.1 exists: it adds words for other systems only.
    assert {one.code for complaints in said.values() for one in complaints} <= {"asyncapi-latest-version"}


def test_the_parser_finds_nothing_in_yaml() -> None:
    said = ask({name: write_yaml(document) for name, document in DOCUMENTS.items()})
    assert not {name: found for name, complaints in said.items() if (found := serious(complaints))}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_schema_finds_nothing(name: str) -> None:
    assert not schema_errors(DOCUMENTS[name])


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_next_schema_finds_nothing(name: str) -> None:
    assert not schema_errors({**DOCUMENTS[name], "asyncapi": "3.1.0"}, "3.1.0")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_what_neither_of_them_looks_at(name: str) -> None:
    assert not overlooked(DOCUMENTS[name])


# --- a lane that finds nothing must be able to find something ---

Spoil = Callable[[dict[str, Any]], object]


SPOILED: dict[str, tuple[str, Spoil]] = {
    "no title": ("one-way", lambda it: it["info"].pop("title")),
    "version is a number": ("one-way", lambda it: it["info"].update(version=1)),
    "unknown word": ("one-way", lambda it: it.update(exchanges={})),
    "server without protocol": ("cluster", lambda it: it["servers"]["kafka-1"].pop("protocol")),
    "action is unknown": ("one-way", lambda it: it["operations"]["bill"].update(action="handle")),
    "operation on no channel": (
        "one-way",
        lambda it: it["operations"]["bill"].update(channel={"$ref": "#/channels/nowhere"}),
    ),
    "message of another channel": (
        "one-way",
        lambda it: it["operations"]["bill"].update(messages=[{"$ref": "#/channels/invoices/messages/Invoice"}]),
    ),
    "reference to no message": (
        "one-way",
        lambda it: it["channels"]["orders"]["messages"].update(Order={"$ref": "#/components/messages/Odrer"}),
    ),
    "reference to no schema": (
        "one-way",
        lambda it: it["components"]["messages"]["Order"].update(payload={"$ref": "#/components/schemas/Odrer"}),
    ),
    "payload of an unknown type": (
        "one-way",
        lambda it: it["components"]["schemas"]["Order"].update(type="record"),
    ),
    "example that does not fit the payload": (
        "one-way",
        lambda it: it["components"]["messages"]["Order"]["examples"][0]["payload"].update(id="one"),
    ),
    "example that lacks a header": (
        "async-response",
        lambda it: it["components"]["messages"]["QuoteRequest"]["examples"][0]["headers"].pop("reply-to"),
    ),
    "headers that are no object": (
        "one-way",
        lambda it: it["components"]["messages"]["Order"].update(headers={"type": "string"}),
    ),
    "no partitions": (
        "one-way",
        lambda it: it["channels"]["orders"]["bindings"]["kafka"].update(partitions=0),
    ),
    "retention in words": (
        "one-way",
        lambda it: it["channels"]["orders"]["bindings"]["kafka"]["topicConfiguration"].update({"retention.ms": "7d"}),
    ),
    "unknown word of a binding": (
        "one-way",
        lambda it: it["operations"]["bill"]["bindings"]["kafka"].update(group="orders"),
    ),
    "correlation id that is no expression": (
        "async-response",
        lambda it: it["components"]["correlationIds"]["correlation-id"].update(location="correlation-id"),
    ),
    "reply address that is no expression": (
        "async-response",
        lambda it: it["components"]["replyAddresses"]["reply-to"].update(location="reply-to"),
    ),
    "reply on no channel": (
        "async-response",
        lambda it: it["operations"]["quote"]["reply"].update(channel={"$ref": "#/channels/nowhere"}),
    ),
    "component with a name that none may have": (
        "one-way",
        lambda it: it["components"]["schemas"].update({"list[Order]": {"type": "array"}}),
    ),
}


def spoiled(name: str) -> dict[str, Any]:
    """A document with one thing wrong."""
    app, spoil = SPOILED[name]
    document = copy.deepcopy(DOCUMENTS[app])
    spoil(document)
    assert document != DOCUMENTS[app]
    return document


OVERLOOKED = {
    "example that does not fit the payload",
    "example that lacks a header",
    "headers that are no object",
    "component with a name that none may have",
}
"""What neither the parser nor the schema sees in AsyncAPI 3, and `overlooked` does."""

MEANING = {
    "operation on no channel",
    "message of another channel",
    "reference to no message",
    "reference to no schema",
    "reply on no channel",
}
"""What the schema cannot see: where references lead."""


def test_the_parser_finds_what_is_wrong() -> None:
    said = ask({name: json.dumps(spoiled(name)) for name in SPOILED})
    assert {name for name, complaints in said.items() if serious(complaints)} >= SPOILED.keys() - OVERLOOKED
    assert not any(serious(complaints) for complaints in ask({"whole": json.dumps(DOCUMENTS["one-way"])}).values())


def test_the_schema_finds_what_is_wrong() -> None:
    assert {name for name in SPOILED if schema_errors(spoiled(name))} >= SPOILED.keys() - OVERLOOKED - MEANING


def test_what_both_overlook_is_found() -> None:
    assert {name for name in OVERLOOKED if overlooked(spoiled(name))} == OVERLOOKED
