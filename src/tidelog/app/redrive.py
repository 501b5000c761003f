"""How do dead letters go back to where they came from, each of them once?

Floor 8: may import dead_letter, log, channel, consumer, transaction, message. Thread rule: plain functions; several
processes may redrive one channel at once, since a partition of it belongs to one consumer at a time.

What was redriven is remembered by the committed offset of the dead-letter channel's group: everything before it is
done. What is done out of order, because only some were chosen, stands in a channel beside it, `NAME.redriven`; it is
emptied when the committed offset has passed everything in it. The copies and what remembers them are one transaction: a
process that dies, or a power cut, leaves each message sent and remembered, or neither.

A message that comes back again and again is not sent for ever: it carries how often it was redriven.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from tidelog.app.dead_letter import FROM_CHANNEL, FROM_GROUP, OWN_HEADERS, REDRIVEN, REDRIVEN_FOR
from tidelog.channel import Channel
from tidelog.consumer import Assigned, Consumer
from tidelog.log import Log
from tidelog.message import Message
from tidelog.transaction import Transaction

__all__ = ["GROUP", "LIMIT", "Redriven", "finished", "redrive", "redriven_times"]

GROUP = "redrive"
"""The group that redrives a topic; a queue's is its own."""
LIMIT = 3
"""A message that was redriven so often is refused."""
BATCH = 100

Status = Literal["sent", "would be sent", "refused", "no channel", "no dead letter"]


@dataclass(frozen=True, slots=True)
class Redriven:
    """What became of one chosen dead letter."""

    message: Message[Any]
    to: str | None
    """The channel it went to, None if its headers name none."""
    times: int
    """How often it was redriven now, this time included if it was sent."""
    status: Status


class _Done(msgspec.Struct):
    """One line of the memory."""

    partition: int
    offset: int


def redriven_times(message: Message[Any]) -> int:
    """How often a message was redriven before; 0 for headers that are no number."""
    said = message.headers.get(REDRIVEN, b"0")
    return int(said) if said.isdigit() and len(said) < 10 else 0


def finished(log: Log, channel: Channel[Any]) -> Callable[[Message[Any]], bool]:
    """Whether a dead letter was redriven already (or handled by the queue's receiver), as it is now."""
    committed = _committed(channel)
    memory = _Memory(log, channel)
    memory.look()
    return lambda message: message.offset < committed.get(message.partition, -1) or message in memory


def redrive(
    log: Log,
    channel: Channel[Any],
    chosen: Callable[[Message[Any]], bool],
    *,
    to: str | None = None,
    limit: int = LIMIT,
    force: bool = False,
    per_second: float | None = None,
    dry_run: bool = False,
) -> Iterator[Redriven]:
    """Send the chosen dead letters of `channel` that are there now back, one after the other, and tell about each.

    `to`: another channel than the one each came from. `limit`: refuse what was redriven so often, unless `force`.
    `per_second`: how many at most. `dry_run`: only tell. Up to BATCH messages, and with `per_second` each one, are sent
    together before they are told about. Raises ValueError for a channel that would feed itself, and what transactions
    raise.
    """
    if to == channel.name:
        raise ValueError(f"the dead letters of {channel.name!r} cannot be sent to {to!r} itself: name another channel")
    if dry_run:
        done = finished(log, channel)
        senders = _Senders(log)
        for message in channel.scan():
            if not done(message) and chosen(message):
                row = _judged(message, to, limit, force, senders, channel.name)
                yield row if row.status != "sent" else Redriven(message, row.to, row.times, "would be sent")
        return
    options: dict[str, Any] = {} if channel.kind == "queue" else {"group": GROUP}
    consumer: Consumer[Any] = channel.consumer(stop="end", delivery="manual", **options)  # type: ignore[attr-defined]
    with consumer:
        yield from _redrive(log, channel, consumer, chosen, to, limit, force, per_second)


