"""How is a result shown: a table for people, plain text when piped, JSON or TSV for programs?

Floor 9: imports nothing of tidelog; rich only to draw on a terminal. Thread rule: called from the main thread.

One set of strings serves the terminal and the pipe; JSON and TSV carry the raw values with the unit in the name.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TextIO

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its name for programs, heading for people, alignment, and how a value is shown to people.

    `name` "" is for people only (a bar); `title` None is for programs only.
    """

    name: str
    title: str | None
    right: bool = False
    show: Callable[[Any], str] = str
    source: str = ""
    """The row's field, where it is not called `name`."""

    def value(self, row: Row) -> Any:
        """The raw value of this column."""
        return row[self.source or self.name]

    def text(self, row: Row) -> str:
        """The value for people; what is not known is a dash."""
        value = self.value(row)
        return "-" if value is None else self.show(value)


def emit(columns: Sequence[Column], rows: Sequence[Row], style: str, stream: TextIO | None = None) -> None:
    """Write `rows` to `stream` (default: stdout) as `style`: table, json or tsv."""
    out = stream or sys.stdout
    if style == "json":
        named = [column for column in columns if column.name]
        emit_json([{column.name: column.value(row) for column in named} for row in rows], out)
    elif style == "tsv":
        named = [column for column in columns if column.name]
        print("\t".join(column.name for column in named), file=out)
        for row in rows:
            print("\t".join(tsv_cell(column.value(row)) for column in named), file=out)
    else:
        shown = [column for column in columns if column.title is not None]
        table(shown, [[column.text(row) for column in shown] for row in rows], out)


def emit_json(value: Any, stream: TextIO | None = None) -> None:
    """Write one JSON document and a line end."""
    print(json.dumps(value, default=_plain, ensure_ascii=False, indent=1), file=stream or sys.stdout)


def table(columns: Sequence[Column], cells: Sequence[Sequence[str]], stream: TextIO) -> None:
    """Draw `cells` (one string per column) with headings: by rich on a terminal, as aligned text elsewhere."""
    cells = [[visible(cell) for cell in line] for line in cells]
    if not is_terminal(stream):
        _plain_table(columns, cells, stream)
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, show_edge=False)
    for column in columns:
        drawn.add_column(column.title or "", justify="right" if column.right else "left", overflow="fold")
    for line in cells:
        drawn.add_row(*(Text(cell) for cell in line))  # as Text: a "[...]" in a key is no markup
    Console(file=stream, highlight=False).print(drawn)


def _plain_table(columns: Sequence[Column], cells: Sequence[Sequence[str]], stream: TextIO) -> None:
    heading = [column.title or "" for column in columns]
    lines = [heading, *cells]
    widths = [max(len(line[at]) for line in lines) for at in range(len(columns))]
    for line in lines:
        padded = (
            cell.rjust(width) if column.right else cell.ljust(width)
            for cell, width, column in zip(line, widths, columns, strict=True)
        )
        print("  ".join(padded).rstrip(), file=stream)


def is_terminal(stream: TextIO) -> bool:
    """Whether a person looks at `stream` through a terminal that can draw."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def number(value: float) -> str:
    """1234567 -> "1 234 567"; fractions are rounded."""
    return f"{round(value):,}".replace(",", " ")


def size(value: float) -> str:
    """Bytes in decimal units: 481000000 -> "481 MB"."""
    amount = float(value)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(amount) < 999.5 or unit == "TB":
            break
        amount /= 1000
    return f"{round(amount)} B" if unit == "B" else f"{amount:.3g} {unit}" if amount < 999.5 else f"{amount:.0f} {unit}"


def seconds(value: float) -> str:
    """A time span with three digits: 0.0000123 -> "12.3 µs", 75 -> "1 min 15 s"."""
    if value >= 86400:
        return f"{value / 86400:.3g} d"
    if value >= 3600:
        return f"{int(value // 3600)} h {int(value % 3600 // 60)} min"
    if value >= 60:
        return f"{int(value // 60)} min {int(value % 60)} s"
    for unit, factor in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= factor * 0.9995:
            return f"{value / factor:.3g} {unit}"
    return f"{value * 1e9:.0f} ns"


def percent(share: float) -> str:
    """0.412 -> "41.2 %"."""
    return f"{share * 100:.1f} %"


def bar(share: float, width: int = 24, *, blocks: bool = True) -> str:
    """A bar of at most `width` characters for a share of 0 to 1, in eighths; with `blocks` False from ASCII."""
    share = min(max(share, 0.0), 1.0)
    if not blocks:
        return "#" * round(share * width)
    eighths = round(share * width * 8)
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def has_blocks(stream: TextIO | None = None) -> bool:
    """Whether the stream's encoding can write block characters."""
    encoding = (stream or sys.stdout).encoding or "ascii"
    try:
        "█✔✘µ·".encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def key_text(key: bytes | None) -> str:
    """A message key for people: text where it is UTF-8, else hex."""
    if key is None:
        return "-"
    if not key:
        return '""'
    try:
        return visible(key.decode())
    except UnicodeDecodeError:
        return "0x" + key.hex()


def visible(text: str) -> str:
    """`text` on one line and without control characters, which could drive the terminal."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def tsv_cell(value: Any) -> str:
    """A raw value as one cell of TSV: tabs, line ends and backslashes are escaped, None is empty."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else str(_plain(value))
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def _plain(value: Any) -> Any:
    """A value that JSON does not know, as one it does."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if hasattr(value, "item"):  # a number of numpy
        return value.item()
    return value if isinstance(value, int | float | bool) else str(value)
