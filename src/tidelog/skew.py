"""How unevenly do the messages of a channel fall on its partitions, and which keys are to blame?

Floor 3: imports nothing of tidelog but types. Thread rule: a `Counter` of this file belongs to one thread.

Keys choose the partition, so one hot key fills one partition, whatever the number of partitions is. Counting is exact
up to KEYS_MAX different keys; beyond it the rarest half is forgotten now and then, which never costs one of the
hottest.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, NamedTuple

KEYS_MAX = 1_000_000


class HotKey(NamedTuple):
    """One of the most frequent keys. `share`: of all messages of the channel, 0 to 1."""

    key: bytes | None
    """None: the messages without a key."""
    partition: int
    """Where most of its messages are."""
    messages: int
    share: float


class PartitionShare(NamedTuple):
    """What one partition holds. Shares are of the whole channel, 0 to 1."""

    partition: int
    messages: int
    bytes: int
    """Keys and values, without what the format adds."""
    message_share: float
    byte_share: float


@dataclass(frozen=True, slots=True)
class Skew:
    """How the messages that are in a channel now are spread."""

    partitions: tuple[PartitionShare, ...]
    hottest: tuple[HotKey, ...]
    """The most frequent first."""
    messages: int
    bytes: int
    exact: bool
    """False: there were so many keys that `hottest` is an estimate from below."""

    @property
    def max_over_mean(self) -> float:
        """Messages of the fullest partition over the mean: 1.0 is even; 0.0 where there are no messages."""
        if not self.messages:
            return 0.0
        return max(share.messages for share in self.partitions) * len(self.partitions) / self.messages


class SkewCounter:
    """Adds up batches of a channel with `partitions` partitions."""

    def __init__(self, partitions: int) -> None:
        self._messages = [0] * partitions
        self._bytes = [0] * partitions
        self._keys: Counter[tuple[bytes | None, int]] = Counter()
        self._exact = True

    def add(self, partition: int, keys: list[bytes | None], value_bytes: int) -> None:
        """Count messages of one partition: their keys, and how long all values together are."""
        self._messages[partition] += len(keys)
        self._bytes[partition] += value_bytes + sum(map(len, filter(None, keys)))
        for key, count in Counter(keys).items():
            self._keys[key, partition] += count
        if len(self._keys) > KEYS_MAX:
            self._keys = Counter(dict(self._keys.most_common(KEYS_MAX // 2)))
            self._exact = False

    def result(self, hottest: int) -> Skew:
        """The sum, with the `hottest` most frequent keys."""
        messages, size_bytes = sum(self._messages), sum(self._bytes)
        shares = tuple(
            PartitionShare(number, count, length, count / max(messages, 1), length / max(size_bytes, 1))
            for number, (count, length) in enumerate(zip(self._messages, self._bytes, strict=True))
        )
        return Skew(shares, self._hottest(hottest, messages), messages, size_bytes, self._exact)

    def _hottest(self, count: int, messages: int) -> tuple[HotKey, ...]:
        # A key may stand in several partitions: messages without a key do, and so do keys from before a growth.
        totals: Counter[bytes | None] = Counter()
        for (key, _), found in self._keys.items():
            totals[key] += found
        wanted: dict[bytes | None, Any] = dict(totals.most_common(count))
        home: dict[bytes | None, tuple[int, int]] = {}
        for (key, partition), found in self._keys.items():
            if key in wanted:
                home[key] = max(home.get(key, (0, 0)), (found, -partition))
        return tuple(HotKey(key, -home[key][1], found, found / messages) for key, found in wanted.items())
