"""How does a program's own channel write down what is sent to it, without the program being rewritten for it?

Floor 8: may import channel, message, errors, partitioner, testing.history and testing.recorder. Thread rule: a
`Sending` may be used by any thread; each gets a client of its own.

A message is recognised by the header `history-id`, which sending adds; with `identify`, by what that function makes of
its value.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any, Protocol

import numpy as np

from tidelog.channel import Channel
from tidelog.errors import Closed, Fenced, Forked, Locked, NoSpace, SchemaMismatch, TooLarge
from tidelog.message import Headers, Message
from tidelog.partitioner import key_bytes
from tidelog.testing.history import Flag, Kind, Status, token
from tidelog.testing.recorder import Recorder

__all__ = ["HEADER", "Identify", "Sending", "Within", "identified"]

HEADER = "history-id"
Identify = Callable[[Any], int]
"""A number for a value, the same at both ends; `None` in its place: the header."""

NOT_SENT = (Closed, Fenced, Forked, Locked, NoSpace, SchemaMismatch, TooLarge)
"""Errors after which a single written message is certainly not in the log."""


class Within(Protocol):
    """A transaction that sends are a part of: what it is in the history, and what sends in it."""

    @property
    def number(self) -> int: ...
    @property
    def transaction(self) -> Any: ...


def identified(message: Message[Any], identify: Identify | None) -> int:
    """The number of a message that was received."""
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
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """`producer`: send through it. `synced`: its acks say that the message is on disk. `idempotent`: a value that
        was sent once may be there once only. `facts`: which opening of a named producer it is (`Naming.facts`)."""
        self._recorder, self._channel, self._producer = recorder, channel, producer
        self._name = channel.name if name is None else name
        self._identify = identify
        self._facts = dict(facts or {})
        self._number = recorder.channel(channel.name)
        self._flags = (Flag.SYNCED if synced else Flag(0)) | (Flag.IDEMPOTENT if idempotent else Flag(0))
        self._mine = threading.local()
        self._clients = count(1)
        self._waiting: list[tuple[Any, tuple[Any, int]]] = []

    def send(
        self,
        value: Any,
        *,
        key: Any = None,
        headers: Any = None,
        partition: int | None = None,
        within: Within | None = None,
        **more: Any,
    ) -> Any:
        """What `channel.send` does, and answers its receipt. `within`: a transaction that it is a part of."""
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
            txn=0 if within is None else within.number,
        )
        producer = self._producer if within is None else within.transaction
        options = dict(key=key, headers=headers, partition=partition, **more)
        try:
            if producer is None:
                receipt = self._channel.send(value, **options)
            else:
                receipt = producer.send(self._channel, value, **options)
        except NOT_SENT as error:
            if not self._flags & Flag.SYNCED:
                fenced = Flag.FENCED if isinstance(error, Fenced) else Flag(0)
                self._recorder.complete(place, Status.FAIL, flags=int(fenced))
            raise
        if receipt.done:
            repeated = more.get("id") is not None and receipt.duplicate
            self._recorder.complete(
                place,
                Status.OK,
                offset=receipt.offset,
                partition=receipt.partition,
                flags=int(Flag.DUPLICATE) if repeated else 0,
            )
        else:
            self._waiting.append((receipt, place))
        return receipt

    def send_many(
        self,
        values: Any,
        *,
        keys: Any = None,
        headers: Any = None,
        partition: int | None = None,
        within: Within | None = None,
        **more: Any,
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
        flags = int(self._flags | (Flag(0) if partition is None else Flag.EXPLICIT))
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
            flags=flags,
            txn=0 if within is None else within.number,
        )
        producer = self._producer if within is None else within.transaction
        options = dict(keys=keys, headers=headers, partition=partition, **more)
        if producer is None:
            receipt = self._channel.send_many(values, **options)
        else:
            receipt = producer.send_many(self._channel, values, **options)
        answer = {} if more.get("ids") is None else {"flags": flags | receipt.duplicates * int(Flag.DUPLICATE)}
        self._recorder.complete_rows(
            written,
            Status.OK,
            offset=np.asarray(receipt.offsets, np.int64),
            partition=np.asarray(receipt.partitions, np.int32),
            **answer,
        )
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

    def _client(self) -> tuple[int, Callable[[], int]]:
        """The calling thread's client, and what numbers its messages."""
        known: tuple[int, Callable[[], int]] | None = getattr(self._mine, "client", None)
        if known is None:
            client = self._recorder.client(f"{self._name}.{next(self._clients)}", **self._facts)
            # Numbers of different clients and processes must differ: 32 bits of chance and a count.
            base = int.from_bytes(np.random.default_rng().bytes(4), "big") << 28
            numbers = count(base)
            known = self._mine.client = (client, lambda: next(numbers))
        return known


def _marked(headers: Any) -> dict[str, Any]:
    return dict(headers.items() if isinstance(headers, Headers) else headers or {})
