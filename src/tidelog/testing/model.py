"""Does the public API do what a plain list would do, whatever is called in whatever order?

Floor 8: imports the log and hypothesis. Thread rule: Hypothesis runs it in one thread.

`LogModel` is a Hypothesis state machine. A test suite runs it as

    from tidelog.testing import LogModel

    class TestLog(LogModel.TestCase):
        pass

Every step is done on a real log and on lists; what comes back must be the same. Offsets are taken from receipts and
never computed, since offsets may have gaps. Between partitions no order is promised, so none is checked.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain
from typing import Any, ClassVar

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tidelog.channel import Channel
from tidelog.config import MIN_SEGMENT_BYTES
from tidelog.consumer import Assigned, Consumer
from tidelog.errors import OffsetOutOfRange, Timeout
from tidelog.log import Log
from tidelog.log import open as open_log
from tidelog.message import Batch, Message, Receipt

__all__ = ["LogModel"]

EPOCH_SECONDS = 1_700_000_000


@dataclass
class Sent:
    """One message as it was sent, and where its receipt said it went."""

    offset: int
    value: bytes
    key: bytes | None
    timestamp_ms: int
    headers: list[tuple[str, bytes]]
    id: str | None


@dataclass
class Part:
    """What one partition should hold."""

    start: int = 0
    end: int = 0
    messages: list[Sent] = field(default_factory=list)
    ids: dict[str, int] = field(default_factory=dict)
    """Where the message with an id stands that came last."""
    doubtful: set[str] = field(default_factory=set)
    """Ids of trimmed messages: they count until the log is opened anew, and then where their file is still there."""
    trimmed: list[Sent] = field(default_factory=list)
    """Forgotten by the partition; a consumer that had read them before may still hand them over, in their order."""

    def next_from(self, position: int) -> Sent:
        """The first message from `position` on, trimmed or not: none is passed over without `OffsetOutOfRange`."""
        return next(sent for sent in self.trimmed + self.messages if sent.offset >= position)


@dataclass
class Receiving:
    """An open consumer and where it should stand."""

    consumer: Consumer[bytes]
    group: str
    channel: str
    position: dict[int, int]
    delivered: dict[int, int] = field(default_factory=dict)
    """What the next call commits, by partition."""


_values = st.one_of(
    st.binary(max_size=40),
    st.integers(1, 30_000).map(lambda length: b"x" * length),  # large ones make partitions go on in new files
)
_keys = st.one_of(st.none(), st.sampled_from([b"", b"a", b"b", b"tea"]), st.binary(min_size=1, max_size=9))
_seconds = st.integers(0, 20)
_headers = st.lists(st.tuples(st.sampled_from(["src", "n"]), st.binary(max_size=5)), max_size=3)
_ids = st.sampled_from([f"id-{number}" for number in range(6)])
_names = st.sampled_from(["q", "t"])
_ratio = st.floats(0, 1)


class LogModel(RuleBasedStateMachine):
    """Sends, scans, reads, receives, commits, seeks, trims, reopens; run it by `class TestLog(LogModel.TestCase)`.

    Subclasses may set `options` (keywords of `tidelog.open`), `partitions` and `compression`.
    """

    options: ClassVar[dict[str, Any]] = {"segment_bytes": MIN_SEGMENT_BYTES}
    partitions: ClassVar[int] = 2
    compression: ClassVar[str] = "none"

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.mkdtemp(prefix="tidelog-model-")
        self.log: Log
        self.channels: dict[str, Channel[bytes]] = {}
        self.parts: dict[str, list[Part]] = {}
        self.committed: dict[tuple[str, str, int], int] = {}
        self.receiving: Receiving | None = None

    @initialize()
    def begin(self) -> None:
        """A log with a queue and a topic."""
        self._open()
        self.parts = {name: [Part() for _ in range(self.partitions)] for name in ("q", "t")}

    def teardown(self) -> None:
        """Close and remove everything."""
        try:
            if self.channels:
                self.log.close()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _open(self) -> None:
        self.log = open_log(self.folder + "/model.log", **self.options)
        self.channels = {
            "q": self.log.queue("q", partitions=None if self.parts else self.partitions, compression=self.compression),
            "t": self.log.topic("t", partitions=None if self.parts else self.partitions, compression=self.compression),
        }

    # --- sending ---

    # Where a message without a key goes is the log's own choice and differs from run to run, so the model chooses.

    @rule(
        name=_names,
        value=_values,
        key=_keys,
        partition=st.integers(0, 1),
        second=_seconds,
        headers=_headers,
        id=st.none() | _ids,
    )
    def send(
        self,
        name: str,
        value: bytes,
        key: bytes | None,
        partition: int,
        second: int,
        headers: list[tuple[str, bytes]],
        id: str | None,
    ) -> None:
        """One message."""
        receipt = self.channels[name].send(
            value,
            key=key,
            headers=headers,
            id=id,
            partition=partition if key is None else None,
            timestamp=EPOCH_SECONDS + second,
        )
        self._sent(name, receipt, [value], [key], second, headers, [id])

    @rule(
        name=_names,
        messages=st.lists(st.tuples(_values, _keys), max_size=12),
        ids=st.none() | st.lists(st.none() | _ids, min_size=12, max_size=12),
        partition=st.integers(0, 1),
        second=_seconds,
        linger=st.booleans(),
    )
    def send_many(
        self,
        name: str,
        messages: list[tuple[bytes, bytes | None]],
        ids: list[str | None] | None,
        partition: int,
        second: int,
        linger: bool,
    ) -> None:
        """Many messages, by the channel or one by one through a producer that gathers them."""
        values, keys = [value for value, _ in messages], [key for _, key in messages]
        moment = EPOCH_SECONDS + second
        chosen = partition if None in keys else None
        named: list[str | None] = [None] * len(messages) if ids is None else ids[: len(messages)]
        if not linger:
            options: dict[str, Any] = {} if ids is None else {"ids": named}
            receipt = self.channels[name].send_many(values, keys=keys, partition=chosen, timestamp=moment, **options)
            self._sent(name, receipt, values, keys, second, [], named)
            return
        with self.log.producer(linger=30.0) as producer:
            receipts = [
                producer.send(self.channels[name], value, key=key, id=id, partition=chosen, timestamp=moment)
                for (value, key), id in zip(messages, named, strict=True)
            ]
        gathered = list(zip(receipts, values, keys, named, strict=True))
        assert all(one.done for one in receipts)
        for one, value, key, id in gathered:
            self._sent(name, one, [value], [key], second, [], [id])

    def _sent(
        self,
        name: str,
        receipt: Receipt,
        values: list[bytes],
        keys: list[bytes | None],
        second: int,
        headers: list[tuple[str, bytes]],
        ids: list[str | None],
    ) -> None:
        partitions, offsets = receipt.partitions.tolist(), receipt.offsets.tolist()
        duplicates = receipt.duplicates.tolist()
        assert receipt.count == len(partitions) == len(offsets) == len(values) == len(duplicates)
        assert receipt.duplicate == (all(duplicates) and bool(duplicates))
        for partition, offset, value, key, id, duplicate in zip(
            partitions, offsets, values, keys, ids, duplicates, strict=True
        ):
            part = self.parts[name][partition]
            first = None if id is None else part.ids.get(id)
            if id in part.doubtful and not duplicate:
                first = None
            assert duplicate == (first is not None), f"the id {id} in {name}-{partition}: first at {first}"
            if first is not None:
                assert offset == first
                continue
            if id is not None:
                part.ids[id] = offset
                part.doubtful.discard(id)
            assert offset >= part.end, f"offset {offset} of {name}-{partition} was given out before"
            part.end = offset + 1
            part.messages.append(Sent(offset, value, key, (EPOCH_SECONDS + second) * 1000, headers, id))

    # --- history ---

    @rule(name=_names, partition=st.none() | st.integers(0, 1), first=_ratio, last=_ratio)
    def scan(self, name: str, partition: int | None, first: float, last: float) -> None:
        """A stretch of one partition, or everything."""
        if partition is None:
            found = list(self.channels[name].scan())
            expected = [(number, sent) for number, part in enumerate(self.parts[name]) for sent in part.messages]
        else:
            part = self.parts[name][partition]
            start, stop = sorted(part.start + round(share * (part.end - part.start)) for share in (first, last))
            found = list(self.channels[name].scan(start, stop, partition))
            expected = [(partition, sent) for sent in part.messages if start <= sent.offset < stop]
        assert len(found) == len(expected)
        for message, (number, sent) in zip(found, expected, strict=True):
            self._same(message, name, number, sent)

    @rule(name=_names, partition=st.integers(0, 1), shares=st.lists(_ratio, max_size=8))
    def read(self, name: str, partition: int, shares: list[float]) -> None:
        """Messages by offset, in any order."""
        part = self.parts[name][partition]
        if not part.messages:
            return
        wanted = [part.messages[round(share * (len(part.messages) - 1))] for share in shares]
        batch = self.channels[name].read(np.array([sent.offset for sent in wanted], dtype=np.int64), partition)
        assert batch.values == [sent.value for sent in wanted]
        assert batch.keys == [sent.key for sent in wanted]
        assert batch.offsets.tolist() == [sent.offset for sent in wanted]

    @rule(name=_names, partition=st.integers(0, 1), offset=st.sampled_from([-1, 0, 1]))
    def read_outside(self, name: str, partition: int, offset: int) -> None:
        """An offset that is no longer, or not yet there."""
        part = self.parts[name][partition]
        wrong = part.start - 1 if offset < 0 else part.end + offset
        if wrong < 0:
            return
        try:
            self.channels[name].read([wrong], partition)
        except OffsetOutOfRange:
            return
        raise AssertionError(f"offset {wrong} of {name}-{partition} was read, outside {part.start} .. {part.end}")

    @rule(name=_names, partition=st.integers(0, 1), seconds=st.lists(_seconds, min_size=1, max_size=5))
    def find(self, name: str, partition: int, seconds: list[int]) -> None:
        """Times to offsets."""
        part = self.parts[name][partition]
        moments = [datetime.fromtimestamp(EPOCH_SECONDS + second, UTC) for second in seconds]
        found = self.channels[name].find(moments, partition).tolist()
        for second, offset in zip(seconds, found, strict=True):
            wanted_ms = (EPOCH_SECONDS + second) * 1000
            assert offset == next((sent.offset for sent in part.messages if sent.timestamp_ms >= wanted_ms), part.end)

    @rule(name=_names, partition=st.integers(0, 1), share=_ratio)
    def trim(self, name: str, partition: int, share: float) -> None:
        """Forget the oldest."""
        part = self.parts[name][partition]
        before = part.start + round(share * (part.end - part.start))
        self.channels[name].trim(before, partition)
        part.start = before
        part.trimmed += [sent for sent in part.messages if sent.offset < before]
        part.messages = [sent for sent in part.messages if sent.offset >= before]

    # --- receiving ---

    @precondition(lambda self: self.receiving is None)
    @rule(group=st.sampled_from(["q", "red", "blue"]), manual=st.booleans())
    def subscribe(self, group: str, manual: bool) -> None:
        """A consumer goes on where its group had committed."""
        options: dict[str, Any] = {"delivery": "manual" if manual else "at-least-once"}
        name = "q" if group == "q" else "t"
        consumer = self.log.consumer(self.channels[name], group=group, **options)
        position = {
            number: self.committed.get((group, name, number), part.start)
            for number, part in enumerate(self.parts[name])
        }
        self.receiving = Receiving(consumer, group, name, position)
        self.manual = manual

    @precondition(lambda self: self.receiving is not None)
    @rule(count=st.integers(1, 20), one=st.booleans())
    def receive(self, count: int, one: bool) -> None:
        """What comes is what follows, partition by partition."""
        now = self._now()
        parts = self.parts[now.channel]
        behind = [number for number, offset in now.position.items() if offset < parts[number].start]
        waiting = any(
            sent.offset >= now.position[number] for number, part in enumerate(parts) for sent in part.messages
        )
        before = {number: self.committed.get((now.group, now.channel, number)) for number in now.position}
        try:
            got: Batch[bytes] | list[Message[bytes]]
            got = [now.consumer.receive(timeout=0)] if one else now.consumer.receive_many(count, timeout=0)
        except Timeout:
            assert one
            got = []
        except OffsetOutOfRange:
            positions = self._positions()
            moved = [number for number in behind if positions[number] >= parts[number].start]
            assert moved, f"OffsetOutOfRange, but nothing moved to the log start: {positions}"
            for number in moved:
                now.position[number] = parts[number].start
            for number, old in before.items():  # whether the call still committed is its own affair
                actual = now.consumer.committed[Assigned(now.channel, number)]
                assert actual in (old, now.delivered.get(number, old))
                if actual is not None:
                    self.committed[now.group, now.channel, number] = actual
                if actual == now.delivered.get(number):
                    now.delivered.pop(number, None)
            return
        self._settle()
        assert len(got) <= (1 if one else count)
        assert bool(len(got)) == waiting or behind
        for message in got:
            position = now.position[message.partition]
            sent = parts[message.partition].next_from(position)
            self._same(message, now.channel, message.partition, sent)
            now.position[message.partition] = sent.offset + 1
            if not self.manual:
                now.delivered[message.partition] = sent.offset + 1

    @precondition(lambda self: self.receiving is not None)
    @rule(name=st.sampled_from(["earliest", "latest", "share"]), partition=st.integers(0, 1), share=_ratio)
    def seek(self, name: str, partition: int, share: float) -> None:
        """Elsewhere in one partition."""
        now = self._now()
        part = self.parts[now.channel][partition]
        between = part.start + round(share * (part.end - part.start))
        offset = {"earliest": part.start, "latest": part.end, "share": between}[name]
        if name == "share":
            now.consumer.seek((partition, offset))
        else:
            now.consumer.seek(name, partition=partition)  # type: ignore[arg-type]
        now.position[partition] = offset
        now.delivered.pop(partition, None)

    @precondition(lambda self: self.receiving is not None)
    @rule()
    def commit(self) -> None:
        """Everything that was delivered."""
        now = self._now()
        positions = self._positions()
        assert positions == now.position
        now.consumer.commit()
        now.delivered.clear()
        for number in now.position:
            actual = now.consumer.committed[Assigned(now.channel, number)]
            old = self.committed.get((now.group, now.channel, number))
            assert actual in (old, now.position[number])
            if actual is not None:
                self.committed[now.group, now.channel, number] = actual

    @precondition(lambda self: self.receiving is not None)
    @rule(how=st.sampled_from(["leave", "fail", "close"]))
    def unsubscribe(self, how: str) -> None:
        """Leaving `with` commits; failing in it and closing do not."""
        now = self._now()
        if how == "close":
            now.consumer.close()
        else:
            try:
                with now.consumer:
                    if how == "fail":
                        raise _Failure
            except _Failure:
                pass
            if how == "leave":
                self._settle()
        now.consumer.close()
        self.receiving = None

    # --- life ---

    @rule()
    def reopen(self) -> None:
        """Close the log and open it again; nothing is lost, nothing is committed by that."""
        self.receiving = None
        self.log.close()
        self._open()
        for part in chain.from_iterable(self.parts.values()):
            part.doubtful = {id for id, offset in part.ids.items() if offset < part.start}

    @rule(name=_names)
    def configure(self, name: str) -> None:
        """Change what does not touch the messages."""
        self.channels[name].configure(retention=None, max_message_bytes=1 << 20)
        assert self.channels[name].max_message_bytes == 1 << 20

    @rule()
    def sync(self) -> None:
        """To the disk."""
        self.log.sync()

    @invariant()
    def the_same(self) -> None:
        """Bounds and committed offsets are what they should be."""
        for name, parts in self.parts.items():
            for number, part in enumerate(parts):
                assert self.channels[name].bounds(number) == (part.start, part.end)
        if self.channels:
            rows = [row for row in self.log.offsets() if row.offset >= 0]
            assert {(row.group, row.channel, row.partition): row.offset for row in rows} == self.committed

    # --- inside ---

    def _now(self) -> Receiving:
        assert self.receiving is not None
        return self.receiving

    def _positions(self) -> dict[int, int]:
        return {assigned.partition: offset for assigned, offset in self._now().consumer.position.items()}

    def _settle(self) -> None:
        now = self._now()
        for number, offset in now.delivered.items():
            self.committed[now.group, now.channel, number] = offset
        now.delivered.clear()

    def _same(self, message: Message[bytes], name: str, number: int, sent: Sent) -> None:
        assert (message.channel, message.partition, message.offset) == (name, number, sent.offset)
        assert (message.value, message.raw, message.key) == (sent.value, sent.value, sent.key)
        assert message.timestamp_ms == sent.timestamp_ms
        pairs = [(header, value) for header, value in message.headers.all if header != "message-id"]
        assert pairs == sent.headers
        assert message.id == (sent.id or f"{name}-{number}-{sent.offset}")


class _Failure(Exception):
    """What a handler raises."""
