"""How do dead letters get another chance? `tidelog redrive CHANNEL`.

Floor 9: imports the log through common, and app.redrive. Thread rule: runs in the main thread.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from tidelog.cli.common import CommandError, Exit, Parser, add_format, add_store, describe, opened, split_names
from tidelog.cli.dead import add_choice, chooser, require_places
from tidelog.cli.output import Column, emit, key_text, number

COLUMNS = (
    Column("partition", "part", right=True),
    Column("offset", "offset", right=True, show=number),
    Column("key", "key", show=key_text),
    Column("to", "to"),
    Column("redriven", "times", right=True),
    Column("status", "status"),
)


def configure(parser: Parser) -> None:
    """Add the arguments of `redrive`."""
    describe(
        parser,
        "[STORE] CHANNEL (--all | --where WHAT=VALUE | --offset P:O) [--to CHANNEL] [--max-per-second N] [--dry-run]",
        "Send messages of a dead-letter channel back to the channels they came from, with their keys and headers.\n"
        "Each is sent once, however often this is run: what was sent is remembered. A message that comes back again\n"
        "and again is refused after --limit times.",
        [
            "tidelog redrive shop.log orders.dead --all",
            "tidelog redrive shop.log orders.dead --where error=ConnectionError --max-per-second 50",
            "tidelog redrive shop.log orders.dead --offset 0:17 --force",
        ],
    )
    add_store(parser, "CHANNEL")
    add_choice(parser)
    parser.add_argument("-a", "--all", action="store_true", help="every one")
    parser.add_argument("--to", metavar="CHANNEL", help="send them there, and not to where they came from")
    parser.add_argument("--limit", type=int, metavar="N", help="refuse what was redriven N times already (default 3)")
    parser.add_argument("--force", action="store_true", help="send those too that were redriven too often")
    parser.add_argument("--max-per-second", type=float, metavar="N", help="go slowly")
    parser.add_argument("-n", "--dry-run", action="store_true", help="show what would be sent, and send nothing")
    add_format(parser)


def run(args: argparse.Namespace) -> int:
    """Send them; exit code 1 if some of the chosen could not be sent."""
    from tidelog.app.redrive import LIMIT, redrive

    store, (name,) = split_names(args, 1, 1, "one dead-letter channel")
    if not (args.all or args.where or args.offset):
        raise CommandError("which ones? Give --all, --where WHAT=VALUE or --offset PARTITION:OFFSET", Exit.USAGE)
    if args.max_per_second is not None and not args.max_per_second > 0:
        raise CommandError(f"--max-per-second {args.max_per_second:g}: give a number above zero", Exit.USAGE)
    if args.limit is not None and args.limit < 0:
        raise CommandError(f"--limit {args.limit}: give 0 or more", Exit.USAGE)
    if args.to == name:
        raise CommandError(f"--to {name}: dead letters of {name} cannot be sent to {name} itself; name another channel")
    rows: list[dict[str, Any]] = []
    left = []
    with opened(store) as log:
        channel = log[name]
        require_places(args, channel)
        found = redrive(
            log,
            channel,
            chooser(args),
            to=args.to,
            limit=LIMIT if args.limit is None else args.limit,
            force=args.force,
            per_second=args.max_per_second,
            dry_run=args.dry_run,
        )
        for one in found:
            rows.append(
                {
                    "partition": one.message.partition,
                    "offset": one.message.offset,
                    "key": one.message.key,
                    "to": one.to,
                    "redriven": one.times,
                    "status": one.status,
                }
            )
            if one.status not in ("sent", "would be sent"):
                left.append(one)
    if not rows and args.format == "table":
        print(f"nothing to send back in {name}; see `tidelog dead {name} --all`", file=sys.stderr)
    else:
        emit(COLUMNS, rows, args.format)
    if any(one.status == "refused" for one in left):
        print("tidelog: some were redriven too often already; to send them all the same, add --force", file=sys.stderr)
    if any(one.status == "no channel" for one in left):
        print("tidelog: some came from channels that are gone; say where they go with --to", file=sys.stderr)
    if any(one.status == "no dead letter" for one in left):
        print(
            "tidelog: some have no header that says where they came from; say where they go with --to", file=sys.stderr
        )
    return Exit.ERROR if left else Exit.OK
