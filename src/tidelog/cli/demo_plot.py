"""What does a run of the demo look like?

Floor 9: imports plotting (and with it matplotlib), demo_*. Thread rule: main thread.
"""

from __future__ import annotations

from typing import Any

from tidelog.cli import plotting
from tidelog.cli.demo_answers import DELAYS, ROUTES, Table, answers_for
from tidelog.cli.demo_report import Result
from tidelog.cli.output import key_text, number, seconds
from tidelog.cli.plotting import BLUE, GREEN, GREY, INK, ORANGE, RED


def draw(result: Result, path: str) -> None:
    """Draw six panels into the PNG file `path`."""
    plan, seen = result.plan, result.seen
    held = sum(proof.held for proof in result.outcome.proofs)
    title = f"{number(plan.total)} {plan.source.title} through one tidelog store"
    note = (
        f"{plan.publishers} publishers · {plan.partitions} partitions keyed by {plan.source.key} · 2 groups · "
        f"one subscriber killed · {number(seen.published / seen.publish_seconds)} events a second · "
        f"{held} of {len(result.outcome.proofs)} proofs hold"
    )
    made, axes = plotting.figure(title, note, 2, 3, width=16, height=9)
    _timeline(axes[0][0], result)
    _latency(axes[0][1], result)
    _partitions(axes[0][2], result)
    first, second = answers_for(plan.source.flights)
    _answer(axes[1][0], first.group, result.outcome.answers[first.group])
    _answer(axes[1][1], second.group, result.outcome.answers[second.group])
    _keys(axes[1][2], result)
    plotting.save_png(made, path)


def _timeline(axes: Any, result: Result) -> None:
    seen = result.seen
    colours = {"published": GREY, result.killed_group: ORANGE}
    for name, points in seen.timeline.items():
        xs = [(at - seen.start_ns) / 1e9 for at, _ in points]
        ys = [count for _, count in points]
        colour = colours.get(name, BLUE)
        wide = name == "published"
        label = name if wide else f"group {name}"
        axes.plot(xs, ys, color=colour, linewidth=5 if wide else 1.8, alpha=0.45 if wide else 1.0, label=label)
    kill = seen.kill
    down, up = (kill.at_ns - seen.start_ns) / 1e9, (kill.resumed_ns - seen.start_ns) / 1e9
    committed = sum(kill.committed.values())
    axes.axvspan(down, up, color=RED, alpha=0.12, linewidth=0)
    axes.plot([down], [kill.counted], marker="X", color=RED, markersize=9, linestyle="none")
    axes.plot([up], [committed], marker="o", color=GREEN, markersize=7, linestyle="none")
    axes.annotate(
        f"SIGKILL at {number(kill.counted)};\n{seconds(max(0.0, up - down))} later a new process\n"
        f"goes on from the committed\noffsets ({number(committed)})",
        xy=(down, kill.counted),
        xytext=(0.97, 0.05),
        textcoords="axes fraction",
        horizontalalignment="right",
        arrowprops={"arrowstyle": "-", "color": RED, "linewidth": 0.8},
        size=9,
    )
    axes.set_title("Every event published, and counted by both groups")
    axes.set_xlabel("seconds since the first event was due")
    plotting.label(axes.yaxis, number)
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.legend(loc="upper left")


def _latency(axes: Any, result: Result) -> None:
    curves = [
        (
            f"{group} (killed, then catching up)" if group == result.killed_group else f"{group} (undisturbed)",
            ORANGE if group == result.killed_group else BLUE,
            found,
        )
        for group, found in result.seen.latencies.items()
    ]
    plotting.percentiles(axes, curves)
    axes.set_title("Time from due to subscriber, by percentile")


