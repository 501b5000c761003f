"""Who receives exactly once in the tests of guarantees?

`Transacting` has the methods of a consumer that the tests call. Each message is handled in a transaction with a named
producer; what comes of it, its value once more, is sent to the channel RESULTS in the same transaction.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import tidelog
from tidelog import errors
from tidelog.transaction import Level, Transaction

RESULTS = "results"


class Transacting:
    """Asking for the next message commits the transaction of the one in hand, as at-least-once commits its offset."""

    def __init__(
        self, log: tidelog.Log, producer: tidelog.Producer, consumer: tidelog.Consumer[str], level: Level
    ) -> None:
        self.log = log
        self.producer = producer
        self.consumer = consumer
        self.level: Level = level
        self.results = log.topic(RESULTS, str, partitions=1)
        self.together = 1
        """How many messages are handled in one transaction, if so many are there."""
        self.transaction: Transaction | None = None
        self.count = 0

    def receive(self, timeout: float) -> tidelog.Message[str]:
        """The next message, whose output is sent; its transaction is open when this returns."""
        if self.count >= self.together:
            self.commit()
        if self.transaction is None:
            self.transaction = self.log.transaction(self.producer, self.consumer, level=self.level)
            self.transaction.__enter__()
        try:
            message = self.consumer.receive(timeout=timeout)
        except errors.Timeout:
            self.commit()
            raise
        self.count += 1
        self.transaction.send(self.results, message.value)
        return message

    def commit(self, *_: object, level: str | None = None) -> None:
        """What is open. Raises Fenced when it is another's meanwhile."""
        assert level in (None, self.level), "a transaction has had its level from the start"
        if self.transaction is None:
            return
        try:
            self.transaction.commit()
        finally:
            if self.transaction.state != "open":  # it is in a forked child, where nothing can be done to it
                self.transaction, self.count = None, 0

    @property
    def assignment(self) -> Any:
        """Of the consumer."""
        return self.consumer.assignment

    def close(self) -> None:
        """Close the consumer in the middle of its transaction, which can no more be committed then."""
        self.consumer.close()
        with suppress(errors.Fenced, errors.Forked):
            self.commit()

    def __enter__(self) -> Transacting:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.commit()
        elif self.transaction is not None:
            self.transaction.abort()
