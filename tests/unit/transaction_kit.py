"""What do tests of transactions share: a shop whose orders become invoices, and what readers see of it?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tidelog
from tidelog.log import Log


class Failure(Exception):
    """What a program raises."""


def values(channel: Any, *, dirty: bool = False) -> list[Any]:
    """The values that a reader sees, by partition; `dirty`: of open and aborted transactions too."""
    isolation: Any = "read-uncommitted" if dirty else "read-committed"
    return [message.value for message in channel.scan(isolation=isolation)]


def committed(channel: Any, group: str | None = None) -> dict[int, int]:
    """How far a group (a queue's own) has come, by partition."""
    wanted = channel.name if group is None else group
    return {row.partition: row.offset for row in channel.offsets() if row.group == wanted and row.offset >= 0}


class Shop:
    """Orders in one partition, invoices in three, a producer with a name."""

    def __init__(self, log: Log, orders: int = 5) -> None:
        self.log = log
        self.orders = log.queue("orders", str, partitions=1)
        self.invoices = log.queue("invoices", str, partitions=3)
        self.receipts = log.topic("receipts", str, partitions=1)
        self.producer = log.producer(name="till")
        self.orders.send_many([f"order {number}" for number in range(orders)])

    def seen(self) -> tuple[list[str], list[str]]:
        """Invoices, sorted, and receipts, as a reader sees them."""
        return sorted(values(self.invoices)), values(self.receipts)


def shops(url: Any) -> Iterator[Shop]:
    """A shop in a log, closed at the end."""
    with tidelog.open(url) as log:
        yield Shop(log)
