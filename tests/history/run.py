"""Do real processes keep every promise while they are killed, stopped, forked, fenced and out of space?

`python tests/history/run.py [--seconds S] [--kills N] [--stops N] [--rebalances N] [--operations N] [--transactions N]
[--seed N] [--runs N]`

Producers and groups of consumers work on one store, in every delivery mode (worker.py says who does what), others copy
in transactions, fight for the names of producers, and send again what has an id (exactly.py); a nemesis deals out
events (nemesis.py). Each process records what it does (tidelog.testing); at the end everything that the store holds is
read, and `check` judges the whole history. The run fails on an anomaly, on a process that ended as it should not, on a
group that is not done at the end, on a message that was not copied once, and when a number that was asked for is not
reached.

With root the store stands on a small tmpfs that is really full now and then; without root nothing is ever full, and
that is said. Imports tests.power.mounts, the tests' own modules and tidelog.

Exit codes: 0; 1 a promise is broken, or a number was not reached; 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import numpy as np

from tests.history import bugs
from tests.history.exactly import identify
from tests.history.nemesis import Crew, Nemesis
from tests.history.scoreboard import Count, Phase, Scoreboard
from tests.history.worker import MODES, ROLES, SEGMENT_BYTES, Life, Role
from tests.power import mounts
from tidelog.log import open as open_log
from tidelog.testing.history import History, Kind, Status
from tidelog.testing.judge import check
from tidelog.testing.recorder import Recorder, load
from tidelog.testing.recording import read_to_the_end
from tidelog.testing.stories import AnomalyFound

STORE_MEBIBYTES = 640
MESSAGES_PER_OPERATION = 0.16  # so that more than the operations asked for are made
CHANNELS = {
    "jobs": ("queue", 4),
    "events": ("topic", 4),
    "ticks": ("topic", 2),
    "moves": ("topic", 4),
    "copied": ("topic", 4),
    "notes": ("topic", 2),
}


def rebalances(history: History) -> int:
    """Moments at which partitions of a live group moved: calls in which a consumer gained or lost some."""
    rows = history.rows
    moved = rows[np.isin(rows["kind"], (Kind.ASSIGN, Kind.REVOKE, Kind.LOST))]
    # What one call brought or took is told row by row, within moments, by one client.
    order = np.lexsort((moved["begin"], moved["kind"], moved["client"]))
    moved = moved[order]
    apart = np.ones(moved.size, bool)
    apart[1:] = (
        (moved["client"][1:] != moved["client"][:-1])
        | (moved["kind"][1:] != moved["kind"][:-1])
        | (moved["begin"][1:] - moved["begin"][:-1] > 5_000_000)
    )
    return int(apart[moved["kind"] == Kind.ASSIGN].sum())


def recorded(place: Path, arguments: argparse.Namespace, *, fills: bool) -> tuple[History, Nemesis, list[str]]:
    """Runs everything; answers the history, what was done to it, and what went wrong beside the history."""
    store, records = place / "store" / "run.log", place / "records"
    records.mkdir()
    with open_log(store, segment_bytes=SEGMENT_BYTES) as log:
        for name, (kind, partitions) in CHANNELS.items():
            getattr(log, kind)(name, partitions=partitions)
    board = Scoreboard()

    senders = sum(role.group is None for role in ROLES)

    def life(role: Role, slot: int, number: int) -> Life:
        pace = arguments.operations * MESSAGES_PER_OPERATION / arguments.seconds / senders
        return Life(role, slot, number, arguments.seed, store, records, board, pace, arguments.bug)

    crew = Crew(ROLES, life, board)
    nemesis = Nemesis(crew, board, store, arguments.seed, fills=fills)
    for slot in range(len(ROLES)):
        crew.start(slot)
    wanted = {
        "kill": arguments.kills,
        "stop": arguments.stops,
        "fork": arguments.forks * 2,  # some are killed before they do it
        "storm": max(arguments.rebalances // 8, 1),
        "full": arguments.full,
    }
    nemesis.run(
        arguments.seconds,
        wanted,
        lambda: (
            board.total(Count.CALLS) >= arguments.operations * 1.1
            and board.total(Count.COMMITTED) >= arguments.transactions * 1.1
        ),
        arguments.seconds * 1.6 + 10,
    )
    board.phase = Phase.FINISH
    if not crew.wrong:
        crew.end([slot for slot, role in enumerate(ROLES) if role.group is None], 20)
    board.phase = Phase.PASS_ON
    if not crew.wrong:
        crew.end([slot for slot, role in enumerate(ROLES) if role.work == "copy"], 60)
    board.phase = Phase.DRAIN
    if not crew.wrong:
        crew.end([slot for slot, role in enumerate(ROLES) if role.group is not None], 60)
    for slot in list(crew.pids):
        crew.kill(slot)
    wrong = crew.wrong
    errors = records / "errors"
    if errors.exists():
        wrong.append(errors.read_text())
    if forks := board.total(Count.FORKS_WRONG):
        wrong.append(f"{forks} forked children could use a handle of their parent, or failed to refuse")
    with open_log(store) as log:
        end = Recorder(records / "end", process="end")
        for name in CHANNELS:
            read_to_the_end(end, log[name], identify=identify)
        asking = {group: end.client("asks", group=group, mode=mode) for group, mode in MODES.items()}
        for row in log.offsets():
            # As if one more consumer began here: no commit may be forgotten, and none may be there that nobody made.
            end.row(
                Kind.ASSIGN,
                asking[row.group],
                channel=end.channel(row.channel),
                partition=row.partition,
                offset=row.offset,
            )
            if row.lag:
                wrong.append(f"lag: {row.group} is not done with {row.channel}/{row.partition}: {row.lag} left")
    for column in Count:
        nemesis.counts[column.name.lower().replace("_", " ")] = board.total(column)
    return load(records), nemesis, wrong


def not_copied(history: History) -> list[str]:
    """What the copies say: each value of `moves` is in `copied` once, and nothing else is. (Counted here by hand,
    beside what `check` says of groups and transactions.)"""
    rows = history.rows
    finals = rows[rows["kind"] == Kind.FINAL]
    there = rows[(rows["kind"] == Kind.POLL) & np.isin(rows["client"], finals["client"])]
    moves, copied = (
        np.sort(there["value"][there["channel"] == history.channels.index(name)]) for name in ("moves", "copied")
    )
    if moves.size and np.array_equal(moves, copied):
        return []
    missing, strange = np.setdiff1d(moves, copied), np.setdiff1d(copied, moves)
    told = (
        f"{missing.size} are not copied {missing[:5].tolist()}, {strange.size} copies of nothing {strange[:5].tolist()}"
    )
    return [f"copies: {moves.size} moves and {copied.size} copies: {told}"]


def judge(history: History, nemesis: Nemesis, wrong: list[str], arguments: argparse.Namespace) -> list[str]:
    """Prints the counts; answers what is wrong."""
    counts = nemesis.counts
    done = {
        "operations": len(history),
        "kills": counts["kill"],
        "stops": counts["stop"],
        "rebalances": rebalances(history),
        "forks": counts["forks"],
        "full": counts["full"],
    }
    committed = history.rows[(history.rows["kind"] == Kind.TXN) & (history.rows["status"] == Status.OK)].size
    done["transactions"] = int(committed)
    rows = history.counts()
    print(
        f"history: {done['operations']:,} operations ({rows.get('send', 0):,} messages sent, {rows.get('poll', 0):,} "
        f"received, {rows.get('commit', 0):,} commits), {done['kills']} kills ({counts['all killed']} times all), "
        f"{done['stops']} stops, {done['rebalances']} rebalances, {done['forks']} forks, {done['full']} full disks "
        f"({counts['no space']} calls refused), {counts['fenced']} fenced, {counts['raised']} handlers failed, "
        f"{counts['opened']} consumers; {rows.get('txn', 0):,} transactions ({committed:,} committed, "
        f"{counts['aborted']:,} given up), {counts['zombies']} zombies, {counts['repeated']:,} repetitions"
    )
    for name, count in done.items():
        least = getattr(arguments, name)
        if count < least and not arguments.bug:
            wrong.append(f"{count} {name}, of {least} that were asked for")
    wrong += not_copied(history)
    began = time.monotonic()
    try:
        check(history, duplicates=MODES, idempotent=True)
    except AnomalyFound as found:
        wrong.append(str(found))
    print(f"history: checked in {time.monotonic() - began:.1f} s")
    return wrong


def main(argv: list[str] | None = None) -> int:
    """0, or an exit code of the module's first comment."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=65)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--stops", type=int, default=50)
    parser.add_argument("--rebalances", type=int, default=100)
    parser.add_argument("--forks", type=int, default=10)
    parser.add_argument("--full", type=int, default=5)
    parser.add_argument("--operations", type=int, default=1_000_000)
    parser.add_argument("--transactions", type=int, default=50_000)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    parser.add_argument("--bug", choices=["", *bugs.BUGS], default="", help="a mistake that the run must find")
    parser.add_argument("--keep", action="store_true", help="keep the records of a run that failed")
    arguments = parser.parse_args(argv)
    fills = os.geteuid() == 0
    if fills:
        mounts.enter_namespace()
    else:
        print("history: without root no disk is ever full")
        arguments.full = 0
    for number in range(arguments.runs):
        if number:
            arguments.seed += 1
        print(f"history: seed {arguments.seed}", flush=True)
        began = time.monotonic()
        wrong = one_run(arguments, fills=fills)
        print(f"history: {time.monotonic() - began:.0f} s, {'FAILED' if wrong else 'no promise broken'}", flush=True)
        if wrong:
            print("\n".join(wrong), file=sys.stderr)
            print(
                f"again: tests/history/run.py --seconds {arguments.seconds:g} --seed {arguments.seed}", file=sys.stderr
            )
            return 1
    return 0


def one_run(arguments: argparse.Namespace, *, fills: bool) -> list[str]:
    """What went wrong in one run."""
    base = "/dev/shm" if os.path.isdir("/dev/shm") and shutil.disk_usage("/dev/shm").free > 2 << 30 else None
    place = Path(tempfile.mkdtemp(prefix="tidelog-history-", dir=base))
    kept = False
    try:
        (place / "store").mkdir()
        if fills:
            command = ["mount", "-t", "tmpfs", "-o", f"size={STORE_MEBIBYTES}m", "tmpfs", str(place / "store")]
            subprocess.run(command, check=True)
        try:
            history, nemesis, wrong = recorded(place, arguments, fills=fills)
            wrong = judge(history, nemesis, wrong, arguments)
            kept = bool(wrong) and arguments.keep
            if kept:
                print(f"history: records and store are in {place}")
                if fills:
                    shutil.copytree(place / "store", place / "store-kept")
            return wrong
        finally:
            if fills:
                # A store that was open once stays mapped: this process is in it until it ends.
                subprocess.run(["umount", "-l", str(place / "store")], check=True)
    finally:
        if not kept:
            shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
