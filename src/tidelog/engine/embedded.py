"""How does a directory on this host become the store behind a log?

Floor 5: may import storage, engine.base, codec, compression, config, errors, and the compiled store.
Thread rule: every method may be called from any thread. After fork() the compiled store raises `Forked` in the child;
only `close` stays silent there, so that a child may leave a `with` block it inherited.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from tidelog import compression as _compression
from tidelog._native import Channelled, Named, Reader, Sender, Store
from tidelog.codec import Codec
from tidelog.config import DEFAULT_PARTITIONS, ChannelOptions, StoreOptions
from tidelog.engine.base import Can, Changes, Committed, Handle, Membered, Membership, MemberView, Opened
from tidelog.errors import ChannelNotFound, Closed, Corrupt, Error, Forked, NotSupported
from tidelog.groups.coordinator import Coordinator, GroupChannel
from tidelog.names import parse_partition_directory
from tidelog.partitioner import Partitioner, key_bytes
from tidelog.skew_watch import SkewWatch
from tidelog.storage.catalogue import Catalogue
from tidelog.storage.definitions import Definition, reply_of

if TYPE_CHECKING:
    from tidelog._native import Partition
    from tidelog.storage.memory import MemoryDirectory

READ_BYTES = 1 << 20
"""What a reader fetches at once, at least: the size of the largest batch of small messages."""


class EmbeddedEngine:
    """A store that any number of processes of this host share, or a private one in memory (`path` None).

    Raises what opening can raise: NotSupported (file system), Locked, Corrupt, NoSpace, StorageFailed, and
    also StorageFailed where `options.create` is off and there is no store.
    """

    def __init__(self, path: str | None, options: StoreOptions) -> None:
        self._options = options
        self._memory = _memory_directory() if path is None else None
        where = self._memory.path if self._memory is not None else str(path)
        try:
            self._store = Store(
                where,
                flush_interval_ms=options.flush_interval_ms,
                lock_timeout_ms=options.lock_timeout_ms,
                create=options.create,
                look=options.look,
            )
            try:
                self._catalogue = Catalogue(self._store, segment_ms=options.segment_ms)
                if self._store.recovered:
                    self._catalogue.settle()
                    self._store.ready()
            except BaseException:
                with suppress(Error):
                    self._store.close()
                raise
        except BaseException:
            if self._memory is not None:
                self._memory.remove()
            raise
        self._name = "memory:" if path is None else path
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._handles: weakref.WeakSet[Any] = weakref.WeakSet()
        self._closing = self._closed = False
        self.skew_watch = SkewWatch()
        # What the last plan of a group asked: (generation of the catalogue, local ids, their channels).
        self._grouped: tuple[int, frozenset[int], list[GroupChannel]] = (-1, frozenset(), [])
        # A log that is dropped without close(), or is open when the program ends, is closed in order all the same.
        self._finalizer = weakref.finalize(self, _close_store, self._store, self._memory, self._pid)
        self.can = Can(
            engine="memory" if path is None else "embedded",
            persistent=path is not None,
            shared=path is not None,
            synced=path is not None,
            complete_receipts=True,
            random_access=True,
            busy_poll=True,
            rebalancing=True,
            named_producers=True,
            transactions=True,
        )

    @property
    def name(self) -> str:
        """Where the store is, for people."""
        return self._name

    @property
    def path(self) -> str:
        """The directory of the store."""
        return self._store.path

    @property
    def store(self) -> Store:
        """The compiled store, for tools that look into it (`tidelog check`, `tidelog info`)."""
        return self._store

    @property
    def closed(self) -> bool:
        """Whether this handle is closed; other processes may go on."""
        return self._closed

    @property
    def generation(self) -> int:
        """Changes whenever a channel is created, changed or dropped by anybody."""
        self._alive()
        return self._store.generation

    @property
    def lock_timeout(self) -> float:
        """Seconds to wait for what somebody else holds."""
        return self._options.lock_timeout_ms / 1000

    def names(self) -> list[str]:
        """The names of all channels, sorted. Raises Closed, Forked, StorageFailed."""
        self._alive()
        return self._catalogue.names()

    def definition(self, name: str) -> Definition:
        """What the channel `name` is. Raises ChannelNotFound, Corrupt, NotSupported, ValueError for a wrong name."""
        self._alive()
        return self._catalogue.read(name)

    def create(
        self, name: str, kind: str, codec: Codec, options: ChannelOptions, reply: Codec | None = None
    ) -> Definition:
        """The channel `name`: a new one, or the one that is there, which the caller compares. `reply`: how answers to
        its messages are written, None: it is not asked.

        Raises ValueError for a name that is not allowed, Locked, Full, NoSpace, StorageFailed.
        """
        self._alive()
        _compression.ensure(_compression.codec_id(options.compression))
        count = DEFAULT_PARTITIONS if options.partitions is None else options.partitions
        segment_bytes = self._options.segment_bytes if options.segment_bytes is None else options.segment_bytes

        def make(channel_id: str, slots: list[int], created_ms: int) -> Definition:
            return Definition(
                id=channel_id,
                local_id=slots[0],  # no other channel has this slot while this one has it
                name=name,
                kind=cast(Any, kind),
                carries=options.carries,
                type=codec.type_name,
                codec=cast(Any, codec.name),
                dtype=codec.descr,
                schema=codec.schema(),
                reply=reply_of(reply),
                retention_ms=options.retention_ms,
                retention_bytes=options.retention_bytes,
                retention_consumed=options.retention_consumed,
                max_message_bytes=options.max_message_bytes,
                segment_bytes=segment_bytes,
                compression=cast(Any, options.compression),
                dedup_count=options.dedup_count,
                dedup_window_ms=options.dedup_window_ms,
                partitions=slots,
                created_ms=created_ms,
            )

        return self._catalogue.create(name, count, make)

    def configure(self, name: str, changes: Changes) -> Definition:
        """Change a channel. Raises ChannelNotFound, ValueError, Locked, Full, NoSpace, StorageFailed."""
        self._alive()
        fields: dict[str, Any] = {}
        if changes.retention is not None:
            names = ("retention_ms", "retention_bytes", "retention_consumed")
            fields.update(zip(names, changes.retention, strict=True))
        for field in ("max_message_bytes", "segment_bytes", "compression", "dedup_count", "dedup_window_ms"):
            value = getattr(changes, field)
            if value is not None:
                fields[field] = value
        if changes.compression is not None:
            _compression.ensure(_compression.codec_id(changes.compression))
        return self._catalogue.configure(name, changes.partitions, **fields)

    def drop(self, name: str) -> None:
        """Remove a channel with its messages and committed offsets. Raises ChannelNotFound, Locked, StorageFailed."""
        self._alive()
        self._catalogue.drop(name)

    def open(self, definition: Definition, codec: Codec) -> Opened:
        """Handles on every partition. Raises ChannelNotFound if the channel was dropped meanwhile."""
        self._alive()
        generation = self._store.generation
        channel_id = bytes.fromhex(definition.id)
        most = max(_compression.MAX_BYTES, 2 * definition.max_message_bytes)
        decompress = partial(_decompress, most)
        shared = Channelled(
            definition.name,
            definition.kind,
            encode=codec.encode,
            decode=codec.decode,
            encode_many=codec.encode_many,
            decode_many=codec.decode_many,
            dtype=codec.dtype,
            key_bytes=key_bytes,
            decompress=decompress,
            max_message_bytes=definition.max_message_bytes,
            rows=codec.rows if codec.dtype is not None else None,
            carries=definition.carries,
            type_of=codec.type_of,
            decode_message=codec.decode_message,
        )
        partitions = [self._store.partition(slot, channel_id) for slot in definition.partitions]
        return Opened(definition, codec, shared, decompress, partitions, generation)

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
        """Make `sender` send to a channel; `compression` None: the channel's; `named`: as whom.

        Raises NotSupported naming the package if the compression needs one that is not installed.
        """
        codec_id = _compression.codec_id(opened.definition.compression if compression is None else compression)
        _compression.ensure(codec_id)
        sender._attach(
            self._store,
            cast("Sequence[Partition]", opened.partitions),
            opened.shared,
            synced=synced,
            partitioner=partitioner,
            compress=partial(_compression.compress, codec_id) if codec_id else None,
            codec_id=codec_id,
            watch=self.skew_watch,
            named=named,
        )

    def name_producer(self, name: str) -> Named:
        """Open the name of a producer; whoever has it open, here or in another process, is fenced.

        Raises ValueError (an empty name, or one over 184 bytes), Full, Locked, NoSpace, StorageFailed.
        """
        self._alive()
        return Named(self._store, name)

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
        """Make `reader` read these (channel, partition); its position is still to be set."""
        self._alive()
        reader._attach(
            self._store,
            [(cast("Partition", opened.partitions[number]), number, opened.shared) for opened, number in parts],
            group=group,
            channel_ids=[bytes.fromhex(opened.definition.id) for opened, _ in parts],
            mode=mode,
            uncommitted=uncommitted,
            busy_poll=busy_poll,
            max_bytes=READ_BYTES,
        )

    def extend_reader(self, reader: Reader, parts: Sequence[tuple[Opened, int]]) -> None:
        """Let `reader` read more of them, behind those it has."""
        self._alive()
        reader._extend(
            [(cast("Partition", opened.partitions[number]), number, opened.shared) for opened, number in parts],
            [bytes.fromhex(opened.definition.id) for opened, _ in parts],
        )

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
        kept for `member_timeout` when its consumer goes.

        Raises ValueError for options out of range, Full, Locked, NoSpace.
        """
        self._alive()
        return Coordinator(
            self._store,
            group,
            [(bytes.fromhex(opened.definition.id), number) for opened, number in parts],
            [opened.definition.local_id for opened, _ in parts],
            self._group_channels,
            member=member,
            strategy=strategy,
            member_timeout=member_timeout,
            max_processing=max_processing,
        )

    def _group_channels(self, local_ids: Iterable[int]) -> list[GroupChannel]:
        """The channels of these local ids that are there, by name."""
        wanted = frozenset(local_ids)
        generation = self._store.generation
        known = self._grouped
        if known[0] == generation and known[1] == wanted:
            return known[2]
        found = []
        # A local id is the slot of partition 0: its directory tells the name without reading every definition.
        for slot, directory, _, number in self._store.partitions():
            parsed = parse_partition_directory(directory) if slot in wanted and number == 0 else None
            if parsed is None:
                continue
            with suppress(ChannelNotFound, Corrupt, NotSupported):
                one = self._catalogue.read(parsed[0])
                if one.local_id == slot:
                    found.append(GroupChannel(slot, one.name, bytes.fromhex(one.id), len(one.partitions)))
        found.sort(key=lambda channel: channel.name)
        self._grouped = (generation, wanted, found)
        return found

    def committed(self, group: str | None = None) -> list[Committed]:
        """Every group's (or one group's) offset in every partition of what it reads, by group, channel, partition."""
        self._alive()
        known, result = self._catalogue.by_id(), []
        stored: dict[tuple[str, bytes], dict[int, list[int]]] = {}
        for name, channel_id, number, *row in self._store.offsets():
            if group in (None, name) and channel_id in known:  # else it is being dropped
                stored.setdefault((name, channel_id), {})[number] = row
        for (name, channel_id), rows in stored.items():
            for number, identity in enumerate(known[channel_id].partitions):
                offset, committed_ms, owner_pid = rows.get(number, (-1, 0, 0))  # rows: of what was leased or committed
                with suppress(LookupError):
                    partition = self._store.partition(identity, channel_id)
                    start, end = partition.bounds()
                    lag, place = partition.count_from(max(offset, start)), (name, known[channel_id].name, number)
                    moment = datetime.fromtimestamp(committed_ms / 1000, UTC) if committed_ms > 0 else None
                    result.append(Committed(*place, offset, start, end, moment, owner_pid, lag))
        return sorted(result, key=lambda row: row[:3])

    def groups(self) -> list[str]:
        """The names of all groups that have read a channel which is there, sorted."""
        self._alive()
        known = self._catalogue.by_id()
        return sorted({row[0] for row in self._store.offsets() if row[1] in known})

    def members(self, group: str) -> Membered:
        """Who is in a group; nobody where there is no such group."""
        self._alive()
        version, assigned, rows = self._store.group_members(group)
        if not rows:
            return Membered(version, assigned, (), {})
        # The dead stand in the table until a member sweeps it, and there may be none left. One with a name is away.
        alive = {pid for _slot, pid, _self, _started in self._store.processes()}
        known = self._catalogue.by_id()
        names = {definition.local_id: definition.name for definition in known.values()}
        members = [
            MemberView(
                row,
                identity,
                pid,
                name,
                tuple(names[local] for local in channels if local in names),
                away or pid not in alive,
            )
            for row, identity, pid, name, _strategy, channels, away in rows
            if name is not None or pid in alive
        ]
        targets = {
            (known[channel_id].name, number): member
            for channel_id, number, member in self._store.group_targets(group)
            if channel_id in known
        }
        return Membered(version, assigned, members, targets)

    def reset(self, group: str, offsets: Sequence[tuple[str, int, int]]) -> None:
        """Store (channel, partition, offset) for a group without live consumers, durably.

        Raises Locked (naming the holder) for a partition that a live consumer holds, ChannelNotFound, NoSpace,
        StorageFailed.
        """
        self._alive()
        self._set_offsets(
            group, [(bytes.fromhex(self._catalogue.read(name).id), number, offset) for name, number, offset in offsets]
        )

    def _set_offsets(self, group: str, offsets: Sequence[tuple[bytes, int, int]]) -> None:
        """Store (channel id, partition, offset; -1: none) durably."""
        # A consumer that was killed still stands in the word of its partition: a lease of nobody is overruled.
        held = {row[1:3] for row in self._store.offsets() if row[0] == group and row[5]}
        for channel_id, number, offset in offsets:
            self._store.set_offset(group, channel_id, number, offset, force=(channel_id, number) not in held)
        self._store.sync_offsets()

    def forget_group(self, name: str) -> None:
        """Remove a group and its committed offsets. Raises ChannelNotFound, Locked, StorageFailed."""
        self._alive()
        # The commits first, durably: the table forgets a group for this boot, and the checkpoint keeps what it has.
        self._set_offsets(name, [(row[1], row[2], -1) for row in self._store.offsets() if row[0] == name])
        self._store.lock_catalogue()
        try:
            self._store.forget_group(name)
        finally:
            self._store.unlock_catalogue()

    def sync(self) -> None:
        """Return when everything that is visible now is on disk. Raises StorageFailed, NoSpace."""
        self._alive()
        self._store.sync()

    def adopt(self, handle: Handle) -> None:
        """Close `handle` when the engine is closed; the engine does not keep it alive. Raises Closed, Forked."""
        self._not_forked()  # before the lock, which another thread of the parent may have held
        with self._lock:
            if self._closing:
                raise Closed(f"the log {self._name} was closed: open it again with tidelog.open")
            self._handles.add(handle)

    def forget(self, handle: Handle) -> None:
        """`handle` is closed."""
        with self._lock:
            self._handles.discard(handle)

    def handles(self) -> list[Handle]:
        """Producers and consumers that are open."""
        with self._lock:
            return list(self._handles)

    def close(self) -> None:
        """Close producers and consumers, then leave the store; idempotent, wakes blocked calls.

        Raises the first error of a producer whose messages could not be sent, after everything is closed.
        """
        if os.getpid() != self._pid:
            return
        with self._lock:
            if self._closing:
                return
            handles, self._closing = list(self._handles), True
        first: BaseException | None = None
        for handle in handles:
            try:
                handle.close()
            except Exception as error:  # the store must be left in any case
                first = first or error
        self._closed = True  # not before: producers still send what they have gathered
        try:
            self._finalizer()
        except Exception as error:
            first = first or error
        if first is not None:
            raise first

    def _alive(self) -> None:
        self._not_forked()
        if self._closed:
            raise Closed(f"the log {self._name} was closed: open it again with tidelog.open")

    def _not_forked(self) -> None:
        if os.getpid() != self._pid:
            raise Forked(
                f"the log {self._name} was opened before fork(): handles do not survive it, call tidelog.open in "
                f"the child"
            )


def _memory_directory() -> MemoryDirectory:
    # Loaded when it is needed: tempfile and shutil would be a tenth of what `import tidelog` costs.
    from tidelog.storage.memory import MemoryDirectory

    return MemoryDirectory()


def _decompress(most: int, codec: int, data: bytes) -> bytes:
    return _compression.decompress(codec, data, max_bytes=most)


def _close_store(store: Store, memory: MemoryDirectory | None, pid: int) -> None:
    if os.getpid() != pid:  # a forked child: the store is its parent's
        return
    try:
        store.close()
    finally:
        if memory is not None:
            memory.remove()
