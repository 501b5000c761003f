"""Which channels does a store have, and how large are they? `tidelog ls`.

Floor 9: imports the log through common. Thread rule: runs in the main thread. Creates nothing.
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tidelog.cli.common import Exit, Parser, add_all, add_format, add_store, describe, looked_at, shown, split_names
from tidelog.cli.output import Column, emit, number, seconds, size
from tidelog.errors import ChannelNotFound, Error

if TYPE_CHECKING:
    from tidelog.log import Log


def age(moment: datetime | None) -> str:
    """How long ago, for people."""
    if moment is None:
        return "-"
    passed = (datetime.now(UTC) - moment).total_seconds()
    return f"{seconds(max(passed, 0.001))} ago" if passed > -1 else f"in {seconds(-passed)}"


def moment(milliseconds: int) -> datetime | None:
    """A time in the log (ms since 1970; -1: none). Times that no calendar has are none either."""
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds >= 0 else None
    except (ValueError, OverflowError):
        return None


def keeping(retention: tuple[int, int, bool]) -> str:
    """(ms, bytes, consumed) for people."""
    age_ms, size_bytes, consumed = retention
    if consumed:
        return "until consumed"
    if age_ms >= 0:
        return seconds(age_ms / 1000)
    return f"{size(size_bytes)} per partition" if size_bytes >= 0 else "everything"


COLUMNS = (
    Column("channel", "channel"),
    Column("kind", "kind"),
    Column("type", "type"),
    Column("codec", "codec"),
    Column("partitions", "partitions", right=True, show=number),
    Column("bytes", "size", right=True, show=size),
    Column("segments", "files", right=True, show=number),
    Column("keeps", "keeps"),
    Column("newest", "newest message", right=True, show=age),
    Column("error", None),
)


def configure(parser: Parser) -> None:
    """Add the arguments of `ls`."""
    describe(
        parser,
        "[STORE] [--all] [--format table|json|tsv]",
        "List the channels of a store, without the reply channels that processes have for their questions.",
        ["tidelog ls shop.log", "tidelog ls shop.log --format json | jq '.[].channel'"],
    )
    add_store(parser)
    add_all(parser)
    add_format(parser)


def run(args: argparse.Namespace) -> int:
    """List; a channel that cannot be opened is listed with its error, and makes the exit code 1 or 4."""
    store, _ = split_names(args, 0, 0, "no other argument than the store")
    with looked_at(store) as log:
        rows = [row for name in log if shown(name, args.all) and (row := _row(log, name)) is not None]
        broken = [row["failure"] for row in rows if row["failure"] is not None]
        if not rows and args.format == "table":
            print(f"no channels; make one with: tidelog create {store} CHANNEL", file=sys.stderr)
        else:
            emit(COLUMNS, rows, args.format)
    if broken:
        raise broken[0]
    return Exit.OK


def _row(log: Log, name: str) -> dict[str, Any] | None:
    row: dict[str, Any] = dict.fromkeys(column.name for column in COLUMNS)
    row |= {"channel": name, "failure": None}
    try:
        channel = log[name]
        parts = [channel.describe(partition) for partition in range(channel.partitions)]
    except ChannelNotFound:  # dropped a moment ago
        return None
    except Error as error:
        return row | {"error": str(error), "failure": error}
    return row | {
        "kind": channel.kind,
        "type": channel.codec.type_name,
        "codec": channel.codec.name,
        "partitions": len(parts),
        "bytes": sum(part["bytes"] for part in parts),
        "segments": sum(part["segments"] for part in parts),
        "keeps": keeping(channel.retention),
        "newest": moment(max(part["max_timestamp_ms"] for part in parts)),
    }
