"""Does an application keep its promise when it is killed at any step? `tidelog chaos MOD:APP`.

Floor 9: imports testing.chaos, which does the work in processes of its own. Thread rule: runs in the main thread.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from tidelog.cli import parse
from tidelog.cli.common import CommandError, Exit, Parser, add_format, describe
from tidelog.cli.progress import Progress

if TYPE_CHECKING:
    from tidelog.testing.chaos.experiment import Outcome

PROMISES = ("exactly-once", "at-least-once", "at-most-once")
_CODES = {"missing": Exit.MISSING, "usage": Exit.USAGE, "inputs": Exit.USAGE}
_WITHOUT_KILL = {
    "stopped": "stops without being killed",
    "stuck": "does not come to rest without being killed",
    "unsteady": "cannot be judged",
}


def configure(parser: Parser) -> None:
    """Add the arguments of `chaos`."""
    describe(
        parser,
        "MODULE:APP | FILE.py:APP [--input [CHANNEL=]FILE] [--expect [HANDLER=]PROMISE] [--only STEP]",
        "Run an application on a log of its own, kill it at every step of handling a message, one after the other,\n"
        "start it again, and tell whether every effect was there exactly once. Effects are what it sends, what its\n"
        "module says with tidelog.testing.effect(), and what chaos_effects() of the module answers. Messages come\n"
        "from chaos_inputs() of the module, from --input, or are made up from the types of the channels.\n"
        "Exit code 1: a handler does less than its delivery promises, or than --expect asks for.",
        [
            "tidelog chaos shop:app",
            "tidelog chaos shop.py --expect exactly-once --input orders=orders.jsonl",
            "tidelog chaos shop:app --seed 7 --only charge/after-effect/charge@1 -v",
        ],
    )
    parser.add_argument("target", metavar="MODULE:APP", help="where the application is")
    parser.add_argument(
        "-i",
        "--input",
        action="append",
        default=[],
        metavar="[CHANNEL=]FILE",
        help="messages: a value in JSON on each line; may be repeated",
    )
    parser.add_argument(
        "-m",
        "--messages",
        type=parse.argument(parse.count),
        default=5,
        metavar="N",
        help="how many to make up for each channel (default 5)",
    )
    parser.add_argument(
        "-e",
        "--expect",
        action="append",
        default=[],
        metavar="[HANDLER=]PROMISE",
        help=f"{', '.join(PROMISES)}, instead of what the delivery promises; may be repeated",
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="STEP",
        help="only at these steps: HANDLER, HANDLER/STEP, or with @N one passing of it; may be repeated",
    )
    parser.add_argument("--random", type=int, default=0, metavar="N", help="kill at N random instants too")
    parser.add_argument(
        "--seed", type=int, metavar="N", help="of made-up messages and random kills (default: a new one)"
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=30.0,
        metavar="S",
        help="seconds without a step after which it counts as stuck (default 30)",
    )
    parser.add_argument("--keep", action="store_true", help="leave the logs and journals of all runs, and say where")
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="tell stories of what was promised too, and the steps"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress")
    add_format(parser)


def run(args: argparse.Namespace) -> int:
    """Kill it; exit code 1 when a handler does not keep what is expected of it."""
    from tidelog.testing.chaos.experiment import Experiment, Refused

    try:
        experiment = Experiment(
            args.target,
            messages=args.messages,
            seed=args.seed,
            inputs=_named(args.input),
            randoms=args.random,
            only=args.only,
            expect=_promises(args.expect),
            timeout=args.timeout,
            keep=args.keep,
        )
    except ValueError as error:
        raise CommandError(str(error), Exit.USAGE) from error
    with Progress({"kills": 0}, quiet=args.quiet) as shown:
        try:
            outcome = experiment.run(lambda done, total: shown.update("kills", done, total))
        except Refused as refused:
            raise CommandError(_refusal(refused.kind, str(refused)), _CODES.get(refused.kind, Exit.ERROR)) from refused
    return _reported(outcome, args)


def _reported(outcome: Outcome, args: argparse.Namespace) -> int:
    from tidelog.cli.chaos_report import report

    report(outcome, args.format, verbose=args.verbose)
    return Exit.OK if outcome.ok else Exit.ERROR


def _named(words: list[str]) -> dict[str, str]:
    """Files by channel, "" where none is named. A path may have a "=" behind a "/"."""
    files: dict[str, str] = {}
    for word in words:
        channel, equals, path = word.partition("=")
        if not equals or "/" in channel:
            channel, path = "", word
        if channel in files:
            which = f"channel {channel}" if channel else "the channel"
            raise CommandError(
                f"--input {word}: {which} has a file already; write all its messages into one", Exit.USAGE
            )
        files[channel] = path
    return files


def _promises(words: list[str]) -> dict[str, str]:
    promises: dict[str, str] = {}
    for word in words:
        handler, _, promise = word.rpartition("=")
        if promise not in PROMISES:
            raise CommandError(f"--expect {word}: use one of {', '.join(PROMISES)}", Exit.USAGE)
        promises[handler] = promise
    return promises


def _refusal(kind: str, text: str) -> str:
    said = _WITHOUT_KILL.get(kind)
    if said is None:
        return text
    more = "" if kind == "unsteady" else "; see to that first, or give other messages by --input or chaos_inputs()"
    return f"the application {said}: {text}{more}"
