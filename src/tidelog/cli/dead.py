"""Which messages could nobody handle, and why? `tidelog dead CHANNEL`.

Floor 9: imports the log through common, and app.redrive. Thread rule: runs in the main thread. Commits nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from tidelog.cli import parse
from tidelog.cli.common import CommandError, Exit, Parser, add_format, add_store, describe, opened, split_names
from tidelog.cli.output import Column, emit, key_text, number, visible

if TYPE_CHECKING:
    from tidelog.channel import Channel
    from tidelog.message import Message

ERROR_CHARACTERS = 60
WHERE_HELP = "only these: error=TYPE, key=KEY, or HEADER=VALUE; several must all hold"


def moment(value: datetime) -> str:
    """A time for people, in the local zone."""
    return f"{value.astimezone():%Y-%m-%d %H:%M:%S}"


def short(text: str) -> str:
    """The first line of an error, cut to fit a table."""
    line = visible(text.partition("\n")[0])
    return line if len(line) <= ERROR_CHARACTERS else line[: ERROR_CHARACTERS - 1] + "…"


COLUMNS = (
    Column("partition", "part", right=True),
    Column("offset", "offset", right=True, show=number),
    Column("time", "when", show=moment),
    Column("key", "key", show=key_text),
    Column("from", "from"),
    Column("attempts", "tries", right=True),
    Column("redriven", "redriven", right=True),
    Column("done", "done", show=lambda done: "yes" if done else "no"),
    Column("error", "error"),
    Column("error_text", "says", show=short),
    Column("value", None),
    Column("traceback", None),
)


def configure(parser: Parser) -> None:
    """Add the arguments of `dead`."""
    describe(
        parser,
        "[STORE] CHANNEL [--where WHAT=VALUE] [--offset P:O] [--all] [-c N] [--format table|json|tsv]",
        "Show the messages of a dead-letter channel that were not sent back yet: where each came from, which error it\n"
        "met, after how many attempts. json and tsv have the value and the traceback too.",
        [
            "tidelog dead shop.log orders.dead",
            "tidelog dead shop.log orders.dead --where error=ValueError --where key=tea",
            "tidelog dead shop.log orders.dead --offset 0:17 --format json",
        ],
    )
    add_store(parser, "CHANNEL")
    add_choice(parser)
    parser.add_argument("-a", "--all", action="store_true", help="those that were sent back too")
    parser.add_argument("-c", "--count", type=parse.argument(parse.count), metavar="N", help="at most N, the oldest")
    add_format(parser)


def add_choice(parser: Parser) -> None:
    """Add --where and --offset."""
    parser.add_argument(
        "-w",
        "--where",
        action="append",
        default=[],
        type=parse.argument(parse.header),
        metavar="WHAT=VALUE",
        help=WHERE_HELP,
    )
    parser.add_argument(
        "-o",
        "--offset",
        action="append",
        default=[],
        type=parse.argument(place),
        metavar="PARTITION:OFFSET",
        help="this one, as `tidelog dead` shows it; several times: these",
    )


def place(text: str) -> tuple[int, int]:
    """`partition:offset`; an offset alone is one of partition 0."""
    first, colon, second = text.rpartition(":")
    try:
        found = int(first) if colon else 0, int(second)
    except ValueError:
        found = -1, -1
    if min(found) < 0:
        raise ValueError(f"{text!r} is no place: write PARTITION:OFFSET, for example 0:17")
    return found


def chooser(args: argparse.Namespace) -> Callable[[Message[Any]], bool]:
    """Whether a dead letter is one of those that --where and --offset ask for."""
    wanted: list[tuple[str, bytes]] = args.where
    places: set[tuple[int, int]] = set(args.offset)

    def holds(message: Message[Any], name: str, value: bytes) -> bool:
        if name == "key":
            return message.key == value
        return message.headers.get(name) == value

    def chosen(message: Message[Any]) -> bool:
        if places and (message.partition, message.offset) not in places:
            return False
        return all(holds(message, name, value) for name, value in wanted)

    return chosen


def run(args: argparse.Namespace) -> int:
    """Show them; a channel without any is no error."""
    from tidelog.app.redrive import finished

    store, (name,) = split_names(args, 1, 1, "one dead-letter channel")
    with opened(store) as log:
        channel = log[name]
        chosen, done = chooser(args), finished(log, channel)
        found = (message for message in channel.scan() if chosen(message) and (args.all or not done(message)))
        rows = [row(message, done(message)) for message in islice(found, args.count)]
        require_places(args, channel)
    if not rows and args.format == "table":
        print(f"no dead letters in {name}" + ("" if args.all else " that were not sent back"), file=sys.stderr)
    else:
        emit(COLUMNS, rows, args.format)
    return Exit.OK


def require_places(args: argparse.Namespace, channel: Channel[Any]) -> None:
    """Raise CommandError (exit code 3) for an --offset outside the channel."""
    for partition, offset in args.offset:
        if partition >= channel.partitions or not channel.bounds(partition)[0] <= offset < channel.bounds(partition)[1]:
            raise CommandError(
                f"{channel.name} has no message at {partition}:{offset}; see `tidelog dead {channel.name}`",
                Exit.MISSING,
            )


def row(message: Message[Any], done: bool) -> dict[str, Any]:
    """One dead letter as a row."""
    from tidelog import envelope
    from tidelog.app import dead_letter
    from tidelog.app.redrive import redriven_times

    def said(name: str) -> str | None:
        value = message.headers.get(name)
        return None if value is None else value.decode("utf-8", "replace")

    origin = said(dead_letter.FROM_CHANNEL)
    where = f"{origin}-{said(dead_letter.FROM_PARTITION)}@{said(dead_letter.FROM_OFFSET)}"
    attempts = said(dead_letter.ATTEMPTS)
    return {
        "partition": message.partition,
        "offset": message.offset,
        "time": message.timestamp,
        "key": message.key,
        "from": None if origin is None else visible(where),
        "attempts": int(attempts) if attempts is not None and attempts.isdecimal() else None,
        "redriven": redriven_times(message),
        "done": done,
        "error": said(envelope.ERROR),
        "error_text": said(envelope.ERROR_TEXT),
        "value": message.raw,
        "traceback": said(dead_letter.TRACEBACK),
    }
