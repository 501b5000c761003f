"""What does a store do on a disk that is really full? `python tests/power/full_disk.py --cycles N [--seed N]`

Imports tests.power.mounts. A tmpfs of 8 MiB and a loop-mounted ext4 of 32 MiB are filled by appends again and again:
the error is typed, no process dies of SIGBUS, reads, commits and trims go on, and appends go on once there is space,
without anything being opened again.

Exit codes: 0; 1 a promise is broken; 77 the lane cannot run here.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from tests.power import mounts


def fill(program: Path, mountpoint: Path, cycles: int, seed: int, name: str) -> None:
    """Run the worker that fills the disk; end the lane when it fails or dies."""
    done = subprocess.run(
        [program, "full", mountpoint / "store", str(cycles), str(seed)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if done.returncode:
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
        again = f"full_disk.py --cycles {cycles} --seed {seed}"
        print(f"FAILED on {name} with {how}: {done.stdout}{done.stderr}again: {again}")
        sys.exit(1)
    print(f"full_disk: {name}: {done.stdout.strip()}")


def main() -> int:
    """0, or an exit code of the module's first comment."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cycles", type=int, default=50, help="on both file systems together")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    mounts.enter_namespace()
    program = mounts.worker()
    began = time.monotonic()
    with mounts.workplace() as place:
        mountpoint = place / "mnt"
        mountpoint.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", mountpoint], check=True)
        try:
            fill(program, mountpoint, arguments.cycles // 2, arguments.seed, "tmpfs of 8 MiB")
        finally:
            mounts.unmount(mountpoint)
        mounts.make_ext4(place / "image", 32)
        mounts.mount(place / "image", mountpoint, "data=ordered")
        try:
            fill(program, mountpoint, arguments.cycles - arguments.cycles // 2, arguments.seed, "ext4 of 32 MiB")
        finally:
            mounts.unmount(mountpoint)
    print(f"full_disk: {arguments.cycles} times full, no promise broken; {time.monotonic() - began:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
