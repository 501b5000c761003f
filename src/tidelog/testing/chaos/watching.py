"""How does each step of an application get into the journal, and how is the process killed at one of them?

Floor 8: may import app.steps, envelope, message, testing.faults, testing.effects, testing.lives, testing.chaos.journal.
Thread rule: called from all threads of the application; what is in hand belongs to the thread, or to the task.

A step is written down, and then passed on to `lives.step`, which kills the process if it is the one. So the last line
of a life is the step at which it died.
"""

from __future__ import annotations

import time
from collections import Counter
from contextlib import ExitStack
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple

from tidelog import envelope
from tidelog.app import steps
from tidelog.message import Batch, Message, Receipt
from tidelog.testing import effects, faults, lives
from tidelog.testing.chaos.journal import Journal, Place, cause_of

__all__ = ["Watch"]

FOLD_AFTER = 4
"""A message that sends a thousand others does not have a thousand steps: from this one on they have one name."""


class _Hand(NamedTuple):
    """What a thread or a task is at."""

    handler: str
    messages: tuple[Place, ...]
    passed: Counter[str]


_hand: ContextVar[_Hand | None] = ContextVar("tidelog_chaos_hand", default=None)


class Watch:
    """Watches the application of this process; there is no end to it but the process's."""

    def __init__(self, path: Path, life: int, channels: dict[str, str]) -> None:
        """`channels`: by handler, what it reads."""
        self._journal = Journal(path, life)
        self._channels = channels
        self._open = ExitStack()
        self.passed = 0
        """Steps so far; as long as it grows, something happens."""

    def begin(self) -> None:
        """From now on. Before the application starts."""
        steps.watcher = self.step
        effects.recorder = self.effect
        self._open.enter_context(faults.watch(self._append))

    def say(self, what: str, detail: str = "") -> None:
        """Something about the whole application."""
        self._journal.write(what, time.monotonic(), detail=detail)

    def step(self, what: str, handler: str, subject: Any, detail: str) -> None:
        """What tidelog.app.steps tells."""
        places = self._places(what, handler, subject)
        if what == "received":
            _hand.set(None)
        elif what == "before-handler":
            _hand.set(_Hand(handler, places, Counter()))
        self._pass(what, handler, detail, places)

    def effect(self, name: str, of: tuple[Any, ...]) -> None:
        """What tidelog.testing.effects tells: two steps, and in between it is done."""
        hand = _hand.get()
        handler, places = ("", ()) if hand is None else (hand.handler, hand.messages)
        told = " ".join([name, *map(str, of)])
        self._pass("before-effect", handler, name, places, told)
        self._journal.write("effect", time.monotonic(), handler, told, name, places)
        self._pass("after-effect", handler, name, places, told)

    def _append(self, point: str, channel: str | None, done: bool, receipt: Any) -> None:
        hand = _hand.get()
        if point != "append" or hand is None:
            return
        if not done:
            self._pass("before-send", hand.handler, channel or "", hand.messages)
            return
        if isinstance(receipt, Receipt) and receipt.done and len(hand.messages) == 1:
            cause = hand.messages[0]
            if receipt.count == 1:
                sent = [(receipt.partition, receipt.offset)]
            else:
                sent = list(zip(receipt.partitions.tolist(), receipt.offsets.tolist(), strict=True))
            places = [cause, *(Place(channel or "", *place, cause.cause) for place in sent)]
            self._journal.write("sent", time.monotonic(), hand.handler, channel or "", "", places)
        self._pass("after-send", hand.handler, channel or "", hand.messages)

    def _pass(self, what: str, handler: str, detail: str, places: tuple[Place, ...], told: str | None = None) -> None:
        self.passed += 1
        name = "/".join(part for part in (handler, what, detail) if part)
        hand = _hand.get()
        if hand is not None and hand.handler == handler and what not in ("before-commit", "after-commit"):
            hand.passed[name] += 1
            times = min(hand.passed[name], FOLD_AFTER)
            name += f"#{times}" if times > 1 else ""
        self._journal.write(what, time.monotonic(), handler, detail if told is None else told, name, places)
        lives.step(name)

    def _places(self, what: str, handler: str, subject: Any) -> tuple[Place, ...]:
        channel = self._channels.get(handler, "")
        if what.endswith("-commit") and isinstance(subject, tuple):  # the next message
            partition, offset = subject
            return (Place(channel, partition, offset - 1, ""),)
        if isinstance(subject, Batch):
            return tuple(_place(message) for message in subject)
        if not isinstance(subject, Message):
            subject = envelope.current.get()
        return () if subject is None else (_place(subject),)


def _place(message: Message[Any]) -> Place:
    return Place(message.channel, message.partition, message.offset, cause_of(message))
