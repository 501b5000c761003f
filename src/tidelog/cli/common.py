"""What do all commands share: exit codes, the store argument, opening it, and the one line that explains an error?

Floor 9: may import every lower floor, never the package root; the engines are imported when a store is opened, so that
help and usage errors are quick. Thread rule: plain functions, called from the main thread.
"""

from __future__ import annotations

import argparse
import enum
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from tidelog import errors

if TYPE_CHECKING:
    from tidelog.channel import Channel
    from tidelog.log import Log

FORMATS = ("table", "json", "tsv")


class Exit(enum.IntEnum):
    """How a command ended."""

    OK = 0
    ERROR = 1
    USAGE = 2
    MISSING = 3
    CORRUPT = 4
    INTERRUPTED = 130


class CommandError(Exception):
    """A command cannot go on. The message says what was wrong and what to do; `code` is the exit code."""

    def __init__(self, message: str, code: Exit = Exit.ERROR) -> None:
        super().__init__(message)
        self.code = code


class Parser(argparse.ArgumentParser):
    """argparse with errors of one line and help texts that keep their line breaks."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        options.setdefault("allow_abbrev", False)
        super().__init__(**options)

    def error(self, message: str) -> NoReturn:
        """Raise CommandError with exit code 2."""
        raise CommandError(f"{message}; see `{self.prog} --help`", Exit.USAGE)


def describe(parser: Parser, usage: str, text: str, examples: Sequence[str]) -> None:
    """Give `parser` its usage line (without the program's name), description and examples."""
    parser.usage = f"{parser.prog} {usage}"
    parser.description = text
    parser.epilog = "examples:\n" + "\n".join(f"  {line}" for line in examples)


def add_store(parser: Parser, operands: str = "") -> None:
    """Add -u/--url and the positional arguments; `operands` says in the help what may follow the store."""
    parser.add_argument("names", nargs="*", metavar=f"[STORE] {operands}".strip(), help=argparse.SUPPRESS)
    parser.add_argument("-u", "--url", metavar="STORE", help="directory or URL of the store (default: $TIDELOG_URL)")
    parser.set_defaults(command=parser.prog)  # for errors of `split_names`


def add_format(parser: Parser) -> None:
    """Add --format."""
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="table",
        help="table for people (default; plain text when piped), json or tsv for programs",
    )


def add_all(parser: Parser) -> None:
    """Add --all, for lists that leave out what `shown` does."""
    parser.add_argument(
        "-a", "--all", action="store_true", help="list the reply channels that processes have for their questions too"
    )


def shown(name: str, everything: bool) -> bool:
    """Whether a channel or group is to be listed: all but the reply channels that processes make for themselves."""
    from tidelog.patterns.mailboxes import is_own

    return everything or not is_own(name)


def split_names(args: argparse.Namespace, least: int, most: int, what: str) -> tuple[str, list[str]]:
    """(store, other positionals) of a command that takes `least` to `most` positionals beside the store.

    The first positional is the store if -u is missing and either there is one more than the command takes, or it is a
    URL or the directory of a store. Raises CommandError for a wrong number (`what` names what is taken) or no store.
    """
    names = list(args.names)
    command = getattr(args, "command", "tidelog")
    store: str | None = args.url
    if store is None and names and (len(names) > most or looks_like_store(names[0])):
        store = names.pop(0)
    if not least <= len(names) <= most:
        got = " ".join(names) or "nothing"
        raise CommandError(f"`{command}` takes {what}, got {got}; see `{command} --help`", Exit.USAGE)
    store = store or os.environ.get("TIDELOG_URL")
    if not store:
        understood = ""
        if names:
            why = "holds no store" if os.path.exists(names[0]) else "is no store that exists"
            rest = "" if len(names) == 1 else f", with {' '.join(names[1:])},"
            understood = f": {names[0]} {why}, and was taken{rest} for {what.removeprefix('at most ')}"
        raise CommandError(
            f"no store was given{understood}; name its directory first, by -u STORE, or set TIDELOG_URL", Exit.USAGE
        )
    return store, names


def looks_like_store(text: str) -> bool:
    """Whether `text` is a URL with one of our schemes or the directory of a store that exists."""
    if text.startswith(("tidelog://", "kafka://", "kafkas://")) or text.split("?", 1)[0] == "memory:":
        return True
    return os.path.isfile(os.path.join(text, "tidelog.json"))


def store_path(store: str) -> str | None:
    """The directory that `store` names, or None if it is another engine's URL. Raises CommandError for a wrong URL."""
    from tidelog.config import parse_url

    try:
        target = parse_url(store)
    except ValueError as error:
        raise CommandError(str(error), Exit.USAGE) from error
    return target.path if target.engine == "embedded" else None


def require_store(store: str) -> None:
    """Raise CommandError (exit code 3) if `store` is a path with no store in it."""
    path = store_path(store)
    if path is None or os.path.isfile(os.path.join(path, "tidelog.json")):
        return
    if os.path.exists(path):
        text = f"{path} holds no store (there is no tidelog.json in it)"
    else:
        text = f"there is no store at {path}"
    raise CommandError(f"{text}; check the path, or run `tidelog create {path} CHANNEL`", Exit.MISSING)