def _partitions(axes: Any, result: Result) -> None:
    shares = result.skew.partitions
    places = [share.partition for share in shares]
    axes.bar(places, [share.message_share * 100 for share in shares], color=BLUE, width=0.7)
    mean = 100 / max(len(shares), 1)
    axes.axhline(mean, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
    ratio = f"max/mean {result.skew.max_over_mean:.2f} (dashed: mean)"
    axes.text(0.99, 0.97, ratio, transform=axes.transAxes, ha="right", va="top", size=9)
    axes.set_ylim(0, max(mean, *(share.message_share * 100 for share in shares)) * 1.2)
    if len(places) <= 16:
        axes.set_xticks(places)
    plotting.label(axes.yaxis, "{:g} %".format)
    axes.grid(axis="x", visible=False)
    axes.set_title("Skew: share of each partition")
    axes.set_xlabel("partition")


def _keys(axes: Any, result: Result) -> None:
    hottest = list(result.skew.hottest)[::-1]
    axes.barh(range(len(hottest)), [hot.share * 100 for hot in hottest], color=BLUE, height=0.7)
    axes.set_yticks(range(len(hottest)), [_short(key_text(hot.key)) for hot in hottest])
    for place, hot in enumerate(hottest):
        axes.text(hot.share * 100, place, f" {number(hot.messages)} in partition {hot.partition}", va="center", size=9)
    axes.margins(x=0.32)
    plotting.label(axes.xaxis, "{:g} %".format)
    axes.grid(axis="y", visible=False)
    axes.set_title(f"Skew: hottest values of {result.plan.source.key}")


def _answer(axes: Any, group: str, found: Table) -> None:
    if group == DELAYS.group:
        _delays(axes, found)
    elif group == ROUTES.group:
        _routes(axes, found)
    else:
        _counts(axes, group, found)


def _delays(axes: Any, found: Table) -> None:
    means = {name: (dep / max(n_dep, 1), arr / max(n_arr, 1)) for name, (_, n_dep, dep, n_arr, arr) in found.items()}
    names = sorted(means, key=lambda name: -means[name][1])
    places = range(len(names))
    axes.bar([at - 0.2 for at in places], [means[name][0] for name in names], width=0.4, color=GREY, label="departure")
    axes.bar([at + 0.2 for at in places], [means[name][1] for name in names], width=0.4, color=ORANGE, label="arrival")
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.set_xticks(list(places), names)
    axes.grid(axis="x", visible=False)
    axes.set_title("Answer: mean delay per carrier")
    axes.set_ylabel("minutes")
    axes.legend(loc="upper right")


def _routes(axes: Any, found: Table) -> None:
    totals: dict[str, int] = {}
    by_route: dict[str, dict[int, int]] = {}
    for cell, (count,) in found.items():
        month, _, route = cell.partition(" ")
        totals[route] = totals.get(route, 0) + count
        by_route.setdefault(route, {})[int(month)] = count
    best = sorted(totals, key=lambda route: -totals[route])[:5]
    months = sorted({month for counts in by_route.values() for month in counts})
    for route, colour in zip(best, (BLUE, ORANGE, GREEN, RED, GREY), strict=False):
        counts = [by_route[route].get(month, 0) for month in months]
        axes.plot(months, counts, color=colour, marker="o", markersize=4, label=route)
    axes.set_xticks(months)
    axes.set_ylim(bottom=0)
    axes.set_title("Answer: busiest routes by month")
    axes.set_xlabel("month")
    axes.set_ylabel("flights")
    axes.legend(loc="lower right", ncols=2)


def _counts(axes: Any, group: str, found: Table) -> None:
    top = sorted(found.items(), key=lambda item: (-item[1][0], item[0]))[:12][::-1]
    axes.barh(range(len(top)), [numbers[0] for _, numbers in top], color=ORANGE, height=0.7)
    axes.set_yticks(range(len(top)), [_short(cell) for cell, _ in top])
    axes.grid(axis="y", visible=False)
    axes.set_title(f"Answer: records by {'key' if group == 'keys' else 'partition'}")


def _short(text: str) -> str:
    return text if len(text) <= 18 else text[:17] + "…"
