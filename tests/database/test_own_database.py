"""The recipe of docs/howto/own-database.md: killed, overtaken, and with bugs that must be noticed."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import tidelog
from tests.database import ledgers
from tests.database.cluster import Server
from tests.database.recipes import Bug, recipe

pytestmark = pytest.mark.lane
KINDS = ("sqlite", "postgres")
Make = Callable[[str], str]
KILLS = 100


@pytest.mark.parametrize("kind", KINDS)
def test_killed_again_and_again(kind: str, tmp_path: Path, conninfo: Make) -> None:
    told, bank, wrong = ledgers.killed(kind, tmp_path, conninfo(kind), kills=KILLS)
    print(f"\n{told}\n{sum(bank.sent.values())} payments")
    assert wrong == []
    assert told.kills >= KILLS
    handled = [name for name in told.at if re.match(r"handle:\d+", name)]
    assert len(handled) >= 8, "the lines between position, effect and commit"
    assert told.at["anywhere"] >= KILLS // 4


def test_the_server_crashes_too(tmp_path: Path, conninfo: Make, server: Server) -> None:
    crashes = 0

    def crash() -> None:
        nonlocal crashes
        crashes += 1
        server.crash()
        server.start()

    told, bank, wrong = ledgers.killed("postgres", tmp_path, conninfo("postgres"), kills=40, crash=crash)
    print(f"\n{told}\n{sum(bank.sent.values())} payments, {crashes} crashes of the server")
    assert wrong == []
    assert crashes >= 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bug", ledgers.BUGS)
def test_a_bug_is_noticed(bug: str, kind: str, tmp_path: Path, conninfo: Make) -> None:
    for seed in range(6):  # most are noticed at once
        told, _, wrong = ledgers.killed(
            kind, tmp_path / str(seed), conninfo(kind), kills=20, seed=seed, bug=ledgers.BUGS[bug][kind]
        )
        if wrong:
            return
    pytest.fail(f"{bug} was not noticed, in the end by {told}")


def overtaken(kind: str, folder: Path, conninfo: str, first: str, bug: Bug = ()) -> list[str]:
    """An owner has payments in hand and is slow; another one takes its partitions, and has the same payments in hand.
    `first`: who writes first, "old" or "new"; the other one must write nothing. What was wrong in the end."""
    with recipe(ledgers.PAGE, ledgers.MODULES[kind], folder, bug) as module:
        bank = ledgers.Bank(kind, module, folder, conninfo)
        written: dict[str, bool] = {}

        def write(who: str, ledger: Any, batch: Any) -> None:
            try:
                ledger.handle(batch)
                written[who] = True
            except module.Overtaken:
                written[who] = False
                ledger.resume([("payments", partition) for partition in batch.ends()])

        with (
            tidelog.open(bank.url) as log,
            closing(module.connect(bank.database)) as one,
            closing(module.connect(bank.database)) as other,
        ):
            log.queue("payments", module.Payment, partitions=1)
            bank.send(log, list(bank.sent))
            old = module.Ledger(one, log, max_processing=0.2)
            of_old = old.consumer.receive_many(5, timeout=5)
            assert len(of_old) == 5
            new = module.Ledger(other, log, max_processing=60)
            of_new = new.consumer.receive_many(5, timeout=10)  # as soon as the old one is overdue
            assert list(of_new.offsets) == list(of_old.offsets)
            turns = [("old", old, of_old), ("new", new, of_new)]
            for turn in turns if first == "old" else reversed(turns):
                write(*turn)
            if not bug:
                assert written == {"old": first == "old", "new": first == "new"}
            for who, ledger in (("new", new), ("old", old)):
                while batch := ledger.consumer.receive_many(500, timeout=0.3):
                    write(who, ledger, batch)
            assert bank.is_booked()
        return bank.wrong()


@pytest.mark.parametrize("first", ["old", "new"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_old_owner_that_wakes_up(kind: str, first: str, tmp_path: Path, conninfo: Make) -> None:
    assert overtaken(kind, tmp_path, conninfo(kind), first) == []


@pytest.mark.parametrize("first", ["old", "new"])
@pytest.mark.parametrize("kind", KINDS)
def test_without_the_fence_it_is_noticed(kind: str, first: str, tmp_path: Path, conninfo: Make) -> None:
    assert overtaken(kind, tmp_path, conninfo(kind), first, ledgers.NO_FENCE[kind])
