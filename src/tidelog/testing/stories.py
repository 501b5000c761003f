"""How is an anomaly told, so that one reads it once and sees what went wrong?

Floor 8: may import testing.history. Thread rule: values.

A story has a line for each call that matters and for nothing else, in the order of their beginning, in the text form of
histories: it can be pasted into `History.parse`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tidelog.testing.history import History

__all__ = ["AnomalyFound", "Story"]


@dataclass(frozen=True, slots=True)
class Story:
    """One anomaly and the calls that show it."""

    name: str
    about: str
    """What is wrong, in a sentence."""
    lines: tuple[str, ...]
    times_ms: tuple[float, ...]
    """When each line began, counted from the first."""
    rows: tuple[int, ...]
    """The rows of the history it is made of."""

    @classmethod
    def of(cls, history: History, name: str, rows: tuple[int, ...], about: str) -> Story:
        """The story that some rows of a history tell; what belongs to one call is one line."""
        chosen = sorted(set(rows))
        lines: list[str] = []
        times: list[int] = []
        calls: dict[tuple[int, int], list[int]] = {}
        for row in chosen:
            record = history.rows[row]
            calls.setdefault((int(record["client"]), int(record["op"])), []).append(row)
        for members in calls.values():
            for line in history.text(members):
                lines.append(line)
                times.append(int(history.rows[members[0]]["begin"]))
        began = min(times, default=0)
        return cls(name, about, tuple(lines), tuple((time - began) / 1e6 for time in times), tuple(chosen))

    def __str__(self) -> str:
        width = max((len(f"{time:.3f}") for time in self.times_ms), default=0)
        told = [f"  {time:{width}.3f} ms  {line}" for time, line in zip(self.times_ms, self.lines, strict=True)]
        return "\n".join([f"{self.name}: {self.about}", *told])


class AnomalyFound(AssertionError):
    """A history breaks a promise. `name`: of the anomaly; `story`: the shortest one; `anomalies`: how many stories of
    each kind were found (at most 16 of a kind are told apart)."""

    def __init__(self, story: Story, anomalies: Mapping[str, int]) -> None:
        """Raised by `check`."""
        others = ", ".join(f"{name} {count}" for name, count in anomalies.items() if name != story.name)
        super().__init__(f"{story}\n  found too: {others}" if others else str(story))
        self.story = story
        self.name = story.name
        self.anomalies = dict(anomalies)
