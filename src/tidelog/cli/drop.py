"""How is a channel removed, with its messages? `tidelog drop CHANNEL`.

Floor 9: imports the log through common. Thread rule: runs in the main thread.
"""

from __future__ import annotations

import argparse
import sys

from tidelog.cli.common import CommandError, Exit, Parser, add_store, confirm, describe, opened, split_names
from tidelog.cli.output import size


def configure(parser: Parser) -> None:
    """Add the arguments of `drop`."""
    describe(
        parser,
        "[STORE] CHANNEL [--yes]",
        "Remove a channel with its messages and its groups' offsets, for every process that has it open. There is no\n"
        "way back, so it asks first.",
        ["tidelog drop shop.log old-orders", "tidelog drop -u shop.log old-orders --yes"],
    )
    add_store(parser, "CHANNEL")
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")


def run(args: argparse.Namespace) -> int:
    """Ask, drop, and say so on stderr."""
    store, (name,) = split_names(args, 1, 1, "one channel")
    with opened(store) as log:
        try:
            channel = log[name]
            held = sum(channel.describe(partition)["bytes"] for partition in range(channel.partitions))
            what = f"the {channel.kind} {name} with {size(held)} of messages"
            del channel
        except LookupError:
            raise
        except Exception as error:  # what cannot be read can be dropped all the same
            what = f"the channel {name}, which cannot be opened ({error})"
        if not args.yes and not confirm(f"Remove {what} from {store}?"):
            raise CommandError(f"nothing was removed; to remove {what} without being asked, add --yes", Exit.USAGE)
        log.drop(name)
    print(f"removed {what}", file=sys.stderr)
    return Exit.OK
