"""How does long work show that it goes on, on a terminal and in a log file?

Floor 9: imports output; rich only to draw on a terminal. Everything goes to stderr, so that results can be piped.
Thread rule: one `Progress` is used by one thread.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from tidelog.cli.output import has_blocks, is_terminal, number

if TYPE_CHECKING:
    from rich.progress import Progress as Drawn
    from rich.progress import TaskID


class Progress:
    """Bars on a terminal, a line every two seconds elsewhere. A total of 0 is not known yet."""

    PLAIN_INTERVAL = 2.0

    def __init__(self, totals: dict[str, int], *, quiet: bool = False, show: Callable[[float], str] = number) -> None:
        """`totals`: of each task; `quiet`: say nothing; `show`: how an amount is written."""
        self._totals = dict(totals)
        self._done = dict.fromkeys(totals, 0)
        self._quiet = quiet
        self._show = show
        self._drawn: Drawn | None = None
        self._tasks: dict[str, TaskID] = {}
        self._last_line = time.monotonic()

    def __enter__(self) -> Self:
        if not self._quiet and is_terminal(sys.stderr):
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as Drawn

            self._drawn = Drawn(
                TextColumn(" {task.description}"),
                BarColumn(bar_width=32),
                TextColumn("{task.fields[figures]}"),
                TimeElapsedColumn(),
                console=Console(file=sys.stderr, highlight=False),
                transient=True,
            )
            for name, total in self._totals.items():
                self._tasks[name] = self._drawn.add_task(name, total=total or None, figures="")
            self._drawn.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._drawn is not None:
            self._drawn.stop()

    def update(self, name: str, done: int, total: int | None = None) -> None:
        """`done` of the task's total (or of a new `total`) are done."""
        if self._quiet:
            return
        self._done[name] = done
        if total is not None:
            self._totals[name] = total
        if self._drawn is not None:
            self._drawn.update(
                self._tasks[name], completed=done, total=self._totals[name] or None, figures=self._figures(name)
            )
        elif time.monotonic() - self._last_line >= self.PLAIN_INTERVAL:
            self._last_line = time.monotonic()
            separator = " · " if has_blocks(sys.stderr) else ", "
            print(" " + separator.join(f"{task} {self._figures(task)}" for task in self._done), file=sys.stderr)

    def note(self, text: str) -> None:
        """A line above the bars that stays."""
        if self._quiet:
            return
        if self._drawn is not None:
            self._drawn.console.print(text, markup=False)
        else:
            print(text, file=sys.stderr)

    def _figures(self, name: str) -> str:
        total = self._totals[name]
        done = self._show(self._done[name])
        return f"{done} of {self._show(total)}" if total else done
