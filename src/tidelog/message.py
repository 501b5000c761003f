"""What is a message, a batch of them, and a moment in their time?

Floor 3: re-exports the compiled classes and adds how times given by callers become Kafka's milliseconds.
Thread rule: messages, headers and positions never change; a `Batch` decodes on demand and may be shared by threads.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeAlias

from tidelog._native import Batch, Headers, Message, Position, Receipt

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Batch", "Headers", "Message", "Moment", "Position", "Receipt", "epoch_ms", "epoch_ms_array"]

Moment: TypeAlias = datetime | float
"""A datetime with a zone, or seconds since 1970."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_MAX_MS = (1 << 63) - 1


def epoch_ms(moment: Moment, what: str = "the time") -> int:
    """Milliseconds since 1970 of `moment`, rounded up: the first message at or after it is meant.

    `what` names the argument in messages.
    Raises TypeError for other types, ValueError for nan, a time without a zone, and out of range.
    """
    if isinstance(moment, datetime):
        if moment.tzinfo is None:
            raise ValueError(f"{what}={moment} has no time zone: use datetime.now(UTC), or .astimezone()")
        return -((_EPOCH - moment) // _MILLISECOND)
    if isinstance(moment, bool) or not isinstance(moment, int | float):
        raise TypeError(f"{what} is a datetime or a number of seconds since 1970, not {type(moment).__name__}")
    if not math.isfinite(moment) or abs(moment) * 1000 > _MAX_MS:
        raise ValueError(f"{what}={moment} is no time: give a datetime or seconds since 1970")
    # Decimal fractions of a second are not exact in binary: 1.007 s must stay 1007 ms.
    return math.ceil(round(moment * 1000, 3))


def epoch_ms_array(moments: Any) -> NDArray[np.int64]:
    """`epoch_ms` of many: a datetime64 array, an array of seconds, or an iterable of datetimes and seconds.

    Raises like `epoch_ms`, and ValueError for NaT or an array of more than one dimension.
    """
    import numpy as np

    if isinstance(moments, np.ndarray):
        if moments.ndim != 1:
            raise ValueError(f"times are an array of one dimension, not of {moments.ndim}: use .reshape(-1)")
        if moments.dtype.kind == "M":
            if np.isnat(moments).any():
                raise ValueError("the times hold NaT, which is no time: leave it out")
            result: NDArray[np.int64] = moments.astype("M8[ms]").astype(np.int64)
            # The cast rounds down; a time between two milliseconds means the later one.
            return result + (result.astype("M8[ms]") < moments)
        if moments.dtype.kind in "fiu":
            moments = moments.tolist()
    if isinstance(moments, str | bytes) or not isinstance(moments, Iterable):
        raise TypeError(f"times are an array of datetime64 or an iterable of datetimes, not {type(moments).__name__}")
    return np.array([epoch_ms(moment) for moment in moments], dtype=np.int64)
