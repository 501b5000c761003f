"""How does a person read a description: as one page with three tables, one for each interaction pattern?

Floor 8: imports nothing of tidelog. Thread rule: pure functions.

The page is one file that asks for nothing else (its policy forbids it), follows the reader's choice of light or dark,
prints with everything unfolded, and turns its tables into cards on a narrow screen. It is made from the document alone,
and every text in it is escaped. Without a script: what unfolds is HTML's own <details>.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from html import escape
from typing import Any, TypeAlias

from tidelog.asyncapi.style import STYLE

__all__ = ["page"]

JSON: TypeAlias = dict[str, Any]

_TABLES = (
    (
        "one-way",
        "One-way notification",
        "A message on a queue: exactly one receiver gets it, and nobody answers.",
        False,
    ),
    (
        "publish-subscribe",
        "Publish / subscribe",
        "A message on a topic: every group gets it; the parties do not know each other.",
        False,
    ),
    (
        "async-response",
        "Publish / async response",
        "A question, and any number of answers to the channel that its header reply-to names.",
        True,
    ),
)


def page(document: JSON) -> str:
    """The whole HTML page of an AsyncAPI 3 document that `describe` made."""
    return "\n".join(_Page(document).lines()) + "\n"


class _Page:
    def __init__(self, document: JSON) -> None:
        self.document = document

    def resolve(self, value: Any) -> Any:
        """What a reference within the document leads to."""
        for _ in range(64):
            if not isinstance(value, dict) or "$ref" not in value:
                return value
            target: Any = self.document
            for step in value["$ref"].removeprefix("#/").split("/"):
                target = target[step]
            value = target
        return {}

    def lines(self) -> Iterator[str]:
        """The page, line by line."""
        info = self.document["info"]
        title = f"{info['title']} {info['version']}"
        yield "<!doctype html>"
        yield '<html lang="en">'
        yield "<head>"
        yield '<meta charset="utf-8">'
        yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
        yield """<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">"""
        yield '<meta name="color-scheme" content="light dark">'
        yield f"<title>{escape(title)}</title>"
        yield f"<style>\n{STYLE}</style>"
        yield "</head>"
        yield "<body>"
        yield from self.head(info)
        yield "<main>"
        operations = [self.resolve(each) for each in self.document.get("operations", {}).values()]
        names = list(self.document.get("operations", {}))
        for pattern, heading, sentence, answers in _TABLES:
            rows = [
                (name, operation)
                for name, operation in zip(names, operations, strict=True)
                if operation.get("x-tidelog-pattern") == pattern
            ]
            yield from self.table(pattern, heading, sentence, rows, answers)
        yield from self.headers()
        yield "</main>"
        yield f"<footer>AsyncAPI {escape(self.document['asyncapi'])} · made by <code>tidelog docs</code></footer>"
        yield "</body>"
        yield "</html>"

    def head(self, info: JSON) -> Iterator[str]:
        """Title, description, servers, links to the tables."""
        yield "<header>"
        yield f'<h1>{escape(info["title"])} <span class="version">{escape(info["version"])}</span></h1>'
        if info.get("description"):
            yield from _paragraphs(info["description"])
        yield '<ul class="servers">'
        for name, server in self.document.get("servers", {}).items():
            server = self.resolve(server)
            # The host of a directory says nothing to people.
            place = server.get("x-tidelog-url") or (server["host"] if server["protocol"] != "tidelog" else "")
            said = f"<b>{escape(name)}</b> <code>{escape(place)}</code> {_badge(server['protocol'])}"
            yield f"<li>{said} {escape(server.get('description', ''))}</li>"
        yield "</ul>"
        links = " ".join(f'<a href="#{pattern}">{escape(heading)}</a>' for pattern, heading, _, _ in _TABLES)
        yield f"<nav>{links}</nav>"
        yield "</header>"

    def table(
        self, pattern: str, heading: str, sentence: str, rows: list[tuple[str, JSON]], answers: bool
    ) -> Iterator[str]:
        """One pattern: a row for each message of each operation."""
        yield f'<section id="{pattern}">'
        yield f"<h2>{escape(heading)}</h2>"
        yield f"<p>{escape(sentence)}</p>"
        if not rows:
            yield '<p class="none">This application has none.</p></section>'
            return
        columns = ["Channel", "This application", "Message type", "Format"]
        columns += ["Reply type", "Reply format"] if answers else []
        yield f'<table class="columns-{len(columns)}">'
        heads = "".join(f'<th scope="col">{each}</th>' for each in columns)
        yield f"<thead><tr>{heads}</tr></thead>"
        yield "<tbody>"
        for name, operation in rows:
            channel = self.resolve(operation["channel"])
            replies = self.replies(operation)
            for number, message in enumerate(self.messages(operation)):
                again = number > 0
                cells = [
                    self.channel(channel, again),
                    self.role(name, operation, again),
                    self.message(message),
                    _format(message["contentType"]),
                ]
                if answers:
                    cells.append("".join(map(self.message, replies)) or "none")
                    formats = dict.fromkeys(reply["contentType"] for reply in replies)
                    cells.append(" ".join(map(_format, formats)) or "none")
                yield "<tr>"
                for column, cell in zip(columns, cells, strict=True):
                    yield f'<td data-column="{column}"><div>{cell}</div></td>'
                yield "</tr>"
        yield "</tbody></table></section>"

    def messages(self, part: JSON) -> list[JSON]:
        """The messages of an operation or a reply."""
        return [self.resolve(message) for message in part.get("messages", [])]

    def replies(self, operation: JSON) -> list[JSON]:
        """The messages that may answer an operation."""
        return self.messages(self.resolve(operation.get("reply", {})))

    # --- cells ---

    def channel(self, channel: JSON, again: bool) -> str:
        """Its address, and what a client of it must know unless that was said one row above."""
        if again:
            return f'<code class="address">{escape(channel["address"])}</code>'
        binding = channel.get("bindings", {}).get("kafka", {})
        count = binding.get("partitions")
        facts = [channel.get("x-tidelog-kind", ""), f"{count} partition{'s' if count != 1 else ''}" if count else ""]
        facts += _retention(channel, binding.get("topicConfiguration", {}))
        said = f'<code class="address">{escape(channel["address"])}</code>'
        said += f'<div class="facts">{escape(" · ".join(filter(None, facts)))}</div>'
        if channel.get("x-tidelog-dead-letters-of"):
            said += f'<div class="facts">{escape(channel["description"])}</div>'
        return said

    def role(self, name: str, operation: JSON, again: bool) -> str:
        """Does the application receive or send, and unless that was said one row above: as whom, by which handler?"""
        if again:
            return f"{_badge('sends')}" if operation["action"] == "send" else f"{_badge('receives')}"
        if operation["action"] == "send":
            asks = " and reads the answers" if "reply" in operation else ""
            said = f"{_badge('sends')}{asks}"
            return said + (f'<div class="facts">{escape(operation["summary"])}</div>' if "summary" in operation else "")
        group = operation.get("bindings", {}).get("kafka", {}).get("groupId", {}).get("enum", [""])[0]
        facts = [f"group {group}", operation.get("x-tidelog-delivery", "")]
        if "x-tidelog-concurrency" in operation:
            width = operation["x-tidelog-concurrency"]
            facts.append("parallel by key" if width == "key" else f"{width} at a time")
        if "x-tidelog-attempts" in operation:
            facts.append(f"{operation['x-tidelog-attempts']} attempts")
        if "x-tidelog-sends" in operation:
            facts.append(f"sends to {operation['x-tidelog-sends']}")
        if "x-tidelog-dead-letter" in operation:
            facts.append(f"dead letters to {operation['x-tidelog-dead-letter']}")
        said = f"{_badge('receives')} <code>{escape(name)}</code>"
        said += f'<div class="facts">{escape(" · ".join(filter(None, facts)))}</div>'
        if operation.get("summary"):
            said += f'<div class="facts">{escape(operation["summary"])}</div>'
        return said

    def message(self, message: JSON) -> str:
        """A message type, unfolding to its fields, the names of its headers and an example."""
        parts = [f"<details><summary><code>{escape(message['title'])}</code></summary>"]
        schema = self.resolve(message["payload"])
        description = schema.get("description") or message.get("summary")
        parts += _paragraphs(description) if description else []
        parts += self.schema(message["payload"])
        for named in self.named(message["payload"]):
            parts.append(f"<details><summary><code>{escape(named)}</code></summary>")
            schema = self.document["components"]["schemas"][named]
            parts += _paragraphs(schema["description"]) if schema.get("description") else []
            parts += [*self.schema(schema), "</details>"]
        parts.append(f'<p class="facts">{self.headers_of(message)}</p>')
        for example in message.get("examples", ()):
            if "payload" in example:
                text = json.dumps(example["payload"], indent=2, ensure_ascii=False)
                parts.append(f"<details><summary>example</summary><pre>{escape(text)}</pre></details>")
        parts.append("</details>")
        return "".join(parts)

    def headers_of(self, message: JSON) -> str:
        """The names of a message's headers; what each is, stands at the end of the page."""
        schema = message.get("headers", {})
        said = []
        for name, part in schema.get("properties", {}).items():
            fixed = part.get("enum", ())
            value = f": {fixed[0]}" if len(fixed) == 1 else ""
            need = " (required)" if name in schema.get("required", ()) else ""
            said.append(f"<code>{escape(name + value)}</code>{need}")
        return f'<a href="#headers">Headers</a>: {", ".join(said)}'

    def headers(self) -> Iterator[str]:
        """Every header of every message, once; and the key."""
        messages = self.document.get("components", {}).get("messages", {})
        if not messages:
            return
        found: dict[tuple[str, str], str] = {}
        keys: dict[str, None] = {}
        for message in messages.values():
            for name, part in message.get("headers", {}).get("properties", {}).items():
                one = self.resolve(part)
                kind = self.kind({key: value for key, value in one.items() if key != "enum" or len(value) > 1})
                found.setdefault((name, one.get("description", "")), kind)
            key = message.get("bindings", {}).get("kafka", {}).get("key")
            keys |= {key["description"]: None} if key else {}
        yield '<section id="headers"><h2>Headers and keys</h2>'
        yield "<p>Header names and values are UTF-8. A header stands in a message only where something needs it.</p>"
        yield '<table class="fields"><tbody>'
        for (name, description), kind in found.items():
            yield f'<tr><th scope="row"><code>{escape(name)}</code></th><td><code>{escape(kind)}</code></td>'
            yield f"<td>{escape(description)}</td></tr>"
        for description in keys:
            yield f'<tr><th scope="row">key</th><td></td><td>{escape(description)}</td></tr>'
        yield "</tbody></table></section>"

    def named(self, payload: JSON) -> list[str]:
        """The named schemas that a payload refers to, itself left out, in the order in which they are met."""
        own = payload.get("$ref", "").rpartition("/")[2]
        found: list[str] = []
        ahead = [payload]
        while ahead:
            for name in _references(ahead.pop(0)):
                if name not in found:
                    found.append(name)
                    ahead.append(self.document["components"]["schemas"][name])
        return [name for name in found if name != own]

    def schema(self, schema: Any) -> Iterator[str]:
        """The fields of an object as a table, of rows too; of anything else its type."""
        schema = self.resolve(schema)
        rows = schema.get("x-tidelog-fields")
        if rows:
            cells = ((row["name"], row["format"], "", f"at byte {row['position']}") for row in rows)
        elif schema.get("properties"):
            required = schema.get("required", ())
            cells = (
                (name, self.kind(part), "" if name in required else "optional", self.notes(part))
                for name, part in schema["properties"].items()
            )
        else:
            notes = self.notes(schema)
            yield f"<p><code>{escape(self.kind(schema))}</code> {escape(notes)}</p>"
            return
        yield '<table class="fields"><tbody>'
        for name, kind, need, notes in cells:
            yield f'<tr><th scope="row"><code>{escape(name)}</code></th><td><code>{escape(kind)}</code></td>'
            yield f"<td>{escape(' · '.join(filter(None, (need, notes))))}</td></tr>"
        yield "</tbody></table>"

    def kind(self, schema: Any) -> str:
        """The type of a schema in one line: "integer", "list of Order", "text or null"."""
        if not isinstance(schema, dict) or not schema:
            return "anything" if schema is not False else "nothing"
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            return self.kind(self.resolve(schema)) if name.startswith("header.") else name
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                return " or ".join(dict.fromkeys(map(self.kind, schema[keyword])))
        if len(schema.get("allOf", ())) == 1:
            return self.kind(schema["allOf"][0])
        if "const" in schema:
            return json.dumps(schema["const"], ensure_ascii=False)
        if "enum" in schema:
            return " or ".join(json.dumps(value, ensure_ascii=False) for value in schema["enum"])
        kind = schema.get("type", "anything")
        if isinstance(kind, list):
            return " or ".join(kind)
        if kind == "array":
            items = schema.get("items", True)
            if isinstance(items, list):
                return f"[{', '.join(map(self.kind, items))}]"
            return f"list of {self.kind(items)}"
        if kind == "object" and not schema.get("properties"):
            return f"object of {self.kind(schema.get('additionalProperties', True))}"
        return str(schema.get("format") or schema.get("title") if kind == "object" else schema.get("format") or kind)

    def notes(self, schema: Any) -> str:
        """Limits, default and description of a field."""
        if not isinstance(schema, dict):
            return ""
        if "$ref" in schema:
            target = self.resolve(schema)
            # What a named schema is for, it says itself where it is unfolded.
            return self.notes(target) if schema["$ref"].rpartition("/")[2].startswith("header.") else ""
        said = [words.format(schema[keyword]) for keyword, words in _LIMITS.items() if keyword in schema]
        if schema.get("default") not in (None, [], {}):
            said.append(f"default {json.dumps(schema['default'], ensure_ascii=False)}")
        said += [schema["description"]] if schema.get("description") else []
        return " · ".join(said)


