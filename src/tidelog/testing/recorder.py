"""How does a process write down what it does, so that it can still be read after the process was killed?

Floor 8: may import testing.history and numpy. Thread rule: everything may be called from any thread; a forked child
makes a recorder of its own.

Rows go straight into a mapped file (or into memory), without a system call: what stands there when the process dies is
kept by the kernel. The kind of a row is stored last, so that half a row is none. A send is written before it is made,
and its row is completed when the answer comes: a row that was never completed says that nobody knows. Names go to a
text file beside it. Files are chunks of a megabyte, so that whoever is killed leaves little that is unused.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidelog.testing.history import ROW, Client, History, Kind, Status

__all__ = ["Recorder", "Written", "load"]

CHUNK_ROWS = 16_384
_ROW_BYTES = ROW.itemsize
_ROW = struct.Struct("<qqqqqIIIiHBBHH")
_END = struct.Struct("<q")
_KIND_AT = ROW.fields["kind"][1] if ROW.fields else 0
_STATUS_AT, _END_AT, _OFFSET_AT, _PARTITION_AT = (
    ROW.fields[name][1] if ROW.fields else 0 for name in ("status", "end", "offset", "partition")
)
_INT = struct.Struct("<i")
SUFFIX = ".history"


class Written:
    """Rows that wait for their answer: the chunks they stand in, and where."""

    __slots__ = ("parts",)

    def __init__(self, parts: list[tuple[NDArray[Any], int, int]]) -> None:
        self.parts = parts


class Recorder:
    """Writes the history of one process: to files that begin with `path`, or to memory (None).

    `channel` and `consumer` of testing.recording wrap handles, so that programs seldom call the methods here.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, *, process: str | None = None) -> None:
        """`process`: the name that its clients begin with. Raises OSError if the files cannot be written."""
        self.process = f"p{os.getpid()}" if process is None else process
        self._path = None if path is None else Path(path)
        self._lock = threading.Lock()
        self._clients: list[Client] = []
        self._channels: dict[str, int] = {}
        self._txns: dict[str, int] = {"": 0}
        self._chunks: list[Any] = []
        self._count = 0
        self._op = 0
        if self._path is not None:
            self._path.with_suffix(".names").touch()
        self._begin_chunk()

    # --- names ---

    def client(self, name: str, **facts: Any) -> int:
        """The number of a new client (`Client` has the facts); each is used by one thread at a time."""
        with self._lock:
            made = Client(f"{self.process}/{name}" if self.process else name, **facts)
            self._clients.append(made)
            self._note({"client": asdict(made)})
            return len(self._clients) - 1

    def channel(self, name: str) -> int:
        """The number of a channel."""
        known = self._channels.get(name)
        if known is not None:
            return known
        with self._lock:
            if name not in self._channels:
                self._note({"channel": name})
                self._channels[name] = len(self._channels)
            return self._channels[name]

    def txn(self, name: str) -> int:
        """The number of a transaction."""
        with self._lock:
            if name not in self._txns:
                self._note({"txn": name})
                self._txns[name] = len(self._txns)
            return self._txns[name]

    def _note(self, fact: dict[str, Any]) -> None:
        """Names reach the file before the first row that uses them."""
        if self._path is not None:
            with self._path.with_suffix(".names").open("a") as names:
                names.write(json.dumps(fact) + "\n")

    # --- rows ---

    def op(self) -> int:
        """The number of the next call."""
        with self._lock:
            self._op += 1
            return self._op

    def row(
        self,
        kind: Kind,
        client: int,
        *,
        begin: int | None = None,
        end: int | None = None,
        value: int = -1,
        key: int = -1,
        offset: int = -1,
        op: int | None = None,
        txn: int = 0,
        channel: int = 0,
        partition: int = -1,
        status: Status = Status.OK,
        flags: int = 0,
    ) -> tuple[Any, int]:
        """Writes one row; answers where it stands, for `complete`. `begin`, `end`: now, if not given."""
        now = time.monotonic_ns()
        with self._lock:
            if op is None:
                self._op += 1
                op = self._op
            if self._used == CHUNK_ROWS:
                self._begin_chunk()
            data, at = self._data, self._used * _ROW_BYTES
            self._used += 1
        began = now if begin is None else begin
        ended = now if end is None else end
        _ROW.pack_into(
            data, at, began, ended, value, key, offset, op, client, txn, partition, channel, 0, status, flags, 0
        )
        data[at + _KIND_AT] = kind
        return data, at

    def complete(
        self, place: tuple[Any, int], status: Status, *, offset: int = -1, partition: int = -1, flags: int = 0
    ) -> None:
        """The answer to one row."""
        data, at = place
        _END.pack_into(data, at + _END_AT, time.monotonic_ns())
        if offset >= 0:
            _END.pack_into(data, at + _OFFSET_AT, offset)
            _INT.pack_into(data, at + _PARTITION_AT, partition)
        if flags:
            data[at + ROW.fields["flags"][1]] |= flags  # type: ignore[index]
        data[at + _STATUS_AT] = status

    def ask(self, place: tuple[Any, int]) -> None:
        """A row that says from now on that nobody knows: what it tells of is about to be tried, and begins now."""
        data, at = place
        _END.pack_into(data, at, time.monotonic_ns())
        data[at + _STATUS_AT] = Status.INFO

    def rows(self, kind: Kind, count: int, **columns: Any) -> Written:
        """Writes many rows of one kind; columns are numbers or arrays. They belong to one call unless `op` is given."""
        if "op" not in columns:
            columns["op"] = self.op()
        now = time.monotonic_ns()
        columns = {"begin": now, "end": now, "value": -1, "key": -1, "offset": -1, "partition": -1, **columns}
        parts: list[tuple[NDArray[Any], int, int]] = []
        done = 0
        while done < count:
            with self._lock:
                if self._used == CHUNK_ROWS:
                    self._begin_chunk()
                some = min(count - done, CHUNK_ROWS - self._used)
                view = self._view[self._used : self._used + some]
                self._used += some
            for name, column in columns.items():
                view[name] = column[done : done + some] if isinstance(column, np.ndarray) else column
            view["kind"] = kind
            parts.append((view, done, some))
            done += some
        return Written(parts)

    def complete_rows(self, written: Written, status: Status, **columns: Any) -> None:
        """The answer to many rows."""
        columns = {"end": time.monotonic_ns(), **columns}
        for view, done, some in written.parts:
            for name, column in columns.items():
                view[name] = column[done : done + some] if isinstance(column, np.ndarray) else column
            view["status"] = status

    def _begin_chunk(self) -> None:
        size = CHUNK_ROWS * _ROW_BYTES
        if self._path is None:
            self._data: Any = bytearray(size)
        else:
            name = self._path.with_suffix(f".{self._count:04}{SUFFIX}")
            descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, size)  # a store into a hole of a full disk would be a signal
                self._data = mmap.mmap(descriptor, size)
            finally:
                os.close(descriptor)
        self._view: NDArray[Any] = np.frombuffer(self._data, ROW)
        self._used = 0
        self._count += 1
        if self._path is None:
            self._chunks.append(self._view)

    # --- reading it back ---

    def history(self) -> History:
        """What was recorded up to now, by this process."""
        if self._path is not None:
            return load(self._path)
        return _joined(self._chunks, self._clients, list(self._channels), list(self._txns))


