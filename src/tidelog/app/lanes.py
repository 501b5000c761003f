"""Which message may be handled next, which has to wait for another one of its key, and what may be committed?

Floor 8: may import message. Thread rule: none of its own: whoever shares one between threads holds a lock around every
call. No clock either: the time is an argument, so that tests turn it as they like.

Messages of one key form a lane: one of them is out at a time, and one that waits for its next attempt holds up those
behind it and nobody else. A message without a key has no order to keep, so it is a lane of its own. What may be
committed of a partition is the low-water mark: everything up to the first message that is not finished.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Hashable, Iterable, Iterator
from typing import Any

from tidelog._native import message_again
from tidelog.message import Message

__all__ = ["Lane", "Lanes"]


class Lane:
    """Messages of one key in their order; the first one is being handled, or is the next to be."""

    __slots__ = ("attempts", "due", "items", "key", "partition", "running", "since")

    def __init__(self, key: Hashable, partition: int) -> None:
        self.key = key
        self.partition = partition
        self.items: deque[tuple[Message[Any], Any]] = deque()
        """(message, what the handler is called with)"""
        self.attempts = 0
        """Of the first message, those that failed."""
        self.due: float | None = None
        """When the first message may be tried again; None: at once."""
        self.running = False
        self.since = 0.0
        """When the first message was taken."""

    @property
    def message(self) -> Message[Any]:
        """The first message."""
        return self.items[0][0]

    def call(self) -> tuple[Message[Any], Any]:
        """The first message, and what the handler is called with for it, as the attempt sees them that comes now."""
        message, subject = self.items[0]
        if not self.attempts:
            return message, subject
        again = message_again(message, self.attempts)
        return again, again if subject is message else subject


class _Place:
    """One partition from its first unfinished message on, in the order of the log."""

    __slots__ = ("ahead", "mark", "nbytes", "span")

    def __init__(self) -> None:
        self.span: deque[tuple[int, int]] = deque()
        """(offset, bytes). Finished ones stand here too while an earlier one is not: a message keeps alive what was
        read with it, so it is the whole span that takes memory. Messages themselves are not kept."""
        self.ahead: set[int] = set()
        """Offsets in the span that are finished."""
        self.mark: int | None = None
        """The offset before which everything is finished, if that was not told yet."""
        self.nbytes = 0

    def finish(self, offset: int) -> None:
        """The message at `offset` is finished."""
        span, ahead = self.span, self.ahead
        ahead.add(offset)
        while span and span[0][0] in ahead:
            first, nbytes = span.popleft()
            ahead.remove(first)
            self.nbytes -= nbytes
            self.mark = first + 1


class Lanes:
    """The unfinished messages of one handler."""

    def __init__(self) -> None:
        self._lanes: dict[Hashable, Lane] = {}
        self._ready: deque[Lane] = deque()
        self._waiting: list[tuple[float, int, Lane]] = []
        self._places: dict[int, _Place] = {}
        self._leaving: dict[int, float] = {}
        self._ticket = 0
        self.running = 0
        """Messages that are out."""

    def __bool__(self) -> bool:
        """Whether anything is unfinished."""
        return bool(self._lanes)

    def __len__(self) -> int:
        """Messages that are unfinished, those that wait behind others too."""
        return sum(len(lane.items) for lane in self._lanes.values())

    # --- coming in ---

    def put(self, message: Message[Any], subject: Any, nbytes: int = 0) -> None:
        """Take a message in; those of a partition come in the order of the log."""
        partition, key = message.partition, message.key
        name: Hashable = (partition, message.offset, None) if key is None else (partition, key)
        place = self._places.get(partition)
        if place is None:
            place = self._places[partition] = _Place()
        place.span.append((message.offset, nbytes))
        place.nbytes += nbytes
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = Lane(name, partition)
            self._ready.append(lane)
        lane.items.append((message, subject))

    # --- going out ---

    def take(self, now: float) -> Lane | None:
        """A lane whose first message is to be handled now, in the order they became ready; None: there is none."""
        while self._waiting and self._waiting[0][0] <= now:
            lane = heapq.heappop(self._waiting)[2]
            lane.due = None
            if lane.items:  # a revoked one is empty
                self._ready.append(lane)
        while self._ready:
            lane = self._ready.popleft()
            if lane.items:
                lane.running, lane.since = True, now
                self.running += 1
                return lane
        return None

    def done(self, lane: Lane) -> None:
        """The first message is finished, one way or the other; the next one of the lane is ready."""
        message, _ = lane.items.popleft()
        self._rest(lane)
        lane.attempts = 0
        place = self._places.get(lane.partition)
        if place is not None:  # None: its partition was forgotten meanwhile
            place.finish(message.offset)
        if lane.items:
            self._ready.append(lane)
        else:
            del self._lanes[lane.key]

    def again(self, lane: Lane, at: float) -> None:
        """The first message is to be tried again at `at`; those behind it wait. Of a partition that goes it may be too
        late then: see `cut`."""
        self._rest(lane)
        lane.attempts += 1
        lane.due = at
        self._ticket += 1
        heapq.heappush(self._waiting, (at, self._ticket, lane))
        if lane.partition in self._leaving:
            self._trim({lane.partition})

    def back(self, lane: Lane) -> None:
        """The first message was not handled after all: it is ready again, before all others."""
        self._rest(lane)
        self._ready.appendleft(lane)

    def _rest(self, lane: Lane) -> None:
        lane.running = False
        self.running -= 1

    # --- what is known ---

    def next_due(self) -> float | None:
        """When the next retry is due; None: none waits."""
        return self._waiting[0][0] if self._waiting else None

    @property
    def held(self) -> int:
        """Messages that are out, or could be, or stand behind one of their key; not those that wait for a retry."""
        return len(self) - sum(lane.due is not None for lane in self._lanes.values())

    @property
    def ready(self) -> int:
        """How many messages could be out besides those that are."""
        while self._ready and not self._ready[0].items:
            self._ready.popleft()
        return len(self._ready)

    def oldest(self) -> float | None:
        """When the message that is out for the longest time was taken; None: none is out."""
        return min((lane.since for lane in self._lanes.values() if lane.running), default=None)

    def marks(self) -> list[tuple[int, int]]:
        """(partition, offset before which everything is finished) where that has moved; each is told once."""
        found = []
        for partition, place in list(self._places.items()):
            if place.mark is not None:
                found.append((partition, place.mark))
                place.mark = None
            if not place.span:
                del self._places[partition]
        return found

    def untold(self, partition: int, mark: int) -> None:
        """What `marks` has told of a partition is to be told again."""
        place = self._places.get(partition)
        if place is None:
            place = self._places[partition] = _Place()
        if place.mark is None:
            place.mark = mark

    def span(self, partition: int) -> tuple[int, int]:
        """(messages, bytes) of a partition from its first unfinished message on."""
        place = self._places.get(partition)
        return (0, 0) if place is None else (len(place.span), place.nbytes)

    def partitions(self) -> Iterator[int]:
        """The partitions of which something is unfinished."""
        return iter(self._places)

    # --- giving up ---

    def cut(self, partitions: Iterable[int] | None = None, until: float = -math.inf) -> None:
        """These partitions (None: all) go: forget of them what nobody has to wait for.

        What stays is what stands before a message that is finished or out: once that is done too, all of it can be
        committed, and nothing is handled twice. A retry that is due after `until` is not waited for, nor is anything
        behind it. What fails from now on is judged alike. A second call can only make `until` earlier.
        """
        wanted = set(partitions) if partitions is not None else {lane.partition for lane in self._lanes.values()}
        for partition in wanted:
            self._leaving[partition] = min(until, self._leaving.get(partition, math.inf))
        self._trim(wanted)

    def _trim(self, wanted: set[int]) -> None:
        mine = [lane for lane in self._lanes.values() if lane.partition in wanted]
        # By partition: the first message that is not tried again in time. No commit gets past it.
        stuck: dict[int, int] = {}
        for lane in mine:
            if lane.due is not None and lane.due > self._leaving[lane.partition]:
                stuck[lane.partition] = min(lane.message.offset, stuck.get(lane.partition, lane.message.offset))
        last: dict[int, int] = {}
        for partition in wanted:
            place, end = self._places.get(partition), stuck.get(partition, math.inf)
            last[partition] = max((offset for offset in (place.ahead if place else ()) if offset < end), default=-1)
        for lane in mine:
            if lane.running and lane.message.offset < stuck.get(lane.partition, math.inf):
                last[lane.partition] = max(last[lane.partition], lane.message.offset)
        for lane in mine:
            while len(lane.items) > lane.running and lane.items[-1][0].offset > last[lane.partition]:
                lane.items.pop()
            if not lane.items:  # the queues may still hold it: `take` passes over what is empty
                del self._lanes[lane.key]

    def drop(self, partitions: Iterable[int]) -> None:
        """Forget what waits of these partitions; what is out stays until it is done."""
        gone = set(partitions)
        for lane in [lane for lane in self._lanes.values() if lane.partition in gone]:
            if lane.running:
                while len(lane.items) > 1:
                    lane.items.pop()
            else:
                lane.items.clear()
                del self._lanes[lane.key]

    def pending(self, partitions: Iterable[int]) -> bool:
        """Whether a message of these partitions is out, or could be; or waits for a retry, if they go: what `cut` has
        left is tried in time."""
        wanted = set(partitions)
        return any(
            lane.partition in wanted and (lane.due is None or lane.partition in self._leaving)
            for lane in self._lanes.values()
        )

    def out(self, partitions: Iterable[int]) -> bool:
        """Whether a message of these partitions is out."""
        wanted = set(partitions)
        return self.running > 0 and any(lane.running and lane.partition in wanted for lane in self._lanes.values())

    def forget(self, partitions: Iterable[int]) -> None:
        """Forget how far these partitions are finished, and that they go."""
        for partition in partitions:
            self._places.pop(partition, None)
            self._leaving.pop(partition, None)
