"""Which command was asked for, and how does its end become an exit code and one line on stderr?

Floor 9: may import every lower floor, never the package root. A command's module is imported only when it is the one
that runs, so that `tidelog --help` and shell completion stay quick. Thread rule: one call at a time, as a program.

Exit codes: 0 ok, 1 error, 2 usage, 3 something is not there (store, channel, package), 4 corrupt, 130 interrupted.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

from tidelog.cli.common import CommandError, Exit, Parser, explain, spoken, version

__all__ = ["COMMANDS", "main"]

COMMANDS: dict[str, str] = {
    "demo": "send 336,776 real flights through a log, kill a subscriber, prove that nothing was lost",
    "send": "send lines of a file or of stdin to a channel",
    "tail": "show messages of a channel, and follow it",
    "ls": "list the channels of a store",
    "info": "show partitions, sizes, skew and hottest keys of a channel",
    "offsets": "show committed offsets and lag of consumer groups",
    "groups": "list consumer groups; show the members and partitions of one",
    "lag": "show how far behind consumer groups are, live with --watch",
    "reset": "send a consumer group back or forward",
    "run": "run an application: functions that handle the messages of channels",
    "chaos": "kill an application at every step, and tell whether its effects are there exactly once",
    "dead": "show messages that no handler could handle, and why",
    "redrive": "send dead letters back to where they came from",
    "create": "create a queue or a topic (and the store, if there is none)",
    "drop": "remove a channel and its messages",
    "trim": "remove messages before an offset or a time",
    "check": "verify checksums, indexes and continuity of a store; repair it",
    "docs": "describe an application's API (AsyncAPI, HTML), or check what a change breaks",
    "bench": "measure throughput and latency on this machine",
    "doctor": "tell what this machine offers and what stands in the way",
}
"""Every command with what it does in one line; each is a module of this package with `configure` and `run`."""

_HELP = """\
usage: tidelog COMMAND [STORE] [arguments]

An append-only message log in a directory that any number of processes share.

{commands}

The store is a directory or a URL: give it first, by -u/--url, or in $TIDELOG_URL.

  tidelog create shop.log orders --kind queue
  seq 3 | tidelog send -u shop.log orders
  tidelog tail shop.log orders -f

`tidelog COMMAND --help` says more. `tidelog --version` prints the version.
"""


_OF_PROGRAMS = ("chaos", "docs", "run")
"""Commands whose errors are those of a program's own source: they name what is to be written there."""
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""Why an output cannot be written. The log's own errors of this kind have a file name."""


class _Command(Protocol):
    def configure(self, parser: Parser) -> None:
        """Add the command's arguments, description and examples."""

    def run(self, args: object) -> int:
        """Do it; the result is the exit code."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (default: the program's own) and return its exit code; never raises for what users meet."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    _stand_in()
    try:
        try:
            code = _dispatch(arguments)
        except BaseException:
            with suppress(OSError):  # what ended the command says more
                sys.stdout.flush()
            raise
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has had enough. What is still buffered must not fail again at exit.
        _discard_stdout()
        return Exit.OK
    except SystemExit as stop:  # argparse ends this way after --help
        return stop.code if isinstance(stop.code, int) else Exit.OK
    except Exception as error:
        if os.environ.get("TIDELOG_LOG_LEVEL", "").lower() == "debug":
            raise
        text, code = explain(error)
        if arguments[0] not in _OF_PROGRAMS:
            text = spoken(text)
        if isinstance(error, OSError) and error.filename is None and error.errno in _NO_ROOM:
            _discard_stdout()
            text = f"the output cannot be written: {error.strerror}; write it to somewhere else"
        with suppress(OSError):
            print(f"tidelog: {text}", file=sys.stderr)
        return code


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        if len(arguments) > 1 and arguments[1] in COMMANDS:
            return _dispatch([arguments[1], "--help"])
        width = max(map(len, COMMANDS))
        listing = "\n".join(f"  {name:<{width}}  {summary}" for name, summary in COMMANDS.items())
        print(_HELP.format(commands=listing), end="", file=sys.stdout if arguments else sys.stderr)
        return Exit.OK if arguments else Exit.USAGE
    name, rest = arguments[0], arguments[1:]
    if name in ("-v", "-V", "--version"):
        print(f"tidelog {version()}")
        return Exit.OK
    if name not in COMMANDS:
        raise CommandError(_unknown(name), Exit.USAGE)
    command: _Command = importlib.import_module(f"tidelog.cli.{name}")
    parser = Parser(prog=f"tidelog {name}")
    command.configure(parser)
    # Intermixed: `tail -f orders` and `tail shop.log -f orders` must mean what they say.
    return command.run(parser.parse_intermixed_args(rest))


def _unknown(name: str) -> str:
    if name.startswith("-"):
        return f"the option {name} stands before the command: write `tidelog COMMAND {name} ...`"
    import difflib  # only on the way to an error message

    close = difflib.get_close_matches(name, COMMANDS, 1)
    hint = f"did you mean `tidelog {close[0]}`?" if close else "see `tidelog --help`"
    return f"there is no command {name!r}; {hint}"


def _stand_in() -> None:
    """A program that was started with a closed stdin, stdout or stderr has none: it reads and writes nothing then."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  # as long as the program


def _discard_stdout() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, sys.stdout.fileno())
    except (OSError, ValueError):  # a stdout without descriptor has nothing to lose
        pass
    finally:
        os.close(nowhere)
