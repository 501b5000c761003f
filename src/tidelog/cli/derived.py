"""How are the files mended that follow from the log, and the records of transactions?

Floor 9: imports repair, segments, errors; never the compiled store: nobody may have the store open while the files are
changed. Thread rule: the functions run under `held_gate`, in one thread, after the log itself was mended.

`ids` and `BASE.producers` are made again by whoever uses the partition next, so a damaged one is deleted. The oldest
file of producers says where batches with a producer id begin, and is what every walk begins with that finds no other:
without it nothing would be known of any producer, so it is written anew. `BASE.txnindex` has to be right before
anybody reads, and is made again here. Which transactions were decided stands in their records alone: they are put
aside when damaged, and whoever opens the store next aborts what was not decided for everybody to see.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

from tidelog.cli import repair, segments
from tidelog.cli.repair import Action
from tidelog.errors import from_oserror
from tidelog.native import crc32c

RECORDS = "transactions/records"
PRODUCERS_MAGIC = b"tdprods1"
PRODUCERS_HEADER_BYTES = 64
PRODUCERS_ENTRY_BYTES = 256
TRANSACTIONAL = 0x10
ABORT, COMMIT = 0, 1

_ENTRY = struct.Struct(">hqqqq")


def repair_derived(folder: str, damaged: set[str]) -> list[Action]:
    """Mend what follows from the log of one partition. `folder`: its directory; `damaged`: names of files.

    Raises NoSpace or StorageFailed."""
    actions: list[Action] = []
    try:
        if "ids" in damaged:
            actions.append(_delete(os.path.join(folder, "ids")))
        sick = sorted(name for name in damaged if name.endswith(".producers"))
        files = sorted(name for name in os.listdir(folder) if name.endswith(".producers"))
        for name in sick:
            if name == files[0]:
                actions += _first_producers(folder, name)
            else:
                actions.append(_delete(os.path.join(folder, name)))
        indexes = {int(name[:20]) for name in damaged if name.endswith(".txnindex")}
        if indexes:
            actions += _aborted(folder, indexes)
        repair.sync_folder(folder)
    except OSError as error:
        raise from_oserror(error, f"{folder} cannot be repaired") from error
    return actions


def put_records_aside(store: str) -> Action:
    """Take the records of transactions out of the way. Raises NoSpace or StorageFailed."""
    path = os.path.join(store, RECORDS)
    try:
        aside = repair.free_name(os.path.dirname(path), os.path.basename(path) + ".torn")
        os.rename(path, aside)
        repair.sync_folder(os.path.dirname(path))
    except OSError as error:
        raise from_oserror(error, f"{path} cannot be put aside") from error
    return Action(path, "put aside: transactions that were not ended in every partition are aborted", aside)


def _delete(path: str) -> Action:
    os.unlink(path)
    return Action(path, "deleted, it is made again from the log")


# --- producers ---


def _first_producers(folder: str, name: str) -> list[Action]:
    """An empty state in its place, which is what every reader of the damaged one took for the truth."""
    path, base = os.path.join(folder, name), int(name[:20])
    ordinal = segments.read_seals(os.path.join(folder, "seals")).ordinal_of(base)
    if ordinal < 0:
        return [Action(path, "cannot be made again: the seals do not say which segment it belongs to")]
    head = PRODUCERS_MAGIC + struct.pack("<IIQII", 1, PRODUCERS_ENTRY_BYTES, ordinal << 32, 0, 0xFFFFFFFF)
    head = head.ljust(PRODUCERS_HEADER_BYTES - 4, b"\0")
    with open(path, "rb") as file:
        aside = repair.put_aside(path, name + ".torn", file.read())
    repair.replace(path, head + struct.pack("<I", crc32c(head)))
    return [Action(path, "made again: producers that wrote only before this segment are not known any more", aside)]


# --- aborted transactions ---


class Aborted(NamedTuple):
    """One aborted transaction, and the base offset of the segment in which its marker stands."""

    segment: int
    producer_id: int
    first_offset: int
    last_offset: int

    def entry(self) -> bytes:
        """As it stands in the file. The last stable offset is at least behind its marker, and nobody asks for more."""
        return _ENTRY.pack(0, self.producer_id, self.first_offset, self.last_offset, self.last_offset + 1)


def _aborted(folder: str, indexes: set[int]) -> list[Action]:
    found = list(aborted_transactions(folder))
    actions: list[Action] = []
    for base in sorted(indexes):
        path = os.path.join(folder, f"{base:020}.txnindex")
        fresh = b"".join(one.entry() for one in found if one.segment == base)
        try:
            with open(path, "rb") as file:
                old = file.read()
        except FileNotFoundError:
            old = b""
        aside = repair.put_aside(path, os.path.basename(path) + ".torn", old) if old else ""
        if fresh:
            repair.replace(path, fresh)
        elif old:
            os.unlink(path)
        actions.append(Action(path, "made again from the log", aside))
    return actions


def aborted_transactions(folder: str) -> Iterator[Aborted]:
    """All of a partition, in the order of their markers. Raises OSError."""
    begun: dict[int, int] = {}  # producer id -> first offset of what is open
    for name in sorted(name for name in os.listdir(folder) if segments.is_segment(name)):
        base = int(name[:20])
        with open(os.path.join(folder, name), "rb") as file:
            data = file.read()
        for batch in segments.walk(data, base, -1).batches:
            attributes, producer_id = _sender(data, batch.position)
            if producer_id < 0:
                continue
            if not attributes & segments.CONTROL:
                if attributes & TRANSACTIONAL:
                    begun.setdefault(producer_id, batch.base_offset)
                continue
            kind = _marker(data[batch.position + segments.HEADER_BYTES : batch.position + batch.size_bytes])
            first = begun.pop(producer_id, -1) if kind in {ABORT, COMMIT} else -1
            if kind == ABORT and first >= 0:
                yield Aborted(base, producer_id, first, batch.base_offset)


def _sender(data: bytes, position: int) -> tuple[int, int]:
    """(attributes, producer id) of a batch."""
    attributes: int = struct.unpack_from(">h", data, position + 21)[0]
    producer_id: int = struct.unpack_from(">q", data, position + 43)[0]
    return attributes, producer_id


def _marker(record: bytes) -> int:
    """The type in the key {version i16, type i16} of a control record; -1: it has none.

    Lengths and deltas of such a record take a byte each: length, attributes, timestamp, offset, bytes of the key."""
    if len(record) < 9 or record[4] != 2 * 4:
        return -1
    kind: int = struct.unpack_from(">h", record, 7)[0]
    return kind
