"""How fast do messages come in and go out of a group's view of a channel, and when will its lag be gone?

Floor 9: imports output only. Thread rule: a `Rates` belongs to one thread.

What came in is the growth of the log ends, which are dense while a watch lasts; what went out is that less the growth
of the lag, which counts messages, so that gaps in the offsets do not look like a leap.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from tidelog.cli.output import number, seconds

WINDOW_SECONDS = 5.0
"""Rates are means over about so long: one look's difference would jump with every batch."""
STEADY_SHARE = 0.01
"""A difference of in and out below this share of them is none."""

_Key = tuple[str, str]


class Rates:
    """In and out per second, by group and channel, over the last few looks."""

    def __init__(self) -> None:
        self._looks: dict[_Key, deque[tuple[float, int, int]]] = {}
        self._seen: dict[tuple[str, str, int], tuple[int, int, int | None]] = {}
        self._totals: dict[_Key, tuple[int, int]] = {}

    def note(self, now: float, rows: Sequence[Mapping[str, Any]]) -> None:
        """Take in a look at time `now` (seconds): rows with group, channel and their partitions as `parts`."""
        for row in rows:
            key = row["group"], row["channel"]
            came, went = self._totals.get(key, (0, 0))
            for part in row["parts"]:
                place = (*key, part.partition)
                before = self._seen.get(place)
                self._seen[place] = part.log_end, part.lag, part.committed
                if before is None:
                    continue
                end, lag, committed = before
                more = max(part.log_end - end, 0)
                came += more
                # A lag that falls while nothing is committed was taken by retention: nobody has read it.
                if part.committed != committed:
                    went += max(more - (part.lag - lag), 0)
            self._totals[key] = came, went
            looks = self._looks.setdefault(key, deque())
            looks.append((now, came, went))
            while len(looks) > 2 and now - looks[1][0] >= WINDOW_SECONDS:
                looks.popleft()

    def of(self, group: str, channel: str) -> dict[str, float | None]:
        """in_per_s and out_per_s; None after a single look."""
        looks = self._looks[group, channel]
        (since, came, went), (now, came_now, went_now) = looks[0], looks[-1]
        if now <= since:
            return {"in_per_s": None, "out_per_s": None}
        return {"in_per_s": (came_now - came) / (now - since), "out_per_s": (went_now - went) / (now - since)}


def drains_in(row: Mapping[str, Any]) -> float | None:
    """Seconds until the lag is gone at these rates; 0.0 without lag, None: never, or not known yet."""
    if not row["lag"]:
        return 0.0
    came, went = row["in_per_s"], row["out_per_s"]
    return row["lag"] / (went - came) if came is not None and went > came else None


def drains(row: Mapping[str, Any]) -> str | None:
    """The same for people: a time, "steady", or that it never does."""
    came, went, lag = row["in_per_s"], row["out_per_s"], row["lag"]
    if came is None:
        return None
    if not lag and not came:
        return None
    # Within a second's traffic a lag is messages on their way, and its changes are noise.
    if lag <= max(came, went) or (came and abs(went - came) <= STEADY_SHARE * max(came, went)):
        return "steady"
    if went > came:
        return seconds(lag / (went - came))
    return f"never, growing {number(came - went)}/s" if came > went else "never, nobody reads"
