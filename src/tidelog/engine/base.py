"""What does the public API ask of an engine, and what may differ between engines?

Floor 4: may import storage.definitions, codec, config, message, partitioner. Thread rule: every method of an engine may
be called from any thread.

Producers, consumers, channels and the log work through these protocols alone. Engines differ only where `Can` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tidelog._native import Channelled, Named, Reader, Sender
    from tidelog.codec import Codec
    from tidelog.config import ChannelOptions
    from tidelog.message import Batch
    from tidelog.partitioner import Partitioner
    from tidelog.skew_watch import SkewWatch
    from tidelog.storage.definitions import Definition


@dataclass(frozen=True, slots=True, kw_only=True)
class Can:
    """What an engine can do. Code that must run on several engines looks here instead of trying."""

    engine: str
    """"embedded", "memory" or "kafka"."""
    persistent: bool
    """Messages outlive the process that sent them."""
    shared: bool
    """Several processes may have the same log open."""
    synced: bool
    """`ack="synced"` waits until the bytes are on a disk of this host."""
    complete_receipts: bool
    """A receipt is complete when `send` returns (without `linger`)."""
    random_access: bool
    """`read` and `find` answer through an index."""
    busy_poll: bool
    """A consumer may spin instead of sleeping."""
    rebalancing: bool
    """The consumers of a group share its partitions, in one process or in many."""
    named_producers: bool
    """`producer(name=...)` is idempotent across restarts."""
    transactions: bool
    """`log.transaction` exists."""


class Committed(NamedTuple):
    """How far one group has come in one partition, and how far there is to go."""

    group: str
    channel: str
    partition: int
    offset: int
    """The next message of the group, -1 if it has committed nothing yet."""
    log_start: int
    log_end: int
    committed_at: datetime | None
    owner_pid: int
    """Process that holds the partition for the group now, 0: none."""
    lag: int
    """Messages between the group and the log end (all of them for a group that has committed nothing)."""


class MemberView(NamedTuple):
    """One member of a group, as the store knows it."""

    row: int
    """Its place in the table of members; what `Membered.targets` names."""
    id: int
    pid: int
    name: str | None
    channels: tuple[str, ...]
    away: bool


class Membered(NamedTuple):
    """The members of a group and what each is to have, at one moment."""

    version: int
    """Changes when members come, go or change."""
    assigned: int
    """The version that the targets were made for."""
    members: Sequence[MemberView]
    """In the order in which they joined."""
    targets: Mapping[tuple[str, int], int]
    """(channel, partition) -> `MemberView.row` of whom it is to belong to."""

    @staticmethod
    def none() -> Membered:
        """Of a group that nobody is in."""
        return Membered(0, 0, (), {})


class Standing(NamedTuple):
    """What a consumer learns when it looks at its group."""

    state: Literal["member", "expelled", "replaced"]
    """"expelled": others have gone on without it, and it may join anew; "replaced": another one has its name."""
    mine: Sequence[int]
    """The partitions that are to be its own, by their places among those it was joined for."""
    complete: bool
    """Nobody has come or gone since that was decided."""
    again: float
    """Seconds after which to look again at the latest, even if nothing tells that something changed."""


class Membership(Protocol):
    """One consumer's place in its group. It belongs to the consumer's thread, except `leave`.

    The consumer looks when it is told to between two messages, gives back what is no longer its own (after committing
    what it has handled), and takes what is, as soon as those who had it have given it back or died."""

    @property
    def member(self) -> str:
        """Its name in the group."""

    @property
    def generation(self) -> int:
        """Changes whenever members come, go or change, once that has been dealt with."""

    @property
    def row(self) -> int:
        """Its place in the table of members, which no other member that lives has."""

    @property
    def active(self) -> bool:
        """Whether the group counts on it; False: others have gone on without it, or it has left."""

    def attach(self, reader: Reader) -> None:
        """Let `reader` be told of changes, and take leases as this member."""

    def extend(self, parts: Sequence[tuple[bytes, int]]) -> None:
        """More (channel id, partition): a channel has grown."""

    def look(self) -> Standing:
        """How things stand now."""

    def rejoin(self, reader: Reader) -> None:
        """After having been expelled."""

    def leave(self) -> None:
        """Be a member no more; the leases have been given back. One with a name is waited for. Idempotent."""


class PartitionHandle(Protocol):
    """One partition of an open channel. Offsets are logical, times milliseconds since 1970."""

    def bounds(self) -> tuple[int, int]:
        """(log start offset, log end offset)."""

    def stable_end(self) -> int:
        """The last stable offset: before it there is no message of a transaction that is open."""

    def count_from(self, offset: int, /, *, uncommitted: bool = False) -> int:
        """How many messages stand from `offset` to the last stable offset, without those of aborted transactions;
        `uncommitted`: to the log end, with them. Gaps in the offsets are none."""

    def sync(self) -> None:
        """Return when everything that is visible now is on disk."""

    def trim(self, before: int, /) -> None:
        """Make `before` the log start offset."""

    def find(self, timestamps_ms: NDArray[np.int64], decompress: Callable[[int, bytes], bytes], /) -> NDArray[np.int64]:
        """The first offset at or after each time; the log end where there is none."""

    def read_at(
        self, offsets: NDArray[np.int64], shared: Channelled, number: int, /, *, uncommitted: bool = False
    ) -> Batch[Any]:
        """The messages at these offsets, in this order."""

    def sampled(self) -> tuple[int, int, int, list[tuple[bytes, int, int, int, int]]] | None:
        """What senders have sampled of the channel's keys, asked of its partition 0: see `tidelog.skew`."""

    def describe(self) -> dict[str, int]:
        """Sizes and counts: log_start, log_end, bytes, segments and what else the engine knows."""

    def check(self, finding: Callable[[str, int, str, int, int], None], /) -> int:
        """Read everything; `finding(file, position, what, first_offset, next_offset)` for each damage. How many."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A channel as an engine has opened it, for one type of values. Replaced as a whole when the channel changes."""

    definition: Definition
    codec: Codec
    shared: Channelled
    decompress: Callable[[int, bytes], bytes]
    """(Kafka's codec id, packed records) -> records, with a cap against bombs."""
    partitions: Sequence[PartitionHandle]
    generation: int
    """Of the catalogue when the definition was read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What `configure` changes; None: leave it."""

    partitions: int | None = None
    retention: tuple[int, int, bool] | None = None
    """(retention_ms, retention_bytes, retention_consumed)"""
    max_message_bytes: int | None = None
    segment_bytes: int | None = None
    compression: str | None = None
    dedup_count: int | None = None
    dedup_window_ms: int | None = None


