"""Is a program's work done exactly as it should be, however often it is killed on the way?

Floor 8: may import testing.lives. Thread rule: `kill_test` is called from one thread at a time.

    def relay() -> None: ...                  # at the top of a module: it is run in processes of its own

    kills = kill_test(app, relay, kills=200, lines=[relay_once], until=lambda: outbox_is_empty())
    ...                                       # now compare what is there with what must be there

Half of the kills come at a random instant, the others at a step: a place that `step("sent")` marks in the program, or
any line of the functions named by `lines`, which need no change. The step with the fewest kills is next, so that each
gets its share however short it is.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from tidelog.testing.lives import Ended, Lives, Program

__all__ = ["KillTestFailed", "Kills", "kill_test"]

ANYWHERE = "anywhere"
STEP_SHARE = 0.6
PASSINGS = (1, 1, 2, 4, 8, 16)
PATIENCE = 5
"""A life that is to die at a step may last so many times longer: the step may be late."""
LOOK_S = 0.01


class KillTestFailed(AssertionError):
    """A program raised, was not done in time, or was done before it had been killed often enough."""


@dataclass(frozen=True, slots=True)
class Kills:
    """What a kill test did."""

    seed: int
    kills: int
    """How many times a process was killed."""
    at: dict[str, int]
    """Kills by step; "anywhere": at a random instant."""
    lives: int
    """Processes that were started."""
    seconds: float

    def __str__(self) -> str:
        steps = ", ".join(f"{name} {count}" for name, count in sorted(self.at.items()))
        return f"{self.kills} kills of {self.lives} processes in {self.seconds:.1f} s (seed {self.seed}): {steps}"


@dataclass(slots=True)
class _Role:
    """One program, and what is known of it."""

    program: Program
    life: int | None = None
    dies_at: float | None = None
    dying: bool = False
    returned: bool = False
    chosen: Counter[str] = field(default_factory=Counter)
    """How often each of its steps was chosen."""
    armed: tuple[str, int] | None = None
    """Where this life kills itself: the step, and at which passing."""
    reach: dict[str, int] = field(default_factory=dict)
    """Passings of a step that lives have come to, where one did not come to what it should have."""
    killed: int = 0
    stepped: int = 0
    """Of those it killed itself at a step."""


def kill_test(
    *programs: Program,
    kills: int = 100,
    until: Callable[[], object] | None = None,
    lines: Iterable[Callable[..., Any]] = (),
    within: float = 0.1,
    timeout: float = 120.0,
    seed: int = 0,
) -> Kills:
    """Runs the programs at the same time, each in a process of its own, kills one or another with SIGKILL and starts it
    again, until there were so many `kills`; then lets them finish. Whether what they have done is right is for the
    caller to judge.

    `programs`: functions at the top of a module, or functools.partial of such. `until`: whether all the work is done;
    asked again and again after the last kill, in this process; then the programs are stopped. Without it the programs
    end by returning, and one that has returned is not started again; with it they are. `lines`: functions whose every
    line is a step. `within`: a life that is to die at a random instant lasts at most so many seconds, one that is
    to die at a step five times as long. `timeout`: seconds for the whole.

    Raises KillTestFailed when a program raises, when the work is not done in time, and when it was done before all the
    kills: a test of fewer kills than it says would be none. Raises ValueError for counts and times out of range,
    pickle.PicklingError, AttributeError or TypeError for a program that another process cannot import.
    """
    if not programs:
        raise ValueError("give at least one program: a function that takes nothing")
    if kills < 0 or within <= 0 or timeout <= 0:
        raise ValueError(f"kills={kills}, within={within}, timeout={timeout}: below what makes sense")
    with Lives(lines=lines) as lives:
        return _Run(lives, [_Role(program) for program in programs], kills, within, random.Random(seed)).all(
            seed, until, timeout
        )


class _Run:
    """One kill test on its way."""

    def __init__(self, lives: Lives, roles: list[_Role], kills: int, within: float, rng: random.Random) -> None:
        self._lives, self._roles, self._kills, self._within, self._rng = lives, roles, kills, within, rng
        self._at: Counter[str] = Counter()
        self._started = 0

    def all(self, seed: int, until: Callable[[], object] | None, timeout: float) -> Kills:
        began = time.monotonic()
        while not self._over(until):
            if time.monotonic() - began > timeout:
                raise KillTestFailed(
                    f"not done after {timeout:g} s and {self._at.total()} of {self._kills} kills (seed {seed}): give "
                    f"it more time (timeout=), or see why the programs do not get on"
                )
            for role in self._roles:
                if role.life is None and not (until is None and role.returned):
                    self._start(role)
            for ended in self._lives.wait(self._pause()):
                self._note(ended)
            for role in self._roles:
                if role.life is None or role.dying:
                    continue
                if role.dies_at is None and self._may_die(role):
                    role.dies_at = time.monotonic() + self._rest(role)
                elif role.dies_at is not None and time.monotonic() >= role.dies_at:
                    self._lives.kill(role.life)
                    role.dying = True
        done = self._at.total()
        if done < self._kills:
            raise KillTestFailed(
                f"the work was done after {done} of {self._kills} kills (seed {seed}): give it more to do, or ask for "
                f"fewer kills"
            )
        return Kills(seed, done, dict(self._at), self._started, time.monotonic() - began)

    def _over(self, until: Callable[[], object] | None) -> bool:
        if until is None:
            return all(role.returned for role in self._roles)
        return self._at.total() >= self._kills and bool(until())

    def _start(self, role: _Role) -> None:
        """A life. Steps get their share of the kills of a program, however long it takes to come to one."""
        step, passing, role.armed = None, 1, None
        doomed = self._may_die(role)
        if doomed and role.chosen and role.stepped <= STEP_SHARE * role.killed:
            fewest = min(role.chosen.values())
            step = self._rng.choice([name for name, count in role.chosen.items() if count == fewest])
            role.chosen[step] += 1
            passing = min(self._rng.choice(PASSINGS), role.reach.get(step, PASSINGS[-1]))
            role.armed = (step, passing)
        role.life = self._lives.start(role.program, step=step, nth=passing)
        role.dies_at = time.monotonic() + self._rest(role) if doomed else None
        self._started += 1

    def _may_die(self, role: _Role) -> bool:
        """Whether a death is left for it: there are not too many, and others have had theirs."""
        doomed = sum(one.life is not None and one.dies_at is not None for one in self._roles)
        return self._at.total() + doomed < self._kills and role.killed <= min(one.killed for one in self._roles) + 1

    def _rest(self, role: _Role) -> float:
        """Seconds that a life has at most."""
        return PATIENCE * self._within if role.armed is not None else self._rng.random() * self._within

    def _pause(self) -> float:
        """Seconds until something is to be done at the latest."""
        deaths = [role.dies_at for role in self._roles if role.dies_at is not None and not role.dying]
        return max(min([LOOK_S, *(at - time.monotonic() for at in deaths)]), 0)

    def _note(self, ended: Ended) -> None:
        role = next(role for role in self._roles if role.life == ended.life)
        for name in ended.steps:
            role.chosen.setdefault(name, 0)
        role.life = role.dies_at = None
        role.dying = False
        if ended.status != "failed" and ended.at is None and role.armed is not None:
            name, passing = role.armed
            role.reach[name] = max(passing // 2, 1)
        if ended.status == "killed":
            self._at[ended.at or ANYWHERE] += 1
            role.killed += 1
            role.stepped += ended.at is not None
        elif ended.status == "failed":
            raise KillTestFailed(f"a program failed after {self._at.total()} kills:\n{ended.text}")
        else:
            role.returned = True
