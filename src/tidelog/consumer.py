"""How does a group receive messages, and where does it stand?

Floor 6: may import share, places, engine.base, message, config, errors. Thread rule: a `Consumer` belongs to one thread
at a time (a second one inside raises); only `close` may be called from any thread, and it wakes a blocked call.

The compiled `Reader` holds leases, positions and the delivery rule, `Share` knows which partitions there are to read
now; here is what a program sees: where it stands, seeking, and the life of the handle.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeAlias, TypeVar

from tidelog.config import Duration, duration_ms
from tidelog.engine.base import Engine, Opened
from tidelog.errors import Closed, NotSupported, OffsetOutOfRange
from tidelog.message import Batch, Message
from tidelog.places import Start, Stop, check_offset, check_start, check_stop, resolve
from tidelog.share import Assigned, OnChange, Share

__all__ = ["Assigned", "Consumer", "Delivery", "Isolation", "Start", "Stop", "Strategy", "resolve"]

T = TypeVar("T")

Delivery: TypeAlias = Literal["at-least-once", "at-most-once", "manual"]
Isolation: TypeAlias = Literal["read-committed", "read-uncommitted"]
Strategy: TypeAlias = Literal["sticky", "range", "round-robin"]

DELIVERIES = ("at-least-once", "at-most-once", "manual")
MEMBER_SECONDS = 10.0
"""How long the partitions of a named member wait for it, where it does not say."""
ISOLATIONS = ("read-committed", "read-uncommitted")


class Consumer(Share, Generic[T]):
    """Receives messages of one or more channels; made by `queue.consumer()`, `topic.consumer(group=...)`,
    `topic.tail()` and `log.consumer(...)`.

    Use it as a context manager and iterate it, or call `receive` and `receive_many`. With at-least-once a message is
    committed when the next one is asked for, or when `with` is left without an exception (`break` too); an exception
    leaves it uncommitted, and it is delivered again.

    The consumers of a group, in one process or in many, share its partitions: each has some of its own. Partitions move
    while a message is asked for, never while one is handled: what was handled is committed, then they are given back,
    then another consumer takes them. A consumer that has none at the moment waits. One whose process dies is replaced
    at once, and what it had not committed is delivered again.

    A consumer with `stop` ends when every partition that it has was read up to there and no other is on its way to it.
    """

    def __init__(
        self,
        engine: Engine,
        channels: Sequence[Opened],
        *,
        group: str | None,
        start: Start = "earliest",
        stop: Stop = None,
        delivery: str = "at-least-once",
        isolation: str = "read-committed",
        busy_poll: Duration = 0.0,
        strategy: str = "sticky",
        member: str | None = None,
        member_timeout: Duration | None = None,
        max_processing: Duration | None = None,
        on_assign: OnChange | None = None,
        on_revoke: OnChange | None = None,
    ) -> None:
        """Programs call the methods named above instead.

        `group` None: no group and no committed offsets. Raises ValueError or TypeError for options out of range,
        NotSupported for delivery="exactly-once", Full, Closed.
        """
        mode = self._delivery = _mode(group, delivery)
        uncommitted = is_uncommitted(isolation)
        spin = duration_ms(busy_poll, "busy_poll") and _seconds(busy_poll)
        if member_timeout is not None and member is None:
            raise ValueError("member_timeout= is for a consumer with a name: give member= too, or leave it out")
        away = duration_ms(MEMBER_SECONDS if member_timeout is None else member_timeout, "member_timeout") / 1000
        limit = None if max_processing is None else duration_ms(max_processing, "max_processing", least_ms=1) / 1000
        check_start(start)
        check_stop(stop)
        _check_member(member, on_assign=on_assign, on_revoke=on_revoke)
        self._closed = False
        self._pid = os.getpid()
        remembered = start == "latest" and delivery != "manual"
        super().__init__(engine, channels, group, start, stop, remembered, uncommitted, on_assign, on_revoke)
        engine.attach_reader(self, self._parts, group=group, mode=mode, uncommitted=uncommitted, busy_poll=spin)
        try:
            self._enter_group(
                None
                if group is None
                else engine.join(
                    group,
                    self._parts,
                    member=member,
                    strategy=strategy,
                    member_timeout=away,
                    max_processing=limit,
                )
            )
            engine.adopt(self)
        except BaseException:
            self._cancel()
            self._depart()
            raise

    if TYPE_CHECKING:

        def __iter__(self) -> Iterator[Message[T]]:
            """The messages, one after the other; waits for new ones unless `stop` was given."""

        def __next__(self) -> Message[T]:
            """The next message."""

        def receive(self, timeout: Duration | None = None) -> Message[T]:
            """The next message; waits `timeout` seconds (None: for ever), then raises Timeout."""

        def receive_many(self, count: int = 1000, timeout: Duration | None = None) -> Batch[T]:
            """Up to `count` messages that are there; waits for the first, and is empty when `timeout` seconds
            passed."""

    @property
    def group(self) -> str | None:
        """The group's name; None for a tail."""
        return self._group

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    @property
    def assignment(self) -> tuple[Assigned, ...]:
        """The partitions that this consumer has now. It changes only within calls that receive."""
        return tuple(self._names[index] for index in sorted(self._held))

    @property
    def member(self) -> str | None:
        """Its name in the group, given or made up; None for a tail."""
        return None if self._membership is None else self._membership.member

    @property
    def generation(self) -> int | None:
        """Counts the assignments of the group: another number whenever consumers have come or gone; None for a tail."""
        return None if self._membership is None else self._membership.generation

    @property
    def position(self) -> dict[Assigned, int]:
        """The offset that is delivered next, by partition of `assignment`."""
        return {self._names[index]: self._position(index) for index in sorted(self._held)}

    @property
    def committed(self) -> dict[Assigned, int | None]:
        """The group's committed offset, by partition of `assignment`; None where there is none."""
        if self._group is None:
            return dict.fromkeys(self.assignment)
        return {self._names[index]: self._committed(index) for index in sorted(self._held)}

    @property
    def lag(self) -> int:
        """Messages from the positions to the ends of what may be delivered now, all partitions of `assignment`
        together; 0: everything was delivered. A read-committed consumer does not count messages of a transaction that
        is open or was aborted; a read-uncommitted one does, since it is given those too."""
        return sum(self._count(index, self._position(index)) for index in self._held)

    def seek(
        self,
        to: Message[Any] | tuple[int, int] | Start,
        *,
        channel: str | None = None,
        partition: int | None = None,
    ) -> None:
        """Deliver next: this very message; (partition, offset); in every partition the first message at or after a
        time; "earliest" or "latest". An offset alone needs `partition=`. `channel=`, `partition=`: only there.

        Commits nothing by itself. Raises OffsetOutOfRange for an offset outside the log, ValueError for a partition
        that is not assigned now, TypeError for anything else.
        """
        self._open()
        if isinstance(to, Message):
            self._seek_checked(self._one(to.channel, to.partition), to.offset)
            return
        if isinstance(to, tuple):
            if len(to) != 2:
                raise TypeError("seek to a message, (partition, offset), a datetime, 'earliest' or 'latest'")
            self._seek_checked(self._one(channel, to[0]), to[1])
            return
        check_start(to)
        if not isinstance(to, str | datetime):
            if partition is None and len(self._parts) > 1:
                raise ValueError(f"offset {to} of which partition? Write seek((0, {to})), or give partition=")
            self._seek_checked(self._one(channel, 0 if partition is None else partition), to)
            return
        for index in self._selected(channel, partition):
            opened, number = self._parts[index]
            self._seek(index, resolve(opened, number, to, uncommitted=self._uncommitted))

    def pause(self, partition: int | None = None, *, channel: str | None = None) -> None:
        """Deliver nothing from this partition (None: from all that are assigned now) until `resume`; leases and
        positions stay. A partition that is given back and comes again is not paused any more."""
        self._open()
        for index in self._selected(channel, partition):
            self._pause(index, True)

    def resume(self, partition: int | None = None, *, channel: str | None = None) -> None:
        """Undo `pause`."""
        self._open()
        for index in self._selected(channel, partition):
            self._pause(index, False)

    def close(self) -> None:
        """Give the partitions back and leave the group, so that others go on at once; idempotent. A call of another
        thread that is blocked raises Closed. The partitions of a consumer with a name (`member=`) wait for it to come
        back for `member_timeout`.

        Commits nothing and calls nothing: leaving `with` does, or `commit`.
        """
        if self._closed:
            return
        self._closed = True
        self._engine.forget(self)
        if os.getpid() != self._pid:  # a forked child: the leases are its parent's
            return
        self._cancel()
        self._depart()

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if os.getpid() != self._pid:
            self._closed = True
            return
        try:
            if kind is None and not self._closed:
                self._finish()
        finally:
            self.close()

    def __repr__(self) -> str:
        channels = ", ".join(opened.definition.name for opened in self._channels)
        state = " closed" if self._closed else ""
        return f"<Consumer of {channels} group={self._group!r}{state}>"

    def _open(self) -> None:
        if self._closed:
            raise Closed("the consumer was closed: make a new one with channel.consumer()")

    def _one(self, channel: str | None, partition: int) -> int:
        """The index of one partition; without a channel the consumer must have only one."""
        if channel is None:
            names = {opened.definition.name for opened in self._channels}
            if len(names) > 1:
                raise ValueError(f"partition {partition} of which channel? Give channel=: {', '.join(sorted(names))}")
            channel = next(iter(names))
        try:
            index = self._index[Assigned(channel, partition)]
        except (KeyError, TypeError):
            index = -1
        if index not in self._held:
            raise ValueError(
                f"partition {partition!r} of {channel!r} is not assigned to this consumer: see `assignment`"
            )
        return index

    def _selected(self, channel: str | None, partition: int | None) -> list[int]:
        if partition is not None:
            return [self._one(channel, partition)]
        if channel is not None and channel not in {opened.definition.name for opened in self._channels}:
            raise ValueError(f"the channel {channel!r} is not read by this consumer: see `assignment`")
        return [index for index in sorted(self._held) if channel in (None, self._names[index].channel)]

    def _seek_checked(self, index: int, offset: int) -> None:
        start, end = self._bounds(index)
        offset = check_offset(offset, "offset")
        if not start <= offset <= end:
            name, number = self._names[index]
            raise OffsetOutOfRange(
                f"offset {offset} is outside {start} .. {end} of {name}-{number}: seek to an offset in between, "
                f"or to 'earliest' or 'latest'"
            )
        self._seek(index, offset)


