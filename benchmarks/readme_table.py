"""How do measured ratios get into the README?

    python -m benchmarks.readme_table             rewrites what stands between the markers in README.md
    python -m benchmarks.readme_table --check     changes nothing; 1 when the table is not that of the results

Takes benchmarks/results/*.json, every row that is meant for the README, in the order of the questions; a row that is
lost says so. Results of a smoke run are refused.
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
HEAD = ["figure", "measured", "against", "ratio", "to reach"]


def table(contents: list[dict[str, Any]]) -> str:
    """The rows as Markdown, with what they were measured on above. Raises ValueError for results of a smoke run."""
    if any(content["smoke"] for content in contents):
        raise ValueError("these are results of a smoke run, whose figures mean nothing: run python -m benchmarks")
    facts = contents[0]["machine"]
    date = max(content["date"] for content in contents)
    lines = [
        f"On {facts['cpus']} CPUs ({facts['cpu']}, {facts['crc32c']}), Python {facts['python']}, {date}:",
        "",
    ]
    lines += ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
    rows = [row for content in contents for row in content["figures"] if row["table"]]
    return "\n".join(lines + ["| " + " | ".join(cells(row)) + " |" for row in rows])


def cells(row: dict[str, Any]) -> list[str]:
    """One row. Medians; what is lost is marked."""
    unit = f" {row['unit']}".rstrip()
    measured, baseline, ratio = (row[name] for name in ("measured_stats", "baseline_stats", "ratio_stats"))
    against = row["against"] + (f", {report.number(baseline['median'])}{unit}" if baseline else "")
    lost = " **lost**" if row["verdict"] == "lost" else ""
    reach = (report.goal(row) or "–") + lost
    return [
        row["title"],
        report.number(measured["median"]) + unit,
        against,
        f"{report.number(ratio['median'])} x" if ratio else "–",
        reach,
    ]


def rewritten(text: str, inner: str) -> str:
    """`text` with `inner` between the markers. Raises ValueError when they are not there once each, in order."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise ValueError(f"the text must hold {BEGIN} and then {END} once each")
    return f"{before}{BEGIN}\n{inner}\n{END}{after}"


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readme_table", description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="only say whether the table is up to date")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results", metavar="DIR")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md", metavar="FILE")
    given = parser.parse_args()
    contents = report.load(given.results, QUESTIONS)
    if not contents:
        parser.error(f"there are no results in {given.results}: run python -m benchmarks")
    old = given.readme.read_text()
    try:
        new = rewritten(old, table(contents))
    except ValueError as error:
        parser.error(str(error))
    if given.check:
        print("up to date" if new == old else "not the table of the results: run python -m benchmarks.readme_table")
        return int(new != old)
    given.readme.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
