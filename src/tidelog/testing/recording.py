"""How do a program's own consumers write a history, without the program being rewritten for it?

Floor 8: may import channel, consumer, message, errors, testing.history, testing.recorder and testing.recording_sends.
Thread rule: a `Receiving` belongs to one thread, as its consumer does.

A `Receiving` does what a consumer does and writes down what came of it; `Sending` is of recording_sends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from inspect import signature
from types import TracebackType
from typing import Any, Self

import numpy as np

from tidelog.channel import Channel
from tidelog.consumer import Assigned, Consumer
from tidelog.errors import Fenced, OffsetOutOfRange, Timeout
from tidelog.message import Message
from tidelog.testing.history import Flag, Kind, Status
from tidelog.testing.recorder import Recorder
from tidelog.testing.recording_sends import HEADER, Identify, Sending, Within, identified

__all__ = ["HEADER", "Identify", "Receiving", "Sending", "Within", "read_to_the_end"]


class Receiving:
    """A consumer that records what it is given, commits, owns and loses.

    Made from the function that makes the consumer, since it has to hear of assignments from the beginning:
    `Receiving(recorder, orders.consumer, delivery="manual")`.
    """

    def __init__(
        self,
        recorder: Recorder,
        make: Callable[..., Consumer[Any]],
        *channels: Channel[Any],
        name: str = "consumer",
        identify: Identify | None = None,
        rebalancing: bool | None = None,
        transacting: bool = False,
        **options: Any,
    ) -> None:
        """`channels`, `options`: of the consumer. `rebalancing`: whether it takes on_assign and on_revoke (None: found
        out). `transacting`: whatever it hands over is handled in transactions, so nothing takes effect twice."""
        self._recorder, self._identify = recorder, identify
        self._mode = str(options.get("delivery", "at-least-once"))
        self._flags = int(Flag.DIRTY) if options.get("isolation") == "read-uncommitted" else 0
        self._txn = 0
        """The transaction that it takes part in."""
        self._owed: dict[tuple[str, int], int] = {}
        """Handed over and not committed: the offset behind it."""
        self._pending: dict[tuple[str, int], tuple[Any, int]] = {}
        """Rows of commits that this call may have made by now."""
        self._handed: dict[tuple[str, int], int] = {}
        self._owned: set[tuple[str, int]] = set()
        self._began = time.monotonic_ns()
        self._client = -1
        self._early: list[Sequence[Assigned]] = []
        if rebalancing is None:
            rebalancing = "on_assign" in signature(make).parameters
        if rebalancing:
            options["on_assign"] = _then(self._assigned, options.get("on_assign"))
            options["on_revoke"] = _then(self._revoked, options.get("on_revoke"))
        self.consumer = make(*channels, **options)
        group = self.consumer.group
        self._client = recorder.client(name, group=group, mode="exactly-once" if transacting else self._mode)
        for parts in self._early:
            self._assigned(parts)
        if not rebalancing:
            self._assigned(self.consumer.assignment)

    # --- ownership ---

    def _assigned(self, parts: Sequence[Assigned]) -> None:
        if self._client < 0:  # while the consumer is being made
            self._early.append(parts)
            return
        position = self.consumer.position
        for channel, partition in parts:
            self._owned.add((channel, partition))
            self._told(Kind.ASSIGN, channel, partition, position.get(Assigned(channel, partition), -1))

    def _revoked(self, parts: Sequence[Assigned]) -> None:
        for channel, partition in parts:
            place = (channel, partition)
            if place in self._owned and self._txn and place in self._owed:  # not in good order: it is owed to that
                self._forget(place)
            elif place in self._owned:  # else it was lost before, and that was told
                self._committed(place)
                self._owned.discard(place)
                self._handed.pop(place, None)
                self._told(Kind.REVOKE, channel, partition)

    def lost(self, *, clean: bool = False) -> None:
        """Everything it owned is gone. `clean`: given back with nothing owed."""
        for channel, partition in sorted(self._owned):
            kind = Kind.REVOKE if clean and (channel, partition) not in self._owed else Kind.LOST
            self._told(kind, channel, partition)
        self._owned.clear()
        self._owed.clear()
        self._handed.clear()

    def _forget(self, place: tuple[str, int]) -> None:
        self._owed.pop(place, None)
        self._handed.pop(place, None)
        self._owned.discard(place)
        self._told(Kind.LOST, *place)

    # --- in a transaction ---

    def join(self, txn: int) -> None:
        """From now on it takes part in the transaction with this number."""
        self._txn = txn

    def hand_in(self, began: int) -> None:
        """The transaction is to be committed now: what is owed goes along."""
        for place, offset in self._owed.items():
            self._told(Kind.COMMIT, *place, offset, begin=began, end=0, txn=self._txn)

    def leave(self, *, committed: bool) -> None:
        """The transaction has ended. Given up: what it had been handed comes again."""
        self._txn = 0
        for place in self._owed:
            if not committed and place in self._owned:
                self._told(Kind.BACK, *place)
            self._handed.pop(place, None)
        self._owed.clear()

    def _told(self, kind: Kind, channel: str, partition: int, offset: int = -1, **more: Any) -> tuple[Any, int]:
        return self._recorder.row(
            kind, self._client, channel=self._recorder.channel(channel), partition=partition, offset=offset, **more
        )

    def _enter(self) -> None:
        """A call begins that commits what is owed before it does anything else. That is written down before, as with
        sends: if the process is killed within, nobody knows."""
        self._began = time.monotonic_ns()
        if self._txn:
            return
        self._pending = {
            place: self._told(Kind.COMMIT, *place, offset, begin=self._began, end=0, status=Status.INFO)
            for place, offset in self._owed.items()
        }

    def _committed(self, place: tuple[str, int], status: Status = Status.OK, flags: int = 0) -> None:
        """What was owed of a partition is committed by now (or refused)."""
        self._owed.pop(place, None)
        row = self._pending.pop(place, None)
        if row is not None:
            self._recorder.complete(row, status, flags=flags)

    # --- receiving ---

    def receive(self, timeout: Any = None) -> Message[Any]:
        """What `consumer.receive` does."""
        self._enter()
        try:
            message = self.consumer.receive(timeout)
        except BaseException as error:
            self._failed(error)
            raise
        self._received([message])
        return message

    def receive_many(self, count: int = 1000, timeout: Any = None) -> Any:
        """What `consumer.receive_many` does."""
        self._enter()
        try:
            batch = self.consumer.receive_many(count, timeout)
        except BaseException as error:
            self._failed(error)
            raise
        self._received(batch)
        return batch

    def __iter__(self) -> Iterator[Message[Any]]:
        return self

    def __next__(self) -> Message[Any]:
        self._enter()
        try:
            message = next(self.consumer)
        except BaseException as error:
            self._failed(error)
            raise
        self._received([message])
        return message

    def _received(self, messages: Iterable[Message[Any]]) -> None:
        if not self._txn:
            for place in list(self._owed):
                self._committed(place)
        ends: dict[tuple[str, int], int] = {}
        found = [(one.channel, one.partition, one.offset, identified(one, self._identify)) for one in messages]
        for channel, partition, offset, _ in found:
            ends[channel, partition] = offset + 1
        if self._txn:
            self._owed.update(ends)
        elif self._mode == "at-most-once":
            for (channel, partition), end in ends.items():
                self._told(Kind.COMMIT, channel, partition, end, begin=self._began)
        elif self._mode == "at-least-once":
            self._owed = dict(ends)
        if not self._txn:
            self._handed.update(ends)
        op = self._recorder.op()
        told = {"begin": self._began, "flags": self._flags, "txn": self._txn}
        for channel, partition, offset, mark in found:
            self._told(Kind.POLL, channel, partition, offset, value=mark, op=op, **told)

    def _failed(self, error: BaseException) -> None:
        """A call that raised may have committed what was owed; a message may have been lost on its way out."""
        if isinstance(error, Fenced):
            for place in [] if self._txn else list(self._owed):
                self._committed(place, Status.FAIL, int(Flag.FENCED))
            self.lost()
        elif isinstance(error, Timeout | StopIteration):  # nothing came, after what was owed had been committed
            self._received(())
        elif isinstance(error, OffsetOutOfRange):  # it goes on at the log start
            for channel, partition in self._owned:
                self._told(Kind.SEEK, channel, partition)

    def commit(self, upto: Any = None, **more: Any) -> None:
        """What `consumer.commit` does."""
        began = time.monotonic_ns()
        ends: dict[tuple[str, int], int] = {}
        if upto is None:
            ends = dict(self._handed if self._mode == "manual" else self._owed)
        else:
            for one in [upto] if isinstance(upto, Message) else upto:
                ends[one.channel, one.partition] = one.offset + 1
        synced = int(Flag.SYNCED) if more.get("level") == "synced" else 0
        rows = {
            place: self._told(Kind.COMMIT, *place, offset, begin=began, end=0, status=Status.INFO, flags=synced)
            for place, offset in ends.items()
        }
        status, fenced = Status.INFO, 0
        try:
            self.consumer.commit(upto, **more)
            status = Status.OK
        except Fenced:
            status, fenced = Status.FAIL, int(Flag.FENCED)
            raise
        finally:
            if status is not Status.INFO:
                for place, row in rows.items():
                    self._recorder.complete(row, status, flags=fenced)
                    if status is Status.OK and self._owed.get(place, ends[place] + 1) <= ends[place]:
                        del self._owed[place]

    def seek(self, to: Any, **more: Any) -> None:
        """What `consumer.seek` does."""
        self.consumer.seek(to, **more)
        for channel, partition in self._owned:
            self._owed.pop((channel, partition), None)
            self._told(Kind.SEEK, channel, partition)

    def close(self) -> None:
        """What `consumer.close` does: nothing is committed."""
        owed, self._owed = self._owed, {}
        if owed:  # given back, but not in good order
            for place in owed:
                if place in self._owned:
                    self._told(Kind.LOST, *place)
                    self._owned.discard(place)
        self.consumer.close()
        self.lost(clean=True)

    def __enter__(self) -> Self:
        self.consumer.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.close()
            self.consumer.__exit__(kind, error, trace)
            return
        self._enter()
        try:
            self.consumer.__exit__(None, None, None)
        except BaseException as failure:
            self._failed(failure)
            self.lost()
            raise
        for place in list(self._owed):
            self._committed(place)
        self.lost(clean=True)


def _then(first: Callable[[Any], None], second: Callable[[Any], None] | None) -> Callable[[Any], None]:
    """Both, one after the other."""

    def call(parts: Any) -> None:
        first(parts)
        if second is not None:
            second(parts)

    return call


def read_to_the_end(recorder: Recorder, channel: Channel[Any], *, identify: Identify | None = None) -> int:
    """Reads everything a channel holds and records that this was all: what `check` holds the acked messages against.
    Answers how many messages there are."""
    client = recorder.client("final")
    number = recorder.channel(channel.name)
    total = 0
    for partition in range(channel.partitions):
        begin = time.monotonic_ns()
        found = [(message.offset, identified(message, identify)) for message in channel.scan(partition=partition)]
        op, end = recorder.op(), time.monotonic_ns()
        told = np.array(found, np.int64).reshape(-1, 2)
        place = {"client": client, "channel": number, "partition": partition, "begin": begin, "end": end, "op": op}
        recorder.rows(Kind.POLL, len(found), offset=told[:, 0], value=told[:, 1], status=int(Status.OK), **place)
        recorder.row(Kind.FINAL, client, begin=begin, end=end, op=op, channel=number, partition=partition)
        total += len(found)
    return total
