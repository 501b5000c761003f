"""Does the page hold the three tables, ask for nothing from outside, and let no text of an application become HTML?"""

from __future__ import annotations

import re
from html.parser import HTMLParser

import msgspec
import pytest

from tests.descriptions.apps import APPS, Described, On, Order, Quote, queue, topic
from tests.descriptions.real import REAL
from tidelog.asyncapi.document import describe
from tidelog.asyncapi.page import page

VOID = {"meta", "wbr", "br", "link", "img", "input", "hr"}


class Reader(HTMLParser):
    """Tags in balance, tables as lists of rows of texts, by the id of their section."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[tuple[str, str]] = set()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.text = ""
        self._section = ""
        self._depth = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        given = {name: value or "" for name, value in attrs}
        self.attributes |= set(given.items())
        if "id" in given:
            self.ids.append(given["id"])
        if "href" in given:
            self.links.append(given["href"])
        if tag == "section":
            self._section = given["id"]
        if tag == "table":
            self._depth += 1
            if self._depth == 1:
                self.tables[self._section] = []
        if tag == "tr" and self._depth == 1:
            self.tables[self._section].append([])
        if tag in ("td", "th") and self._depth == 1:
            self.tables[self._section][-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()
        if tag == "table":
            self._depth -= 1

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.text += data
        rows = self.tables.get(self._section)
        if self._depth and rows and rows[-1]:
            rows[-1][-1] = (rows[-1][-1] + data).rstrip("\n")


def read(html: str) -> Reader:
    """The page, parsed to its end."""
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    return reader


@pytest.mark.parametrize("name", [*APPS, *REAL])
def test_it_is_whole_and_asks_for_nothing(name: str) -> None:
    html = page(describe({**APPS, **REAL}[name]))
    reader = read(html)
    assert html.startswith("<!doctype html>\n")
    assert not reader.tags & {"script", "link", "img", "iframe", "object", "form", "base"}
    assert not re.search(r"url\(|@import|https?://|javascript:", html.replace("https://example.org/", ""))
    assert not [one for one, _ in reader.attributes if one.startswith("on") or one in ("src", "style")]
    assert ("http-equiv", "Content-Security-Policy") in reader.attributes
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in reader.attributes
    assert ("name", "viewport") in reader.attributes
    assert len(set(reader.ids)) == len(reader.ids)
    assert all(link.startswith("#") and link[1:] in reader.ids for link in reader.links)
    for word in ("prefers-color-scheme: dark", "@media print", "max-width"):
        assert word in html


def test_one_way() -> None:
    tables = read(page(describe(APPS["one-way"]))).tables
    head, *rows = tables["one-way"]
    assert head == ["Channel", "This application", "Message type", "Format"]
    cells = [(row[0].split("queue")[0], row[2].partition("What")[0], row[3]) for row in rows]
    assert cells == [
        ("orders", "Order", "application/json"),
        ("invoices", "Invoice", "application/json"),
        ("orders.dead", "Order", "application/json"),
    ]
    assert "queue · 8 partitions · kept 7 days" in rows[0][0]
    assert "receives bill" in rows[0][1] and "parallel by key" in rows[0][1] and "Write the invoice." in rows[0][1]
    assert rows[1][1].startswith("sends")
    assert set(tables) == {"one-way", "headers"}


def test_publish_subscribe() -> None:
    head, *rows = read(page(describe(APPS["publish-subscribe"]))).tables["publish-subscribe"]
    assert head == ["Channel", "This application", "Message type", "Format"]
    assert [row[0].split("topic")[0] for row in rows][:4] == ["prices", "prices", "changes", "changes"]
    assert "at byte 16" in rows[0][2] and "2x3 <f4" in rows[0][2]
    assert "kept up to 1 GiB per partition" in rows[0][0] and "kept until read" in rows[2][0]
    assert "group chart" in rows[0][1] and "group audit" in rows[1][1]


def test_async_response_has_the_reply_too() -> None:
    head, row = read(page(describe(APPS["async-response"]))).tables["async-response"]
    assert head == ["Channel", "This application", "Message type", "Format", "Reply type", "Reply format"]
    assert row[2].startswith("QuoteRequest") and row[3] == "application/json"
    assert row[4].startswith("Quote") and "Refused" in row[4] and "error" in row[4] and row[5] == "application/json"
    assert "reply-to (required)" in row[2] and "correlation-id (required)" in row[4]


def test_a_pattern_without_channels_says_so() -> None:
    reader = read(page(describe(APPS["nothing"])))
    assert reader.text.count("This application has none.") == 3
    assert reader.tables == {}


def test_fields_unfold() -> None:
    html = page(describe(APPS["all types"]))
    assert html.count("<details>") > 30
    reader = read(html)
    for text in (
        "at least 1 characters",
        "at most 32 characters",
        "list of Cat or Dog",
        "object of number",
        "[integer, integer]",
    ):
        assert text in reader.text


EVIL = "</style><script>alert('1')</script>&amp;\"'"


def test_no_text_becomes_html() -> None:
    field = EVIL.replace('"', "")
    evil = msgspec.defstruct(
        "Evil",
        [("field", str, msgspec.field(name=field, default=EVIL))],
        namespace={"__doc__": f"About {EVIL}."},
    )
    application = Described(
        f"name {EVIL}",
        [On(f"on {EVIL}", queue("q", evil), description=f"Does {EVIL}."), On("b", topic("t", Order), f"group {EVIL}")],
        [queue("r", Order, reply=Quote)],
        url=f"dir {EVIL}",
        version=EVIL,
        description=f"is {EVIL}",
    )
    html = page(describe(application))
    reader = read(html)
    assert "<script" not in html and "</style><" not in html.replace("</style>\n</head>", "")
    assert "script" not in reader.tags
    # Each text is there, as text.
    for text in (
        f"name {EVIL}",
        f"on {EVIL}",
        f"Does {EVIL}",
        f"group {EVIL}",
        f"dir {EVIL}",
        f"is {EVIL}",
        f"About {EVIL}",
        field,
    ):
        assert text in reader.text


def test_it_is_the_same_every_time() -> None:
    document = describe(REAL["billing"])
    assert page(document) == page(document)
