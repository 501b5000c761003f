"""How do a program's own channels and consumers write a history, without the program being rewritten for it?

Floor 8: may import channel, consumer, message, errors, testing.history and testing.recorder. Thread rule: a `Sending`
may be used by any thread (each gets a client of its own), a `Receiving` belongs to one thread, as its consumer does.

`Sending` and `Receiving` do what a channel and a consumer do and write down what came of it. A message is recognised by
the header `history-id`, which sending adds; with `identify`, by what that function makes of its value.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from inspect import signature
from itertools import count
from types import TracebackType
from typing import Any, Self

import numpy as np

from tidelog.channel import Channel
from tidelog.consumer import Assigned, Consumer
from tidelog.errors import Closed, Fenced, Forked, Locked, NoSpace, OffsetOutOfRange, SchemaMismatch, Timeout, TooLarge
from tidelog.message import Headers, Message
from tidelog.partitioner import key_bytes
from tidelog.testing.history import Flag, Kind, Status, token
from tidelog.testing.recorder import Recorder, Written

__all__ = ["HEADER", "Identify", "Receiving", "Sending", "read_to_the_end"]

HEADER = "history-id"
Identify = Callable[[Any], int]
"""A number for a value, the same at both ends; `None` in its place: the header."""

NOT_SENT = (Closed, Fenced, Forked, Locked, NoSpace, SchemaMismatch, TooLarge)
"""Errors after which a single written message is certainly not in the log."""


def _identified(message: Message[Any], identify: Identify | None) -> int:
    if identify is not None:
        return identify(message.value)
    data = message.headers.get(HEADER)
    return token(message.raw) if data is None else int.from_bytes(data, "big")


class Sending:
    """Sends to a channel and records it; made once for each channel, or channel and producer."""

    def __init__(
        self,
        recorder: Recorder,
        channel: Channel[Any],
        *,
        producer: Any = None,
        name: str | None = None,
        identify: Identify | None = None,
        synced: bool = False,
        idempotent: bool = True,
    ) -> None:
        """`producer`: send through it. `synced`: its acks say that the message is on disk. `idempotent`: a value that
        was sent once may be there once only."""
        self._recorder, self._channel, self._producer = recorder, channel, producer
        self._name = channel.name if name is None else name
        self._identify = identify
        self._number = recorder.channel(channel.name)
        self._flags = (Flag.SYNCED if synced else Flag(0)) | (Flag.IDEMPOTENT if idempotent else Flag(0))
        self._mine = threading.local()
        self._clients = count(1)
        self._waiting: list[tuple[Any, tuple[Any, int]]] = []

    def send(
        self, value: Any, *, key: Any = None, headers: Any = None, partition: int | None = None, **more: Any
    ) -> Any:
        """What `channel.send` does, and answers its receipt."""
        client, number = self._client()
        if self._identify is not None:
            mark = self._identify(value)
        else:
            mark, headers = number(), _marked(headers)
            headers[HEADER] = mark.to_bytes(8, "big")
        flags = int(self._flags | (Flag(0) if partition is None else Flag.EXPLICIT))
        place = self._recorder.row(
            Kind.SEND,
            client,
            end=0,
            value=mark,
            key=token(key_bytes(key)),
            channel=self._number,
            partition=-1 if partition is None else partition,
            status=Status.INFO,
            flags=flags,
        )
        options = dict(key=key, headers=headers, partition=partition, **more)
        try:
            if self._producer is None:
                receipt = self._channel.send(value, **options)
            else:
                receipt = self._producer.send(self._channel, value, **options)
        except NOT_SENT as error:
            if not self._flags & Flag.SYNCED:
                fenced = Flag.FENCED if isinstance(error, Fenced) else Flag(0)
                self._recorder.complete(place, Status.FAIL, flags=int(fenced))
            raise
        if receipt.done:
            self._recorder.complete(place, Status.OK, offset=receipt.offset, partition=receipt.partition)
        else:
            self._waiting.append((receipt, place))
        return receipt

    def send_many(
        self, values: Any, *, keys: Any = None, headers: Any = None, partition: int | None = None, **more: Any
    ) -> Any:
        """What `channel.send_many` does, and answers its receipt; keys are a list here."""
        client, number = self._client()
        values = list(values)
        if self._identify is not None:
            marks = np.array([self._identify(value) for value in values], np.int64)
        else:
            marks = np.array([number() for _ in values], np.int64)
            headers = [_marked(one) for one in (headers or [None] * len(values))]
            for one, mark in zip(headers, marks, strict=True):
                one[HEADER] = int(mark).to_bytes(8, "big")
        if callable(keys):
            keys = [keys(value) for value in values]
        tokens: Any = -1 if keys is None else np.array([token(key_bytes(key)) for key in keys], np.int64)
        written = self._recorder.rows(
            Kind.SEND,
            len(values),
            client=client,
            end=0,
            value=marks,
            key=tokens,
            channel=self._number,
            partition=-1 if partition is None else partition,
            status=int(Status.INFO),
            flags=int(self._flags | (Flag(0) if partition is None else Flag.EXPLICIT)),
        )
        options = dict(keys=keys, headers=headers, partition=partition, **more)
        if self._producer is None:
            receipt = self._channel.send_many(values, **options)
        else:
            receipt = self._producer.send_many(self._channel, values, **options)
        self._complete(written, receipt)
        return receipt

    def flush(self) -> None:
        """Flushes the producer and completes what waited for it. Raises the first error of what could not be sent."""
        failure: Exception | None = None
        try:
            if self._producer is not None:
                self._producer.flush()
        except Exception as error:
            failure = error
        waiting, self._waiting = self._waiting, []
        for receipt, place in waiting:
            try:
                position = receipt.result()
            except Exception as error:
                failure = failure or error
            else:
                self._recorder.complete(place, Status.OK, offset=position.offset, partition=position.partition)
        if failure is not None:
            raise failure

    def _complete(self, written: Written, receipt: Any) -> None:
        self._recorder.complete_rows(
            written,
            Status.OK,
            offset=np.asarray(receipt.offsets, np.int64),
            partition=np.asarray(receipt.partitions, np.int32),
        )

    def _client(self) -> tuple[int, Callable[[], int]]:
        """The calling thread's client, and what numbers its messages."""
        known: tuple[int, Callable[[], int]] | None = getattr(self._mine, "client", None)
        if known is None:
            client = self._recorder.client(f"{self._name}.{next(self._clients)}")
            # Numbers of different clients and processes must differ: 32 bits of chance and a count.
            base = int.from_bytes(np.random.default_rng().bytes(4), "big") << 28
            numbers = count(base)
            known = self._mine.client = (client, lambda: next(numbers))
        return known


