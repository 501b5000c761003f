"""How do messages for several channels and a consumer's offsets become visible together, or not at all?

Floor 6: may import producer, consumer, engine.base, config, and the compiled transaction and sender. Thread rule:
`send` and `send_many` may be called from any thread; `commit`, `abort` and leaving by one at a time, and not while
another thread is inside one of the consumers.

The compiled base class does what must not be torn by an interrupt: beginning, committing, giving up, and what its
consumers take note of. What is left here is which channel has which sender. A transaction makes its own senders, so
that one that is used too late never sends into the next transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

from tidelog._native import Receipt, Sender
from tidelog._native import Transaction as NativeTransaction
from tidelog.config import Duration, duration_ms
from tidelog.consumer import Consumer
from tidelog.engine.base import Engine, Opened
from tidelog.producer import Channelish, Producer

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["LEVELS", "TIMEOUT_SECONDS", "Level", "Transaction", "check_parties"]

Level = Literal["written", "synced"]
LEVELS = ("written", "synced")
TIMEOUT_SECONDS = 60.0
"""After this time anybody may abort a transaction whose process lives, where it does not say."""


class Transaction(NativeTransaction):
    """Messages and offsets that become visible together; made by `log.transaction(...)` and entered by `with`.

    Leaving commits: all at once the messages are seen by readers, and what the consumers have handed over counts as
    handled. An exception aborts, `commit` and `abort` do the same earlier, and whatever ends this process aborts it
    too. Nothing of an aborted one is ever seen (but by `isolation="read-uncommitted"`), and its consumers go back to
    where they had last committed, so their messages come again. A commit is one decision: an interrupt, a kill or, with
    level="synced", a power cut finds it made or not made.

    Inside, asking a consumer for the next message commits nothing, and its assignment stays as it is while it owes
    something. Leaving raises Fenced when a newer producer of the name was opened, a partition went to another consumer,
    or the time was up: then nothing of it is visible; see `commit` for the rest.
    """

    __slots__ = ()

    def __init__(
        self,
        engine: Engine,
        producer: Producer,
        consumers: Sequence[Consumer[Any]],
        timeout: Duration = TIMEOUT_SECONDS,
        level: str = "synced",
    ) -> None:
        """Programs call `log.transaction(...)`, which documents arguments and errors."""
        timeout_ms = 60_000 if timeout == TIMEOUT_SECONDS else duration_ms(timeout, "timeout", least_ms=1)
        # Few programs have any of these wrong, and to look for it takes a tenth of a small transaction.
        usual = type(producer) is Producer and producer._engine is engine and producer._named is not None
        if not (usual and level in LEVELS and self._begin(producer, consumers, timeout_ms, level)):
            check_parties(engine, producer, consumers, level)
            if producer._named is None:
                producer._open_name()
            if not self._begin(producer, consumers, timeout_ms, level):
                raise ValueError("a transaction is of one log that is open: a consumer was closed with its log")

    def _begin(self, producer: Producer, consumers: Sequence[Consumer[Any]], timeout_ms: int, level: str) -> bool:
        assert producer._named is not None
        return self._attach(producer, producer._named, consumers, timeout_ms, level == "synced", producer._linger > 0)

    if TYPE_CHECKING:

        def __enter__(self) -> Self:
            """Begin it. What the producer has gathered (linger) is sent before. Raises Fenced when a newer producer of
            this name was opened, RuntimeError when this producer or a consumer has a transaction open, Full, Closed,
            NoSpace, StorageFailed."""

        def __exit__(
            self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
        ) -> Literal[False]:
            """Commit it, or abort it on an exception; nothing if it has ended already. Raises like `commit`."""

    @property
    def _producer(self) -> Producer:
        producer = self._outside
        assert isinstance(producer, Producer)
        return producer

    def _before(self) -> None:
        self._producer.flush()

    def _send(self, channel: Channelish[Any], value: Any, **options: Any) -> Receipt:
        """`send`, where the compiled sender of the channel is not known."""
        return self._found(channel).send(value, **options)

    def _send_many(self, channel: Channelish[Any], values: Any, **options: Any) -> Receipt:
        return self._found(channel).send_many(values, **options)

    def _found(self, channel: Channelish[Any]) -> Sender:
        opened = channel.opened()
        sender = self._sender(opened)
        self._remember(channel, sender, opened.generation)
        self._producer._know(channel, opened)
        return sender

    def __repr__(self) -> str:
        return f"<Transaction of {self._producer.name!r} {self.state}>"

    def _sender(self, opened: Opened, *, raw: bool = False) -> Sender:
        """The compiled sender of a channel in this transaction. `raw`: one of bytes, whatever type the channel has."""
        if self._senders is None:
            self._senders = {}
        known = self._senders.get((id(opened), raw))
        if known is not None:
            return known[1]
        sender = self._producer._sender(opened, gathered=raw)._within(self._inside, self._synced)
        self._senders[id(opened), raw] = (opened, sender)  # the handles stay, and with them their id
        return sender


def check_parties(engine: Engine, producer: Producer, consumers: Sequence[Consumer[Any]], level: str) -> None:
    """Raise TypeError or ValueError unless a transaction of this log may have these."""
    if level not in LEVELS:
        raise ValueError(f"level={level!r} does not exist: use one of {', '.join(LEVELS)}")
    if not isinstance(producer, Producer):
        raise TypeError(
            f"a transaction sends as a producer with a name, not as a {type(producer).__name__}: "
            f"log.transaction(log.producer(name=...), consumer)"
        )
    if producer.name is None:
        raise ValueError(
            "a transaction needs a producer with a name, so that it is known whose it is when this process dies: make "
            "it with log.producer(name=...)"
        )
    foreign = producer._engine is not engine
    for consumer in consumers:
        if not isinstance(consumer, Consumer):
            raise TypeError(f"a transaction commits what consumers hand over, not a {type(consumer).__name__}")
        foreign = foreign or consumer._engine is not engine
    if foreign:
        raise ValueError("a transaction is of one log: make producer and consumers with the log of the transaction")
