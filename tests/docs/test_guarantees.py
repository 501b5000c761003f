"""Does every guarantee have a test?

Every table of docs/guarantees.md names in its last column the tests that prove each row, by id. In the tables of cells
(engine x ack x delivery x event) the id of a cell's test is that of the row with the cell behind it; every cell of
every event must be there, and every test of tests/guarantees must be on the page.
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
ENGINES = ("directory", "memory")
ACKS = ("written", "synced")
DELIVERIES = ("at-least-once", "at-most-once", "manual", "none")


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
        assert tuple(row.cells)[2:-1] == DELIVERIES, f"line {row.line}: the deliveries are {DELIVERIES}"
        assert TEST_ID.fullmatch(row.last), f"line {row.line}: one test, whose parameters are the cells"
        for ack in row.cells["ack"].split(", "):
            assert ack in ACKS, f"line {row.line}: the ack {ack!r}"
            for delivery in DELIVERIES:
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
    for engine in set(ENGINES) - {engine for engine, _ in acks}:
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
    paths = {test.partition("::")[0] for test in (*cells, *named)}
    there = collected(sorted(paths))
    plain = {test.partition("[")[0] for test in there}
    gone = [f"line {line}: {test}" for test, line in (cells | named).items() if test not in there | plain]
    assert not gone, "no such tests:\n" + "\n".join(gone)
    mine = {test for test in there if re.match(rf"tests/guarantees/.*\[({'|'.join(ENGINES)})-", test)}
    assert mine == set(cells), f"not on the page: {sorted(mine - set(cells))}"
    written = {str(path.relative_to(ROOT)) for path in (ROOT / "tests" / "guarantees").glob("test_*.py")}
    assert written <= paths


def test_each_rule_sees() -> None:
    head = "### {}\n\n| event | ack | at-least-once | at-most-once | manual | none | test |\n" + "|---" * 7 + "|\n"
    row = "| kill | {} | a | b | c | d | tests/x.py::test_x |\n"
    good = list(rows(head.format("directory") + row.format("written, synced")))
    assert len(ids_of_cells(good)) == 8 and "tests/x.py::test_x[directory-synced-none]" in ids_of_cells(good)
    assert [*missing_cells(good)] == ["no table of the engine memory"]
    assert len([*missing_cells([*rows(head.format("directory") + row.format("written"))])]) == 2
    for bad in (
        "| kill | written, synced | a |  | c | d | tests/x.py::test_x |",
        row.replace("tests/x.py::test_x", "x"),
    ):
        assert len([*wrong_cells(next(rows(head + bad)))]) == 1
    for bad in (row.format("written") * 2, row.format("fsynced"), row.replace("::test_x", "::test_x[1]") * 2):
        with pytest.raises(AssertionError):
            ids_of_cells(list(rows(head.format("directory") + bad)))
    with pytest.raises(AssertionError):
        list(rows(head + "| kill |\n"))
    assert not list(rows("```text\n| a |\n| b |\n```\n"))
