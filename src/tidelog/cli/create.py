"""How does a channel come into being from the command line? `tidelog create CHANNEL`.

Floor 9: imports the log through common. Thread rule: runs in the main thread.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from tidelog.cli import parse
from tidelog.cli.common import CommandError, Exit, Parser, add_store, describe, opened, split_names
from tidelog.cli.output import number
from tidelog.compression import NAMES as COMPRESSIONS
from tidelog.config import CARRIES, DEFAULT_PARTITIONS
from tidelog.names import check_channel

TYPES: dict[str, tuple[Any, str | None]] = {
    "bytes": (None, None),
    "text": (str, None),
    "json": (Any, "json"),
    "msgpack": (Any, "msgpack"),
}
"""What messages can be, as (type, codec) of `log.queue`."""
OPTIONS = {
    "--partitions": "partitions",
    "--max-message": "max_message_bytes",
    "--segment": "segment_bytes",
    "--dedup-count": "dedup_count",
    "--dedup-window": "dedup_window",
}
"""What is called otherwise here than as a keyword of `log.queue`."""


def configure(parser: Parser) -> None:
    """Add the arguments of `create`."""
    describe(
        parser,
        "[STORE] CHANNEL [--kind queue|topic] [--type bytes|text|json|msgpack] [--partitions N] [--retention LIMIT]",
        "Create a channel, and the store if there is none. A queue gives each message to one receiver, a topic gives\n"
        "every message to every group.",
        [
            "tidelog create shop.log orders --kind queue --type json",
            "tidelog create shop.log prices --partitions 16 --retention 7d --compression lz4",
            "tidelog create -u shop.log audit --retention 10GB",
        ],
    )
    add_store(parser, "CHANNEL")
    parser.add_argument("--kind", choices=("queue", "topic"), default="topic", help="default: topic")
    parser.add_argument("--type", choices=TYPES, default="bytes", help="what messages are (default: bytes)")
    parser.add_argument(
        "--partitions", type=parse.argument(parse.count), metavar="N", help=f"default: {DEFAULT_PARTITIONS}"
    )
    parser.add_argument(
        "--retention",
        type=parse.argument(parse.retention),
        metavar="LIMIT",
        help="an age (7d), bytes per partition (10GB), consumed, or none (the default)",
    )
    parser.add_argument("--compression", choices=COMPRESSIONS, help="how batches are packed (default: none)")
    parser.add_argument("--carries", choices=CARRIES, help="default: command for a queue, event for a topic")
    parser.add_argument(
        "--max-message", type=parse.argument(parse.size), metavar="SIZE", help="largest key and value (16MiB)"
    )
    parser.add_argument("--segment", type=parse.argument(parse.size), metavar="SIZE", help="size of files (1GiB)")
    parser.add_argument(
        "--dedup-count", type=int, metavar="N", help="ids in which a repeated id is a duplicate (100,000; 0: none is)"
    )
    parser.add_argument(
        "--dedup-window", type=parse.argument(parse.duration), metavar="TIME", help="how old that id may be (10min)"
    )


def run(args: argparse.Namespace) -> int:
    """Create, then say what there is now on stderr."""
    store, (name,) = split_names(args, 1, 1, "one channel")
    type_, codec = TYPES[args.type]
    try:
        check_channel(name)  # a wrong name must not leave an empty store behind
    except ValueError as error:
        raise CommandError(str(error), Exit.USAGE) from error
    with opened(store, create=True) as log:
        if name in log:
            known = log[name]
            raise CommandError(
                f"{name} exists already: a {known.kind} of {known.codec.name} with {known.partitions} partitions; "
                f"choose another name, or remove it first with: tidelog drop {store} {name}"
            )
        make = log.queue if args.kind == "queue" else log.topic
        try:
            channel = make(
                name,
                type_,
                codec=codec,
                partitions=args.partitions,
                retention=args.retention,
                compression=args.compression,
                carries=args.carries,
                max_message_bytes=args.max_message,
                segment_bytes=args.segment,
                dedup_count=args.dedup_count,
                dedup_window=args.dedup_window,
            )
        except (ValueError, TypeError) as error:
            text = str(error)
            for option, keyword in OPTIONS.items():
                text = text.replace(f"{keyword}=", f"{option} ")
            raise CommandError(text, Exit.USAGE) from error
        count = channel.partitions
        print(
            f"created {args.kind} {name} ({args.type}, {number(count)} partition{'' if count == 1 else 's'}) "
            f"in {store}",
            file=sys.stderr,
        )
    return Exit.OK
