"""Which rules of AsyncAPI 3 do neither its parser nor its schema look at, and does a description keep them?

Examples fit the schemas beside them, headers are objects, components have names of the allowed characters, and every
component is used by something.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema

JSON = dict[str, Any]


def overlooked(document: JSON) -> list[str]:
    """What is wrong; nothing is an empty list."""
    return list(_wrong(document))


def _wrong(document: JSON) -> Iterator[str]:
    components = document.get("components", {})
    for kind, named in components.items():
        for name in named:
            if not re.fullmatch(r"[A-Za-z0-9._-]+", name):
                yield f"components.{kind}: the name {name!r} is not allowed"
            if json.dumps(f"#/components/{kind}/{name}") not in json.dumps(document):
                yield f"components.{kind}.{name} is used by nothing"
    for name, message in components.get("messages", {}).items():
        if message.get("headers", {}).get("type") != "object":
            yield f"{name}: headers are no object"
        for example in message.get("examples", ()):
            for part in ("headers", "payload"):
                if part in example:
                    for error in validator(document, message[part]).iter_errors(example[part]):
                        yield f"{name}: the example's {part}: {error.json_path}: {error.message}"


def validator(document: JSON, schema: Any) -> jsonschema.Draft7Validator:
    """Of a schema within a document, references to its components followed."""
    jsonschema.Draft7Validator.check_schema(schema)
    # The components stand beside the schema, where its references look for them.
    whole = {"allOf": [schema], "components": document.get("components", {})}
    return jsonschema.Draft7Validator(whole, format_checker=jsonschema.Draft7Validator.FORMAT_CHECKER)
