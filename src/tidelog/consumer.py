"""How does a group receive messages, and where does it stand?

Floor 6: may import engine.base, message, config, errors, and the compiled reader. Thread rule: a `Consumer` belongs to
one thread at a time (a second one inside raises); only `close` may be called from any thread, and it wakes a blocked
call.

The compiled `Reader` holds leases, positions and the delivery rule; here is what surrounds it: where reading begins and
ends, seeking, and the life of the handle.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from operator import index as _as_int
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, Self, TypeAlias, TypeVar

from tidelog._native import Reader
from tidelog.config import Duration, duration_ms
from tidelog.engine.base import Engine, Opened
from tidelog.errors import Closed, NotSupported, OffsetOutOfRange
from tidelog.message import Batch, Message, epoch_ms

__all__ = ["Assigned", "Consumer", "Delivery", "Isolation", "Start", "Stop", "resolve"]

T = TypeVar("T")

Start: TypeAlias = "Literal['earliest', 'latest'] | datetime | int"
"""Where reading begins: the log start, the log end, the first message at or after a time, or an offset."""
Stop: TypeAlias = "Literal['end'] | datetime | int | None"
"""Where it ends: at the log end as it is now, before a time or an offset, or never."""
Delivery: TypeAlias = Literal["at-least-once", "at-most-once", "manual"]
Isolation: TypeAlias = Literal["read-committed", "read-uncommitted"]

DELIVERIES = ("at-least-once", "at-most-once", "manual")
ISOLATIONS = ("read-committed", "read-uncommitted")


class Assigned(NamedTuple):
    """One partition that a consumer reads."""

    channel: str
    partition: int


class Consumer(Reader, Generic[T]):
    """Receives messages of one or more channels; made by `queue.consumer()`, `topic.consumer(group=...)`,
    `topic.tail()` and `log.consumer(...)`.

    Use it as a context manager and iterate it, or call `receive` and `receive_many`. With at-least-once a message is
    committed when the next one is asked for, or when `with` is left without an exception (`break` too); an exception
    leaves it uncommitted, and it is delivered again.
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
        timeout: Duration | None = None,
    ) -> None:
        """Programs call the methods named above instead.

        `group` None: no group and no committed offsets. `timeout`: how long to wait for another consumer of the group.
        Raises ValueError or TypeError for options out of range, NotSupported for delivery="exactly-once", Locked
        (naming the holder) if the group is held by another live consumer, Closed.
        """
        mode = _mode(group, delivery)
        uncommitted = is_uncommitted(isolation)
        duration_ms(busy_poll, "busy_poll")
        spin = busy_poll.total_seconds() if isinstance(busy_poll, timedelta) else float(busy_poll)
        wait = engine.lock_timeout if timeout is None else duration_ms(timeout, "timeout") / 1000
        if not channels:
            raise ValueError("a consumer reads at least one channel: name it")
        self._engine = engine
        self._group = group
        self._closed = False
        self._pid = os.getpid()
        self._parts = [(opened, number) for opened in channels for number in range(len(opened.partitions))]
        self._assignment = tuple(Assigned(opened.definition.name, number) for opened, number in self._parts)
        self._index = {assigned: index for index, assigned in enumerate(self._assignment)}
        if len(self._index) != len(self._parts):
            raise ValueError("a channel is named twice: a consumer reads each of its channels once")
        check_start(start)
        check_stop(stop)
        engine.attach_reader(self, self._parts, group=group, mode=mode, uncommitted=uncommitted, busy_poll=spin)
        try:
            committed: Sequence[int | None] = [None] * len(self._parts) if group is None else self._claim(wait)
            for index, (opened, number) in enumerate(self._parts):
                offset = committed[index]
                self._seek(index, resolve(opened, number, start) if offset is None else offset)
            if stop is not None:
                self._stop_at([resolve(opened, number, stop) for opened, number in self._parts])
            engine.adopt(self)
        except BaseException:
            self._cancel()
            self._release()
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
        """The partitions this consumer reads: all of its channels'."""
        return self._assignment

    @property
    def position(self) -> dict[Assigned, int]:
        """The offset that is delivered next, by partition."""
        return {assigned: self._position(index) for index, assigned in enumerate(self._assignment)}

    @property
    def committed(self) -> dict[Assigned, int | None]:
        """The group's committed offset, by partition; None where there is none."""
        if self._group is None:
            return dict.fromkeys(self._assignment)
        return {assigned: self._committed(index) for index, assigned in enumerate(self._assignment)}

    @property
    def lag(self) -> int:
        """Messages from the positions to the ends of the log, all partitions together; 0: everything was delivered."""
        return sum(self._count(index, self._position(index)) for index in range(len(self._parts)))

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
        that is not assigned, TypeError for anything else.
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
            self._seek(index, resolve(opened, number, to))

    def pause(self, partition: int | None = None, *, channel: str | None = None) -> None:
        """Deliver nothing from this partition (None: from all) until `resume`; leases and positions stay."""
        self._open()
        for index in self._selected(channel, partition):
            self._pause(index, True)

    def resume(self, partition: int | None = None, *, channel: str | None = None) -> None:
        """Undo `pause`."""
        self._open()
        for index in self._selected(channel, partition):
            self._pause(index, False)

    def close(self) -> None:
        """Give the partitions back; idempotent, and a call of another thread that is blocked raises Closed.

        Commits nothing: leaving `with` does, or `commit`.
        """
        if self._closed:
            return
        self._closed = True
        self._engine.forget(self)
        if os.getpid() != self._pid:  # a forked child: the leases are its parent's
            return
        self._cancel()
        self._release()

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
                self._settle()
        finally:
            self.close()

    def __repr__(self) -> str:
        channels = ", ".join(dict.fromkeys(assigned.channel for assigned in self._assignment))
        state = " closed" if self._closed else ""
        return f"<Consumer of {channels} group={self._group!r}{state}>"

    def _open(self) -> None:
        if self._closed:
            raise Closed("the consumer was closed: make a new one with channel.consumer()")

    def _one(self, channel: str | None, partition: int) -> int:
        """The index of one partition; without a channel the consumer must have only one."""
        if channel is None:
            names = {assigned.channel for assigned in self._assignment}
            if len(names) > 1:
                raise ValueError(f"partition {partition} of which channel? Give channel=: {', '.join(sorted(names))}")
            channel = next(iter(names))
        try:
            return self._index[Assigned(channel, partition)]
        except (KeyError, TypeError):
            raise ValueError(
                f"partition {partition!r} of {channel!r} is not assigned to this consumer: see `assignment`"
            ) from None

    def _selected(self, channel: str | None, partition: int | None) -> list[int]:
        if partition is not None:
            return [self._one(channel, partition)]
        found = [i for i, assigned in enumerate(self._assignment) if channel in (None, assigned.channel)]
        if not found:
            raise ValueError(f"the channel {channel!r} is not assigned to this consumer: see `assignment`")
        return found

    def _seek_checked(self, index: int, offset: int) -> None:
        start, end = self._bounds(index)
        offset = _offset(offset, "offset")
        if not start <= offset <= end:
            name, number = self._assignment[index]
            raise OffsetOutOfRange(
                f"offset {offset} is outside {start} .. {end} of {name}-{number}: seek to an offset in between, "
                f"or to 'earliest' or 'latest'"
            )
        self._seek(index, offset)


