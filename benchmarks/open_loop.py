"""How late do messages arrive at 100,000 a second, and is it tidelog or the machine that is late?

Open loop: one process sends 100-byte values one by one at the times of a fixed schedule, late or not, each holding the
time it was due; another receives with `receive_many` and takes the time. Latency is arrival less due time, so what a
stall delays counts in full, for every message behind it. Segments are small enough for several rolls inside. The first
second of traffic warms up and does not count. All messages must arrive, in order.

The hiccup meter runs in both processes: a C thread that sleeps 500 us at a time and notes how late it wakes; and since
the scheduler favours sleepers, the sender also notes every gap in the loop in which it watches the clock, where nothing
of tidelog runs. A stall is a run of messages that were later than 10 ms. The meter shows it too if what it noted inside
that time adds up to at least half of the stall's longest latency; a stall that it does not show is reported as
tidelog's. How long both main threads were ready to run and had no CPU is printed beside (/proc/self/schedstat).
"""

from __future__ import annotations

import ctypes
import json
import struct
import sys
from pathlib import Path
from time import monotonic_ns
from typing import Any, NamedTuple

import numpy as np

import tidelog
from benchmarks.baselines import compiled
from benchmarks.child import Child, obey
from benchmarks.harness import VALUE_BYTES, Context, Figure

RATE = 100_000
STALL_NS = 10_000_000
SEGMENT_BYTES = 48 << 20
METER_PERIOD_NS, METER_NOTE_NS = 500_000, 500_000
_ROOM = 4096
_HEAD_START_NS = 50_000_000

Array = np.ndarray[Any, Any]


class Hiccup(NamedTuple):
    """A delay of the machine: from `start_ns` to `end_ns` of the monotonic clock."""

    start_ns: int
    end_ns: int


class Stall(NamedTuple):
    """A run of messages that were late: due at `start_ns`, arrived until `end_ns`."""

    start_ns: int
    end_ns: int
    worst_ns: int


class Meter:
    """The hiccup meter of this process."""

    def start(self) -> None:
        """Starts the thread."""
        if compiled().bl_meter_start(METER_PERIOD_NS, METER_NOTE_NS) != 0:
            raise RuntimeError("the hiccup meter cannot be started")

    def stop(self) -> tuple[list[Hiccup], int]:
        """(what it noted, the longest delay in ns)."""
        ends, late, worst = np.zeros(_ROOM, np.int64), np.zeros(_ROOM, np.int64), ctypes.c_int64()
        count = compiled().bl_meter_stop(ends.ctypes.data, late.ctypes.data, _ROOM, ctypes.byref(worst))
        pairs = zip(ends[:count].tolist(), late[:count].tolist(), strict=True)
        return [Hiccup(end - delay, end) for end, delay in pairs], worst.value


def stalls_of(due: Array, latency: Array) -> list[Stall]:
    """Runs of neighbours that were later than STALL_NS."""
    late = np.flatnonzero(latency > STALL_NS)
    runs = np.split(late, np.flatnonzero(np.diff(late) > 1) + 1) if late.size else []
    return [Stall(int(due[run[0]]), int((due[run] + latency[run]).max()), int(latency[run].max())) for run in runs]


def shown(stall: Stall, hiccups: list[Hiccup]) -> bool:
    """Whether a meter's delays inside the stall explain at least half of it."""
    inside = sum(max(0, min(stall.end_ns, h.end_ns) - max(stall.start_ns, h.start_ns)) for h in hiccups)
    return 2 * inside >= stall.worst_ns


def receive(tail: Any, count: int) -> tuple[Array, Array]:
    """(when each message was due, how late it was) in ns. Raises AssertionError when order or number is wrong."""
    due, latency, seen = np.empty(count, np.int64), np.empty(count, np.int64), 0
    while seen < count:
        batch = tail.receive_many(10_000, timeout=30.0)
        now = monotonic_ns()
        assert batch, f"{count - seen} messages did not arrive within 30 s"
        times = np.frombuffer(b"".join(batch.values), np.uint8).reshape(-1, VALUE_BYTES)[:, :8].copy().view("<i8")
        size = len(batch)
        due[seen : seen + size] = times[:, 0]
        latency[seen : seen + size] = now - times[:, 0]
        seen += size
    assert seen == count and (np.diff(due) > 0).all(), "messages are missing or out of order"
    return due, latency


