"""What is left after real power cuts? `python tests/power/cuts.py --cuts N [--seed N] [--workers N]`

Imports tests.power.mounts. Several processes append to one store on a loop-mounted ext4 and acknowledge through a
pipe; the file system is cut off in the middle (the ioctl that file system tests use: nothing reaches the disk any
more, with or without the journal that is in memory), the processes are killed, it is mounted again, and a fresh
process compares what is there with everything that was acknowledged, over all cuts that this store has seen.

Exit codes: 0 all cuts without a broken promise; 1 one was broken; 77 the lane cannot run here.
"""

from __future__ import annotations

import argparse
import os
import random
import select
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from tests.power import mounts

PARTITIONS = 3
CUTS_PER_STORE = 12
OPTIONS = ("data=ordered", "data=writeback", "data=ordered,commit=1", "data=writeback,commit=1000")
NUMBERS_PER_RUN = 200_000


@dataclass
class Ledger:
    """What one store acknowledged, as lines for the verifier."""

    lines: list[str] = field(default_factory=list)
    cuts: int = 0

    def settle(self, left: str) -> tuple[int, int]:
        """Takes in what a verification found. Returns (messages acknowledged and still there, messages lost)."""
        ends = {}
        for line in left.splitlines():
            words = line.split()
            if words and words[0] == "LEFT":
                ends[int(words[1])] = (int(words[2]), int(words[3]))
        kept: list[str] = []
        there = gone = 0
        for line in self.lines:
            words = line.split()
            if words[0] != "A":
                kept.append(line)
                continue
            partition, offset, count, number = (int(word) for word in words[1:5])
            alive = max(0, min(count, ends[partition][0] - offset))
            there += alive
            gone += count - alive
            if alive:  # read from the disk after a cut: it has to stay
                kept.append(f"A {partition} {offset} {alive} {number} 1")
        for partition, (until, log_end) in ends.items():
            if log_end > until:
                kept.append(f"LOST {partition} {until} {log_end}")
        self.lines = list(dict.fromkeys(kept))
        self.cuts += 1
        return there, gone


@dataclass
class Totals:
    """Figures of a run."""

    cuts: int = 0
    acknowledged: int = 0
    synced: int = 0
    commits: int = 0
    trims: int = 0
    lost: int = 0
    torn_bytes: int = 0
    scanned_bytes: int = 0


