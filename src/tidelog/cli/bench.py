"""How fast is tidelog on this machine, and how evenly? `tidelog bench`.

Floor 9: imports the log through common, bench_*, machine, output, progress. Thread rule: runs in the main thread; what
is measured runs in processes of its own.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from tidelog.cli import bench_report, machine, parse
from tidelog.cli.bench_run import Plan, Run
from tidelog.cli.bench_worker import HEAD_BYTES
from tidelog.cli.common import CommandError, Exit, Parser, add_format, describe, opened
from tidelog.cli.progress import Progress
from tidelog.compression import NAMES as COMPRESSIONS

REPORTS = (".html", ".png")


def configure(parser: Parser) -> None:
    """Add the arguments of `bench`."""
    describe(
        parser,
        "[--messages N] [--size BYTES] [--producers N] [--consumers N] [--rate N] [--report FILE.html|.png]",
        "Measure, in a fresh store: appending as fast as it goes, delivering as fast as it goes, and the latency\n"
        "between processes at a fixed rate, counted from when each message was due. Every consumer is a group of its\n"
        "own and gets every message. A hiccup meter runs along, so that the machine's stalls are not taken for the\n"
        "log's.",
        [
            "tidelog bench",
            "tidelog bench --messages 5M --size 1KiB --producers 2 --report bench.html",
            "tidelog bench --rate 100k --seconds 10 --segment 16MiB --report latency.png",
            "tidelog bench --ack synced --messages 20k --batch 10 --rate 500",
        ],
    )
    count, size = parse.argument(parse.count), parse.argument(parse.size)
    parser.add_argument("--messages", type=count, default=1_000_000, metavar="N", help="of the first two phases (1M)")
    parser.add_argument("--size", type=size, default=100, metavar="BYTES", help="of a value (100)")
    parser.add_argument("--batch", type=count, default=1000, metavar="N", help="messages a call when appending (1000)")
    parser.add_argument("--partitions", type=count, default=1, metavar="N", help="default: 1")
    parser.add_argument("--producers", type=count, default=1, metavar="N", help="producer processes (1)")
    parser.add_argument("--consumers", type=count, default=1, metavar="N", help="consumer processes (1)")
    parser.add_argument("--ack", choices=("written", "synced"), default="written", help="default: written")
    parser.add_argument("-z", "--compression", choices=COMPRESSIONS, help="default: none")
    parser.add_argument(
        "--rate",
        type=parse.argument(_rate),
        default=10_000.0,
        metavar="N",
        help="messages a second of the third phase, or none to leave it out (10k)",
    )
    parser.add_argument("--seconds", type=float, default=3.0, metavar="S", help="of the third phase (3)")
    parser.add_argument("--segment", type=size, default=64 << 20, metavar="SIZE", help="size of the files (64MiB)")
    parser.add_argument("--busy-poll", type=float, default=0.0, metavar="S", help="seconds a consumer spins (0)")
    parser.add_argument("--dir", metavar="FOLDER", help="where the store is made (default: the current directory)")
    parser.add_argument("--report", metavar="FILE", help="write a report with pictures: .html or .png")
    add_format(parser)


def run(args: argparse.Namespace) -> int:
    """Measure and tell. Exit code 1 if a message was lost, doubled or out of order."""
    _check(args)
    quiet = args.format != "table"
    with _folder(args.dir) as folder:
        plan = Plan(
            store=os.path.join(folder, "bench.log"),
            messages=args.messages,
            size=args.size,
            batch=args.batch,
            partitions=args.partitions,
            producers=args.producers,
            consumers=args.consumers,
            ack=args.ack,
            compression=args.compression,
            rate=args.rate,
            seconds=args.seconds,
            segment_bytes=args.segment,
            busy_poll=args.busy_poll,
        )
        facts = bench_report.machine_line(folder, machine.sync_cost(folder).median)
        totals = {"append": plan.messages, "deliver": plan.messages * plan.consumers}
        if plan.rate:
            totals["latency"] = int(plan.rate * plan.seconds)
        with opened(plan.store, create=True) as log, Progress(totals, quiet=quiet) as progress:
            outcome = Run(plan, log, progress).go()
    bench_report.emit_outcome(plan, outcome, facts, args.format, sys.stdout)
    if args.report:
        bench_report.write_report(plan, outcome, facts, args.report)
        print(f"report: {args.report}", file=sys.stderr)
    return Exit.OK if all(phase.sound for phase in outcome.phases) else Exit.ERROR


def _rate(text: str) -> float:
    return 0.0 if text.strip().lower() == "none" else float(parse.count(text))


def _check(args: argparse.Namespace) -> None:
    if args.size < HEAD_BYTES:
        raise CommandError(f"--size {args.size}: at least {HEAD_BYTES} bytes, which carry the proof", Exit.USAGE)
    if args.seconds <= 0.6:
        raise CommandError("--seconds: at least 1, because the first half second is a warm-up", Exit.USAGE)
    if args.messages < args.producers:
        raise CommandError("--messages: at least one for each producer", Exit.USAGE)
    if args.report and os.path.splitext(args.report)[1].lower() not in REPORTS:
        raise CommandError(f"--report {args.report}: the name ends in {' or '.join(REPORTS)}", Exit.USAGE)


@contextmanager
def _folder(asked: str | None) -> Iterator[str]:
    """A folder for the store, removed at the end."""
    where = asked or os.curdir
    if asked is not None and not os.path.isdir(asked):
        raise CommandError(f"{asked} is no folder; make it first, or leave --dir out", Exit.MISSING)
    if asked is None and not os.access(where, os.W_OK):
        where = tempfile.gettempdir()
    folder = tempfile.mkdtemp(prefix=".tidelog-bench-", dir=where)
    try:
        yield os.path.abspath(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
