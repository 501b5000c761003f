"""What does a subscriber remember, so that a successor goes on exactly where it was killed?

Floor 9: imports demo_answers. Thread rule: a `States` belongs to one subscriber's thread.

The state of a partition is its partial table and the offset that comes next, in one file that is replaced as a whole.
It belongs to the partition, not to a process: whoever gets the partition loads it. The file is saved before the offset
is committed, so after a kill the log delivers from the committed offset, which is at or before the file's: messages
below the file's offset come again and are recognised by their offset alone. The file survives the death of every
process; it is not synced, so it promises nothing about a power cut.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from tidelog.cli.demo_answers import Table


class State(msgspec.Struct):
    """Everything counted from one partition by one group."""

    next_offset: int = 0
    """The offset after the last message that `table` holds."""
    table: Table = {}
    """msgspec copies the default for every new state."""


_decoder = msgspec.json.Decoder(State)


class States:
    """The states of a group's partitions: in memory for those at work, in one file each."""

    def __init__(self, folder: str | os.PathLike[str], group: str) -> None:
        self._folder = Path(folder)
        self._group = group
        self._held: dict[int, State] = {}
        self._changed: set[int] = set()

    def accept(self, partition: int, offset: int) -> Table | None:
        """The table to add the message at `offset` to, or None if the table holds it already (it came again)."""
        state = self._held.get(partition)
        if state is None or offset != state.next_offset:
            # First message here, a gap, or a repetition: the file knows best, unless we are ahead of it ourselves.
            state = self._reload(partition)
        if offset < state.next_offset:
            return None
        state.next_offset = offset + 1
        self._changed.add(partition)
        return state.table

    def keep_only(self, partitions: set[int]) -> None:
        """Forget partitions that now belong to somebody else; what was not saved is counted again by the new owner."""
        for lost in self._held.keys() - partitions:
            del self._held[lost]
            self._changed.discard(lost)

    def save(self) -> None:
        """Write every state that changed, each file all or nothing."""
        for partition in sorted(self._changed):
            path = self._path(partition)
            temporary = path.with_name(f".{path.name}.{os.getpid()}")
            temporary.write_bytes(msgspec.json.encode(self._held[partition]))
            os.replace(temporary, path)
        self._changed.clear()

    def load_all(self, partitions: int) -> list[State]:
        """What the files say, for every partition."""
        return [self._read(partition) for partition in range(partitions)]

    def _reload(self, partition: int) -> State:
        held = self._held.get(partition)
        saved = self._read(partition)
        if held is None or saved.next_offset > held.next_offset:
            self._held[partition] = held = saved
            self._changed.discard(partition)
        return held

    def _read(self, partition: int) -> State:
        try:
            return _decoder.decode(self._path(partition).read_bytes())
        except FileNotFoundError:
            return State()

    def _path(self, partition: int) -> Path:
        return self._folder / f"{self._group}-{partition}.json"
