"""How is the outcome of `tidelog chaos` shown?

Floor 9: imports output; the outcome comes from testing.chaos. Thread rule: runs in the main thread.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from tidelog.cli.output import Column, emit, emit_json, number, seconds, visible

if TYPE_CHECKING:
    from tidelog.testing.chaos.experiment import HandlerReport, Outcome
    from tidelog.testing.chaos.story import Story

__all__ = ["report"]

COLUMNS = (
    Column("handler", "handler"),
    Column("channel", "channel"),
    Column("delivery", "delivery"),
    Column("expected", "expected"),
    Column("steps", "steps", right=True, show=number),
    Column("kills", "kills", right=True, show=number),
    Column("effects", "effects", right=True, show=number),
    Column("verdict", "verdict"),
    Column("ok", "kept", show=lambda kept: "yes" if kept else "NO"),
    Column("lost", None),
    Column("duplicates", None),
    Column("unexpected", None),
    Column("stuck", None),
    Column("killed_at", None),
)
"""`lost` and what stands behind it are numbers of runs."""


def report(outcome: Outcome, style: str, *, verbose: bool = False) -> None:
    """Write it to stdout as `style`: table, json or tsv. `verbose`: stories of what was promised too, and the steps."""
    rows = [_row(one) for one in outcome.handlers]
    if style == "json":
        emit_json(_document(outcome, rows))
        return
    emit(COLUMNS, rows, style)
    if style == "tsv":
        return
    for one in outcome.handlers:
        if one.story is not None and (verbose or not one.ok):
            print(f"\n{_told(one.story, outcome)}")
        elif one.story is not None:
            print(f"\n{one.name}: {_promised(one)}")
    for line in _notes(outcome):
        print(f"\n{line}")
    if verbose:
        print("\nsteps, and how often each is passed without a kill:")
        for step, times in outcome.steps.items():
            print(f"  {step}  {times}")
    print(f"\n{_summary(outcome)}")


def _row(one: HandlerReport) -> dict[str, Any]:
    return {
        "handler": one.name,
        "channel": one.channel,
        "delivery": one.delivery,
        "expected": one.expected,
        "steps": one.steps,
        "kills": one.kills,
        "effects": one.effects,
        "verdict": one.verdict,
        "ok": one.ok,
        "lost": one.found.get("lost", 0),
        "duplicates": one.found.get("duplicate", 0),
        "unexpected": one.found.get("unexpected", 0),
        "stuck": one.found.get("stuck", 0),
        "killed_at": None if one.story is None else one.story.step,
    }


def _document(outcome: Outcome, rows: list[dict[str, Any]]) -> dict[str, Any]:
    handlers = [
        row
        | {
            "story": None
            if one.story is None
            else {
                "what": one.story.what,
                "message": one.story.message,
                "steps": list(one.story.lines),
                "so": one.story.so,
                "advice": one.story.advice,
                "replay": _replay(one.story, outcome),
            }
        }
        for row, one in zip(rows, outcome.handlers, strict=True)
    ]
    return {
        "application": outcome.application,
        "target": outcome.target,
        "ok": outcome.ok,
        "seed": outcome.seed,
        "messages": outcome.inputs,
        "kills": outcome.kills,
        "random_kills": outcome.random_kills,
        "not_reached": list(outcome.unreached),
        "seconds": round(outcome.seconds, 3),
        "kept": outcome.kept,
        "handlers": handlers,
        "steps": dict(outcome.steps),
    }


def _told(story: Story, outcome: Outcome) -> str:
    lines = str(story).splitlines()
    return "\n".join([*map(visible, lines), f"  Again: {_replay(story, outcome)}"])


def _replay(story: Story, outcome: Outcome) -> str:
    """The command that kills there once more. The files of --input belong to it too."""
    words = ["tidelog", "chaos", outcome.target, "--seed", str(outcome.seed)]
    if story.step.startswith("random@"):
        words += ["--random", story.step.partition("@")[2]]
    return shlex.join([*words, "--only", story.step])


def _promised(one: HandlerReport) -> str:
    assert one.story is not None
    doubled, lost = one.found.get("duplicate", 0), one.found.get("lost", 0)
    led = f"{_kills(doubled or lost)} led to a {'duplicate' if doubled else 'loss'}, for example {one.story.step}."
    whose = "promised" if one.delivery == one.expected else "--expect asks"
    if doubled:
        return f"at least once, as {whose}: {led}\n  {one.story.advice}"
    return f"at most once, as {whose}: {led}"


def _kills(count: int) -> str:
    return "1 kill" if count == 1 else f"{number(count)} kills"


def _notes(outcome: Outcome) -> list[str]:
    notes = []
    for one in outcome.handlers:
        if not one.steps:
            notes.append(
                f"{one.name} got no message, so nothing is said of it: give it some by --input or chaos_inputs()."
            )
        elif not one.effects and not outcome.elsewhere:
            notes.append(
                f"{one.name} does nothing that can be seen, so duplicates are not: call tidelog.testing.effect() where "
                f"it does something, or have chaos_effects() answer what is in your database."
            )
    if outcome.unreached:
        some = ", ".join(outcome.unreached[:3]) + (", ..." if len(outcome.unreached) > 3 else "")
        notes.append(
            f"{_kills(len(outcome.unreached))} came to nothing, as the run did not come that far again: {some}"
        )
    return notes


def _summary(outcome: Outcome) -> str:
    bad = [one.name for one in outcome.handlers if not one.ok]
    end = f"NOT KEPT by {', '.join(bad)}" if bad else "every handler kept what is expected of it"
    at_random = f", {number(outcome.random_kills)} of them at random" if outcome.random_kills else ""
    kept = f"; everything is in {outcome.kept}" if outcome.kept else ""
    return (
        f"{outcome.application}: {_kills(outcome.kills)}{at_random}, {number(outcome.inputs)} messages, "
        f"{seconds(outcome.seconds)}, seed {outcome.seed}: {end}{kept}"
    )
