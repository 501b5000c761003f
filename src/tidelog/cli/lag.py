"""How far behind is each consumer group, and is it catching up? `tidelog lag [GROUP] [--watch]`.

Floor 9: imports the log through common; lag_rates. Thread rule: runs in the main thread. Creates nothing, joins no
group.

Watching looks into the store anew each time and leaves it again: between two looks the store is as free as if nobody
watched, its last process can close it cleanly, and the watch goes on over restarts of everybody else.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tidelog.cli import parse
from tidelog.cli.common import (
    CommandError,
    Exit,
    Parser,
    add_all,
    add_format,
    add_store,
    describe,
    explain,
    looked_at,
    shown,
    split_names,
    spoken,
)
from tidelog.cli.groups import lag_time
from tidelog.cli.lag_rates import Rates, drains, drains_in
from tidelog.cli.output import Column, emit, is_terminal, number, tsv_cell, visible
from tidelog.errors import Error

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from tidelog.group import Group

NOW = (
    Column("group", "group"),
    Column("channel", "channel"),
    Column("members", "members", right=True, show=number),
    Column("lag", "lag", right=True, show=number),
    Column("lag_seconds", "lag time", right=True, show=lag_time),
)
LIVE = (
    *NOW,
    Column("in_per_s", "in/s", right=True, show=number),
    Column("out_per_s", "out/s", right=True, show=number),
    Column("drains", "drains in"),
    Column("drains_in_s", None),
)
WIDTHS = (16, 16, 7, 11, 11, 9, 9, 28)
"""Of the columns of LIVE where lines are written one by one and cannot be aligned afterwards."""
NARROW = ("members", "in_per_s", "out_per_s", "drains", "lag_seconds", "channel")
"""What a terminal leaves out, in this order, until the rest has room."""
SORTS = ("group", "lag", "lag_seconds")
"""What `s` goes through."""


def configure(parser: Parser) -> None:
    """Add the arguments of `lag`."""
    describe(
        parser,
        "[STORE] [GROUP] [--all] [--watch] [--interval 1s] [-c COUNT] [--format table|json|tsv]",
        "Show how many messages each consumer group is behind in each channel, and how old the oldest of them is.\n"
        "With --watch again and again, with messages in and out per second and when the lag will be gone: on a\n"
        "terminal a live table (q quits, s sorts), elsewhere a line per group and channel each time.\n"
        "The reply channels that processes have for their questions are shown with --all.",
        ["tidelog lag shop.log", "tidelog lag shop.log billing --watch", "tidelog lag shop.log --watch --format json"],
    )
    add_store(parser, "[GROUP]")
    add_all(parser)
    parser.add_argument("-w", "--watch", action="store_true", help="look again and again")
    parser.add_argument(
        "--interval", type=parse.argument(parse.duration), default=None, metavar="TIME", help="between two looks (1s)"
    )
    parser.add_argument("-c", "--count", type=parse.argument(parse.count), metavar="N", help="end after N looks")
    add_format(parser)


def run(args: argparse.Namespace) -> int:
    """Show it once, or watch."""
    store, names = split_names(args, 0, 1, "at most one group")
    name = names[0] if names else None
    if (args.interval or args.count) and not args.watch:
        raise CommandError("--interval and --count belong to --watch: add it", Exit.USAGE)
    if not args.watch:
        rows = look(store, name, args.all)
        if not rows and args.format == "table":
            print("no group has read anything yet", file=sys.stderr)
        else:
            emit(NOW, rows, args.format)
        return Exit.OK
    watching = Watching(store, name, args.all, args.interval.total_seconds() if args.interval else 1.0, args.count)
    if args.format == "table" and is_terminal(sys.stdout):
        return watching.draw()
    return watching.write(args.format)


def look(store: str, name: str | None, everything: bool) -> list[dict[str, Any]]:
    """A row for each group and channel, as it is now; `everything`: for reply channels of questions too."""
    with looked_at(store) as log:
        if name is None:
            groups = [group for group in log.groups.describe() if shown(group.name, everything)]
        else:
            groups = [log.groups[name]]
    return [row for group in groups for row in rows_of(group)]


def rows_of(group: Group) -> list[dict[str, Any]]:
    """One row for each channel of a group."""
    channels = {row.channel for row in group.offsets} | {name for one in group.members for name in one.channels}
    rows = []
    for channel in sorted(channels):
        parts = [row for row in group.offsets if row.channel == channel]
        rows.append(
            {
                "group": group.name,
                "channel": channel,
                "members": sum(channel in one.channels for one in group.members),
                "lag": sum(row.lag for row in parts),
                "lag_seconds": max((row.lag_seconds or 0.0 for row in parts), default=0.0),
                "parts": parts,
            }
        )
    return rows


class Watching:
    """Looks `count` times (None: without end), every `interval` seconds."""

    def __init__(self, store: str, name: str | None, everything: bool, interval: float, count: int | None) -> None:
        self._store = store
        self._name = name
        self._everything = everything
        self._interval = interval
        self._left = count
        self._rates = Rates()
        self._rows: list[dict[str, Any]] = []
        self._looked = False
        self._trouble = ""
        self._sort = 0

    def write(self, style: str) -> int:
        """Lines: text, JSON Lines or TSV, each with the time."""
        if style == "tsv":
            print("\t".join(["time", *(column.name for column in LIVE)]))
        elif style == "table":
            print(_line("time", [column.title or "" for column in LIVE]))
        with _keys() as keys:
            while True:
                began = time.monotonic()
                self._look()
                now = datetime.now().astimezone().isoformat(timespec="seconds")
                for row in self._rows:
                    print(_written(style, now, row))
                if self._trouble:
                    print(f"tidelog: {self._trouble}", file=sys.stderr)
                sys.stdout.flush()
                if self._done() or keys(began + self._interval) == "q":
                    return Exit.OK

    def draw(self) -> int:
        """A live table on the terminal."""
        from rich.console import Console
        from rich.live import Live

        self._look()
        console = Console(highlight=False)
        with _keys() as keys, Live(self._table(console), console=console, auto_refresh=False, screen=True) as live:
            began = time.monotonic()
            while not self._done():
                key = keys(began + self._interval)
                if key == "q":
                    break
                if key == "s":
                    self._sort = (self._sort + 1) % len(SORTS)
                if time.monotonic() >= began + self._interval:
                    began = time.monotonic()
                    self._look()
                elif self._left is not None:
                    self._left += 1  # a key is no look
                live.update(self._table(console), refresh=True)
        console.print(self._table(console))  # what was seen last stays in sight
        return Exit.OK

    def _done(self) -> bool:
        if self._left is not None:
            self._left -= 1
        return self._left == 0

    def _look(self) -> None:
        """Fill the rows. An error of the first look ends the command; later ones are told, and the watch goes on."""
        try:
            rows = look(self._store, self._name, self._everything)
        except (Error, CommandError) as error:
            if not self._looked:
                raise
            self._trouble = spoken(explain(error)[0])
            return
        self._looked = True
        self._trouble = ""
        self._rates.note(time.monotonic(), rows)
        for row in rows:
            row |= self._rates.of(row["group"], row["channel"])
            row |= {"drains": drains(row), "drains_in_s": drains_in(row)}
        self._rows = rows

    def _table(self, console: Console) -> Table:
        """As many of the columns as the terminal has room for."""
        columns = [column for column in LIVE if column.title is not None]
        drawn = self._drawn(columns)
        unbounded = console.options.update(max_width=10_000)
        for name in NARROW:
            if console.measure(drawn, options=unbounded).maximum <= console.width:
                break
            columns = [column for column in columns if column.name != name]
            drawn = self._drawn(columns)
        return drawn

    def _drawn(self, columns: Sequence[Column]) -> Table:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        by = SORTS[self._sort]
        rows = sorted(self._rows, key=lambda row: row[by], reverse=by != "group")
        about = f"every {self._interval:g} s · q quits · s sorts (by {by.replace('_seconds', ' time')})"
        drawn = Table(
            box=box.SIMPLE_HEAD,
            header_style="bold",
            pad_edge=False,
            show_edge=False,
            title=Text(about),
            title_justify="right",
            caption=Text(self._trouble or ("" if rows else "no group has read anything yet"), style="bold"),
        )
        for column in columns:
            drawn.add_column(column.title or "", justify="right" if column.right else "left", overflow="fold")
        for row in rows:
            drawn.add_row(*(Text(visible(column.text(row))) for column in columns))
        return drawn


def _written(style: str, now: str, row: dict[str, Any]) -> str:
    """One row as one line."""
    if style == "json":
        return json.dumps({"time": now} | {column.name: column.value(row) for column in LIVE}, ensure_ascii=False)
    if style == "tsv":
        return "\t".join([now, *(tsv_cell(column.value(row)) for column in LIVE)])
    return _line(now[11:19], [visible(column.text(row)) for column in LIVE if column.title is not None])


def _line(now: str, cells: list[str]) -> str:
    padded = (
        cell.rjust(width) if column.right else cell.ljust(width)
        for cell, width, column in zip(cells, WIDTHS, LIVE, strict=False)
    )
    return "  ".join([now.ljust(8), *padded]).rstrip()


def _no_key(until: float) -> str:
    time.sleep(max(until - time.monotonic(), 0.0))
    return ""


@contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """A function that waits for a key until a moment (monotonic) and answers it, or "" when the time is over; without a
    terminal it only waits. The terminal is as it was afterwards."""
    if not (sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()):
        yield _no_key
        return
    import termios
    import tty

    fd = sys.stdin.fileno()

    def key(until: float) -> str:
        ready, _, _ = select.select([fd], [], [], max(until - time.monotonic(), 0.0))
        return os.read(fd, 1).decode("latin-1").lower() if ready else ""

    before = termios.tcgetattr(fd)
    tty.setcbreak(fd)
    try:
        yield key
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
