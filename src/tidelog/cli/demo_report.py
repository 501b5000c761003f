"""How is the outcome of the demo told: to people on one screen, to programs as JSON or TSV?

Floor 9: imports demo_*, output. Thread rule: pure functions over a `Result`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, TextIO

from tidelog.cli.demo_answers import answers_for, summary
from tidelog.cli.demo_facts import Facts
from tidelog.cli.demo_proof import Outcome
from tidelog.cli.demo_run import Plan, Seen
from tidelog.cli.output import (
    Column,
    bar,
    emit,
    emit_json,
    has_blocks,
    is_terminal,
    key_text,
    number,
    percent,
    seconds,
    size,
    table,
)
from tidelog.skew import Skew

PERCENTILES = (50.0, 90.0, 99.0, 99.9, 100.0)


@dataclass(slots=True)
class Result:
    """Everything there is to tell."""

    plan: Plan
    facts: Facts
    seen: Seen
    outcome: Outcome
    skew: Skew
    plot: str = ""
    """Path of the picture, "": none."""

    @property
    def killed_group(self) -> str:
        """The group whose subscriber was killed."""
        return answers_for(self.plan.source.flights)[0].group


def heading(plan: Plan) -> str:
    """What is about to happen."""
    rate = f"{number(plan.rate)} a second" if plan.rate else "as fast as it goes"
    first, second = answers_for(plan.source.flights)
    return (
        f"{number(plan.total)} {plan.source.title}\n"
        f"{plan.publishers} publishers, {rate} -> topic {plan.channel!r}, {plan.partitions} partitions, "
        f"key {plan.source.key} -> groups {first.group!r} ({first.question}) and {second.group!r} ({second.question})"
    )


def emit_result(result: Result, style: str, out: TextIO) -> None:
    """Write the result as `style`: table, json or tsv."""
    if style == "json":
        emit_json(as_document(result), out)
    elif style == "tsv":
        columns = [Column("proof", ""), Column("held", ""), Column("claim", ""), Column("detail", "")]
        rows = [
            {"proof": proof.name, "held": str(proof.held).lower(), "claim": proof.claim, "detail": proof.detail}
            for proof in result.outcome.proofs
        ]
        emit(columns, rows, "tsv", out)
    else:
        _for_people(result, out)


def as_document(result: Result) -> dict[str, Any]:
    """The result for programs; units stand in the names."""
    plan, seen, outcome, kill = result.plan, result.seen, result.outcome, result.seen.kill
    return {
        "source": {"path": plan.source.path, "key": plan.source.key, "records": plan.total},
        "partitions": plan.partitions,
        "publishers": plan.publishers,
        "rate_asked": plan.rate,
        "published": seen.published,
        "publish_seconds": seen.publish_seconds,
        "publish_rate": seen.published / seen.publish_seconds,
        "read_back_rate": outcome.read_messages / max(outcome.read_seconds, 1e-9),
        "latency_seconds": {
            group: {_name(percentile): found.percentile(percentile) for percentile in PERCENTILES}
            for group, found in seen.latencies.items()
            if found.total
        },
        "kill": {
            "group": result.killed_group,
            "pid": kill.pid,
            "status": kill.status,
            "counted": kill.counted,
            "committed": kill.committed,
            "resumed": kill.resumed,
            "resumed_after_seconds": (kill.resumed_ns - kill.at_ns) / 1e9,
            "recognised_repetitions": kill.repeated,
        },
        "skew": {
            "max_over_mean": result.skew.max_over_mean,
            "partitions": [share._asdict() for share in result.skew.partitions],
            "hottest": [hot._asdict() for hot in result.skew.hottest],
        },
        "answers": outcome.answers,
        "proofs": [
            {"name": proof.name, "claim": proof.claim, "held": proof.held, "detail": proof.detail}
            for proof in outcome.proofs
        ],
        "held": outcome.held,
        "plot": result.plot or None,
    }


def _name(percentile: float) -> str:
    return "max" if percentile >= 100 else f"p{percentile:g}"


def _for_people(result: Result, out: TextIO) -> None:
    blocks = has_blocks(out)
    for part in (_rates, _latencies, _kill, _skew, _answers, _proofs):
        part(result, out, blocks)
    if result.plot:
        print(f"\npicture: {os.path.relpath(result.plot)}", file=out)
    verdict = (
        "Every record arrived, once for each group, in the order of its key."
        if result.outcome.held
        else "A proof failed. The same run leaves its store for a look with --keep FOLDER."
    )
    print(f"\n{verdict}", file=out)


def _rates(result: Result, out: TextIO, blocks: bool) -> None:
    seen, outcome = result.seen, result.outcome
    catch_up = (seen.end_ns - seen.publish_end_ns) / 1e9
    value_bytes = sum(share.bytes for share in result.skew.partitions)
    print(
        f"\n published   {number(seen.published)} events ({size(value_bytes)}) in {seconds(seen.publish_seconds)}: "
        f"{number(seen.published / seen.publish_seconds)} a second"
        f"\n subscribed  both groups were through {seconds(max(catch_up, 0))} after the last event"
        f"\n read back   {number(outcome.read_messages / max(outcome.read_seconds, 1e-9))} a second, decoded",
        file=out,
    )


def _latencies(result: Result, out: TextIO, blocks: bool) -> None:
    columns = [Column("", "from due time to subscriber"), *(Column("", _name(p), right=True) for p in PERCENTILES)]
    lines = []
    for group, found in result.seen.latencies.items():
        title = f"{group} (killed, then catching up)" if group == result.killed_group else f"{group} (undisturbed)"
        cells = [seconds(found.percentile(percentile)) if found.total else "-" for percentile in PERCENTILES]
        lines.append([title, *cells])
    print(file=out)
    table(columns, lines, out)


def _kill(result: Result, out: TextIO, blocks: bool) -> None:
    kill = result.seen.kill
    committed, resumed = sum(kill.committed.values()), sum(kill.resumed.values())
    print(
        f"\n killed      pid {kill.pid} ({result.killed_group}) by SIGKILL after {number(kill.counted)} events, "
        f"{number(committed)} of them committed"
        f"\n resumed     {seconds(max(0.0, (kill.resumed_ns - kill.at_ns) / 1e9))} later by a new process at offsets "
        f"{number(resumed)} in sum; {number(kill.repeated)} messages came again and were recognised",
        file=out,
    )


def _skew(result: Result, out: TextIO, blocks: bool) -> None:
    skew = result.skew
    most = max(share.message_share for share in skew.partitions)
    columns = [
        Column("", "part", right=True),
        Column("", "messages", right=True),
        Column("", "share", right=True),
        Column("", ""),
    ]
    lines = [
        [
            str(share.partition),
            number(share.messages),
            percent(share.message_share),
            bar(share.message_share / most if most else 0.0, blocks=blocks),
        ]
        for share in skew.partitions
    ]
    print(file=out)
    table(columns, lines, out)
    hottest = "  ".join(f"{key_text(hot.key)} {percent(hot.share)}" for hot in skew.hottest[:6])
    print(f" skew  max/mean {skew.max_over_mean:.2f}; hottest keys  {hottest}", file=out)


def _answers(result: Result, out: TextIO, blocks: bool) -> None:
    for answer in answers_for(result.plan.source.flights):
        unit = " (departure/arrival, minutes)" if answer.group == "delays" else ""
        print(f"\n {answer.question}{unit}", file=out)
        for line in summary(answer, result.outcome.answers[answer.group]):
            print(f"   {line}", file=out)


def _proofs(result: Result, out: TextIO, blocks: bool) -> None:
    good, bad = ("✔", "✘") if blocks else ("ok  ", "FAIL")
    print("\n proofs", file=out)
    for proof in result.outcome.proofs:
        line = f"   {good if proof.held else bad} {proof.claim}" + (f": {proof.detail}" if proof.detail else "")
        if is_terminal(out):
            from rich.console import Console
            from rich.text import Text

            Console(file=out, highlight=False).print(Text(line, style="green" if proof.held else "bold red"))
        else:
            print(line, file=out)
