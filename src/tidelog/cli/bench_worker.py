"""What do the processes of `tidelog bench` do? `python -m tidelog.cli.bench_worker`, started by crew.

Floor 9: imports the log through common, crew, histogram. Thread rule: one thread.

Every message begins with who sent it, its number, and when it was due: 24 bytes that let the receiver prove that
nothing is missing, doubled or out of order, and measure from the due time. A load generator that waits for a slow log
would otherwise send less while it is slow, and measure only the good moments.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from tidelog.cli.common import opened
from tidelog.cli.crew import Report, next_line, say, stdin_ended, work
from tidelog.cli.histogram import Histogram

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

HEAD_BYTES = 24
STALL_NS = 10_000_000
"""From this latency on it is a stall."""
HICCUP_SLEEP_NS = 1_000_000
SLICE_NS = 100_000_000
"""Width of the slices of the latency timeline."""
REPORT_NS = 100_000_000
RECEIVE_MESSAGES = 10_000
PR_SET_TIMERSLACK = 29


class Job(msgspec.Struct, kw_only=True):
    """What one worker is to do."""

    role: str
    """"append", "deliver", "publish", "subscribe" or "hiccup"."""
    store: str = ""
    channel: str = ""
    index: int = 0
    messages: int = 0
    """append, publish: to send. deliver, subscribe: expected of each producer."""
    producers: int = 1
    size: int = 100
    batch: int = 1000
    ack: str = "written"
    compression: str | None = None
    group: str = ""
    interval_ns: float = 0.0
    """publish: from one due time to the next."""
    warm_ns: int = 0
    """Latencies of messages due this long after the start are left out."""
    busy_poll: float = 0.0
    cpu: int = -1
    """hiccup: the CPU to look at."""


class Measured(Report, omit_defaults=True):
    """What was measured. `done`: messages."""

    began_ns: int = 0
    latencies: dict[int, int] = msgspec.field(default_factory=dict)
    """Histogram, see histogram.py."""
    maximum_ns: int = 0
    late: dict[int, int] = msgspec.field(default_factory=dict)
    """publish: how late the generator itself sent; histogram."""
    late_maximum_ns: int = 0
    lost: int = 0
    doubled: int = 0
    disordered: int = 0
    stalls: list[tuple[int, int]] = msgspec.field(default_factory=list)
    """(from, to) in monotonic ns: times during which a message waited longer than STALL_NS, or a sleep did not end."""
    slices: dict[int, int] = msgspec.field(default_factory=dict)
    """Largest latency (ns) by slice of SLICE_NS of monotonic time."""


def main() -> int:
    """Do the job that comes from stdin."""
    return work(Job, lambda job: _ROLES[job.role](job))


# --- throughput ---


def append(job: Job) -> None:
    """Send as fast as it goes, in batches."""
    values = list(_payloads(job.index, 0, min(job.batch, job.messages), job.size))
    with opened(job.store) as log, log.producer(ack=job.ack, compression=job.compression) as producer:
        topic = log[job.channel]
        say(Measured("ready", time.monotonic_ns()))
        next_line()
        began = reported = time.monotonic_ns()
        sent = 0
        while sent < job.messages:
            count = min(len(values), job.messages - sent)
            _number(values, sent)
            producer.send_many(topic, values[:count])
            sent += count
            now = time.monotonic_ns()
            if now - reported >= REPORT_NS:
                say(Measured("progress", now, sent))
                reported = now
        producer.flush()
        say(Measured("done", time.monotonic_ns(), sent, began_ns=began))


def deliver(job: Job) -> None:
    """Receive what is there as fast as it goes."""
    ledger = _Ledger(job)
    with opened(job.store) as log, log[job.channel].consumer(job.group) as consumer:  # type: ignore[attr-defined]
        say(Measured("ready", time.monotonic_ns()))
        next_line()
        began = reported = time.monotonic_ns()
        total, received, busy = job.messages * job.producers, 0, 0
        while received < total:
            at = time.monotonic_ns()
            batch = consumer.receive_many(RECEIVE_MESSAGES, timeout=5.0)
            values = batch.values
            now = time.monotonic_ns()
            busy += now - at  # without the bookkeeping of the proof, which is not the log's
            if not len(batch):
                break
            received += len(batch)
            ledger.add(values, batch.partitions)
            if now - reported >= REPORT_NS:
                say(Measured("progress", now, received))
                reported = now
        consumer.commit()
        lost, doubled, disordered = ledger.verdict()
        say(
            Measured(
                "done",
                began + busy,
                received,
                began_ns=began,
                lost=lost,
                doubled=doubled,
                disordered=disordered,
            )
        )


# --- open loop ---


def publish(job: Job) -> None:
    """Send each message when it is due, whether or not earlier ones have arrived."""
    _precise_sleep()
    late = Histogram()
    with opened(job.store) as log, log.producer(ack=job.ack, compression=job.compression) as producer:
        topic = log[job.channel]
        filler = bytes(job.size - HEAD_BYTES)
        say(Measured("ready", time.monotonic_ns()))
        start_ns = int(next_line())
        sent, reported, lateness = 0, start_ns, []
        while sent < job.messages:
            now = time.monotonic_ns()
            due_ns = start_ns + int(sent * job.interval_ns)
            if due_ns > now:
                time.sleep((due_ns - now) / 1e9)
                continue
            # Everything that has become due goes out together, each message with its own due time.
            count = min(int((now - start_ns) / job.interval_ns) + 1, job.messages) - sent
            if now >= start_ns + job.warm_ns:
                lateness.append(now - due_ns)  # of the first of them, which is the latest
            values = []
            for number in range(sent, sent + count):
                due_ns = start_ns + int(number * job.interval_ns)
                values.append(_head(job.index, number, due_ns) + filler)
            if count == 1:
                producer.send(topic, values[0])
            else:
                producer.send_many(topic, values)
            sent += count
            if now - reported >= REPORT_NS:
                late.add(lateness)
                lateness = []
                say(Measured("progress", now, sent))
                reported = now
        late.add(lateness)
        say(
            Measured(
                "done",
                time.monotonic_ns(),
                sent,
                began_ns=start_ns,
                late=late.counts,
                late_maximum_ns=late.maximum,
            )
        )


def subscribe(job: Job) -> None:
    """Receive, and note how long after its due time each message came, until stdin ends."""
    import numpy as np

    _precise_sleep()
    ledger, latencies, stalls = _Ledger(job), Histogram(), _Stalls()
    slices: dict[int, int] = {}
    with (
        opened(job.store) as log,
        log[job.channel].consumer(job.group, busy_poll=job.busy_poll) as consumer,  # type: ignore[attr-defined]
    ):
        say(Measured("ready", time.monotonic_ns()))
        start_ns = int(next_line())
        received, reported = 0, start_ns
        while True:
            batch = consumer.receive_many(RECEIVE_MESSAGES, timeout=0.05)
            now = time.monotonic_ns()
            if not len(batch):
                if stdin_ended():
                    break
                continue
            received += len(batch)
            due = ledger.add(batch.values, batch.partitions)
            counted = due[due >= start_ns + job.warm_ns]
            if len(counted):
                waits = now - counted
                latencies.add(waits)
                longest = int(waits.max())
                slices[now // SLICE_NS] = max(longest, slices.get(now // SLICE_NS, 0))
                if longest > STALL_NS:
                    stalls.add(int(np.min(counted)), now)
            if now - reported >= REPORT_NS:
                say(Measured("progress", now, received))
                reported = now
    lost, doubled, disordered = ledger.verdict()
    say(
        Measured(
            "done",
            time.monotonic_ns(),
            received,
            began_ns=start_ns,
            latencies=latencies.counts,
            maximum_ns=latencies.maximum,
            lost=lost,
            doubled=doubled,
            disordered=disordered,
            stalls=stalls.found,
            slices=slices,
        )
    )


def hiccup(job: Job) -> None:
    """Sleep 1 ms again and again on one CPU, and note how much longer it took: what the machine does to everybody."""
    with suppress(OSError):
        os.sched_setaffinity(0, {job.cpu})
    _precise_sleep()
    excess, stalls = Histogram(), _Stalls()
    slices: dict[int, int] = {}
    say(Measured("ready", time.monotonic_ns()))
    start_ns = int(next_line())
    found: list[int] = []
    while not stdin_ended():
        before = time.monotonic_ns()
        time.sleep(HICCUP_SLEEP_NS / 1e9)
        now = time.monotonic_ns()
        over = max(0, now - before - HICCUP_SLEEP_NS)
        if now < start_ns + job.warm_ns:
            continue
        found.append(over)
        slices[now // SLICE_NS] = max(over, slices.get(now // SLICE_NS, 0))
        if over > STALL_NS // 4:
            stalls.add(before, now)
    excess.add(found)
    say(
        Measured(
            "done",
            time.monotonic_ns(),
            len(found),
            began_ns=start_ns,
            latencies=excess.counts,
            maximum_ns=excess.maximum,
            stalls=stalls.found,
            slices=slices,
        )
    )


_ROLES = {"append": append, "deliver": deliver, "publish": publish, "subscribe": subscribe, "hiccup": hiccup}


# --- messages ---


def _head(index: int, number: int, due_ns: int) -> bytes:
    return index.to_bytes(8, "little") + number.to_bytes(8, "little") + due_ns.to_bytes(8, "little")


def _payloads(index: int, first: int, count: int, size: int) -> Iterator[bytes]:
    filler = bytes(size - HEAD_BYTES)
    for number in range(first, first + count):
        yield _head(index, number, 0) + filler


def _number(values: list[bytes], first: int) -> None:
    """Give every value its number. The cost stands for what a program does to make a message."""
    if first:
        index, filler = values[0][:8], values[0][16:]
        values[:] = [index + number.to_bytes(8, "little") + filler for number in range(first, first + len(values))]


class _Ledger:
    """Which messages of which producer have come, and whether in order."""

    def __init__(self, job: Job) -> None:
        import numpy as np

        self._counts = np.zeros((job.producers, job.messages), dtype=np.uint8)
        self._size = job.size
        self._last: dict[tuple[int, int], int] = {}
        self._disordered = 0
        self._foreign = 0

    def add(self, values: Any, partitions: NDArray[np.int32]) -> NDArray[np.int64]:
        """Note messages; their due times."""
        import numpy as np

        data = np.frombuffer(b"".join(values), dtype=np.uint8).reshape(len(values), self._size)
        heads = np.ascontiguousarray(data[:, :HEAD_BYTES]).view("<i8")
        producers, numbers = heads[:, 0], heads[:, 1]
        fits = (producers < self._counts.shape[0]) & (numbers < self._counts.shape[1])
        self._foreign += int((~fits).sum())
        np.add.at(self._counts, (producers[fits], numbers[fits]), 1)
        place = producers * (1 << 20) + partitions
        for one in np.unique(place).tolist():
            series = numbers[place == one]
            last = self._last.get(one, -1)
            self._disordered += int((np.diff(series) <= 0).sum()) + int(series[0] <= last)
            self._last[one] = int(series[-1])
        return heads[:, 2]

    def verdict(self) -> tuple[int, int, int]:
        """(lost, doubled, out of order)"""
        return int((self._counts == 0).sum()), int((self._counts > 1).sum()) + self._foreign, self._disordered


class _Stalls:
    """Intervals, merged where they overlap."""

    def __init__(self) -> None:
        self.found: list[tuple[int, int]] = []

    def add(self, begin: int, end: int) -> None:
        if self.found and begin <= self.found[-1][1]:
            begin, end = min(begin, self.found.pop()[0]), end
        self.found.append((begin, end))


def _precise_sleep() -> None:
    """Linux may end a sleep 50 us late to save wake-ups; the meter and the generator ask for it on time."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main())
