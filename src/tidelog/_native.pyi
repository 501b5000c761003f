"""What the compiled extension offers to the floors above it. Checked against the extension by stubtest."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from types import GenericAlias
from typing import Any, Final, Generic, Literal, NamedTuple, Protocol, Self, TypeVar, final, overload, type_check_only

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

SAMPLED_EVERY: Final = 64
"""Messages from one whose key is counted to the next, on average."""

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
    @property
    def attempt(self) -> int: ...
    def reply(
        self,
        value: Any = None,
        *,
        error: BaseException | str | None = None,
        headers: Mapping[str, Any] | Iterable[tuple[str, Any]] | None = None,
    ) -> Receipt:
        """Answer a question: send `value` (or `error`) to where it wants its answer."""

def message_as(message: Message[Any], shared: Channelled, /) -> Message[Any]:
    """The same message, with the types of `shared`."""

def message_again(message: Message[Any], failed: int, /) -> Message[Any]:
    """The same message, as it is after `failed` attempts at handling it."""

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
        type_of: Callable[[Any], str] | None = None,
        decode_message: Callable[[Message[Any], bytes], Any] | None = None,
    ) -> None: ...
    answer: Any
    """(message, value, error, headers) -> Receipt: what `Message.reply` calls; None: it raises NotSupported."""
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
        dedup_count: int = 100_000,
        dedup_window_ms: int = 600_000,
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
        dedup_count: int = 100_000,
        dedup_window_ms: int = 600_000,
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
    def offset_slot(self, group: str, channel_id: bytes, partition: int, create: bool, /) -> int:
        """The number of a group's slot for a partition, -1: there is none."""
    def group_members(
        self, group: str, /
    ) -> tuple[int, int, list[tuple[int, int, int, str | None, str, tuple[int, ...], bool]]]:
        """(version, version of the installed plan, members as from Membership.members())."""
    def group_targets(self, group: str, /) -> list[tuple[bytes, int, int]]:
        """(channel id, partition, index of the member it is assigned to) of every partition that has one."""
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
    def stable_end(self) -> int: ...
    def count_from(self, offset: int, /, *, uncommitted: bool = False) -> int:
        """How many messages stand from `offset` to the last stable offset, without those of aborted transactions;
        `uncommitted`: to the log end, with them. Gaps in the offsets are none."""
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
    def sampled(self) -> tuple[int, int, int, list[tuple[bytes, int, int, int, int]]] | None:
        """(samples, keyless, since ms, [(start of the key, its length, partition, count, error)]); None: none yet."""
    def check(
        self,
        finding: Callable[[str, int, str, int, int], None],
        progress: Callable[[int, int, int], None] | None = None,
        /,
    ) -> int: ...

@disjoint_base
class Membership:
    """One member of a consumer group, from the moment it is made. Thread-safe."""

    def __init__(
        self,
        store: Store,
        group: str,
        *,
        channels: Sequence[int],
        name: str | None,
        strategy: str,
        max_processing: float | timedelta | None,
        away: float | timedelta,
    ) -> None: ...
    @property
    def index(self) -> int: ...
    @property
    def id(self) -> int: ...
    @property
    def active(self) -> bool:
        """False once it left, was expelled, or was replaced by a newer member of its name."""
    @property
    def fenced(self) -> bool: ...
    @property
    def turn(self) -> int: ...
    @property
    def version(self) -> int: ...
    @property
    def assigned(self) -> int:
        """The version whose plan is installed."""
    def view(self) -> tuple[int, list[tuple[int, int, int, str | None, str, tuple[int, ...], bool]]]:
        """(version, members) in one copy."""
    def members(self) -> list[tuple[int, int, int, str | None, str, tuple[int, ...], bool]]:
        """(index, id, pid, name, strategy, local ids of its channels, away), in the order they joined."""
    def targets(self, slots: Sequence[int]) -> list[int]: ...
    def install(self, version: int, slots: Sequence[int], members: Sequence[int]) -> bool: ...
    def sweep(self) -> None: ...
    def leave(self, keep: bool = False) -> None: ...

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
    @property
    def duplicate(self) -> bool: ...
    @property
    def duplicates(self) -> NDArray[np.bool_]: ...
    def result(self, timeout: float | timedelta | None = None, level: str | None = None) -> Position: ...
    @property
    def partitions(self) -> NDArray[np.int32]: ...
    @property
    def offsets(self) -> NDArray[np.int64]: ...