def send(topic: Any, count: int, rate: int) -> str:
    """The child's side: sends by the schedule; JSON of its hiccups and of how far it fell behind."""
    pad, pack, send_one = bytes(VALUE_BYTES - 8), struct.Struct("<q").pack, topic.send
    meter, interval, behind = Meter(), 1_000_000_000 // rate, 0
    meter.start()
    due = monotonic_ns() + _HEAD_START_NS
    waited, gaps = cpu_wait_ns(), []
    for _ in range(count):
        now = monotonic_ns()
        while now < due:
            before, now = now, monotonic_ns()
            if now - before > METER_NOTE_NS:
                gaps.append(Hiccup(before, now))
        behind = max(behind, now - due)
        send_one(pack(due) + pad)
        due += interval
    waited = cpu_wait_ns() - waited
    hiccups, worst = meter.stop()
    worst = max([worst, *(gap.end_ns - gap.start_ns for gap in gaps)])
    return json.dumps({"hiccups": hiccups + gaps, "worst_ns": worst, "behind_ns": behind, "cpu_wait_ns": waited})


def cpu_wait_ns() -> int:
    """How long the calling thread has been ready to run without a CPU; 0 where the kernel does not say."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1])
    except (OSError, IndexError):
        return 0


def measure(ctx: Context, place: str, rate: int, seconds: float) -> tuple[Array, Array, dict[str, Any]]:
    """(due times, latencies, notes) of one run, without its first second."""
    warm = rate if not ctx.smoke else rate // 10
    count = warm + int(rate * seconds)
    segment_bytes = SEGMENT_BYTES if not ctx.smoke else 1 << 20
    with ctx.directory(place) as folder, tidelog.open(folder / "bench.log", segment_bytes=segment_bytes) as log:
        topic = log.topic("values", partitions=1)
        tail, meter = topic.tail(), Meter()
        with Child("benchmarks.open_loop", folder) as child:
            meter.start()
            waited = cpu_wait_ns()
            child.tell("send", count, rate)
            due, latency = receive(tail, count)
            waited = cpu_wait_ns() - waited
            hiccups, worst = meter.stop()
            theirs = json.loads(child.answer())
        tail.close()
        segments = topic.describe(0)["segments"]
    assert segments > 1, "no segment was rolled inside the run"
    due, latency = due[warm:], latency[warm:]
    hiccups += [Hiccup(*pair) for pair in theirs["hiccups"]]
    stalls = stalls_of(due, latency)
    unshown = [stall for stall in stalls if not shown(stall, hiccups)]
    notes = {
        "messages": len(due),
        "rate": rate,
        "segments": segments,
        "worst hiccup of the meters, ms": max(worst, theirs["worst_ns"]) / 1e6,
        "sender behind its schedule at most, ms": theirs["behind_ns"] / 1e6,
        "sender without a CPU, ms": theirs["cpu_wait_ns"] / 1e6,
        "receiver without a CPU, ms": waited / 1e6,
        "stalls above 10 ms": len(stalls),
        "of these not shown by the meter": len(unshown),
        "longest stall not shown, ms": max((stall.worst_ns for stall in unshown), default=0) / 1e6,
        "hiccups": [[h.start_ns - int(due[0]), h.end_ns - h.start_ns] for h in hiccups if h.end_ns > due[0]],
    }
    return due, latency, notes


def run(ctx: Context) -> list[Figure]:
    """On disk and in memory."""
    rate, seconds, figures = ctx.size(RATE, 20_000), ctx.size(20, 1), []
    for place in ctx.places():
        due, latency, notes = measure(ctx, place, rate, seconds)
        slots = ((due - due[0]) // 10_000_000).astype(int)  # the worst of each 10 ms, for the plot
        worst = np.zeros(int(slots[-1]) + 1, np.int64)
        np.maximum.at(worst, slots, latency)
        notes["worst of each 10 ms, us"] = (worst // 1000).tolist()
        shares = (50, 90, 99, 99.9, 99.99, 100)
        notes["percentiles, us"] = {str(share): float(np.percentile(latency, share)) / 1000 for share in shares}
        for share in (50, 99, 99.9, 100):
            name = "max" if share == 100 else f"p{share:g}"
            figures.append(
                Figure(
                    name=f"open_loop_{name}",
                    title=f"open loop, {rate:,} messages/s between processes with rolls inside: {name}",
                    unit="us",
                    measured=[notes["percentiles, us"][str(share)]],
                    place=place,
                    notes=notes if share == 100 else {},
                )
            )
        figures.append(
            Figure(
                name="open_loop_stalls",
                title="open loop: stalls above 10 ms that the hiccup meter does not show",
                unit="",
                measured=[float(notes["of these not shown by the meter"])],
                reach=0.0,
                judged="value",
                place=place,
            )
        )
    return figures


def main() -> None:
    """The child."""
    with tidelog.open(Path(sys.argv[1]) / "bench.log") as log:
        topic = log.topic("values", partitions=1)
        compiled()
        obey({"send": lambda count, rate: send(topic, count, rate)})


if __name__ == "__main__":
    main()
