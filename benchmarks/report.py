"""How are results kept and shown?

One JSON file for each question (`results/send.json`, ...), a table (rich on a terminal, plain text otherwise), and a
report with plots made from whatever JSON files are there, so that one question can be measured again alone.
Dictionaries here are `Figure.as_dict()`.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.harness import Figure
from tidelog import _native

Row = dict[str, Any]
VERDICTS = {"aim": "aim", "reach": "reached", "lost": "LOST", "": ""}


def machine() -> Row:
    """What it ran on."""
    return {
        "cpu": platform.machine(),
        "cpus": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "compiler": _native.BUILD["compiler"],
        "crc32c": _native.crc32c_name(),
        "load before": round(os.getloadavg()[0], 2),
    }


def file_of(folder: Path, question: str) -> Path:
    """Where a question's results are; instructions.json is the committed standard that counts are compared with."""
    return folder / ("instructions_run.json" if question == "instructions" else f"{question}.json")


def keep(folder: Path, question: str, figures: list[Figure], facts: Row, smoke: bool) -> None:
    """Writes one question's file."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "question": question,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "smoke": smoke,
        "machine": facts,
        "figures": [figure.as_dict() for figure in figures],
    }
    file_of(folder, question).write_text(json.dumps(content, indent=1) + "\n")


def load(folder: Path, questions: list[str]) -> list[Row]:
    """Every question's content that is there, in order."""
    paths = [file_of(folder, question) for question in questions]
    return [json.loads(path.read_text()) for path in paths if path.exists()]


def number(value: float | None) -> str:
    """Three significant digits, no exponent."""
    if value is None:
        return ""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.001 else f"{value:.1e}"


def quantity(stats: Row | None, unit: str) -> str:
    """Median, quartiles and extremes."""
    if stats is None:
        return ""
    unit = f" {unit}" if unit else ""
    if stats["count"] == 1:
        return number(stats["median"]) + unit
    quartiles = f"{number(stats['q1'])}–{number(stats['q3'])}"
    return f"{number(stats['median'])}{unit} [{quartiles}; {number(stats['min'])}–{number(stats['max'])}]"


def goal(row: Row) -> str:
    """What is to be reached, and what is aimed at then."""
    if row["reach"] is None:
        return ""
    sign = {"<=": "≤", ">=": "≥"}[row["sign"]]
    unit = " x" if row["judged"] == "ratio" else f" {row['unit']}".rstrip()
    aim = "" if row["aim"] is None else f", aim {number(row['aim'])}"
    return f"{sign} {number(row['reach'])}{aim}{unit}"


HEAD = ("figure", "where", "measured [quartiles; extremes]", "baseline", "ratio", "to reach", "verdict")


def cells(row: Row, judge: bool) -> tuple[str, ...]:
    """One line of the table."""
    baseline = quantity(row["baseline_stats"], row["unit"])
    return (
        row["title"],
        row["place"],
        quantity(row["measured_stats"], row["unit"]),
        f"{row['against']}: {baseline}" if baseline else "",
        quantity(row["ratio_stats"], ""),
        goal(row) if judge else "",
        VERDICTS[row["verdict"]] if judge else "",
    )


def show(rows: list[Row], judge: bool) -> None:
    """The table, to stdout."""
    lines = [cells(row, judge) for row in rows]
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table(*HEAD)
        styles = {"LOST": "red", "aim": "green"}
        for line in lines:
            table.add_row(*line, style=styles.get(line[-1]))
        Console().print(table)
        return
    for line in lines:
        print("\t".join(line))
    sys.stdout.flush()


def _measured_on(contents: list[Row]) -> list[str]:
    """A line for each machine (as a rule one), with its questions and the load before each."""
    machines: dict[str, list[str]] = {}
    for content in contents:
        facts = dict(content["machine"])
        load = facts.pop("load before")
        told = ", ".join(f"{key} {value}" for key, value in facts.items())
        machines.setdefault(told, []).append(f"{content['question']} {load}")
    return [f"- {told}. Load average before: {', '.join(loads)}" for told, loads in machines.items()]


def write(folder: Path, contents: list[Row]) -> Path:
    """report.md with its plots, from the questions' contents; answers its path."""
    from benchmarks import plots

    judge = not any(content["smoke"] for content in contents)
    images = plots.draw(folder, contents)
    lines = ["# Benchmarks", ""]
    if not judge:
        lines += ["A smoke run: it shows that everything runs, its figures mean nothing.", ""]
    lines += ["Medians of interleaved pairs with [quartiles; extremes]; ratios are medians of the pairs' ratios.", ""]
    lines += _measured_on(contents)
    lines += ["", "| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
    rows = [row for content in contents for row in content["figures"]]
    lines += ["| " + " | ".join(cells(row, judge)) + " |" for row in rows]
    lines += [""] + [f"![{path.stem.replace('-', ' ')}]({path.name})" for path in images] + ["", "## Notes", ""]
    for row in rows:
        notes = {key: value for key, value in row["notes"].items() if not isinstance(value, list)}
        if notes:
            lines.append(f"- {row['title']} ({row['place']}): " + "; ".join(f"{k}: {v}" for k, v in notes.items()))
    out = folder / "report.md"
    out.write_text("\n".join(lines) + "\n")
    return out
