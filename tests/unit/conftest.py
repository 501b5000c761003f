"""What do many unit tests begin with?"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import tidelog
from tidelog.channel import Queue
from tidelog.log import Log


@pytest.fixture
def log() -> Iterator[Log]:
    """An open log in memory."""
    with tidelog.open("memory:") as opened:
        yield opened


@pytest.fixture
def queue(tide: Log) -> Queue[bytes]:
    """A queue of four partitions in a temporary log."""
    return tide.queue("orders", partitions=4)
