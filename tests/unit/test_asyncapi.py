"""Does a description say of each pattern what others need to know, and is it the same every time?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.descriptions.apps import APPS, TYPES, Cancelled, Created, Described, On, Order, Quote, queue, topic
from tests.descriptions.overlooked import overlooked, validator
from tests.descriptions.real import REAL
from tidelog.asyncapi.document import describe
from tidelog.asyncapi.headers import DEAD_LETTER
from tidelog.codec import codec_for
from tidelog.log import open as open_log

ROOT = Path(__file__).resolve().parent.parent.parent


def message(document: dict[str, Any], channel: str, name: str) -> dict[str, Any]:
    """A message of a channel, its reference followed."""
    reference = document["channels"][channel]["messages"][name]["$ref"]
    found: dict[str, Any] = document["components"]["messages"][reference.rpartition("/")[2]]
    return found


def receive(name: str, **more: Any) -> dict[str, Any]:
    """Operations and channels of an application with one handler."""
    return describe(Described("app", [On(name, **more)]))


def test_one_way() -> None:
    document = describe(APPS["one-way"])
    assert document["asyncapi"] == "3.0.0"
    assert document["info"] == {"title": "billing", "version": "1.0.0", "description": "Writes invoices."}
    orders = document["channels"]["orders"]
    assert orders["address"] == "orders"
    assert orders["bindings"]["kafka"] == {
        "partitions": 8,
        "topicConfiguration": {
            "cleanup.policy": ["delete"],
            "retention.ms": 7 * 86_400_000,
            "retention.bytes": -1,
        },
        "bindingVersion": "0.5.0",
    }
    assert (orders["x-tidelog-pattern"], orders["x-tidelog-kind"], orders["x-tidelog-carries"]) == (
        "one-way",
        "queue",
        "command",
    )
    assert document["channels"]["invoices"]["x-tidelog-carries"] == "document"
    bill = document["operations"]["bill"]
    assert bill["action"] == "receive"
    assert bill["channel"] == {"$ref": "#/channels/orders"}
    assert bill["messages"] == [{"$ref": "#/channels/orders/messages/Order"}]
    assert bill["summary"] == "Write the invoice."
    assert bill["bindings"]["kafka"]["groupId"] == {"type": "string", "enum": ["orders"]}
    assert "reply" not in bill
    assert bill["x-tidelog-dead-letter"] == "orders.dead"
    assert document["operations"]["send.invoices"]["action"] == "send"
    assert set(document["operations"]) == {"bill", "send.invoices", "send.orders.dead"}
    key = message(document, "orders", "Order")["bindings"]["kafka"]["key"]
    assert key["type"] == "string" and "murmur2" in key["description"]


def test_the_other_side_sends() -> None:
    operations = describe(APPS["one-way, the other side"])["operations"]
    assert [operation["action"] for operation in operations.values()] == ["send"]


def test_publish_subscribe_has_an_operation_for_each_group() -> None:
    document = describe(APPS["publish-subscribe"])
    groups = {
        name: operation["bindings"]["kafka"]["groupId"]["enum"]
        for name, operation in document["operations"].items()
        if operation["action"] == "receive"
    }
    assert groups == {"plot": ["chart"], "audit": ["audit"], "watch": ["charts"]}
    assert document["operations"]["audit"]["x-tidelog-delivery"] == "at-most-once"
    assert document["channels"]["prices"]["bindings"]["kafka"]["topicConfiguration"]["retention.bytes"] == 1 << 30
    assert document["channels"]["changes"]["x-tidelog-retention"] == "consumed"
    assert document["channels"]["prices"]["x-tidelog-carries"] == "event"


def test_async_response() -> None:
    document = describe(APPS["async-response"])
    reply = document["operations"]["quote"]["reply"]
    address = document["components"]["replyAddresses"][reply["address"]["$ref"].rpartition("/")[2]]
    assert address["location"] == "$message.header#/reply-to"
    channel = document["channels"][reply["channel"]["$ref"].rpartition("/")[2]]
    assert channel["address"] is None
    assert set(channel["messages"]) == {"Quote", "Refused", "error"}
    assert len(reply["messages"]) == 3
    correlation = document["components"]["correlationIds"]["correlation-id"]
    assert correlation["location"] == "$message.header#/correlation-id"
    question = message(document, "quotes", "QuoteRequest")
    answer = message(document, "reply.quotes", "Quote")
    for one in (question, answer):
        assert one["correlationId"] == {"$ref": "#/components/correlationIds/correlation-id"}
    assert set(question["headers"]["required"]) == {"correlation-id", "reply-to"}
    assert set(answer["headers"]["required"]) == {"correlation-id", "type"}  # of two types, so it says which
    error = message(document, "reply.quotes", "error")
    assert set(error["headers"]["required"]) == {"correlation-id", "error", "error-text"}
    assert "error" not in answer["headers"]["properties"]


def test_the_asker_sends_with_reply() -> None:
    document = describe(APPS["async-response, the other side"])
    operation = document["operations"]["send.quotes"]
    assert operation["action"] == "send"
    assert operation["reply"]["channel"] == {"$ref": "#/channels/reply.quotes"}
    # A topic may be asked too: every group answers.
    assert document["operations"]["send.polls"]["x-tidelog-pattern"] == "async-response"


def test_a_handler_does_not_wait_for_answers_to_what_it_returns() -> None:
    document = receive("forward", channel=queue("in", Order), sends=queue("quotes", Order, reply=Quote))
    assert "reply" not in document["operations"]["send.quotes"]


def test_a_union_is_several_messages_told_apart_by_a_header() -> None:
    document = describe(APPS["publish-subscribe"])
    created, cancelled = (message(document, "changes", name) for name in ("Created", "Cancelled"))
    assert created["headers"]["properties"]["type"]["enum"] == ["Created"]
    assert cancelled["headers"]["properties"]["type"]["enum"] == ["Cancelled"]
    assert "type" in created["headers"]["required"]
    assert created["examples"][0]["headers"]["type"] == "Created"
    # Where the bytes say it themselves there is one message and no header.
    tagged = describe(APPS["all types"])["channels"]["tagged"]["messages"]
    assert list(tagged) == ["Cat_Dog"]


def test_dead_letters_are_the_original_messages_with_more_headers() -> None:
    document = describe(APPS["names"])
    dead = document["channels"]["dead"]
    assert dead["x-tidelog-dead-letters-of"] == ["orders", "twins"]
    assert len(dead["messages"]) == 2  # two classes of one name
    for name in dead["messages"]:
        assert set(DEAD_LETTER) <= set(message(document, "dead", name)["headers"]["required"])


def test_the_headers_of_dead_letters_are_those_that_are_written() -> None:
    from tidelog.app.dead_letter import OWN_HEADERS

    assert frozenset(DEAD_LETTER) == OWN_HEADERS


def test_classes_of_one_name_are_kept_apart() -> None:
    document = describe(APPS["names"])
    assert {"Order", "twins.Order"} <= set(document["components"]["schemas"])
    assert "number" in document["components"]["schemas"]["twins.Order"]["properties"]
    assert message(document, "twins", "Order")["payload"] == {"$ref": "#/components/schemas/twins.Order"}


def test_operations_of_one_name_are_kept_apart() -> None:
    names = set(describe(APPS["names"])["operations"])
    assert {"handle.quotes", "handle.orders", "handle.twins", "send.alarms", "send.alarms-"} <= names


def test_a_channel_may_have_the_name_that_answers_would_get() -> None:
    document = describe(APPS["names"])
    assert document["channels"]["reply.quotes"]["address"] == "reply.quotes"
    assert document["operations"]["handle.quotes"]["reply"]["channel"] == {"$ref": "#/channels/reply.reply.quotes"}


@pytest.mark.parametrize("name", [*APPS, *REAL])
def test_examples_fit_and_components_are_used(name: str) -> None:
    assert not overlooked(describe({**APPS, **REAL}[name]))


WITHOUT_EXAMPLE = {"bytes", "rows", "numbers", "patterned"}


@pytest.mark.parametrize("name", sorted(TYPES.keys() - {"union"}))
def test_every_type_has_a_schema_and_an_example_that_it_reads(name: str) -> None:
    document = receive("take", channel=topic("things", TYPES[name]))
    (key,) = document["channels"]["things"]["messages"]
    found = message(document, "things", key)
    example = found["examples"][0]
    assert ("payload" in example) == (name not in WITHOUT_EXAMPLE)
    if "payload" not in example:
        return
    codec = codec_for(TYPES[name])
    assert codec.decode is not None
    encoded = example["payload"].encode() if codec.name == "utf-8" else msgspec.json.encode(example["payload"])
    codec.decode(encoded)  # the type itself takes it
    for wrong in ({"no": "such"}, ["x", "y", "z"], 1.5, False):
        # What the schema takes the type takes, and the other way round.
        fits = not list(validator(document, found["payload"]).iter_errors(wrong))
        if name not in ("text", "anything"):
            try:
                codec.decode(msgspec.json.encode(wrong))
                taken = True
            except ValueError:
                taken = False
            assert fits == taken or (name == "typed-dict" and fits), wrong


@pytest.mark.parametrize(
    ("schema", "examples"),
    [
        ("pattern", []),
        ("bounds", [{"low": 10, "high": -3, "step": 20, "part": 0.25, "open": 5.5, "many": ["many", "many"]}]),
    ],
)
def test_examples_of_limits(schema: str, examples: list[Any]) -> None:
    from typing import Annotated

    from msgspec import Meta

    bounds = msgspec.defstruct(
        "Bounds",
        [
            ("low", Annotated[int, Meta(ge=10)]),
            ("high", Annotated[int, Meta(lt=-2)]),
            ("step", Annotated[int, Meta(gt=10, multiple_of=10)]),
            ("part", Annotated[float, Meta(ge=0, le=0.5)]),
            ("open", Annotated[float, Meta(gt=4.5)]),
            ("many", Annotated[list[str], Meta(min_length=2)]),
        ],
    )
    types = {"pattern": TYPES["patterned"], "bounds": bounds}
    document = receive("take", channel=topic("things", types[schema]))
    (found,) = document["components"]["messages"].values()
    assert [one["payload"] for one in found["examples"] if "payload" in one] == examples


def test_rows_say_where_each_field_stands() -> None:
    document = describe(APPS["publish-subscribe"])
    payload = message(document, "prices", "dtype_sym_px_qty_book")["payload"]
    assert payload["x-tidelog-fields"] == [
        {"name": "sym", "format": "|S8", "position": 0},
        {"name": "px", "format": "<f8", "position": 8},
        {"name": "qty", "format": "<i4", "position": 16},
        {"name": "book", "format": "2x3 <f4", "position": 20},
    ]
    assert payload["x-tidelog-dtype"] == codec_for(TYPES["rows"]).descr


FORMATS = {
    None: "application/octet-stream",
    str: "text/plain; charset=utf-8",
    Order: "application/json",
    TYPES["rows"]: "application/octet-stream",
}


@pytest.mark.parametrize("type_", FORMATS)
def test_formats(type_: Any) -> None:
    (found,) = receive("take", channel=topic("things", type_))["components"]["messages"].values()
    assert found["contentType"] == FORMATS[type_]
    assert found["headers"]["properties"]["content-type"]["enum"] == [FORMATS[type_]]


def test_packed_values() -> None:
    (found,) = receive("take", channel=topic("things", Order, codec="msgpack"))["components"]["messages"].values()
    assert found["contentType"] == "application/msgpack"


@pytest.mark.parametrize(
    ("url", "servers"),
    [
        (None, {"log": ("localhost", "tidelog", None)}),
        ("shop.log", {"log": ("localhost", "tidelog", "shop.log")}),
        ("tidelog:///var/shop", {"log": ("localhost", "tidelog", "/var/shop")}),
        ("memory:", {"log": ("localhost", "tidelog", "memory:")}),
        ("kafka://a,b:1", {"kafka-1": ("a:9092", "kafka", None), "kafka-2": ("b:1", "kafka", None)}),
        ("kafkas://a", {"kafka-1": ("a:9092", "kafka-secure", None)}),
    ],
)
def test_servers(url: str | None, servers: dict[str, Any]) -> None:
    found = describe(Described("app", url=url))["servers"]
    assert {
        name: (server["host"], server["protocol"], server.get("x-tidelog-url")) for name, server in found.items()
    } == servers


def test_security() -> None:
    document = describe(APPS["cluster"])
    assert document["components"]["securitySchemes"] == {"sasl": {"type": "scramSha256"}}
    assert document["servers"]["kafka-2"]["security"] == [{"$ref": "#/components/securitySchemes/sasl"}]


def test_two_declarations_of_one_channel_must_agree() -> None:
    together = Described("app", [On("take", queue("orders", Order))], [queue("orders", partitions=2)])
    document = describe(together)
    assert document["channels"]["orders"]["bindings"]["kafka"]["partitions"] == 2
    assert list(document["channels"]["orders"]["messages"]) == ["Order"]
    for other in (topic("orders"), queue("orders", Quote), queue("orders", Order, partitions=3)):
        with pytest.raises(ValueError, match="'orders' is declared twice"):
            describe(Described("app", [On("take", queue("orders", Order, partitions=2))], [other]))


def test_a_type_that_no_channel_can_have() -> None:
    with pytest.raises(TypeError, match="cannot be the type of a channel"):
        describe(Described("app", channels=[queue("orders", object)]))


def test_it_is_the_same_in_every_process() -> None:
    program = (
        "import json, sys\n"
        "from tests.descriptions.apps import APPS\n"
        "from tidelog.asyncapi.document import describe\n"
        "print(json.dumps({name: describe(app) for name, app in APPS.items()}))\n"
    )
    texts = set()
    for seed in ("1", "2", "77"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            timeout=100,
            check=True,
        )
        texts.add(done.stdout)
    assert len(texts) == 1
    assert json.loads(texts.pop()) == {name: describe(app) for name, app in APPS.items()}


# --- real applications ---


def test_a_real_application() -> None:
    document = REAL["billing"].asyncapi()
    assert document == describe(REAL["billing"])
    assert document["info"]["version"] == "1.2.0"
    assert set(document["operations"]) == {"bill", "look", "send.invoices", "send.orders.dead"}
    assert document["operations"]["bill"]["description"].endswith("One for each order.")
    assert document["operations"]["bill"]["x-tidelog-concurrency"] == "key"
    assert document["operations"]["bill"]["x-tidelog-attempts"] == REAL["billing"].handlers[0].retries.attempts > 1
    assert "x-tidelog-attempts" not in document["operations"]["look"]
    # Declared by its name alone it is what `app.on` makes of it.
    assert document["channels"]["orders.dead"]["bindings"]["kafka"]["partitions"] == 1
    assert list(document["channels"]["invoices"]["messages"]) == ["Invoice"]


def test_real_answers() -> None:
    document = REAL["pricing"].asyncapi()
    assert list(document["channels"]["reply.models"]["messages"]) == ["Model", "error"]
    assert list(document["channels"]["reply.anything"]["messages"]) == ["bytes", "error"]
    assert all("reply" in operation for operation in document["operations"].values())


def test_channels_of_an_open_log() -> None:
    from tidelog.app import App

    with open_log("memory:") as log:
        orders = log.queue("orders", Order, partitions=3, retention=timedelta(hours=1))
        changes = log.topic("changes", Created | Cancelled)
        app = App("app", log=log)
        app.on(orders, sends=changes)(lambda order: None)
        document = app.asyncapi()
    assert document["channels"]["orders"]["bindings"]["kafka"]["partitions"] == 3
    assert document["channels"]["orders"]["bindings"]["kafka"]["topicConfiguration"]["retention.ms"] == 3_600_000
    assert list(document["channels"]["orders"]["messages"]) == ["Order"]
    assert list(document["channels"]["changes"]["messages"]) == ["Created", "Cancelled"]
    assert document["channels"]["changes"]["x-tidelog-kind"] == "topic"
