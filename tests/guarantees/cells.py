"""Which cells are there, and how is a test told which one it is?

A cell is engine x ack x delivery x event: the event is the test, the rest its parameter, whose id can be read off the
tables of docs/guarantees.md.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest

ENGINES = ("directory", "memory")
ACKS = ("written", "synced")
DELIVERIES = ("at-least-once", "at-most-once", "manual", "none")


class Cell(NamedTuple):
    """What a test is about, besides its event."""

    engine: str
    ack: str
    delivery: str

    @property
    def in_group(self) -> bool:
        """Whether offsets are committed."""
        return self.delivery != "none"


def cells(*engines: str) -> pytest.MarkDecorator:
    """The parameter `cell`, with the id `engine-ack-delivery`; of these engines, or of all."""
    found = [Cell(engine, ack, delivery) for engine in engines or ENGINES for ack in ACKS for delivery in DELIVERIES]
    return pytest.mark.parametrize("cell", found, ids="-".join)
