"""Which figures stand in the README, and are they those that were measured?

    python -m benchmarks.readme_table           writes the table between the two bench markers of README.md
    python -m benchmarks.readme_table --check   only says whether it would change (exit code 1)

The figures come from the committed results (`benchmarks/results/*.json`, written by `./dev bench`) and from nowhere
else; a smoke run is refused. Rows are those that a benchmark marks with `table=True`, in the order of the questions.
Every one of them is shown, also where tidelog is the slower one.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.__main__ import QUESTIONS
from benchmarks.harness import ROOT

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
RESULTS = ROOT / "benchmarks" / "results"
HEAD = ("figure", "measured against", "ratio", "better is", "measured", "baseline")

Row = dict[str, Any]


def line(row: Row) -> str:
    """One row of the table: medians."""
    unit = f" {row['unit']}" if row["unit"] else ""
    ratio, baseline = row["ratio_stats"], row["baseline_stats"]
    title = row["title"] + (f" ({row['place']})" if row["place"] else "")
    cells = (
        title,
        row["against"],
        f"{report.number(ratio['median'])} x" if ratio else "",
        {"<=": "lower", ">=": "higher"}[row["sign"]],
        report.number(row["measured_stats"]["median"]) + unit,
        report.number(baseline["median"]) + unit if baseline else "",
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def table(contents: list[Row]) -> str:
    """The text between the markers. Raises ValueError when there is nothing to show, or nothing that may be."""
    if any(content["smoke"] for content in contents):
        raise ValueError("the results are those of a smoke run, whose figures mean nothing: run ./dev bench")
    rows = [row for content in contents for row in content["figures"] if row["table"]]
    if not rows:
        raise ValueError(f"there are no results in {RESULTS.relative_to(ROOT)}: run ./dev bench")
    machines = {", ".join(f"{key} {value}" for key, value in told(content).items()): None for content in contents}
    dates = sorted({content["date"] for content in contents})
    lines = ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD), *map(line, rows), ""]
    lines.append(f"Medians; {dates[0]}{f' to {dates[-1]}' if len(dates) > 1 else ''}; {'; '.join(machines)}.")
    return "\n".join(lines)


def told(content: Row) -> Row:
    """The machine without what changes from run to run."""
    return {key: value for key, value in content["machine"].items() if key != "load before"}


def placed(readme: str, text: str) -> str:
    """The README with `text` between its markers. Raises ValueError when they are not there once each."""
    if readme.count(BEGIN) != 1 or readme.count(END) != 1 or readme.index(BEGIN) > readme.index(END):
        raise ValueError(f"README.md needs {BEGIN} and {END}, once each and in this order")
    before, rest = readme.split(BEGIN)
    return f"{before}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}"


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readme_table", description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit code 1 if the README is out of date")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="where the results are")
    given = parser.parse_args()
    path = ROOT / "README.md"
    readme = path.read_text(encoding="utf-8")
    try:
        fresh = placed(readme, table(report.load(given.results, QUESTIONS)))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    if given.check:
        if fresh != readme:
            print("README.md is out of date: run python -m benchmarks.readme_table", file=sys.stderr)
        return int(fresh != readme)
    path.write_text(fresh, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
