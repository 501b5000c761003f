"""What does a name add to a producer's `send` and `send_many`?

Timed: `for value in values: producer.send(topic, value)` over 10,000 values of 100 bytes, and one `send_many` of them;
with `log.producer(name="till")` against `log.producer()`, each to a channel of its own (a named producer looks through
what others sent to its partition). One thread, one partition, ack written, on disk.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import perf_counter_ns
from typing import Any

from benchmarks.harness import Context, Figure, interleave
from benchmarks.send import some_values


def send_ns(send: Callable[[Any, bytes], object], topic: Any, values: list[bytes]) -> float:
    """Nanoseconds of one send."""
    start = perf_counter_ns()
    for value in values:
        send(topic, value)
    return (perf_counter_ns() - start) / len(values)


def send_many_ns(send_many: Callable[[Any, list[bytes]], object], topic: Any, values: list[bytes]) -> float:
    """Nanoseconds of one message of a send_many."""
    start = perf_counter_ns()
    send_many(topic, values)
    return (perf_counter_ns() - start) / len(values)


def run(ctx: Context) -> list[Figure]:
    """Two figures."""
    values, figures = some_values(ctx.size(10_000, 100)), []
    with ctx.log() as log, log.producer() as plain, log.producer(name="till") as named:
        topic, other = log.topic("named", partitions=1), log.topic("plain", partitions=1)
        for how, measure, ours_call, theirs_call in (
            ("send", send_ns, named.send, plain.send),
            ("send_many", send_many_ns, named.send_many, plain.send_many),
        ):
            for _ in range(4):
                measure(ours_call, topic, values)
                measure(theirs_call, other, values)
            ours, theirs = interleave(
                partial(measure, ours_call, topic, values), partial(measure, theirs_call, other, values), ctx.pairs
            )
            figures.append(
                Figure(
                    name=f"named_{how}",
                    title=f"`{how}` of a named producer" + (", per message" if how == "send_many" else ""),
                    unit="ns",
                    measured=ours,
                    against="the same of one without a name",
                    baseline=theirs,
                    reach=1.3,
                    aim=1.15,
                    place="disk",
                    table=how == "send",
                )
            )
    return figures
