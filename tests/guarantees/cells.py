"""Which cells are there, and how is a test told which one it is?

A cell is engine x ack x delivery x event: the event is the test, the rest its parameter, whose id can be read off the
tables of docs/guarantees.md.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

ENGINES = ("directory", "memory")
ACKS = ("written", "synced")
DELIVERIES = ("at-least-once", "at-most-once", "manual", "exactly-once", "none")
APPLICATION = "App"
"""Stands where the engine does: an application on a directory."""
APPLICATION_DELIVERIES = ("at-least-once", "at-most-once", "exactly-once")


class Cell(NamedTuple):
    """What a test is about, besides its event."""

    engine: str
    ack: str
    delivery: str

    @property
    def in_group(self) -> bool:
        """Whether offsets are committed."""
        return self.delivery != "none"


def expect_results(cell: Cell, actor: Any, values: list[str], in_order: bool = True) -> None:
    """Exactly once: what came of these messages is there, once each, whoever handled them and how often."""
    if cell.delivery == "exactly-once":
        found = actor.results()
        assert found == values if in_order else sorted(found) == sorted(values)


def cells(*engines: str) -> pytest.MarkDecorator:
    """The parameter `cell`, with the id `engine-ack-delivery`; of these engines, or of all."""
    found = [Cell(engine, ack, delivery) for engine in engines or ENGINES for ack in ACKS for delivery in DELIVERIES]
    return pytest.mark.parametrize("cell", found, ids="-".join)


def application_cells() -> pytest.MarkDecorator:
    """The parameter `cell` for applications, with the id `App-ack-delivery`."""
    found = [Cell(APPLICATION, ack, delivery) for ack in ACKS for delivery in APPLICATION_DELIVERIES]
    return pytest.mark.parametrize("cell", found, ids="-".join)
