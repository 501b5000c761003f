"""How does one run of the demo go: who is started when, who is killed, and what was seen meanwhile?

Floor 9: imports the log through common, crew, demo_worker, demo_answers, histogram, progress. Thread rule: one
thread; the work is done by other processes.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tidelog.cli.crew import KILLED_STATUS, Crew, Worker
from tidelog.cli.demo_answers import answers_for
from tidelog.cli.demo_source import Source
from tidelog.cli.demo_worker import Job, publisher_of
from tidelog.cli.demo_worker import Progress as Report
from tidelog.cli.histogram import Histogram
from tidelog.cli.progress import Progress

if TYPE_CHECKING:
    from tidelog.log import Log

WORKER = "tidelog.cli.demo_worker"
KILL_AT = 0.5
"""The subscriber is killed when it has taken this part of the records into account."""
START_NS = 10_000_000
"""The first event is due this long after the publishers were told."""
SUBSCRIBER_FAULTS = ("forget", "twice")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be run."""

    source: Source
    total: int
    store: str
    states: str
    """Folder of the subscribers' files."""
    channel: str
    partitions: int
    publishers: int
    rate: float
    """Events a second of all publishers together; 0: as fast as it goes."""
    fault: str = ""
    fault_row: int = -1
    fault_key: str = ""


@dataclass(slots=True)
class Kill:
    """How the subscriber died and how its successor went on. Times are monotonic."""

    pid: int = 0
    status: int = 0
    at_ns: int = 0
    counted: int = 0
    """Events it had taken into account by its own last word."""
    committed: dict[int, int] = field(default_factory=dict)
    """By partition, after its death."""
    resumed: dict[int, int] = field(default_factory=dict)
    """By partition, where the successor began."""
    resumed_ns: int = 0
    repeated: int = 0
    """Messages that the successor recognised as counted already."""


@dataclass(slots=True)
class Seen:
    """What was seen of a run."""

    start_ns: int = 0
    publish_end_ns: int = 0
    end_ns: int = 0
    published: int = 0
    kill: Kill = field(default_factory=Kill)
    latencies: dict[str, Histogram] = field(default_factory=dict)
    """By group."""
    timeline: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    """"published" and each group -> (monotonic ns, events so far)."""

    @property
    def publish_seconds(self) -> float:
        """From the first due time to the end of the last publisher."""
        return (self.publish_end_ns - self.start_ns) / 1e9