def _marked(headers: Any) -> dict[str, Any]:
    return dict(headers.items() if isinstance(headers, Headers) else headers or {})


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
        **options: Any,
    ) -> None:
        """`channels`, `options`: of the consumer. `rebalancing`: whether it takes on_assign and on_revoke (None: found
        out)."""
        self._recorder, self._identify = recorder, identify
        self._mode = str(options.get("delivery", "at-least-once"))
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
        self._client = recorder.client(name, group=group, mode=self._mode)
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
            if place in self._owned:  # else it was lost before, and that was told
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

    def _told(self, kind: Kind, channel: str, partition: int, offset: int = -1, **more: Any) -> tuple[Any, int]:
        return self._recorder.row(
            kind, self._client, channel=self._recorder.channel(channel), partition=partition, offset=offset, **more
        )

    def _enter(self) -> None:
        """A call begins that commits what is owed before it does anything else. That is written down before, as with
        sends: if the process is killed within, nobody knows."""
        self._began = time.monotonic_ns()
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
        for place in list(self._owed):
            self._committed(place)
        ends: dict[tuple[str, int], int] = {}
        found = [(one.channel, one.partition, one.offset, _identified(one, self._identify)) for one in messages]
        for channel, partition, offset, _ in found:
            ends[channel, partition] = offset + 1
        if self._mode == "at-most-once":
            for (channel, partition), end in ends.items():
                self._told(Kind.COMMIT, channel, partition, end, begin=self._began)
        elif self._mode == "at-least-once":
            self._owed = dict(ends)
        self._handed.update(ends)
        op = self._recorder.op()
        for channel, partition, offset, mark in found:
            self._told(Kind.POLL, channel, partition, offset, value=mark, op=op, begin=self._began)

    def _failed(self, error: BaseException) -> None:
        """A call that raised may have committed what was owed; a message may have been lost on its way out."""
        if isinstance(error, Fenced):
            for place in list(self._owed):
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
        found = [(message.offset, _identified(message, identify)) for message in channel.scan(partition=partition)]
        op, end = recorder.op(), time.monotonic_ns()
        told = np.array(found, np.int64).reshape(-1, 2)
        place = {"client": client, "channel": number, "partition": partition, "begin": begin, "end": end, "op": op}
        recorder.rows(Kind.POLL, len(found), offset=told[:, 0], value=told[:, 1], status=int(Status.OK), **place)
        recorder.row(Kind.FINAL, client, begin=begin, end=end, op=op, channel=number, partition=partition)
        total += len(found)
    return total
