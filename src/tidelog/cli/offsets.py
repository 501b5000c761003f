"""How far has each consumer group come? `tidelog offsets`.

Floor 9: imports the log through common. Thread rule: runs in the main thread. Creates nothing, commits nothing.
"""

from __future__ import annotations

import argparse
import sys

from tidelog.cli.common import CommandError, Exit, Parser, add_format, add_store, describe, looked_at, split_names
from tidelog.cli.ls import age
from tidelog.cli.output import Column, emit, number

COLUMNS = (
    Column("group", "group"),
    Column("channel", "channel"),
    Column("partition", "part", right=True),
    Column("committed", "committed", right=True, show=number),
    Column("log_start", "start", right=True, show=number),
    Column("log_end", "end", right=True, show=number),
    Column("lag", "lag", right=True, show=number),
    Column("committed_at", "when", right=True, show=age),
    Column("owner_pid", "read by pid", right=True),
)


def configure(parser: Parser) -> None:
    """Add the arguments of `offsets`."""
    describe(
        parser,
        "[STORE] [CHANNEL] [-g GROUP] [--format table|json|tsv]",
        "Show the committed offsets of consumer groups, and how many offsets they are behind. A queue's one group has\n"
        "the name of the queue. A dash: nothing committed, or nobody reading.",
        ["tidelog offsets shop.log", "tidelog offsets shop.log prices -g billing --format tsv"],
    )
    add_store(parser, "[CHANNEL]")
    parser.add_argument("-g", "--group", help="this group only")
    add_format(parser)


def run(args: argparse.Namespace) -> int:
    """Show them; a group or channel that is not there is an error, exit code 3."""
    store, names = split_names(args, 0, 1, "at most one channel")
    with looked_at(store) as log:
        known = log[names[0]].offsets() if names else log.offsets()
        if args.group is not None:
            known = [row for row in known if row.group == args.group]
            if not known:
                where = f" in {names[0]}" if names else ""
                raise CommandError(
                    f"no group {args.group!r} has ever read{where}; see `tidelog offsets {store}`", Exit.MISSING
                )
        rows = [
            {
                "group": row.group,
                "channel": row.channel,
                "partition": row.partition,
                "committed": row.offset if row.offset >= 0 else None,
                "log_start": row.log_start,
                "log_end": row.log_end,
                "lag": row.lag,
                "committed_at": row.committed_at,
                "owner_pid": row.owner_pid or None,
            }
            for row in known
        ]
        if not rows and args.format == "table":
            print("no group has read anything yet", file=sys.stderr)
        else:
            emit(COLUMNS, rows, args.format)
    return Exit.OK
