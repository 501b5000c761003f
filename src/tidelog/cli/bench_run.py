"""How is a benchmark carried out, and what came out of it?

Floor 9: imports the log through common, crew, bench_worker, histogram, progress. Thread rule: one thread; the work is
done by processes of their own.

Three phases, one after the other, so that none disturbs another: append as fast as it goes, deliver what is there as
fast as it goes, then a fixed rate with the clock running from the due times. A hiccup meter runs on every CPU during
the third: a stall that the meter shows too is the machine's, and only one that it does not show may be the log's.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tidelog.cli.bench_worker import Job, Measured
from tidelog.cli.crew import Crew, Worker
from tidelog.cli.histogram import Histogram
from tidelog.cli.progress import Progress

if TYPE_CHECKING:
    from tidelog.log import Log

WORKER = "tidelog.cli.bench_worker"
START_NS = 50_000_000
WARM_NS = 500_000_000
METERS_MAX = 4
EXPLAINED = 0.5
"""A stall is the machine's when hiccups cover at least this part of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be measured."""

    store: str
    messages: int
    size: int
    batch: int
    partitions: int
    producers: int
    consumers: int
    ack: str
    compression: str | None
    rate: float
    """Messages a second of the third phase, all producers together; 0: leave it out."""
    seconds: float
    segment_bytes: int
    busy_poll: float


@dataclass(slots=True)
class Phase:
    """The outcome of one phase."""

    name: str
    messages: int = 0
    seconds: float = 0.0
    latency: Histogram | None = None
    lost: int | None = None
    doubled: int | None = None
    disordered: int | None = None

    @property
    def rate(self) -> float:
        """Messages a second."""
        return self.messages / self.seconds if self.seconds else 0.0

    @property
    def sound(self) -> bool:
        """Whether nothing was lost, doubled or out of order."""
        return not (self.lost or self.doubled or self.disordered)


@dataclass(slots=True)
class Outcome:
    """All phases, and what the hiccup meter saw during the last."""

    phases: list[Phase] = field(default_factory=list)
    hiccups: Histogram = field(default_factory=Histogram)
    late: Histogram = field(default_factory=Histogram)
    """How late the load generator itself was."""
    stalls: list[tuple[int, int]] = field(default_factory=list)
    """Monotonic (from, to) during which messages waited longer than 10 ms."""
    shown: list[bool] = field(default_factory=list)
    """By stall: whether hiccups cover most of it."""
    slices: dict[str, dict[int, int]] = field(default_factory=dict)
    """"latency" and "hiccup" -> slice -> largest ns."""
    start_ns: int = 0
    roll_inside: bool = False
    """Whether a partition went on in a new file during the third phase."""


