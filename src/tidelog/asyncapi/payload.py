"""What does a value of a channel's type look like to somebody who has no Python: as a JSON Schema, and as an example?

Floor 8: may import codec and what lies below. Thread rule: a `Schemas` belongs to one description that is being made,
on one thread; the functions are pure.

msgspec and pydantic write the schema dialect of 2020-12 with definitions inside; a description holds JSON Schema draft
7 with all definitions in one place, so what the codec gives is translated. An example is made from the schema alone and
then decoded by the codec: what the type itself refuses (a pattern, a validator of the user's) is not shown.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from tidelog.codec import Codec
from tidelog.errors import DecodeError

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Payload", "Schemas", "keys", "safe_name"]

JSON: TypeAlias = dict[str, Any]

_DEFINITION = "#/$defs/"
_COMPONENT = "#/components/schemas/"

_MAPS = ("properties", "patternProperties", "definitions", "$defs")  # keywords that hold schemas by name
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")  # lists of schemas
_SINGLE = ("items", "additionalItems", "additionalProperties", "not", "contains", "propertyNames", "if", "then", "else")


@dataclass(frozen=True, slots=True)
class Payload:
    """One type of message: `name` as in Python, `schema` (a reference where it has a name), an example or none."""

    name: str
    codec: str
    schema: JSON
    description: str | None = None
    examples: list[Any] = field(default_factory=list)
    """None or one; a list, because null is an example too."""


def safe_name(name: str) -> str:
    """`name` with the characters that keys of a description's components may have."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("_") or "value"


class Schemas:
    """The named schemas of one description, each once; two different ones of one name get the channel's before it."""

    def __init__(self) -> None:
        self.components: JSON = {}
        self._known: dict[str, bytes] = {}

    def payload(self, codec: Codec, owner: str) -> Payload:
        """The payload of messages that `codec` writes; its named schemas are added to `components`.

        `owner`: the channel, which tells two classes of one name apart.
        """
        if codec.dtype is not None:
            return Payload(codec.type_name, codec.name, _rows(codec, codec.dtype))
        schema = codec.schema()
        if schema is None:
            binary = {"type": "string", "format": "binary"} if codec.name == "raw" else {}
            described = "any bytes" if codec.name == "raw" else "a value without a schema"
            return Payload(codec.type_name, codec.name, binary | {"description": described})
        schema = self._placed(schema, codec.type_name, owner)
        target = self._followed(schema)
        return Payload(codec.type_name, codec.name, schema, target.get("description"), self._examples(codec, schema))

    def _followed(self, schema: JSON) -> JSON:
        if "$ref" not in schema:
            return schema
        found: JSON = self.components[schema["$ref"].removeprefix(_COMPONENT)]
        return found

    def _placed(self, schema: JSON, type_name: str, owner: str) -> JSON:
        """`schema` in draft 7, its definitions moved to `components`."""
        whole: JSON = msgspec.json.decode(msgspec.json.encode(schema))
        definitions: JSON = whole.pop("$defs", {})
        if whole.get("type") == "object" and "title" in whole and whole["title"] not in definitions:
            # A model at the top, as pydantic writes it: it gets a name like all others.
            definitions = {**definitions, whole["title"]: whole}
            whole = {"$ref": _DEFINITION + whole["title"]}
        names = {name: self._named(name, definitions, owner) for name in definitions}
        for name, definition in definitions.items():
            self.components[names[name]] = draft_7(definition, names)
        placed: JSON = draft_7(whole, names)
        return placed

    def _named(self, name: str, definitions: JSON, owner: str) -> str:
        """The key of a definition: its own name, unless that is taken by a definition with other contents."""
        contents = msgspec.json.encode({each: definitions[each] for each in sorted(_reachable(name, definitions))})
        for key in keys(safe_name(name), safe_name(owner)):
            if self._known.setdefault(key, contents) == contents:
                return key
        raise AssertionError("the keys have no end")

    def _examples(self, codec: Codec, schema: JSON) -> list[Any]:
        """A value that the codec itself reads, or nothing."""
        encode: dict[str, Callable[[Any], bytes]] = {"utf-8": str.encode, "msgpack": msgspec.msgpack.encode}
        try:
            value = _example(schema, self.components, "text", frozenset())
        except _NoExample:
            return []
        for _ in range(_TRIES):
            try:
                if codec.decode is not None:
                    codec.decode(encode.get(codec.name, msgspec.json.encode)(value))
                return [value]
            except (DecodeError, TypeError, ValueError) as error:
                if not _mended(value, str(error)):
                    break
        return []


