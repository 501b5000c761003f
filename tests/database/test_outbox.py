"""The recipe of docs/howto/outbox.md: killed, and with bugs that must be noticed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.database import outboxes
from tidelog.testing import KillTestFailed

pytestmark = pytest.mark.lane
Make = Callable[[str], str]
KILLS = 100


@pytest.mark.parametrize("kind", outboxes.MODULES)
def test_killed_again_and_again(kind: str, tmp_path: Path, conninfo: Make) -> None:
    told, orders, wrong = outboxes.killed(kind, tmp_path, conninfo(kind), kills=KILLS)
    print(f"\n{told}\n{orders} orders")
    assert wrong == []
    assert told.kills >= KILLS
    relayed = [name for name in told.at if re.match(r"relay_some:\d+", name)]
    assert len(relayed) >= 6, "the lines between reading, sending, syncing and deleting"
    assert told.at["anywhere"] >= KILLS // 4


@pytest.mark.parametrize(
    ("bug", "kind"), [(bug, kind) for bug, (_, kinds) in outboxes.BUGS.items() for kind in kinds], ids=str
)
def test_a_bug_is_noticed(bug: str, kind: str, tmp_path: Path, conninfo: Make) -> None:
    harm, kinds = outboxes.BUGS[bug]
    lines = ["place"] if bug == outboxes.TWO_TRANSACTIONS else ["relay_some"]
    kills, enough = (5, 300) if bug in outboxes.OF_MANY_AT_ONCE else (25, 50)
    seen = "nothing"
    for seed in range(6):  # most are noticed at once
        try:
            told, orders, wrong = outboxes.killed(
                kind,
                tmp_path / str(seed),
                conninfo(kind),
                kills=kills,
                seed=seed,
                bug=kinds[kind],
                lines=lines,
                orders=enough,
            )
        except KillTestFailed as failed:
            # Who deletes rows that another relay has locked may also wait for it while that one waits in turn, and the
            # database ends one of them. That is no harm yet: another run has to show it.
            if "deadlock detected" not in str(failed):
                raise
            seen = "a deadlock"
            continue
        seen = f"{told}, with {orders} orders: {wrong}"
        if any(harm in problem for problem in wrong):
            return
    pytest.fail(f"{bug} was not noticed, in the end by {seen}")
