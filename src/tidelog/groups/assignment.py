"""Which member of a group gets which partition?

Floor 4: imports nothing. Pure functions: equal arguments give equal results in every process, and nothing is kept.

A member is assigned partitions of its own channels only. Every strategy assigns each partition that has a subscriber to
exactly one of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["STRATEGIES", "Member", "Part", "Strategy", "assign"]

Strategy: TypeAlias = Literal["sticky", "range", "round-robin"]

Part: TypeAlias = tuple[int, int]
"""(channel, partition): the channel as any number that names it in the group."""


@dataclass(frozen=True, slots=True)
class Member:
    """One member of a group, as the assignment sees it."""

    index: int
    """What names it in the result."""
    name: str | None
    """Its name, if it was given one: named members come before the others, by name."""
    channels: frozenset[int]
    """What it subscribed to."""


def assign(
    strategy: str, members: Sequence[Member], partitions: Sequence[Part], previous: Mapping[Part, int]
) -> dict[Part, int]:
    """The member index that gets each partition; a partition without a subscriber is left out.

    `members` stand in the order they joined, `partitions` in the order of their channels' names, then by number (Kafka
    sorts so, and the two strategies that are Kafka's depend on it). `previous`: who had what; strategies other than
    sticky ignore it.

    - "sticky": among members with equal subscriptions the counts differ by at most one. When all subscribe to the same,
      the fewest partitions move that allow it; otherwise counts are as even as subscriptions permit, what need not move
      stays, and whoever gets too little is served over the shortest chain of moves.
    - "range": for each channel apart, consecutive partitions to the subscribers in turn, the first ones one more.
    - "round-robin": all partitions dealt out one by one to the members in turn.

    Raises ValueError for another strategy.
    """
    try:
        rule = _RULES[strategy]
    except KeyError:
        raise ValueError(f"strategy={strategy!r} does not exist: use one of {', '.join(STRATEGIES)}") from None
    if not members:
        return {}
    return rule(members, partitions, previous)


def _by_name(members: Iterable[Member]) -> list[Member]:
    """Kafka's order: members with a name first, by name; then the others (Kafka: by a random id; here: as joined)."""
    members = list(members)
    named = sorted((member for member in members if member.name is not None), key=lambda member: member.name or "")
    return named + [member for member in members if member.name is None]


def _range(members: Sequence[Member], partitions: Sequence[Part], previous: Mapping[Part, int]) -> dict[Part, int]:
    ordered = _by_name(members)
    channels: dict[int, list[Part]] = {}
    for part in partitions:
        channels.setdefault(part[0], []).append(part)
    result = {}
    for channel, parts in channels.items():
        subscribers = [member.index for member in ordered if channel in member.channels]
        if not subscribers:
            continue
        each, extra = divmod(len(parts), len(subscribers))
        at = 0
        for place, index in enumerate(subscribers):
            end = at + each + (place < extra)
            result.update(dict.fromkeys(parts[at:end], index))
            at = end
    return result


def _round_robin(
    members: Sequence[Member], partitions: Sequence[Part], previous: Mapping[Part, int]
) -> dict[Part, int]:
    ordered = _by_name(members)
    wanted = frozenset().union(*(member.channels for member in ordered))
    result = {}
    turn = 0
    for part in partitions:
        if part[0] not in wanted:
            continue
        while part[0] not in ordered[turn % len(ordered)].channels:
            turn += 1
        result[part] = ordered[turn % len(ordered)].index
        turn += 1
    return result


def _sticky(members: Sequence[Member], partitions: Sequence[Part], previous: Mapping[Part, int]) -> dict[Part, int]:
    channels = members[0].channels
    if all(member.channels == channels for member in members):
        return _sticky_equal(
            [member.index for member in members], [p for p in partitions if p[0] in channels], previous
        )
    return _Mixed(members, partitions, previous).result()


