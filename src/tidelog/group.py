"""Which consumer groups does a log have, how far behind are they, and how is one reset or deleted?

Floor 7: may import channel, consumer, engine.base, codec, config, errors, and the compiled reader. Thread rule:
everything may be called from any thread, and of any process that has the log open; nothing here joins a group.

A `Group` is what was seen at one moment; ask `log.groups[name]` again for the next. Lag is counted in messages, not in
offsets, which have gaps. Its time is the age of the oldest message that the group has not committed, by the timestamp
that message bears.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from tidelog._native import Reader
from tidelog.codec import codec_for
from tidelog.consumer import Assigned, resolve
from tidelog.engine.base import Committed, Engine, Membered, Opened
from tidelog.errors import ChannelNotFound, Corrupt, DecodeError, Locked, NotSupported, OffsetOutOfRange

if TYPE_CHECKING:
    from tidelog.storage.definitions import Definition

__all__ = ["Group", "GroupOffset", "Groups", "Member", "Reset", "Shift", "State", "Where"]

State: TypeAlias = Literal["empty", "stable", "rebalancing"]
"""No member; every partition has its member; members came or went, and partitions are still changing hands."""


@dataclass(frozen=True, slots=True)
class Shift:
    """A place for `Groups.reset`: so many messages on from the committed offset (negative: back). It ends at the log
    start and at the log end; where nothing was committed it begins at the log start."""

    messages: int


Where: TypeAlias = "Literal['earliest', 'latest'] | datetime | timedelta | int | Shift"
"""Where a reset goes: log start, log end, a time, so long ago, an offset, or so many messages on or back."""


class Member(NamedTuple):
    """One member of a group: one consumer."""

    id: int
    """Unique in the store until the machine starts again."""
    name: str | None
    """The name of a static member; None: a dynamic one."""
    pid: int
    """Process it runs in."""
    away: bool
    """A static member that is gone for the moment: its partitions wait for it."""
    channels: tuple[str, ...]
    """What it reads."""
    partitions: tuple[Assigned, ...]
    """What it is to have, by the group's last assignment."""


class GroupOffset(NamedTuple):
    """How far a group has come in one partition."""

    channel: str
    partition: int
    committed: int | None
    """The next message of the group; None: nothing was committed yet."""
    log_start: int
    log_end: int
    lag: int
    """Messages between the group and the last stable offset, without those of aborted transactions, whatever isolation
    its members read with; all of them where nothing was committed."""
    lag_seconds: float | None
    """Age of the oldest message that is not committed; 0.0 without lag, None if that message cannot be read."""
    member: int | None
    """`Member.id` of whom it belongs to, None: nobody."""
    committed_at: datetime | None
    """When the offset was committed."""
    owner_pid: int
    """Process that holds the partition now; 0: none."""


@dataclass(frozen=True, slots=True)
class Group:
    """A consumer group, as it was when it was looked at."""

    name: str
    state: State
    members: tuple[Member, ...]
    """In the order in which they joined."""
    offsets: tuple[GroupOffset, ...]
    """By channel and partition."""
    lag: int = field(init=False)
    """Messages, all partitions together."""
    lag_seconds: float = field(init=False)
    """The largest of the partitions."""

    def __post_init__(self) -> None:
        """Add up."""
        object.__setattr__(self, "lag", sum(row.lag for row in self.offsets))
        object.__setattr__(self, "lag_seconds", max((row.lag_seconds or 0.0 for row in self.offsets), default=0.0))


class Reset(NamedTuple):
    """One partition of a reset: the committed offset before (None: there was none) and after it."""

    channel: str
    partition: int
    before: int | None
    after: int