class Handle(Protocol):
    """What an engine closes when it is closed itself: a producer or a consumer."""

    def close(self) -> None:
        """Idempotent; wakes blocked calls."""


class Engine(Protocol):
    """The store behind a log."""

    @property
    def can(self) -> Can: ...
    @property
    def name(self) -> str:
        """Where the store is, for people."""

    @property
    def closed(self) -> bool: ...
    @property
    def generation(self) -> int:
        """Changes whenever a channel is created, changed or dropped by anybody."""

    @property
    def lock_timeout(self) -> float:
        """Seconds to wait for what somebody else holds."""

    def names(self) -> list[str]:
        """The names of all channels, sorted."""

    def definition(self, name: str) -> Definition:
        """Raises ChannelNotFound."""

    def create(
        self, name: str, kind: str, codec: Codec, options: ChannelOptions, reply: Codec | None = None
    ) -> Definition:
        """The channel of this name: a new one, or the one that is there (which the caller compares). `reply`: how
        answers to its messages are written."""

    def configure(self, name: str, changes: Changes) -> Definition:
        """Change a channel; answers what it is now."""

    def drop(self, name: str) -> None:
        """Remove a channel with its messages and committed offsets."""

    def open(self, definition: Definition, codec: Codec) -> Opened:
        """Handles on a channel."""

    def attach_sender(
        self,
        sender: Sender,
        opened: Opened,
        *,
        synced: bool = False,
        compression: str | None = None,
        partitioner: Partitioner | None = None,
        named: Named | None = None,
    ) -> None:
        """Make `sender` send to a channel; `compression` None: the channel's; `named`: as whom."""

    def name_producer(self, name: str) -> Named:
        """Open the name of a producer; whoever has it open is fenced. Where `can.named_producers`."""

    def attach_reader(
        self,
        reader: Reader,
        parts: Sequence[tuple[Opened, int]],
        *,
        group: str | None = None,
        mode: str = "none",
        uncommitted: bool = False,
        busy_poll: float = 0.0,
    ) -> None:
        """Make `reader` read these (channel, partition)."""

    def extend_reader(self, reader: Reader, parts: Sequence[tuple[Opened, int]]) -> None:
        """Let `reader` read more of them, behind those it has."""

    def join(
        self,
        group: str,
        parts: Sequence[tuple[Opened, int]],
        *,
        member: str | None = None,
        strategy: str = "sticky",
        member_timeout: float = 10.0,
        max_processing: float | None = None,
    ) -> Membership:
        """A place in a group for a consumer of these (channel, partition). Times in seconds; `member`: a name that is
        kept for `member_timeout` when its consumer goes."""

    def committed(self, group: str | None = None) -> list[Committed]:
        """Every group's (or one group's) offset in every partition, by group, channel and partition."""

    def groups(self) -> list[str]:
        """The names of all groups, sorted."""

    def members(self, group: str) -> Membered:
        """Who is in a group; nobody where there is no such group."""

    def reset(self, group: str, offsets: Sequence[tuple[str, int, int]]) -> None:
        """Store (channel, partition, offset) for a group without live consumers, durably; raises Locked."""

    def forget_group(self, name: str) -> None:
        """Remove a group and its committed offsets; raises ChannelNotFound."""

    def sync(self) -> None:
        """Return when everything that is visible now is on disk."""

    def adopt(self, handle: Handle) -> None:
        """Close `handle` when the engine is closed; the engine does not keep it alive."""

    def forget(self, handle: Handle) -> None:
        """`handle` is closed."""

    def handles(self) -> list[Handle]:
        """Producers and consumers that are open."""

    @property
    def skew_watch(self) -> SkewWatch:
        """Whom this log tells of keys that are too hot."""

    def close(self) -> None:
        """Idempotent; closes the handles first and wakes blocked calls."""
