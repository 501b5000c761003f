"""How unevenly do the messages of a channel fall on its partitions, and which keys are to blame?

Floor 3: imports nothing of tidelog but types. Thread rule: a `SkewCounter` belongs to one thread; the functions are
pure.

Keys choose the partition, so one hot key fills one partition, whatever the number of partitions is. There are two ways
to know. `SkewCounter` reads every message and counts exactly, up to KEYS_MAX different keys; beyond it the rarest half
is forgotten now and then, which never costs one of the hottest. `live` asks what senders have sampled while they
appended, one message in 64, of the last million messages or so (4 to 8 million where so many were sent):

    A key whose true share is p has a share of the n samples that differs from it by a standard error of
    sqrt(p (1 - p) / n): 0.5 % of all messages for p = 20 % after 400,000 messages, and less for every other key with
    more. The 128 counters (16 sets of 8, each a space-saving sketch) are too high by at most their `error`, which is
    counted with them: an eighth of the samples in the key's set at most, n / 128 where keys spread over the sets.

`HotKey.error` is half the second plus three times the first: the true share is within `share` +- `error` for 997 of
1,000 keys.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import sqrt
from typing import Any, NamedTuple, TypeAlias

KEYS_MAX = 1_000_000
UNEVEN = 1.5
"""From this ratio of the fullest partition to the mean on there is something to say."""
FAR_ERRORS = 3.0
"""Standard errors that `HotKey.error` allows for."""

Sampled: TypeAlias = tuple[int, int, int, list[tuple[bytes, int, int, int, int]]]
"""samples, those without a key, ms since 1970, [(start of the key, its length, partition, count, error)]"""


class HotKey(NamedTuple):
    """One of the most frequent keys. `share`: of all messages of the channel, 0 to 1."""

    key: bytes | None
    """None: the messages without a key. Of a key that was sampled only its first 32 bytes are known."""
    partition: int
    """Where most of its messages are; of messages without a key that were sampled: -1."""
    messages: int
    """How many; where they were sampled, of `Skew.messages`, estimated by the share."""
    share: float
    error: float = 0.0
    """The true share is at most so far from `share`; 0.0 where messages were counted."""


class PartitionShare(NamedTuple):
    """What one partition holds. Shares are of the whole channel, 0 to 1."""

    partition: int
    messages: int
    bytes: int
    """Keys and values, without what the format adds; live: of the log, as it is stored."""
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
    """False: there were so many keys that `hottest` is an estimate from below, or they were sampled."""
    samples: int | None = None
    """How many messages `hottest` was estimated from; None: all were read."""
    since: datetime | None = None
    """When sampling began: the first start of a sender since the machine started."""

    @property
    def max_over_mean(self) -> float:
        """Messages of the fullest partition over the mean: 1.0 is even; 0.0 where there are no messages."""
        if not self.messages:
            return 0.0
        return max(share.messages for share in self.partitions) * len(self.partitions) / self.messages

    @property
    def advice(self) -> tuple[str, ...]:
        """What to do about an uneven channel, in sentences; nothing for an even one."""
        return advise(self)


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
        shares = spread(list(zip(self._messages, self._bytes, strict=True)))
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


def spread(held: Sequence[tuple[int, int]]) -> tuple[PartitionShare, ...]:
    """(messages, bytes) of each partition, with their shares."""
    messages, size_bytes = sum(count for count, _ in held), sum(length for _, length in held)
    return tuple(
        PartitionShare(number, count, length, count / max(messages, 1), length / max(size_bytes, 1))
        for number, (count, length) in enumerate(held)
    )


# --- live ---


def live(held: Sequence[tuple[int, int]], sampled: Sampled | None, hottest: int) -> Skew:
    """(messages, bytes) of each partition, from the log ends, and the hottest keys out of the samples.

    A key is listed when at least half of its count is certain: with many keys of which none is hot the counters are
    full of keys that only inherited theirs.
    """
    shares = spread(held)
    messages, size_bytes = sum(count for count, _ in held), sum(length for _, length in held)
    if sampled is None:
        return Skew(shares, (), messages, size_bytes, exact=False, samples=0)
    samples, keyless, since_ms, keys = sampled
    found = [
        _hot(key, partition if partition < len(held) else -1, count, error, samples, messages)
        for key, _, partition, count, error in keys
        if 2 * error <= count
    ]
    if keyless:
        found.append(_hot(None, -1, keyless, 0, samples, messages))
    found.sort(key=lambda hot: (-hot.share, hot.key or b""))
    return Skew(
        shares, tuple(found[:hottest]), messages, size_bytes, exact=False, samples=samples, since=_moment(since_ms)
    )


def _hot(key: bytes | None, partition: int, count: int, error: int, samples: int, messages: int) -> HotKey:
    share = (count - error / 2) / samples
    # By a share that is not 0 or 1 even where all samples are: nothing is certain after ten of them.
    likely = min(max(share, 1 / (samples + 2)), 1 - 1 / (samples + 2))
    far = error / (2 * samples) + FAR_ERRORS * sqrt(likely * (1 - likely) / samples)
    return HotKey(key, partition, round(share * messages), share, far)


def _moment(milliseconds: int) -> datetime | None:
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return None


# --- what to do about it ---


def advise(skew: Skew) -> tuple[str, ...]:
    """Sentences about an uneven channel; none for an even one."""
    count = len(skew.partitions)
    if count == 1 or not skew.messages or not skew.hottest:
        return ()
    hot = skew.hottest[0]
    fullest = max(skew.partitions, key=lambda share: share.messages)
    # A key with the share of more than one partition and a half will fill one, even if the log is still even.
    if skew.max_over_mean < UNEVEN and not (hot.key is not None and hot.share * count >= UNEVEN):
        return ()
    if hot.key is not None and hot.share >= 1 / count:
        large = [other for other in skew.hottest if other.key is not None and other.share >= 1 / count]
        if len(large) > 1:
            names = ", ".join(f"{key_name(other.key)} ({percent(other.share)})" for other in large[:4])
            return (
                f"{len(large)} keys carry {percent(sum(other.share for other in large))} of all messages: {names}.",
                "More partitions do not help. If their messages need no order, split each (append 0 to 3, say).",
            )
        name, share = key_name(hot.key), percent(hot.share)
        return (
            f"key '{name}' alone is {share} of all messages and fills partition {hot.partition}.",
            "More partitions do not help. If its messages need no order, make it several keys (append 0 to 3, say).",
        )
    if hot.key is None and hot.share >= 1 / count and hot.partition in (-1, fullest.partition):
        return (
            f"what is sent without a key is {percent(hot.share)} of all messages.",
            "Each call sends it to one partition: it evens out over many calls, or give keys or partition=.",
        )
    in_fullest = [other for other in skew.hottest if other.partition == fullest.partition and other.key is not None]
    if len(in_fullest) > 1:
        names = ", ".join(key_name(other.key) for other in in_fullest[:3])
        share = percent(sum(other.share for other in in_fullest))
        return (
            f"several hot keys meet in partition {fullest.partition} ({names}): {share} of all messages.",
            "More partitions may part them: channel.configure(partitions=...); keys move then.",
        )
    return (
        f"partition {fullest.partition} has {percent(fullest.message_share)} of all messages.",
        "Look at how keys and partition= are chosen.",
    )


def percent(share: float) -> str:
    """0.412 -> "41.2 %"."""
    return f"{share * 100:.1f} %"


def key_name(key: bytes | None) -> str:
    """A key for people, on one line and without control characters: text where it is UTF-8, else hex."""
    if not key:
        return "-" if key is None else '""'
    try:
        text = key.decode()
    except UnicodeDecodeError:
        return "0x" + key.hex()
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


# --- a key that is too hot ---


class SkewEvent(NamedTuple):
    """One key has more than its share of a channel. `str()` of it is a sentence."""

    channel: str
    key: bytes
    share: float
    error: float
    """The true share is at most so far from `share`."""
    partition: int
    partitions: int
    samples: int

    def __str__(self) -> str:
        return (
            f"key '{key_name(self.key)}' is {percent(self.share)} (+- {percent(self.error)}) of what is sent to "
            f"{self.channel!r} and goes to one of its {self.partitions} partitions, {self.partition}: split the key, "
            f"or see `tidelog info {self.channel}`"
        )
