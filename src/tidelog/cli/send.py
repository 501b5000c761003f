r"""How do lines become messages? `tidelog send CHANNEL [FILE]`.

Floor 9: imports the log through common; nothing else of the engines. Thread rule: runs in the main thread.

What has arrived is sent at once, as one batch per read: a slow pipe gets through line by line, a big file in big
batches. A line for a channel of JSON is checked before it is sent, a line for a channel of rows is a JSON array or
object; everything else goes in byte for byte.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, cast

from tidelog.cli import parse
from tidelog.cli.common import (
    CommandError,
    Exit,
    Parser,
    add_store,
    describe,
    opened,
    require_partition,
    split_names,
)
from tidelog.cli.output import number
from tidelog.compression import NAMES as COMPRESSIONS

READ_BYTES = 1 << 18


class _Readable(Protocol):
    def read1(self, size: int, /) -> bytes: ...


def configure(parser: Parser) -> None:
    """Add the arguments of `send`."""
    describe(
        parser,
        "[STORE] CHANNEL [FILE] [-k KEY | -K DELIMITER] [-H NAME=VALUE] [-z CODEC] [--ack LEVEL]",
        "Send every line of FILE (default: stdin) as one message.",
        [
            "seq 3 | tidelog send -u shop.log orders",
            "tidelog send shop.log orders new-orders.jsonl -z lz4 --ack synced",
            "printf 'tea:3\\nmilk:1\\n' | tidelog send -u shop.log orders -K :",
        ],
    )
    add_store(parser, "CHANNEL [FILE]")
    key = parser.add_mutually_exclusive_group()
    key.add_argument("-k", "--key", help="key of every message")
    key.add_argument(
        "-K", "--key-delimiter", metavar="DELIMITER", help="the key is what stands before the first DELIMITER"
    )
    parser.add_argument(
        "-H",
        "--header",
        action="append",
        default=[],
        type=parse.argument(parse.header),
        metavar="NAME=VALUE",
        help="a header of every message; may be given again",
    )
    parser.add_argument("-z", "--compression", choices=COMPRESSIONS, help="pack batches (default: as the channel says)")
    parser.add_argument(
        "--ack", choices=("written", "synced"), default="written", help="when a message counts as sent (written)"
    )
    parser.add_argument("-p", "--partition", type=int, help="send to this partition, whatever the key")
    parser.add_argument("-q", "--quiet", action="store_true", help="do not say how many were sent")


def run(args: argparse.Namespace) -> int:
    """Send, then say how many on stderr."""
    store, (name, *files) = split_names(args, 1, 2, "a channel and at most one file")
    delimiter = parse.unescape(args.key_delimiter) if args.key_delimiter else None
    fixed_key = args.key.encode("utf-8", "surrogateescape") if args.key is not None else None
    headers = dict(args.header)
    sent = 0
    with opened(store) as log, _input(files[0] if files else None) as stream:
        channel = log[name]
        require_partition(channel, args.partition)
        convert = converter(channel.codec.name, channel.codec.dtype)
        with log.producer(ack=args.ack, compression=args.compression) as producer:
            for lines in read_lines(stream):
                keys, values = split_keys(lines, delimiter, fixed_key)
                try:
                    converted = convert(values)
                except ValueError as error:
                    raise CommandError(f"{error} (after {sent} messages were sent)") from error
                options: dict[str, Any] = {"headers": [headers] * len(values)} if headers else {}
                if args.partition is not None:
                    options["partition"] = args.partition
                producer.send_many(channel, converted, keys=keys, **options)
                producer.flush()
                sent += len(values)
    if not args.quiet:
        print(f"sent {number(sent)} message{'' if sent == 1 else 's'} to {name} ({args.ack})", file=sys.stderr)
    return Exit.OK


def read_lines(stream: _Readable) -> Iterator[list[bytes]]:
    """Lists of whole lines without their ends, as they arrive; what follows the last line end is a line too."""
    rest = b""
    while data := stream.read1(READ_BYTES):
        head, newline, tail = data.rpartition(b"\n")
        if newline:
            yield (rest + head).split(b"\n")
            rest = tail
        else:
            rest += data
    if rest:
        yield [rest]


def split_keys(
    lines: list[bytes], delimiter: bytes | None, fixed: bytes | None
) -> tuple[list[bytes | None] | None, list[bytes]]:
    """(keys or None for none at all, values). A line without the delimiter has no key."""
    if delimiter is None:
        return (None if fixed is None else [fixed] * len(lines)), lines
    parts = [line.partition(delimiter) for line in lines]
    keys = [key if found else None for key, found, _ in parts]
    return keys, [value if found else key for key, found, value in parts]


def converter(codec: str, dtype: Any) -> Callable[[list[bytes]], Iterable[Any]]:
    """What turns lines into values that a channel of `codec` takes; it raises ValueError for a line that does not fit.

    The channel was opened by name alone, so it takes bytes, or rows where it holds a dtype.
    """
    import msgspec

    if codec == "dtype":
        return lambda lines: [_row(_json(line), dtype) for line in lines]
    if codec == "json":
        return lambda lines: [line for line in lines if _json(line) is not msgspec.UNSET]
    if codec == "msgpack":
        return lambda lines: [msgspec.msgpack.encode(_json(line)) for line in lines]
    if codec == "utf-8":
        return lambda lines: [line for line in lines if _text(line) is not None]
    return lambda lines: lines


def _json(line: bytes) -> Any:
    import msgspec

    try:
        return msgspec.json.decode(line)
    except msgspec.DecodeError as error:
        raise ValueError(f"the line {_shown(line)} is no JSON: {error}; this channel holds JSON") from error


def _text(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError:
        raise ValueError(f"the line {_shown(line)} is no UTF-8; this channel holds text") from None


def _row(value: Any, dtype: Any) -> tuple[Any, ...]:
    """A JSON array or object as the fields of a row."""
    names = dtype.names or ("value",)
    if isinstance(value, dict):
        if set(value) != set(names):
            raise ValueError(f"a row has the fields {', '.join(names)}, not {', '.join(value) or 'none'}")
        return tuple(value[name] for name in names)
    fields = value if isinstance(value, list) else [value]
    if len(fields) != len(names):
        raise ValueError(f"a row has {len(names)} fields ({', '.join(names)}), not {len(fields)}")
    return tuple(fields)


def _shown(line: bytes) -> str:
    return repr(line[:40])[1:] + ("..." if len(line) > 40 else "")


@contextmanager
def _input(path: str | None) -> Iterator[_Readable]:
    """FILE or stdin as a byte stream; stdin stays open."""
    if path is None or path == "-":
        yield cast("_Readable", sys.stdin.buffer)
        return
    with open(path, "rb") as file:
        yield file