def _redrive(
    log: Log,
    channel: Channel[Any],
    consumer: Consumer[Any],
    chosen: Callable[[Message[Any]], bool],
    to: str | None,
    limit: int,
    force: bool,
    per_second: float | None,
) -> Iterator[Redriven]:
    senders, memory = _Senders(log), _Memory(log, channel)
    holes: dict[int, int] = {}
    next_at = 0.0
    assert consumer._membership is not None
    with log.producer(name=f"redrive.{consumer._membership.row}") as producer:
        while batch := consumer.receive_many(BATCH if per_second is None else 1):
            memory.look()  # a partition that was another process's may have come with the batch
            rows: list[Redriven] = []
            for message in batch:
                row = None
                done = message in memory
                if not done and chosen(message):
                    row = _judged(message, to, limit, force, senders, channel.name)
                    done = row.status == "sent"
                    rows.append(row)
                if not done:
                    holes.setdefault(message.partition, message.offset)
            for partition, offset in holes.items():
                consumer._owe_before(consumer._index[Assigned(channel.name, partition)], offset)
            sent = [row for row in rows if row.status == "sent"]
            if not sent:
                consumer.commit()
            else:
                if per_second is not None:
                    now = time.monotonic()
                    time.sleep(max(next_at - now, 0.0))
                    next_at = max(next_at, now) + 1 / per_second
                with log.transaction(producer, consumer) as transaction:
                    for row in sent:
                        senders.send(transaction, row)
                        if row.message.offset > holes.get(row.message.partition, row.message.offset):
                            memory.add(transaction, row.message)
            yield from rows
    memory.clear()


def _judged(message: Message[Any], to: str | None, limit: int, force: bool, senders: _Senders, own: str) -> Redriven:
    times = redriven_times(message)
    origin = message.headers.get(FROM_CHANNEL)
    name = to if to is not None else None if origin is None else origin.decode("utf-8", "replace")
    if name is None or name == own:
        return Redriven(message, name, times, "no dead letter")
    if times >= limit and not force:
        return Redriven(message, name, times, "refused")
    if not senders.has(name):
        return Redriven(message, name, times, "no channel")
    return Redriven(message, name, times + 1, "sent")


def _committed(channel: Channel[Any]) -> dict[int, int]:
    """Where the group that redrives stands, by partition."""
    group = channel.name if channel.kind == "queue" else GROUP
    return {row.partition: row.offset for row in channel.offsets() if row.group == group}


class _Senders:
    """The channels that messages go back to, as they are stored."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._known: dict[str, Channel[Any] | None] = {}

    def has(self, name: str) -> bool:
        if name not in self._known:
            self._known[name] = self._log.get(name)
        return self._known[name] is not None

    def send(self, transaction: Transaction, row: Redriven) -> None:
        message = row.message
        assert row.to is not None
        channel = self._known[row.to]
        assert channel is not None
        gone = OWN_HEADERS | {REDRIVEN, REDRIVEN_FOR}
        headers = [(name, value) for name, value in message.headers.all if name not in gone]
        headers.append((REDRIVEN, b"%d" % row.times))
        group = message.headers.get(FROM_GROUP)
        if channel.kind == "topic" and group is not None and message.headers.get(FROM_CHANNEL) == row.to.encode():
            headers.append((REDRIVEN_FOR, group))
        transaction._sender(channel.opened(), raw=True).send(message.raw, key=message.key, headers=headers)


class _Memory:
    """What was redriven out of order, in a channel of its own that is made when it is first needed."""

    def __init__(self, log: Log, channel: Channel[Any]) -> None:
        self._log = log
        self._channel = channel
        self._name = f"{channel.name}.redriven"
        self._done: set[tuple[int, int]] = set()
        self._next = 0

    def __contains__(self, message: Message[Any]) -> bool:
        return (message.partition, message.offset) in self._done

    def look(self) -> None:
        """Read what was added since the last look, by whomever."""
        if self._name not in self._log:
            return
        channel = self._log[self._name]
        start, end = channel.bounds(0)
        self._next = max(self._next, start)
        if self._next < end:
            for line in channel.scan(start=self._next, partition=0):
                done = msgspec.json.decode(line.raw, type=_Done)
                self._done.add((done.partition, done.offset))
                self._next = line.offset + 1

    def add(self, transaction: Transaction, message: Message[Any]) -> None:
        """Remember one."""
        channel = self._log.queue(self._name, partitions=1, carries="document")
        transaction.send(channel, msgspec.json.encode(_Done(message.partition, message.offset)))
        self._done.add((message.partition, message.offset))

    def clear(self) -> None:
        """Empty it if all of it is behind the committed offsets."""
        if not self._done:
            return
        committed = _committed(self._channel)
        if all(offset < committed.get(partition, -1) for partition, offset in self._done):
            self._log[self._name].trim(before=self._next)
