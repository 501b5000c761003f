"""Whom does a log tell of keys that are too hot, and how often?

Floor 3: imports skew, and that only when there is something to say, since every log has a watch. Thread rule:
everything may be called from any thread; listeners run in the thread that sends.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from tidelog._native import Partition
    from tidelog.skew import Sampled, SkewEvent

Listener: TypeAlias = "Callable[[SkewEvent], object]"

WARN_SHARE = 0.25
"""A key with this share of a channel's messages is told to the logger `tidelog.skew`, and to `on_skew` by default."""
QUIET_SECONDS = 60.0
"""Between two warnings about one key of a channel."""
LOOK_SECONDS = 1.0
"""Between two looks of one sender at the keys of a channel that has a hot one: another key may have become hot too."""
MOST_TOLD = 1000
"""Keys that were told of and are remembered; of more, those that were told longest ago are forgotten."""


class SkewWatch:
    """Whom a log tells of keys that are too hot. Senders ask it every 512 samples, in the thread that sends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: list[tuple[float, Listener]] = []
        self._told: dict[tuple[str, bytes], float] = {}
        self.lowest = WARN_SHARE
        """Below this share nobody wants to know."""

    def on(self, listener: Listener, threshold: float) -> None:
        """Call `listener` for keys with at least this share. Raises ValueError, TypeError."""
        if not callable(listener):
            raise TypeError(f"{listener!r} cannot be called: give a function of one argument, a SkewEvent")
        if isinstance(threshold, bool) or not isinstance(threshold, int | float):
            raise TypeError(f"threshold={threshold!r} is no share: give a number above 0 and at most 1")
        if not 0.0 < threshold <= 1.0:
            raise ValueError(f"threshold={threshold!r} is no share: give a number above 0 and at most 1")
        with self._lock:
            self._listeners.append((float(threshold), listener))
            self.lowest = min(self.lowest, float(threshold))

    def hot(self, channel: str, partitions: int, first: Partition) -> float:
        """A sender found a key above `lowest`: tell who wants to know. Answers for how many seconds not to ask again.

        Never raises an Exception: the message that was sent is in the log, and its sender must hear so.
        """
        import logging

        logger = logging.getLogger("tidelog.skew")
        try:
            for event in self._events(channel, partitions, first.sampled()):
                if event.share >= WARN_SHARE:
                    logger.warning("%s", event)
                with self._lock:
                    listeners = list(self._listeners)
                for threshold, listener in listeners:
                    if event.share < threshold:
                        continue
                    try:
                        listener(event)
                    except Exception:
                        logger.exception("a listener for hot keys failed on: %s", event)
        except Exception:
            logger.exception("the sampled keys of %r cannot be read", channel)
        return LOOK_SECONDS

    def _events(self, channel: str, partitions: int, sampled: Sampled | None) -> list[SkewEvent]:
        from tidelog.skew import SkewEvent, live

        found = live([(0, 0)] * partitions, sampled, hottest=8)
        now = time.monotonic()
        events = []
        with self._lock:
            for hot in found.hottest:
                if hot.key is None or hot.share < self.lowest:
                    continue
                if now < self._told.get((channel, hot.key), float("-inf")) + QUIET_SECONDS:
                    continue
                self._told.pop((channel, hot.key), None)  # so that the table stays in the order of its times
                self._told[channel, hot.key] = now
                events.append(
                    SkewEvent(channel, hot.key, hot.share, hot.error, hot.partition, partitions, found.samples or 0)
                )
            while len(self._told) > MOST_TOLD:  # of a program with very many channels
                del self._told[next(iter(self._told))]
        return events
