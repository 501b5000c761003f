"""How are old messages removed by hand? `tidelog trim CHANNEL --before OFFSET | @TIME`.

Floor 9: imports the log through common. Thread rule: runs in the main thread.
"""

from __future__ import annotations

import argparse
from typing import Any

from tidelog.cli import parse
from tidelog.cli.common import (
    CommandError,
    Exit,
    Parser,
    add_format,
    add_store,
    confirm,
    describe,
    opened,
    require_partition,
    split_names,
)
from tidelog.cli.output import Column, emit, number, size

COLUMNS = (
    Column("partition", "part", right=True),
    Column("old_start", "start was", right=True, show=number),
    Column("new_start", "start is", right=True, show=number),
    Column("end", "end", right=True, show=number),
    Column("freed_bytes", "freed", right=True, show=size),
)


def configure(parser: Parser) -> None:
    """Add the arguments of `trim`."""
    describe(
        parser,
        "[STORE] CHANNEL --before OFFSET | @TIME [-p PARTITION] [--yes]",
        "Remove the messages before an offset or a time. They are gone at once; the space of a file is free when\n"
        "all of its messages are gone.",
        [
            "tidelog trim shop.log prices --before @-7d",
            "tidelog trim shop.log prices --before @2026-11-01T12:00 --yes",
            "tidelog trim shop.log prices --before 120000 -p 3 --yes",
        ],
    )
    add_store(parser, "CHANNEL")
    parser.add_argument(
        "--before", required=True, type=parse.argument(parse.before), metavar="WHERE", help="123, @2026-11-01, @-7d"
    )
    parser.add_argument("-p", "--partition", type=int, help="this partition only")
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    add_format(parser)


def run(args: argparse.Namespace) -> int:
    """Ask, trim, and show where each partition begins now."""
    store, (name,) = split_names(args, 1, 1, "one channel")
    with opened(store) as log:
        channel = log[name]
        require_partition(channel, args.partition)
        if isinstance(args.before, int) and args.partition is None and channel.partitions > 1:
            raise CommandError(
                f"before offset {args.before} of which partition? Every partition counts its own: give -p N, or a time",
                Exit.USAGE,
            )
        if not args.yes and not confirm(f"Remove the messages of {name} before {args.before}?"):
            raise CommandError("nothing was removed; to trim without being asked, add --yes", Exit.USAGE)
        wanted = [args.partition] if args.partition is not None else list(range(channel.partitions))
        before = {partition: channel.describe(partition) for partition in wanted}
        channel.trim(args.before, args.partition)
        rows: list[dict[str, Any]] = []
        for partition in wanted:
            now = channel.describe(partition)
            rows.append(
                {
                    "partition": partition,
                    "old_start": before[partition]["log_start"],
                    "new_start": now["log_start"],
                    "end": now["log_end"],
                    "freed_bytes": max(0, before[partition]["allocated_bytes"] - now["allocated_bytes"]),
                }
            )
        emit(COLUMNS, rows, args.format)
    return Exit.OK
