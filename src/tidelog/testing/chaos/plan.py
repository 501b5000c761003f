"""At which steps is an application to be killed?

Floor 8: may import testing.chaos.journal and trials. Thread rule: pure functions.

A run without a kill shows the steps. Each is one at its first, a middle and its last passing: the first message, one
with others before and behind it, and the last one. A step of a plan is HANDLER/STEP, HANDLER/STEP/DETAIL for a send or
an effect, with #2, #3, #4 behind it when one message passes it several times; @N is the passing.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence

from tidelog.testing.chaos.journal import Entry
from tidelog.testing.chaos.trials import RANDOM, Kill

__all__ = ["chosen", "planned", "steps_of"]

BEYOND = 1.1
"""Random kills are spread over the time that a run takes, and a little more."""


def steps_of(journal: Iterable[Entry]) -> Counter[str]:
    """How often each step of a handler was passed, in the order of the first passing."""
    return Counter(entry.id for entry in journal if entry.is_step)


def planned(journal: Sequence[Entry], randoms: int, seed: int) -> list[Kill]:
    """The kills that a run's journal calls for, and so many at random."""
    kills = []
    for step, times in steps_of(journal).items():
        kills += [Kill(step, passing) for passing in sorted({1, (times + 1) // 2, times})]
    began = min((entry.at for entry in journal if entry.what == "started"), default=0.0)
    seconds = max((entry.at for entry in journal if entry.is_step), default=began) - began
    rng = random.Random(seed)
    kills += [Kill(RANDOM, number, rng.uniform(0.0, max(seconds, 0.001) * BEYOND)) for number in range(1, randoms + 1)]
    return kills


def chosen(kills: Sequence[Kill], only: Sequence[str], journal: Iterable[Entry]) -> list[Kill]:
    """Those that `only` names: a handler, a step of it (all its passings), or one passing, which need not be planned.
    Raises LookupError, saying what there is, for a name that fits none."""
    if not only:
        return list(kills)
    passed = steps_of(journal)
    found: dict[str, Kill] = {}
    for name in only:
        step, at, passing = name.rpartition("@")
        if at and passing.isdigit() and 1 <= int(passing) <= passed[step]:
            found.setdefault(name, Kill(step, int(passing)))
            continue
        fitting = [kill for kill in kills if str(kill) == name or _begins(kill.step, name)]
        if not fitting:
            there = ", ".join([*passed, *([RANDOM] if any(kill.step == RANDOM for kill in kills) else [])])
            raise LookupError(f"there is no step {name!r}; the steps are {there}")
        for kill in fitting:
            found.setdefault(str(kill), kill)
    return list(found.values())


def _begins(step: str, name: str) -> bool:
    return step == name or step.startswith((f"{name}/", f"{name}#"))
