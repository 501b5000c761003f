"""How long is a message's way to another process and back?

Timed: `ping.send(value)`, then `pong.receive()`, 100 bytes each way, through two topics of one store, while a second
process receives and answers in a loop; 2,000 times a sample. Blocking: both sleep when there is nothing. Busy poll:
both spin (`busy_poll=`). Against the same exchange of a number through one shared page between the same two processes,
in C: store, FUTEX_WAKE and FUTEX_WAIT; and store and spin with `pause`. One sample warms up. On disk. A blocking sample
of either in which this side did not sleep in nine of ten round trips is taken again: each side then found the answer
before it had gone to sleep, which is polling by system calls, and an exchange falls into that or out of it for seconds.
A machine with fewer than two idle CPUs says little about the spinning rows.
"""

from __future__ import annotations

import mmap
import os
import resource
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter_ns

import numpy as np

import tidelog
from benchmarks.baselines import checked, compiled
from benchmarks.child import Child, obey
from benchmarks.harness import VALUE_BYTES, Context, Figure, interleave

BUSY_SECONDS = 10.0
PAGE = 4096
TRIES = 50


def slept() -> int:
    """How often the calling thread has gone to sleep."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


class Echo:
    """One side of both exchanges."""

    def __init__(self, folder: Path, spin: bool, outward: str, inward: str) -> None:
        """Opens the log in `folder`; sends to `outward`, receives from `inward`."""
        self.spin = spin
        self.log = tidelog.open(folder / "bench.log")
        self.send = self.log.topic(outward, partitions=1).send
        self.tail = self.log.topic(inward, partitions=1).tail(busy_poll=BUSY_SECONDS if spin else 0.0)
        fd = os.open(folder / "page", os.O_RDWR)
        self.page = mmap.mmap(fd, PAGE)
        os.close(fd)
        self.address = int(np.frombuffer(self.page, np.uint8).ctypes.data)
        self.value = os.urandom(VALUE_BYTES)
        self.first = 1

    def answer_tidelog(self, count: int) -> int:
        """The child's side."""
        for _ in range(count):
            self.send(self.tail.receive(60.0).value)
        return count

    def answer_raw(self, count: int) -> int:
        """The child's side of the baseline."""
        first, self.first = self.first, self.first + count
        compiled().bl_pong(self.address, first, count, self.spin)
        return count

    def tidelog_us(self, child: Child, count: int) -> float:
        """Microseconds of one round trip."""
        child.tell("tidelog", count)
        start = perf_counter_ns()
        for _ in range(count):
            self.send(self.value)
            self.tail.receive(60.0)
        elapsed = perf_counter_ns() - start
        child.expect(str(count))
        return elapsed / count / 1000

    def raw_us(self, child: Child, count: int) -> float:
        """Microseconds of one round trip by hand."""
        first, self.first = self.first, self.first + count
        child.tell("raw", count)
        elapsed = checked(compiled().bl_ping(self.address, first, count, self.spin))
        child.expect(str(count))
        return elapsed / count / 1000

    def asleep(self, sample: Callable[[Child, int], float], child: Child, count: int) -> float:
        """A sample in which this side slept; without `spin` it is taken until it is one, `TRIES` times at most."""
        for _ in range(1 if self.spin else TRIES):
            before = slept()
            taken = sample(child, count)
            if slept() - before >= 0.9 * count:
                break
        return taken

    def close(self) -> None:
        """Leaves the log."""
        self.tail.close()
        self.log.close()


def run(ctx: Context) -> list[Figure]:
    """Blocking, then spinning."""
    figures = []
    for spin in (False, True):
        count = ctx.size(2_000, 20)
        with ctx.directory() as folder:
            (folder / "page").write_bytes(bytes(PAGE))
            echo = Echo(folder, spin, "ping", "pong")
            with Child("benchmarks.round_trip", folder, int(spin)) as child:
                ours, theirs = interleave(
                    partial(echo.asleep, echo.tidelog_us, child, count),
                    partial(echo.asleep, echo.raw_us, child, count),
                    ctx.pairs,
                )
            echo.close()
        figures.append(
            Figure(
                name="round_trip_busy" if spin else "round_trip_blocking",
                title="round trip between processes, " + ("busy poll" if spin else "blocking"),
                unit="us",
                measured=ours,
                against="a raw spin on shared memory" if spin else "a raw futex",
                baseline=theirs,
                reach=8.0 if spin else 1.3,
                aim=4.0 if spin else 1.1,
                place="disk",
                table=True,
            )
        )
    return figures


def main() -> None:
    """The child."""
    folder, spin = sys.argv[1:]
    echo = Echo(Path(folder), bool(int(spin)), "pong", "ping")
    compiled()
    obey({"tidelog": echo.answer_tidelog, "raw": echo.answer_raw})
    echo.close()


if __name__ == "__main__":
    main()