_LIMITS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "more than {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "less than {}",
    "multipleOf": "a multiple of {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "pattern": "like {}",
    "minItems": "at least {} of them",
    "maxItems": "at most {} of them",
    "contentEncoding": "in {}",
}


def _references(schema: Any) -> Iterator[str]:
    """The names of components that a schema refers to directly."""
    if isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"].rpartition("/")[2]
        for keyword, part in schema.items():
            if keyword not in ("enum", "const", "default", "examples"):
                yield from _references(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from _references(part)


def _retention(channel: JSON, limits: JSON) -> Iterable[str]:
    if channel.get("x-tidelog-retention") == "consumed":
        yield "kept until read"
    if limits.get("retention.ms", -1) >= 0:
        yield f"kept {_duration(limits['retention.ms'])}"
    if limits.get("retention.bytes", -1) >= 0:
        yield f"kept up to {_size(limits['retention.bytes'])} per partition"


def _duration(milliseconds: int) -> str:
    for name, size in (("day", 86_400_000), ("hour", 3_600_000), ("minute", 60_000), ("second", 1000)):
        if milliseconds >= size and milliseconds % size == 0:
            count = milliseconds // size
            return f"{count} {name}{'s' if count != 1 else ''}"
    return f"{milliseconds} ms"


def _size(count: int) -> str:
    for name, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size and count % size == 0:
            return f"{count // size} {name}"
    return f"{count} bytes"


def _format(content_type: str) -> str:
    return f"<code>{escape(content_type).replace('/', '/<wbr>')}</code>"


def _badge(text: str) -> str:
    return f'<span class="badge {escape(text)}">{escape(text)}</span>'


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in text.strip().split("\n\n"):
        yield f"<p>{escape(' '.join(paragraph.split()))}</p>"