def keys(name: str, owner: str) -> Iterator[str]:
    """Keys for a component that is called `name` and belongs to a channel, the best first; without end."""
    yield name
    yield f"{owner}.{name}"
    number = 2
    while True:
        yield f"{owner}.{name}-{number}"
        number += 1


def _reachable(name: str, definitions: JSON) -> set[str]:
    """The definitions that one refers to, over others too, and itself."""
    found: set[str] = set()
    ahead = [name]
    while ahead:
        each = ahead.pop()
        if each in found or each not in definitions:
            continue
        found.add(each)
        text = msgspec.json.encode(definitions[each]).decode()
        ahead += re.findall(r'"\$ref":"#/\$defs/([^"]+)"', text)
    return found


def _rows(codec: Codec, dtype: np.dtype[Any]) -> JSON:
    """Fixed-width rows: the layout that tidelog compares, and the fields for people."""
    schema: JSON = {**(codec.schema() or {}), "format": "binary", "description": f"a row of {dtype.itemsize} bytes"}
    if dtype.names is not None and dtype.fields is not None:
        schema["x-tidelog-fields"] = [
            {"name": name, "format": _format(dtype.fields[name][0]), "position": dtype.fields[name][1]}
            for name in dtype.names
        ]
    return schema


def _format(dtype: np.dtype[Any]) -> str:
    """numpy's letters for a field: "<f8", "3x2 <f4" for an array of 3 rows and 2 columns."""
    if dtype.subdtype is None:
        return dtype.str if dtype.names is None else str(dtype)
    base, shape = dtype.subdtype
    return f"{'x'.join(map(str, shape))} {_format(base)}"


# --- the dialect ---


def draft_7(schema: Any, names: dict[str, str]) -> Any:
    """A schema of 2020-12 as draft 7 says it, `names` giving the component of each definition.

    Tuples are `items` as a list; a reference beside other keywords goes into `allOf`, since draft 7 ignores what stands
    beside it; OpenAPI's discriminator goes, because each alternative fixes the value of its tag itself.
    """
    if not isinstance(schema, dict):
        return schema
    result: JSON = {}
    for keyword, value in schema.items():
        if keyword in _MAPS:
            result[keyword] = {name: draft_7(part, names) for name, part in value.items()}
        elif keyword in _LISTS:
            result[keyword] = [draft_7(part, names) for part in value]
        elif keyword in _SINGLE:
            result[keyword] = draft_7(value, names)
        elif keyword == "$ref":
            name = value.removeprefix(_DEFINITION)
            result[keyword] = _COMPONENT + names.get(name, name)
        elif keyword != "discriminator":
            result[keyword] = value
    if "prefixItems" in result:
        rest = result.pop("items", None)
        result["items"] = result.pop("prefixItems")
        if rest is not None:
            result["additionalItems"] = rest
    if "$ref" in result and len(result) > 1:
        result = {"allOf": [{"$ref": result.pop("$ref")}], **result}
    return result


# --- examples ---


class _NoExample(Exception):
    """No value can be made up for a schema."""


_TRIES = 64
_FORMATS = {
    "date-time": "2026-01-31T12:30:00Z",
    "date": "2026-01-31",
    "time": "12:30:00Z",
    "duration": "PT90S",
    "uuid": "019c0b5d-ac96-774b-8cce-b302099a8057",
    "email": "ann@example.org",
    "uri": "https://example.org/",
    "hostname": "example.org",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "decimal": "1.50",
    "binary": "bytes",
}


def _mended(value: Any, error: str) -> bool:
    """Puts another text where msgspec says that one is wrong; False if there is nothing left to try.

    A schema does not tell a moment without time zone from any other text, but the error says where it stands.
    """
    place = re.search(r"`\$((?:\.\w+|\[\d+\])+)`", error)
    if place is None:
        return False
    steps = [int(step[1:-1]) if step[0] == "[" else step[1:] for step in re.findall(r"\.\w+|\[\d+\]", place[1])]
    candidates = [*_FORMATS.values(), None]
    try:
        for step in steps[:-1]:
            value = value[step]
        now = value[steps[-1]]
        if not isinstance(now, str):
            return False
        after = candidates[candidates.index(now) + 1] if now in candidates else candidates[0]
        value[steps[-1]] = after
    except (LookupError, TypeError):
        return False
    return after is not None


