"""How are latencies counted so that processes can send them to each other and percentiles stay within one per cent?

Floor 9: imports numpy only to add many values at once. Thread rule: one histogram belongs to one thread.

Buckets grow by one per cent, so a percentile is off by at most that; the maximum is exact. Times are nanoseconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

GROWTH = 1.01
_LOG_GROWTH = math.log(GROWTH)


class Histogram:
    """Counts by bucket, the number of values, their maximum."""

    __slots__ = ("counts", "maximum", "total")

    def __init__(self, counts: Mapping[int, int] | None = None, maximum: int = 0) -> None:
        self.counts: dict[int, int] = {int(bucket): count for bucket, count in (counts or {}).items()}
        self.maximum = maximum
        self.total = sum(self.counts.values())

    def add(self, nanoseconds: Iterable[int] | np.ndarray[Any, Any]) -> None:
        """Count every value; values below 1 ns count as 1 ns."""
        import numpy as np

        values = np.maximum(np.asarray(nanoseconds, dtype=np.int64), 1)
        if not len(values):
            return
        buckets, counts = np.unique((np.log(values) / _LOG_GROWTH).astype(np.int64), return_counts=True)
        for bucket, count in zip(buckets.tolist(), counts.tolist(), strict=True):
            self.counts[bucket] = self.counts.get(bucket, 0) + count
        self.total += len(values)
        self.maximum = max(self.maximum, int(values.max()))

    def merge(self, other: Histogram) -> None:
        """Count what `other` has counted."""
        for bucket, count in other.counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + count
        self.total += other.total
        self.maximum = max(self.maximum, other.maximum)

    def percentile(self, percent: float) -> float:
        """The value in seconds that `percent` of all values do not exceed; nan if there is none; 100: the maximum."""
        if not self.total:
            return math.nan
        if percent >= 100:
            return self.maximum / 1e9
        rank, seen = math.ceil(self.total * percent / 100), 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if seen >= rank:
                return min(GROWTH ** (bucket + 1), self.maximum) / 1e9
        return self.maximum / 1e9

    def points(self) -> list[tuple[float, int]]:
        """(seconds at the middle of the bucket, count) for drawing, in order."""
        return [(GROWTH ** (bucket + 0.5) / 1e9, self.counts[bucket]) for bucket in sorted(self.counts)]
