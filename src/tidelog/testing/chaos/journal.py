"""What do the processes of a run write down, so that a kill loses nothing of it?

Floor 8: may import envelope, message. Thread rule: a `Journal` may be written to from any thread, and by one process
after the other; each line is one write at the end of the file.

A line is a JSON object. The steps of an application are told with the messages that they are about, and each message
with its cause: the input that led to it. What carries the input's id or trace is known by that; the rest by its bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from tidelog import envelope
from tidelog.message import Message

__all__ = ["DIGEST", "Entry", "Journal", "Place", "cause_of", "input_headers", "read", "traced"]

INPUT = re.compile(r"input-(\d+)(?=\.|$)")
DIGEST = "value-"
TRACE = re.compile(r"00-0{24}(\d{8})-\w{16}-01")


class Place(NamedTuple):
    """Where a message stands, and its cause."""

    channel: str
    partition: int
    offset: int
    cause: str

    def __str__(self) -> str:
        return f"{self.channel}-{self.partition}@{self.offset}"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line: something that a process came to."""

    life: int
    what: str
    """A step of tidelog.app.steps, before-effect or after-effect; effect: it is done now; sent: the first message led
    to the others; started, rested: of the application."""
    handler: str = ""
    detail: str = ""
    """Channel of a send, name of an effect, or what was said."""
    id: str = ""
    """The step as it is named in a plan; of an effect its name alone."""
    messages: tuple[Place, ...] = ()
    at: float = 0.0
    """Seconds on a clock that all processes share."""

    @property
    def is_step(self) -> bool:
        """Whether it is a step of a handler, at which the process can be killed."""
        return bool(self.id and self.handler) and self.what != "effect"

    def about(self, place: Place) -> bool:
        """Whether it is about this message; a commit is about all that stand before it."""
        if self.what in ("before-commit", "after-commit"):
            return any(
                one.channel == place.channel and one.partition == place.partition and one.offset >= place.offset
                for one in self.messages
            )
        return any(one[:3] == place[:3] for one in self.messages)


def input_headers(number: int) -> list[tuple[str, str]]:
    """Headers that what an input leads to carries on."""
    return [(envelope.TRACEPARENT, f"00-{number:032d}-{number:016d}-01")]


def cause_of(message: Message[Any]) -> str:
    """Which input a message is, or comes from; else a digest of its value, equal for equal values."""
    headers = message.headers
    if len(headers):
        for name in (envelope.MESSAGE_ID, envelope.CORRELATION_ID):
            found = INPUT.match(bytes(headers.get(name, b"")).decode("utf-8", "replace"))
            if found:
                return f"input-{found[1]}"
        found = TRACE.fullmatch(bytes(headers.get(envelope.TRACEPARENT, b"")).decode("utf-8", "replace"))
        if found:
            return f"input-{int(found[1])}"
    return DIGEST + hashlib.blake2b(bytes(message.raw), digest_size=6).hexdigest()


class Journal:
    """The journal of one run, for writing."""

    def __init__(self, path: Path, life: int) -> None:
        self._life = life
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def write(
        self,
        what: str,
        at: float,
        handler: str = "",
        detail: str = "",
        id: str = "",
        messages: Sequence[Place] = (),
    ) -> None:
        """One line; once this returns it is there, whatever happens to the process."""
        line = json.dumps([self._life, what, handler, detail, id, messages, at]) + "\n"
        os.write(self._descriptor, line.encode())


def read(path: Path) -> list[Entry]:
    """All lines; one that a kill has cut off is left out."""
    return list(_entries(path)) if path.exists() else []


def _entries(path: Path) -> Iterator[Entry]:
    for line in path.read_bytes().split(b"\n"):
        try:
            life, what, handler, detail, id, messages, at = json.loads(line)
        except ValueError:
            continue
        yield Entry(life, what, handler, detail, id, tuple(Place(*one) for one in messages), at)


def traced(
    journal: Sequence[Entry], messages: Sequence[Place], known: dict[tuple[str, str], str], *, learn: bool
) -> tuple[list[Entry], list[Place]]:
    """The same, with the causes that the journal knows: what a handler sends by itself does not say where it comes
    from, but the journal says where it went.

    A kill may come between the two. So `known` has what other journals say of messages with the same value, by channel
    and digest; with `learn` this one adds to it.
    """
    led: dict[tuple[str, int, int], Place] = {}
    for entry in journal:
        if entry.what == "sent":
            for place in entry.messages[1:]:
                led[place[:3]] = entry.messages[0]

    def first(place: Place) -> Place:
        seen = place
        for _ in range(len(led) + 1):  # a circle would be no circle of offsets, but hostile files have no end
            if seen[:3] not in led:
                break
            seen = led[seen[:3]]
        cause = seen.cause
        if learn and cause != place.cause:
            key = (place.channel, place.cause)
            known[key] = cause if known.get(key, cause) == cause else ""
        elif cause.startswith(DIGEST):
            cause = known.get((seen.channel, cause)) or cause
        return place._replace(cause=cause)

    entries = [replace(entry, messages=tuple(map(first, entry.messages))) for entry in journal]
    return entries, [first(place) for place in messages]
