"""What is this machine: its CPU, file systems, and what a sync costs?

Floor 9: imports native primitives when they are measured; nothing else of tidelog. Thread rule: plain functions; the
measuring ones take up to a second.
"""

from __future__ import annotations

import errno
import os
import statistics
import tempfile
import time
from dataclasses import dataclass

CPU_FEATURES = {
    "x86_64": ("sse4_2", "pclmulqdq", "vpclmulqdq", "avx2", "avx512f", "cx16"),
    "aarch64": ("crc32", "pmull", "atomics"),
}
"""What the native core can make use of, under the kernel's names."""

SYNC_BYTES = 4096
SYNC_SECONDS = 0.5
SYNC_COUNT = 100
CRC_BYTES = 64 << 10
CRC_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class SyncCost:
    """Seconds of writing and syncing 4 KiB of an allocated file."""

    median: float
    worst: float
    count: int


def cpu_model() -> str:
    """The CPU's name as the kernel gives it, else the machine type."""
    return _cpuinfo("model name") or _cpuinfo("Processor") or os.uname().machine


def cpu_flags() -> frozenset[str]:
    """The features of the first CPU, under the kernel's names."""
    return frozenset((_cpuinfo("flags") or _cpuinfo("Features") or "").split())


def _cpuinfo(field: str) -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name.strip() == field:
                    return value.strip()
    except OSError:
        pass
    return ""


def filesystem(path: str) -> tuple[str, str, str]:
    """(type, mount point, mount options) of the file system that holds `path`; "?" for what is not known."""
    real = os.path.realpath(path)
    best = ("?", "?", "?")
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                left, _, right = line.partition(" - ")
                mount, options, kind = left.split()[4], left.split()[5], right.split()[0]
                mount = mount.replace("\\040", " ")
                inside = real == mount or real.startswith(mount.rstrip("/") + "/")
                # Later lines of the same mount point lie over the earlier ones.
                if inside and (best[1] == "?" or len(mount) >= len(best[1])):
                    best = (kind, mount, options)
    except (OSError, IndexError):
        pass
    return best


def sync_cost(folder: str) -> SyncCost:
    """Write and fdatasync 4 KiB of an allocated file in `folder`, up to 100 times or half a second. Raises OSError."""
    costs: list[float] = []
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            os.posix_fallocate(file.fileno(), 0, SYNC_BYTES * SYNC_COUNT)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
        os.fsync(file.fileno())
        until = time.monotonic() + SYNC_SECONDS
        while len(costs) < SYNC_COUNT and (time.monotonic() < until or len(costs) < 3):
            began = time.perf_counter()
            os.pwrite(file.fileno(), bytes(SYNC_BYTES), len(costs) * SYNC_BYTES)
            os.fdatasync(file.fileno())
            costs.append(time.perf_counter() - began)
    return SyncCost(statistics.median(costs), max(costs), len(costs))


def can_allocate(folder: str) -> bool:
    """Whether the file system can reserve space. glibc would write zeros instead, so the blocks are looked at."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, 1 << 16)
            return os.fstat(file.fileno()).st_blocks > 0
    except OSError:
        return False


def crc_bytes_per_second() -> float:
    """How fast the CRC-32C of 64 KiB is, measured for a twentieth of a second."""
    from tidelog.native import crc32c

    data = bytes(CRC_BYTES)
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < CRC_SECONDS:
        for _ in range(16):
            crc32c(data)
        done += 16
    return done * CRC_BYTES / (time.perf_counter() - began)


def read_number(path: str) -> int | None:
    """The number in a file of /proc, None if there is none."""
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None
