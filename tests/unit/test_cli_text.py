"""Are words on the command line understood, and numbers, sizes and tables written, as they should be?"""

from __future__ import annotations

import io
import json
import math
import random
import statistics
from datetime import UTC, datetime, timedelta

import pytest

from tidelog.cli import output, parse
from tidelog.cli.histogram import Histogram
from tidelog.cli.output import Column

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)

# --- words ---


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("beginning", "beginning", 0),
        ("earliest", "beginning", 0),
        ("END", "end", 0),
        ("-10", "last", 10),
        ("123", "offset", 123),
        (str(2**63 - 1), "offset", 2**63 - 1),
    ],
)
def test_starts(text: str, kind: str, value: int) -> None:
    found = parse.start(text)
    assert (found.kind, found.value) == (kind, value)


@pytest.mark.parametrize("text", ["", "x", "1.5", "--1", "@", "@yesterday", str(2**63), "٣"])
def test_what_is_no_start(text: str) -> None:
    with pytest.raises(ValueError, match="use "):
        parse.start(text)


def test_times() -> None:
    assert parse.time("-15m", NOW) == NOW - timedelta(minutes=15)
    assert parse.time("2026-11-01T12:30Z") == datetime(2026, 11, 1, 12, 30, tzinfo=UTC)
    assert parse.time("1795799009501") == datetime.fromtimestamp(1795799009.501, UTC)
    assert parse.time("2026-11-01").tzinfo is not None
    assert parse.start("@-1h", NOW).time == NOW - timedelta(hours=1)
    assert parse.before("7") == 7 and parse.before("@-1d", NOW) == NOW - timedelta(days=1)


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("30s", 30), ("15m", 900), ("2h", 7200), ("7d", 604_800), ("1h30m", 5400)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse.duration(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "7", "d", "7y", "-1d", "0s", "99999999999d"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError):
        parse.duration(text)


@pytest.mark.parametrize(
    ("text", "size"), [("1500", 1500), ("64KiB", 65536), ("10MB", 10**7), ("1GiB", 1 << 30), ("1.5k", 1500)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse.size(text) == size


@pytest.mark.parametrize(("text", "count"), [("5000", 5000), ("10_000", 10_000), ("50k", 50_000), ("1M", 10**6)])
def test_counts(text: str, count: int) -> None:
    assert parse.count(text) == count


@pytest.mark.parametrize("text", ["0", "-1", "x", "", "1.2.3"])
def test_what_is_no_count(text: str) -> None:
    with pytest.raises(ValueError):
        parse.count(text)


def test_retention_cannot_be_misread() -> None:
    assert parse.retention("10m") == timedelta(minutes=10)
    assert parse.retention("10MB") == 10**7
    assert parse.retention("none") is None and parse.retention("consumed") == "consumed"
    with pytest.raises(ValueError):
        parse.retention("10M")


def test_escapes_and_headers() -> None:
    assert parse.unescape(r"a\tb\n\x1f\\%s") == b"a\tb\n\x1f\\%s"
    assert parse.header("a=b=c") == ("a", b"b=c") and parse.header("a=") == ("a", b"")
    for wrong in (r"\q", "\\"):
        with pytest.raises(ValueError):
            parse.unescape(wrong)
    with pytest.raises(ValueError):
        parse.header("=x")


# --- numbers for people ---


def test_numbers() -> None:
    assert [output.number(value) for value in (0, 999, 1234567, 1.6)] == ["0", "999", "1 234 567", "2"]
    assert [output.size(value) for value in (0, 999, 1500, 481_000_000, 999_600_000)] == [
        "0 B",
        "999 B",
        "1.5 kB",
        "481 MB",
        "1 GB",
    ]
    assert [output.seconds(value) for value in (0, 1.23e-5, 0.5, 75, 7260, 172_800)] == [
        "0 ns",
        "12.3 µs",
        "500 ms",
        "1 min 15 s",
        "2 h 1 min",
        "2 d",
    ]
    assert output.percent(0.412) == "41.2 %"


def test_bars() -> None:
    assert output.bar(1.0, 4) == "████" and output.bar(0.0, 4) == "" and output.bar(5, 4) == "████"
    assert output.bar(0.5, 1) == "▌"
    assert output.bar(0.5, 4, blocks=False) == "##"
    assert all(len(output.bar(share / 100, 10)) <= 10 for share in range(101))


COLUMNS = (
    Column("name", "Name"),
    Column("size_bytes", "size", right=True, show=output.size),
    Column("", "only for people", source="name"),
    Column("hidden", None),
)
ROWS = [
    {"name": "a\tb\x1b[31m", "size_bytes": 1500, "hidden": None},
    {"name": "[bold]c", "size_bytes": None, "hidden": NOW},
]


def shown(style: str) -> str:
    out = io.StringIO()
    output.emit(COLUMNS, ROWS, style, out)
    return out.getvalue()


def test_one_table_in_three_styles() -> None:
    assert json.loads(shown("json")) == [
        {"name": "a\tb\x1b[31m", "size_bytes": 1500, "hidden": None},
        {"name": "[bold]c", "size_bytes": None, "hidden": NOW.isoformat()},
    ]
    assert shown("tsv").splitlines()[0] == "name\tsize_bytes\thidden"
    assert shown("tsv").splitlines()[1] == "a\\tb\x1b[31m\t1500\t"
    text = shown("table")
    assert "\x1b" not in text and "1.5 kB" in text and "[bold]c" in text and "hidden" not in text
    assert text.splitlines()[2].split() == ["[bold]c", "-", "[bold]c"]


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    encoding = "utf-8"  # type: ignore[assignment]

    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_drawn_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    output.emit(COLUMNS, ROWS, "table", out)
    assert "[bold]c" in out.getvalue() and "─" in out.getvalue()
    assert "\x1b[31m" not in out.getvalue(), "a key must not drive the terminal"
    monkeypatch.setenv("TERM", "dumb")
    assert not output.is_terminal(out)


def test_keys() -> None:
    assert output.key_text(None) == "-" and output.key_text(b"") == '""' and output.key_text(b"tea") == "tea"
    assert output.key_text(b"\xff\x00") == "0xff00" and output.key_text(b"a\nb") == "a\\nb"


# --- histograms ---


def test_percentiles_are_within_a_per_cent() -> None:
    source = random.Random(7)
    values = [int(source.lognormvariate(10, 2)) + 1 for _ in range(20_000)]
    found, other = Histogram(), Histogram()
    found.add(values[:5000])
    other.add(values[5000:])
    found.merge(Histogram(other.counts, other.maximum))  # as it comes out of another process
    cuts = statistics.quantiles(values, n=1000, method="inclusive")
    assert found.total == 20_000
    for percent in (1, 50, 90, 99, 99.9):
        assert found.percentile(percent) == pytest.approx(cuts[round(percent * 10) - 1] / 1e9, rel=0.03)
    assert found.percentile(100) == max(values) / 1e9
    assert sum(count for _, count in found.points()) == 20_000


def test_an_empty_histogram() -> None:
    assert math.isnan(Histogram().percentile(50))
    one = Histogram()
    one.add([])
    one.add([0, -5])
    assert one.total == 2 and one.percentile(50) <= 1e-9