def resolve(opened: Opened, number: int, where: Start | Literal["end"]) -> int:
    """The offset that `where` means in a partition; offsets are taken as they are.

    Raises TypeError or ValueError for what is no place.
    """
    partition = opened.partitions[number]
    if isinstance(where, datetime):
        import numpy as np

        found = partition.find(np.array([epoch_ms(where)], dtype=np.int64), opened.decompress)
        return int(found[0])
    if where == "earliest":
        return partition.bounds()[0]
    if where in ("latest", "end"):
        return partition.bounds()[1]
    return _offset(where, "start")


def is_uncommitted(isolation: str) -> bool:
    """Whether open and aborted transactions are read too. Raises ValueError for an unknown isolation."""
    if isolation not in ISOLATIONS:
        raise ValueError(f"isolation={isolation!r} does not exist: use one of {', '.join(ISOLATIONS)}")
    return isolation == "read-uncommitted"


def _mode(group: str | None, delivery: str) -> str:
    if delivery == "exactly-once":
        raise NotSupported(
            "delivery='exactly-once' cannot be had from a consumer alone, which does not know when your work is done. "
            "Keep the offset in your own database in the same transaction as the result, and seek to it at the start "
            "(delivery='manual')"
        )
    if group is not None and (not isinstance(group, str) or not group):
        raise ValueError(f"group={group!r} is no name of a group: give a str that is not empty")
    if delivery not in DELIVERIES:
        raise ValueError(f"delivery={delivery!r} does not exist: use one of {', '.join(DELIVERIES)}")
    return "none" if group is None else delivery


def check_start(start: object) -> None:
    """Raise TypeError or ValueError unless `start` is a place where reading can begin."""
    if not isinstance(start, datetime) and start not in ("earliest", "latest"):
        _offset(start, "start", "'earliest', 'latest', a datetime or an offset")


def check_stop(stop: object) -> None:
    """Raise TypeError or ValueError unless `stop` is a place where reading can end, or None."""
    if stop is not None and not isinstance(stop, datetime) and stop != "end":
        _offset(stop, "stop", "'end', a datetime, an offset or None")


def _offset(value: Any, what: str, allowed: str = "an offset") -> int:
    """`value` as an offset (numpy's integers too)."""
    if isinstance(value, str):
        raise ValueError(f"{what}={value!r} is no place: use {allowed}")
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{what}={value!r} is no place: use {allowed}, not {type(value).__name__}")
    number = _as_int(value)
    if not 0 <= number < 1 << 63:
        raise ValueError(f"{what}={number} is no offset: offsets are 0 or larger")
    return number
