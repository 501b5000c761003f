"""How is an application run? `tidelog run MOD:APP`.

Floor 9: imports the application through app.loading. Thread rule: runs in the main thread.

With several workers this process only watches over them; each is this same command with `--worker`.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys

from tidelog.cli.common import CommandError, Exit, Parser, describe, explain

LEVELS = ("debug", "info", "warning", "error")


def configure(parser: Parser) -> None:
    """Add the arguments of `run`."""
    describe(
        parser,
        "MODULE:APP | FILE.py:APP [--workers N] [-u STORE]",
        "Run an application until SIGTERM or Ctrl-C: the functions that it has for the messages of its channels. What\n"
        "is being handled then is finished and committed. Without :APP the application is called `app`.",
        [
            "tidelog run billing:app",
            "tidelog run services/billing.py --workers 4",
            "tidelog run billing:app -u shop.log --log-level debug",
        ],
    )
    parser.add_argument("target", metavar="MODULE:APP", help="where the application is")
    parser.add_argument("-w", "--workers", type=int, default=1, metavar="N", help="how many processes (default 1)")
    parser.add_argument("-u", "--url", metavar="STORE", help="another log than the application names")
    parser.add_argument(
        "--log-level",
        choices=LEVELS,
        default=os.environ.get("TIDELOG_LOG_LEVEL", "info").lower(),
        help="how much to say on stderr (default info, or $TIDELOG_LOG_LEVEL)",
    )
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)  # the descriptor of `workers.supervise`


def run(args: argparse.Namespace) -> int:
    """Run it; exit code 1 when it stopped because of an error."""
    from tidelog.app.loading import NoTarget, NotThere, load

    if args.workers < 1:
        raise CommandError(f"--workers {args.workers}: the least is 1", Exit.USAGE)
    logging.basicConfig(
        level=args.log_level.upper(),
        stream=sys.stderr,
        format="%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s",
    )
    try:
        app = load(args.target)
    except Exception as error:
        if args.worker is not None:
            return _stopped(error)
        if isinstance(error, NoTarget):
            raise CommandError(str(error), Exit.USAGE) from error
        if isinstance(error, NotThere):
            raise CommandError(str(error), Exit.MISSING) from error
        raise
    if not app.handlers:
        raise CommandError(
            f"{args.target} has no handlers, so there is nothing to run: put @app.on(channel) above a function, and "
            f"import the module that has it",
            Exit.USAGE,
        )
    if args.url is not None:
        app.relocate(args.url)
    if args.worker is not None:
        from tidelog.app.workers import run_as_worker

        try:
            run_as_worker(app, args.worker)
        except Exception as error:
            return _stopped(error)
        return Exit.OK
    if args.workers == 1:
        app.run()
        return Exit.OK
    from tidelog.app.workers import supervise, worker_command

    command = worker_command(args.target)
    command[command.index("tidelog.app.worker") :] = ["tidelog.cli", "run", args.target, "--log-level", args.log_level]
    if args.url is not None:
        command += ["--url", args.url]
    return supervise([*command, "--worker"], args.workers, drain_timeout=app.drain_timeout)


def _stopped(error: Exception) -> int:
    """A worker that cannot go on: said here, since its exit code is for its parent."""
    from tidelog.app.workers import STOPPED

    logging.getLogger("tidelog.app").critical("%s", explain(error)[0], exc_info=error)
    return STOPPED
