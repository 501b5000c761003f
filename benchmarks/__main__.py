"""Which questions are asked, and in which order?

    python -m benchmarks                    all of them; JSON, report.md and plots go to benchmarks/results/
    python -m benchmarks --only send,crc    some
    python -m benchmarks --pairs 31         more pairs for each figure (default and least: 15)
    python -m benchmarks --smoke            tiny sizes, results to build/benchmarks/smoke/: does everything run?

Exit codes: 0, 1 when a question failed to run (never for a figure that was lost), 2 usage.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
import traceback
from pathlib import Path

from benchmarks import report
from benchmarks.harness import BUILD, LEAST_PAIRS, ROOT, Context

QUESTIONS = [
    "send",  #               what one `send` costs
    "send_many",  #          what one message of a batch costs
    "rows",  #               how fast rows go in, in a burst and for long
    "receive",  #            what receiving costs, as values and as messages
    "columns",  #            how fast rows come out in a fresh process
    "lookup",  #             finding offsets in an index
    "read_at",  #            reading by offsets
    "partition",  #          choosing partitions
    "named",  #              what a name adds to a producer
    "ids",  #                what an id adds to a `send`
    "commit",  #             committing
    "crc",  #                the checksum
    "round_trip",  #         to another process and back
    "synced",  #             waiting for the disk, one writer and eight
    "open_loop",  #          latency at a fixed rate
    "opening",  #            opening a store, clean, after a kill, as a new boot
    "growth",  #             does cost grow with the log?
    "many_partitions",  #    does it grow with the number of partitions?
    "transactions",  #       what a transaction adds, written and synced
    "groups",  #             sharing work out in a group, and what it brings
    "app",  #                handlers of an application, questions and answers
    "instructions",  #       counted, not timed
]


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.split("\n")[0])
    parser.add_argument("--smoke", action="store_true", help="tiny sizes; no figure means anything")
    parser.add_argument("--only", metavar="NAME", help=f"some of: {', '.join(QUESTIONS)}; with commas between")
    parser.add_argument("--pairs", type=int, default=None, help=f"pairs for each figure (at least {LEAST_PAIRS})")
    parser.add_argument("--results", type=Path, default=None, metavar="DIR", help="where results go")
    parser.add_argument("--dir", type=Path, default=BUILD / "work", metavar="DIR", help="where logs go, on a real disk")
    given = parser.parse_args()
    chosen = given.only.split(",") if given.only else QUESTIONS
    if unknown := [name for name in chosen if name not in QUESTIONS]:
        parser.error(f"there is no question {', '.join(unknown)}; there are {', '.join(QUESTIONS)}")
    pairs = given.pairs or (3 if given.smoke else LEAST_PAIRS)
    if pairs < LEAST_PAIRS and not given.smoke:
        parser.error(f"a median of fewer than {LEAST_PAIRS} pairs is no figure")
    results = given.results or (BUILD / "smoke" if given.smoke else ROOT / "benchmarks" / "results")
    ctx = Context(pairs=pairs, smoke=given.smoke, work=given.dir)

    failed = []
    if not sys.stdout.isatty():
        print("\t".join(report.HEAD), flush=True)
    for name in chosen:
        print(f"{name} ...", file=sys.stderr, flush=True)
        facts, began = report.machine(), time.monotonic()
        try:
            figures = importlib.import_module(f"benchmarks.{name}").run(ctx)
        except Exception:  # the other questions can still be answered
            traceback.print_exc()
            failed.append(name)
            continue
        ctx.say(f"{time.monotonic() - began:.1f} s")
        report.keep(results, name, figures, facts, given.smoke)
        report.show([figure.as_dict() for figure in figures], not given.smoke)
    contents = report.load(results, QUESTIONS)
    if contents:
        print(f"report: {report.write(results, contents)}", file=sys.stderr)
    if failed:
        print(f"failed to run: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
