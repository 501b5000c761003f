"""How is the outcome of a benchmark told: as a table, for programs, as a page with pictures?

Floor 9: imports bench_run, machine, output; plotting (matplotlib) for pictures only. Thread rule: main thread.

A stall is told together with what the hiccup meter saw at the same time, never alone.
"""

from __future__ import annotations

import html
import os
import platform
import shlex
import sys
from typing import Any, TextIO

from tidelog.cli import machine
from tidelog.cli.bench_run import Outcome, Phase, Plan
from tidelog.cli.bench_worker import SLICE_NS, STALL_NS
from tidelog.cli.common import CommandError, Exit, version
from tidelog.cli.histogram import Histogram
from tidelog.cli.output import Column, emit, emit_json, number, seconds, size

PERCENTILES = {"p50": 50.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}


def machine_line(folder: str, sync_seconds: float) -> str:
    """The machine in one line: figures without it say nothing."""
    from tidelog._native import crc32c_name

    kind, _, _ = machine.filesystem(folder)
    cpus = len(os.sched_getaffinity(0))
    return (
        f"{cpus} x {machine.cpu_model()}, {kind}, sync {seconds(sync_seconds)}, Linux {platform.release()}, "
        f"Python {platform.python_version()}, tidelog {version()} (crc {crc32c_name()})"
    )


def rows_of(plan: Plan, outcome: Outcome) -> list[dict[str, Any]]:
    """One row a phase. What a phase does not measure is None."""
    return [_row(plan, phase) for phase in outcome.phases]


def _row(plan: Plan, phase: Phase) -> dict[str, Any]:
    row: dict[str, Any] = {
        "phase": phase.name,
        "messages": phase.messages,
        "seconds": phase.seconds,
        "messages_per_second": phase.rate,
        "bytes_per_second": phase.rate * plan.size,
        "lost": phase.lost,
        "doubled": phase.doubled,
        "disordered": phase.disordered,
    }
    for name, percentile in PERCENTILES.items():
        known = phase.latency is not None and phase.latency.total
        row[f"{name}_seconds"] = phase.latency.percentile(percentile) if phase.latency is not None and known else None
    return row


COLUMNS = (
    Column("phase", ""),
    Column("messages", "messages", right=True, show=number),
    Column("seconds", None),
    Column("messages_per_second", "msgs/s", right=True, show=number),
    Column("bytes_per_second", "values/s", right=True, show=size),
    *(Column(f"{name}_seconds", name, right=True, show=seconds) for name in PERCENTILES),
    Column("lost", "lost", right=True),
    Column("doubled", "dup", right=True),
    Column("disordered", "order", right=True, show=lambda count: "ok" if count == 0 else f"{count} wrong"),
)


def emit_outcome(plan: Plan, outcome: Outcome, facts: str, style: str, out: TextIO) -> None:
    """Write it as `style`: table, json or tsv."""
    rows = rows_of(plan, outcome)
    if style == "json":
        emit_json(
            {
                "phases": rows,
                "hiccup_seconds": _percentiles(outcome.hiccups),
                "generator_late_seconds": _percentiles(outcome.late),
                "stalls": [
                    {"from_seconds": (begin - outcome.start_ns) / 1e9, "seconds": (end - begin) / 1e9, "hiccup": shown}
                    for (begin, end), shown in zip(outcome.stalls, outcome.shown, strict=True)
                ],
                "roll_inside": outcome.roll_inside,
                "machine": facts,
            },
            out,
        )
        return
    emit(COLUMNS, rows, style, out)
    if style == "table":
        for line in notes(plan, outcome, facts):
            print(line, file=out)


def _percentiles(found: Histogram) -> dict[str, float] | None:
    return {name: found.percentile(value) for name, value in PERCENTILES.items()} if found.total else None


def notes(plan: Plan, outcome: Outcome, facts: str) -> list[str]:
    """What one must know to read the figures."""
    counts = ((plan.producers, "producer"), (plan.consumers, "consumer"), (plan.partitions, "partition"))
    asked = ", ".join(f"{count} {what}{'' if count == 1 else 's'}" for count, what in counts)
    lines = [
        f"{asked}, {size(plan.size)} values, ack {plan.ack}, compression {plan.compression or 'none'}",
        f"append: calls of {number(plan.batch)} values, making each value included",
    ]
    if plan.rate:
        rolled = "with" if outcome.roll_inside else "without"
        lines += [
            f"latency: {number(plan.rate)} a second, open loop, from due time to receiver, {rolled} a new file inside",
            f"  the generator itself was late by  {_told(outcome.late)}",
            f"  hiccup meter (machine alone)      {_told(outcome.hiccups)}",
            f"  {stall_sentence(outcome)}",
        ]
    return [*lines, facts]


def _told(found: Histogram) -> str:
    if not found.total:
        return "not measured"
    return "  ".join(f"{name} {seconds(found.percentile(value))}" for name, value in PERCENTILES.items())


