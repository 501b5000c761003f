"""What is tidelog measured against, and how is it reached from Python?

`queue.SimpleQueue` in loops of the same shape as those that use tidelog, and the loops of baselines.c, compiled when
needed into build/benchmarks/ and called through ctypes (which releases the GIL).

The checksum of the C baselines is `crc32c_extend` of the library inside google-crc32c's wheel, or the core's own one:
`best_crc` takes whichever is faster here, so that no row is won by a slow checksum on the other side.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import mmap
import os
import queue
import subprocess
from pathlib import Path
from time import perf_counter_ns
from typing import Any, NamedTuple

import numpy as np

from benchmarks.harness import BUILD, ROOT

SOURCE = Path(__file__).with_name("baselines.c")
CORE_CRC = ROOT / "native" / "src" / "crc32c.c"
_FLAGS = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-fno-strict-aliasing", "-fPIC", "-shared", "-pthread"]
_HEADERS = ROOT / "native" / "include"

_P, _Z, _I64, _U32, _INT = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64, ctypes.c_uint32, ctypes.c_int
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "bl_copy": (_I64, [_P, _P, _Z, _P, _INT]),
    "bl_checksum": (_I64, [_P, _Z, _P, ctypes.POINTER(_U32)]),
    "bl_sustained": (_I64, [ctypes.c_char_p, _Z, _Z, _P, _Z, _Z, _I64, _P]),
    "bl_ping": (_I64, [_P, _U32, _U32, _INT]),
    "bl_pong": (_I64, [_P, _U32, _U32, _INT]),
    "bl_pwrite_synced": (_I64, [_INT, _I64, ctypes.c_char_p, _Z, _INT]),
    "bl_fsync": (_I64, [_INT, ctypes.c_char_p, _Z]),
    "bl_meter_start": (_INT, [_I64, _I64]),
    "bl_meter_stop": (_INT, [_P, _P, _INT, ctypes.POINTER(_I64)]),
    "bl_callgrind": (_INT, [_INT, ctypes.c_char_p]),
}


class Crc(NamedTuple):
    """A checksum function: its address, and whose it is."""

    address: int
    owner: str


@functools.cache
def compiled() -> ctypes.CDLL:
    """The compiled baselines. Raises RuntimeError with what the compiler said."""
    compiler = os.environ.get("CC") or "gcc"
    state = hashlib.sha256(" ".join([compiler, *_FLAGS]).encode())
    for path in (SOURCE, CORE_CRC, *sorted(_HEADERS.rglob("*.h"))):
        state.update(path.read_bytes())
    out = BUILD / f"baselines-{state.hexdigest()[:16]}.so"
    if not out.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        partial = out.with_suffix(f".{os.getpid()}.so")
        command = [compiler, *_FLAGS, f"-I{_HEADERS}", "-o", str(partial), str(SOURCE), str(CORE_CRC)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"the baselines do not compile:\n{done.stderr}")
        partial.rename(out)
    found = ctypes.CDLL(str(out))
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(found, name)
        function.restype, function.argtypes = result, arguments
    return found


def checked(nanoseconds: int) -> int:
    """What a baseline answered. Raises OSError for -errno."""
    if nanoseconds < 0:
        raise OSError(-nanoseconds, os.strerror(-nanoseconds))
    return nanoseconds


@functools.cache
def google_crc() -> Crc:
    """`crc32c_extend` of google-crc32c. Raises RuntimeError when its wheel does not hold the library."""
    import google_crc32c

    assert google_crc32c.__file__ is not None
    folder = Path(google_crc32c.__file__).resolve().parent
    for path in sorted(folder.with_name("google_crc32c.libs").glob("libcrc32c*")):
        function = ctypes.CDLL(str(path)).crc32c_extend
        return Crc(_address(function), f"google-crc32c {path.name}")
    raise RuntimeError("google-crc32c has no library beside it: install its wheel (pip install google-crc32c)")


@functools.cache
def core_crc() -> Crc:
    """The core's own CRC-32C, compiled with the baselines."""
    return Crc(_address(compiled().tl_crc32c), "tidelog's own")


@functools.cache
def best_crc() -> Crc:
    """Whichever checksum is faster over 64 KiB."""
    data = ctypes.create_string_buffer(os.urandom(1 << 16), 1 << 16)

    def cost(crc: Crc) -> int:
        return min(compiled().bl_checksum(data, len(data), crc.address, ctypes.byref(_U32())) for _ in range(200))

    return min([google_crc(), core_crc()], key=cost)


def checksum(crc: Crc, data: bytes) -> int:
    """`crc` of `data`, to see that it is the right function."""
    out = _U32()
    checked(compiled().bl_checksum(data, len(data), crc.address, ctypes.byref(out)))
    return out.value


def _address(function: Any) -> int:
    address = ctypes.cast(function, ctypes.c_void_p).value
    assert address is not None
    return address


# --- queue.SimpleQueue; the queue never holds more than one list of values, so that it stays in the cache ---


def put_ns(values: list[Any], rounds: int) -> float:
    """Nanoseconds of one put: `rounds` times the whole list, emptied in between off the clock."""
    simple: queue.SimpleQueue[Any] = queue.SimpleQueue()
    put, get, total = simple.put, simple.get, 0
    for _ in range(rounds):
        start = perf_counter_ns()
        for value in values:
            put(value)
        total += perf_counter_ns() - start
        for _ in values:
            get()
    return total / (rounds * len(values))


def get_ns(values: list[Any], rounds: int) -> float:
    """Nanoseconds of one get: `rounds` times the whole list, filled in between off the clock."""
    simple: queue.SimpleQueue[Any] = queue.SimpleQueue()
    put, get, total = simple.put, simple.get, 0
    for _ in range(rounds):
        for value in values:
            put(value)
        start = perf_counter_ns()
        for _ in values:
            get()
        total += perf_counter_ns() - start
    return total / (rounds * len(values))


class Mapped:
    """A file's pages in this process, for the C baselines."""

    def __init__(self, path: Path, size: int = 0) -> None:
        """Maps an existing file to read it, or with `size` a new one whose pages are allocated and populated."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT if size else os.O_RDONLY, 0o600)
        try:
            if size:
                os.posix_fallocate(fd, 0, size)
            self.size = size or os.fstat(fd).st_size
            access = mmap.PROT_READ | (mmap.PROT_WRITE if size else 0)
            self._map = mmap.mmap(fd, self.size, flags=mmap.MAP_SHARED, prot=access)
        finally:
            os.close(fd)
        self.address = int(np.frombuffer(self._map, np.uint8).ctypes.data)
        if size:
            populate(self.address, size)

    def close(self) -> None:
        """Unmaps it."""
        self._map.close()


def address_of(path: Path) -> int:
    """Where this process has mapped a file. Raises RuntimeError when it has not."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5] == str(path.resolve()) and int(fields[2], 16) == 0:
            return int(fields[0].partition("-")[0], 16)
    raise RuntimeError(f"{path} is not mapped by this process")


def populate(address: int, size: int) -> None:
    """Faults pages in for writing (MADV_POPULATE_WRITE). Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    page = mmap.PAGESIZE
    first = address // page * page
    if libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(address + size - first), 23) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"pages cannot be populated: {os.strerror(number)}")
