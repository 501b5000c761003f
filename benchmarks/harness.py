"""How is a figure measured?

Both sides run in turn in one process state: a warm-up call of each that is thrown away, then pairs, the side that goes
first changing with every pair. A figure's ratio is the median of the pairs' ratios; quartiles and extremes are kept, so
that a noisy machine shows as spread. The garbage collector stays on, as it is for users. Nothing is left out.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tidelog

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "benchmarks"
LEAST_PAIRS = 15
VALUE_BYTES = 100


@dataclass
class Figure:
    """One measured quantity beside its baseline; samples are pairwise and in `unit`."""

    name: str
    title: str
    unit: str
    measured: list[float]
    against: str = ""
    baseline: list[float] = field(default_factory=list)
    sign: str = "<="
    """Which side of `reach` is good: "<=" or ">="."""
    reach: float | None = None
    aim: float | None = None
    judged: str = "ratio"
    """What `reach` and `aim` speak of: "ratio", "value" (in `unit`), or "excess" (measured less baseline)."""
    place: str = ""
    """"disk", "memory" or "": where the log was."""
    series: str = ""
    x: float | None = None
    """Place on the axis of the curve `series`."""
    table: bool = False
    """Whether it is a row of the README."""
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def ratios(self) -> list[float]:
        """Measured by baseline, pair by pair; empty without a baseline."""
        return [m / b for m, b in zip(self.measured, self.baseline, strict=False) if b]

    @property
    def judgeable(self) -> float | None:
        """The number that `reach` speaks of, as a median over the pairs; None where there is none."""
        if self.judged == "value":
            return statistics.median(self.measured)
        if self.judged == "excess":
            return statistics.median(m - b for m, b in zip(self.measured, self.baseline, strict=True))
        return statistics.median(self.ratios) if self.ratios else None

    @property
    def verdict(self) -> str:
        """ "aim", "reach" or "lost"; "" where there is nothing to reach."""
        value = self.judgeable
        if value is None or self.reach is None:
            return ""
        if self.aim is not None and meets(value, self.sign, self.aim):
            return "aim"
        return "reach" if meets(value, self.sign, self.reach) else "lost"

    def as_dict(self) -> dict[str, Any]:
        """For JSON: every field, with the statistics beside the samples."""
        return {
            **{name: getattr(self, name) for name in self.__dataclass_fields__},
            "measured_stats": spread(self.measured),
            "baseline_stats": spread(self.baseline),
            "ratio_stats": spread(self.ratios),
            "judgeable": self.judgeable,
            "verdict": self.verdict,
        }


def meets(value: float, sign: str, limit: float) -> bool:
    """Whether `value` is on the good side of `limit`."""
    return value <= limit if sign == "<=" else value >= limit


def spread(samples: list[float]) -> dict[str, float] | None:
    """Median, quartiles, extremes and count; None without samples."""
    if not samples:
        return None
    low, middle, high = statistics.quantiles(samples, n=4, method="inclusive") if len(samples) > 1 else samples * 3
    return {"median": middle, "q1": low, "q3": high, "min": min(samples), "max": max(samples), "count": len(samples)}


def interleave(
    measured: Callable[[], float], baseline: Callable[[], float], pairs: int
) -> tuple[list[float], list[float]]:
    """`pairs` samples of both, in turn, after one call of each that does not count."""
    measured(), baseline()
    ours: list[float] = []
    theirs: list[float] = []
    for number in range(pairs):
        sides = [(measured, ours), (baseline, theirs)]
        for side, samples in sides if number % 2 == 0 else reversed(sides):
            samples.append(side())
    return ours, theirs


@dataclass
class Context:
    """How large a run is, and where its files go."""

    pairs: int = LEAST_PAIRS
    smoke: bool = False
    work: Path = BUILD / "work"
    """On a real disk."""

    def size(self, full: int, smoke: int) -> int:
        """`full`, or in a smoke run the tiny size."""
        return smoke if self.smoke else full

    def say(self, text: str) -> None:
        """A line of progress, to stderr."""
        print(f"  {text}", file=sys.stderr, flush=True)

    def warm_memory(self) -> None:
        """Leaves memory free for the page cache that was touched a moment ago. A virtual machine may have given the
        rest back to its host, and then the first touch of a page costs it up to 10 us, which says nothing about
        tidelog."""
        piece = bytes(512 << 10)  # as large as the pieces in which segments grow, since pages are kept by such sizes
        with tempfile.TemporaryFile(dir=self.work, buffering=0) as file:
            for _ in range(self.size(1024, 2)):
                file.write(piece)

    def places(self) -> dict[str, Path]:
        """Where logs are put: "disk", and "memory" where the machine has /dev/shm."""
        memory = Path("/dev/shm")
        return {"disk": self.work} | ({"memory": memory} if os.access(memory, os.W_OK) else {})

    @contextmanager
    def directory(self, place: str = "disk") -> Iterator[Path]:
        """A fresh directory there, removed afterwards."""
        base = self.places()[place]
        base.mkdir(parents=True, exist_ok=True)
        path = Path(tempfile.mkdtemp(prefix="tidelog-bench-", dir=base))
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    @contextmanager
    def log(self, place: str = "disk", **options: Any) -> Iterator[tidelog.Log]:
        """An open log in a fresh directory."""
        with self.directory(place) as path, tidelog.open(path / "bench.log", **options) as log:
            yield log
