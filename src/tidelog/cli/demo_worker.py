"""What do the demo's publisher and subscriber processes do? `python -m tidelog.cli.demo_worker`, started by crew.

Floor 9: imports the log through common, crew, histogram, demo_source, demo_state, demo_answers. Thread rule: one
thread.
"""

from __future__ import annotations

import importlib
import sys
import time
import zlib
from collections.abc import Iterator
from itertools import chain
from typing import Any

import msgspec

from tidelog.cli.common import opened
from tidelog.cli.crew import Report, next_line, say, stdin_ended, work
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


class Progress(Report, omit_defaults=True):
    """`done`: events sent, or taken into account, by this process."""

    repeated: int = 0
    """Messages that came again and were recognised."""
    resumed: dict[int, int] = msgspec.field(default_factory=dict)
    """ready: the group's committed offset by partition, where there is one."""
    latencies: dict[int, int] = msgspec.field(default_factory=dict)
    """progress, done: histogram of the time since the last report."""
    maximum_ns: int = 0


def publisher_of(key: str, publishers: int) -> int:
    """Which publisher sends the records of a key: always the same one, since only then the key has an order."""
    return zlib.crc32(key.encode()) % publishers


def main() -> int:
    """Do the job that comes from stdin."""
    importlib.import_module("numpy")  # before "ready": loading it belongs to no event's time
    return work(Job, lambda job: publish(job) if job.role == "publish" else subscribe(job))


# --- publisher ---


def publish(job: Job) -> None:
    """Send this publisher's share of the rows, each when it is due; row 0 at the time that stdin says."""
    events: Iterator[tuple[str, Event]] = misbehaving(own_events(job), job)
    with opened(job.store) as log:
        topic = log.topic(job.channel, job.source.event_type)
        first = next(events, None)  # opens and unpacks the file, which belongs to no event's time
        events = chain(() if first is None else (first,), events)
        say(Progress("ready", time.monotonic_ns()))
        start_ns = int(next_line())
        sent, reported_ns = 0, 0
        for keys, batch in _paced(events, job.rate, start_ns) if job.rate else _full_speed(events, start_ns):
            topic.send_many(batch, keys=keys)
            sent += len(batch)
            now = time.monotonic_ns()
            if now - reported_ns >= REPORT_NS:
                say(Progress("progress", now, sent))
                reported_ns = now
        say(Progress("done", time.monotonic_ns(), sent))


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
        if due_ns >= tick_ns:
            if batch:
                _sleep_until(tick_ns)
                yield keys, batch
                keys, batch = [], []
            tick_ns += TICK_NS * (1 + (due_ns - tick_ns) // TICK_NS)
        event.sent_ns = due_ns
        keys.append(key)
        batch.append(event)
    if batch:
        _sleep_until(tick_ns)
        yield keys, batch


def _sleep_until(when_ns: int) -> None:
    wait_ns = when_ns - time.monotonic_ns()
    if wait_ns > 0:
        time.sleep(wait_ns / 1e9)


def _full_speed(events: Iterator[tuple[str, Event]], start_ns: int) -> Iterator[tuple[list[str], list[Event]]]:
    keys: list[str] = []
    batch: list[Event] = []
    _sleep_until(start_ns)
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
    with (
        opened(job.store) as log,
        log.topic(job.channel, job.source.event_type).consumer(job.group, delivery="manual") as consumer,
    ):
        resumed = {place.partition: offset for place, offset in consumer.committed.items() if offset is not None}
        say(Progress("ready", time.monotonic_ns(), resumed=resumed))
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
            if not len(batch) and stdin_ended():
                break
        say(_progress("done", done, repeated, latencies))


def _progress(kind: str, done: int, repeated: int, latencies: Histogram) -> Progress:
    return Progress(
        kind, time.monotonic_ns(), done, repeated=repeated, latencies=latencies.counts, maximum_ns=latencies.maximum
    )


if __name__ == "__main__":
    sys.exit(main())
