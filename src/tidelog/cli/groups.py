"""Which consumer groups are there, who is in one, and how far behind is it? `tidelog groups [GROUP]`.

Floor 9: imports the log through common. Thread rule: runs in the main thread. Creates nothing, joins nothing.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from tidelog.cli.common import (
    CommandError,
    Exit,
    Parser,
    add_all,
    add_format,
    add_store,
    describe,
    looked_at,
    shown,
    split_names,
)
from tidelog.cli.ls import age
from tidelog.cli.output import Column, emit, emit_json, number, seconds

if TYPE_CHECKING:
    from tidelog.group import Group


def lag_time(value: float) -> str:
    """How old the oldest message is that a group has not committed, for people."""
    return seconds(value) if value >= 0.0005 else "0 s"


GROUPS = (
    Column("group", "group"),
    Column("state", "state"),
    Column("members", "members", right=True, show=number),
    Column("channels", "channels", show=", ".join),
    Column("partitions", "partitions", right=True, show=number),
    Column("lag", "lag", right=True, show=number),
    Column("lag_seconds", "lag time", right=True, show=lag_time),
)
MEMBERS = (
    Column("member", "member"),
    Column("pid", "process", right=True),
    Column("state", "state"),
    Column("partitions", "partitions", show=", ".join),
)
OFFSETS = (
    Column("channel", "channel"),
    Column("partition", "part", right=True),
    Column("committed", "committed", right=True, show=number),
    Column("log_start", "start", right=True, show=number),
    Column("log_end", "end", right=True, show=number),
    Column("lag", "lag", right=True, show=number),
    Column("lag_seconds", "lag time", right=True, show=lag_time),
    Column("member", "member"),
    Column("committed_at", "when", right=True, show=age),
)


def configure(parser: Parser) -> None:
    """Add the arguments of `groups`."""
    describe(
        parser,
        "[STORE] [GROUP] [--all] [--delete [--yes]] [--format table|json|tsv]",
        "List the consumer groups of a store; with GROUP, show its members and its partitions. A queue's one group\n"
        "has the name of the queue. Lag counts messages; its time is the age of the oldest one that is not committed.\n"
        "Those of the reply channels that processes have for their questions are listed with --all.",
        [
            "tidelog groups shop.log",
            "tidelog groups shop.log billing",
            "tidelog groups shop.log billing --delete",
        ],
    )
    add_store(parser, "[GROUP]")
    add_all(parser)
    parser.add_argument("--delete", action="store_true", help="remove GROUP and its committed offsets")
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask before deleting")
    add_format(parser)


def run(args: argparse.Namespace) -> int:
    """List, describe or delete."""
    store, names = split_names(args, 1 if args.delete else 0, 1, "one group" if args.delete else "at most one group")
    if args.delete:
        return delete(store, names[0], args.yes)
    if args.yes:
        raise CommandError("--yes belongs to --delete: add it, or leave --yes out", Exit.USAGE)
    with looked_at(store) as log:
        if not names:
            rows = [row_of(group) for group in log.groups.describe() if shown(group.name, args.all)]
            if not rows and args.format == "table":
                print("no group has read anything yet", file=sys.stderr)
            else:
                emit(GROUPS, rows, args.format)
            return Exit.OK
        group = log.groups[names[0]]
    show(group, args.format)
    return Exit.OK


def row_of(group: Group) -> dict[str, Any]:
    """One line about a group."""
    channels = {row.channel for row in group.offsets} | {name for one in group.members for name in one.channels}
    return {
        "group": group.name,
        "state": group.state,
        "members": len(group.members),
        "channels": sorted(channels),
        "partitions": len(group.offsets),
        "lag": group.lag,
        "lag_seconds": group.lag_seconds,
    }


def show(group: Group, style: str) -> None:
    """One group: a line, its members, its partitions. As TSV only the partitions."""
    names = {one.id: one.name or f"{one.id:x}" for one in group.members}
    members = [
        {
            "member": names[one.id],
            "pid": one.pid,
            "state": "away" if one.away else "active",
            "partitions": [f"{part.channel}-{part.partition}" for part in one.partitions],
        }
        for one in group.members
    ]
    offsets = [
        row._asdict() | {"member": names.get(row.member) if row.member is not None else None} for row in group.offsets
    ]
    if style == "json":
        emit_json(
            row_of(group)
            | {
                "members": [{column.name: column.value(row) for column in MEMBERS} for row in members],
                "offsets": [{column.name: column.value(row) for column in OFFSETS} for row in offsets],
            }
        )
        return
    if style == "table":
        print(
            f"{group.name}  {group.state}, {number(len(members))} member{'' if len(members) == 1 else 's'}, "
            f"lag {number(group.lag)}, {lag_time(group.lag_seconds)}"
        )
        if members:
            emit(MEMBERS, members, style)
            print()
    emit(OFFSETS, offsets, style)


def delete(store: str, name: str, sure: bool) -> int:
    """Remove a group, after asking."""
    from tidelog.cli.common import confirm, opened

    with opened(store) as log:
        group = log.groups[name]  # that there is one, before anybody is asked
        if not sure and not confirm(f"Remove the group {name} and its offsets in {len(group.offsets)} partitions?"):
            raise CommandError("nothing was removed; to delete without being asked, add --yes", Exit.USAGE)
        log.groups.delete(name)
    print(f"the group {name} is removed")
    return Exit.OK
