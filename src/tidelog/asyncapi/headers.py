"""Which headers does a message carry, in words that a description can hold?

Floor 8: may import envelope. Thread rule: constants and pure functions.

A header of the envelope is written only where it is needed, so most are optional here; what a pattern cannot do
without is required.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from tidelog import envelope

__all__ = ["CORRELATION", "REPLY_TO", "headers"]

JSON: TypeAlias = dict[str, Any]

CORRELATION = f"$message.header#/{envelope.CORRELATION_ID}"
"""Where an answer says which question it belongs to."""

REPLY_TO = f"$message.header#/{envelope.REPLY_TO}"
"""Where a question says which channel takes the answers."""

COMPONENT = "header."
"""What the names of header schemas begin with, among the schemas of a description; no class has a dot in its name."""

_ID = "019c0b5d-ac96-774b-8cce-b302099a8057"

_SCHEMAS: JSON = {
    envelope.MESSAGE_ID: {
        "type": "string",
        "description": "Names the message; in the order of time where the library chose it.",
        "examples": [_ID],
    },
    envelope.CORRELATION_ID: {
        "type": "string",
        "description": "In an answer the question's; in a question what the answer is to carry.",
        "examples": [_ID],
    },
    envelope.REPLY_TO: {
        "type": "string",
        "description": "The channel where the answer is wanted.",
        "examples": ["reply.019c0b5d"],
    },
    envelope.CONTENT_TYPE: {"type": "string", "description": "The format of the value."},
    envelope.TYPE: {"type": "string", "description": "The name of the value's type."},
    envelope.MESSAGE_KIND: {
        "type": "string",
        "description": "What the message is, where it is not what the channel carries.",
        "enum": ["document", "command", "event"],
    },
    envelope.TRACEPARENT: {
        "type": "string",
        "description": "Trace context, as W3C defines it.",
        "pattern": "^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$",
        "examples": ["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"],
    },
    envelope.ERROR: {
        "type": "string",
        "description": "The name of the error's class; only an answer that is an error has it.",
        "examples": ["UnknownProduct"],
    },
    envelope.ERROR_TEXT: {
        "type": "string",
        "description": "What the error says.",
        "examples": ["there is no product 17"],
    },
}

DEAD_LETTER: JSON = {
    "dead-letter-channel": {"type": "string", "description": "Where the message was.", "examples": ["orders"]},
    "dead-letter-partition": {"type": "string", "description": "Its partition, in digits.", "examples": ["3"]},
    "dead-letter-offset": {"type": "string", "description": "Its offset there, in digits.", "examples": ["1742"]},
    "dead-letter-group": {"type": "string", "description": "The group that gave it up.", "examples": ["billing"]},
    envelope.ERROR: {
        "type": "string",
        "description": "The name of the last error's class.",
        "examples": ["LookupError"],
    },
    envelope.ERROR_TEXT: {
        "type": "string",
        "description": "What the last error said.",
        "examples": ["no such product: tee"],
    },
    "attempts": {"type": "string", "description": "How often it was tried, in digits.", "examples": ["5"]},
    "traceback": {
        "type": "string",
        "description": "Where the last error was raised.",
        "examples": ["LookupError: no such product: tee"],
    },
}
"""What a message gets on its way to a dead-letter channel, beside the headers that it had."""

_ALWAYS = (envelope.MESSAGE_ID, envelope.CONTENT_TYPE, envelope.TYPE, envelope.MESSAGE_KIND, envelope.TRACEPARENT)
_ROLES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # role: (headers beside those of every message, headers that are required)
    "message": ((), ()),
    "question": ((envelope.CORRELATION_ID, envelope.REPLY_TO), (envelope.CORRELATION_ID, envelope.REPLY_TO)),
    "answer": ((envelope.CORRELATION_ID,), (envelope.CORRELATION_ID,)),
    "error": (
        (envelope.CORRELATION_ID, envelope.ERROR, envelope.ERROR_TEXT),
        (envelope.CORRELATION_ID, envelope.ERROR, envelope.ERROR_TEXT),
    ),
}


def headers(
    role: str, *, content_type: str, type_name: str, tagged: bool, dead: bool, schemas: JSON
) -> tuple[JSON, JSON]:
    """(schema of the headers, an example) of a message.

    `role`: "message", "question", "answer" or "error" (which is an answer too). `tagged`: the channel carries several
    types, so that `type` is always there and decides. `dead`: the message lies in a dead-letter channel. The header
    schemas used are added to `schemas`.
    """
    more, required = _ROLES[role]
    exact = {envelope.CONTENT_TYPE: content_type}
    if tagged:
        exact[envelope.TYPE] = type_name
        required = (*required, envelope.TYPE)
    properties: JSON = {}
    for name in (*_ALWAYS, *more):
        if name in exact:
            properties[name] = {**_SCHEMAS[name], "enum": [exact[name]]}
        else:
            schemas.setdefault(COMPONENT + name, _SCHEMAS[name])
            properties[name] = {"$ref": f"#/components/schemas/{COMPONENT}{name}"}
    if dead:
        for name, schema in DEAD_LETTER.items():
            schemas.setdefault(f"{COMPONENT}dead.{name}", schema)
            properties[name] = {"$ref": f"#/components/schemas/{COMPONENT}dead.{name}"}
        required = (*required, *DEAD_LETTER)
    examples = {**_SCHEMAS, **(DEAD_LETTER if dead else {})}
    example = {name: exact.get(name) or examples[name]["examples"][0] for name in required}
    example[envelope.CONTENT_TYPE] = content_type
    whole: JSON = {"type": "object", "properties": properties}
    if required:
        whole["required"] = sorted(required)
    return whole, example
