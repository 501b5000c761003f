"""How is a deviation told, so that one reads it once and sees what went wrong?

Floor 8: may import testing.chaos.journal, trials and verdict. Thread rule: pure functions.

The story of one message: what happened to it until the process was killed, and what happened after. A step that says no
more than the one behind it is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tidelog.testing.chaos.journal import Entry, Place
from tidelog.testing.chaos.trials import RANDOM, Trial
from tidelog.testing.chaos.verdict import Deviation

__all__ = ["Story", "tell"]

_THEN = {
    "received": "before-handler",
    "before-effect": "effect",
    "before-send": "after-send",
    "before-commit": "after-commit",
}
"""What says more than a step, when it is the next."""


@dataclass(frozen=True, slots=True)
class Story:
    """One deviation, and the steps that show it."""

    what: str
    handler: str
    step: str
    """Where the process was killed, as `--only` takes it."""
    message: str
    """Which message it is about."""
    lines: tuple[str, ...]
    so: str
    """What came out of it."""
    advice: str
    direct: bool
    """Whether the process that was killed had to do with the message: otherwise it is a story of what followed."""

    def __str__(self) -> str:
        told = [f"  {number}. {line}" for number, line in enumerate(self.lines, 1)]
        return "\n".join([f"{self.handler}: {self.message}", *told, f"  So {self.so}", f"  {self.advice}"])


def tell(deviation: Deviation, handlers: Sequence[Mapping[str, Any]], inputs: Sequence[Sequence[Any]]) -> Story:
    """The story of a deviation; `handlers`, `inputs`: as `life.find` tells them."""
    trial, name = deviation.trial, deviation.handler
    assert trial.kill is not None
    handler = next((one for one in handlers if one["name"] == name), {"name": name, "channel": "", "delivery": ""})
    death = _death(trial)
    place = _place(deviation, handler["channel"], death)
    step = f"{death.id}@{_passing(trial, death)}" if trial.kill.step == RANDOM and death else str(trial.kill)
    lines = _lines(trial, handler, place, death)
    return Story(
        deviation.what,
        name or "(anywhere)",
        str(trial.kill) if trial.kill.step == RANDOM else step,
        "no message in hand" if place is None else f"message {place}{_value(place, inputs)}",
        tuple(lines),
        _so(deviation),
        _advice(deviation, handler),
        place is not None and any(one.life == 1 and one.is_step and one.about(place) for one in trial.journal),
    )


def _death(trial: Trial) -> Entry | None:
    """The last step of the process that was killed."""
    own = [entry for entry in trial.journal if entry.life == 1 and entry.is_step]
    if trial.kill is None or trial.kill.step == RANDOM:
        return own[-1] if own else None
    passings = [entry for entry in own if entry.id == trial.kill.step]
    return passings[trial.kill.passing - 1] if len(passings) >= trial.kill.passing else None


def _passing(trial: Trial, death: Entry) -> int:
    return sum(entry.id == death.id and entry.life == 1 for entry in trial.journal)


def _place(deviation: Deviation, channel: str, death: Entry | None) -> Place | None:
    """The message that it is about."""
    effect = deviation.effect
    in_hand = death.messages if death is not None else ()
    if effect is not None and effect.cause:
        for place in in_hand:  # one input may have led to several messages of the channel
            if (place.channel, place.cause) == (channel, effect.cause):
                return place
        for place in deviation.trial.messages:
            if (place.channel, place.cause) == (channel, effect.cause):
                return place
    if effect is not None and effect.kind == "effect":  # of a batch, or of several messages
        for entry in deviation.trial.journal:
            if entry.detail == effect.name and entry.messages:
                return entry.messages[0]
    return in_hand[0] if in_hand else None


def _value(place: Place, inputs: Sequence[Sequence[Any]]) -> str:
    number = place.cause.removeprefix("input-")
    if not number.isdigit() or not 1 <= int(number) <= len(inputs):
        return ""
    channel, text = inputs[int(number) - 1][0], inputs[int(number) - 1][5]
    return f", {text}" if channel == place.channel else f", because of {text} in {channel}"


def _lines(trial: Trial, handler: Mapping[str, Any], place: Place | None, death: Entry | None) -> list[str]:
    entries = _told(trial.journal, handler["name"], place, death)
    lines: list[str] = []
    before = sum(entry.life == 1 for entry in entries)
    for index, entry in enumerate(entries):
        if entry.life > 1 and index == before:
            lines.append("the application is started again, and goes on behind what was committed")
        following = entries[index + 1] if index + 1 < len(entries) else None
        says_more = following is not None and following.life == entry.life and following.what == _THEN.get(entry.what)
        if entry is death:
            mine = place is not None and entry.about(place) and entry.handler == handler["name"]
            lines.append(f"{_said(entry, handler, mine)}: HERE THE PROCESS IS KILLED")
        elif not (says_more and not _commits_early(entry, handler)) and entry.what != "after-effect":
            lines.append(_said(entry, handler, True))
    if death is None:
        lines.insert(0, "THE PROCESS IS KILLED before it has come to a step")
    if before == len(entries):
        lines.append("the application is started again, and the message does not come again")
    if trial.trouble:
        lines.append(f"the application does not come to rest: {trial.trouble}")
    return lines


def _told(journal: Sequence[Entry], handler: str, place: Place | None, death: Entry | None) -> list[Entry]:
    """What is about the message, without the commits of later ones, which are about it too."""
    told: list[Entry] = []
    committed = 0
    for entry in journal:
        mine = place is not None and entry.handler == handler and entry.about(place)
        if entry is death or (
            mine and entry.what != "sent" and not (committed == entry.life and entry.what.endswith("-commit"))
        ):
            told.append(entry)
        if mine and entry.what == "after-commit":
            committed = entry.life
    return told


def _commits_early(entry: Entry, handler: Mapping[str, Any]) -> bool:
    return entry.what == "received" and handler["delivery"] == "at-most-once"


def _said(entry: Entry, handler: Mapping[str, Any], mine: bool) -> str:
    name = entry.handler or "it"
    text = {
        "received": "it is received",
        "before-handler": f"{name}() is called",
        "before-effect": f"the effect `{entry.detail}` is about to be done",
        "effect": f"the effect `{entry.detail}` is done",
        "after-effect": f"right after the effect `{entry.detail}`",
        "after-handler": f"{name}() has returned",
        "before-send": f"a message to {entry.detail!r} is about to be sent",
        "after-send": f"a message to {entry.detail!r} is sent",
        "before-commit": "it is about to be committed",
        "after-commit": "it is committed",
    }[entry.what]
    if _commits_early(entry, handler):
        text += ', and committed by that (delivery="at-most-once")'
    if not mine:
        about = f" at {entry.messages[0]}" if entry.messages else ""
        text = f"meanwhile {name}{about}: {text}"
    return text


def _so(deviation: Deviation) -> str:
    effect = deviation.effect
    if effect is None:
        return "the application cannot go on after a kill."
    if effect.kind == "handled":
        return f"{effect.handler}() has never gone through it."
    words = {0: "not there", 1: "there once", 2: "there twice"}
    found = words.get(deviation.found, f"there {deviation.found} times")
    if not deviation.expected:
        return f"{effect} is {found}, which it never is without a kill."
    return f"{effect} is {found}, and should be {words.get(deviation.expected, f'there {deviation.expected} times')}."


def _advice(deviation: Deviation, handler: Mapping[str, Any]) -> str:
    effect = deviation.effect
    if effect is None:
        return "What was half done must not be in the way of doing it again."
    if deviation.what == "lost":
        if handler["delivery"] == "at-most-once":
            return 'delivery="at-most-once" commits before the function is called; "at-least-once" does so afterwards.'
        return "The message was committed before its effect was done: do it before the function returns."
    if deviation.what == "unexpected":
        return "The message is handled again after a kill, and does something else then: make both times alike."
    if effect.kind == "sent":
        return 'What was not committed is handled again; delivery="exactly-once" commits and sends together.'
    outside = 'delivery="exactly-once" is about messages and offsets, and this is neither. '
    return (
        f"{outside if handler['delivery'] == 'exactly-once' else ''}What was not committed is handled again; write the "
        f"effect, and that it is done, in one database transaction."
    )
