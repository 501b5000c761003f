"""Does every guarantee have a test?

Every table of docs/guarantees.md names in its last column the tests that prove each row, by id. In the tables of cells
(engine x ack x delivery x event) the id of a cell's test is that of the row with the cell behind it; every cell of
every event must be there, and every test of tests/guarantees must be on the page. Each of the means against duplicates
is stated in one paragraph, which says what it gives, against what, what not, and by which tests that is proved.
Whatever else the page names as a test must be there too.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs" / "guarantees.md"
TEST_ID = re.compile(r"(tests/[\w/]+\.py)::(test_\w+)(\[[^\]|]+\])?")
DELIVERIES = ("at-least-once", "at-most-once", "manual", "exactly-once", "none")
ENGINES = {
    "directory": DELIVERIES,
    "memory": DELIVERIES,
    "App": ("at-least-once", "at-most-once", "exactly-once"),
}
"""The deliveries of each table of cells."""
ACKS = ("written", "synced")
MEANS = ("Idempotent producers", "Message ids", "Transactions", "Your own database")
PARTS = ("**Gives**", "**Against**", "**Not**", "**Proved**")
A_TEST = re.compile(r"tests/[\w/.]*\w(::\w+)?")
"""Anything that looks like the name of a test, so that a wrong one is noticed."""


class Row(NamedTuple):
    """One row of a table: the heading above it, its line, its cells by the heading of their column."""

    section: str
    line: int
    cells: dict[str, str]

    @property
    def last(self) -> str:
        """Where the tests are named."""
        return list(self.cells.values())[-1]


def rows(text: str) -> Iterator[Row]:
    """All rows of all tables of a page, outside fenced blocks."""
    section, header, fenced = "", None, False
    for number, line in enumerate(text.splitlines(), 1):
        fenced ^= line.startswith("```")
        if line.startswith("#") and not fenced:
            section = line.strip("# ")
        if not line.startswith("|") or fenced:
            header = None
            continue
        cells = [cell.strip() for cell in line.strip("| \n").split("|")]
        if header is None:
            header = cells
        elif not set(line) <= set("|-: "):
            if len(cells) != len(header):
                raise AssertionError(f"line {number}: {len(cells)} cells under {len(header)} headings")
            yield Row(section, number, dict(zip(header, cells, strict=True)))


def paragraphs(text: str) -> Iterator[tuple[str, int, str]]:
    """All paragraphs outside fenced blocks and tables: the heading above each, its first line, its text."""
    section, fenced, first, lines = "", False, 0, list[str]()
    for number, line in enumerate([*text.splitlines(), ""], 1):
        fenced ^= line.startswith("```")
        if line and not fenced and not line.startswith(("#", "|", "```")):
            first = first or number
            lines.append(line.strip())
            continue
        if lines:
            yield section, first, " ".join(lines)
            first, lines = 0, []
        if line.startswith("#") and not fenced:
            section = line.strip("# ")


def wrong_means(text: str) -> Iterator[str]:
    """What the paragraphs of the means against duplicates lack."""
    for means in MEANS:
        mine = [(line, words) for section, line, words in paragraphs(text) if section == means]
        if not mine:
            yield f"nothing about {means!r}"
            continue
        (line, words), *others = mine
        places = [words.find(part) for part in PARTS]
        if -1 in places or places != sorted(places) or any(words.count(part) > 1 for part in PARTS):
            yield f"line {line}: one paragraph says, in this order, {', '.join(PARTS)}"
        elif not TEST_ID.search(words[places[-1] :]):
            yield f"line {line}: no test is named by which it is proved"
        for other, more in others:
            if any(part in more for part in PARTS):
                yield f"line {other}: {means!r} is stated in one paragraph, on line {line}"


def named_in_prose(text: str) -> dict[str, int]:
    """The tests that paragraphs name, and where. Raises AssertionError for a name that is only half of one."""
    ids: dict[str, int] = {}
    for _, line, words in paragraphs(text):
        left = TEST_ID.sub("", words)
        wrong = [match[0] for match in A_TEST.finditer(left)]
        assert not wrong, f"line {line}: name tests by path::test, not {wrong}"
        ids |= {match[0]: line for match in TEST_ID.finditer(words)}
    return ids


def wrong_cells(row: Row) -> Iterator[str]:
    """What a row lacks, apart from whether its tests exist."""
    for name, cell in row.cells.items():
        if not cell:
            yield f"line {row.line}: the cell under {name!r} says nothing"
    left = TEST_ID.sub("", row.last).strip(" ,")
    if left or not TEST_ID.search(row.last):
        yield f"line {row.line}: name tests by path::test, separated by commas, not {left or 'nothing'!r}"


def ids_of_cells(found: list[Row]) -> dict[str, int]:
    """The tests of all cells, and the line each stands on. Raises AssertionError for tables that leave some out."""
    ids: dict[str, int] = {}
    for row in found:
        if "ack" not in row.cells:
            continue
        assert row.section in ENGINES, f"line {row.line}: cells of the engine {row.section!r}"
        deliveries = ENGINES[row.section]
        assert tuple(row.cells)[2:-1] == deliveries, f"line {row.line}: the deliveries are {deliveries}"
        assert TEST_ID.fullmatch(row.last), f"line {row.line}: one test, whose parameters are the cells"
        for ack in row.cells["ack"].split(", "):
            assert ack in ACKS, f"line {row.line}: the ack {ack!r}"
            for delivery in deliveries:
                cell = f"{row.last}[{row.section}-{ack}-{delivery}]"
                assert cell not in ids, f"line {row.line}: {cell} stands on line {ids[cell]} too"
                ids[cell] = row.line
    return ids


def missing_cells(found: list[Row]) -> Iterator[str]:
    """Events that say nothing of some ack."""
    acks: dict[tuple[str, str], set[str]] = {}
    for row in found:
        if "ack" in row.cells:
            acks.setdefault((row.section, row.cells["event"]), set()).update(row.cells["ack"].split(", "))
    for (engine, event), told in acks.items():
        for ack in set(ACKS) - told:
            yield f"{engine}, {event}: nothing about {ack}"
    for engine in ENGINES.keys() - {engine for engine, _ in acks}:
        yield f"no table of the engine {engine}"


def collected(paths: list[str]) -> set[str]:
    """The ids of the tests that pytest finds in these files, whatever lane they belong to."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "lane or not lane", *paths]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return {line for line in done.stdout.splitlines() if "::" in line}


