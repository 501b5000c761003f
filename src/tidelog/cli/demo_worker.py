"""What do the demo's publisher and subscriber processes do? `python -m tidelog.cli.demo_worker`, started by demo_crew.

Floor 9: imports the log through common, demo_source, demo_state, demo_answers, histogram. Thread rule: one thread.

A worker reads its `Job` as one line of JSON from stdin and writes `Report`s as lines of JSON to stdout. For a
subscriber the end of stdin means: finish. It shares nothing with its parent, so that SIGKILL at any instant breaks
nothing but the worker; and when the parent dies, the workers find stdin closed.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
import zlib
from collections.abc import Iterator
from typing import Any

import msgspec

from tidelog.cli.common import explain, opened
from tidelog.cli.demo_answers import ANSWERS
from tidelog.cli.demo_source import Event, Flight, Source
from tidelog.cli.demo_state import States
from tidelog.cli.histogram import Histogram

TICK_NS = 1_000_000
"""Publishers send what has become due once in this time."""
REPORT_NS = 50_000_000
SAVE_NS = 100_000_000
BATCH_MESSAGES = 1000
FULL_SPEED_EVENTS = 500

FAULTS = {
    "drop": "a publisher leaves one record out",
    "repeat": "a publisher sends one record twice",
    "swap": "a publisher sends two records of one key in the wrong order",
    "alter": "a publisher changes one cell of one record",
    "forget": "a subscriber takes a message and does nothing with it",
    "twice": "a subscriber counts one message twice",
}
"""What can be broken on purpose, so that it can be seen that the proof would notice."""


class Job(msgspec.Struct, kw_only=True):
    """What one worker is to do."""

    role: str
    """"publish" or "subscribe"."""
    store: str
    channel: str
    partitions: int
    source: Source
    fault: str = ""
    fault_row: int = -1
    """The row that the fault meets, -1: none of this worker's."""
    # publisher
    index: int = 0
    publishers: int = 1
    rate: float = 0.0
    """Events a second of all publishers together; 0: as fast as it goes."""
    # subscriber
    group: str = ""
    states: str = ""
    """Folder of the state files."""


class Report(msgspec.Struct, omit_defaults=True):
    """What a worker has to say; times are of the host's monotonic clock, so that they compare between processes."""

    kind: str
    """"ready", "progress", "done" or "failed"."""
    at_ns: int
    done: int = 0
    """Events sent, or taken into account, by this process."""
    repeated: int = 0
    """Messages that came again and were recognised."""
    resumed: dict[int, int] = {}
    """ready: the group's committed offset by partition, where there is one."""
    latencies: dict[int, int] = {}
    """progress, done: histogram of the time since the last report."""
    maximum_ns: int = 0
    text: str = ""


def publisher_of(key: str, publishers: int) -> int:
    """Which publisher sends the records of a key: always the same one, since only then the key has an order."""
    return zlib.crc32(key.encode()) % publishers


def main() -> int:
    """Do the job that comes from stdin."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its workers itself
    job = msgspec.json.decode(_next_line(), type=Job)
    try:
        publish(job) if job.role == "publish" else subscribe(job)
    except BrokenPipeError:
        return 1
    except Exception as error:
        if os.environ.get("TIDELOG_LOG_LEVEL", "").lower() == "debug":
            raise
        say(Report("failed", time.monotonic_ns(), text=explain(error)[0]))
        return 1
    return 0


def say(report: Report) -> None:
    """One report, in one write, so that a kill leaves whole lines or the beginning of one."""
    os.write(1, msgspec.json.encode(report) + b"\n")


# --- publisher ---


def publish(job: Job) -> None:
    """Send this publisher's share of the rows, each when it is due; row 0 at the time that stdin says."""
    events = misbehaving(own_events(job), job)
    with opened(job.store) as log:
        topic = log.topic(job.channel, job.source.event_type)
        say(Report("ready", time.monotonic_ns()))
        start_ns = int(_next_line())
        sent, reported_ns = 0, 0
        for keys, batch in _paced(events, job.rate, start_ns) if job.rate else _full_speed(events, start_ns):
            topic.send_many(batch, keys=keys)
            sent += len(batch)
            now = time.monotonic_ns()
            if now - reported_ns >= REPORT_NS:
                say(Report("progress", now, sent))
                reported_ns = now
        say(Report("done", time.monotonic_ns(), sent))


def own_events(job: Job) -> Iterator[tuple[str, Event]]:
    """(key, event) of the rows that belong to this publisher, in the order of the file."""
    header, position = job.source.header(), job.source.key_position()
    for row, cells in job.source.rows():
        key = cells[position]
        if publisher_of(key, job.publishers) == job.index:
            yield key, job.source.event(row, cells, header)


