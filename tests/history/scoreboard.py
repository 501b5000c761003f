"""What do the processes of a run tell one another while it goes on?

Pages of numbers in anonymous memory that is shared by fork: each worker writes its own row, the nemesis reads them all.
They survive the death of every worker. Imports nothing of tidelog.
"""

from __future__ import annotations

import mmap
from enum import IntEnum

import numpy as np

SLOTS = 64


class Phase(IntEnum):
    """What the workers are to do."""

    RUN = 0
    FINISH = 1
    """Producers end."""
    PASS_ON = 2
    """Copiers end once there is nothing left to copy."""
    DRAIN = 3
    """Consumers end once there is nothing left to receive."""


class Count(IntEnum):
    """A column of a worker's row."""

    CALLS = 0
    """Calls that did something."""
    LAG = 1
    NO_SPACE = 2
    """Sends that were refused by a full disk."""
    FORKS = 3
    FORKS_WRONG = 4
    """Forked children in which a handle still worked."""
    FENCED = 5
    RAISED = 6
    """Handlers that failed on purpose."""
    OPENED = 7
    """Consumers that were opened."""
    PENDING = 8
    """What a sender with ids was sending: its next life sends it again."""
    COMMITTED = 9
    """Transactions."""
    ABORTED = 10
    """Transactions that were given up on purpose."""
    ZOMBIES = 11
    """Transactions and sends that were refused, since another one has the name or the partition, or the time was up."""
    REPEATED = 12
    """Messages that were there already."""


class Scoreboard:
    """Made before the first fork."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, mmap.PAGESIZE * 2)
        numbers = np.frombuffer(self._memory, np.int64)
        self._phase = numbers[:1]
        self.rows = numbers[64 : 64 + SLOTS * len(Count)].reshape(SLOTS, len(Count))

    @property
    def phase(self) -> Phase:
        """What the workers are to do now."""
        return Phase(int(self._phase[0]))

    @phase.setter
    def phase(self, value: Phase) -> None:
        self._phase[0] = value

    def total(self, column: Count) -> int:
        """The sum over all workers."""
        return int(self.rows[:, column].sum())
