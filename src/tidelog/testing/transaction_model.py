"""Do transactions do what lists would do, whatever is begun, sent, received, committed, aborted and closed in whatever
order?

Floor 8: imports the log and hypothesis. Thread rule: Hypothesis runs it in one thread.

`TransactionModel` is a Hypothesis state machine beside `LogModel`. A test suite runs it as

    from tidelog.testing import TransactionModel

    class TestTransactions(TransactionModel.TestCase):
        pass

Two producers with names send to a channel of two partitions, each in a transaction of its own or without one; a
consumer of another channel takes part in some of them. After every step a reader must see exactly what is decided: in
each partition the messages up to the first one of an open transaction, without the aborted ones; and the group must
stand where the last commit has put it.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tidelog.channel import Channel
from tidelog.config import MIN_SEGMENT_BYTES
from tidelog.consumer import Assigned, Consumer
from tidelog.errors import Fenced, Timeout
from tidelog.log import Log
from tidelog.log import open as open_log
from tidelog.producer import Producer
from tidelog.transaction import Transaction

__all__ = ["TransactionModel"]

PARTITIONS = 2


@dataclass
class Open:
    """A transaction that is open, and what should become of it."""

    transaction: Transaction
    with_consumer: bool
    fenced: bool = False


@dataclass
class Written:
    """One message of the output, in the order of its partition."""

    offset: int
    value: bytes
    owner: Open | None
    """The transaction that it waits for; None: it is decided."""
    kept: bool = True


@dataclass
class Reading:
    """The consumer and where it should stand, by partition."""

    consumer: Consumer[bytes]
    position: dict[int, int]
    since: dict[int, int]
    owed: dict[int, int] = field(default_factory=dict)


_which = st.integers(0, 1)
_value = st.one_of(st.binary(max_size=20), st.integers(1, 20_000).map(lambda length: b"x" * length))


class TransactionModel(RuleBasedStateMachine):
    """Run it by `class TestTransactions(TransactionModel.TestCase)`; `options` are keywords of `tidelog.open`."""

    options: ClassVar[dict[str, Any]] = {"segment_bytes": MIN_SEGMENT_BYTES}

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.mkdtemp(prefix="tidelog-model-")
        self.log: Log
        self.source: Channel[bytes]
        self.target: Channel[bytes]
        self.producers: list[Producer] = []
        self.sent: list[list[tuple[int, bytes]]] = [[] for _ in range(PARTITIONS)]
        self.written: list[list[Written]] = [[] for _ in range(PARTITIONS)]
        self.open: dict[int, Open] = {}
        self.committed: dict[int, int] = {}
        self.reading: Reading | None = None

    @initialize()
    def begin_log(self) -> None:
        """An empty log."""
        self._open()

    def teardown(self) -> None:
        """Close and remove everything."""
        try:
            if self.producers:
                self.log.close()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _open(self) -> None:
        self.log = open_log(self.folder + "/model.log", **self.options)
        self.source = self.log.queue("in", partitions=PARTITIONS)
        self.target = self.log.topic("out", partitions=PARTITIONS)
        self.producers = [self.log.producer(name=f"p{number}") for number in range(2)]

    # --- sending ---

    @rule(partition=_which, value=_value, to_read=st.booleans())
    def send_plain(self, partition: int, value: bytes, to_read: bool) -> None:
        """Beside all transactions: something to receive, or among the output."""
        if to_read:
            self.sent[partition].append((self.source.send(value, partition=partition).offset, value))
        else:
            self._wrote(partition, self.target.send(value, partition=partition).offset, value, None)

    @rule(pick=_which, partition=_which, value=_value, many=st.booleans())
    def send(self, pick: int, partition: int, value: bytes, many: bool) -> None:
        """By a producer: in its transaction if it has one, else without."""
        number = self._some(pick) if self.open else pick
        one = self.open.get(number)
        sender: Any = self.producers[number] if one is None else one.transaction
        try:
            if many:
                receipt = sender.send_many(self.target, [value, value], partition=partition)
                offsets = receipt.offsets.tolist()
            else:
                offsets = [sender.send(self.target, value, partition=partition).offset]
        except Fenced:
            assert one is not None and one.fenced
            return
        assert one is None or not one.fenced, "a fenced producer has sent"
        for offset in offsets:
            self._wrote(partition, offset, value, one)

    def _wrote(self, partition: int, offset: int, value: bytes, owner: Open | None) -> None:
        part = self.written[partition]
        assert not part or offset > part[-1].offset, "an offset was given out again"
        part.append(Written(offset, value, owner))

    # --- transactions ---

    @precondition(lambda self: len(self.open) < 2)
    @rule(pick=_which, consume=st.booleans(), level=st.sampled_from(["written", "written", "synced"]))
    def begin(self, pick: int, consume: bool, level: Literal["written", "synced"]) -> None:
        """One more, of a producer that has none; the consumer takes part in one at a time."""
        number = 1 - next(iter(self.open)) if self.open else pick
        consume = consume and self.reading is not None and not self._consuming()
        consumers = [self.reading.consumer] if consume and self.reading is not None else []
        transaction = self.log.transaction(self.producers[number], *consumers, level=level)
        transaction.__enter__()
        self.open[number] = Open(transaction, consume)

    @precondition(lambda self: self.open)
    @rule(pick=_which, how=st.sampled_from(["leave", "commit", "abort", "fail", "forget"]))
    def end(self, pick: int, how: str) -> None:
        """Commit or abort, in each of the ways there are."""
        one = self.open.pop(self._some(pick))
        commits = how in ("leave", "commit") and not one.fenced
        try:
            if how == "leave":
                one.transaction.__exit__(None, None, None)
            elif how == "commit":
                one.transaction.commit()
            elif how == "abort":
                one.transaction.abort()
            elif how == "fail":
                error = KeyError("the program failed")
                one.transaction.__exit__(KeyError, error, None)
            else:
                del one.transaction
        except Fenced:
            assert one.fenced and how in ("leave", "commit")
        else:
            assert not (one.fenced and how in ("leave", "commit")), "a fenced transaction was committed"
        self._decide(one, commits)

    @rule(number=st.sampled_from([0, 1, None]))
    def come_again(self, number: int | None) -> None:
        """A newer self of a producer, whose older one's transaction is over; None: of the whole log."""
        if number is None:
            self._reopen()
            return
        self.producers[number] = self.log.producer(name=f"p{number}")
        one = self.open.get(number)
        if one is not None and not one.fenced:
            one.fenced = True
            for part in self.written:
                for written in part:
                    if written.owner is one:
                        written.owner, written.kept = None, False

    def _decide(self, one: Open, commits: bool) -> None:
        for part in self.written:
            for written in part:
                if written.owner is one:
                    written.owner, written.kept = None, commits
        now = self.reading
        if one.with_consumer and now is not None:
            for partition, offset in now.owed.items():
                if commits:
                    self.committed[partition] = now.since[partition] = offset
                else:
                    now.position[partition] = now.since[partition]
            now.owed.clear()

    def _some(self, pick: int) -> int:
        """One of the producers that have a transaction open."""
        return sorted(self.open)[pick % len(self.open)]

    def _consuming(self) -> bool:
        return any(one.with_consumer for one in self.open.values())

    # --- receiving ---

    @rule(commits=st.booleans())
    def subscribe(self, commits: bool) -> None:
        """The consumer goes on where the group stands; or, outside of a transaction, it ends: leaving `with` commits
        what is owed, closing does not."""
        if self.reading is not None:
            if not self._consuming():
                self._unsubscribe(self.reading, commits)
            return
        consumer = self.log.consumer(self.source, group="in")
        position = {number: self.committed.get(number, 0) for number in range(PARTITIONS)}
        self.reading = Reading(consumer, dict(position), dict(position))

    @precondition(lambda self: self.reading is not None)
    @rule(count=st.integers(1, 5), one=st.booleans())
    def receive(self, count: int, one: bool) -> None:
        """What comes is what follows; outside of a transaction it settles what was owed."""
        now = self.reading
        assert now is not None
        if not self._consuming():
            for partition, offset in now.owed.items():
                self.committed[partition] = now.since[partition] = offset
            now.owed.clear()
        waiting = any(offset >= now.position[number] for number, part in enumerate(self.sent) for offset, _ in part)
        got: list[Any]
        try:
            got = [now.consumer.receive(timeout=0)] if one else list(now.consumer.receive_many(count, timeout=0))
        except Timeout:
            got = []
        assert bool(got) == waiting
        for message in got:
            offset, value = next(
                (offset, value)
                for offset, value in self.sent[message.partition]
                if offset >= now.position[message.partition]
            )
            assert (message.offset, message.value) == (offset, value)
            now.position[message.partition] = now.owed[message.partition] = offset + 1

    def _unsubscribe(self, now: Reading, commits: bool) -> None:
        self.reading = None
        if commits:
            now.consumer.__exit__(None, None, None)
            self.committed.update(now.owed)
        else:
            now.consumer.close()

    def _reopen(self) -> None:
        """Close the log, which aborts what is open, and open it again."""
        self.log.close()
        for one in self.open.values():
            self._decide(one, False)
        self.open.clear()
        self.reading = None
        self._open()

    @invariant()
    def the_same(self) -> None:
        """Readers see what is decided, and the group stands where it should."""
        if not self.producers:
            return
        for number, part in enumerate(self.written):
            stable: list[bytes] = []
            for written in part:
                if written.owner is not None:
                    break
                if written.kept:
                    stable.append(written.value)
            assert [message.value for message in self.target.scan(partition=number)] == stable
            everything = self.target.scan(partition=number, isolation="read-uncommitted")
            assert [(message.offset, message.value) for message in everything] == [
                (written.offset, written.value) for written in part
            ]
        rows = {row.partition: row.offset for row in self.source.offsets() if row.offset >= 0}
        assert rows == self.committed
        if self.reading is not None:
            positions = self.reading.consumer.position
            for number, position in self.reading.position.items():
                assert positions[Assigned("in", number)] == position
