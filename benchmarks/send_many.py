"""What does one message of a `send_many` of 1,000 values cost?

Timed: `send_many(list)` over a list of 1,000 bytes values of 100 bytes, per message; against a loop of
`queue.SimpleQueue.put` over the same values. Once as bursts: a sample is 10 calls (1.1 MB of log), the next begins
after the baseline's, so that the thread which faults in pages ahead keeps up. Once sustained: a sample is 1,000 calls
(110 MB), a run more than 1.5 GB, with page faults, allocation, flushing every second and rolls in it. One thread, one
partition, ack written; on disk and in /dev/shm.
"with keys" gives each message a 16-byte key of a list and spreads them over 4 partitions.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from time import perf_counter_ns
from typing import Any

from benchmarks.baselines import put_ns
from benchmarks.harness import Context, Figure, interleave
from benchmarks.send import some_values

BATCH = 1000


def send_many_ns(send_many: Callable[..., Any], values: list[bytes], keys: list[bytes] | None, rounds: int) -> float:
    """Nanoseconds of one message."""
    start = perf_counter_ns()
    for _ in range(rounds):
        send_many(values, keys=keys)
    return (perf_counter_ns() - start) / (rounds * len(values))


def run(ctx: Context) -> list[Figure]:
    """On disk and in memory; with keys on disk."""
    values, burst, sustained, figures = some_values(BATCH), ctx.size(10, 2), ctx.size(1_000, 3), []
    keys = [os.urandom(16) for _ in values]
    bursts = [*((place, False, burst) for place in ctx.places()), ("disk", True, burst)]
    for place, keyed, rounds in [*bursts, *((place, False, sustained) for place in ctx.places())]:
        with ctx.log(place) as log:
            send_many = log.topic("values", partitions=4 if keyed else 1).send_many
            send_many_ns(send_many, values, keys if keyed else None, 4 * burst)
            ours, theirs = interleave(
                partial(send_many_ns, send_many, values, keys if keyed else None, rounds),
                partial(put_ns, values, rounds),
                ctx.pairs,
            )
        main = place == "disk" and not keyed and rounds == burst
        kind = ", in bursts of 10,000" if rounds == burst else ", sustained"
        figures.append(
            Figure(
                name=("send_many" if rounds == burst else "send_many_sustained") + ("_keyed" if keyed else ""),
                title="`send_many` of 1,000 values, per message"
                + kind
                + (", with keys over 4 partitions" if keyed else ""),
                unit="ns",
                measured=ours,
                against="`queue.SimpleQueue.put`",
                baseline=theirs,
                reach=0.75 if main else None,
                aim=0.5 if main else None,
                place=place,
                table=place == "disk" and not keyed,
            )
        )
    return figures
