"""Which handlers of an application keep their promise under kills, and which do not?

Floor 8: may import every module of this package. Thread rule: one thread.

    experiment = Experiment("shop:app", seed=1)
    outcome = experiment.run()
    assert outcome.ok, outcome.handlers

Two runs without a kill say what has to be there and which steps there are; then there is one run for each kill.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tidelog.testing.chaos.life import Order
from tidelog.testing.chaos.plan import chosen, planned, steps_of
from tidelog.testing.chaos.story import Story, tell
from tidelog.testing.chaos.trials import RANDOM, Failure, Kill, Trials
from tidelog.testing.chaos.verdict import Deviation, Judge, Unsteady, What

__all__ = ["PROMISES", "Experiment", "HandlerReport", "Outcome", "Refused"]

PROMISES = ("exactly-once", "at-least-once", "at-most-once")
_FORGIVEN: dict[str, tuple[What, ...]] = {
    "exactly-once": (),
    "at-least-once": ("duplicate",),
    "at-most-once": ("lost",),
}
SOONER = 6
"""So often a kill at random is tried, each time after half the time, when the application rests before it comes."""
_WORST: tuple[What, ...] = ("stuck", "lost", "unexpected", "duplicate")


class Refused(Exception):
    """An application that cannot be judged: `kind` is missing, usage, import, inputs, stopped, stuck or unsteady."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class HandlerReport:
    """What became of one handler."""

    name: str
    channel: str
    delivery: str
    expected: str
    """What it is judged by, one of PROMISES."""
    steps: int
    kills: int
    """At its own steps."""
    others: int
    """At steps of other handlers, which may hit it too, and at random."""
    effects: int
    """So many in a run without a kill."""
    found: Mapping[What, int]
    """In how many runs something of this kind was seen."""
    story: Story | None
    """The shortest of the worst kind."""

    @property
    def ok(self) -> bool:
        """Whether it keeps what is expected of it."""
        return not any(count for what, count in self.found.items() if what not in _FORGIVEN[self.expected])

    @property
    def verdict(self) -> str:
        """What was seen, in a few words."""
        words = {"stuck": "does not go on", "lost": "lost", "unexpected": "unexpected", "duplicate": "duplicates"}
        told = [f"{words[what]} after {_kills(self.found[what])}" for what in _WORST if self.found.get(what)]
        if told:
            return ", ".join(told)
        if not self.steps:
            return "got no message"
        if not self.kills and not self.others:
            return "not killed"
        return "exactly once" if self.effects else "handled"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came out of an experiment."""

    application: str
    target: str
    seed: int
    inputs: int
    kills: int
    """Processes that were killed."""
    random_kills: int
    unreached: tuple[str, ...]
    """Kills whose step did not come; nothing was learnt from them."""
    seconds: float
    handlers: tuple[HandlerReport, ...]
    elsewhere: int
    """Effects of `chaos_effects` whose handler is not known."""
    steps: Mapping[str, int] = field(default_factory=dict)
    """How often each step was passed without a kill."""
    kept: str | None = None

    @property
    def ok(self) -> bool:
        """Whether every handler keeps what is expected of it."""
        return all(one.ok for one in self.handlers)


class Experiment:
    """Kills one application at every step of handling, one after the other."""

    def __init__(
        self,
        target: str,
        *,
        messages: int = 5,
        seed: int | None = None,
        inputs: Mapping[str, str] | None = None,
        randoms: int = 0,
        only: Sequence[str] = (),
        expect: Mapping[str, str] | None = None,
        timeout: float = 30.0,
        keep: bool = False,
    ) -> None:
        """`target`: MODULE:APP or FILE.py:APP. `messages`: how many are made up for each channel. `seed`: of what is
        made up and of kills at random; None: a new one. `inputs`: files by channel ("": the only one). `randoms`: so
        many kills at random instants too. `only`: steps instead of all. `expect`: by handler ("": all) one of PROMISES
        instead of what its delivery promises. `timeout`: seconds without a step after which an application counts as
        stuck. `keep`: leave the directories.

        Raises ValueError for what is out of range.
        """
        self.seed = random.randrange(1 << 30) if seed is None else seed
        self._target, self._only, self._expect = target, tuple(only), dict(expect or {})
        if messages < 1 or randoms < 0 or timeout <= 0:
            raise ValueError(f"messages={messages}, randoms={randoms}, timeout={timeout}: below what makes sense")
        for promise in self._expect.values():
            if promise not in PROMISES:
                raise ValueError(f"expect={promise!r}: use one of {', '.join(PROMISES)}")
        where, colon, name = target.partition(":")
        if where.endswith(".py") or os.sep in where:
            target = f"{os.path.abspath(where)}{colon}{name}"
        files = {channel: os.path.abspath(path) for channel, path in (inputs or {}).items()}
        self._order = Order(target, os.getcwd(), "", timeout=timeout, count=messages, seed=self.seed, files=files)
        self._randoms, self._keep = randoms, keep

    def run(self, progress: Callable[[int, int], None] = lambda done, total: None) -> Outcome:
        """All of it; `progress` is called with how many of how many runs are done. Raises Refused."""
        directory = Path(tempfile.mkdtemp(prefix="tidelog-chaos-"))
        try:
            with Trials(self._order, directory) as trials:
                return self._run(trials, progress, str(directory) if self._keep else None)
        except Failure as failure:
            raise Refused(failure.kind, str(failure)) from failure
        except Unsteady as error:
            raise Refused("unsteady", str(error)) from error
        finally:
            if not self._keep:
                shutil.rmtree(directory, ignore_errors=True)

    def _run(self, trials: Trials, progress: Callable[[int, int], None], kept: str | None) -> Outcome:
        began = time.monotonic()
        found = trials.find()
        names = [one["name"] for one in found["handlers"]]
        for name in self._expect:
            if name and name not in names:
                raise Refused("usage", f"there is no handler {name!r} to expect something of: {', '.join(names)}")
        first, second = trials.run(None, keep=self._keep), trials.run(None, keep=self._keep)
        judge = Judge(first, second, found["handlers"], found["fed"])
        try:
            kills = chosen(planned(first.journal, self._randoms, self.seed), self._only, first.journal)
        except LookupError as error:
            raise Refused("usage", f"--only: {error.args[0]}") from error
        deviations: list[Deviation] = []
        reached: list[Kill] = []
        for number, kill in enumerate(kills):
            progress(number, len(kills))
            trial = trials.run(kill, keep=self._keep)
            for halved in range(1, SOONER):  # a run may take less time than the one that was measured
                if trial.killed or kill.step != RANDOM:
                    break
                trial = trials.run(kill._replace(delay=kill.delay / 2**halved), keep=self._keep)
            if trial.killed:
                reached.append(kill)
            deviations += judge.judge(trial)
        progress(len(kills), len(kills))
        passed = steps_of(first.journal)
        reports = [
            self._report(one, found, judge, passed, reached, [d for d in deviations if d.handler in (one["name"], "")])
            for one in found["handlers"]
        ]
        return Outcome(
            found["name"],
            self._target,
            self.seed,
            len(found["inputs"]),
            len(reached),
            sum(kill.step == RANDOM for kill in reached),
            tuple(str(kill) for kill in kills if kill not in reached),
            time.monotonic() - began,
            tuple(reports),
            judge.unowned,
            dict(passed),
            kept,
        )

    def _report(
        self,
        handler: Mapping[str, Any],
        found: Mapping[str, Any],
        judge: Judge,
        passed: Mapping[str, int],
        kills: Sequence[Kill],
        deviations: Sequence[Deviation],
    ) -> HandlerReport:
        name = handler["name"]
        counts: Counter[What] = Counter()
        for what in _WORST:
            counts[what] = len({id(one.trial) for one in deviations if one.what == what})
        default = "at-least-once" if handler["delivery"] == "at-least-once" else "exactly-once"
        expected = self._expect.get(name, self._expect.get("", default))
        story = None
        for what in _WORST:
            if counts[what] and (story is None or story.what in _FORGIVEN[expected]):
                story = self._shortest(name, found, [one for one in deviations if one.what == what])
        return HandlerReport(
            name,
            handler["channel"],
            handler["delivery"],
            expected,
            sum(step.startswith(f"{name}/") for step in passed),
            sum(kill.handler == name for kill in kills),
            sum(kill.handler != name for kill in kills),
            judge.seen_of(name),
            counts,
            story,
        )

    def _shortest(self, name: str, found: Mapping[str, Any], deviations: Sequence[Deviation]) -> Story:
        """Killed at a step of the handler itself, if there is such a one; with the fewest lines."""
        told = []
        for one in deviations:
            kill = one.trial.kill
            assert kill is not None
            story = tell(one._replace(handler=name), found["handlers"], found["inputs"])
            told.append(((kill.handler != name, not story.direct, len(story.lines), kill.passing), story))
        return min(told, key=lambda pair: pair[0])[1]


def _kills(count: int) -> str:
    return "1 kill" if count == 1 else f"{count} kills"