def verify(program: Path, store: Path, ledger: Ledger, where: str) -> str:
    """Run the verifier; end the lane when a promise is broken."""
    before = store.parent.parent / "before"
    shutil.rmtree(before, ignore_errors=True)
    shutil.copytree(store, before)
    done = subprocess.run(
        [program, "verify", store],
        input="\n".join(ledger.lines) + "\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode:
        print(done.stdout + done.stderr)
        kept = mounts.ROOT / "build" / "power"
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(before, kept / "store")
        (kept / "acknowledged.txt").write_text("\n".join(ledger.lines) + "\n")
        print(
            f"FAILED: {where}; the store after the cut is in {kept / 'store'}, what it acknowledged in acknowledged.txt"
        )
        sys.exit(1)
    return done.stdout


def run_workers(
    program: Path, store: Path, mountpoint: Path, rng: random.Random, workers: int, how: int, number: int
) -> list[str]:
    """Let processes work, cut the file system off under them, and return the lines they wrote."""
    processes = []
    for worker in range(workers):
        first = 1 + number + worker * NUMBERS_PER_RUN
        command = [program, "work", store, str(worker), str(first), str(rng.getrandbits(60))]
        processes.append(
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
        )
    chunks: dict[int, list[bytes]] = {}
    streams = {}
    for process in processes:
        assert process.stdout is not None
        fd = process.stdout.fileno()
        os.set_blocking(fd, False)
        streams[fd] = process
        chunks[fd] = []
    cut_at = time.monotonic() + rng.uniform(0.03, 0.25)
    kill_at = cut_at + rng.choice([0.0, 0.02, 0.1])
    cut = killed = False
    cut_ns = 0
    open_streams = set(streams)
    while open_streams:
        now = time.monotonic()
        if not cut and now >= cut_at:
            cut_ns = time.monotonic_ns()
            mounts.cut_off(mountpoint, how)
            cut = True
        if cut and not killed and now >= kill_at:
            for process in processes:
                process.kill()
            killed = True
        wait = (kill_at if cut else cut_at) - now
        ready, _, _ = select.select(list(open_streams), [], [], max(0.0, min(0.01, wait)) if not killed else 1.0)
        for fd in ready:
            data = os.read(fd, 1 << 20)
            if data:
                chunks[fd].append(data)
            else:
                open_streams.discard(fd)
    lines: list[str] = []
    if not cut:  # all of them ended before the cut: their last words say why
        cut_ns = time.monotonic_ns()
        mounts.cut_off(mountpoint, how)
    for fd, process in streams.items():
        process.kill()
        process.wait()
        assert process.stderr is not None and process.stdout is not None
        errors = process.stderr.read().decode()
        process.stdout.close()
        process.stderr.close()
        text = b"".join(chunks[fd]).decode()
        if process.returncode not in (0, -9) or errors:
            print(f"FAILED: a worker ended with {process.returncode}, not with a typed error: {errors or text[-300:]}")
            sys.exit(1)
        whole = text[: text.rfind("\n") + 1].splitlines()
        if not cut and whole and whole[-1].startswith("E"):
            print(f"FAILED: a worker ended before the cut: {whole[-1]}")
            sys.exit(1)
        lines += [promise for promise in (at_the_cut(line, cut_ns) for line in whole) if promise]
    return lines


def at_the_cut(line: str, cut_ns: int) -> str:
    """The line without its time, and what it is worth.

    When the power really goes, nobody hears a call return any more. This cut leaves processes running, and the kernel
    answers a sync that it overtakes with success now and then, so what is said after it began promises nothing.
    """
    words, _, when = line.partition(" @ ")
    if not when:
        return ""
    if int(when) < cut_ns:
        return words
    return words[:-1] + "0" if words.startswith("A") else ""


def main() -> int:
    """One line of figures at the end; 0, or an exit code of the module's first comment."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cuts", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=3)
    arguments = parser.parse_args()
    mounts.enter_namespace()
    program = mounts.worker()
    totals, began = Totals(), time.monotonic()
    with mounts.workplace() as place:
        image, mountpoint = place / "image", place / "mnt"
        mountpoint.mkdir()
        store = mountpoint / "store"
        ledger = Ledger(cuts=CUTS_PER_STORE)
        mounted = False
        try:
            for number in range(arguments.cuts):
                rng = random.Random(f"{arguments.seed}/{number}")
                options = OPTIONS[number // CUTS_PER_STORE % len(OPTIONS)]
                if ledger.cuts >= CUTS_PER_STORE:
                    if mounted:
                        mounts.unmount(mountpoint)
                    mounts.make_ext4(image, 64)
                    mounts.mount(image, mountpoint, options)
                    mounted = True
                    subprocess.run([program, "prepare", store, str(PARTITIONS)], check=True, timeout=60)
                    ledger = Ledger()
                how = rng.choice([mounts.FLUSH_JOURNAL, mounts.DROP_JOURNAL, mounts.DROP_JOURNAL])
                first = number * arguments.workers * NUMBERS_PER_RUN % (1 << 31)
                lines = run_workers(program, store, mountpoint, rng, arguments.workers, how, first)
                ledger.lines += lines
                mounts.unmount(mountpoint)
                mounted = False
                mounts.mount(image, mountpoint, options)
                mounted = True
                again = f"cuts.py --seed {arguments.seed} --cuts {number + 1}"
                where = f"cut {number} of seed {arguments.seed}, {options}, shutdown {how}; again: {again}"
                left = verify(program, store, ledger, where)
                _, lost = ledger.settle(left)
                totals.cuts += 1
                totals.lost += lost
                totals.acknowledged += sum(
                    int(line.split()[3]) for line in lines if line.startswith("A") and line.endswith(" 0")
                )
                totals.synced += sum(
                    int(line.split()[3]) for line in lines if line.startswith("A") and line.endswith(" 1")
                )
                totals.commits += sum(line.startswith("C") for line in lines)
                totals.trims += sum(line.startswith("T") for line in lines)
                recovered = next(line for line in left.splitlines() if line.startswith("RECOVERED"))
                words = recovered.replace(",", "").split()
                totals.scanned_bytes += int(words[words.index("bytes") - 1])
                totals.torn_bytes += int(words[words.index("torn") - 1])
                if "after a cut" not in recovered:
                    print(f"FAILED: {where}: the store took the cut for nothing: {recovered}")
                    return 1
        finally:
            if mounted:
                mounts.unmount(mountpoint)
    print(
        f"cuts: {totals.cuts} power cuts, {arguments.workers} processes, {totals.acknowledged} messages acknowledged, "
        f"{totals.synced} of them synced, {totals.commits} synced commits, {totals.trims} trims; "
        f"{totals.lost} written messages lost as they may, 0 synced ones; "
        f"{totals.scanned_bytes} bytes scanned, {totals.torn_bytes} put aside; {time.monotonic() - began:.1f} s"
    )
    if totals.synced < 10 * totals.cuts or totals.lost == 0:
        print("FAILED: too little happened for this to mean anything")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
