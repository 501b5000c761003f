"""How does a test lane get a small file system of its own, cut it off, and say so when it cannot?

Imports tests.builds. A lane that mounts runs itself again inside a mount namespace of its own (`unshare -m`), so
nothing that it mounts is seen outside or survives it. Without root, without `unshare` or without loop devices it
prints `NOT RUN: ...` and exits with NOT_RUN: that is no success, and .ci/run takes it for a failure.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from tests import builds  # noqa: E402  (the path above is where it is found)

NOT_RUN = 77
_INSIDE = "TIDELOG_POWER_INSIDE"
_SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN; XFS has the same number
FLUSH_JOURNAL, DROP_JOURNAL = 1, 2


def not_run(reason: str) -> NoReturn:
    """Say why the lane cannot run here and end it."""
    print(f"NOT RUN: {reason}")
    sys.exit(NOT_RUN)


def enter_namespace() -> None:
    """Go on in a private mount namespace; the first call runs this program again and does not return."""
    if os.environ.get(_INSIDE):
        return
    if os.geteuid() != 0:
        not_run("mounting needs root; run this lane as root")
    for tool in ("unshare", "mount", "umount", "mkfs.ext4"):
        if shutil.which(tool, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") is None:
            not_run(f"there is no {tool}; install util-linux, mount and e2fsprogs")
    os.environ[_INSIDE] = "1"
    os.environ["PATH"] = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    program = ["unshare", "-m", sys.executable, *sys.argv]
    probe = subprocess.run(["unshare", "-m", "true"], capture_output=True, text=True, check=False)
    if probe.returncode:
        not_run(f"this machine gives no mount namespace: {probe.stderr.strip()}")
    sys.stdout.flush()
    os.execvp(program[0], program)


def worker() -> Path:
    """The compiled worker. Ends the lane with exit code 1 when it does not compile."""
    try:
        return builds.program(Path(__file__).with_name("power_worker.c"), builds.TEST)
    except builds.BuildFailed as error:
        print(error)
        sys.exit(1)


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


def mount(image: Path, where: Path, options: str) -> None:
    """Mount a loop image. Ends the lane with NOT_RUN when there are no loop devices."""
    done = _run("mount", "-t", "ext4", "-o", f"loop,{options}", str(image), str(where))
    if done.returncode == 0:
        return
    if "loop" in done.stderr and ("no free loop" in done.stderr or "failed to setup loop" in done.stderr):
        not_run(f"there is no loop device to be had: {done.stderr.strip()}")
    print(f"mounting {image} with {options} failed: {done.stderr.strip()}")
    sys.exit(1)


def unmount(where: Path) -> None:
    """Unmount; a process that was just killed may hold it for a moment longer."""
    for _ in range(500):
        done = _run("umount", str(where))
        if done.returncode == 0:
            return
        time.sleep(0.01)
    print(f"unmounting {where} failed: {done.stderr.strip()}")
    sys.exit(1)


def cut_off(where: Path, how: int) -> None:
    """The power goes: nothing reaches the disk any more. `how`: FLUSH_JOURNAL or DROP_JOURNAL."""
    fd = os.open(where, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(fd, _SHUTDOWN, struct.pack("I", how))
    finally:
        os.close(fd)


@contextlib.contextmanager
def workplace() -> Iterator[Path]:
    """A directory in RAM where there is room, gone afterwards."""
    base = "/dev/shm" if os.path.isdir("/dev/shm") and shutil.disk_usage("/dev/shm").free > 256 << 20 else None
    with tempfile.TemporaryDirectory(prefix="tidelog-power-", dir=base) as directory:
        yield Path(directory)


def make_ext4(image: Path, mebibytes: int) -> None:
    """A fresh ext4 image."""
    with image.open("wb") as file:
        file.truncate(mebibytes << 20)
    done = _run(
        "mkfs.ext4", "-q", "-F", "-O", "^metadata_csum_seed", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(image)
    )
    if done.returncode:
        print(f"mkfs.ext4 failed: {done.stderr.strip()}")
        sys.exit(1)