def _sticky_equal(members: list[int], partitions: list[Part], previous: Mapping[Part, int]) -> dict[Part, int]:
    """Everybody may have everything. A member keeps at most its quota; the larger quotas go to those who would have to
    give up one more otherwise. Fewer moves are impossible: whatever the quotas, what exceeds them must move."""
    kept: dict[int, list[Part]] = {index: [] for index in members}
    free: list[Part] = []
    for part in partitions:
        kept.get(previous.get(part, -1), free).append(part)
    each, extra = divmod(len(partitions), len(members))
    quota = {}
    for index in sorted(members, key=lambda index: len(kept[index]) <= each):  # stable: in the order they joined
        quota[index] = each + (extra > 0)
        extra -= extra > 0
    result = {}
    for index, parts in kept.items():
        result.update(dict.fromkeys(parts[: quota[index]], index))
        free += parts[quota[index] :]
    # One to each in turn, so that the partitions of one channel spread over the members.
    hungry = deque((index, quota[index] - len(kept[index])) for index in members if quota[index] > len(kept[index]))
    for part in sorted(free):
        index, room = hungry.popleft()
        result[part] = index
        if room > 1:
            hungry.append((index, room - 1))
    return result


class _Mixed:
    """Sticky for members that subscribe to different channels.

    The counts are as even as they can be exactly when no chain of moves (a partition of a to b, one of b to c, ...)
    leads from a member to one that has at least two less: the classical result on semi-matchings. So after a greedy
    start such chains are looked for until there is none. Only counts by member and channel matter for that; which
    partitions they are is settled when one is moved."""

    def __init__(self, members: Sequence[Member], partitions: Sequence[Part], previous: Mapping[Part, int]) -> None:
        self.subscribers: dict[int, list[int]] = {}
        for member in members:
            for channel in sorted(member.channels):
                self.subscribers.setdefault(channel, []).append(member.index)
        channels = {member.index: member.channels for member in members}
        self.counts = dict.fromkeys(channels, 0)
        self.previous = previous
        # By member and channel; what the member had before stands first, so that strangers are given away first.
        self.held: dict[int, dict[int, list[Part]]] = {index: {} for index in channels}
        free = []
        for part in partitions:
            if part[0] not in self.subscribers:
                continue
            had = previous.get(part, -1)
            if part[0] in channels.get(had, ()):
                self._give(part, had)
            else:
                free.append(part)
        for part in free:
            self._give(part, min(self.subscribers[part[0]], key=self.counts.__getitem__))
        while self._even_out():
            pass

    def result(self) -> dict[Part, int]:
        """Who has what."""
        return {part: index for index, channels in self.held.items() for parts in channels.values() for part in parts}

    def _give(self, part: Part, index: int) -> None:
        parts = self.held[index].setdefault(part[0], [])
        if self.previous.get(part, -1) == index:
            parts.insert(0, part)
        else:
            parts.append(part)
        self.counts[index] += 1

    def _take(self, index: int, channel: int) -> Part:
        self.counts[index] -= 1
        return self.held[index][channel].pop()

    def _even_out(self) -> bool:
        """Move one partition, over a chain, from somebody who has too much to somebody who has too little."""
        for giver in sorted(self.counts, key=self.counts.__getitem__, reverse=True):
            chain = self._chain(giver)
            if chain:
                # From the far end, so that a partition that only passes through is not given on.
                for channel, source, target in reversed(chain):
                    self._give(self._take(source, channel), target)
                return True
        return False

    def _chain(self, giver: int) -> list[tuple[int, int, int]]:
        """The shortest chain of (channel, from, to) to a member with at least two less than `giver`; [] if none."""
        reached: dict[int, tuple[int, int] | None] = {giver: None}
        waiting = deque([giver])
        enough = self.counts[giver] - 2
        seen = set()
        while waiting:
            source = waiting.popleft()
            found = None
            for channel, parts in self.held[source].items():
                if not parts or channel in seen:
                    continue
                seen.add(channel)  # whoever it leads to has been reached from here
                for target in self.subscribers[channel]:
                    if target in reached:
                        continue
                    reached[target] = (channel, source)
                    waiting.append(target)
                    if self.counts[target] <= enough and (found is None or self.counts[target] < self.counts[found]):
                        found = target
            if found is not None:
                chain = []
                step = reached[found]
                while step is not None:
                    chain.append((step[0], step[1], found))
                    found = step[1]
                    step = reached[found]
                return chain[::-1]
        return []


_RULES: dict[str, Callable[[Sequence[Member], Sequence[Part], Mapping[Part, int]], dict[Part, int]]] = {
    "sticky": _sticky,
    "range": _range,
    "round-robin": _round_robin,
}
STRATEGIES = tuple(_RULES)
