"""How fast do 1 KiB rows come out as one array, in a process that has never touched them?

Timed, in a fresh interpreter for every sample: `receive_many(65_536).values` of a dtype channel until 256 MiB are
there, from just before the first call; opening and imports are off the clock. All arrays are kept, so that none is put
where one was freed. Against a C loop in another fresh interpreter that maps the same segment files, checksums them and
copies them by blocks of 64 KiB into arrays that are just as fresh; mapping is on the clock. The files are in the page
cache, since they were just written and synced. The checksum is the faster one of google-crc32c and the core's own.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np

import tidelog
from benchmarks.baselines import Mapped, best_crc, checked, compiled, core_crc, google_crc
from benchmarks.child import Child, obey
from benchmarks.harness import Context, Figure, interleave
from benchmarks.rows import ROW, some_rows

AT_ONCE = 65_536


def read_columns(path: str) -> int:
    """The child's side with tidelog: nanoseconds for everything in the channel."""
    with tidelog.open(path, create=False) as log:
        tail = log.topic("rows", ROW).tail(start="earliest")
        left, kept, total = tail.lag, [], 0
        start = perf_counter_ns()
        while left:
            rows = tail.receive_many(AT_ONCE).values
            kept.append(rows)
            left -= len(rows)
        elapsed = perf_counter_ns() - start
        for rows in kept:
            total += int(rows["id"].sum())
        rest = sum(map(len, kept))
        assert total >= 0 and rest
        tail.close()
    return elapsed


def copy_files(folder: str, owner: int) -> int:
    """The child's side by hand; `owner`: whose checksum, 0 google's, 1 the core's."""
    crc = (google_crc(), core_crc())[owner]
    copy, kept, elapsed = compiled().bl_copy, [], 0
    for path in sorted(Path(folder).glob("*.log")):
        start = perf_counter_ns()
        segment = Mapped(path)
        for at in range(0, segment.size, AT_ONCE * ROW.itemsize):
            size = min(segment.size - at, AT_ONCE * ROW.itemsize)
            array = np.empty(size, np.uint8)
            checked(copy(array.ctypes.data, segment.address + at, size, crc.address, 1))
            kept.append(array)
        elapsed += perf_counter_ns() - start
        segment.close()
    return elapsed


def _fresh(size: int, *arguments: Any) -> float:
    with Child("benchmarks.columns", *arguments) as child:
        return size / int(child.ask("go"))


def run(ctx: Context) -> list[Figure]:
    """One figure, on disk."""
    rows, rounds = some_rows(ctx.size(AT_ONCE, 2_048)), ctx.size(4, 2)
    owner = 0 if best_crc() == google_crc() else 1
    with ctx.directory() as folder, tidelog.open(folder / "bench.log") as log:
        topic = log.topic("rows", ROW, partitions=1)
        for _ in range(rounds):
            topic.send_many(rows)
        log.close()  # sealed to its length, so that both sides read the same bytes
        segments = folder / "bench.log" / "rows-0"
        size = rounds * rows.nbytes
        ours, theirs = interleave(
            partial(_fresh, size, "read", folder / "bench.log"),
            partial(_fresh, size, "copy", segments, owner),
            ctx.pairs,
        )
    return [
        Figure(
            name="columns",
            title="column read of 1 KiB rows",
            unit="GB/s",
            measured=ours,
            against="CRC-32C + memcpy",
            baseline=theirs,
            sign=">=",
            reach=0.6,
            aim=0.8,
            place="disk",
            table=True,
            notes={"checksum of the baseline": best_crc().owner},
        )
    ]


def main() -> None:
    """The child."""
    what, path, *owner = sys.argv[1:]
    if what == "read":
        obey({"go": partial(read_columns, path)})
    else:
        compiled()  # compiled and loaded off the clock
        obey({"go": partial(copy_files, path, int(owner[0]))})


if __name__ == "__main__":
    main()
