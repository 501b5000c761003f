"""Which partitions does a consumer have now, and how do they come and go?

Floor 6: may import places, engine.base, errors, and the compiled reader. Thread rule: belongs to one thread at a time;
only `_depart` may be called from another one, after `_cancel`.

The compiled `Reader` calls `_turned` between two messages when the group or the catalogue has changed, after it has
committed what was handled. A partition that is another's now is given back then; one that is ours is taken as soon as
nobody has it any more, and read from where the group stands. So it never has two readers: the lease is what moves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Literal, NamedTuple, TypeAlias

from tidelog._native import Reader
from tidelog.engine.base import Engine, Membership, Opened
from tidelog.errors import ChannelNotFound, Fenced
from tidelog.places import Start, Stop, resolve

__all__ = ["Assigned", "OnChange", "Share"]

RETRY_S = 0.1
"""A partition of ours is still held by somebody else: the word of who gives it back is what normally wakes us."""


class Assigned(NamedTuple):
    """One partition that a consumer reads."""

    channel: str
    partition: int


OnChange: TypeAlias = Callable[[list[Assigned]], object]
"""What a program wants to be told when partitions come or go."""


class Share(Reader):
    """The partitions of one consumer; those it could have are counted, and all calls of the reader go by that number.

    `start`, `stop`: where reading begins in a partition without a committed offset, and where it ends. `remembered`:
    what "latest" meant is committed at once. `uncommitted`: open and aborted transactions are read too.
    """

    def __init__(
        self,
        engine: Engine,
        channels: Sequence[Opened],
        group: str | None,
        start: Start,
        stop: Stop,
        remembered: bool,
        uncommitted: bool,
        on_assign: OnChange | None,
        on_revoke: OnChange | None,
    ) -> None:
        if not channels:
            raise ValueError("a consumer reads at least one channel: name it")
        self._engine = engine
        self._group = group
        self._start, self._stop, self._remembered = start, stop, remembered
        self._uncommitted = uncommitted
        self._on_assign, self._on_revoke = on_assign, on_revoke
        self._generation = engine.generation
        self._channels = list(channels)
        self._parts: list[tuple[Opened, int]] = []
        self._names: list[Assigned] = []
        self._index: dict[Assigned, int] = {}
        self._ends: list[int] = []
        self._held: set[int] = set()
        self._news: list[int] = []  # taken, and on_assign has not been told
        self._membership: Membership | None = None
        for opened in channels:
            self._count_in([(opened, number) for number in range(len(opened.partitions))])
        self._first_grown = len(self._parts)

    # --- coming and going ---

    def _enter_group(self, membership: Membership | None) -> None:
        """Takes what is free of its share (None: everything, without a group). The reader is attached."""
        if self._stop is not None:
            self._end_at([self._place(opened, number, self._stop) for opened, number in self._parts])
        self._membership = membership
        if membership is None:
            for index in range(len(self._parts)):
                self._take_up(index)
        else:
            membership.attach(self)
            self._look()

    def _turned(self) -> float | None:
        again = self._look()
        told, self._news = self._news, []
        if told and self._on_assign is not None:
            try:
                self._on_assign([self._names[index] for index in told])
            except BaseException:  # it may be the one that seeks: nothing is read before it went through
                self._news = [index for index in told if index in self._held] + self._news
                raise
        return again

    def _look(self) -> float | None:
        """Gives back what is another's now, and takes what is ours and free. Seconds to the next look."""
        if self._engine.generation != self._generation:
            self._grow()
        membership = self._membership
        if membership is None:
            return None
        standing = membership.look()
        if standing.state == "replaced":
            self._hand_back(sorted(self._held))
            raise Fenced(
                f"another consumer of group {self._group!r} has the name {membership.member!r} now, and the partitions "
                f"of this one: close this one, and give each running consumer a name of its own"
            )
        if standing.state == "expelled":
            try:
                self._hand_back(sorted(self._held))
            finally:
                membership.rejoin(self)
            standing = membership.look()
        mine = set(standing.mine)
        self._hand_back([index for index in sorted(self._held) if index not in mine or not self._holds(index)])
        missing = False
        for index in standing.mine:
            if index not in self._held:
                if self._take(index):
                    self._take_up(index)
                    self._news.append(index)
                else:
                    missing = True
        self._incomplete(missing or not standing.complete)
        return min(standing.again, RETRY_S) if missing else standing.again

    def _take_up(self, index: int) -> None:
        """A partition has become ours: reading goes on where the group stands."""
        try:
            offset = None if self._group is None else self._committed(index)
            if offset is None:
                opened, number = self._parts[index]
                # What came into a partition before anybody could have it is not to be skipped.
                grown = index >= self._first_grown and not isinstance(self._start, datetime)
                offset = self._place(opened, number, "earliest" if grown else self._start)
                if self._remembered and self._group is not None:
                    # Whoever reads on here begins at this very place, even if this consumer handles nothing: "latest",
                    # asked again, would skip what came meanwhile.
                    self._commit(index, offset)
            self._seek(index, offset)
        except BaseException:
            if self._group is not None:
                self._give([index])
            raise
        self._held.add(index)

    def _hand_back(self, indexes: list[int]) -> None:
        """These partitions are not ours any more. on_revoke may still commit; whatever it does, they are given back."""
        if not indexes:
            return
        try:
            self._tell_revoked(indexes)
        finally:
            self._give(indexes)  # first: interrupted behind it, the next look finds what is not held and takes note
            self._news = [index for index in self._news if index not in indexes]
            self._held.difference_update(indexes)

    def _tell_revoked(self, indexes: Iterable[int]) -> None:
        told = [self._names[index] for index in indexes if index not in self._news]
        if told and self._on_revoke is not None:
            self._on_revoke(told)

    def _finish(self) -> None:
        """The program is done without an exception: what was handled is committed, then on_revoke is told."""
        self._settle()
        self._tell_revoked(sorted(self._held))

    def _depart(self) -> None:
        """Gives everything back and leaves the group."""
        self._release()
        self._held.clear()
        if self._membership is not None:
            self._membership.leave()

    def _place(self, opened: Opened, number: int, where: Start | Literal["end"]) -> int:
        return resolve(opened, number, where, uncommitted=self._uncommitted)

    # --- growing ---

    def _grow(self) -> None:
        """The catalogue has changed: our channels may have more partitions."""
        generation = self._engine.generation
        for place, opened in enumerate(self._channels):
            with suppress(ChannelNotFound):  # dropped: whoever reads it is told
                fresh = self._engine.definition(opened.definition.name)
                had = len(opened.partitions)
                if fresh.id == opened.definition.id and len(fresh.partitions) > had:
                    grown = self._engine.open(fresh, opened.codec)
                    grown.shared.answer = opened.shared.answer
                    self._extend_by([(grown, number) for number in range(had, len(grown.partitions))])
                    self._channels[place] = grown
        self._generation = generation

    def _extend_by(self, parts: list[tuple[Opened, int]]) -> None:
        first = len(self._parts)
        # What a partition holds that was not there is no part of "up to the end as it was".
        stop: Start | None = "earliest" if self._stop == "end" else self._stop
        ends = [] if stop is None else [self._place(opened, number, stop) for opened, number in parts]
        self._engine.extend_reader(self, parts)
        self._count_in(parts)
        if ends:
            self._end_at(ends)
        if self._membership is not None:
            self._membership.extend([(bytes.fromhex(opened.definition.id), number) for opened, number in parts])
        else:
            for index in range(first, len(self._parts)):
                self._take_up(index)

    def _count_in(self, parts: list[tuple[Opened, int]]) -> None:
        for opened, number in parts:
            assigned = Assigned(opened.definition.name, number)
            if assigned in self._index:
                raise ValueError("a channel is named twice: a consumer reads each of its channels once")
            self._index[assigned] = len(self._parts)
            self._parts.append((opened, number))
            self._names.append(assigned)

    def _end_at(self, ends: list[int]) -> None:
        """Reading ends there in the partitions that were counted in last."""
        self._ends += ends
        self._stop_at(self._ends)