def misbehaving(events: Iterator[tuple[str, Event]], job: Job) -> Iterator[tuple[str, Event]]:
    """`events`, broken at the row of the job's fault."""
    held: tuple[str, Event] | None = None
    for key, event in events:
        if event.row == job.fault_row and job.fault == "drop":
            continue
        if event.row == job.fault_row and job.fault == "alter":
            _alter(event)
        if event.row == job.fault_row and job.fault == "swap":
            held = (key, event)
            continue
        yield key, event
        if event.row == job.fault_row and job.fault == "repeat":
            yield key, event
        if held is not None and held[0] == key:
            yield held
            held = None


def _alter(event: Event) -> None:
    if isinstance(event, Flight):
        event.arr_delay = 1 if event.arr_delay is None else event.arr_delay + 1
    else:
        name = next(reversed(event.columns))
        event.columns[name] += "?"


def _paced(events: Iterator[tuple[str, Event]], rate: float, start_ns: int) -> Iterator[tuple[list[str], list[Event]]]:
    """What has become due, tick by tick. An event bears the time at which it was due, also when it goes out late:
    otherwise a stall would hide the waiting of everything behind it."""
    interval_ns = 1e9 / rate
    keys: list[str] = []
    batch: list[Event] = []
    tick_ns = start_ns + TICK_NS
    for key, event in events:
        due_ns = start_ns + int(event.row * interval_ns)
        while due_ns >= tick_ns:
            if batch:
                yield keys, batch
                keys, batch = [], []
            wait_ns = tick_ns - time.monotonic_ns()
            if wait_ns > 0:
                time.sleep(wait_ns / 1e9)
            # After a stall, or where events are rare, ticks without an event are passed over.
            tick_ns += TICK_NS * max(1, (due_ns - tick_ns) // TICK_NS)
        event.sent_ns = due_ns
        keys.append(key)
        batch.append(event)
    if batch:
        yield keys, batch


def _full_speed(events: Iterator[tuple[str, Event]], start_ns: int) -> Iterator[tuple[list[str], list[Event]]]:
    keys: list[str] = []
    batch: list[Event] = []
    time.sleep(max(0, start_ns - time.monotonic_ns()) / 1e9)
    for key, event in events:
        event.sent_ns = time.monotonic_ns()
        keys.append(key)
        batch.append(event)
        if len(batch) == FULL_SPEED_EVENTS:
            yield keys, batch
            keys, batch = [], []
    if batch:
        yield keys, batch


# --- subscriber ---


def subscribe(job: Job) -> None:
    """Take the group's messages into account until stdin ends; save, then commit, ten times a second."""
    add = ANSWERS[job.group].add
    states = States(job.states, job.group)
    latencies = Histogram()
    done = repeated = 0
    unsaved = False
    with opened(job.store) as log, log.topic(job.channel, job.source.event_type).consumer(
        job.group, delivery="manual"
    ) as consumer:
        resumed = {place.partition: offset for place, offset in consumer.committed.items() if offset is not None}
        say(Report("ready", time.monotonic_ns(), resumed=resumed))
        saved_ns = reported_ns = time.monotonic_ns()
        save_after_ns = SAVE_NS
        while True:
            batch = consumer.receive_many(BATCH_MESSAGES, timeout=0.02)
            now = time.monotonic_ns()
            if len(batch):
                unsaved = True
                fresh = 0
                sent = []
                rows: Iterator[tuple[int, int, Any, Any]] = zip(
                    batch.partitions.tolist(), batch.offsets.tolist(), batch.keys, batch.values, strict=True
                )
                for partition, offset, key, event in rows:
                    sent.append(event.sent_ns)
                    if event.row == job.fault_row and job.fault == "forget":
                        continue
                    table = states.accept(partition, offset, event.row)
                    if table is None:
                        repeated += 1
                        continue
                    fresh += 1
                    add(table, key, partition, event)
                    if event.row == job.fault_row and job.fault == "twice":
                        add(table, key, partition, event)
                done += fresh
                latencies.add([now - at for at in sent])
            if unsaved and (now - saved_ns >= save_after_ns or not len(batch)):
                began = time.monotonic_ns()
                states.save()
                consumer.commit()
                unsaved, saved_ns = False, time.monotonic_ns()
                save_after_ns = max(SAVE_NS, 10 * (saved_ns - began))  # large tables are saved less often
            if now - reported_ns >= REPORT_NS:
                say(_progress("progress", done, repeated, latencies))
                latencies, reported_ns = Histogram(), now
            if not len(batch) and _stdin_ended():
                break
        say(_progress("done", done, repeated, latencies))


def _progress(kind: str, done: int, repeated: int, latencies: Histogram) -> Report:
    return Report(
        kind, time.monotonic_ns(), done, repeated, latencies=latencies.counts, maximum_ns=latencies.maximum
    )


def _next_line() -> bytes:
    """Byte by byte, without a buffer that would hide the end of stdin from select."""
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            break
        line += byte
    return bytes(line)


def _stdin_ended() -> bool:
    return bool(select.select([0], [], [], 0)[0])


if __name__ == "__main__":
    sys.exit(main())
