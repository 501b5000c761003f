"""Does tidelog keep its promises on real data, and how fast? `tidelog demo`.

Floor 9: imports the log through common, the demo_* modules, output, progress. Thread rule: runs in the main thread; the
work is done by processes of their own (demo_worker).

Publishers send every record, keyed, into a partitioned topic; two groups compute answers meanwhile; one subscriber is
killed and goes on. Then everything is held against the file. The exit code is 1 if a single proof fails.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from tidelog.cli import demo_report, parse
from tidelog.cli.common import CommandError, Exit, Parser, add_format, describe, opened
from tidelog.cli.demo_answers import answers_for
from tidelog.cli.demo_facts import Facts, gather
from tidelog.cli.demo_proof import prove
from tidelog.cli.demo_run import Plan, Run, make_folders
from tidelog.cli.demo_source import Source, find_flights
from tidelog.cli.demo_worker import FAULTS
from tidelog.cli.progress import Progress

RATE = 40_000.0
LEAST_SECONDS = 2.0
"""Few records are sent more slowly, so that there is a middle in which a subscriber can be killed."""
PARTITIONS = 8
PUBLISHERS = 2
PLOT = "tidelog-demo.png"


def configure(parser: Parser) -> None:
    """Add the arguments of `demo`."""
    describe(
        parser,
        "[--input FILE.csv --key COLUMN] [--rate N | max] [--keep FOLDER] [--plot FILE.png]",
        "Send 336,776 real flights, keyed by tail number, through a topic. Two groups compute answers; one subscriber\n"
        "is killed with SIGKILL midway and goes on. Then everything is proved against the file.",
        [
            "tidelog demo",
            "tidelog demo --rate max --partitions 16",
            "tidelog demo --input orders.csv --key customer",
            "tidelog demo --limit 5000 --break drop      (see a proof fail)",
        ],
    )
    parser.add_argument("--input", metavar="FILE", help="your own file: .csv, .csv.gz or .csv.zip, with a heading")
    parser.add_argument("--key", metavar="COLUMN", help="the column of --input that is the key")
    parser.add_argument("--limit", type=parse.argument(parse.count), metavar="N", help="the first N records only")
    parser.add_argument("--partitions", type=parse.argument(parse.count), default=PARTITIONS, metavar="N")
    parser.add_argument(
        "--publishers", type=parse.argument(parse.count), default=PUBLISHERS, metavar="N", help="publisher processes"
    )
    parser.add_argument(
        "--rate",
        type=parse.argument(_rate),
        metavar="N",
        help=f"records a second of all publishers together, or max (default: {RATE:,.0f}, fewer if there are few)",
    )
    parser.add_argument("--keep", metavar="FOLDER", help="leave the store and the subscribers' files in FOLDER")
    parser.add_argument("--plot", metavar="FILE", default=PLOT, help=f"where the picture goes (default: {PLOT})")
    parser.add_argument("--no-plot", action="store_true", help="draw nothing")
    parser.add_argument(
        "--break",
        dest="fault",
        choices=sorted(FAULTS),
        help="break something on purpose and see the proof fail: "
        + "; ".join(f"{name}: {what}" for name, what in FAULTS.items()),
    )
    add_format(parser)


def run(args: argparse.Namespace) -> int:
    """Run, prove, report."""
    source = _source(args)
    quiet = args.format != "table"
    facts = gather(source)
    with _folder(args.keep) as folder:
        plan = _plan(args, source, facts, folder)
        make_folders(plan)
        heading = demo_report.heading(plan)
        if not quiet:
            print(heading, flush=True)
        with opened(plan.store, create=True) as log:
            channel = log.topic(plan.channel, source.event_type, partitions=plan.partitions)
            totals = {"publish": plan.total, **{answer.group: plan.total for answer in answers_for(source.flights)}}
            with Progress(totals, quiet=quiet) as progress:
                seen = Run(plan, log, progress).go()
            with Progress({"prove": plan.total}, quiet=quiet) as progress:
                outcome = prove(plan, facts, seen, channel, lambda rows: progress.update("prove", rows))
            skew = channel.skew(hottest=10)
        result = demo_report.Result(plan, facts, seen, outcome, skew)
        if not args.no_plot:
            result.plot = _draw(result, args.plot)
        demo_report.emit_result(result, args.format, sys.stdout)
    return Exit.OK if outcome.held else Exit.ERROR


def _rate(text: str) -> float:
    return 0.0 if text.strip().lower() == "max" else float(parse.count(text))


def _source(args: argparse.Namespace) -> Source:
    if args.input is None:
        if args.key is not None:
            raise CommandError("--key belongs to --input FILE; the flights are keyed by tail number", Exit.USAGE)
        return find_flights(args.limit)
    if args.key is None:
        raise CommandError("which column of the file is the key? Give --key COLUMN", Exit.USAGE)
    return Source(path=args.input, key=args.key, limit=args.limit)


def _plan(args: argparse.Namespace, source: Source, facts: Facts, folder: str) -> Plan:
    row, key = facts.victim() if args.fault else (-1, "")
    return Plan(
        source=source,
        total=facts.rows,
        store=os.path.join(folder, "demo.log"),
        states=os.path.join(folder, "subscribers"),
        channel="flights" if source.flights else "records",
        partitions=args.partitions,
        publishers=args.publishers,
        rate=min(RATE, facts.rows / LEAST_SECONDS) if args.rate is None else args.rate,
        fault=args.fault or "",
        fault_row=row,
        fault_key=key,
    )


@contextmanager
def _folder(keep: str | None) -> Iterator[str]:
    """Where the run takes place; a temporary folder is removed at the end."""
    if keep is None:
        folder = tempfile.mkdtemp(prefix="tidelog-demo-")
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return
    if os.path.exists(keep) and (not os.path.isdir(keep) or os.listdir(keep)):
        raise CommandError(f"{keep} is not an empty folder; name one that is not there yet", Exit.USAGE)
    os.makedirs(keep, exist_ok=True)
    yield os.path.abspath(keep)


def _draw(result: demo_report.Result, path: str) -> str:
    """The picture's path, or "" where it cannot be drawn, said on stderr."""
    try:
        from tidelog.cli.demo_plot import draw
    except ModuleNotFoundError as error:
        print(
            f"tidelog: no picture: {error.name} is missing; install it with: pip install 'tidelog[demo]'",
            file=sys.stderr,
        )
        return ""
    try:
        draw(result, path)
    except OSError as error:  # the run is worth telling without it
        print(f"tidelog: no picture: {path}: {error.strerror}; name another file with --plot", file=sys.stderr)
        return ""
    return path