class Groups(Mapping[str, Group]):
    """The consumer groups of a log, by name: `log.groups`. A group exists from its first consumer until it is deleted;
    one that has committed nothing is forgotten when the last process closes the log.

    It has every partition of the channels that it reads, also those that none of its consumers has had yet.
    Raises ChannelNotFound for a group that does not exist.
    """

    def __init__(self, engine: Engine) -> None:
        """Programs use `log.groups` instead."""
        self._engine = engine

    # --- looking ---

    def __getitem__(self, name: str) -> Group:
        """The group as it is now. Raises ChannelNotFound, Closed."""
        known = isinstance(name, str) and bool(name)
        rows = self._engine.committed(name) if known else []
        members = self._engine.members(name) if known else Membered.none()
        if not rows and not members.members:
            raise ChannelNotFound(f"there is no group {name!r}: list what exists with `list(log.groups)`")
        return self._group(name, rows, members, _Channels(self._engine))

    def get(self, name: str, default: Any = None) -> Any:
        """`groups[name]`, or `default` if there is no such group."""
        try:
            return self[name]
        except ChannelNotFound:
            return default

    def __contains__(self, name: object) -> bool:
        return name in self._names()

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def describe(self) -> list[Group]:
        """Every group, by name, in one pass over the table of offsets."""
        rows: dict[str, list[Committed]] = {name: [] for name in self._names()}
        for row in self._engine.committed():
            rows.setdefault(row.group, []).append(row)
        channels = _Channels(self._engine)
        return [self._group(name, rows[name], self._engine.members(name), channels) for name in sorted(rows)]

    def __repr__(self) -> str:
        return f"<Groups of {self._engine.name}>"

    # --- changing ---

    def reset(
        self,
        group: str,
        to: Where,
        *,
        channel: str | None = None,
        partition: int | None = None,
        dry_run: bool = False,
    ) -> list[Reset]:
        """Store other offsets for a group that has no members; they are on disk when this returns.

        `to`: "earliest" or "latest"; a datetime (the first message at or after it); a timedelta (so long ago); an
        offset, which needs `partition=` where there are several; `Shift(n)`, so many messages on or back. `channel`,
        `partition`: only there; otherwise every partition of every channel the group has read. With `channel` the group
        may be one that has read nothing yet. `dry_run`: say what would be done, and do nothing.

        Raises Locked while the group has members, ChannelNotFound for a group or channel that does not exist,
        ValueError or TypeError for arguments out of range, OffsetOutOfRange for an offset outside the log.
        """
        wanted = _where(to)
        if not isinstance(group, str) or not group:
            raise ValueError(f"{group!r} is no name of a group: give a str that is not empty")
        known = {(row.channel, row.partition): row for row in self._engine.committed(group)}
        channels = _Channels(self._engine)
        parts = self._selected(group, known, channels, channel, partition)
        if isinstance(wanted, int) and len(parts) > 1:
            raise ValueError(f"offset {wanted} of which partition? Every partition counts its own: give partition=")
        self._free(group, known.values())
        moves = []
        for name, number in parts:
            row = known.get((name, number))
            before = None if row is None or row.offset < 0 else row.offset
            moves.append(Reset(name, number, before, _target(channels.opened(name), number, before, wanted)))
        if not dry_run:
            self._engine.reset(group, [(move.channel, move.partition, move.after) for move in moves])
            self._free(group, self._engine.committed(group), "joined while it was reset: its own commits may win")
        return moves

    def delete(self, name: str) -> None:
        """Remove a group with its committed offsets. Raises ChannelNotFound, Locked while it has members."""
        if name not in self._names():
            raise ChannelNotFound(f"there is no group {name!r}: list what exists with `list(log.groups)`")
        self._free(name, self._engine.committed(name))
        self._engine.forget_group(name)

    # --- inside ---

    def _names(self) -> list[str]:
        return self._engine.groups()

    def _group(self, name: str, rows: Sequence[Committed], membered: Membered, channels: _Channels) -> Group:
        ids = {one.row: one.id for one in membered.members}
        targets: dict[int, list[Assigned]] = {}
        offsets = []
        for row in rows:
            member = membered.targets.get((row.channel, row.partition), -1)
            if member in ids:
                targets.setdefault(member, []).append(Assigned(row.channel, row.partition))
            offsets.append(
                GroupOffset(
                    row.channel,
                    row.partition,
                    row.offset if row.offset >= 0 else None,
                    row.log_start,
                    row.log_end,
                    row.lag,
                    channels.age(row) if row.lag else 0.0,
                    ids.get(member),
                    row.committed_at,
                    row.owner_pid,
                )
            )
        members = tuple(
            Member(one.id, one.name, one.pid, one.away, one.channels, tuple(targets.get(one.row, ())))
            for one in membered.members
        )
        return Group(name, _state(membered, rows), members, tuple(offsets))

    def _selected(
        self,
        group: str,
        known: Mapping[tuple[str, int], Committed],
        channels: _Channels,
        channel: str | None,
        partition: int | None,
    ) -> list[tuple[str, int]]:
        """The partitions that a reset is about, in order."""
        if channel is None:
            names = sorted({name for name, _ in known})
            if not names:
                raise ChannelNotFound(
                    f"the group {group!r} has read nothing yet: give channel=, or see `list(log.groups)`"
                )
        else:
            names = [channel]
        parts = [(name, number) for name in names for number in range(len(channels.definition(name).partitions))]
        for name in names:
            if channels.definition(name).kind == "queue" and group != name:
                raise ValueError(f"{name!r} is a queue, whose only group is {name!r}, not {group!r}")
        if partition is None:
            return parts
        if isinstance(partition, bool) or not isinstance(partition, int):
            raise TypeError(f"a partition is an int, not {type(partition).__name__}")
        if len(names) > 1:
            raise ValueError(f"partition {partition} of which channel? Give channel=: {', '.join(names)}")
        if (names[0], partition) not in parts:
            raise ValueError(f"{names[0]!r} has no partition {partition}: it has 0 to {len(parts) - 1}")
        return [(names[0], partition)]

    def _free(self, group: str, rows: Any, how: str = "") -> None:
        """Raise Locked if the group has members, those that are away too, or somebody holds one of its partitions."""
        members = self._engine.members(group).members
        held = [str(one.pid) for one in members if not one.away]
        held += [str(row.owner_pid) for row in rows if row.owner_pid]
        away = sorted(repr(one.name) for one in members if one.away)
        if away and not held:
            raise Locked(
                f"{', '.join(away)} of the group {group!r} {'are' if len(away) > 1 else 'is'} away, and may come back "
                f"with what was read so far: try again when member_timeout has passed since it was closed or died",
                holder=f"member {', '.join(away)}",
            )
        if held:
            holder = f"process {', '.join(sorted(set(held), key=int))}"
            what = f"a consumer of {group!r} {how}" if how else f"the group {group!r} has live members"
            raise Locked(f"{what} ({holder}): close its consumers, then try again", holder=holder)