@pytest.fixture(scope="module")
def page() -> list[Row]:
    return list(rows(PAGE.read_text(encoding="utf-8")))


def test_every_row_names_its_tests(page: list[Row]) -> None:
    wrong = [text for row in page for text in wrong_cells(row)]
    assert page and not wrong, "\n" + "\n".join(wrong)
    wrong = list(missing_cells(page))
    assert not wrong, "\n" + "\n".join(wrong)


def test_every_test_is_there(page: list[Row]) -> None:
    cells = ids_of_cells(page)
    named = {match[0]: row.line for row in page if "ack" not in row.cells for match in TEST_ID.finditer(row.last)}
    named |= named_in_prose(PAGE.read_text(encoding="utf-8"))
    paths = {test.partition("::")[0] for test in (*cells, *named)}
    there = collected(sorted(paths))
    plain = {test.partition("[")[0] for test in there}
    gone = [f"line {line}: {test}" for test, line in (cells | named).items() if test not in there | plain]
    assert not gone, "no such tests:\n" + "\n".join(gone)
    mine = {test for test in there if re.match(rf"tests/guarantees/.*\[({'|'.join(ENGINES)})-", test)}
    assert mine == set(cells), f"not on the page: {sorted(mine - set(cells))}"
    written = {str(path.relative_to(ROOT)) for path in (ROOT / "tests" / "guarantees").glob("test_*.py")}
    assert written <= paths


def test_each_of_the_means_is_stated_in_one_paragraph() -> None:
    text = PAGE.read_text(encoding="utf-8")
    wrong = list(wrong_means(text))
    assert not wrong, "\n" + "\n".join(wrong)
    which = [row.cells["which of the four"] for row in rows(text) if "which of the four" in row.cells]
    told = [any(f"#{means.lower().replace(' ', '-')})" in cell for cell in which) for means in MEANS]
    assert len(which) == len(MEANS) and all(told), "the table says when to take each of them, one in a row"


def test_each_rule_sees() -> None:
    head = "### {}\n\n| event | ack | at-least-once | at-most-once | manual | exactly-once | none | test |\n"
    head += "|---" * 8 + "|\n"
    row = "| kill | {} | a | b | c | d | e | tests/x.py::test_x |\n"
    good = list(rows(head.format("directory") + row.format("written, synced")))
    assert len(ids_of_cells(good)) == 10 and "tests/x.py::test_x[directory-synced-none]" in ids_of_cells(good)
    assert {*missing_cells(good)} == {"no table of the engine memory", "no table of the engine App"}
    assert len([*missing_cells([*rows(head.format("directory") + row.format("written"))])]) == 3
    with pytest.raises(AssertionError):
        ids_of_cells(list(rows(head.format("App") + row.format("written, synced"))))
    for bad in (
        "| kill | written, synced | a |  | c | d | e | tests/x.py::test_x |",
        row.replace("tests/x.py::test_x", "x"),
    ):
        assert len([*wrong_cells(next(rows(head + bad)))]) == 1
    for bad in (row.format("written") * 2, row.format("fsynced"), row.replace("::test_x", "::test_x[1]") * 2):
        with pytest.raises(AssertionError):
            ids_of_cells(list(rows(head.format("directory") + bad)))
    with pytest.raises(AssertionError):
        list(rows(head + "| kill |\n"))
    assert not list(rows("```text\n| a |\n| b |\n```\n"))


def test_each_rule_of_paragraphs_sees() -> None:
    stated = f"{' a. '.join(PARTS)} by\ntests/x.py::test_x.\n\n```python\na\n```\n\nMore.\n\n"
    good = "".join(f"### {means}\n\n{stated}" for means in MEANS)
    assert not [*wrong_means(good)] and named_in_prose(good).keys() == {"tests/x.py::test_x"}
    for part in PARTS:
        assert len([*wrong_means(good.replace(part, "", 1))]) == 1
    for old, new in (
        (f"### {MEANS[0]}", "### another"),
        ("tests/x.py::test_x", "a test"),
        (PARTS[1], f"{PARTS[1]} {PARTS[2]}"),
        ("More.", f"More. {PARTS[2]}"),
        (PARTS[2], f"\n\n{PARTS[2]}"),
    ):
        assert [*wrong_means(good.replace(old, new, 1))], new
    for wrong in ("tests/x.py", "tests/native", "tests/x.py::other", "(tests/x.py::test_x; tests/y.c)"):
        with pytest.raises(AssertionError):
            named_in_prose(f"Some words {wrong}.\n")
    assert not named_in_prose("```python\ntests/x.py\n```\n| tests/x.py |\n")
