"""What does a channel hold, and is it spread evenly? `tidelog info CHANNEL`.

Floor 9: imports the log through common; output, ls (for how ages and limits are written). Thread rule: runs in the main
thread. Creates nothing.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from tidelog.cli.common import Exit, Parser, add_format, add_store, describe, looked_at, split_names
from tidelog.cli.ls import age, keeping, moment
from tidelog.cli.output import Column, bar, emit, emit_json, has_blocks, key_text, number, percent, size

if TYPE_CHECKING:
    from tidelog.channel import Channel
    from tidelog.skew import Skew

UNEVEN = 1.5
"""From this ratio of the fullest partition to the mean on there is something to say."""


def configure(parser: Parser) -> None:
    """Add the arguments of `info`."""
    describe(
        parser,
        "[STORE] CHANNEL [--quick] [--format table|json|tsv]",
        "Show the partitions of a channel, their sizes and shares, and its hottest keys. Counting reads every\n"
        "message; --quick leaves it out.",
        ["tidelog info shop.log orders", "tidelog info shop.log orders --quick --format json"],
    )
    add_store(parser, "CHANNEL")
    parser.add_argument("--quick", action="store_true", help="do not read the messages: no counts, no keys")
    parser.add_argument("--keys", type=int, default=8, metavar="N", help="how many hottest keys to show (8)")
    add_format(parser)


def run(args: argparse.Namespace) -> int:
    """Show it."""
    store, (name,) = split_names(args, 1, 1, "one channel")
    with looked_at(store) as log:
        channel = log[name]
        skew = None if args.quick else channel.skew(hottest=max(args.keys, 1))
        rows = rows_of(channel, skew)
        if args.format == "json":
            emit_json(document(channel, rows, skew))
        elif args.format == "tsv":
            emit(columns(skew is not None, False), rows, "tsv")
        else:
            print(title(channel, rows, skew))
            emit(columns(skew is not None, has_blocks()), rows, "table")
            if skew is not None:
                for line in skew_lines(skew):
                    print(line)
    return Exit.OK


def rows_of(channel: Channel[Any], skew: Skew | None) -> list[dict[str, Any]]:
    """One row a partition. Shares are of messages where they were counted, else of bytes."""
    parts = [channel.describe(partition) for partition in range(channel.partitions)]
    total = sum(part["bytes"] for part in parts)
    rows: list[dict[str, Any]] = []
    for partition, part in enumerate(parts):
        counted = None if skew is None else skew.partitions[partition]
        rows.append(
            {
                "partition": partition,
                "log_start": part["log_start"],
                "log_end": part["log_end"],
                "messages": None if counted is None else counted.messages,
                "bytes": part["bytes"],
                "allocated_bytes": part["allocated_bytes"],
                "segments": part["segments"],
                "share": part["bytes"] / max(total, 1) if counted is None else counted.message_share,
                "newest": moment(part["max_timestamp_ms"]),
                "failed": bool(part["failed"]),
            }
        )
    most = max(row["share"] for row in rows)
    for row in rows:
        row["bar"] = row["share"] / most if most else 0.0
    return rows


def columns(counted: bool, blocks: bool) -> list[Column]:
    """The columns of the table; without counting there are no messages to show."""
    return [
        Column("partition", "part", right=True),
        Column("log_start", "start", right=True, show=number),
        Column("log_end", "end", right=True, show=number),
        Column("messages", "messages" if counted else None, right=True, show=number),
        Column("bytes", "size", right=True, show=size),
        Column("allocated_bytes", None),
        Column("segments", "files", right=True, show=number),
        Column("share", "share", right=True, show=percent),
        Column("", "", source="bar", show=lambda share: bar(share, blocks=blocks)),
        Column("newest", "newest message", right=True, show=age),
        Column("failed", None),
    ]


def title(channel: Channel[Any], rows: list[dict[str, Any]], skew: Skew | None) -> str:
    """One line about the channel as a whole."""
    disk = sum(row["bytes"] for row in rows)
    parts = [
        f"{channel.name}  {channel.kind} of {channel.codec.type_name} ({channel.codec.name})",
        f"{number(len(rows))} partition{'' if len(rows) == 1 else 's'}",
        f"keeps {keeping(channel.retention)}",
        f"compression {channel.compression}",
        f"{size(disk)} on disk",
    ]
    if skew is not None and disk and channel.compression != "none":
        parts[-1] += f" ({size(skew.bytes)} of keys and values, {skew.bytes / disk:.1f}x)"
    failed = [str(row["partition"]) for row in rows if row["failed"]]
    if failed:
        parts.append(f"FAILED after a failed sync: partition {', '.join(failed)} (see `tidelog check --repair`)")
    return ", ".join(parts)


def skew_lines(skew: Skew) -> list[str]:
    """The hottest keys and what to do about them."""
    if not skew.messages:
        return ["no messages"]
    hottest = "  ".join(f"{key_text(hot.key)} {percent(hot.share)}" for hot in skew.hottest)
    about = "" if skew.exact else " (estimated: too many keys to count)"
    return [
        f"skew  max/mean {skew.max_over_mean:.2f}; hottest keys{about}  {hottest}",
        *map("      ".__add__, advice(skew)),
    ]


def advice(skew: Skew) -> list[str]:
    """What to do about an uneven channel; nothing for an even one."""
    count = len(skew.partitions)
    if count == 1 or skew.max_over_mean < UNEVEN or not skew.hottest:
        return []
    hot = skew.hottest[0]
    fullest = max(skew.partitions, key=lambda share: share.messages)
    if hot.key is not None and hot.share >= 1 / count:
        name = key_text(hot.key)
        return [
            f"key {name!r} alone is {percent(hot.share)} of all messages and fills partition {hot.partition}.",
            "More partitions do not help. If its messages need no order, make it several keys (append 0 to 3, say).",
        ]
    if hot.key is None and hot.partition == fullest.partition and hot.share >= 1 / count:
        return [
            f"what is sent without a key is {percent(hot.share)} of all messages.",
            "Each call sends it to one partition: it evens out over many calls, or give keys or partition=.",
        ]
    in_fullest = [other for other in skew.hottest if other.partition == fullest.partition and other.key is not None]
    if len(in_fullest) > 1:
        names = ", ".join(key_text(other.key) for other in in_fullest[:3])
        return [
            f"several hot keys meet in partition {fullest.partition} ({names}).",
            "More partitions may part them: channel.configure(partitions=...); keys move then.",
        ]
    return [
        f"partition {fullest.partition} has {percent(fullest.message_share)} of all messages.",
        "Look at how keys and partition= are chosen.",
    ]


def document(channel: Channel[Any], rows: list[dict[str, Any]], skew: Skew | None) -> dict[str, Any]:
    """Everything for programs."""
    age_ms, size_bytes, consumed = channel.retention
    result: dict[str, Any] = {
        "channel": channel.name,
        "kind": channel.kind,
        "carries": channel.carries,
        "type": channel.codec.type_name,
        "codec": channel.codec.name,
        "compression": channel.compression,
        "retention_ms": age_ms,
        "retention_bytes": size_bytes,
        "retention_consumed": consumed,
        "max_message_bytes": channel.max_message_bytes,
        "partitions": [{name: value for name, value in row.items() if name != "bar"} for row in rows],
    }
    if skew is not None:
        result |= {
            "messages": skew.messages,
            "max_over_mean": skew.max_over_mean,
            "hottest": [hot._asdict() for hot in skew.hottest],
            "hottest_exact": skew.exact,
            "advice": advice(skew),
        }
    return result