def load(*paths: str | os.PathLike[str]) -> History:
    """One history of everything that recorders wrote: each path is one that a `Recorder` was given, or a directory of
    them. Raises FileNotFoundError for a path without a history."""
    return History.merged(_read(path) for given in paths for path in _recorded(Path(given)))


def _recorded(path: Path) -> Iterable[Path]:
    if path.is_dir():
        return sorted(found.with_suffix("") for found in path.glob("*.names"))
    if not path.with_suffix(".names").exists():
        raise FileNotFoundError(f"there is no history {path}: no {path.with_suffix('.names').name} beside it")
    return [path]


def _read(path: Path) -> History:
    clients: list[Client] = []
    channels: list[str] = []
    txns = [""]
    for line in path.with_suffix(".names").read_text().splitlines():
        try:
            fact = json.loads(line)
        except ValueError:
            break  # the last one of a process that died while it wrote
        if "client" in fact:
            clients.append(Client(**fact["client"]))
        elif "channel" in fact:
            channels.append(fact["channel"])
        else:
            txns.append(fact["txn"])
    return _joined(list(_chunks(path)), clients, channels, txns)


def _chunks(path: Path) -> Iterator[NDArray[Any]]:
    number = 0
    while (name := path.with_suffix(f".{number:04}{SUFFIX}")).exists():
        yield np.fromfile(name, ROW)
        number += 1


def _joined(chunks: list[NDArray[Any]], clients: list[Client], channels: list[str], txns: list[str]) -> History:
    rows = np.concatenate([chunk[chunk["kind"] > 0] for chunk in chunks]) if chunks else np.zeros(0, ROW)
    return History(rows[np.argsort(rows["begin"], kind="stable")], list(clients), list(channels), list(txns))
