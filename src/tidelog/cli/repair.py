"""How is damage put aside, so that what is whole in a partition can be read and written again?

Floor 9: imports segments, errors; never the compiled store: nobody may have the store open while the files are changed.
Thread rule: the functions run under `held_gate`, in one thread.

Nothing is thrown away: what is taken out of the log or replaced is copied to a `.torn` file, synced, and only then
overwritten. Damaged bytes of a segment give way to one filler batch of the same length that covers the same offsets and
holds no message: positions, offsets and the segment's length stay what they were. Where the first 21 bytes of the
damaged batch are whole they stay too, with a filler made to have the CRC that stands there, so that the running header
CRC, which the store keeps elsewhere for the active segment, stays right.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tidelog.cli import segments
from tidelog.cli.segments import Seal, Walk
from tidelog.errors import Locked, from_oserror

GATE_BYTE = 0
SHARED_BLOCKS_AT = 626688
SHARED_BLOCK_BYTES = 49152
BLOCK_PARTITIONS = 64
HOT_BYTES = 256
HOT_FAILED_AT = 196
GIVEN_UP = 0x10000
"""Bit of the word `failed`: whoever opens the store next reads the partition from the disk again."""


@dataclass(frozen=True, slots=True)
class Action:
    """One thing that was done: which file, what, and where the old bytes are now ("": there were none)."""

    file: str
    what: str
    aside: str = ""
    first_offset: int = -1
    next_offset: int = -1
    """Offsets that hold no message any more; -1: none were lost."""


@contextmanager
def held_gate(store: str) -> Iterator[None]:
    """Nobody else may be in the store, and nobody gets in, while this is held. Raises Locked if somebody is."""
    lock = os.open(os.path.join(store, "store.lock"), os.O_RDWR | os.O_CLOEXEC)
    try:
        wanted = struct.pack("hhxxxxqqixxxx", fcntl.F_WRLCK, os.SEEK_SET, GATE_BYTE, 1, 0)
        try:
            fcntl.fcntl(lock, fcntl.F_OFD_SETLK, wanted)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise from_oserror(error, "the gate of the store cannot be locked") from error
            raise Locked(
                f"{store} is open in another process: repair needs it alone; end the processes that use it (`tidelog "
                f"check {store}` without --repair may run beside them)"
            ) from None
        yield
    finally:
        os.close(lock)


def repair_partition(folder: str, log_end: int, tail: int, damaged: set[str]) -> list[Action]:
    """Mend one partition. `folder`: its directory; `log_end`: the offset at which it ends, `tail`: the length of its
    last segment, both -1 if not known; `damaged`: names of files that a check has complained about.

    Raises NoSpace or StorageFailed."""
    actions: list[Action] = []
    try:
        logs = sorted(name for name in os.listdir(folder) if segments.is_segment(name))
        seals = segments.read_seals(os.path.join(folder, "seals"))
        for place, name in enumerate(logs):
            base, last = int(name[:20]), place == len(logs) - 1
            seal = seals.of(base)
            end = seal.end_offset if seal is not None else log_end if last else int(logs[place + 1][:20])
            length = seal.length if seal is not None else tail if last else -1
            stem = name[:20]
            sick = {stem + suffix for suffix in (".log", ".index", ".timeindex")} & damaged
            if sick or ("seals" in damaged and not last):
                actions += _segment(folder, base, end, length, sealed=not last, seals=seals)
        if seals.changed:
            aside = put_aside(os.path.join(folder, "seals"), "seals.torn", seals.original)
            replace(os.path.join(folder, "seals"), seals.data())
            actions.append(Action(os.path.join(folder, "seals"), "written anew from the segments", aside))
        sync_folder(folder)
    except OSError as error:
        raise from_oserror(error, f"{folder} cannot be repaired") from error
    return actions


def _segment(folder: str, base: int, end: int, length: int, *, sealed: bool, seals: segments.Seals) -> list[Action]:
    path = os.path.join(folder, f"{base:020}.log")
    actions: list[Action] = []
    with open(path, "r+b") as file:
        data = bytearray(file.read())
        walk = segments.walk(data, base, end, length)
        for hole in walk.holes:
            filler = segments.filler(data, hole, walk)
            name = f"{base:020}.log.torn-{hole.begin}"
            if filler is None:
                actions.append(Action(path, f"byte {hole.begin}: cannot be mended, nothing whole follows it"))
                continue
            aside = put_aside(path, name, bytes(data[hole.begin : hole.end]))
            data[hole.begin : hole.end] = filler
            file.seek(hole.begin)
            file.write(filler)
            what = f"bytes {hole.begin} to {hole.end} put aside, their offsets hold no message now"
            actions.append(Action(path, what, aside, hole.first_offset, hole.next_offset))
        file.flush()
        os.fsync(file.fileno())
    whole = segments.walk(data, base, end, length)
    if whole.holes:
        return actions
    index, times = _read(folder, base, ".index"), _read(folder, base, ".timeindex")
    if actions or not segments.indexes_fit(whole, index, times) or (sealed and len(index) % segments.INDEX_ENTRY_BYTES):
        index, times = segments.build_indexes(whole, finished=sealed)
        for suffix, fresh in ((".index", index), (".timeindex", times)):
            actions += _index(os.path.join(folder, f"{base:020}{suffix}"), fresh, sealed)
    if sealed:
        seals.put(_seal(whole, end, index, times))
    return actions


def _read(folder: str, base: int, suffix: str) -> bytes:
    try:
        with open(os.path.join(folder, f"{base:020}{suffix}"), "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""


def _seal(whole: Walk, end: int, index: bytes, times: bytes) -> Seal:
    return Seal(
        base_offset=whole.base_offset,
        end_offset=end,
        max_timestamp_ms=whole.max_timestamp_ms,
        length=whole.end,
        header_crc=whole.header_crc,
        index_entries=len(index) // segments.INDEX_ENTRY_BYTES,
        time_entries=len(times) // segments.TIME_ENTRY_BYTES,
        batches=len(whole.batches),
    )


def _index(path: str, fresh: bytes, sealed: bool) -> list[Action]:
    """Put a new index in place of what is there, if it differs. One that is in use may be longer: zeros follow.

    A new one is never longer than its entries: whoever opens it next counts no more of them than there are.
    """
    old = _read(os.path.dirname(path), int(os.path.basename(path)[:20]), os.path.splitext(path)[1])
    if old == fresh or (not sealed and old[: len(fresh)] == fresh and not any(old[len(fresh) :])):
        return []
    aside = put_aside(path, os.path.basename(path) + ".torn", old) if old else ""
    replace(path, fresh)
    return [Action(path, "made again from the log", aside)]


def clear_failed(store: str, directory: str, slot: int) -> list[Action]:
    """Let a partition whose sync failed take messages again: from what is really on the disk.

    The kernel holds pages that it could not write as if it had; they are dropped from the cache. The mark in the shared
    words makes the next opener read the partition from the disk, as after a power cut.
    """
    folder = os.path.join(store, directory)
    marker = os.path.join(folder, "FAILED")
    try:
        for name in os.listdir(folder):
            with open(os.path.join(folder, name), "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        _mark_given_up(os.path.join(store, "shared"), slot)
        aside = ""
        if os.path.exists(marker):
            aside = free_name(folder, "FAILED.torn")
            os.rename(marker, aside)
        sync_folder(folder)
    except OSError as error:
        raise from_oserror(error, f"{folder} cannot be repaired") from error
    return [Action(marker, "the partition takes messages again, from what is on the disk", aside)]


def _mark_given_up(path: str, slot: int) -> None:
    at = SHARED_BLOCKS_AT + slot // BLOCK_PARTITIONS * SHARED_BLOCK_BYTES + slot % BLOCK_PARTITIONS * HOT_BYTES
    try:
        with open(path, "r+b") as file:
            file.seek(at + HOT_FAILED_AT)
            word = file.read(4)
            if len(word) == 4:
                file.seek(at + HOT_FAILED_AT)
                file.write(struct.pack("<I", struct.unpack("<I", word)[0] | GIVEN_UP))
    except FileNotFoundError:  # of an earlier boot: everything is read from the disk anyway
        pass


# --- files ---


def put_aside(path: str, name: str, data: bytes) -> str:
    """Write `data` beside `path` under a name that is free, on disk when this returns; the path."""
    folder = os.path.dirname(path)
    kept = free_name(folder, name)
    with open(kept, "xb", opener=_private) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(folder)
    return kept


def free_name(folder: str, name: str) -> str:
    """A path in `folder` that nothing has: `name`, or with a number behind it."""
    path, count = os.path.join(folder, name), 1
    while os.path.lexists(path):
        path, count = os.path.join(folder, f"{name}.{count}"), count + 1
    return path


def replace(path: str, data: bytes) -> None:
    """All or nothing, and on disk when this returns."""
    with open(path + ".new", "wb", opener=_private) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.rename(path + ".new", path)
    sync_folder(os.path.dirname(path))


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def sync_folder(folder: str) -> None:
    """Names that came or went are on disk when this returns. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
