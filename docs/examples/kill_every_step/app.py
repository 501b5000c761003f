"""Which handlers survive a kill at any step: four that look alike, and two of them are right?

    tidelog chaos docs/examples/kill_every_step/app.py --expect exactly-once

bill     right: the bill and the number of its order are written in one transaction of the database; an order that is
         there already is left alone
charge   wrong: what the bank does is done again when the process dies between the charge and the commit
ship     wrong: delivery="at-most-once" commits first, so what is in hand at a kill is never shipped
confirm  right: delivery="exactly-once" commits its message and sends the letter in one transaction of the log
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import msgspec

import tidelog
from tidelog.testing import effect


class Order(msgspec.Struct):
    """What a customer wants."""

    id: int
    sku: str
    cents: int


app = tidelog.App("shop", url="shop.log")
orders = app.topic("orders", Order, partitions=2)


@app.before_start
def make_tables() -> None:
    """The path is relative: under `tidelog chaos` it is a file of the run's own."""
    with closing(sqlite3.connect("bills.sqlite")) as db, db:
        db.execute("CREATE TABLE IF NOT EXISTS bills (id INTEGER PRIMARY KEY, cents)")


@app.on(orders, group="billing")
def bill(order: Order) -> None:
    """Writes a bill, once for each order."""
    with closing(sqlite3.connect("bills.sqlite")) as db, db:
        db.execute("INSERT OR IGNORE INTO bills VALUES (?, ?)", (order.id, order.cents))


@app.on(orders, group="payment")
def charge(order: Order) -> None:
    """Has the bank take the money."""
    ask_the_bank(order)
    effect("charge", order.id)


@app.on(orders, group="shipping", delivery="at-most-once")
def ship(order: Order) -> None:
    """Has the parcel collected."""
    call_the_carrier(order)
    effect("ship", order.id)


@app.on(orders, group="letters", sends="letters", delivery="exactly-once")
def confirm(order: Order) -> str:
    """Sends a letter."""
    return f"Thank you for order {order.id}."


def ask_the_bank(order: Order) -> None:
    """Stands for a call of another company's service."""


def call_the_carrier(order: Order) -> None:
    """The same."""


def chaos_effects() -> Iterator[tuple[object, ...]]:
    """What `tidelog chaos` is to count, beside what `effect` tells: the bills, as the database has them."""
    with closing(sqlite3.connect("bills.sqlite")) as db:
        for order, cents in db.execute("SELECT id, cents FROM bills"):
            yield "bill", order, cents
