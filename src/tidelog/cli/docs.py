"""How does an application's API description reach a file, and does it still fit the one before? `tidelog docs MOD:APP`.

Floor 9: may import the descriptions and app.loading; no log is opened. Thread rule: runs in the main thread.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from tidelog.cli.common import CommandError, Exit, Parser, describe, write_file
from tidelog.cli.output import Column, emit
from tidelog.errors import DecodeError

STYLES = ("json", "yaml", "html")
_BY_SUFFIX = {".json": "json", ".yaml": "yaml", ".yml": "yaml", ".html": "html", ".htm": "html"}

CHANGES = (
    Column("effect", "effect"),
    Column("path", "where"),
    Column("change", "what"),
    Column("reason", "why"),
)


def configure(parser: Parser) -> None:
    """Add the arguments of `docs`."""
    describe(
        parser,
        "MODULE:APP | FILE.py:APP [--format json|yaml|html] [--out FILE] [--check OLD]",
        "Write the AsyncAPI 3 description of an application, or one page with a table for each interaction pattern.\n"
        "With --check, compare it with an earlier description instead: what breaks others ends with exit code 1.\n"
        "Without :APP the application is called `app`.",
        [
            "tidelog docs shop:app --out api.yaml",
            "tidelog docs shop:app --out api.html",
            "tidelog docs shop:app --check api.yaml",
        ],
    )
    parser.add_argument("app", metavar="MODULE:APP", help="where the application is")
    parser.add_argument("--format", choices=STYLES, help="default: by the name of --out, otherwise json")
    parser.add_argument("-o", "--out", metavar="FILE", help="write there instead of stdout")
    parser.add_argument("--check", metavar="OLD", help="compare with this description (JSON or YAML)")


def run(args: argparse.Namespace) -> int:
    """Describe, or compare."""
    if args.check is not None:
        if args.out is not None or args.format not in (None, "json"):
            raise CommandError("--check prints what changed: it takes no --out, and of --format only json", Exit.USAGE)
        return check(described(args.app), args.check, "json" if args.format == "json" else "table")
    style = args.format or _BY_SUFFIX.get(Path(args.out or "").suffix.lower(), "json")
    text = render(described(args.app), style)
    if args.out is None:
        sys.stdout.write(text)
    else:
        write_file(args.out, text)
        print(f"wrote {args.out} ({style})", file=sys.stderr)
    return Exit.OK


def described(target: str) -> dict[str, Any]:
    """The document of the application that `target` names. Raises CommandError (exit code 2 or 3) if it is none."""
    from tidelog.app.loading import NoTarget, NotThere, load

    try:
        app = load(target)
    except NoTarget as error:
        raise CommandError(str(error), Exit.USAGE) from error
    except NotThere as error:
        raise CommandError(str(error), Exit.MISSING) from error
    return app.asyncapi()


def render(document: dict[str, Any], style: str) -> str:
    """`document` as json, yaml or html. Raises NotSupported, naming what to install, for YAML without PyYAML."""
    if style == "html":
        from tidelog.asyncapi.page import page

        return page(document)
    from tidelog.asyncapi.text import write_json, write_yaml

    return write_yaml(document) if style == "yaml" else write_json(document)


def check(document: dict[str, Any], path: str, style: str) -> int:
    """Print what changed since the description in the file `path`; exit code 1 if something breaks others."""
    from tidelog.asyncapi.changes import compare
    from tidelog.asyncapi.text import read

    try:
        changes = compare(read(Path(path).read_text(encoding="utf-8")), document)
    except UnicodeDecodeError as error:
        raise CommandError(f"--check {path}: this is no description: its bytes are no text in UTF-8") from error
    except DecodeError as error:
        raise CommandError(f"--check {path}: {error}") from error
    except (AttributeError, TypeError, LookupError) as error:  # what stands where AsyncAPI has something else
        raise CommandError(f"--check {path}: this is no description that can be compared: {error}") from error
    rows = [
        {
            "effect": "breaking" if change.breaking else "compatible",
            "path": change.path,
            "change": change.what,
            "reason": change.reason,
        }
        for change in changes
    ]
    if rows or style == "json":
        emit(CHANGES, rows, style)
    breaking = sum(change.breaking for change in changes)
    if style != "json":
        print(f"{breaking} breaking, {len(changes) - breaking} compatible changes since {path}")
    return Exit.ERROR if breaking else Exit.OK
