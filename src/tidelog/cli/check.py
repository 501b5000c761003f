"""Is everything that a store says it holds really there and whole? `tidelog check`.

Floor 9: imports the log through common, repair, derived, progress, output. Thread rule: runs in the main thread.

Checking changes nothing and may run beside readers and writers. With --repair the store must be free: what is damaged
is put aside by repair.py and derived.py, then everything is checked once more.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tidelog.cli import derived, repair
from tidelog.cli.common import (
    CommandError,
    Exit,
    Parser,
    add_format,
    add_store,
    describe,
    looked_at,
    opened,
    split_names,
    store_path,
)
from tidelog.cli.output import Column, emit, emit_json, has_blocks, number, seconds, size
from tidelog.cli.progress import Progress
from tidelog.errors import ChannelNotFound, Corrupt, Error, NotSupported

if TYPE_CHECKING:
    from tidelog._native import Partition
    from tidelog.log import Log


@dataclass(frozen=True, slots=True)
class Finding:
    """One damage."""

    file: str
    """Within the store."""
    position: int
    """Byte position, -1: not known."""
    what: str
    first_offset: int = -1
    next_offset: int = -1
    """The messages concerned; -1: not known."""


@dataclass(slots=True)
class Place:
    """What repair must know of a partition."""

    slot: int
    log_end: int = -1
    tail: int = -1
    failed: bool = False


@dataclass(slots=True)
class Outcome:
    """All that a check has seen."""

    findings: list[Finding] = field(default_factory=list)
    aside: list[str] = field(default_factory=list)
    """Files that were put aside at some time."""
    places: dict[str, Place] = field(default_factory=dict)
    """By directory."""
    segments: int = 0
    bytes: int = 0
    batches: int = 0
    messages: int = 0
    seconds: float = 0.0


COLUMNS = (
    Column("file", "file"),
    Column("position", "byte", right=True, show=lambda at: "-" if at < 0 else number(at)),
    Column("what", "what is wrong"),
    Column("first_offset", "from offset", right=True, show=lambda at: "-" if at < 0 else number(at)),
    Column("next_offset", "to before", right=True, show=lambda at: "-" if at < 0 else number(at)),
)


def configure(parser: Parser) -> None:
    """Add the arguments of `check`."""
    describe(
        parser,
        "[STORE] [--repair] [--format table|json|tsv]",
        "Read everything: checksums, continuity of offsets, indexes, seals, definitions, committed offsets. Changes\n"
        "nothing, and may run while the store is in use. Exit code 4 if something is damaged.\n\n"
        "--repair needs the store for itself. It copies damaged bytes to .torn files beside the log and lets a batch\n"
        "without messages take their place, so that everything around them can be read; it makes indexes and seals\n"
        "again, and lets a partition whose sync failed take messages again. It deletes only what can be made again.",
        ["tidelog check shop.log", "tidelog check shop.log --repair", "tidelog check shop.log --format json"],
    )
    add_store(parser)
    parser.add_argument("--repair", action="store_true", help="put aside what is damaged")
    add_format(parser)


def run(args: argparse.Namespace) -> int:
    """Check, repair if asked to, tell."""
    store, _ = split_names(args, 0, 0, "no other argument than the store")
    quiet = args.format != "table"
    actions: list[repair.Action] = []
    if args.repair:
        actions = mend(store, quiet)
    outcome = inspect(store, quiet)
    _tell(store, outcome, actions, args.format)
    return Exit.CORRUPT if outcome.findings else Exit.OK


# --- looking ---


def inspect(store: str, quiet: bool) -> Outcome:
    """Look at everything; nothing is changed. Raises Corrupt where damage keeps the store from being looked at."""
    outcome = Outcome()
    began = time.monotonic()
    path = store_path(store)
    if path is not None and os.path.isfile(os.path.join(path, "tidelog.json")):
        _identity(path, outcome)
    if outcome.findings:  # what the rest means, nobody can say
        return outcome
    with looked_at(store) as log:
        _definitions(log, outcome)
        native = log.engine.store  # type: ignore[attr-defined]
        native.check(lambda *found: outcome.findings.append(Finding(*found)))
        handles: list[tuple[str, Partition]] = []
        for slot, directory, channel_id, _ in native.partitions():
            try:
                handles.append((directory, native.partition(slot, channel_id)))
            except ChannelNotFound:  # dropped a moment ago
                continue
            outcome.places[directory] = Place(slot)
        total = 0
        for directory, handle in handles:
            total += _describe(directory, handle, outcome)
        with Progress({"check": total}, quiet=quiet, show=size) as progress:
            for directory, handle in handles:
                _partition(directory, handle, outcome, progress)
        _put_aside(native.path, outcome)
    outcome.seconds = time.monotonic() - began
    return outcome


def _identity(path: str, outcome: Outcome) -> None:
    try:
        with open(os.path.join(path, "tidelog.json"), "rb") as file:
            known = json.loads(file.read(1 << 16))
        if isinstance(known, dict) and isinstance(known.get("format"), int) and known["format"] > 1:
            return  # opening it says which tidelog it needs
        if not isinstance(known, dict) or known.get("format") != 1 or len(str(known.get("cluster_id"))) != 22:
            raise ValueError("it does not name format 1 and a cluster id of 22 characters")
    except (OSError, ValueError) as error:
        outcome.findings.append(Finding("tidelog.json", -1, f"the store's identity is damaged: {error}"))


def _definitions(log: Log, outcome: Outcome) -> None:
    for name in log:
        try:
            log.engine.definition(name)
        except ChannelNotFound:
            pass
        except (Corrupt, NotSupported) as error:
            outcome.findings.append(Finding(f"channels/{name}.json", getattr(error, "position", -1), str(error)))


def _describe(directory: str, handle: Partition, outcome: Outcome) -> int:
    try:
        known = handle.describe()
    except Error:  # what is wrong is the check's to say
        return 0
    place = outcome.places[directory]
    place.failed = bool(known["failed"])
    place.log_end, place.tail = known["log_end"], known["tail"] & 0xFFFF_FFFF
    outcome.segments += known["segments"]
    return known["bytes"]


def _partition(directory: str, handle: Partition, outcome: Outcome, progress: Progress) -> None:
    def found(file: str, position: int, what: str, first_offset: int, next_offset: int) -> None:
        outcome.findings.append(Finding(file, position, what, first_offset, next_offset))

    def went_on(size_bytes: int, batches: int, messages: int) -> None:
        outcome.bytes += size_bytes
        outcome.batches += batches
        outcome.messages += messages
        progress.update("check", outcome.bytes)

    try:
        handle.check(found, went_on)
    except ChannelNotFound:  # dropped meanwhile
        outcome.places.pop(directory, None)
    except Error as error:
        outcome.findings.append(Finding(getattr(error, "file", "") or directory, -1, str(error)))


def _put_aside(store: str, outcome: Outcome) -> None:
    for directory in sorted(outcome.places):
        try:
            names = sorted(os.listdir(os.path.join(store, directory)))
        except FileNotFoundError:  # made by the first append
            continue
        outcome.aside += [f"{directory}/{name}" for name in names if ".torn" in name]


# --- mending ---


def mend(store: str, quiet: bool) -> list[repair.Action]:
    """Put aside what is damaged. Raises Locked if the store is in use, Corrupt for damage that nothing can mend."""
    path = store_path(store)
    if path is None:
        raise CommandError(f"{store} is no directory: only a directory can be repaired", Exit.USAGE)
    try:
        before = inspect(store, quiet)
    except NotSupported:  # after a power cut nobody has opened it yet: opening recovers it
        with opened(store):
            pass
        before = inspect(store, quiet)
    damaged: dict[str, set[str]] = {}
    for finding in before.findings:
        directory, _, name = finding.file.partition("/")
        if directory in before.places:
            damaged.setdefault(directory, set()).add(name)
    damaged |= {directory: damaged.get(directory, set()) for directory, place in before.places.items() if place.failed}
    actions: list[repair.Action] = []
    torn_records = any(finding.file == derived.RECORDS for finding in before.findings)
    if not damaged and not torn_records:
        return actions
    with repair.held_gate(path):
        if torn_records:
            actions.append(derived.put_records_aside(path))
        for directory, names in sorted(damaged.items()):
            place = before.places[directory]
            folder = os.path.join(path, directory)
            actions += repair.repair_partition(folder, place.log_end, place.tail, names)
            actions += derived.repair_derived(folder, names)
            if place.failed:
                actions += repair.clear_failed(path, directory, place.slot)
    with opened(store):  # whoever opens it first makes its shared words again where they must be
        pass
    return actions


# --- telling ---


def _tell(store: str, outcome: Outcome, actions: list[repair.Action], style: str) -> None:
    if style == "json":
        emit_json(
            {
                "findings": [_row(finding) for finding in outcome.findings],
                "repaired": [_done(store, action) for action in actions],
                "put_aside": outcome.aside,
                "partitions": len(outcome.places),
                "segments": outcome.segments,
                "bytes": outcome.bytes,
                "batches": outcome.batches,
                "messages": outcome.messages,
                "seconds": outcome.seconds,
            }
        )
        return
    if style == "tsv":
        emit(COLUMNS, [_row(finding) for finding in outcome.findings], "tsv")
        return
    good, bad = ("✔", "✘") if has_blocks() else ("ok", "!!")
    for action in actions:
        done = _done(store, action)
        lost = action.next_offset - action.first_offset
        told = f": {done['what']}" + (f" ({number(lost)} offsets, {number(action.first_offset)} on)" if lost else "")
        print(f"{good} {done['file']}{told}" + (f"; the old bytes are in {done['aside']}" if action.aside else ""))
    if outcome.findings:
        emit(COLUMNS, [_row(finding) for finding in outcome.findings], "table")
    count = len(outcome.findings)
    plural = "" if outcome.segments == 1 else "s"
    verdict = f"{number(count)} finding{'' if count == 1 else 's'}" if count else "all whole"
    print(
        f"{bad if count else good} {number(outcome.segments)} segment{plural}, {number(outcome.messages)} messages, "
        f"{size(outcome.bytes)} in {seconds(outcome.seconds)}: {verdict}"
    )
    if outcome.aside:
        names = ", ".join(outcome.aside[:3]) + (" ..." if len(outcome.aside) > 3 else "")
        print(f"  put aside, yours to look at and to delete: {names}")
    if count and not actions:
        print(f"  to put aside what is damaged (nothing is deleted): tidelog check {store} --repair", file=sys.stderr)


def _row(finding: Finding) -> dict[str, Any]:
    return {
        "file": finding.file,
        "position": finding.position,
        "what": finding.what,
        "first_offset": finding.first_offset,
        "next_offset": finding.next_offset,
    }


def _done(store: str, action: repair.Action) -> dict[str, Any]:
    path = store_path(store) or ""
    return {
        "file": os.path.relpath(action.file, path) if os.path.isabs(action.file) or path else action.file,
        "what": action.what,
        "aside": os.path.relpath(action.aside, path) if action.aside else "",
        "first_offset": action.first_offset,
        "next_offset": action.next_offset,
    }
