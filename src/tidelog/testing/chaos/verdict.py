"""Were the effects of every message there exactly once, after a kill as without one?

Floor 8: may import testing.chaos.journal and trials. Thread rule: pure functions.

Effects are what the application sent, what `effect` told, and what `chaos_effects` answered. Nobody says how many there
have to be: runs without a kill do. Two of them are compared first; where their messages differ in value and not in
number (times, random numbers), only the number is judged.

A handler is judged by what it was given: when an earlier one sent a message twice, twice the effects are right.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

from tidelog.testing.chaos.journal import DIGEST, INPUT
from tidelog.testing.chaos.trials import Trial

__all__ = ["Deviation", "Effect", "Judge", "Unsteady", "What"]

What: TypeAlias = Literal["lost", "duplicate", "unexpected", "stuck"]


class Effect(NamedTuple):
    """Something that is there because a message was handled."""

    handler: str
    """Who did it; "" where nothing tells."""
    kind: Literal["sent", "effect", "state", "handled"]
    name: str
    """Channel, or what was told."""
    cause: str

    def __str__(self) -> str:
        match self.kind:
            case "sent":
                return f"a message in {self.name!r}"
            case "handled":
                return "the call of the function"
            case "state":
                return f"chaos_effects: {self.name}"
        return f"the effect `{self.name}`"


class Deviation(NamedTuple):
    """One effect that is not there as often as it has to be."""

    what: What
    handler: str
    effect: Effect | None
    expected: int
    found: int
    trial: Trial


class Unsteady(Exception):
    """Two runs without a kill differ, so that nothing can be said of the others."""


class Judge:
    """Knows what has to be there."""

    def __init__(self, first: Trial, second: Trial, handlers: Sequence[Mapping[str, Any]], fed: Sequence[str]) -> None:
        """`first`, `second`: runs without a kill; `handlers`, `fed`: as `life.find` tells them. Raises Unsteady."""
        self._channels = {one["name"]: one["channel"] for one in handlers}
        self._of_batches = {one["name"] for one in handlers if one["takes"] == "batch"}
        self._fed = frozenset(fed)
        self._senders: dict[str, set[str]] = defaultdict(set)
        for entry in (*first.journal, *second.journal):
            if entry.what == "after-send" and entry.handler:
                self._senders[entry.detail].add(entry.handler)
        self._silent: frozenset[str] = frozenset()
        """Handlers that do nothing that can be seen: of them it is judged whether they were called at all."""
        self._silent = frozenset(self._channels) - {effect.handler for effect in self._effects(first)}
        self._loose: set[Effect] = set()
        """Groups of effects of which only the number is the same each time, as effects without cause."""
        expected, other = self._effects(first), self._effects(second)
        for effect in expected.keys() | other.keys():
            if expected[effect] != other[effect]:
                self._loose.add(_group(effect))
        self._expected = self._loosened(expected)
        steady = self._loosened(other)
        for effect in self._expected.keys() | steady.keys():
            if self._expected[effect] != steady[effect]:
                whose = f" of {effect.handler}" if effect.handler else ""
                raise Unsteady(
                    f"two runs without a kill differ: {effect}{whose} was there {self._expected[effect]} and "
                    f"{steady[effect]} times; give inputs, or effects, that are the same in each run"
                )
        self._arrived = self._arrivals(first)
        self._caused: dict[tuple[str, str], str] = {}
        """The message in hand at an effect that says itself what it is for, if that was the same each time."""
        for entry in (*first.journal, *second.journal):
            if entry.what == "effect" and len(entry.messages) == 1:
                key, cause = (entry.handler, entry.detail), entry.messages[0].cause
                self._caused[key] = cause if self._caused.get(key, cause) == cause else ""

    def seen_of(self, handler: str) -> int:
        """How many effects a handler has in a run without a kill, apart from that it was called."""
        return sum(
            count for effect, count in self._expected.items() if effect.handler == handler and effect.kind != "handled"
        )

    @property
    def unowned(self) -> int:
        """Effects that `chaos_effects` told, and whose handler is not known."""
        return sum(count for effect, count in self._expected.items() if not effect.handler)

    def judge(self, trial: Trial) -> list[Deviation]:
        """What is not as it has to be after a run with a kill, worst first."""
        died = [entry.handler for entry in trial.journal if entry.life == 1 and entry.handler]
        killed = trial.kill.handler if trial.kill is not None and trial.kill.handler else died[-1] if died else ""
        found = self._loosened(self._effects(trial))
        arrived = self._arrivals(trial)
        self._adopt(found, arrived)
        deviations = []
        if trial.trouble:
            deviations.append(Deviation("stuck", killed, None, 0, 0, trial))
        for effect in self._expected.keys() | found.keys():
            usual, there = self._expected[effect], found[effect]
            expected = self._scaled(effect, usual, arrived)
            if there == expected or (effect.kind == "handled" and there > expected):
                continue
            what: What = "lost" if there < expected else "duplicate" if expected else "unexpected"
            deviations.append(Deviation(what, effect.handler or killed, effect, expected, there, trial))
        order = ("stuck", "lost", "unexpected", "duplicate")
        return sorted(deviations, key=lambda one: (order.index(one.what), one.effect or ()))

    def _adopt(self, found: Counter[Effect], arrived: Counter[tuple[str, str]]) -> None:
        """A message of which nobody knows where it comes from, as the kill came before that was written, and whose
        value says nothing: it is one that is missing from the same handler in the same channel, or one too many."""
        for effect in [one for one in found if one.cause.startswith(DIGEST) and not self._expected[one]]:
            like = [one for one in self._expected if (one.handler, one.kind, one.name) == effect[:3]]
            missing = [one for one in like if found[one] < self._scaled(one, self._expected[one], arrived)]
            if not like:
                continue
            taken = min(missing or like)
            found[taken] += found.pop(effect)
            for handler, channel in self._channels.items():
                if effect.kind == "sent" and channel == effect.name:
                    arrived[handler, taken.cause] += arrived.pop((handler, effect.cause), 0)

    def _scaled(self, effect: Effect, usual: int, arrived: Mapping[tuple[str, str], int]) -> int:
        """How many have to be there, if the handler was given its message more, or less, often than usual."""
        cause = effect.cause or self._caused.get((effect.handler, effect.name), "")
        before = self._arrived.get((effect.handler, cause), 0)
        now = arrived.get((effect.handler, cause), 0)
        return usual if not before or now == before else round(usual * now / before)

    def _arrivals(self, trial: Trial) -> Counter[tuple[str, str]]:
        """How many messages of each cause each handler was given."""
        by_channel: dict[str, list[str]] = defaultdict(list)
        for name, channel in self._channels.items():
            by_channel[channel].append(name)
        return Counter((handler, one.cause) for one in trial.messages for handler in by_channel[one.channel])

    def _effects(self, trial: Trial) -> Counter[Effect]:
        effects: Counter[Effect] = Counter()
        senders = {
            place[:3]: entry.handler for entry in trial.journal if entry.what == "sent" for place in entry.messages[1:]
        }
        for place, name in zip(trial.messages, trial.ids, strict=True):
            sender = senders.get(place[:3])
            if sender is None and not (place.channel in self._fed and INPUT.fullmatch(name)):
                sender = self._sender(place.channel, name)
            if sender is not None:
                effects[Effect(sender, "sent", place.channel, place.cause)] += 1
        for entry in trial.journal:
            if entry.what == "effect":
                # What it is for, says the program; else the message in hand does.
                named = entry.detail != entry.id or len(entry.messages) != 1 or entry.handler in self._of_batches
                cause = "" if named else entry.messages[0].cause
                effects[Effect(entry.handler, "effect", entry.detail, cause)] += 1
        for told in trial.state:
            first = told.partition(" ")[0]
            effects[Effect(first if first in self._channels else "", "state", told, "")] += 1
        for handler, cause in _returned(trial):
            if handler in self._silent:
                effects[Effect(handler, "handled", "", cause)] += 1
        return effects

    def _sender(self, channel: str, message_id: str) -> str | None:
        """Who sent a message; "": one of several, None: nobody in the application."""
        senders = self._senders.get(channel)
        if not senders:
            return None
        if len(senders) == 1:
            return next(iter(senders))
        named = message_id.rpartition(".")[2]
        return named if named in senders else ""

    def _loosened(self, effects: Counter[Effect]) -> Counter[Effect]:
        if not self._loose:
            return effects
        merged: Counter[Effect] = Counter()
        for effect, count in effects.items():
            group = _group(effect)
            merged[group if group in self._loose else effect] += count
        return merged


def _group(effect: Effect) -> Effect:
    """What is left of an effect when its value says nothing."""
    return effect._replace(name=effect.name if effect.kind == "sent" else effect.name.partition(" ")[0], cause="")


def _returned(trial: Trial) -> Iterable[tuple[str, str]]:
    """(handler, cause) of each message whose function returned."""
    for entry in trial.journal:
        if entry.what == "after-handler":
            for place in entry.messages:
                yield entry.handler, place.cause
