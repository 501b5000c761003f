"""How fast do 1 KiB rows of a dtype channel go in?

burst: one `send_many` of a structured array of 64 MiB (65,536 rows of 1 KiB) while the pages of the segment it goes to
are allocated, in memory and mapped: a warm-up sent a burst before, and the next pages are populated off the clock
through the library's own map. Against a C loop that copies the same 64 MiB into an equally populated new file and
checksums them, by blocks of 64 KiB.

sustained: `send_many` of that array, again and again, until 4 GiB are in the log, from the first byte in a fresh store;
page faults, allocation, rolls and flushing every second are in it. Against a C loop over fresh files that allocates,
populates, copies and checksums batches of 1 MiB, while a second thread calls fdatasync every second. On both sides the
clock stops when the last byte is copied, and what is unsynced then is removed off the clock.

The checksum of the C side is the faster one of google-crc32c and the core's own; the report names it.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np

import tidelog
from benchmarks.baselines import Crc, Mapped, address_of, best_crc, checked, compiled, populate
from benchmarks.harness import Context, Figure, interleave

ROW = np.dtype([("id", "<i8"), ("body", "u1", (1016,))])
MIB = 1 << 20
SEGMENT_BYTES = (1 << 31) - 1
FLUSH_INTERVAL_NS = 1_000_000_000


def some_rows(count: int) -> np.ndarray[Any, Any]:
    """`count` rows of noise."""
    rows = np.random.default_rng(1).integers(0, 256, count * ROW.itemsize, dtype=np.uint8).view(ROW)
    rows["id"] = np.arange(count)
    return rows


class Bursts:
    """A log that takes bursts, with pages ready for the next one."""

    def __init__(self, log: tidelog.Log, folder: Path, rows: np.ndarray[Any, Any]) -> None:
        """`folder`: where the log is."""
        self.log, self.folder, self.rows, self.number = log, folder, rows, 0
        self.room = rows.nbytes + rows.nbytes // 32 + MIB
        self.topic: Any = None

    def prepare(self) -> None:
        """Makes sure that the next burst goes to populated pages of a segment that a burst has gone to before."""
        if self.topic is None or self._position() + self.room > SEGMENT_BYTES:
            if self.topic is not None:
                self.log.drop(self.topic.name)
            self.number += 1
            self.topic = self.log.topic(f"rows{self.number}", ROW, partitions=1, segment_bytes=SEGMENT_BYTES)
            self.topic.send_many(self.rows)
        [path] = (self.folder / f"rows{self.number}-0").glob("*.log")
        end = self._position() + self.room
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, min(end, SEGMENT_BYTES))
        first = self._position()
        populate(address_of(path) + first, min(end, SEGMENT_BYTES) - first)

    def _position(self) -> int:
        return int(self.topic.opened().partitions[0].tail()) & 0xFFFF_FFFF

    def burst(self) -> float:
        """GB/s of one burst."""
        self.prepare()
        start = perf_counter_ns()
        self.topic.send_many(self.rows)
        return self.rows.nbytes / (perf_counter_ns() - start)


def burst_by_hand(path: Path, rows: np.ndarray[Any, Any], crc: Crc) -> float:
    """GB/s of memcpy and CRC-32C into a new populated file."""
    to = Mapped(path, rows.nbytes)
    try:
        return rows.nbytes / checked(compiled().bl_copy(to.address, rows.ctypes.data, rows.nbytes, crc.address, 0))
    finally:
        to.close()
        path.unlink()


def sustained(ctx: Context, rows: np.ndarray[Any, Any], total: int) -> float:
    """GB/s of a whole store."""
    with ctx.log() as log:
        send_many = log.topic("rows", ROW, partitions=1).send_many
        start = perf_counter_ns()
        for _ in range(total // rows.nbytes):
            send_many(rows)
        return total / (perf_counter_ns() - start)


def sustained_by_hand(ctx: Context, rows: np.ndarray[Any, Any], total: int, crc: Crc) -> float:
    """GB/s of the C loop."""
    with ctx.directory() as folder:
        elapsed = compiled().bl_sustained(
            str(folder).encode(),
            total,
            1 << 30,
            rows.ctypes.data,
            rows.nbytes,
            min(MIB, rows.nbytes),
            FLUSH_INTERVAL_NS,
            crc.address,
        )
        return total / checked(elapsed)


def run(ctx: Context) -> list[Figure]:
    """Burst, then sustained."""
    rows, crc = some_rows(ctx.size(65_536, 4_096)), best_crc()
    with ctx.directory() as folder, tidelog.open(folder / "bench.log") as log:
        bursts = Bursts(log, folder / "bench.log", rows)
        burst = interleave(bursts.burst, partial(burst_by_hand, folder / "by-hand", rows, crc), ctx.pairs)
    total = ctx.size(4 << 30, rows.nbytes * 4) // rows.nbytes * rows.nbytes
    long = interleave(
        partial(sustained, ctx, rows, total), partial(sustained_by_hand, ctx, rows, total, crc), ctx.pairs
    )
    notes = {"checksum of the baseline": crc.owner}
    return [
        Figure(
            name="rows_burst",
            title="`send_many` of 1 KiB rows, 64 MiB burst",
            unit="GB/s",
            measured=burst[0],
            against="memcpy + CRC-32C",
            baseline=burst[1],
            sign=">=",
            reach=0.6,
            aim=0.8,
            place="disk",
            table=True,
            notes=notes,
        ),
        Figure(
            name="rows_sustained",
            title="the same sustained over 4 GiB",
            unit="GB/s",
            measured=long[0],
            against="a C loop that copies, checksums and syncs",
            baseline=long[1],
            sign=">=",
            reach=0.7,
            aim=0.9,
            place="disk",
            table=True,
            notes=notes,
        ),
    ]
