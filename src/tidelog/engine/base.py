"""What does the public API ask of an engine, and what may differ between engines?

Floor 4: may import storage.definitions, codec, config, message, partitioner. Thread rule: every method of an engine may
be called from any thread.

Producers, consumers, channels and the log work through these protocols alone. Engines differ only where `Can` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tidelog._native import Channelled, Reader, Sender
    from tidelog.codec import Codec
    from tidelog.config import ChannelOptions
    from tidelog.message import Batch
    from tidelog.partitioner import Partitioner
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
    """Several consumers of one group share its partitions; False: a second consumer waits for the first."""
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


class PartitionHandle(Protocol):
    """One partition of an open channel. Offsets are logical, times milliseconds since 1970."""

    def bounds(self) -> tuple[int, int]:
        """(log start offset, log end offset)."""

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

    def create(self, name: str, kind: str, codec: Codec, options: ChannelOptions) -> Definition:
        """The channel of this name: a new one, or the one that is there (which the caller compares)."""

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
    ) -> None:
        """Make `sender` send to a channel; `compression` None: the channel's."""

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

    def committed(self) -> list[Committed]:
        """Every group's offset in every partition."""

    def sync(self) -> None:
        """Return when everything that is visible now is on disk."""

    def adopt(self, handle: Handle) -> None:
        """Close `handle` when the engine is closed; the engine does not keep it alive."""

    def forget(self, handle: Handle) -> None:
        """`handle` is closed."""

    def handles(self) -> list[Handle]:
        """Producers and consumers that are open."""

    def close(self) -> None:
        """Idempotent; closes the handles first and wakes blocked calls."""
