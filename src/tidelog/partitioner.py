"""Which bytes is a key, and which partition does a user's own rule choose?

Floor 3: imports nothing of tidelog (Kafka's murmur2 rule itself is native code). numpy is looked at, never imported.
Thread rule: pure functions, callable from any thread. A user's partitioner is called from whichever thread sends.

Key rule: bytes as they are, str as UTF-8, int as 8 bytes big-endian signed (what Java's LongSerializer writes), numpy
`S` values without their trailing NULs. Anything else is refused, because two languages would disagree on its bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import index as _index
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    import numpy as np

Key: TypeAlias = "bytes | bytearray | memoryview | str | int | np.integer[Any] | np.bytes_ | None"
"""What callers may give as a key."""

_RULE = "a key is bytes, str, int (8 bytes, big-endian) or None"


class Partitioner(Protocol):
    """A user's own rule: `rule(key, value, partitions) -> partition`.

    `key: bytes | None` is the key's bytes, `value` the message's value as given to `send`, `partitions: int` the count.
    """

    def __call__(self, key: bytes | None, value: Any, partitions: int, /) -> int:
        """The partition, 0 to partitions - 1."""


def key_bytes(key: Key) -> bytes | None:
    """The bytes of one key; None stays None (no key), and an empty key is a key.

    Raises TypeError for bool and for types without an agreed byte form, ValueError for an int outside 64 bits signed or
    a str that UTF-8 cannot hold.
    """
    kind = type(key)
    if key is None or kind is bytes:
        return key  # type: ignore[return-value]  # narrowed by kind, which mypy does not follow
    if isinstance(key, str):
        try:
            return key.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"the key {key!r} cannot be written as UTF-8: {error.reason}; give bytes") from error
    if isinstance(key, bool) or kind.__name__ in ("bool", "bool_"):  # numpy 1 and 2 name theirs differently
        raise TypeError(f"{key!r} is a bool: {_RULE}; write int(key) if a number is meant")
    if isinstance(key, bytes):  # numpy.bytes_ among them: numpy pads with NULs
        return bytes(key).rstrip(b"\0") if hasattr(key, "dtype") else bytes(key)
    if isinstance(key, bytearray | memoryview):
        return bytes(key)
    try:
        number = _index(key)  # also numpy's integers
    except TypeError:
        raise TypeError(f"{kind.__qualname__} cannot be a key: {_RULE}; convert it, perhaps with str(key)") from None
    try:
        return number.to_bytes(8, "big", signed=True)
    except OverflowError:
        raise ValueError(
            f"the key {number} does not fit in 8 bytes signed (-2**63 .. 2**63-1), the width every Kafka client agrees "
            f"on; give str(key) or bytes"
        ) from None


def key_list(keys: Iterable[Key]) -> list[bytes | None]:
    """The bytes of many keys: a sequence of keys, or a one-dimensional array of bytes (`S`), str (`U`) or integers.

    Raises like `key_bytes`, naming the position of the first wrong key; TypeError for other arrays.
    """
    dtype = getattr(keys, "dtype", None)
    if dtype is not None:
        if getattr(keys, "ndim", 1) != 1 or dtype.kind not in "SUiuO":
            shape = getattr(keys, "shape", "?")
            raise TypeError(f"an array of {dtype} of shape {shape} cannot hold keys: give one dimension of S, U or int")
        keys = keys.tolist()  # type: ignore[attr-defined]  # native values; S without trailing NULs
    result: list[bytes | None] = []
    for key in keys:
        try:
            result.append(key if type(key) is bytes else key_bytes(key))
        except (TypeError, ValueError) as error:
            raise type(error)(f"key {len(result)}: {error}") from None
    return result


def check_partition(partition: int, partitions: int) -> int:
    """Return `partition` as int if it is in 0..partitions-1. Raises TypeError or ValueError."""
    if isinstance(partition, bool):
        raise TypeError(f"a partition is an int, not the bool {partition!r}")
    try:
        number = _index(partition)
    except TypeError:
        raise TypeError(f"a partition is an int, not {type(partition).__name__}") from None
    if not 0 <= number < partitions:
        raise ValueError(f"partition {number} does not exist: the channel has partitions 0..{partitions - 1}")
    return number


def choose(partitioner: Partitioner, key: bytes | None, value: Any, partitions: int) -> int:
    """Ask a user's partitioner and check its answer; what it raises passes through.

    Raises TypeError or ValueError, naming the partitioner, if the answer is not an int in 0..partitions-1.
    """
    answer = partitioner(key, value, partitions)
    try:
        return check_partition(answer, partitions)
    except (TypeError, ValueError) as error:
        name = getattr(partitioner, "__qualname__", None) or type(partitioner).__qualname__
        raise type(error)(f"the partitioner {name} answered {answer!r}: {error}") from None