@disjoint_base
class Transaction(Dispatch):
    """What messages of one named producer and offsets of consumers become visible together, or not at all."""

    _senders: dict[tuple[int, bool], tuple[Any, Sender]] | None
    @property
    def _outside(self) -> Dispatch: ...
    @property
    def _synced(self) -> bool: ...
    def _attach(
        self,
        outside: Dispatch,
        producer: Named,
        readers: Iterable[Any],
        timeout_ms: int,
        synced: bool,
        flushes: bool,
        /,
    ) -> bool: ...
    @property
    def state(self) -> str: ...
    @property
    def _inside(self) -> Any: ...
    def _before(self) -> None:
        """Called before it begins."""
    def __enter__(self) -> Self: ...
    def __exit__(self, kind: Any, error: Any, trace: Any) -> Literal[False]: ...
    def commit(self) -> None:
        """Makes everything that was sent in it visible and commits what the consumers have handed over, at once.

        Raises Fenced when a partition, the producer's name or the time was lost: then it is aborted, and the messages
        come again. StorageFailed: see `state`. Any other error (Locked, NoSpace) leaves it open: call again, or abort.
        Closed when it has ended already, and RuntimeError while another thread is inside a consumer."""
    def abort(self) -> None:
        """Forgets everything that was sent in it; its consumers go back to where they had last committed, so the
        messages come again. Calling it again does nothing. Raises Closed when it is committed."""
    def close(self) -> None:
        """abort(), unless it has ended."""

@final
class Named:
    """An open name of a producer: its producer id with an epoch of its own. Whoever opens the name after it, in any
    process, fences it."""

    def __init__(self, store: Store, name: str, /) -> None: ...
    @property
    def name(self) -> str: ...
    @property
    def producer_id(self) -> int: ...
    @property
    def epoch(self) -> int: ...
    @property
    def fenced(self) -> bool: ...
    def check(self) -> None:
        """Raises RuntimeError while a transaction of it is open, and Closed when it was closed."""
    def last(self, partition: Partition, /) -> int | None:
        """The last offset that this name wrote there; None: none is known. An older self adds nothing behind it."""
    def next_sequence(self, partition: Partition, /) -> int:
        """The sequence that its next message in a partition has."""
    def close(self) -> None: ...

def _append_encoded(partition: Partition, batch: Any, count: int, max_timestamp_ms: int, /) -> tuple[int, bool]:
    """Appends a client's own batch by Kafka's rules: (offset of its first message, whether it was there already)."""

class WouldBlock(Exception):
    """A sender that never waits would have had to. Its argument is the partition (int) it had chosen."""

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
        watch: Any = None,
        named: Named | None = None,
    ) -> None: ...
    def _within(self, transacting: Any, through: bool, /) -> Sender:
        """A sender that does the same, as part of a transaction of the producer as whom this one sends."""
    def _begin_at(self, sequence: int, /) -> None:
        """Of a named producer: the sequence of the next message sent, where the same messages are sent again; -1: the
        one that follows."""
    def _never_wait(self) -> None:
        """From now on `send` raises WouldBlock, and has sent nothing, where it would have to wait."""
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
        headers: Mapping[str, Any] | Sequence[Any] | None = None,
        ids: Iterable[str | None] | None = None,
        partition: int | None = None,
        timestamp: Any = None,
    ) -> Receipt: ...

@type_check_only
class _Channelish(Protocol[_T_co]):
    """A channel of any engine."""

    @property
    def name(self) -> str: ...
    def opened(self) -> Any: ...