def require_partition(channel: Channel[Any], partition: int | None) -> None:
    """Raise CommandError (exit code 3) if `channel` has no such partition; None stands for all of them."""
    if partition is not None and not 0 <= partition < channel.partitions:
        raise CommandError(
            f"{channel.name} has no partition {partition}; it has 0 to {channel.partitions - 1}", Exit.MISSING
        )


@contextmanager
def opened(store: str, *, create: bool = False) -> Iterator[Log]:
    """The open store, closed at the end. Without `create` a store that is not there is an error, exit code 3."""
    if not create:
        require_store(store)
    from tidelog.log import open as open_log

    log = open_log(store, create=create)
    try:
        yield log
    finally:
        log.close()


@contextmanager
def looked_at(store: str) -> Iterator[Log]:
    """The open store for commands that only look: nothing is created, recovered or changed, whatever state it is in.

    Raises CommandError (exit code 3) for a store that is not there, NotSupported for one that needs recovery first.
    """
    require_store(store)
    from dataclasses import replace

    from tidelog.config import StoreOptions, parse_url
    from tidelog.engine.embedded import EmbeddedEngine
    from tidelog.log import Log

    target = parse_url(store)
    if target.path is None:
        with opened(store) as log:
            yield log
        return
    options = replace(StoreOptions.of(create=False, **target.options), look=True)
    log = Log(EmbeddedEngine(target.path, options))
    try:
        yield log
    finally:
        log.close()


def explain(error: BaseException) -> tuple[str, Exit]:
    """One line for people, and the exit code, for what a command raised."""
    text = " ".join(str(error).split())
    match error:
        case CommandError():
            return text, error.code
        case errors.Corrupt():
            hint = f"; run: {error.command}" if error.command and error.command not in text else ""
            return text + hint, Exit.CORRUPT
        case errors.ChannelNotFound() | errors.NotSupported():
            return text, Exit.MISSING
        case errors.Error():
            return text, Exit.ERROR
        case ModuleNotFoundError():
            name = error.name or text
            return f"the package {name!r} is missing; install it with: pip install {name}", Exit.MISSING
        case FileNotFoundError():
            return f"{error.filename or text} is not there; check the path", Exit.MISSING
        case OSError():
            what = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else text
            return f"{what}; check the path, its permissions and the free space", Exit.ERROR
        case MemoryError():
            return "out of memory; use smaller numbers or a machine with more memory", Exit.ERROR
    kind = type(error).__name__
    return f"{text or kind} ({kind}); for where it happened, set TIDELOG_LOG_LEVEL=debug and run it again", Exit.ERROR


_LARGER = "send to a channel made with a larger --max-message"
_SPOKEN = (
    (
        r"create it with log\.queue or log\.topic, or see `list\(log\)`",
        "see `tidelog ls`, or create it: `tidelog create`",
    ),
    (r"`list\(log\)` or `tidelog ls`", "`tidelog ls`"),
    (r"`list\(log\)`", "`tidelog ls`"),
    (r"`list\(log\.groups\)`", "`tidelog groups`"),
    (r"see `log\.can` for this engine and `tidelog doctor` for this host", "see `tidelog doctor`"),
    (r"get the new one with log\[[^]]*\]", "run the command again"),
    (r"([Gg])ive partition=", r"\1ive -p PARTITION"),
    (r"([Gg])ive channel=", r"\1ive -c CHANNEL"),
    (r"([Gg])ive group=", r"\1ive -g GROUP"),
    (r"raise it with configure\(max_message_bytes=\.\.\.\), or send less", f"send less, or {_LARGER}"),
    (r"or (open the channel with a larger max_message_bytes|raise max_message_bytes of the channel)", f"or {_LARGER}"),
)


def spoken(text: str) -> str:
    """What the log says to programs, said to users of the command line: with commands and options."""
    for pattern, said in _SPOKEN:
        text = re.sub(pattern, said, text)
    return text


def write_file(path: str, text: str) -> None:
    """Write `text` to `path`. Raises CommandError that says what is in the way, exit code 3 for a missing directory."""
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        folder = os.path.dirname(path)
        if isinstance(error, FileNotFoundError) and folder and not os.path.isdir(folder):
            raise CommandError(
                f"{path} cannot be written: there is no directory {folder}; make it first", Exit.MISSING
            ) from error
        raise CommandError(f"{path} cannot be written: {error.strerror}; name another file", Exit.ERROR) from error


def version() -> str:
    """The installed version of tidelog."""
    from importlib import metadata

    try:
        return metadata.version("tidelog")
    except metadata.PackageNotFoundError:  # run from a source tree
        return "(not installed)"


def confirm(question: str) -> bool:
    """Ask on the terminal; False without one, or for any answer but yes."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
