"""At which offset does reading begin, and at which does it end?

Floor 6: may import engine.base, message. Thread rule: pure functions, but for what they ask the log; callable from any
thread.
"""

from __future__ import annotations

from datetime import datetime
from operator import index as _as_int
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from tidelog.message import epoch_ms

if TYPE_CHECKING:
    from tidelog.engine.base import Opened

__all__ = ["Start", "Stop", "check_offset", "check_start", "check_stop", "resolve"]

Start: TypeAlias = "Literal['earliest', 'latest'] | datetime | int"
"""Where reading begins: the log start, the log end, the first message at or after a time, or an offset."""
Stop: TypeAlias = "Literal['end'] | datetime | int | None"
"""Where it ends: at the log end as it is now, before a time or an offset, or never."""


def resolve(opened: Opened, number: int, where: Start | Literal["end"], *, uncommitted: bool = False) -> int:
    """The offset that `where` means in a partition; offsets are taken as they are. "latest" and "end" lie before the
    first message of a transaction that is open, unless `uncommitted` ones are read too.

    Raises TypeError or ValueError for what is no place.
    """
    partition = opened.partitions[number]
    if isinstance(where, datetime):
        import numpy as np

        found = int(partition.find(np.array([epoch_ms(where)], dtype=np.int64), opened.decompress)[0])
        return found if uncommitted else min(found, partition.stable_end())
    if where == "earliest":
        return partition.bounds()[0]
    if where in ("latest", "end"):
        return partition.bounds()[1] if uncommitted else partition.stable_end()
    return check_offset(where, "start")


def check_start(start: object) -> None:
    """Raise TypeError or ValueError unless `start` is a place where reading can begin."""
    if not isinstance(start, datetime) and start not in ("earliest", "latest"):
        check_offset(start, "start", "'earliest', 'latest', a datetime or an offset")


def check_stop(stop: object) -> None:
    """Raise TypeError or ValueError unless `stop` is a place where reading can end, or None."""
    if stop is not None and not isinstance(stop, datetime) and stop != "end":
        check_offset(stop, "stop", "'end', a datetime, an offset or None")


def check_offset(value: Any, what: str, allowed: str = "an offset") -> int:
    """`value` as an offset (numpy's integers too). Raises TypeError or ValueError, naming `what` and what is
    `allowed`."""
    if isinstance(value, str):
        raise ValueError(f"{what}={value!r} is no place: use {allowed}")
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{what}={value!r} is no place: use {allowed}, not {type(value).__name__}")
    number = _as_int(value)
    if not 0 <= number < 1 << 63:
        raise ValueError(f"{what}={number} is no offset: offsets are 0 or larger")
    return number
