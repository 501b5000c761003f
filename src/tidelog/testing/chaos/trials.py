"""How does one run go, from the first process of the application to its rest, with a kill on the way?

Floor 8: may import testing.lives, testing.chaos.life and journal. Thread rule: one thread.

Each run has a directory of its own: a log with the inputs, a current directory, the journal. The process is killed once
and started again until it rests; then another one looks at what is there.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tidelog.testing.chaos import life as programs
from tidelog.testing.chaos.journal import Entry, Place, read, traced
from tidelog.testing.chaos.life import Order
from tidelog.testing.lives import Ended, Lives

__all__ = ["Failure", "Kill", "Trial", "Trials"]

RANDOM = "random"
PATIENCE_SECONDS = 20.0
"""How much longer than the application's own patience its process is waited for."""
LIVES_MAX = 3
"""So often a run goes on after its process was killed; by something else too (a system short of memory)."""


class Kill(NamedTuple):
    """Where a run's process is killed: at which passing of which step; "random": so many seconds after its start."""

    step: str
    passing: int
    delay: float = 0.0

    def __str__(self) -> str:
        return f"{self.step}@{self.passing}"

    @property
    def handler(self) -> str:
        """The handler whose step it is; "" for one at random."""
        return "" if self.step == RANDOM else self.step.partition("/")[0]


class Failure(Exception):
    """A process could not do what it was to do: `kind` (missing, usage, import, inputs, stopped, stuck), and why."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Trial:
    """What came out of one run."""

    kill: Kill | None
    killed: bool
    """Whether it came that far; steps may be fewer than in another run."""
    journal: list[Entry]
    messages: list[Place]
    """Everything that is in the log."""
    ids: list[str]
    """Their message ids."""
    state: list[str]
    """What `chaos_effects` answered."""
    trouble: str = ""
    """Why the application did not come to rest."""
    lives: int = 1


class Trials:
    """Runs them, one after the other; a context manager."""

    def __init__(self, order: Order, directory: Path) -> None:
        """`order`: for `find`; `directory`: where the runs have theirs."""
        self._order = order
        self._directory = directory
        self._lives = Lives()
        self._count = 0
        self._known: dict[tuple[str, str], str] = {}

    def __enter__(self) -> Trials:
        self._lives.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._lives.__exit__(*error)

    def find(self) -> dict[str, Any]:
        """What the application is made of and what it gets. Raises Failure."""
        directory = self._directory / "inputs"
        order = replace(self._order, directory=str(directory), prepared=str(directory / programs.PREPARED))
        self._order = order
        self._done(programs.find, order)
        found: dict[str, Any] = json.loads((directory / programs.PREPARED).read_text())
        return found

    def run(self, kill: Kill | None, *, keep: bool = False) -> Trial:
        """One run. Raises Failure when it cannot be judged at all."""
        self._count += 1
        directory = self._directory / f"run-{self._count}"
        directory.mkdir()
        order = replace(self._order, directory=str(directory))
        killed, trouble, number = False, "", 0
        while True:
            number += 1
            doomed = kill if number == 1 else None
            ended = self._live(replace(order, life=number), doomed)
            if ended.status == "killed":
                killed = True
                if number <= LIVES_MAX:
                    continue
                trouble = "it was killed by somebody else"
            elif ended.status == "failed":
                failure = _failure(directory, ended)
                if kill is None or failure.kind not in ("stopped", "stuck"):
                    raise failure
                trouble = str(failure)
            break
        self._done(programs.look, order)
        seen = json.loads((directory / programs.SEEN).read_text())
        messages = [Place(*place) for place, _ in seen["messages"]]
        journal, messages = traced(read(directory / programs.JOURNAL), messages, self._known, learn=kill is None)
        trial = Trial(
            kill,
            killed,
            journal,
            messages,
            [name for _, name in seen["messages"]],
            seen["state"],
            trouble,
            number,
        )
        if not keep:
            shutil.rmtree(directory)
        return trial

    def _live(self, order: Order, kill: Kill | None) -> Ended:
        program = partial(programs.live, order)
        if kill is None or kill.step == RANDOM:
            life = self._lives.start(program)
        else:
            life = self._lives.start(program, step=kill.step, nth=kill.passing)
        journal = Path(order.directory) / programs.JOURNAL
        if kill is not None and kill.step == RANDOM:
            ended = self._until_started(journal)
            if ended is not None:
                return ended
            time.sleep(kill.delay)
            self._lives.kill(life)
        return self._end(life, journal, order.timeout + PATIENCE_SECONDS)

    def _until_started(self, journal: Path) -> Ended | None:
        while b'"started"' not in (journal.read_bytes() if journal.exists() else b""):
            ended = self._lives.wait(0.001)
            if ended:
                return ended[0]
        return None

    def _end(self, life: int, journal: Path, patience: float) -> Ended:
        """Waits for it; one whose journal does not grow any more is killed, and has failed."""
        size, since = -1, time.monotonic()
        while True:
            ended = self._lives.wait(0.5)
            if ended:
                return ended[0]
            now = journal.stat().st_size if journal.exists() else 0
            if now != size:
                size, since = now, time.monotonic()
            elif time.monotonic() - since > patience:
                self._lives.kill(life)
                while not (ended := self._lives.wait(1.0)):
                    pass
                return ended[0]._replace(status="failed", text=f"a handler did not return for {patience:g} s")

    def _done(self, program: Any, order: Order) -> None:
        """Runs a program that is not killed. Raises Failure."""
        self._lives.start(partial(program, order))
        ended = self._end(0, Path(order.directory) / programs.JOURNAL, order.timeout + PATIENCE_SECONDS)
        if ended.status != "done":
            raise _failure(Path(order.directory), ended)


def _failure(directory: Path, ended: Ended) -> Failure:
    path = directory / programs.FAILURE
    if path.exists():
        told = json.loads(path.read_text())
        path.unlink()
        return Failure(told["kind"], told["text"])
    lines = [line for line in ended.text.splitlines() if line.strip()]
    return Failure("stopped", lines[-1] if lines else "its process ended by itself")
