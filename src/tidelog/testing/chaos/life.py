"""What does one process of a run do: find the messages, run the application until it rests, look at what is there?

Floor 8: may import app, log, testing.chaos.inputs, journal and watching. Thread rule: each function is a program, run
in a process of its own by testing.lives.

The current directory is the run's own, so that a database whose path is relative is the run's own too. Modules are
still found where the command was given.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from tidelog.app.application import App
from tidelog.app.exactly_once import ExactlyOnceLoop
from tidelog.app.loading import NoTarget, NotThere, load
from tidelog.errors import Error
from tidelog.log import Log
from tidelog.log import open as open_log
from tidelog.testing.chaos import inputs
from tidelog.testing.chaos.journal import Place, cause_of
from tidelog.testing.chaos.watching import Watch

__all__ = ["FAILURE", "JOURNAL", "PREPARED", "SEEN", "Order", "find", "live", "look"]

STORE, HERE, OUTPUT = "log", "here", "output.txt"
JOURNAL, PREPARED, SEEN, FAILURE = "journal", "prepared.json", "seen.json", "failure.json"

PREPARE, EFFECTS = "chaos_prepare", "chaos_effects"
QUIET_SECONDS = 0.02
"""So long nothing may happen, before an application with nothing to do counts as one that rests."""
LOOK_SECONDS = 0.002


@dataclass(frozen=True)
class Order:
    """What a process is to do."""

    target: str
    """MODULE:APP, a file as an absolute path."""
    root: str
    """Directory in which modules are found."""
    directory: str
    """Of the run."""
    life: int = 1
    timeout: float = 30.0
    """Seconds without a step after which an application that is not at rest is given up."""
    count: int = 5
    seed: int = 0
    files: dict[str, str] = field(default_factory=dict)
    prepared: str = ""
    """File with the inputs."""


class _Failed(Exception):
    """The program cannot do it: which kind of trouble, and what to tell."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


def find(order: Order) -> None:
    """Loads the application, and writes down what it is made of and what it gets."""
    with _telling(order):
        app, module = _loaded(order)
        try:
            found = inputs.collect(app, module, Path(order.directory), order.files, order.count, order.seed)
        except (inputs.NoInputs, Error, OSError) as error:
            raise _Failed("inputs", f"{_where(error)}{error}") from error
        handlers = [
            {
                "name": one.name,
                "channel": one.channel.name,
                "group": one.group,
                "delivery": one.delivery,
                "pattern": one.pattern,
                "takes": one.takes,
            }
            for one in app.handlers
        ]
        fed = sorted({one.channel for one in found})
        prepared = {"name": app.name, "handlers": handlers, "fed": fed, "inputs": found}
        _write(order, PREPARED, prepared)


def live(order: Order) -> None:
    """Runs the application until it rests. The first life of a run sends the inputs before."""
    with _telling(order):
        app, module = _loaded(order)
        directory = Path(order.directory)
        store = directory / STORE
        if order.life == 1:
            prepare = getattr(module, PREPARE, None)
            if prepare is not None:
                prepare()
            given = json.loads(Path(order.prepared).read_text())["inputs"]
            with open_log(store) as log:
                inputs.feed(app, log, [inputs.Input(*one) for one in given])
        try:
            app.relocate(str(store))
        except ValueError as error:
            raise _Failed("usage", str(error)) from error
        watch = Watch(directory / JOURNAL, order.life, {one.name: one.channel.name for one in app.handlers})
        watch.begin()
        try:
            app.start()
        except Exception as error:
            raise _Failed("stopped", f"it cannot start: {type(error).__name__}: {error}") from error
        watch.say("started")
        try:
            _rest(app, watch, order.timeout)
        finally:
            app.stop()
        if app.failure is not None:
            raise _stopped(app)
        watch.say("rested")


def look(order: Order) -> None:
    """Writes down every message that is there now, and what the module says of effects."""
    with _telling(order):
        _, module = _loaded(order)
        effects = getattr(module, EFFECTS, None)
        told: list[str] = []
        if effects is not None:
            try:
                told = _told(effects())
            except Exception as error:
                raise _Failed("usage", f"{EFFECTS}() failed: {type(error).__name__}: {error}") from error
        with open_log(Path(order.directory) / STORE) as log:
            _write(order, SEEN, {"messages": _messages(log), "state": told, "stateful": effects is not None})