def is_uncommitted(isolation: str) -> bool:
    """Whether open and aborted transactions are read too. Raises ValueError for an unknown isolation."""
    if isolation not in ISOLATIONS:
        raise ValueError(f"isolation={isolation!r} does not exist: use one of {', '.join(ISOLATIONS)}")
    return isolation == "read-uncommitted"


def _seconds(value: Duration) -> float:
    return value.total_seconds() if isinstance(value, timedelta) else float(value)


def _check_member(member: object, **callbacks: object) -> None:
    if member is not None and (not isinstance(member, str) or not member):
        raise ValueError(f"member={member!r} is no name of a member: give a str that is not empty, or None")
    for name, function in callbacks.items():
        if function is not None and not callable(function):
            raise TypeError(f"{name} is a function of the list of partitions, not {type(function).__name__}")


def check_group(group: object) -> None:
    """Raise TypeError or ValueError unless it is the name of a group."""
    if group is None:
        raise TypeError("group=None is no name of a group: give one, or use tail() to read a topic without a group")
    if not isinstance(group, str) or not group:
        raise ValueError(f"group={group!r} is no name of a group: give a str that is not empty")


def check_channels(channels: Sequence[Any], group: object) -> None:
    """Raise TypeError or ValueError unless these are channels that may be read as `group`."""
    check_group(group)
    for channel in channels:
        if not hasattr(channel, "opened"):
            raise TypeError(f"{channel!r} is no channel: give one that log.queue() or log.topic() made")
        if channel.kind == "queue" and group != channel.name:
            raise ValueError(
                f"{channel.name!r} is a queue, whose only group is {channel.name!r}, not {group!r}: use "
                f"log.consumer(..., group={channel.name!r}), or a topic"
            )


def _mode(group: str | None, delivery: str) -> str:
    if delivery == "exactly-once":
        raise NotSupported(
            "delivery='exactly-once' cannot be had from a consumer alone, which does not know when your work is done. "
            "What you send and what it delivers are one decision in log.transaction(producer, consumer); or keep the "
            "offset in your own database in the same transaction as the result, and seek to it at the start "
            "(delivery='manual')"
        )
    if group is not None:
        check_group(group)
    if delivery not in DELIVERIES:
        raise ValueError(f"delivery={delivery!r} does not exist: use one of {', '.join(DELIVERIES)}")
    return "none" if group is None else delivery
