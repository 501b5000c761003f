"""Which values fit an old JSON Schema and not the new one, or the other way round: what breaks between two schemas?

Floor 8: imports nothing of tidelog. Thread rule: pure functions.

Two questions are asked of every place. Can what was written by the old schema still be read by the new one? A log keeps
its messages, and senders are not replaced all at once, so this is asked always. Can readers who know the old schema
read what is written by the new one? This is asked where the application itself writes (`writes`). Keywords that hold
no value back (title, description, default, examples) are passed over.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

__all__ = ["Change", "Resolve", "compare_schemas"]

JSON: TypeAlias = dict[str, Any]
Resolve: TypeAlias = Callable[[Any], Any]
"""Follows the references at the top of a value, within its document."""


@dataclass(frozen=True, slots=True)
class Change:
    """One difference: where (`path`, dotted), what, whether it breaks somebody, and whom or why not (`reason`)."""

    path: str
    what: str
    breaking: bool
    reason: str


KEPT = "messages that are kept, and senders that go on as before, do not fit it"
READERS = "receivers that know the old description refuse it"
NOBODY = "old messages and old receivers both fit"
NOT_SENT = "only this application receives it, and it takes both"

_LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_EXACT = ("format", "pattern", "multipleOf", "contentEncoding", "contentMediaType", "uniqueItems")
_LAYOUT = "x-tidelog-dtype"


def compare_schemas(path: str, old: Any, new: Any, resolve: tuple[Resolve, Resolve], writes: bool) -> list[Change]:
    """What changed from the schema `old` to `new`. `resolve`: follows references, of the old and the new document."""
    return list(_Comparison(resolve, writes).whole(path, old, new))


class _Comparison:
    def __init__(self, resolve: tuple[Resolve, Resolve], writes: bool) -> None:
        self.resolve = resolve
        self.writes = writes
        self.open: set[tuple[str, str]] = set()

    def widened(self, path: str, what: str) -> Change:
        """More values are allowed than before."""
        return Change(path, what, self.writes, READERS if self.writes else NOT_SENT)

    def narrowed(self, path: str, what: str) -> Change:
        """Fewer values are allowed than before."""
        return Change(path, what, True, KEPT)

    def whole(self, path: str, old: Any, new: Any) -> Iterator[Change]:
        """Two schemas, either of which may be a reference, a boolean or a choice."""
        olds, news = list(_variants(old, self.resolve[0])), list(_variants(new, self.resolve[1]))
        if len(olds) == len(news) == 1:
            yield from self.single(path, olds[0], news[0])
        else:
            yield from self.choice(path, olds, news)

    def choice(self, path: str, olds: list[JSON], news: list[JSON]) -> Iterator[Change]:
        """Alternatives: each old one is looked for among the new ones by name, tag, then type."""
        left = list(news)
        unpaired = []
        for old in olds:
            match = next((new for same in _SAME for new in left if same(old, new)), None)
            if match is None:
                unpaired.append(old)
                continue
            left.remove(match)
            name = _name(old)
            yield from self.single(f"{path}({name})" if name else path, old, match)
        for old in unpaired:
            yield self.narrowed(path, f"no longer {_name(old) or 'any value'}")
        for new in left:
            yield self.widened(path, f"now also {_name(new) or 'any value'}")

    def single(self, path: str, old: JSON, new: JSON) -> Iterator[Change]:
        """Two schemas of one type each (None: of any); a type that holds itself is looked at once."""
        pair = (_text(old), _text(new))
        if pair in self.open:
            return
        self.open.add(pair)
        try:
            yield from self.differences(path, old, new)
        finally:
            self.open.discard(pair)

    def differences(self, path: str, old: JSON, new: JSON) -> Iterator[Change]:
        """What differs between the two: type, values, limits, then what is inside."""
        before, after = old.get("type"), new.get("type")
        if before != after:
            if before is None or (before, after) == ("number", "integer"):
                yield self.narrowed(path, f"type changed from {before or 'anything'} to {after}")
            elif after is None or (before, after) == ("integer", "number"):
                yield self.widened(path, f"type changed from {before} to {after or 'anything'}")
            else:
                yield Change(path, f"type changed from {before} to {after}", True, KEPT)
                return
        yield from self.values(path, old, new)
        yield from self.bounds(path, old, new)
        if old.get(_LAYOUT) != new.get(_LAYOUT):
            yield Change(path, "row layout changed", True, "rows of the old layout cannot be read by the new one")
        yield from self.fields(path, old, new)
        yield from self.items(path, old, new)

    def values(self, path: str, old: JSON, new: JSON) -> Iterator[Change]:
        """enum and const."""
        before, after = _allowed(old), _allowed(new)
        if before == after:
            return
        if before is None or after is None:
            if after is None:
                yield self.widened(path, "no longer limited to listed values")
            else:
                yield self.narrowed(path, f"limited to {_few(after)}")
            return
        gone, added = [each for each in before if each not in after], [each for each in after if each not in before]
        if gone:
            yield self.narrowed(path, f"enum without {_few(gone)}")
        if added:
            yield self.widened(path, f"enum with {_few(added)}")

    def bounds(self, path: str, old: JSON, new: JSON) -> Iterator[Change]:
        """Limits of numbers and lengths, formats."""
        for keyword in (*_LOWER, *_UPPER):
            before, after = old.get(keyword), new.get(keyword)
            if before == after:
                continue
            what = f"{keyword} changed from {_said(before)} to {_said(after)}"
            tighter = before is None or (after is not None and (after > before) == (keyword in _LOWER))
            yield self.narrowed(path, what) if tighter else self.widened(path, what)
        for keyword in _EXACT:
            before, after = old.get(keyword), new.get(keyword)
            if before == after:
                continue
            what = f"{keyword} changed from {_said(before)} to {_said(after)}"
            yield self.widened(path, what) if after in (None, False) else self.narrowed(path, what)

    def fields(self, path: str, old: JSON, new: JSON) -> Iterator[Change]:
        """Properties of objects."""
        before, after = old.get("properties", {}), new.get("properties", {})
        needed, needs = set(old.get("required", ())), set(new.get("required", ()))
        for name in before:
            where = f"{path}.{name}"
            if name not in after:
                yield Change(
                    where, "field removed", True, "who reads it finds nothing, and what senders put in is lost"
                )
                continue
            if name in needs - needed:
                yield Change(where, "field became required", True, KEPT)
            elif name in needed - needs:
                yield self.widened(where, "field became optional")
            yield from self.whole(where, before[name], after[name])
        for name in after:
            if name in before:
                continue
            where = f"{path}.{name}"
            if name in needs:
                yield Change(where, "required field added", True, KEPT)
            elif self.writes and old.get("additionalProperties") is False:
                yield Change(
                    where, "optional field added", True, "receivers that know the old description allow no others"
                )
            else:
                yield Change(where, "optional field added", False, NOBODY)
            if isinstance(others := old.get("additionalProperties"), dict):  # what it was allowed to hold before
                yield from self.whole(where, others, after[name])
        if "properties" in old or "properties" in new or old.get("type") == "object":
            yield from self.others(path, old.get("additionalProperties", True), new.get("additionalProperties", True))

    def others(self, path: str, old: Any, new: Any) -> Iterator[Change]:
        """Properties without a name of their own."""
        if old == new == True or old == new == False:  # noqa: E712  # they may be schemas as well
            return
        if new is False:
            yield self.narrowed(path, "other fields are no longer allowed")
        elif old is False:
            yield self.widened(path, "other fields are allowed")
        else:
            yield from self.whole(f"{path}.*", old, new)

    def items(self, path: str, old: JSON, new: JSON) -> Iterator[Change]:
        """Elements of arrays; a list of schemas is a tuple."""
        before, after = old.get("items", True), new.get("items", True)
        if isinstance(before, list) and isinstance(after, list):
            for place, (one, other) in enumerate(zip(before, after, strict=False)):
                yield from self.whole(f"{path}[{place}]", one, other)
            if len(before) != len(after):
                yield Change(path, f"{len(before)} places became {len(after)}", True, KEPT)
        elif isinstance(before, list) or isinstance(after, list):
            yield Change(path, "a tuple and a list are not the same", True, KEPT)
        elif "items" in old or "items" in new:
            yield from self.whole(f"{path}[]", before, after)


def _variants(schema: Any, resolve: Resolve) -> Iterator[JSON]:
    """The alternatives of a schema, each of one type at most and without references at its top."""
    name = schema.get("$ref") if isinstance(schema, dict) else None
    schema = resolve(schema)
    if schema is True or schema is None:
        schema = {}
    if schema is False:
        return
    if isinstance(schema.get("allOf"), list):
        parts = [part for each in schema["allOf"] for part in [next(_variants(each, resolve), {})]]
        schema = _merged([*parts, {key: value for key, value in schema.items() if key != "allOf"}])
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema:
            for part in schema[keyword]:
                yield from _variants(part, resolve)
            return
    kinds = schema.get("type")
    if kinds is None and (listed := _allowed(schema)) is not None:
        kinds = sorted({_type_of(value) for value in listed})
    for kind in kinds if isinstance(kinds, list) else [kinds]:
        one = {**schema, "x-name": name.rpartition("/")[2]} if name else dict(schema)
        if kind is not None:
            one["type"] = kind
            if (listed := _allowed(schema)) is not None and isinstance(kinds, list) and len(kinds) > 1:
                one["enum"] = [value for value in listed if _type_of(value) == kind]
                one.pop("const", None)
        yield one


def _merged(parts: list[JSON]) -> JSON:
    """What all of `parts` ask together: fields of objects are united, other keywords of later ones win."""
    result: JSON = {}
    for part in parts:
        fields = {**result.get("properties", {}), **part.get("properties", {})}
        required = sorted({*result.get("required", ()), *part.get("required", ())})
        result = {**result, **part}
        result |= {"properties": fields} if fields else {}
        result |= {"required": required} if required else {}
    return result


def _same_name(old: JSON, new: JSON) -> bool:
    name = old.get("x-name") or old.get("title")
    return name is not None and name == (new.get("x-name") or new.get("title"))


def _same_tag(old: JSON, new: JSON) -> bool:
    """Objects that fix a field to the same value."""
    tags = ((name, _allowed(part)) for name, part in old.get("properties", {}).items() if isinstance(part, dict))
    return any(
        value is not None and len(value) == 1 and _allowed(new.get("properties", {}).get(name, {})) == value
        for name, value in tags
    )


def _same_type(old: JSON, new: JSON) -> bool:
    # Named objects that found no partner by name are other types, not the same one with another name.
    named = (old.get("x-name"), new.get("x-name")) if old.get("type") == "object" else (None, None)
    return old.get("type") == new.get("type") and None in (*named, None)[:2]


def _same_number(old: JSON, new: JSON) -> bool:
    return {old.get("type"), new.get("type")} == {"integer", "number"}


_SAME: tuple[Callable[[JSON, JSON], bool], ...] = (_same_name, _same_tag, _same_type, _same_number)


def _allowed(schema: Any) -> list[Any] | None:
    """The values that a schema lists, or None if it lists none."""
    if not isinstance(schema, dict):
        return None
    if "const" in schema:
        return [schema["const"]]
    listed = schema.get("enum")
    return sorted(listed, key=_text) if isinstance(listed, list) else None


def _type_of(value: Any) -> str:
    match value:
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case None:
            return "null"
    return "array" if isinstance(value, list) else "object"


def _name(schema: JSON) -> str:
    return str(schema.get("x-name") or schema.get("title") or schema.get("type") or "")


def _said(value: Any) -> str:
    return "none" if value is None else str(value)


def _few(values: list[Any]) -> str:
    shown = ", ".join(_text(value) for value in values[:5])
    return shown if len(values) <= 5 else f"{shown} and {len(values) - 5} more"


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