class _Channels:
    """Handles on the channels of a log, opened when they are first asked for; for one call."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._codec = codec_for(None)  # bytes as they are: keys and values are never looked at
        self._known: dict[str, Opened] = {}
        self._now = datetime.now(UTC)

    def definition(self, name: str) -> Definition:
        return self.opened(name).definition

    def opened(self, name: str) -> Opened:
        if name not in self._known:
            self._known[name] = self._engine.open(self._engine.definition(name), self._codec)
        return self._known[name]

    def age(self, row: Committed) -> float | None:
        """Seconds since the timestamp of the oldest message that is not committed; 0.0 if retention took it meanwhile.

        None: it cannot be read (damage, or compressed by a package that is missing here).
        """
        try:
            reader = Reader()
            opened = self.opened(row.channel)
            start, end = opened.partitions[row.partition].bounds()
            self._engine.attach_reader(reader, [(opened, row.partition)])
            reader._seek(0, max(row.offset, start))
            reader._stop_at([end])
            found = reader.receive_many(1, timeout=0)
            if not len(found):
                return 0.0
            return max((self._now - found[0].timestamp).total_seconds(), 0.0)
        except (Corrupt, DecodeError, NotSupported):
            return None
        except (ChannelNotFound, OffsetOutOfRange):
            return 0.0


def _state(membered: Membered, rows: Sequence[Committed]) -> State:
    if not membered.members:
        return "stable" if any(row.owner_pid for row in rows) else "empty"
    return "stable" if membered.version == membered.assigned else "rebalancing"


def _where(to: Any) -> Where:
    """`to`, checked; numpy's integers become int."""
    if isinstance(to, datetime | timedelta | Shift) or to in ("earliest", "latest"):
        if isinstance(to, datetime) and to.tzinfo is None:
            raise ValueError(f"the time {to!r} has no time zone: use datetime.now(timezone.utc)")
        if isinstance(to, Shift) and (isinstance(to.messages, bool) or not isinstance(to.messages, int)):
            raise TypeError(f"Shift takes a number of messages, not {to.messages!r}")
        return to  # type: ignore[no-any-return]
    allowed = "'earliest', 'latest', a datetime, a timedelta, an offset or Shift(n)"
    if isinstance(to, str):
        raise ValueError(f"to={to!r} is no place: use {allowed}")
    if isinstance(to, bool) or not hasattr(to, "__index__"):
        raise TypeError(f"to={to!r} is no place: use {allowed}")
    return int(to.__index__())


def _target(opened: Opened, number: int, before: int | None, to: Where) -> int:
    """The offset that a reset of one partition stores."""
    partition = opened.partitions[number]
    if isinstance(to, timedelta):
        return resolve(opened, number, datetime.now(UTC) - to)
    start, end = partition.bounds()
    if isinstance(to, Shift):
        return shifted(partition.count_from, start, end, max(start if before is None else before, start), to.messages)
    if isinstance(to, int) and not start <= to <= end:
        raise OffsetOutOfRange(
            f"offset {to} is outside {start} .. {end} of {opened.definition.name}-{number}: reset to an offset in "
            f"between, or to 'earliest' or 'latest'"
        )
    return resolve(opened, number, to)


def shifted(count_from: Any, start: int, end: int, at: int, messages: int) -> int:
    """The offset `messages` messages on from `at` (negative: back), between `start` and `end`.

    `count_from(offset)`: how many messages stand from there to the log end. Where offsets are dense that is a sum; a
    gap (of 2^30 after a power cut) is found out by its count, and then the place by halving.
    """
    left = count_from(at)
    wanted = min(max(left - messages, 0), count_from(start))
    if wanted == 0:
        return end
    guess = min(max(at + messages, start), end)
    if count_from(guess) == wanted:
        return guess
    low, high = start, end  # the largest offset with at least `wanted` behind it: that message itself
    while high - low > 1:
        middle = (low + high) // 2
        if count_from(middle) >= wanted:
            low = middle
        else:
            high = middle
    return low
