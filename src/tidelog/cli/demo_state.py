"""What does a subscriber remember, so that a successor goes on exactly where it was killed?

Floor 9: imports demo_answers, common. Thread rule: a `States` belongs to one subscriber's thread.

The state of a partition is its partial table and the offset that comes next, in one file that is replaced as a whole.
It belongs to the partition, not to a process: whoever gets the partition loads it. The file is saved before the offset
is committed, so after a kill the log delivers from the committed offset, which is at or before the file's: messages
below the file's offset come again and are recognised by their offset alone. The file survives the death of every
process; it is not synced, so it promises nothing about a power cut.

Beside it stands a journal: the row number of every event that took effect, in the order in which it did. The state file
says how much of the journal counts; what a killed subscriber wrote past that is overwritten. The journal is what the
proof reads: a row that stands in it twice took effect twice.
"""

from __future__ import annotations

import os
from array import array
from pathlib import Path

import msgspec

from tidelog.cli.common import CommandError
from tidelog.cli.demo_answers import Table

ROW_BYTES = 4


class State(msgspec.Struct):
    """Everything counted from one partition by one group."""

    next_offset: int = 0
    """The offset after the last message that `table` holds."""
    rows: int = 0
    """How many entries of the journal count."""
    table: Table = {}
    """msgspec copies the default for every new state."""


_decoder = msgspec.json.Decoder(State)


class States:
    """The states of a group's partitions: in memory for those at work, in two files each."""

    def __init__(self, folder: str | os.PathLike[str], group: str) -> None:
        self._folder = Path(folder)
        self._group = group
        self._held: dict[int, State] = {}
        self._unsaved: dict[int, array[int]] = {}

    def accept(self, partition: int, offset: int, row: int) -> Table | None:
        """The table to add the message at `offset` to, or None if the table holds it already (it came again)."""
        state = self._held.get(partition)
        if state is None or offset != state.next_offset:
            # First message here, a gap, or a repetition: the file knows best, unless we are ahead of it ourselves.
            state = self._reload(partition)
        if offset < state.next_offset:
            return None
        state.next_offset = offset + 1
        unsaved = self._unsaved.get(partition)
        if unsaved is None:
            unsaved = self._unsaved[partition] = array("I")
        unsaved.append(row)
        return state.table

    def save(self) -> None:
        """Write every state that changed, each all or nothing."""
        for partition, rows in sorted(self._unsaved.items()):
            state = self._held[partition]
            with open(self._journal(partition), "r+b" if state.rows else "wb") as journal:
                journal.seek(state.rows * ROW_BYTES)
                journal.write(rows.tobytes())
                journal.truncate()
            state.rows += len(rows)
            path = self._path(partition)
            temporary = path.with_name(f".{path.name}.{os.getpid()}")
            temporary.write_bytes(msgspec.json.encode(state))
            os.replace(temporary, path)
        self._unsaved.clear()

    def load(self, partition: int) -> tuple[State, array[int]]:
        """What the files say of a partition: its state, and the rows that took effect. Raises CommandError if not
        all of them are there."""
        state = self._read(partition)
        rows: array[int] = array("I")
        if state.rows:
            path = self._journal(partition)
            rows.frombytes(path.read_bytes()[: state.rows * ROW_BYTES])
            if len(rows) != state.rows:
                raise CommandError(f"{path} holds {len(rows)} of {state.rows} entries: was it changed by hand?")
        return state, rows

    def _reload(self, partition: int) -> State:
        held = self._held.get(partition)
        saved = self._read(partition)
        if held is None or saved.next_offset > held.next_offset:
            self._held[partition] = held = saved
            self._unsaved.pop(partition, None)
        return held

    def _read(self, partition: int) -> State:
        try:
            return _decoder.decode(self._path(partition).read_bytes())
        except FileNotFoundError:
            return State()

    def _path(self, partition: int) -> Path:
        return self._folder / f"{self._group}-{partition}.json"

    def _journal(self, partition: int) -> Path:
        return self._folder / f"{self._group}-{partition}.rows"
