"""What do all pictures of the command line look like?

Floor 9: the only importer of matplotlib (with the colours it gives to others); imports histogram, output. Thread rule:
main thread. Nothing is shown on a screen: figures are drawn into files.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import matplotlib

matplotlib.use("Agg")

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from tidelog.cli.output import seconds

if TYPE_CHECKING:
    from tidelog.cli.histogram import Histogram

BLUE, ORANGE, GREEN, RED, GREY = "#1f6feb", "#e8762d", "#2da44e", "#cf222e", "#8c959f"
INK, FAINT = "#24292f", "#d8dee4"

NINES = (50.0, 90.0, 99.0, 99.9, 99.99)

STYLE = {
    "font.size": 10,
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


def figure(title: str, note: str, rows: int, columns: int, *, width: float, height: float) -> tuple[Figure, Any]:
    """An empty figure with `rows` x `columns` axes, and these; `note` stands small under the title."""
    matplotlib.rcParams.update(STYLE)  # type: ignore[arg-type]  # not a context: titles and ticks made later take their style then
    made = Figure(figsize=(width, height), layout="constrained")
    axes = made.subplots(rows, columns, squeeze=False)
    made.get_layout_engine().set(w_pad=0.15, h_pad=0.12, rect=(0.005, 0.005, 0.99, 1 - 0.72 / height))  # type: ignore[union-attr,call-arg]
    made.text(0.012, 1 - 0.22 / height, title, size=15, weight="bold", va="center")
    made.text(0.012, 1 - 0.52 / height, note, size=10, color="#57606a", va="center")
    return made, axes


def percentiles(axes: Any, curves: list[tuple[str, str, Histogram]]) -> None:
    """Latency by percentile: the further right, the rarer; `curves` are (label, colour, histogram)."""
    deepest = 1.0
    for label, colour, found in curves:
        if not found.total:
            continue
        marks, values, below = [], [], 0
        for value, count in found.points():
            below += count
            marks.append(min(1 / max(1 - below / found.total, 1 / found.total), found.total))
            values.append(value)
        axes.plot(marks, values, color=colour, label=label, linewidth=1.8, drawstyle="steps-post")
        deepest = max(deepest, found.total)
    shown = [nine for nine in NINES if 1 / (1 - nine / 100) <= deepest]
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(FixedLocator([1 / (1 - nine / 100) for nine in shown]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda at, _: f"p{100 - 100 / at:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda at, _: seconds(at)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xlim(1, deepest * 1.3)
    axes.set_ylim(bottom=max(axes.get_ylim()[0], 1e-6))
    axes.legend(loc="lower right")


def label(axis: Any, show: Callable[[float], str]) -> None:
    """Write the numbers of an axis as `show` does."""
    axis.set_major_formatter(FuncFormatter(lambda at, _: show(at)))


def save_png(made: Figure, path: str) -> None:
    """Write the figure to `path`."""
    made.savefig(path, dpi=130, format="png")


def as_data_url(made: Figure) -> str:
    """The figure as the source of an <img> in HTML."""
    data = io.BytesIO()
    made.savefig(data, dpi=130, format="png")
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()
