"""Which channels does a store have, and which partition slots belong to them?

Floor 4: may import errors, names, definitions, and the compiled store. Thread rule: callable from any thread; every
change is made under the store's catalogue lock, which other processes honour too.

A definition file is the commit point of everything. Creating allocates the slots first and links the file last;
dropping removes the file first and the slots after it. So whatever a killed process leaves are slots that no definition
mentions: the next opener that has the store for itself drops them (`settle`), and so does whoever needs their names
sooner. A channel whose definition cannot be read keeps its slots: damage to one file must not cost any messages.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from tidelog import names as _names
from tidelog.errors import ChannelNotFound, Corrupt, Error, InvalidArgument, NotSupported
from tidelog.storage import definitions as _definitions
from tidelog.storage.definitions import Definition

if TYPE_CHECKING:
    from tidelog._native import Store

SEGMENT_AGE_SHARE = 4
"""A segment is closed after this part of the retention at the latest, because retention removes whole segments."""


class Catalogue:
    """The channels of one open store.

    `segment_ms`: age in milliseconds at which the partitions go on in a new file.
    """

    def __init__(self, store: Store, *, segment_ms: int) -> None:
        self._store = store
        self._folder = os.path.join(store.path, "channels")
        self._segment_ms = segment_ms
        # Definitions as they were at a generation of the catalogue: (generation, by name). Replaced, never changed in
        # a way that a reader could see half of.
        self._known: tuple[int, dict[str, Definition]] = (-1, {})

    # --- looking ---

    def names(self) -> list[str]:
        """The names of all channels, sorted. Raises StorageFailed for the disk."""
        return _definitions.names(self._folder)

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):
            return False
        try:
            self.read(name)
        except (ChannelNotFound, ValueError):
            return False
        except (Corrupt, NotSupported):
            return True
        return True

    def read(self, name: str) -> Definition:
        """The definition of `name` as it is now. Raises like `definitions.read`."""
        generation = self._store.generation
        if self._known[0] != generation:
            self._known = (generation, {})
        known = self._known[1]
        found = known.get(name)
        if found is None:
            # Read after the generation was: what is kept under a generation is never older than it.
            found = known[name] = _definitions.read(self._folder, name)
        return found

    def by_id(self) -> dict[bytes, Definition]:
        """Every readable definition by its channel id."""
        result = {}
        for name in self.names():
            with suppress(ChannelNotFound, Corrupt, NotSupported):
                definition = self.read(name)
                result[bytes.fromhex(definition.id)] = definition
        return result

    # --- changing ---

    def create(self, name: str, partitions: int, make: Callable[[str, list[int], int], Definition]) -> Definition:
        """The channel `name`: the one that is there, else a new one with `partitions` partitions.

        `make(id, slots, created_ms)` builds the new definition. Raises ValueError for a name that is not allowed or
        collides with another, Full, NoSpace, StorageFailed, Locked.
        """
        with self._locked():
            with suppress(ChannelNotFound):
                return _definitions.read(self._folder, name)
            # Only such names can collide, and listing thousands of others for each new one would take its time.
            _names.check_new(name, self.names() if "." in name or "_" in name else ())
            channel_id = _definitions.new_id()
            draft = make(channel_id, list(range(partitions)), 0)
            slots = self._allocate(draft, range(partitions))
            try:
                definition = make(channel_id, slots, time.time_ns() // 1_000_000)
                _definitions.write_new(self._folder, definition)
            except BaseException:
                with suppress(Error):
                    self._store.drop_partitions(slots)
                raise
            self._store.bump_generation()
            return definition

    def configure(self, name: str, partitions: int | None = None, **changes: Any) -> Definition:
        """Change fields of a definition and tell the partitions; `partitions`: the new, larger count.

        Raises ValueError for a smaller count or values out of range, ChannelNotFound, Full, NoSpace, StorageFailed.
        """
        with self._locked():
            old = _definitions.read(self._folder, name)
            have = len(old.partitions)
            if partitions is not None and partitions < have:
                raise ValueError(
                    f"the channel {name!r} has {have} partitions and cannot shrink to {partitions}: messages would be "
                    f"lost; create another channel and send them there"
                )
            new = replace(old, **changes)
            fresh = self._allocate(new, range(have, partitions)) if partitions is not None and partitions > have else []
            new = replace(new, partitions=[*old.partitions, *fresh])
            try:
                _definitions.replace(self._folder, new)
            except BaseException:
                if fresh:
                    with suppress(Error):
                        self._store.drop_partitions(fresh)
                raise
            self._store.configure_partitions(new.partitions, **self._limits(new))
            self._store.bump_generation()
            return new

    def drop(self, name: str) -> None:
        """Remove a channel, its messages and its committed offsets. Raises ChannelNotFound, StorageFailed, Locked."""
        with self._locked():
            channel_id: bytes | None = None
            try:
                definition = _definitions.read(self._folder, name)
            except (Corrupt, NotSupported):
                # Nobody can read it, so the directories say which slots are its own.
                owned = [(slot, found) for slot, found, _ in self._slots_of(name)]
                slots = [slot for slot, _ in owned]
                channel_id = owned[0][1] if owned else None
            else:
                slots, channel_id = definition.partitions, bytes.fromhex(definition.id)
            _definitions.remove(self._folder, name)
            self._store.drop_partitions(slots)
            if channel_id is not None:
                self._store.forget_channel(channel_id)
            self._store.bump_generation()

    # --- putting in order ---

    def settle(self) -> None:
        """Finish what killed processes began. Only for the opener that has the store for itself, before `ready`.

        Raises NoSpace or StorageFailed for the disk.
        """
        _definitions.sweep(self._folder)
        present = set(self.names())
        slots = self._store.partitions()
        if self._store.recovery.get("clean"):
            # The store was closed in order: nobody died in the middle of a change just before. What may still stand
            # here are slots of a change that somebody else's death cut short, and those without a name are found
            # without reading thousands of definitions; the rest is found by whoever needs their directories.
            parsed = ((slot, _names.parse_partition_directory(directory)) for slot, directory, _, _ in slots)
            orphans = [slot for slot, found in parsed if found is not None and found[0] not in present]
            if orphans:
                self._store.drop_partitions(orphans)
            return
        known: dict[bytes, Definition] = {}
        unreadable = set()
        for name in present:
            try:
                definition = _definitions.read(self._folder, name)
            except (Corrupt, NotSupported):
                unreadable.add(name)
            else:
                known[bytes.fromhex(definition.id)] = definition
        orphans, kept = [], set(known)
        for slot, directory, channel_id, number in slots:
            owner = known.get(channel_id)
            found = _names.parse_partition_directory(directory)
            if owner is not None:
                if number >= len(owner.partitions) or owner.partitions[number] != slot:
                    orphans.append(slot)  # of a growth that was cut short
            elif found is None or found[0] in unreadable:
                kept.add(channel_id)
            else:
                orphans.append(slot)
        if orphans:
            self._store.drop_partitions(orphans)
        for channel_id in {row[1] for row in self._store.offsets()} - kept:
            self._store.forget_channel(channel_id)
        for definition in known.values():  # a change may have been cut short between the file and the partitions
            with suppress(ChannelNotFound, Corrupt):
                self._store.configure_partitions(definition.partitions, **self._limits(definition))

    # --- inside ---

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._store.lock_catalogue()
        try:
            yield
        finally:
            self._store.unlock_catalogue()

    def _allocate(self, definition: Definition, numbers: range) -> list[int]:
        """Slots for these partitions of a channel that is about to be defined, or about to grow."""
        directories = [_names.partition_directory(definition.name, number) for number in numbers]
        channel_id = bytes.fromhex(definition.id)
        limits = self._limits(definition) | {"first_partition": numbers.start}
        try:
            return self._store.create_partitions(directories, channel_id, **limits)
        except InvalidArgument:
            # The directories are there already: of a change that a killed process left half done. Nothing else can
            # be behind it, since the lock is ours and no definition has them.
            wanted = set(directories)
            stray = [slot for slot, _, directory in self._slots_of(definition.name) if directory in wanted]
            if not stray:
                raise
            self._store.drop_partitions(stray)
            return self._store.create_partitions(directories, channel_id, **limits)

    def _slots_of(self, name: str) -> list[tuple[int, bytes, str]]:
        """(slot, channel id, directory) of every slot whose directory carries this channel's name."""
        result = []
        for slot, directory, channel_id, _ in self._store.partitions():
            found = _names.parse_partition_directory(directory)
            if found is not None and found[0] == name:
                result.append((slot, channel_id, directory))
        return result

    def _limits(self, definition: Definition) -> dict[str, Any]:
        """What the partitions of a channel are told, under the names of the compiled store."""
        segment_ms = self._segment_ms
        if definition.retention_ms > 0:
            segment_ms = max(1, min(segment_ms, definition.retention_ms // SEGMENT_AGE_SHARE))
        return {
            "segment_bytes": definition.segment_bytes,
            "segment_ms": segment_ms,
            "retention_ms": definition.retention_ms,
            "retention_bytes": definition.retention_bytes,
            "retention_consumed": definition.retention_consumed,
            "max_message_bytes": definition.max_message_bytes,
            "dedup_count": definition.dedup_count,
            "dedup_window_ms": definition.dedup_window_ms,
        }
