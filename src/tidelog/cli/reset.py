"""How is a consumer group sent back or forward? `tidelog reset GROUP --to WHERE [--dry-run]`.

Floor 9: imports the log through common. Thread rule: runs in the main thread. With --dry-run nothing is changed.
"""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING

from tidelog.cli import parse
from tidelog.cli.common import (
    CommandError,
    Exit,
    Parser,
    add_format,
    add_store,
    confirm,
    describe,
    looked_at,
    opened,
    split_names,
)
from tidelog.cli.output import Column, emit, number
from tidelog.errors import Error

if TYPE_CHECKING:
    from tidelog.group import Reset, Where
    from tidelog.log import Log

COLUMNS = (
    Column("channel", "channel"),
    Column("partition", "part", right=True),
    Column("before", "committed", right=True, show=number),
    Column("after", "reset to", right=True, show=number),
)


def configure(parser: Parser) -> None:
    """Add the arguments of `reset`."""
    describe(
        parser,
        "[STORE] GROUP --to WHERE [-c CHANNEL] [-p PARTITION] [--dry-run] [--yes]",
        "Store other offsets for a consumer group. Its consumers must be closed. WHERE is one of:\n"
        "  earliest, latest         the log start, the log end\n"
        "  @TIME                    the first message at or after it: @2026-11-01T12:30, @-2h\n"
        "  123                      an offset (of one partition: -p)\n"
        "  +100, -100               so many messages on or back from the committed offset",
        [
            "tidelog reset shop.log billing --to earliest --dry-run",
            "tidelog reset shop.log billing --to @-2h --yes",
            "tidelog reset shop.log billing --to -1 -c orders -p 3 --yes",
        ],
    )
    add_store(parser, "GROUP")
    parser.add_argument("--to", required=True, metavar="WHERE", help="earliest, latest, @TIME, an offset, +N or -N")
    parser.add_argument("-c", "--channel", help="this channel only")
    parser.add_argument("-p", "--partition", type=int, help="this partition only")
    parser.add_argument("--dry-run", action="store_true", help="show what would be done, and do nothing")
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    add_format(parser)


def where(text: str) -> Where:
    """What --to says. Raises CommandError."""
    from tidelog.group import Shift

    word = text.strip()
    if re.fullmatch(r"[+-]\d{1,18}", word, re.ASCII):
        return Shift(int(word))
    try:
        found = parse.start(word)
    except ValueError:
        raise CommandError(
            f"--to {text}: this is no place: use earliest, latest, @2026-11-01, @-2h, 123, +100 or -100", Exit.USAGE
        ) from None
    match found.kind:
        case "beginning":
            return "earliest"
        case "end":
            return "latest"
        case "time" if found.time is not None:
            return found.time
    return found.value


def run(args: argparse.Namespace) -> int:
    """Show what is done to each partition, ask, and do it."""
    store, (group,) = split_names(args, 1, 1, "one group")
    to = where(args.to)
    if args.dry_run:
        with looked_at(store) as log:
            move(log, group, to, args, dry_run=True)
        return Exit.OK
    with opened(store) as log:
        if not args.yes:
            moves = reset(log, group, to, args, dry_run=True)
            parts = f"{len(moves)} partition{'' if len(moves) == 1 else 's'}"
            if not confirm(f"Reset {group} to {args.to} in {parts}?"):
                raise CommandError("nothing was changed; to reset without being asked, add --yes", Exit.USAGE)
        move(log, group, to, args, dry_run=False)
    return Exit.OK


def move(log: Log, group: str, to: Where, args: argparse.Namespace, *, dry_run: bool) -> None:
    """Reset, and show it."""
    emit(COLUMNS, [one._asdict() for one in reset(log, group, to, args, dry_run=dry_run)], args.format)


def reset(log: Log, group: str, to: Where, args: argparse.Namespace, *, dry_run: bool) -> list[Reset]:
    """`log.groups.reset`, where what cannot be meant is an error of usage."""
    try:
        return log.groups.reset(group, to, channel=args.channel, partition=args.partition, dry_run=dry_run)
    except Error:  # some of them are ValueErrors too
        raise
    except (ValueError, TypeError) as error:
        raise CommandError(str(error), Exit.USAGE) from error
