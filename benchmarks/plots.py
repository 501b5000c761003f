"""What do the results look like?

PNG files made from the questions' contents with matplotlib, for the report: all ratios with their spread and what is to
be reached; the two curves of cost against size and number; the latencies of the open loop over time.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

Row = dict[str, Any]
INK, GOOD, BAD, SOFT = "#1f3a5f", "#2e7d4f", "#b3372f", "#9aa7b4"


def draw(folder: Path, contents: list[Row]) -> list[Path]:
    """Every plot for which there are results; answers their paths."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [row for content in contents for row in content["figures"]]
    judge = not any(content["smoke"] for content in contents)
    made: list[Path] = []
    for name, plot in (("ratios", _ratios), ("growth", _curves), ("open-loop", _open_loop)):
        figure = plot(pyplot, rows, judge)
        if figure is None:
            continue
        path = folder / f"{name}.png"
        figure.tight_layout()
        figure.savefig(path, dpi=110, metadata={"Software": ""})
        pyplot.close(figure)
        made.append(path)
    return made


def _ratios(pyplot: Any, rows: list[Row], judge: bool) -> Any:
    """Ratios of the main rows on a logarithmic axis; a diamond stands at what is to be reached."""
    shown = [row for row in rows if row["table"] and row["ratio_stats"]]
    if not shown:
        return None
    figure, axes = pyplot.subplots(figsize=(10, 0.42 * len(shown) + 1.4))
    for at, row in enumerate(reversed(shown)):
        stats = row["ratio_stats"]
        colour = INK if not judge or not row["verdict"] else BAD if row["verdict"] == "lost" else GOOD
        axes.plot([stats["min"], stats["max"]], [at, at], color=SOFT, linewidth=1)
        axes.plot([stats["q1"], stats["q3"]], [at, at], color=colour, linewidth=5, solid_capstyle="butt")
        axes.plot(stats["median"], at, "o", color=colour, markersize=6)
        axes.annotate(f"{stats['median']:.2f}", (stats["median"], at), (0, 6), textcoords="offset points", fontsize=7)
        if judge and row["judged"] == "ratio" and row["reach"]:
            axes.plot(row["reach"], at, "D", color="black", markersize=4, fillstyle="none")
    labels = [f"{row['title']} / {row['against']}".replace("`", "") for row in reversed(shown)]
    labels = [textwrap.fill(label, 50) for label in labels]
    axes.set_yticks(range(len(shown)), labels, fontsize=7)
    axes.set_xscale("log")
    axes.axvline(1, color=SOFT, linewidth=0.8)
    axes.set_xlabel("ratio to the baseline (median, quartiles, extremes; diamond: to reach)", fontsize=8)
    return figure


def _curves(pyplot: Any, rows: list[Row], judge: bool) -> Any:
    """Cost of an append against log size, and against the number of other partitions."""
    panels = [("MiB in the log", ["growth"]), ("other partitions", ["beside", "round robin"])]
    names = {row["series"] for row in rows}
    panels = [(label, series) for label, series in panels if names & set(series)]
    if not panels:
        return None
    figure, grid = pyplot.subplots(2, len(panels), figsize=(5 * len(panels), 6), squeeze=False, sharex="col")
    for column, (label, series) in enumerate(panels):
        for name in series:
            points = sorted((row for row in rows if row["series"] == name), key=lambda row: row["x"])
            for line, stats in ((0, "ratio_stats"), (1, "measured_stats")):
                axes, x = grid[line][column], [row["x"] for row in points]
                middle = [row[stats]["median"] for row in points]
                axes.plot(x, middle, "o-", label=name, markersize=4)
                low, high = ([row[stats][q] for row in points] for q in ("q1", "q3"))
                axes.fill_between(x, low, high, alpha=0.2)
        for line, unit in ((0, "ratio to SimpleQueue.put"), (1, "ns for one send")):
            axes = grid[line][column]
            axes.set_xscale("log")
            axes.set_ylim(bottom=0)
            axes.set_ylabel(unit, fontsize=8)
            axes.legend(fontsize=7)
        grid[1][column].set_xlabel(label, fontsize=8)
    return figure


def _open_loop(pyplot: Any, rows: list[Row], judge: bool) -> Any:
    """The worst latency of each 10 ms, with the hiccups that the meters noted."""
    runs = [row for row in rows if row["name"] == "open_loop_max"]
    if not runs:
        return None
    figure, grid = pyplot.subplots(len(runs), 1, figsize=(9, 2.8 * len(runs)), squeeze=False)
    for axes, row in zip(grid[:, 0], runs, strict=True):
        notes = row["notes"]
        worst = notes["worst of each 10 ms, us"]
        axes.plot(
            [slot / 100 for slot in range(len(worst))], worst, color=INK, linewidth=0.7, label="latency, worst of 10 ms"
        )
        if notes["hiccups"]:
            starts, lengths = zip(*notes["hiccups"], strict=True)
            axes.plot(
                [s / 1e9 for s in starts],
                [n / 1e3 for n in lengths],
                "x",
                color=BAD,
                markersize=4,
                label="hiccup of the machine",
            )
        shares = ", ".join(f"p{share} {value:,.0f}" for share, value in notes["percentiles, us"].items())
        axes.set_title(
            f"{row['place']}: {notes['rate']:,} messages/s, us: {shares}".replace("p100 ", "max "), fontsize=8
        )
        axes.set_yscale("log")
        axes.set_xlabel("seconds", fontsize=8)
        axes.set_ylabel("us", fontsize=8)
        axes.legend(fontsize=7)
    return figure