def _example(schema: Any, components: JSON, name: str, within: frozenset[str]) -> Any:
    """A value of `schema`, the same at every call.

    `name`: of the field, which is what text says. `within`: the references that led here; none is followed twice.
    """
    if schema is False:
        raise _NoExample
    if schema is True:
        return name
    if "$ref" in schema:
        target = schema["$ref"].removeprefix(_COMPONENT)
        if target in within:
            raise _NoExample
        return _example(components[target], components, name, within | {target})
    given = [*schema.get("examples", ()), *([schema["const"]] if "const" in schema else ()), *schema.get("enum", ())]
    if given:
        return given[0]
    if schema.get("default") not in (None, "", [], {}):
        return schema["default"]
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema:
            return _first(schema[keyword], components, name, within)
    if "allOf" in schema:
        parts = [_example(part, components, name, within) for part in schema["allOf"]]
        if len(parts) == 1:
            return parts[0]
        if not all(isinstance(part, dict) for part in parts):
            raise _NoExample
        return {key: value for part in parts for key, value in part.items()}
    kind = schema.get("type")
    if isinstance(kind, list):
        return _first([{**schema, "type": one} for one in kind], components, name, within)
    match kind:
        case "object":
            return _object(schema, components, within)
        case "array":
            return _array(schema, components, name, within)
        case "string":
            return _text(schema, name)
        case "integer":
            return _integer(schema)
        case "number":
            return _number(schema)
        case "boolean":
            return True
        case "null":
            return None
    return name


def _first(schemas: list[Any], components: JSON, name: str, within: frozenset[str]) -> Any:
    """An example of the first schema that has one; null only where nothing else has."""
    for schema in sorted(schemas, key=lambda part: isinstance(part, dict) and part.get("type") == "null"):
        try:
            return _example(schema, components, name, within)
        except _NoExample:
            continue
    raise _NoExample


def _object(schema: JSON, components: JSON, within: frozenset[str]) -> JSON:
    result: JSON = {}
    required = schema.get("required", ())
    for name, part in schema.get("properties", {}).items():
        try:
            result[name] = _example(part, components, name, within)
        except _NoExample:
            if name in required:
                raise
    others = schema.get("additionalProperties")
    if not result and isinstance(others, dict):
        result["key"] = _example(others, components, "value", within)
    if len(result) < schema.get("minProperties", 0):
        raise _NoExample
    return result


def _array(schema: JSON, components: JSON, name: str, within: frozenset[str]) -> list[Any]:
    items = schema.get("items", True)
    if isinstance(items, list):
        return [_example(part, components, name, within) for part in items]
    least = schema.get("minItems", 0)
    if schema.get("maxItems") == 0:
        return []
    try:
        one = _example(items, components, name.removesuffix("s") or name, within)
    except _NoExample:
        if least:
            raise
        return []
    if schema.get("uniqueItems") and least > 1:
        raise _NoExample
    return [one] * max(1, least)


def _text(schema: JSON, name: str) -> str:
    if schema.get("contentEncoding") == "base64":
        return "Ynl0ZXM="
    if "format" in schema:
        if schema["format"] not in _FORMATS:
            raise _NoExample
        return _FORMATS[schema["format"]]
    least, most = schema.get("minLength", 0), schema.get("maxLength", 1 << 16)
    text = (name * (least // len(name) + 1) if len(name) < least else name)[: max(least, min(most, len(name)))]
    if not re.search(schema.get("pattern", ""), text):
        raise _NoExample
    return text


def _integer(schema: JSON) -> int:
    low = max(schema.get("minimum", -math.inf), schema.get("exclusiveMinimum", -math.inf) + 1)
    high = min(schema.get("maximum", math.inf), schema.get("exclusiveMaximum", math.inf) - 1)
    step = schema.get("multipleOf", 1)
    value = 1 if low <= 1 <= high else math.ceil(low) if low > -math.inf else math.floor(high)
    if step != 1:
        value = int(-(-value // step) * step)
    if not low <= value <= high or value != int(value):
        raise _NoExample
    return int(value)


def _number(schema: JSON) -> float:
    low = max(schema.get("minimum", -math.inf), schema.get("exclusiveMinimum", -math.inf))
    high = min(schema.get("maximum", math.inf), schema.get("exclusiveMaximum", math.inf))
    middle = (low + high) / 2 if math.isfinite(low + high) else low + 1 if low > -math.inf else high - 1
    step = schema.get("multipleOf")
    for value in (1.5, 1.0, middle, low, high):
        if step is not None and math.isfinite(value):
            value = math.ceil(value / step) * step
        inside = low <= value <= high and value not in (schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum"))
        if inside and math.isfinite(value):
            return float(value)
    raise _NoExample
