"""How long does opening take: after a clean close, after a kill in the same boot, and as a new boot?

Timed, in a fresh interpreter for every sample, after its imports: `tidelog.open(directory)`, up to a store that can be
used. All in a warm page cache, with 2 GiB of 1 KiB rows in the store.

clean: the last process closed it. Against one fsync of a small write in the same directory, in C.
killed: a process opened the store, appended 1 MiB and was killed; nothing of that was synced. Against fsync too.
new boot: a process wrote all of it without a flush (flush_interval of an hour) and was killed. Each sample opens a
copy without the file `shared`, which is all that distinguishes a new boot: that file holds the words of one boot, and a
store that finds none has only what the checkpoint says and the log holds. The copy is synced before, as what a machine
reads after a boot is. GB/s of the bytes that had to be scanned, as the library reports them; against a C loop that maps
the same files and checksums them (the faster one of google-crc32c and the core's own).
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import statistics
import sys
from functools import partial
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import tidelog
from benchmarks.baselines import Mapped, best_crc, checked, compiled
from benchmarks.child import Child, obey
from benchmarks.harness import Context, Figure, interleave
from benchmarks.rows import ROW, some_rows

MIB = 1 << 20
NEVER_SECONDS = 3600.0


def timed_open(path: str) -> str:
    """The child's side: "NANOSECONDS SCANNED_BYTES CLEAN SAME_BOOT" of opening."""
    open_log = tidelog.open  # the package imports what it needs when a name is asked for first: not opening's cost
    start = perf_counter_ns()
    log = open_log(path, create=False)
    elapsed = perf_counter_ns() - start
    engine: Any = log.engine
    recovery = engine.store.recovery
    assert len(log["rows"].opened().partitions) == 1
    log.close()
    return f"{elapsed} {recovery['scanned_bytes']} {recovery['clean']:d} {recovery['same_boot']:d}"


def append(log: tidelog.Log, mib: int) -> int:
    """The child's side: appends so many MiB of rows."""
    topic = log.topic("rows", ROW, partitions=1)
    rows, sent = some_rows(min(mib, 64) * 1024), 0
    while sent < mib:
        topic.send_many(rows)
        sent += min(mib, 64)
    return mib


def append_and_die(path: Path, mib: int) -> None:
    """Another process appends, flushes nothing and is killed."""
    child = Child("benchmarks.opening", "append", path)
    child.tell("append", mib)
    child.expect(str(mib))
    child.process.send_signal(signal.SIGKILL)
    child.__exit__()


def open_once(path: Path) -> tuple[int, int, int, int]:
    """(nanoseconds, bytes scanned, was it clean, the same boot) of opening in a fresh process."""
    with Child("benchmarks.opening", "open", path) as child:
        elapsed, scanned, clean, same = map(int, child.ask("open").split())
    return elapsed, scanned, clean, same


def open_ms(path: Path, kill: bool) -> float:
    """Milliseconds of one opening; `kill`: after a process was killed while it had the store open."""
    if kill:
        append_and_die(path, 1)
    elapsed, _, clean, same = open_once(path)
    assert bool(clean) is not kill and (same or not kill), f"clean={clean} same_boot={same}"
    return elapsed / 1e6


def fsync_ms(folder: Path) -> float:
    """Milliseconds of one small write with fsync."""
    fd = os.open(folder / "by-hand", os.O_RDWR | os.O_CREAT, 0o600)
    elapsed = checked(compiled().bl_fsync(fd, os.urandom(4096), 4096))
    os.close(fd)
    return elapsed / 1e6


class NewBoot:
    """Copies of a store that was not flushed, as a new boot finds them."""

    def __init__(self, folder: Path, pristine: Path) -> None:
        """`folder`: where copies go; `pristine`: the store, of which `shared` is removed."""
        self.folder, self.pristine, self.scanned = folder, pristine, [0]
        (pristine / "shared").unlink()

    def _copy(self) -> Path:
        path = self.folder / "copy.log"
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(self.pristine, path)
        for file in path.rglob("*"):
            fd = os.open(file, os.O_RDONLY)
            os.fsync(fd)
            os.close(fd)
        return path

    def gigabytes(self) -> float:
        """GB/s of opening one copy."""
        elapsed, scanned, clean, same = open_once(self._copy())
        assert scanned and not clean and not same, f"scanned={scanned} clean={clean} same_boot={same}"
        self.scanned.append(scanned)
        return scanned / elapsed

    def gigabytes_by_hand(self) -> float:
        """GB/s of checksumming the same files."""
        size = elapsed = 0
        for file in sorted(self.pristine.glob("rows-0/*.log")):
            start = perf_counter_ns()
            segment = Mapped(file)
            checked(
                compiled().bl_checksum(
                    segment.address, segment.size, best_crc().address, ctypes.byref(ctypes.c_uint32())
                )
            )
            elapsed += perf_counter_ns() - start
            size += segment.size
            segment.close()
        return size / elapsed


def run(ctx: Context) -> list[Figure]:
    """Clean, killed, new boot."""
    mib = ctx.size(2048, 4)
    with ctx.directory() as folder:
        store = folder / "bench.log"
        with tidelog.open(store) as log:
            append(log, mib)
        fsync = partial(fsync_ms, folder)
        clean = interleave(partial(open_ms, store, False), fsync, ctx.pairs)
        killed = interleave(partial(open_ms, store, True), fsync, ctx.pairs)
        shutil.rmtree(store)
        append_and_die(store, mib)
        boot = NewBoot(folder, store)
        scans = interleave(boot.gigabytes, boot.gigabytes_by_hand, ctx.pairs)
    shared: dict[str, Any] = {"place": "disk", "table": True}
    against: dict[str, Any] = {"unit": "ms", "against": "one fsync", **shared}
    size = f"a {mib // 1024} GiB store" if mib >= 1024 else f"a {mib} MiB store"
    return [
        Figure(
            "open_clean",
            f"opening {size}, closed cleanly, beyond one fsync",
            measured=clean[0],
            baseline=clean[1],
            reach=20.0,
            judged="excess",
            **against,
        ),
        Figure(
            "open_killed",
            f"opening {size} after a kill, same boot",
            measured=killed[0],
            baseline=killed[1],
            reach=50.0,
            judged="value",
            **against,
        ),
        Figure(
            "open_new_boot",
            f"opening {size} as a new boot, of unsynced bytes",
            unit="GB/s",
            measured=scans[0],
            against="CRC-32C of the same files",
            baseline=scans[1],
            sign=">=",
            reach=3.0,
            judged="value",
            notes={
                "scanned bytes": int(statistics.median(boot.scanned[1:])),
                "checksum of the baseline": best_crc().owner,
            },
            **shared,
        ),
    ]


def main() -> None:
    """The child."""
    what, path = sys.argv[1:]
    if what == "open":
        obey({"open": partial(timed_open, path)})
    else:
        log = tidelog.open(path, flush_interval=NEVER_SECONDS)
        obey({"append": partial(append, log)})


if __name__ == "__main__":
    main()
