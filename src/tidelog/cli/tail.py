r"""Which messages stand in a channel, and which come next? `tidelog tail CHANNEL`.

Floor 9: imports the log through common. Thread rule: runs in the main thread.

Tailing has no group: it commits nothing and takes no message from a queue's receivers. History is read partition by
partition and merged by time; following subscribes first and reads history afterwards, so that nothing falls between.
"""

from __future__ import annotations

import argparse
import heapq
import sys
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from tidelog.cli import formats, parse
from tidelog.cli.common import Exit, Parser, add_store, describe, opened, require_partition, split_names
from tidelog.cli.output import is_terminal, key_text

if TYPE_CHECKING:
    from tidelog.channel import Channel
    from tidelog.message import Message

LAST = "-10"
FOLLOW_WAIT_SECONDS = 0.5


def configure(parser: Parser) -> None:
    """Add the arguments of `tail`."""
    describe(
        parser,
        "[STORE] CHANNEL [-f] [-o OFFSET] [-c N] [-p PARTITION] [-F FORMAT | -J]",
        "Show messages of a channel: the last ten of each partition, or from OFFSET. Receivers are not disturbed.\n\n"
        "format tokens (kcat's): %t channel  %p partition  %o offset  %k key  %K key length  %s value\n"
        "                        %S value length  %T timestamp (ms)  %h headers\n"
        "                        %% percent  \\n \\t \\r \\xNN characters",
        [
            "tidelog tail shop.log orders -f",
            "tidelog tail shop.log orders -o beginning -c 100 -J | jq .payload",
            "tidelog tail shop.log orders -o @2026-11-01 -F '%t[%p]@%o %k %s\\n'",
            "tidelog tail shop.log orders -o @-15m -p 2",
        ],
    )
    add_store(parser, "CHANNEL")
    end = parser.add_mutually_exclusive_group()
    end.add_argument("-f", "--follow", action="store_true", help="go on with new messages until interrupted")
    end.add_argument("-e", "--exit", action="store_true", help="exit at the end of the channel (the default)")
    parser.add_argument(
        "-o",
        "--offset",
        default=LAST,
        type=parse.argument(parse.start),
        help="beginning, end, -10 (last ten of each partition, the default), 123, @2026-11-01, @-15m",
    )
    parser.add_argument("-c", "--count", type=parse.argument(parse.count), metavar="N", help="stop after N messages")
    parser.add_argument("-p", "--partition", type=int, help="this partition only")
    style = parser.add_mutually_exclusive_group()
    style.add_argument("-F", "--message-format", metavar="FORMAT", type=parse.argument(formats.compile_format))
    style.add_argument("-J", "--json", action="store_true", help="one JSON envelope per line, as kcat writes them")
    parser.add_argument(
        "--format",
        choices=("table", "json", "tsv"),
        help="default: partition, offset, time, key and value on a terminal, the value alone when piped",
    )


def run(args: argparse.Namespace) -> int:
    """Write messages until the end, the count, or Ctrl-C."""
    store, (name,) = split_names(args, 1, 1, "one channel")
    with opened(store) as log:
        channel = log[name]
        require_partition(channel, args.partition)
        write = writer(args, channel)
        out = sys.stdout.buffer
        wanted = [args.partition] if args.partition is not None else list(range(channel.partitions))
        messages = follow(channel, args.offset, wanted) if args.follow else history(channel, args.offset, wanted)
        for message in islice(messages, args.count):
            out.write(write(message))
            if args.follow:
                out.flush()
        out.flush()
    return Exit.OK


def writer(args: argparse.Namespace, channel: Channel[Any]) -> Callable[[Message[Any]], bytes]:
    """How each message is written."""
    rows = channel.codec.dtype is not None
    if args.message_format is not None:
        chosen: Callable[[Message[Any]], bytes] = args.message_format
        return chosen
    if args.json or args.format == "json":
        return formats.envelope
    if args.format == "tsv":
        return lambda message: formats.tsv(message, rows)
    if args.format == "table" or is_terminal(sys.stdout):
        return lambda message: formats.line(message, rows, key_text(message.key))
    if rows:
        return lambda message: formats.value_text(message, rows).encode() + b"\n"
    return lambda message: formats.raw(message) + b"\n"


def history(channel: Channel[Any], start: parse.Start, partitions: list[int]) -> Iterator[Message[Any]]:
    """Messages from `start` to the present end, merged by timestamp; within a partition in order."""
    parts = [_part(channel, start, partition) for partition in partitions]
    return heapq.merge(*parts, key=lambda message: message.timestamp) if len(parts) > 1 else parts[0]


def follow(channel: Channel[Any], start: parse.Start, partitions: list[int]) -> Iterator[Message[Any]]:
    """History from `start`, then what is published, without end."""
    with channel.tail() as live:
        nxt = dict.fromkeys(partitions, 0)
        for message in history(channel, start, partitions):
            nxt[message.partition] = message.offset + 1
            yield message
        least = start.value if start.kind == "offset" else 0
        while True:
            for message in live.receive_many(1000, timeout=FOLLOW_WAIT_SECONDS):
                if message.partition in nxt and message.offset >= max(nxt[message.partition], least):
                    yield message


def _part(channel: Channel[Any], start: parse.Start, partition: int) -> Iterator[Message[Any]]:
    match start.kind:
        case "beginning":
            return iter(channel.scan(start="earliest", stop="end", partition=partition))
        case "end":
            return iter(())
        case "last":
            return iter(last(channel, start.value, partition))
        case "time":
            assert start.time is not None  # parse.Start of this kind always has one
            return iter(channel.scan(start=start.time, stop="end", partition=partition))
    _first, end = channel.bounds(partition)
    return iter(channel.scan(start=start.value, stop="end", partition=partition)) if start.value < end else iter(())


def last(channel: Channel[Any], count: int, partition: int) -> list[Message[Any]]:
    """The last `count` messages of a partition. Offsets may have gaps, so this looks further back until it has them."""
    first, end = channel.bounds(partition)
    reach = count
    while True:
        begin = max(first, end - reach)
        found = deque(channel.scan(start=begin, stop="end", partition=partition), maxlen=count)
        if len(found) == count or begin == first:
            return list(found)
        reach *= 2
