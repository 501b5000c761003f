"""Which channel names are allowed, and which directory belongs to a partition?

Floor 3: imports nothing of tidelog. Thread rule: pure functions, callable from any thread.

The rule is Kafka's topic rule, so that every channel can be served and mirrored, plus the few names that the store
needs for itself. Names become file names, so nothing that passes here may leave the store directory.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

MAX_NAME_CHARS = 249
"""Longest channel name; with "-" and five digits of partition it still fits in a 255 byte file name."""

MAX_PARTITIONS = 100_000
"""Partitions per channel: five decimal digits at most."""

INTERNAL = frozenset({"__consumer_offsets", "__transaction_state", "__share_group_state", "__cluster_metadata"})
"""Topics that belong to a Kafka broker itself."""

DELETED_PREFIX = ".deleted"
"""Directories of dropped channels begin with this, so channels must not."""

_LEGAL = re.compile(r"[a-zA-Z0-9._-]+", re.ASCII)
_ILLEGAL = re.compile(r"[^a-zA-Z0-9._-]", re.ASCII)
_DIRECTORY = re.compile(r"(.+)-(0|[1-9][0-9]{0,4})", re.ASCII | re.DOTALL)
_RULE = "use 1 to 249 characters of a-z A-Z 0-9 . _ -"


def check_channel(name: str, *, internal: bool = False) -> str:
    """Return `name` if it may name a channel; `internal=True` also allows the broker's own topics.

    Raises TypeError if it is not a str, ValueError (saying what is wrong and what is allowed) otherwise.
    """
    if not isinstance(name, str):
        raise TypeError(f"a channel name is a str, not {type(name).__name__}; {_RULE}")
    if not name:
        raise ValueError(f"a channel name cannot be empty; {_RULE}")
    if len(name) > MAX_NAME_CHARS:
        raise ValueError(f"the channel name {name[:40]!r}... has {len(name)} characters; {_RULE}")
    if name in (".", ".."):
        raise ValueError(f"{name!r} cannot name a channel: it is a directory of its own; {_RULE}")
    if not _LEGAL.fullmatch(name):
        wrong = _ILLEGAL.search(name)
        found = wrong.group() if wrong else name
        raise ValueError(f"the channel name {name!r} has the character {found!r}; {_RULE}")
    if name.startswith(DELETED_PREFIX):
        raise ValueError(f"{name!r} is reserved: the store keeps dropped channels under {DELETED_PREFIX!r}; {_RULE}")
    if name in INTERNAL and not internal:
        raise ValueError(f"{name!r} is reserved for the broker's own state; choose another name")
    return name


def collides_with(name: str, existing: Iterable[str]) -> str | None:
    """The first other name of `existing` that differs from `name` only in '.' against '_', or None.

    Kafka's metrics write both as '_', so it refuses such pairs. The name itself does not collide with itself.
    """
    folded = name.replace(".", "_")
    for other in existing:
        if other != name and other.replace(".", "_") == folded:
            return other
    return None


def check_new(name: str, existing: Iterable[str], *, internal: bool = False) -> str:
    """Return `name` if a channel of this name may be created beside `existing`. Raises like `check_channel`."""
    check_channel(name, internal=internal)
    other = collides_with(name, existing)
    if other is not None:
        raise ValueError(
            f"the channel name {name!r} collides with the channel {other!r}: names that differ only in '.' and '_' are "
            f"one and the same in Kafka's metrics; open {other!r} or choose another name"
        )
    return name


def partition_directory(channel: str, partition: int) -> str:
    """The directory name of one partition, "orders-0". Raises ValueError if the partition is out of range."""
    if not 0 <= partition < MAX_PARTITIONS:
        raise ValueError(f"partition {partition} is not in 0..{MAX_PARTITIONS - 1}")
    return f"{channel}-{partition}"


def parse_partition_directory(directory: str) -> tuple[str, int] | None:
    """(channel, partition) of a directory name, parted at the last '-'; None if it is not a partition's directory.

    Only the spelling that `partition_directory` writes is accepted: "orders-07" is nobody's.
    """
    found = _DIRECTORY.fullmatch(directory)
    if found is None:
        return None
    try:
        return check_channel(found.group(1), internal=True), int(found.group(2))
    except ValueError:
        return None