class Run:
    """One benchmark: start it with `go`."""

    def __init__(self, plan: Plan, log: Log, progress: Progress) -> None:
        self._plan = plan
        self._log = log
        self._progress = progress
        self._done: dict[int, int] = {}
        self.outcome = Outcome()

    def go(self) -> Outcome:
        """All phases. Raises CommandError if a process failed."""
        self._make("throughput")
        share = max(1, self._plan.messages // self._plan.producers)
        self.outcome.phases.append(self._append(share))
        self.outcome.phases.append(self._deliver(share))
        if self._plan.rate:
            self._make("latency")
            self.outcome.phases.append(self._open_loop())
        return self.outcome

    def _make(self, name: str) -> None:
        plan = self._plan
        self._log.topic(name, bytes, partitions=plan.partitions, segment_bytes=plan.segment_bytes)

    def _job(self, role: str, channel: str, **more: object) -> Job:
        plan = self._plan
        options = {
            "store": plan.store,
            "producers": plan.producers,
            "size": plan.size,
            "batch": plan.batch,
            "ack": plan.ack,
            "compression": plan.compression,
            "busy_poll": plan.busy_poll,
        }
        return Job(role=role, channel=channel, **{**options, **more})  # type: ignore[arg-type]

    def _together(self, crew: Crew[Job, Measured], workers: list[Worker[Job, Measured]]) -> int:
        """Let all begin once all are ready; the time they were told to begin at."""
        crew.until(lambda: all(worker.last is not None for worker in workers), lambda worker, report: None)
        self._done.clear()
        start_ns = time.monotonic_ns() + START_NS
        for worker in workers:
            worker.tell(str(start_ns).encode())
        return start_ns

    def _note(self, role: str) -> Callable[[Worker[Job, Measured], Measured], None]:
        def note(worker: Worker[Job, Measured], report: Measured) -> None:
            if worker.job.role == role:
                self._done[worker.pid] = report.done
                self._progress.update(_TITLES[role], sum(self._done.values()))

        return note

    def _append(self, share: int) -> Phase:
        plan = self._plan
        crew: Crew[Job, Measured] = Crew(WORKER, Measured)
        with crew:
            workers = [
                crew.start(f"producer {index}", self._job("append", "throughput", index=index, messages=share))
                for index in range(plan.producers)
            ]
            self._together(crew, workers)
            crew.until(lambda: all(worker.is_done for worker in workers), self._note("append"))
            reports = [worker.last for worker in workers if worker.last is not None]
        began = min(report.began_ns for report in reports)
        ended = max(report.at_ns for report in reports)
        return Phase("append", sum(report.done for report in reports), (ended - began) / 1e9)

    def _deliver(self, share: int) -> Phase:
        plan = self._plan
        crew: Crew[Job, Measured] = Crew(WORKER, Measured)
        with crew:
            workers = [
                crew.start(
                    f"consumer {index}", self._job("deliver", "throughput", messages=share, group=f"group-{index}")
                )
                for index in range(plan.consumers)
            ]
            self._together(crew, workers)
            crew.until(lambda: all(worker.is_done for worker in workers), self._note("deliver"))
            reports = [worker.last for worker in workers if worker.last is not None]
        slowest = max((report.at_ns - report.began_ns) / 1e9 for report in reports)
        return _proved(Phase("deliver", sum(report.done for report in reports), slowest), reports)

    def _open_loop(self) -> Phase:
        plan, outcome = self._plan, self.outcome
        share = max(1, int(plan.rate * plan.seconds / plan.producers))
        crew: Crew[Job, Measured] = Crew(WORKER, Measured)
        with crew:
            meters = [
                crew.start(f"hiccup meter {cpu}", self._job("hiccup", "", cpu=cpu, warm_ns=WARM_NS))
                for cpu in sorted(os.sched_getaffinity(0))[:METERS_MAX]
            ]
            subscribers = [
                crew.start(
                    f"consumer {index}",
                    self._job("subscribe", "latency", messages=share, group=f"group-{index}", warm_ns=WARM_NS),
                )
                for index in range(plan.consumers)
            ]
            publishers = [
                crew.start(
                    f"producer {index}",
                    self._job(
                        "publish",
                        "latency",
                        index=index,
                        messages=share,
                        interval_ns=1e9 * plan.producers / plan.rate,
                        warm_ns=WARM_NS,
                    ),
                )
                for index in range(plan.producers)
            ]
            outcome.start_ns = self._together(crew, [*meters, *subscribers, *publishers])
            note = self._note("publish")
            crew.until(lambda: all(worker.is_done for worker in publishers), note)
            for worker in (*subscribers, *meters):
                worker.finish()
            rest = [*subscribers, *meters]
            crew.until(lambda: all(worker.is_done for worker in rest), lambda worker, report: None)
            sent = [worker.last for worker in publishers if worker.last is not None]
            received = [worker.last for worker in subscribers if worker.last is not None]
            felt = [worker.last for worker in meters if worker.last is not None]
        ended = max(report.at_ns for report in sent)
        elapsed = (ended - outcome.start_ns) / 1e9
        phase = _proved(Phase("latency", sum(report.done for report in sent), elapsed, Histogram()), received)
        assert phase.latency is not None
        for report in received:
            phase.latency.merge(Histogram(report.latencies, report.maximum_ns))
            outcome.stalls += report.stalls
        for report in felt:
            outcome.hiccups.merge(Histogram(report.latencies, report.maximum_ns))
        for report in sent:
            outcome.late.merge(Histogram(report.late, report.late_maximum_ns))
        outcome.stalls.sort()
        gaps = sorted(gap for report in felt for gap in report.stalls)
        outcome.shown = [covered(stall, gaps) >= EXPLAINED for stall in outcome.stalls]
        outcome.slices = {"latency": _largest(received), "hiccup": _largest(felt)}
        latency = self._log["latency"]
        outcome.roll_inside = any(latency.describe(number)["segments"] > 1 for number in range(latency.partitions))
        return phase


_TITLES = {"append": "append", "deliver": "deliver", "publish": "latency"}


def _proved(phase: Phase, reports: list[Measured]) -> Phase:
    phase.lost = sum(report.lost for report in reports)
    phase.doubled = sum(report.doubled for report in reports)
    phase.disordered = sum(report.disordered for report in reports)
    return phase


def covered(stall: tuple[int, int], gaps: list[tuple[int, int]]) -> float:
    """The part of `stall` (0 to 1) during which at least one of `gaps` (sorted by their begin) lasted."""
    begin, end = stall
    done, total = begin, 0
    for first, last in gaps:
        first, last = max(first, done), min(last, end)
        if last > first:
            total += last - first
            done = last
    return total / max(end - begin, 1)


def _largest(reports: list[Measured]) -> dict[int, int]:
    result: dict[int, int] = {}
    for report in reports:
        for place, value in report.slices.items():
            result[place] = max(value, result.get(place, 0))
    return result
