"""What the compiled extension offers to the floors above it. Checked against the extension by stubtest."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from types import GenericAlias
from typing import Any, Final, Generic, NamedTuple, TypeVar, overload

import numpy as np
from numpy.typing import NDArray
from typing_extensions import disjoint_base

_T = TypeVar("_T")
_T_co = TypeVar("_T_co", covariant=True)

BUILD: Final[dict[str, Any]]
"""How it was built: compiler, flags, test points, sanitizers; the CRC implementation chosen is crc32c_name()."""

# --- primitives (public through tidelog.native) ---

def crc32c(data: Any, crc: int = 0, /) -> int: ...
def crc32c_name() -> str: ...
def murmur2(key: Any, /) -> int: ...
def partition(keys: Any, partitions: int, /) -> NDArray[np.int32]: ...
def lookup(index: Any, offsets: NDArray[np.int64], base_offset: int = 0, /) -> NDArray[np.int64]: ...

# --- messages ---

class Position(NamedTuple):
    partition: int
    offset: int

@disjoint_base
class Headers(Mapping[str, bytes]):
    def __init__(self, pairs: Iterable[tuple[str, bytes | str | None]] = (), /) -> None: ...
    @property
    def all(self) -> list[tuple[str, bytes | None]]: ...
    def __getitem__(self, name: str, /) -> bytes: ...
    def __iter__(self) -> Iterator[str]: ...
    def __len__(self) -> int: ...
    @overload
    def get(self, name: str, default: None = None, /) -> bytes | None: ...
    @overload
    def get(self, name: str, default: bytes | _T, /) -> bytes | _T: ...

@disjoint_base
class Message(Generic[_T_co]):
    def __class_getitem__(cls, item: Any, /) -> GenericAlias: ...
    @property
    def value(self) -> _T_co: ...
    @property
    def raw(self) -> bytes: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def headers(self) -> Headers: ...
    @property
    def timestamp(self) -> datetime: ...
    @property
    def timestamp_ms(self) -> int: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def channel(self) -> str: ...
    @property
    def id(self) -> str: ...
    @property
    def correlation_id(self) -> str | None: ...
    @property
    def reply_to(self) -> str | None: ...
    @property
    def kind(self) -> str: ...

@disjoint_base
class Batch(Sequence[Message[_T]], Generic[_T]):
    def __class_getitem__(cls, item: Any, /) -> GenericAlias: ...
    @property
    def values(self) -> Any: ...
    @property
    def raws(self) -> list[bytes]: ...
    @property
    def keys(self) -> list[bytes | None]: ...
    @property
    def offsets(self) -> NDArray[np.int64]: ...
    @property
    def timestamps(self) -> NDArray[np.datetime64]: ...
    @property
    def partitions(self) -> NDArray[np.int32]: ...
    @property
    def nbytes(self) -> int: ...
    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, index: int, /) -> Message[_T]: ...
    @overload
    def __getitem__(self, index: slice, /) -> Batch[_T]: ...
    def __iter__(self) -> Iterator[Message[_T]]: ...
    def __arrow_c_stream__(self, requested_schema: object = None) -> object: ...
    def index(self, value: Any, start: int = 0, stop: int | None = None, /) -> int: ...
    def count(self, value: Any, /) -> int: ...
    def ends(self) -> dict[int, int]:
        """{partition: last offset + 1} of the messages in the batch."""

@disjoint_base
class Channelled:
    """What messages of a channel share: built once per channel handle, handed to readers and senders."""

    def __init__(
        self,
        name: str,
        kind: str,
        *,
        encode: Callable[[Any], bytes] | None,
        decode: Callable[[bytes], Any] | None,
        encode_many: Callable[[Iterable[Any]], list[bytes]] | None,
        decode_many: Callable[[Sequence[bytes]], list[Any]] | None,
        dtype: np.dtype[Any] | None,
        key_bytes: Callable[[Any], bytes | None],
        decompress: Callable[[int, bytes], bytes],
        max_message_bytes: int,
        rows: Callable[[Any], NDArray[Any]] | None = None,
        carries: str | None = None,
    ) -> None: ...
    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def carries(self) -> str: ...

# --- the store ---

@disjoint_base
class Store:
    """One reference on the native store of a directory. Every blocking call releases the GIL."""

    def __init__(
        self, path: str, /, *, flush_interval_ms: int, lock_timeout_ms: int, create: bool, look: bool = False
    ) -> None: ...
    @property
    def path(self) -> str: ...
    @property
    def closed(self) -> bool: ...
    @property
    def recovered(self) -> bool:
        """This opener holds the gate alone and must call ready() after it has put the catalogue in order."""
    @property
    def recovery(self) -> dict[str, int | bool]: ...
    @property
    def generation(self) -> int: ...
    def ready(self) -> None: ...
    def close(self) -> None: ...
    def lock_catalogue(self) -> None: ...
    def unlock_catalogue(self) -> None: ...
    def bump_generation(self) -> None: ...
    def create_partitions(
        self,
        directories: Sequence[str],
        channel_id: bytes,
        /,
        *,
        segment_bytes: int,
        segment_ms: int,
        retention_ms: int,
        retention_bytes: int,
        retention_consumed: bool,
        max_message_bytes: int,
        first_partition: int = 0,
    ) -> list[int]: ...
    def configure_partitions(
        self,
        slots: Sequence[int],
        /,
        *,
        segment_bytes: int,
        segment_ms: int,
        retention_ms: int,
        retention_bytes: int,
        retention_consumed: bool,
        max_message_bytes: int,
    ) -> None: ...
    def drop_partitions(self, slots: Sequence[int], /) -> None: ...
    def partitions(self) -> list[tuple[int, str, bytes, int]]:
        """(slot, directory, channel id, partition number) of every slot in use."""
    def partition(self, slot: int, channel_id: bytes, /) -> Partition: ...
    def sync(self) -> None: ...
    def sync_offsets(self) -> None: ...
    def check(self, finding: Callable[[str, int, str, int, int], None], /) -> int:
        """Reads the checkpoint files and the table of offsets; `finding` is called for each damaged place."""
    def housekeep(self) -> None: ...
    def processes(self) -> list[tuple[int, int, bool, int]]:
        """(slot, pid, is this process, started ms)."""
    def committed(self, group: str, channel_id: bytes, partition: int, /) -> int | None:
        """The committed offset, None if there is none."""
    def offsets(self) -> list[tuple[str, bytes, int, int, int, int]]:
        """(group, channel id, partition, offset or -1, commit time ms, pid of the live owner or 0) of every slot."""
    def set_offset(
        self, group: str, channel_id: bytes, partition: int, offset: int, /, *, force: bool = False
    ) -> None: ...
    def forget_channel(self, channel_id: bytes, /) -> None: ...
    def forget_group(self, group: str, /) -> None: ...

@disjoint_base
class Partition:
    """A handle on one partition of an open store."""

    @property
    def slot(self) -> int: ...
    def bounds(self) -> tuple[int, int]:
        """(log start offset, log end offset)."""
    def count_from(self, offset: int, /) -> int:
        """How many messages stand from `offset` to the log end; gaps in the offsets are none."""
    def tail(self) -> int: ...
    def sync(self, tail: int | None = None, timeout: float | None = None, /) -> None: ...
    def trim(self, before: int, /) -> None: ...
    def retain(self, now_ms: int, /) -> int: ...
    def find(
        self, timestamps_ms: NDArray[np.int64], decompress: Callable[[int, bytes], bytes], /
    ) -> NDArray[np.int64]: ...
    def read_at(
        self, offsets: NDArray[np.int64], shared: Channelled, number: int, /, *, uncommitted: bool = False
    ) -> Batch[Any]: ...
    def describe(self) -> dict[str, int]: ...
    def check(
        self,
        finding: Callable[[str, int, str, int, int], None],
        progress: Callable[[int, int, int], None] | None = None,
        /,
    ) -> int: ...

@disjoint_base
class Receipt:
    """What `send` answers: where the message went. Complete on return in the embedded engine."""

    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def count(self) -> int: ...
    @property
    def done(self) -> bool: ...
    def result(self, timeout: float | timedelta | None = None, level: str | None = None) -> Position: ...
    @property
    def partitions(self) -> NDArray[np.int32]: ...
    @property
    def offsets(self) -> NDArray[np.int64]: ...

@disjoint_base
class Sender:
    """The sending half of a channel, for one ack level and compression; thread-safe. Channel derives from it."""

    def _attach(
        self,
        store: Store,
        partitions: Sequence[Partition],
        shared: Channelled,
        *,
        synced: bool,
        partitioner: Callable[[bytes | None, Any, int], int] | None,
        compress: Callable[[bytes], bytes] | None,
        codec_id: int,
    ) -> None: ...
    def send(
        self,
        value: Any,
        *,
        key: Any = None,
        headers: Mapping[str, Any] | Iterable[tuple[str, Any]] | None = None,
        id: str | None = None,
        partition: int | None = None,
        timestamp: datetime | float | None = None,
    ) -> Receipt: ...
    def send_many(
        self,
        values: Any,
        *,
        keys: Any = None,
        headers: Sequence[Any] | None = None,
        ids: Sequence[str] | None = None,
        partition: int | None = None,
        timestamp: Any = None,
    ) -> Receipt: ...

class Reader:
    """Reads partitions of one or more channels in turn, and holds their leases and committed offsets. Not thread-safe:
    a second thread inside raises. Consumer derives from it."""

    def _attach(
        self,
        store: Store,
        partitions: Sequence[tuple[Partition, int, Channelled]],
        *,
        group: str | None,
        channel_ids: Sequence[bytes],
        mode: str,
        uncommitted: bool,
        busy_poll: float,
        max_bytes: int,
    ) -> None:
        """mode: "at-least-once", "at-most-once", "manual" or "none" (no group, no commits)."""
    def _claim(self, timeout: float, /) -> list[int | None]:
        """Takes the lease of every partition; answers the committed offsets. Raises Locked with the holder."""
    def _seek(self, index: int, offset: int, /) -> None: ...
    def _position(self, index: int, /) -> int: ...
    def _stop_at(self, ends: Sequence[int] | None, /) -> None:
        """Offsets at which each partition is finished: iteration ends when all are."""
    def _pause(self, index: int, paused: bool, /) -> None: ...
    def _commit(self, index: int, offset: int, /) -> None: ...
    def _committed(self, index: int, /) -> int | None: ...
    def _bounds(self, index: int, /) -> tuple[int, int]: ...
    def _count(self, index: int, offset: int, /) -> int: ...
    def _release(self) -> None:
        """Gives the leases back."""
    def _cancel(self) -> None:
        """Wakes a blocked call of another thread, which then raises Closed. Callable from any thread."""
    def _settle(self) -> None:
        """Commits what was handed over and counts as handled (leaving `with` without an exception)."""
    def __iter__(self) -> Any: ...
    def __next__(self) -> Message[Any]: ...
    def receive(self, timeout: float | timedelta | None = None) -> Message[Any]: ...
    def receive_many(self, count: int = 1000, timeout: float | timedelta | None = None) -> Batch[Any]: ...
    def commit(self, upto: Message[Any] | Batch[Any] | None = None, *, level: str | None = None) -> None: ...