class Run:
    """One run: start it with `go`."""

    def __init__(self, plan: Plan, log: Log, progress: Progress) -> None:
        self._plan = plan
        self._log = log
        self._progress = progress
        self._groups = [answer.group for answer in answers_for(plan.source.flights)]
        self._victim_group = self._groups[0]
        self.seen = Seen()
        self._sent: dict[int, int] = {}
        self._counted_before = 0  # by the victim's successor's predecessor, as the state files say
        self._subscribers: dict[str, Worker[Job, Report]] = {}
        self._publishers: list[Worker[Job, Report]] = []

    def go(self) -> Seen:
        """Run to the end. Raises CommandError if a worker failed or nothing moves any more."""
        plan, seen = self._plan, self.seen
        for name in ("published", *self._groups):
            seen.timeline[name] = []
        for group in self._groups:
            seen.latencies[group] = Histogram()
        crew: Crew[Job, Report] = Crew(WORKER, Report)
        with crew:
            for group in self._groups:
                self._subscribers[group] = crew.start(f"subscriber of {group!r}", self._subscription(group))
            crew.until(lambda: all(worker.last is not None for worker in self._subscribers.values()), self._note)
            for index in range(plan.publishers):
                self._publishers.append(crew.start(f"publisher {index}", self._publication(index)))
            crew.until(lambda: all(worker.last is not None for worker in self._publishers), self._note)
            seen.start_ns = time.monotonic_ns() + START_NS
            for worker in self._publishers:
                worker.tell(str(seen.start_ns).encode())
            crew.until(self._half_counted, self._note)
            self._kill(crew)
            crew.until(lambda: all(worker.is_done for worker in self._publishers), self._note)
            seen.publish_end_ns = max(worker.last.at_ns for worker in self._publishers if worker.last)
            crew.until(self._all_committed, self._note)
            seen.end_ns = time.monotonic_ns()
            for worker in self._subscribers.values():
                worker.finish()
            crew.until(lambda: all(worker.is_done for worker in self._subscribers.values()), self._note)
        return seen

    # --- what the workers are told ---

    def _publication(self, index: int) -> Job:
        plan = self._plan
        mine = bool(plan.fault) and publisher_of(plan.fault_key, plan.publishers) == index
        broken = mine and plan.fault not in SUBSCRIBER_FAULTS
        return Job(
            role="publish",
            store=plan.store,
            channel=plan.channel,
            partitions=plan.partitions,
            source=plan.source,
            index=index,
            publishers=plan.publishers,
            rate=plan.rate,
            fault=plan.fault if broken else "",
            fault_row=plan.fault_row if broken else -1,
        )

    def _subscription(self, group: str) -> Job:
        plan = self._plan
        broken = plan.fault in SUBSCRIBER_FAULTS and group != self._victim_group
        return Job(
            role="subscribe",
            store=plan.store,
            channel=plan.channel,
            partitions=plan.partitions,
            source=plan.source,
            group=group,
            states=plan.states,
            fault=plan.fault if broken else "",
            fault_row=plan.fault_row if broken else -1,
        )

    # --- listening ---

    def _note(self, worker: Worker[Job, Report], report: Report) -> None:
        seen, job = self.seen, worker.job
        if job.role == "publish":
            if report.kind == "ready":
                return
            self._sent[job.index] = report.done
            seen.published = sum(self._sent.values())
            seen.timeline["published"].append((report.at_ns, seen.published))
            self._progress.update("publish", seen.published)
            return
        if report.kind == "ready":
            if worker.job.group == self._victim_group and seen.kill.pid:
                seen.kill.resumed, seen.kill.resumed_ns = report.resumed, report.at_ns
            return
        done = report.done
        if job.group == self._victim_group and seen.kill.pid and worker.pid != seen.kill.pid:
            done += self._counted_before
            seen.kill.repeated = report.repeated
        seen.timeline[job.group].append((report.at_ns, done))
        seen.latencies[job.group].merge(Histogram(report.latencies, report.maximum_ns))
        self._progress.update(job.group, done)

    # --- what is waited for ---

    def _half_counted(self) -> bool:
        last = self._subscribers[self._victim_group].last
        # A broken run may never reach half; then there is nothing left that could still be waited for.
        exhausted = bool(self._publishers) and all(worker.is_done for worker in self._publishers)
        return (last is not None and last.done >= KILL_AT * self._plan.total) or (exhausted and self._all_committed())

    def _all_committed(self) -> bool:
        channel = self._log[self._plan.channel]
        ends = {number: channel.bounds(number)[1] for number in range(channel.partitions)}
        committed = {(row.group, row.partition): row.offset for row in channel.offsets()}
        return all(
            end == 0 or committed.get((group, number)) == end for group in self._groups for number, end in ends.items()
        )

    def _kill(self, crew: Crew[Job, Report]) -> None:
        kill, victim = self.seen.kill, self._subscribers[self._victim_group]
        kill.pid, kill.at_ns = victim.pid, time.monotonic_ns()
        kill.status = victim.kill()
        for worker, report in crew.listen(0):  # its last words
            self._note(worker, report)
        kill.counted = victim.last.done if victim.last is not None else 0
        rows = [row for row in self._log[self._plan.channel].offsets() if row.group == self._victim_group]
        kill.committed = {row.partition: row.offset for row in rows if row.offset >= 0}
        self._counted_before = _counted_in(self._plan, self._victim_group)
        self.seen.timeline[self._victim_group].append((kill.at_ns, kill.counted))
        self._progress.note(
            f" ✘ subscriber of {self._victim_group!r} (pid {kill.pid}) killed with SIGKILL at {kill.counted} events"
            if kill.status == KILLED_STATUS
            else f" the subscriber of {self._victim_group!r} was gone before it could be killed"
        )
        self._subscribers[self._victim_group] = crew.start(
            f"second subscriber of {self._victim_group!r}", self._subscription(self._victim_group)
        )


def _counted_in(plan: Plan, group: str) -> int:
    """Events that a group's state files hold now."""
    from tidelog.cli.demo_state import States

    states = States(plan.states, group)
    return sum(states.load(partition)[0].rows for partition in range(plan.partitions))


def make_folders(plan: Plan) -> None:
    """The folder that the subscribers write to."""
    os.makedirs(plan.states, exist_ok=True)
