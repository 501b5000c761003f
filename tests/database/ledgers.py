"""Does the database hold each message's effect once and in order? (docs/howto/own-database.md)

Payments of an account are numbered 1, 2, 3, ... by whoever sends them, and sent while services are killed. The table of
entries has no constraint that would hide anything: it must say 1, 2, 3, ... for each account, to the last one sent.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import psycopg

import tidelog
from tests.database.recipes import Bug, recipe
from tidelog.testing import Kills, kill_test

PAGE = "own-database.md"
MODULES = {"sqlite": "ledger", "postgres": "ledger_postgres"}
ACCOUNTS = 11
EFFECT = """\
            for payment in batch.values:
                book(self.db, payment)
"""
CLAIM = {
    "sqlite": "            for partition, end in ends.items():\n",
    "postgres": "            for partition, end in sorted(ends.items()):      # in one order everywhere: no deadlock\n",
}
NEXT_TRANSACTION = {
    "sqlite": "            self.db.execute('COMMIT')\n            self.db.execute('BEGIN IMMEDIATE')\n",
    "postgres": "        with self.db.transaction():\n",
}
SEEK = "            self.consumer.seek((partition, position))\n"
BUGS: dict[str, dict[str, Bug]] = {
    "position in a transaction before": {kind: [(EFFECT, NEXT_TRANSACTION[kind] + EFFECT)] for kind in MODULES},
    "position in a transaction after": {
        kind: [(EFFECT, ""), (CLAIM[kind], EFFECT + NEXT_TRANSACTION[kind] + CLAIM[kind])] for kind in MODULES
    },
    "reads on from the log's own offset": {kind: [(SEEK, "")] for kind in MODULES},
}
NO_FENCE: dict[str, Bug] = {
    "sqlite": [("partition = ? AND next = ?", "partition = ? AND ? >= 0")],
    "postgres": [("partition = %s AND next = %s", "partition = %s AND %s >= 0")],
}


class Bank:
    """A log, a database, and the programs between them."""

    def __init__(self, kind: str, module: Any, folder: Path, conninfo: str) -> None:
        """`conninfo`: of an empty PostgreSQL database, for kind "postgres"."""
        self.kind, self.module = kind, module
        self.url = str(folder / "shop.log")
        self.database = str(folder / "book.db") if kind == "sqlite" else conninfo
        if kind == "postgres":
            module.prepare(self.database)
        else:
            module.connect(self.database).close()
        self.sent = dict.fromkeys((f"account {number}" for number in range(ACCOUNTS)), 0)

    def send(self, log: tidelog.Log, accounts: Sequence[str]) -> None:
        """One more payment for each of these."""
        payments = []
        for account in accounts:
            self.sent[account] += 1
            payments.append(self.module.Payment(account, self.sent[account]))
        log.queue("payments", self.module.Payment).send_many(payments, keys=accounts)

    def query(self, text: str) -> list[tuple[Any, ...]]:
        """What the database answers."""
        if self.kind == "postgres":
            with psycopg.connect(self.database) as server:
                return server.execute(text).fetchall()
        db = sqlite3.connect(self.database)
        try:
            return db.execute(text).fetchall()
        finally:
            db.close()

    def is_booked(self) -> bool:
        """Whether all positions have reached the log's ends."""
        with tidelog.open(self.url) as log:
            payments = log["payments"]
            ends = {number: payments.bounds(number)[1] for number in range(payments.partitions)}
        positions: dict[int, int] = dict(self.query("SELECT partition, next FROM positions"))
        return positions == ends

    def wrong(self) -> list[str]:
        """What is not as it must be."""
        booked: dict[str, list[int]] = {account: [] for account in self.sent}
        for account, cents in self.query("SELECT account, cents FROM entries ORDER BY id"):
            booked[account].append(cents)
        found = []
        for account, numbers in booked.items():
            must = list(range(1, self.sent[account] + 1))
            if numbers != must:
                lost, doubled = sorted(set(must) - set(numbers)), len(numbers) - len(set(numbers))
                found.append(f"{account}: {len(numbers)} of {len(must)} entries, {doubled} twice, lost {lost[:5]}")
        balances = dict(self.query("SELECT account, cents FROM balances"))
        for account, number in self.sent.items():
            if balances.get(account, 0) != number * (number + 1) // 2 and not found:
                found.append(f"{account}: the balance is {balances.get(account)}")
        return found


def or_broken(run: Callable[..., None], *arguments: Any) -> None:
    """Runs a service that may lose its server: it ends then, and is started again."""
    with suppress(psycopg.OperationalError):
        run(*arguments)


def killed(
    kind: str,
    folder: Path,
    conninfo: str,
    *,
    kills: int,
    seed: int = 0,
    bug: Bug = (),
    crash: Callable[[], None] | None = None,
) -> tuple[Kills, Bank, list[str]]:
    """Two services of one group, killed again and again while payments come in. What was wrong afterwards.

    `crash`: crashes the database server and starts it again; called all the time.
    """
    with recipe(PAGE, MODULES[kind], folder, bug) as module:
        bank = Bank(kind, module, folder, conninfo)
        enough = threading.Event()

        def feed() -> None:
            with tidelog.open(bank.url) as log:
                turn = 0
                while not enough.wait(0.002):
                    bank.send(log, [f"account {(turn + step) % ACCOUNTS}" for step in range(1 + turn % 5)])
                    turn += 3

        def crashes() -> None:
            while crash is not None and not enough.wait(0.3):
                crash()

        beside = [threading.Thread(target=feed), threading.Thread(target=crashes)]

        def end() -> None:
            enough.set()
            for thread in beside:
                thread.join()

        def done() -> bool:
            end()
            if bank.is_booked():
                return True
            time.sleep(0.05)
            return False

        for thread in beside:
            thread.start()
        service = partial(or_broken, module.run, bank.database, bank.url)
        functions = [module.Ledger.handle, module.Ledger.resume, module.Ledger.run, module.book]
        try:
            told = kill_test(service, service, kills=kills, lines=functions, until=done, seed=seed, within=0.12)
        finally:
            end()
        return told, bank, bank.wrong()