# --- what they are made of ---


class _telling:
    """Output goes to a file of the run; what went wrong is told in another."""

    def __init__(self, order: Order) -> None:
        self._order = order

    def __enter__(self) -> None:
        directory = Path(self._order.directory)
        (directory / HERE).mkdir(parents=True, exist_ok=True)
        output = os.open(directory / OUTPUT, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        for descriptor in (1, 2):
            os.dup2(output, descriptor)
        os.close(output)

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, _Failed):
            _write(self._order, FAILURE, {"kind": error.kind, "text": str(error)})


def _loaded(order: Order) -> tuple[App, ModuleType | None]:
    os.chdir(Path(order.directory) / HERE)
    os.environ["TIDELOG_CHAOS"] = order.directory
    sys.path.insert(0, order.root)
    try:
        app = load(order.target)
    except NotThere as error:
        raise _Failed("missing", str(error).replace(os.getcwd(), order.root)) from error
    except NoTarget as error:
        raise _Failed("usage", str(error)) from error
    except Exception as error:
        where = order.target.partition(":")[0]
        raise _Failed("import", f"{where} cannot be imported: {type(error).__name__}: {error}") from error
    if not app.handlers:
        raise _Failed(
            "usage", f"{order.target} has no handlers, so there is nothing to kill: put @app.on(channel) above one"
        )
    fixed = [one.channel.name for one in app.handlers if one.channel.channel is not None]
    if fixed:
        raise _Failed(
            "usage",
            f"{fixed[0]!r} is a channel of a log that is open already, and cannot be moved to a log of chaos's own: "
            f"declare it with app.queue() or app.topic()",
        )
    where = order.target.partition(":")[0]
    name = Path(where).stem if where.endswith(".py") or os.sep in where else where
    return app, sys.modules.get(name)


def _rest(app: App, watch: Watch, timeout: float) -> None:
    """Waits until nothing is left to do. Raises _Failed when it stops, or does not get on."""
    passed, since = -1, time.monotonic()
    while True:
        if app.failure is not None:
            raise _stopped(app)
        now = time.monotonic()
        if passed != watch.passed:
            passed, since = watch.passed, now
        elif now - since >= QUIET_SECONDS and not _left(app):
            return
        elif now - since > timeout:
            raise _Failed("stuck", f"nothing happened for {timeout:g} s, and {_left(app)} is left")
        time.sleep(LOOK_SECONDS)


def _left(app: App) -> str:
    """What is still to do, for people; "" when nothing is."""
    groups: dict[str, Any] = {}
    for loop in app._loops:
        handler = loop.handler
        # With exactly-once the partition of a retry is not committed, so its lag tells.
        if not isinstance(loop, ExactlyOnceLoop) and len(loop._lanes):
            return f"a retry of {handler.name}"
        if handler.group not in groups:
            groups[handler.group] = app.log.groups.get(handler.group)
        group = groups[handler.group]
        rows = [row for row in group.offsets if row.channel == handler.channel.name] if group is not None else []
        lag = sum(row.lag for row in rows)
        if lag or not rows:
            return f"{lag} messages of {handler.channel.name!r} for {handler.name}" if rows else handler.name
    return ""


def _stopped(app: App) -> _Failed:
    error = app.failure
    return _Failed("stopped", f"{type(error).__name__}: {error}{_note(error)}")


def _note(error: BaseException | None) -> str:
    notes = getattr(error, "__notes__", [])
    return f" ({notes[0].partition(':')[0]})" if notes else ""


def _where(error: BaseException) -> str:
    """The file that an error of the system is about."""
    return (
        f"{error.filename}: " if isinstance(error, OSError) and error.filename and not isinstance(error, Error) else ""
    )


def _told(effects: Iterable[Any]) -> list[str]:
    return sorted(" ".join(map(str, one)) if isinstance(one, tuple | list) else str(one) for one in effects)


def _messages(log: Log) -> list[tuple[Place, str]]:
    """Everything that is there, with its message id."""
    return [
        (Place(name, message.partition, message.offset, cause_of(message)), message.id or "")
        for name in log
        for message in log[name].scan()
    ]


def _write(order: Order, name: str, value: Any) -> None:
    path = Path(order.directory) / name
    with suppress(FileNotFoundError):
        path.unlink()
    path.write_text(json.dumps(value))
