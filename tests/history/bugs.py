"""Which mistakes must a run of the history lane find?

Each is a change to tidelog's own Python, made in the workers of a run (`run.py --bug NAME`), and each must end that run
with one of the anomalies beside it. A checker that has gone blind is seen here.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

from tidelog._native import Transaction as NativeTransaction
from tidelog.channel import Channel
from tidelog.consumer import Consumer
from tidelog.errors import Fenced, NoSpace
from tidelog.groups import coordinator
from tidelog.producer import Producer
from tidelog.share import Share
from tidelog.transaction import Transaction

_chance = random.Random()


def _sometimes(one_in: int) -> bool:
    return _chance.randrange(one_in) == 0


def ack_without_append() -> None:
    """A send that is acked and is in no log: the answer is that of the send before it."""
    send = Channel.send
    last: dict[int, Any] = {}

    def lazy(self: Any, value: Any, **options: Any) -> Any:
        if id(self) not in last or not _sometimes(200):
            last[id(self)] = send(self, value, **options)
        return last[id(self)]

    Channel.send = lazy  # type: ignore[method-assign]


def send_twice() -> None:
    """A send that is carried out twice."""
    send = Channel.send

    def eager(self: Any, value: Any, **options: Any) -> Any:
        if _sometimes(200):
            send(self, value, **options)
        return send(self, value, **options)

    Channel.send = eager  # type: ignore[method-assign]


def failed_but_there() -> None:
    """A send that says it failed after it was done."""
    send = Channel.send

    def liar(self: Any, value: Any, **options: Any) -> Any:
        receipt = send(self, value, **options)
        if _sometimes(300):
            raise NoSpace("the disk is full")
        return receipt

    Channel.send = liar  # type: ignore[method-assign]


def key_by_process() -> None:
    """A partition that does not follow from the key alone."""
    send = Channel.send

    def astray(self: Any, value: Any, *, partition: int | None = None, **options: Any) -> Any:
        if partition is None and options.get("key") is not None and options.get("id") is None and _sometimes(50):
            partition = os.getpid() % self.partitions
        return send(self, value, partition=partition, **options)

    Channel.send = astray  # type: ignore[method-assign]


def many_backwards() -> None:
    """A send_many that turns its values round; the receipt tells the truth about where each went."""
    send_many = Channel.send_many

    class Turned:
        def __init__(self, receipt: Any) -> None:
            self.done = True
            self.partitions, self.offsets = receipt.partitions[::-1], receipt.offsets[::-1]
            self.duplicates = receipt.duplicates[::-1]

    def backwards(self: Any, values: Any, *, keys: Any = None, **options: Any) -> Any:
        turned = None if keys is None else list(keys)[::-1]
        if options.get("ids") is not None:
            options["ids"] = options["ids"][::-1]
        return Turned(send_many(self, list(values)[::-1], keys=turned, **options))

    Channel.send_many = backwards  # type: ignore[method-assign]


def receive_skips() -> None:
    """A receive that throws one message away."""
    receive = Consumer.receive

    def careless(self: Any, timeout: Any = None) -> Any:
        if _sometimes(300):
            receive(self, timeout)
        return receive(self, timeout)

    Consumer.receive = careless  # type: ignore[method-assign]


def late_at_most_once() -> None:
    """At-most-once that commits after handing over."""
    join = Consumer.__init__

    def late(self: Any, *arguments: Any, delivery: str = "at-least-once", **options: Any) -> None:
        join(self, *arguments, delivery="at-least-once" if delivery == "at-most-once" else delivery, **options)

    Consumer.__init__ = late  # type: ignore[method-assign]


def commit_lost_on_revoke() -> None:
    """A hand-over that forgets the last commits of who gives the partition back."""
    hand_back = Share._hand_back

    def forgetful(self: Any, indexes: list[int]) -> None:
        for index in indexes:
            if self._holds(index) and (committed := self._committed(index)):
                self._commit(index, max(committed - 5, 0))
        hand_back(self, indexes)

    Share._hand_back = forgetful  # type: ignore[method-assign]


def begins_too_far() -> None:
    """A new owner that begins one message behind where it should."""
    take_up = Share._take_up

    def hasty(self: Any, index: int) -> None:
        take_up(self, index)
        if self._bounds(index)[1] > self._position(index):
            self._seek(index, self._position(index) + 1)

    Share._take_up = hasty  # type: ignore[method-assign]


def begins_too_early() -> None:
    """A new owner that begins before where it should."""
    take_up = Share._take_up

    def nostalgic(self: Any, index: int) -> None:
        take_up(self, index)
        self._seek(index, max(self._position(index) - 3, self._bounds(index)[0]))

    Share._take_up = nostalgic  # type: ignore[method-assign]


def commits_read_ahead() -> None:
    """At-least-once that commits a message when it hands it over."""
    receive = Consumer.receive

    def eager(self: Any, timeout: Any = None) -> Any:
        message = receive(self, timeout)
        if self.group in ("jobs", "both"):
            self.commit(message)
        return message

    Consumer.receive = eager  # type: ignore[method-assign]


def partition_left_out() -> None:
    """A member that takes no notice of its last partition."""
    look = coordinator.Coordinator.look

    def short_sighted(self: Any) -> Any:
        standing = look(self)
        return standing._replace(mine=list(standing.mine)[:-1]) if len(standing.mine) > 1 else standing

    coordinator.Coordinator.look = short_sighted  # type: ignore[method-assign]


# --- transactions, names, ids ---


def commit_without_offsets() -> None:
    """A transaction that commits what it sent, and leaves its consumers to themselves."""
    begin = Transaction.__init__

    def partial(self: Any, engine: Any, producer: Any, consumers: Any, **options: Any) -> None:
        begin(self, engine, producer, [], **options)

    Transaction.__init__ = partial  # type: ignore[method-assign]


def send_outside() -> None:
    """A send of a transaction that goes past it."""

    def beside(self: Any, channel: Any, value: Any, **options: Any) -> Any:
        return channel.send(value, **options)

    Transaction.send = beside  # type: ignore[method-assign]


def abort_swallowed() -> None:
    """A transaction that commits when it was to be given up."""

    def never(self: Any) -> None:
        self.commit()

    def leave(self: Any, kind: Any, error: Any, trace: Any) -> Any:
        return NativeTransaction.__exit__(self, None, None, None)

    Transaction.abort = never  # type: ignore[method-assign]
    Transaction.__exit__ = leave  # type: ignore[method-assign]


def resend_without_id() -> None:
    """A send that forgets the id."""
    send = Channel.send

    def nameless(self: Any, value: Any, *, id: str | None = None, **options: Any) -> Any:
        return send(self, value, id=None if _sometimes(20) else id, **options)

    Channel.send = nameless  # type: ignore[method-assign]


def producer_without_fence() -> None:
    """A producer that opens its name again when somebody else has it, and goes on."""
    send = Producer.send

    def stubborn(self: Any, channel: Any, value: Any, **options: Any) -> Any:
        try:
            return send(self, channel, value, **options)
        except Fenced:
            self._named = None
            self._senders.clear()
            return send(self, channel, value, **options)

    def reopen(self: Any, opened: Any, **options: Any) -> Any:
        if self._named is None:
            self._open_name()
        return sender(self, opened, **options)

    sender = Producer._sender
    Producer.send = stubborn  # type: ignore[method-assign]
    Producer._sender = reopen  # type: ignore[method-assign]


def reads_uncommitted() -> None:
    """A consumer that hands over what is not committed."""
    join = Consumer.__init__

    def curious(self: Any, *arguments: Any, isolation: str = "", **options: Any) -> None:
        join(self, *arguments, isolation="read-uncommitted", **options)

    Consumer.__init__ = curious  # type: ignore[method-assign]


def abort_does_not_go_back() -> None:
    """A consumer that goes on behind what it was given in a transaction that was given up."""
    begin = Transaction.__init__

    def known(self: Any, engine: Any, producer: Any, consumers: Any, **options: Any) -> None:
        self.known = list(consumers)
        begin(self, engine, producer, consumers, **options)

    def leave(self: Any, kind: Any, error: Any, trace: Any) -> Any:
        places = [(one, index, one._position(index)) for one in self.known for index in one._held]
        try:
            return NativeTransaction.__exit__(self, kind, error, trace)
        finally:
            for one, index, offset in places:
                if self.state == "aborted" and index in one._held:
                    one._seek(index, offset)

    Transaction.__init__ = known  # type: ignore[method-assign]
    Transaction.__exit__ = leave  # type: ignore[method-assign]


def id_outlives_its_abort() -> None:
    """Ids of a transaction that was given up which count all the same."""
    send = Transaction.send
    known: dict[tuple[str, str], Any] = {}

    def once(self: Any, channel: Any, value: Any, *, id: str | None = None, **options: Any) -> Any:
        if id is None:
            return send(self, channel, value, **options)
        if (channel.name, id) not in known:
            known[channel.name, id] = send(self, channel, value, id=id, **options)
        return known[channel.name, id]

    Transaction.send = once  # type: ignore[method-assign]


def half_a_transaction() -> None:
    """A transaction that leaves one of its messages out, and answers for it."""
    send = Transaction.send
    last: dict[str, Any] = {}

    def lazy(self: Any, channel: Any, value: Any, **options: Any) -> Any:
        if channel.name not in last or not _sometimes(200):
            last[channel.name] = send(self, channel, value, **options)
        return last[channel.name]

    Transaction.send = lazy  # type: ignore[method-assign]


Table = dict[str, tuple[Callable[[], None], tuple[str, ...]]]

COPIED_TWICE = ("duplicate", "torn-txn", "copies")

PLAIN: Table = {
    "ack-without-append": (ack_without_append, ("inconsistent-offsets", "lost-write", "unseen", "false-duplicate")),
    "send-twice": (send_twice, ("duplicate", "false-duplicate")),
    "failed-but-there": (failed_but_there, ("G1a",)),
    "key-by-process": (key_by_process, ("key-order",)),
    "many-backwards": (many_backwards, ("int-nonmonotonic-send", "key-order")),
    "receive-skips": (receive_skips, ("poll-skip", "group-skip", "int-poll-skip", "copies")),
    "late-at-most-once": (late_at_most_once, ("redelivered", "group-regress")),
    "commit-lost-on-revoke": (commit_lost_on_revoke, ("redelivered", "group-regress", *COPIED_TWICE)),
    "begins-too-far": (begins_too_far, ("group-skip", "copies")),
    "begins-too-early": (begins_too_early, ("redelivered", "group-regress", *COPIED_TWICE)),
    "commits-read-ahead": (commits_read_ahead, ("group-skip", "group-regress")),
    "partition-left-out": (partition_left_out, ("lag",)),
}
WITHIN: Table = {
    "commit-without-offsets": (
        commit_without_offsets,
        ("torn-txn", "redelivered", "duplicate", "group-skip", "group-regress", "copies", "poll-skip", "int-poll-skip"),
    ),
    "send-outside": (send_outside, ("G1a", "precommitted-read", "duplicate")),
    "abort-swallowed": (abort_swallowed, ("G1a", "duplicate", "copies")),
    "resend-without-id": (resend_without_id, ("duplicate", "false-duplicate")),
    "producer-without-fence": (producer_without_fence, ("zombie",)),
    "reads-uncommitted": (reads_uncommitted, ("G1a", "precommitted-read", "zombie", *COPIED_TWICE)),
    "abort-does-not-go-back": (
        abort_does_not_go_back,
        ("poll-skip", "int-poll-skip", "group-skip", "torn-txn", "copies"),
    ),
    "id-outlives-its-abort": (id_outlives_its_abort, ("unseen", "lost-write", "torn-txn", "zombie", "copies")),
    "half-a-transaction": (half_a_transaction, ("torn-txn", "lost-write", "unseen", "inconsistent-offsets", "copies")),
}
"""Those of transactions, names and ids."""
BUGS: Table = {**PLAIN, **WITHIN}
"""By name: what makes the mistake, and the anomalies of which one must be found ("lag": not all was handled,
"copies": not all was copied once)."""


def plant(name: str) -> None:
    """Make a mistake in this process. Raises KeyError for one that there is not."""
    BUGS[name][0]()
