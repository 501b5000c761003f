"""Is every row of the outbox in the log, once and in order? (docs/howto/outbox.md)

Applications place orders, each customer's numbered 1, 2, 3, ... by the database, while they and the relay are killed.
The numbers of each customer, as they stand in the log, must be 1, 2, 3, ... up to what the database says.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import psycopg

import tidelog
from tests.database.recipes import Bug, recipe
from tidelog.testing import Kills, kill_test

PAGE = "outbox.md"
MODULES = {"sqlite": "shop_outbox", "postgres": "shop_outbox_postgres"}
CUSTOMERS = 4
RELAYS = 2
"""One would do; two at once must do no harm."""
APPLICATIONS = {"sqlite": 1, "postgres": 2}
PAUSE_S = 0.002

SEND = {
    "sqlite": """\
    for _, id, channel, key, value in rows:
        log[channel].send(value, key=key, id=id)      # without a type a channel takes the bytes as they are
""",
    "postgres": """\
        for _, id, channel, key, value in rows:
            log[channel].send(value, key=key, id=id)  # without a type a channel takes the bytes as they are
""",
}
DELETE = {
    "sqlite": """\
    if rows:
        log.sync()                                    # on the disk, before the only other copy goes
        with db:
            db.execute("BEGIN IMMEDIATE")
            db.executemany("DELETE FROM outbox WHERE seq = ?", [(seq,) for seq, *_ in rows])
""",
    "postgres": """\
        if rows:
            log.sync()                                # on the disk, before the only other copy goes
            db.execute("DELETE FROM outbox WHERE seq = ANY(%s)", ([seq for seq, *_ in rows],))
