"""What does a channel hold, and is it spread evenly? `tidelog info CHANNEL`.

Floor 9: imports the log through common; output, ls (for how ages and limits are written). Thread rule: runs in the main
thread. Creates nothing.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from tidelog.cli import parse
from tidelog.cli.common import Exit, Parser, add_format, add_store, describe, looked_at, split_names
from tidelog.cli.ls import age, keeping, moment
from tidelog.cli.output import Column, bar, emit, emit_json, has_blocks, key_text, number, percent, size

if TYPE_CHECKING:
    from tidelog.channel import Channel
    from tidelog.skew import Skew

ENOUGH_SAMPLES = 500
"""So many samples say more, and sooner, than reading everything."""
SAMPLED_KEY_BYTES = 32
"""What is kept of a sampled key."""
SCAN_BYTES = 1_000_000_000
"""A log up to this size is read when there are too few samples; beyond it only for --exact."""


def configure(parser: Parser) -> None:
    """Add the arguments of `info`."""
    describe(
        parser,
        "[STORE] CHANNEL [--exact | --quick] [--keys N] [--format table|json|tsv]",
        "Show the partitions of a channel, their sizes and shares, its hottest keys, and what to do about them. Keys\n"
        "are known from what senders have sampled since the machine started; where that is too little, and the log is\n"
        "below a gigabyte, every message is read instead. --exact always reads them all, --quick never.",
        [
            "tidelog info shop.log orders",
            "tidelog info shop.log orders --exact",
            "tidelog info shop.log orders --quick --format json",
        ],
    )
    add_store(parser, "CHANNEL")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--exact", "--scan", action="store_true", help="count by reading every message")
    how.add_argument("--quick", action="store_true", help="sizes only: no counts, no keys")
    parser.add_argument(
        "--keys", type=parse.argument(parse.count), default=8, metavar="N", help="how many hottest keys to show (8)"
    )
    add_format(parser)


def run(args: argparse.Namespace) -> int:
    """Show it."""
    store, (name,) = split_names(args, 1, 1, "one channel")
    with looked_at(store) as log:
        channel = log[name]
        skew = None if args.quick else skew_of(channel, args.keys, exact=args.exact)
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


def skew_of(channel: Channel[Any], hottest: int, *, exact: bool) -> Skew:
    """By samples where there are enough, or where reading would take long; else, and for `exact`, by reading."""
    if not exact:
        live = channel.skew(hottest, live=True)
        if (live.samples or 0) >= ENOUGH_SAMPLES or live.bytes > SCAN_BYTES:
            return live
    return channel.skew(hottest)


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
    if skew is not None and skew.samples is None and disk and channel.compression != "none":
        parts[-1] += f" ({size(skew.bytes)} of keys and values, {skew.bytes / disk:.1f}x)"
    failed = [str(row["partition"]) for row in rows if row["failed"]]
    if failed:
        parts.append(f"FAILED after a failed sync: partition {', '.join(failed)} (see `tidelog check --repair`)")
    return ", ".join(parts)


def skew_lines(skew: Skew) -> list[str]:
    """The hottest keys and what to do about them."""
    if not skew.messages:
        return ["no messages"]
    lines = [f"skew  max/mean {skew.max_over_mean:.2f}"]
    if skew.samples is None:
        about = "" if skew.exact else " (estimated: too many keys to count)"
        hottest = "  ".join(f"{key_text(hot.key)} {percent(hot.share)}" for hot in skew.hottest)
        lines[0] += f"; hottest keys{about}  {hottest}"
    elif not skew.samples:
        lines[0] += "; keys were not sampled since the machine started: --exact reads all messages"
    else:
        since = f", {age(skew.since)} the first" if skew.since is not None else ""
        lines[0] += f"; hottest keys by {number(skew.samples)} samples{since}"
        most = max((hot.share for hot in skew.hottest), default=0.0)
        names = [short_key(hot.key) for hot in skew.hottest]
        width = max(map(len, names), default=0)
        for name, hot in zip(names, skew.hottest, strict=True):
            drawn = bar(hot.share / most, blocks=has_blocks()) if most else ""
            error = f"{'±' if has_blocks() else '+-'} {percent(hot.error)}"
            lines.append(f"      {name:<{width}}  {percent(hot.share):>7} {error:<9}  {drawn}".rstrip())
        if not skew.hottest:
            lines.append("      no key stands out")
    return [*lines, *map("      ".__add__, skew.advice)]


def short_key(key: bytes | None) -> str:
    """A key that was sampled, for people; of a longer one only the beginning is known."""
    return key_text(key) + ("..." if key is not None and len(key) >= SAMPLED_KEY_BYTES else "")


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
        "dedup_count": channel.dedup_count,
        "dedup_window": channel.dedup_window,
        "partitions": [{name: value for name, value in row.items() if name != "bar"} for row in rows],
    }
    if skew is not None:
        result |= {
            "messages": skew.messages,
            "max_over_mean": skew.max_over_mean,
            "hottest": [hot._asdict() for hot in skew.hottest],
            "hottest_exact": skew.exact,
            "advice": list(skew.advice),
            "samples": skew.samples,
            "sampled_since": skew.since,
        }
    return result
