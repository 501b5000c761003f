"""How does one consumer take part in its group, in an embedded store?

Floor 4: may import assignment, engine.base, and the compiled membership. Thread rule: belongs to the consumer's thread;
only `leave` may be called from any thread.

There is no coordinating process. Membership stands in memory that all processes share; each change of it gets a new
version, and some member computes who is to have which partition and installs that for the version. Any member may:
`assign` is a pure function, and a plan for an older version is refused. So that not all of them do the same work at the
same moment, whoever joined computes at once, and so does the first member when somebody went; anybody else only after
PLAN_AFTER_S without a plan, because the first one may be busy with a message, or stopped.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from tidelog._native import Membership as NativeMembership
from tidelog.engine.base import Standing
from tidelog.errors import ChannelNotFound, Closed, Fenced
from tidelog.groups.assignment import STRATEGIES, Member, Part, assign

if TYPE_CHECKING:
    from tidelog._native import Reader, Store

PLAN_AFTER_S = 0.02
LOOK_AFTER_S = 5.0
"""A look without any news: should the thread that watches the other processes have died, the dead are found then."""


class GroupChannel(NamedTuple):
    """What a plan needs to know of a channel."""

    local_id: int
    name: str
    id: bytes
    partitions: int


class Coordinator:
    """One consumer's place in one group.

    `parts`: (channel id, partition) in the order in which the consumer counts them; `local_ids`: its channels;
    `channels_of`: what is known of the channels of these local ids, those that are gone left out. Times in seconds.
    Raises ValueError for a strategy or a name out of range, Full when there is no room for another member.
    """

    def __init__(
        self,
        store: Store,
        group: str,
        parts: Sequence[tuple[bytes, int]],
        local_ids: Sequence[int],
        channels_of: Callable[[Iterable[int]], Sequence[GroupChannel]],
        *,
        member: str | None,
        strategy: str,
        member_timeout: float,
        max_processing: float | None,
    ) -> None:
        if strategy not in STRATEGIES:
            raise ValueError(f"strategy={strategy!r} does not exist: use one of {', '.join(STRATEGIES)}")
        self._store = store
        self._group = group
        self._local_ids = tuple(sorted(set(local_ids)))
        self._channels_of = channels_of
        self._name = member
        self._strategy = strategy
        self._member_timeout = member_timeout
        self._max_processing = max_processing
        self._mine: list[int] = []
        # At the first look too: a plan that gives partitions to members that have just died would be in force until
        # they are noticed, and a consumer that stops at the end would take its own share for everything.
        self._sweep_at = 0.0
        self._unplanned = (-1, 0.0)  # a version without a plan, and since when
        self._newcomer = True
        self._grown = (-1, 0)  # (version, partitions of ours) that a plan was made for
        self._leaving = threading.Lock()
        self._left = False
        self._slots: list[int] = []
        self._known: dict[tuple[bytes, int], int] = {}
        self.extend(parts)
        self._native = self._join()

    # --- who it is ---

    @property
    def member(self) -> str:
        """Its name, or one that was made up for it."""
        return self._name or f"{self._native.id:x}"

    @property
    def generation(self) -> int:
        """Of the plan that is in force: it changes whenever members come, go or change."""
        return self._native.assigned

    @property
    def row(self) -> int:
        """Its place in the table of members, which no other member that lives has."""
        return self._native.index

    @property
    def active(self) -> bool:
        """Whether it is a member still; False: expelled, replaced, or it has left."""
        return self._native.active

    # --- taking part ---

    def attach(self, reader: Reader) -> None:
        """Let `reader` be told when something changes, and take leases for this member."""
        reader._join(self._native, self._max_processing)

    def extend(self, parts: Iterable[tuple[bytes, int]]) -> None:
        """The consumer counts more partitions."""
        self._slots += [self._slot(*part) for part in parts]

    def look(self) -> Standing:
        """What is to be this consumer's now. Computes a plan where that is its turn."""
        native = self._native
        if not native.active:
            return Standing("replaced" if native.fenced else "expelled", (), False, 0.0)
        now = time.monotonic()
        if now >= self._sweep_at:
            self._sweep_at = now + LOOK_AFTER_S
            native.sweep()
        again = LOOK_AFTER_S
        targets, complete = self._targets()
        # A partition of ours that nobody has: its channel has grown since the plan was made.
        if not complete or (-1 in targets and self._grown != (native.version, len(self._slots))):
            again = self._plan_if_due(now)
            targets, complete = self._targets()
        if complete:  # nobody acts on a plan that is not in force
            me = native.index
            self._mine = [place for place, member in enumerate(targets) if member == me]
        return Standing("member", self._mine, complete, again)

    def rejoin(self, reader: Reader) -> None:
        """Become a member again after having been expelled. Raises Closed when it has left meanwhile."""
        with self._leaving:
            if self._left:
                raise Closed("the consumer was closed: make a new one with channel.consumer()")
            self._native = self._join()
        self.attach(reader)

    def leave(self) -> None:
        """Be a member no more; one with a name is waited for. The leases have been given back."""
        with self._leaving:
            self._left = True
            self._native.leave(keep=self._name is not None)

    # --- inside ---

    def _join(self) -> NativeMembership:
        self._mine = []
        self._newcomer = True
        return NativeMembership(
            self._store,
            self._group,
            channels=self._local_ids,
            name=self._name,
            strategy=self._strategy,
            max_processing=self._max_processing,
            away=self._member_timeout if self._name is not None else 0.0,
        )

    def _slot(self, channel_id: bytes, number: int) -> int:
        """Where the group's offset in a partition stands."""
        slot = self._known.get((channel_id, number))
        if slot is None:
            slot = self._known[channel_id, number] = self._store.offset_slot(self._group, channel_id, number, True)
        return slot

    def _targets(self) -> tuple[list[int], bool]:
        """Whose our partitions are, and whether the plan that says so is in force."""
        native = self._native
        before = native.assigned
        targets = native.targets(self._slots)
        return targets, before == native.assigned == native.version

    def _plan_if_due(self, now: float) -> float:
        """Seconds after which to look again, with a plan made if it was due."""
        version = self._native.version
        if self._unplanned[0] != version:
            self._unplanned = (version, now)
        left = self._unplanned[1] + PLAN_AFTER_S - now
        if left > 0 and not self._newcomer and not self._is_first():
            return left
        self._newcomer = False
        # Once for a channel that has grown: should its definition have become unreadable, no plan can name it.
        self._grown = (version, len(self._slots))
        for _ in range(10):
            # Expelled, or a channel was dropped, in this very moment: the next look sees it.
            with suppress(Fenced, ChannelNotFound):
                if self._plan():
                    return LOOK_AFTER_S
        return PLAN_AFTER_S  # members come and go faster than that: somebody will be the last

    def _is_first(self) -> bool:
        present = [row for row in self._native.members() if not row[6]]
        return bool(present) and present[0][0] == self._native.index

    def _plan(self) -> bool:
        """Compute and install who gets what. False: the membership has changed meanwhile."""
        native = self._native
        version, rows = native.view()
        members = [Member(row[0], row[3], frozenset(row[5])) for row in rows]
        channels = self._channels_of({local_id for member in members for local_id in member.channels})
        parts: list[Part] = []
        slots: list[int] = []
        for channel in channels:
            for number in range(channel.partitions):
                parts.append((channel.local_id, number))
                slots.append(self._slot(channel.id, number))
        previous = {part: had for part, had in zip(parts, native.targets(slots), strict=True) if had >= 0}
        # Members may ask for different strategies while a program is being replaced: the oldest one's holds.
        strategy = next((row[4] for row in rows if row[4] in STRATEGIES), self._strategy)
        found = assign(strategy, members, parts, previous)
        return native.install(version, slots, [found.get(part, -1) for part in parts])
