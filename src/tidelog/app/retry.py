"""How often is a message tried again, and how long is the wait before each try?

Floor 8: may import config. Thread rule: a `Retry` never changes; any thread may ask it.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias

from tidelog.config import Duration

__all__ = ["Retries", "Retry", "retry_of"]


@dataclass(frozen=True, slots=True)
class Retry:
    """A policy of retries: exponential backoff with jitter and a maximum of attempts.

    `attempts`: how often a message is handed to the handler at most, the first time included (1: never again).
    `first`: seconds (or timedelta) before the second attempt; each further wait is `factor` times longer, `most` at
    most. `jitter`: the share of a wait that is left to chance, 0 to 1: the wait lies between (1 - jitter) of the full
    one and the full one, so `most` holds, and messages that failed together do not come back together.

    Raises TypeError or ValueError for values out of range.
    """

    attempts: int = 4
    first: Duration = 0.1
    factor: float = 2.0
    most: Duration = 60.0
    jitter: float = 0.2

    def __post_init__(self) -> None:
        if isinstance(self.attempts, bool) or not isinstance(self.attempts, int):
            raise TypeError(f"attempts={self.attempts!r}: give an int, how often a message is tried at most")
        if self.attempts < 1:
            raise ValueError(f"attempts={self.attempts}: the first try counts too, so the least is 1")
        object.__setattr__(self, "first", _seconds(self.first, "first"))
        object.__setattr__(self, "most", _seconds(self.most, "most"))
        for name, least in (("factor", 1.0), ("jitter", 0.0)):
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, int | float):
                raise TypeError(f"{name}={number!r}: give a number")
            if not math.isfinite(number) or number < least:
                raise ValueError(f"{name}={number!r}: the least is {least:g}")
        if self.jitter > 1:
            raise ValueError(f"jitter={self.jitter!r}: it is a share of the wait, 0 to 1")

    def full_delay(self, attempt: int) -> float:
        """Seconds from the failure of `attempt` (1 is the first) to the next one, before jitter."""
        first, most = _seconds(self.first, "first"), _seconds(self.most, "most")
        if not first:
            return 0.0
        try:
            return min(first * self.factor ** (attempt - 1), most)
        except OverflowError:  # factor ** 5000 is no float, but the product of a very small `first` may be one
            exponent = math.log(first) + (attempt - 1) * math.log(self.factor)
            return min(math.exp(min(exponent, 700.0)), most)

    def delay(self, attempt: int, chance: float | None = None) -> float:
        """Seconds to wait after the failure of `attempt`; `chance` (0 to 1) stands for the die that is thrown."""
        throw = random.random() if chance is None else chance
        return self.full_delay(attempt) * (1 - self.jitter * throw)


Retries: TypeAlias = "int | Retry"
"""A number of retries (0: none) with the waits that `Retry` has by default, or a whole policy."""


def retry_of(retries: Retries) -> Retry:
    """The policy that `retries=` means: 3 is four attempts. Raises TypeError or ValueError."""
    if isinstance(retries, Retry):
        return retries
    if isinstance(retries, bool) or not isinstance(retries, int):
        raise TypeError(f"retries={retries!r}: give a number of retries, or tidelog.app.Retry(attempts=...)")
    if retries < 0:
        raise ValueError(f"retries={retries}: the least is 0, which means that nothing is tried twice")
    return Retry(attempts=retries + 1)


def _seconds(value: Duration, name: str) -> float:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"{name}={value!r}: give seconds or a timedelta")
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError(f"{name}={value!r}: a wait is 0 s or longer")
    return float(seconds)