""",
}
# The page's deletion and the sending are in one transaction there; a relay that deletes first commits it first.
COMMITTED = {"sqlite": "", "postgres": "    if rows:\n"}
NEXT_TRANSACTION = {
    "sqlite": "        db.execute('COMMIT')\n        db.execute('BEGIN IMMEDIATE')\n",
    "postgres": "    with db.transaction():\n",
}
EVENT = "        event = msgspec"
PLACING = "    with db.transaction():\n        (number,) = db"
NUMBERED = """\
    with db.transaction():
        (seq,) = db.execute("SELECT nextval('outbox_seq_seq')").fetchone()
        time.sleep(seq % 3 * 0.004)
        (number,) = db"""
SLOW: dict[str, Bug] = {
    "sqlite": [],
    "postgres": [("row)\n    return number", "row)\n        time.sleep(0.012 * (number % 4 == 0))\n    return number")],
}
"""No bug: some transactions take long, so that many are committed in another order than they were numbered."""
TWO_TRANSACTIONS = "change and row in two transactions"
BUGS: dict[str, tuple[str, dict[str, Bug]]] = {
    "rows without ids": ("twice", {kind: [("key=key, id=id)", "key=key)")] for kind in MODULES}),
    "ids made by the relay": ("twice", {kind: [("key=key, id=id)", "key=key, id=uuid4().hex)")] for kind in MODULES}),
    "deletes before it sends": (
        "lost",
        {kind: [(DELETE[kind], ""), (SEND[kind], DELETE[kind] + COMMITTED[kind] + SEND[kind])] for kind in MODULES},
    ),
    TWO_TRANSACTIONS: (
        "lost",
        {kind: [(EVENT, NEXT_TRANSACTION[kind] + EVENT)] for kind in MODULES},
    ),
    "deletes up to the last row": (
        "lost",
        {
            "postgres": [
                ("seq = ANY(%s)", "seq <= %s"),
                ("([seq for seq, *_ in rows],)", "(rows[-1][0],)"),
                ("            log[channel].send(", "            time.sleep(0.005)\n            log[channel].send("),
            ]
        },
    ),
    "takes a number before the lock": (
        "out of order",
        {
            "postgres": [
                (PLACING, NUMBERED),
                ("row = (uuid4().hex", "row = (seq, uuid4().hex"),
                (
                    "(id, channel, key, value) VALUES (",
                    "(seq, id, channel, key, value) OVERRIDING SYSTEM VALUE VALUES (%s, ",
                ),
            ]
        },
    ),
}
"""Each with the harm that it does, for each kind of database in which there is such a bug."""
OF_MANY_AT_ONCE = ("deletes up to the last row", "takes a number before the lock")
"""Bugs that do harm when transactions overlap, whoever is killed."""


def shop(module: Any, database: str, seed: int, closing: str) -> None:
    """The application: places orders, until the file `closing` is there."""
    rng = random.Random(f"{seed} {time.monotonic_ns()}")
    db = module.connect(database)
    while not Path(closing).exists():
        module.place(db, f"customer {rng.randrange(CUSTOMERS)}")
        time.sleep(PAUSE_S)
    db.close()
    time.sleep(60)  # as a service without work; killed at the end


def shop_of(name: str, *arguments: Any) -> None:
    """`shop` with the module of this name: a module itself does not go to another process."""
    import importlib

    shop(importlib.import_module(name), *arguments)


def killed(
    kind: str,
    folder: Path,
    conninfo: str,
    *,
    kills: int,
    seed: int = 0,
    bug: Bug = (),
    lines: Sequence[str] = ("place", "relay_some", "relay"),
    orders: int = 200,
) -> tuple[Kills, int, list[str]]:
    """Applications and relays, killed again and again. How many orders there were, and what was wrong afterwards.

    `lines`: the functions that are killed at their lines. `orders`: at least so many, the last of them after the kills.
    """
    with recipe(PAGE, MODULES[kind], folder, [*SLOW[kind], *bug]) as module:
        url, closing = str(folder / "shop.log"), folder / "closing"
        database = str(folder / "shop.db") if kind == "sqlite" else conninfo
        if kind == "postgres":
            module.prepare(database)
        else:
            module.connect(database).close()
        with tidelog.open(url) as log:
            log.topic("placed", module.Placed, partitions=3)

        def done() -> bool:
            if query(kind, database, "SELECT coalesce(sum(orders), 0) FROM customers")[0][0] < orders:
                time.sleep(0.05)
                return False
            if not closing.exists():
                closing.touch()
                time.sleep(0.2)  # who was placing an order is done with it
            time.sleep(0.05)
            return query(kind, database, "SELECT count(*) FROM outbox") == [(0,)]

        apps = [
            partial(shop_of, module.__name__, database, number, str(closing)) for number in range(APPLICATIONS[kind])
        ]
        functions = [getattr(module, name) for name in lines]
        relays = [partial(module.relay, database, url)] * RELAYS
        told = kill_test(*relays, *apps, kills=kills, lines=functions, until=done, seed=seed, within=0.12)
        must = {name: list(range(1, orders + 1)) for name, orders in query(kind, database, "SELECT * FROM customers")}
        return told, sum(map(len, must.values())), wrong(url, must)


def query(kind: str, database: str, text: str) -> list[tuple[Any, ...]]:
    """What the database answers."""
    if kind == "postgres":
        with psycopg.connect(database) as server:
            return server.execute(text).fetchall()
    db = sqlite3.connect(database)
    try:
        return db.execute(text).fetchall()
    finally:
        db.close()


def wrong(url: str, must: dict[str, list[int]]) -> list[str]:
    """How the log differs from what was committed."""
    found: dict[str, list[int]] = {name: [] for name in must}
    with tidelog.open(url) as log:
        for message in log["placed"].scan():
            placed = msgspec.json.decode(message.value)
            assert message.key == placed["customer"].encode()
            found.setdefault(placed["customer"], []).append(placed["number"])
    problems = []
    for name, numbers in found.items():
        once, made = list(dict.fromkeys(numbers)), must.get(name, [])
        harm = {
            "twice": len(numbers) - len(once),
            "lost": len(set(made) - set(once)),
            "never committed": len(set(once) - set(made)),
            "out of order": sum(later < earlier for earlier, later in pairwise(once)),
        }
        problems += [f"{name}: {many} of {len(made)} {what}" for what, many in harm.items() if many]
    return problems