def stall_sentence(outcome: Outcome) -> str:
    """How many stalls there were, and for how many the machine answers."""
    limit = seconds(STALL_NS / 1e9)
    if not outcome.stalls:
        return f"no message waited longer than {limit}"
    longest = max(end - begin for begin, end in outcome.stalls) / 1e9
    shown, total = sum(outcome.shown), len(outcome.stalls)
    plural = "" if total == 1 else "s"
    text = f"{total} stall{plural} above {limit} (longest {seconds(longest)}); "
    text += f"hiccups of the machine cover most of {shown}"
    return text + ("" if shown == total else f", not of {total - shown}: these may be the log's")


# --- pictures ---


def write_report(plan: Plan, outcome: Outcome, facts: str, path: str) -> None:
    """Write the report to `path`: a picture (.png) or a page with the tables and the picture (.html).

    Raises CommandError (exit code 3) for a picture without matplotlib; a page is then written without it.
    """
    page = path.lower().endswith(".html")
    try:
        from tidelog.cli import plotting
    except ModuleNotFoundError as error:
        if not page:
            raise CommandError(
                f"{path} needs {error.name}; install it with: pip install 'tidelog[demo]', or ask for a .html report",
                Exit.MISSING,
            ) from error
        _write_page(plan, outcome, facts, path, "")
        return
    made = _draw(plan, outcome, facts, plotting)
    if page:
        _write_page(plan, outcome, facts, path, plotting.as_data_url(made))
    else:
        plotting.save_png(made, path)


def _draw(plan: Plan, outcome: Outcome, facts: str, plotting: Any) -> Any:
    loop = next((phase for phase in outcome.phases if phase.latency is not None), None)
    title = f"tidelog bench: {size(plan.size)} values, ack {plan.ack}"
    made, axes = plotting.figure(title, facts, 1, 3 if loop else 1, width=17 if loop else 7, height=5.6)
    _rates(axes[0][0], outcome, plotting)
    if loop is not None and loop.latency is not None:
        curves = [
            ("due to received", plotting.ORANGE, loop.latency),
            ("generator late", plotting.BLUE, outcome.late),
            ("hiccup meter", plotting.GREY, outcome.hiccups),
        ]
        plotting.percentiles(axes[0][1], curves)
        axes[0][1].set_title(f"Latency at {number(plan.rate)} messages a second")
        _timeline(axes[0][2], outcome, plotting)
    return made


def _rates(axes: Any, outcome: Outcome, plotting: Any) -> None:
    phases = [phase for phase in outcome.phases if phase.latency is None]
    places = range(len(phases))
    axes.bar(places, [phase.rate for phase in phases], color=plotting.BLUE, width=0.5)
    for place, phase in zip(places, phases, strict=True):
        axes.text(place, phase.rate, f"{number(phase.rate)}/s", ha="center", va="bottom")
    axes.set_xticks(list(places), [phase.name for phase in phases])
    axes.margins(x=0.3, y=0.12)
    plotting.label(axes.yaxis, number)
    axes.grid(axis="x", visible=False)
    axes.set_title("Throughput, messages a second")


def _timeline(axes: Any, outcome: Outcome, plotting: Any) -> None:
    first = outcome.start_ns // SLICE_NS
    for name, colour, title in (
        ("latency", plotting.ORANGE, "longest wait of a message"),
        ("hiccup", plotting.GREY, "longest hiccup of the machine"),
    ):
        points = sorted(outcome.slices[name].items())
        xs = [(place - first) * SLICE_NS / 1e9 for place, _ in points]
        axes.plot(xs, [max(value, 1) / 1e9 for _, value in points], color=colour, marker=".", label=title)
    axes.set_yscale("log")
    plotting.label(axes.yaxis, seconds)
    axes.set_xlabel("seconds; one point each 0.1 s")
    axes.set_title("Stalls: the log's or the machine's?")
    axes.legend(loc="upper right")


def _write_page(plan: Plan, outcome: Outcome, facts: str, path: str, picture: str) -> None:
    rows = rows_of(plan, outcome)
    shown = [column for column in COLUMNS if column.title is not None]
    head = "".join(f"<th>{html.escape(column.title or '')}</th>" for column in shown)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(column.text(row))}</td>" for column in shown) + "</tr>" for row in rows
    )
    remarks = "".join(f"<li>{html.escape(line.strip())}</li>" for line in notes(plan, outcome, facts))
    command = html.escape(f"tidelog {shlex.join(sys.argv[1:])}")
    drawn = (
        f'<img src="{picture}" alt="throughput, latency by percentile, stalls over time">'
        if picture
        else ("<p>No pictures: matplotlib is not installed (pip install 'tidelog[demo]').</p>")
    )
    text = f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>tidelog bench</title>
<style>
 body {{ font: 15px/1.5 system-ui, sans-serif; color: #24292f; max-width: 1180px; margin: 2rem auto; padding: 0 1rem }}
 table {{ border-collapse: collapse; margin: 1rem 0 }}
 th, td {{ padding: .35rem .9rem; text-align: right; border-bottom: 1px solid #d8dee4 }}
 th:first-child, td:first-child {{ text-align: left }}
 img {{ max-width: 100% }} code {{ background: #f6f8fa; padding: .2rem .4rem }}
</style>
<h1>tidelog bench</h1>
<p><code>{command}</code></p>
<table><tr>{head}</tr>{body}</table>
{drawn}
<ul>{remarks}</ul>
</html>
"""
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
