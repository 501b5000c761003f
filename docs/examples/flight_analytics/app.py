"""How are figures kept up to date from a stream of events, so that each event counts exactly once?

Two groups read the same topic of flights, each in its own time: `delays` adds up delays by carrier, `routes` counts
flights by route. A third turns very late flights into alerts, a topic of their own. Run it: `tidelog run app.py
--workers 2`, or main.py beside it.

The figures and the place up to which they count stand in one database, and change in one transaction. After a crash a
batch may come again; what the place says is counted already is left out. So each flight counts once.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
import numpy as np

import tidelog

FOLDER = Path(os.environ.get("ANALYTICS_FOLDER", "analytics"))
LATE_MINUTES = 300

Flight = np.dtype(
    [
        ("row", "<i4"),  # its line in the file
        ("carrier", "S2"),
        ("origin", "S3"),
        ("dest", "S3"),
        ("dep_delay", "<f4"),  # minutes; NaN: it never left
        ("distance", "<i4"),
    ]
)


class Alert(msgspec.Struct):
    """A flight that left more than LATE_MINUTES late."""

    row: int
    carrier: str
    route: str
    minutes: int


app = tidelog.App("flight-analytics", url=FOLDER / "log", version="1.0.0", description="Figures about flights.")
flights = app.topic("flights", Flight, partitions=4)
alerts = app.topic("alerts", Alert)


@app.on(flights, group="delays", batch=5000)
def delays(batch: tidelog.Batch[np.void]) -> None:
    """Flights, flights that left, and minutes of delay, by carrier."""
    with counting("delays", batch) as (db, rows):
        carriers, which = np.unique(rows["carrier"], return_inverse=True)
        left = ~np.isnan(rows["dep_delay"])
        minutes = np.where(left, rows["dep_delay"], 0)
        figures = (np.bincount(which), np.bincount(which, left), np.bincount(which, minutes))
        add(db, "delays", carriers, zip(*figures, strict=True))


@app.on(flights, group="routes", batch=5000)
def routes(batch: tidelog.Batch[np.void]) -> None:
    """Flights and miles, by route."""
    with counting("routes", batch) as (db, rows):
        names = np.char.add(np.char.add(rows["origin"], b"-"), rows["dest"])
        names, which = np.unique(names, return_inverse=True)
        figures = (np.bincount(which), np.bincount(which, rows["distance"]), np.zeros(len(names)))
        add(db, "routes", names, zip(*figures, strict=True))


@app.on(flights, group="alerts", sends=alerts, key=lambda alert: alert.carrier)
def watch(message: tidelog.Message[np.void]) -> Alert | None:
    """What it returns is sent under an id made of the flight's place in the log: sent twice, it has the same id."""
    flight = message.value
    if not flight["dep_delay"] > LATE_MINUTES:
        return None
    carrier, origin, dest = (flight[name].decode() for name in ("carrier", "origin", "dest"))
    return Alert(int(flight["row"]), carrier, f"{origin}-{dest}", int(flight["dep_delay"]))


# --- the figures ---


@contextmanager
def figures() -> Iterator[sqlite3.Connection]:
    """One transaction: all of it, or nothing."""
    with closing(sqlite3.connect(FOLDER / "figures.sqlite", timeout=30, isolation_level=None)) as db:
        db.execute("PRAGMA synchronous=OFF")  # survives the death of the process, as a message that was sent does
        db.execute("BEGIN IMMEDIATE")
        yield db
        db.execute("COMMIT")


@contextmanager
def counting(group: str, batch: tidelog.Batch[np.void]) -> Iterator[tuple[sqlite3.Connection, np.ndarray]]:
    """The rows of a batch that do not count yet; when the block ends they do."""
    with figures() as db:
        places = dict(db.execute("SELECT part, next FROM places WHERE name = ?", (group,)).fetchall())
        partitions, offsets = batch.partitions, batch.offsets
        new = np.ones(len(batch), bool)
        for part in np.unique(partitions):
            mine = partitions == part
            new &= ~mine | (offsets >= places.get(int(part), 0))
            after = max(int(offsets[mine].max()) + 1, places.get(int(part), 0))
            db.execute("INSERT OR REPLACE INTO places VALUES (?, ?, ?)", (group, int(part), after))
        yield db, batch.values[new]


def add(db: sqlite3.Connection, name: str, labels: Iterable[bytes], numbers: Iterable[tuple[float, ...]]) -> None:
    """Add to the three sums of each label."""
    rows = [(name, label.decode(), *map(float, sums)) for label, sums in zip(labels, numbers, strict=True)]
    db.executemany(
        "INSERT INTO sums VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
        "a = a + excluded.a, b = b + excluded.b, c = c + excluded.c",
        rows,
    )


@app.before_start
def open_figures() -> None:
    """Makes the tables, once."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with figures() as db:
        db.execute("CREATE TABLE IF NOT EXISTS sums (name, label, a, b, c, PRIMARY KEY (name, label))")
        db.execute("CREATE TABLE IF NOT EXISTS places (name, part, next, PRIMARY KEY (name, part))")