@disjoint_base
class Dispatch:
    """What sends to several channels; Producer and Transaction derive from it."""

    def _remember(self, channel: Any, sender: Any, generation: int, /) -> None:
        """From now on `sender` sends to `channel`, as long as the log's catalogue is of this generation."""
    def _forget(self) -> None:
        """Nothing is known any more."""
    def send(
        self,
        channel: _Channelish[_T],
        value: _T,
        *,
        key: Any = None,
        headers: Mapping[str, Any] | Iterable[tuple[str, Any]] | None = None,
        id: str | None = None,
        partition: int | None = None,
        timestamp: datetime | float | None = None,
    ) -> Receipt:
        """Send one message; the arguments are those of `channel.send`. With `linger` the receipt completes later.

        In a transaction compression and partitioner are those of the producer. The message is in the log when this
        returns, and readers see it after the commit: the receipt's position is that of the message, and
        `result(level="synced")` waits for its bytes alone, not for the commit.

        Raises SchemaMismatch for a value that is not of the channel's type, TooLarge, NoSpace, StorageFailed, Closed
        (also when the transaction has ended), Fenced (also when it was aborted from elsewhere)."""
    def send_many(
        self,
        channel: _Channelish[Any],
        values: Any,
        *,
        keys: Any = None,
        headers: Mapping[str, Any] | Sequence[Any] | None = None,
        ids: Iterable[str | None] | None = None,
        partition: int | None = None,
        timestamp: Any = None,
    ) -> Receipt:
        """Send many messages; the arguments are those of `channel.send_many`. They are batches already, so they do not
        linger; what was gathered for the channel before goes out first. Raises like `send`."""

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
    def _join(self, membership: Membership, max_processing: float | None = None, /) -> None:
        """Takes part in a group: its turn is compared at every hand-over, and _turned() called when it has changed."""
    def _turned(self) -> float | None:
        """Called between two messages when the group or the catalogue has changed. Seconds to the next call, None: only
        at changes."""
    def _take(self, index: int, /) -> bool:
        """Takes the lease of a partition that is assigned to this member; False: somebody still holds it."""
    def _give(self, indexes: Iterable[int], /) -> None:
        """Gives leases back; what was read and not handed over is forgotten."""
    def _holds(self, index: int, /) -> bool: ...
    def _extend(
        self, partitions: Sequence[tuple[Partition, int, Channelled]], channel_ids: Sequence[bytes], /
    ) -> None: ...
    def _incomplete(self, pending: bool, /) -> None:
        """Whether more partitions may come, so that iteration does not end yet."""
    def _seek(self, index: int, offset: int, /) -> None: ...
    def _position(self, index: int, /) -> int: ...
    def _stop_at(self, ends: Sequence[int] | None, /) -> None:
        """Offsets at which each partition is finished: iteration ends when all are."""
    def _pause(self, index: int, paused: bool, /) -> None: ...
    def _commit(self, index: int, offset: int, /) -> None: ...
    def _owe_before(self, index: int, offset: int, /) -> None:
        """What commits everything that was handed over commits of a partition only what stands before `offset`."""
    def _return(self, index: int, offset: int, /) -> None:
        """What was handed over of a partition from `offset` on comes again, and is not committed by that."""
    def _commit_beside(self, index: int, offset: int, /) -> bool: ...
    def _committed(self, index: int, /) -> int | None: ...
    def _bounds(self, index: int, /) -> tuple[int, int]: ...
    def _count(self, index: int, offset: int, /) -> int: ...
    def _release(self) -> None:
        """Gives the leases back."""
    def _cancel(self) -> None:
        """Wakes a blocked call of another thread, which then raises Closed. Callable from any thread."""
    def _rouse(self) -> None:
        """Ends the wait of a blocked call of another thread, or else the next wait, as if its time-out had passed."""
    def _settle(self) -> None:
        """Commits what was handed over and counts as handled (leaving `with` without an exception)."""
    def __iter__(self) -> Any: ...
    def __next__(self) -> Message[Any]: ...
    def receive(self, timeout: float | timedelta | None = None) -> Message[Any]: ...
    def receive_many(self, count: int = 1000, timeout: float | timedelta | None = None) -> Batch[Any]: ...
    def commit(self, upto: Message[Any] | Batch[Any] | None = None, *, level: str | None = None) -> None: ...

# --- waiting of many ---

POLL_BLOCKS: Final = -1
POLL_NOTHING: Final = 0
POLL_READY: Final = 1
POLL_FINISHED: Final = 2

def reader_poll(reader: Reader, many: int, may_block: bool, /) -> int:
    """Moves what there is to hand over into the reader's buffer, without waiting: one of POLL_*."""

def reader_next(reader: Reader, /) -> Message[Any] | None:
    """The next message if one is in the buffer."""

@final
class Waiter:
    """The thread of this process that waits for readers of one store."""

    @staticmethod
    def of(store: Store, /) -> Waiter:
        """The waiter of a store, for one more user."""
    def release(self) -> None: ...
    def watch(self, reader: Reader, tell: Callable[[list[Any]], object], what: Any, /) -> object:
        """Calls tell([what]) once, on the waiter's thread."""
    def unwatch(self, watch: object, /) -> None: ...
    @property
    def waiting(self) -> int: ...
