"""What does one `send` of a 100-byte value cost, its receipt included?

Timed: `for value in values: send(value)` over a list of 10,000 values; against the same loop of
`queue.SimpleQueue.put`. Once as bursts: a sample is one such list (1.6 MB of log), the next begins after the
baseline's list, so that the thread which faults in pages ahead keeps up. Once sustained: a sample is 60 lists (100
MB), a run more than 1.5 GB and some seconds, so that page faults, allocation, flushing every second and the roll to
the next file are in it. One thread, one partition, ack written; in a directory on disk and in /dev/shm. "4
partitions" is a channel as it is by default.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from time import perf_counter_ns

from benchmarks.baselines import put_ns
from benchmarks.harness import VALUE_BYTES, Context, Figure, interleave


def send_ns(send: Callable[[bytes], object], values: list[bytes], rounds: int) -> float:
    """Nanoseconds of one send."""
    start = perf_counter_ns()
    for _ in range(rounds):
        for value in values:
            send(value)
    return (perf_counter_ns() - start) / (rounds * len(values))


def some_values(count: int) -> list[bytes]:
    """`count` different values."""
    return [os.urandom(VALUE_BYTES) for _ in range(count)]


def run(ctx: Context) -> list[Figure]:
    """On disk and in memory."""
    values, sustained, figures = some_values(ctx.size(10_000, 100)), ctx.size(60, 2), []
    kinds = [(place, partitions, 1) for place in ctx.places() for partitions in (1, 4)]
    for place, partitions, rounds in [*kinds, *((place, 1, sustained) for place in ctx.places())]:
        with ctx.log(place) as log:
            send = log.topic("values", partitions=partitions).send
            send_ns(send, values, 4)
            ours, theirs = interleave(
                partial(send_ns, send, values, rounds), partial(put_ns, values, rounds), ctx.pairs
            )
        main = place == "disk" and partitions == 1 and rounds == 1
        kind = ", in bursts of 10,000" if rounds == 1 else ", sustained"
        figures.append(
            Figure(
                name=("send" if rounds == 1 else "send_sustained") + ("" if partitions == 1 else "_4_partitions"),
                title="`send` of one value, receipt included" + kind + ("" if partitions == 1 else ", 4 partitions"),
                unit="ns",
                measured=ours,
                against="`queue.SimpleQueue.put`",
                baseline=theirs,
                reach=4.0 if main else None,
                aim=2.5 if main else None,
                place=place,
                table=place == "disk" and partitions == 1,
            )
        )
    return figures
