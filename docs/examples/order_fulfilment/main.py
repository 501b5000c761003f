"""Runs order fulfilment in several processes, kills one of them midway if asked to, and proves that all is in order.

    python main.py [--orders 240] [--workers 3] [--kill]

Exit code 0: every order was shipped once, or undone completely, and books and crates add up. 1: not so.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

PATIENCE_SECONDS = 60


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--orders", type=int, default=240)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--kill", action="store_true", help="kill a worker midway, as a crash would")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FULFILMENT_FOLDER"] = folder  # read when app.py is imported, here and in the workers
        import app as services

        wanted = prepare(services, args.orders)
        command = [sys.executable, "-m", "tidelog.cli", "run", str(Path(services.__file__)), "--log-level", "error"]
        running = subprocess.Popen([*command, "--workers", str(args.workers)])
        try:
            killed = fulfil(services, wanted, args.kill)
        finally:
            running.terminate()
            running.wait()
        print(f"{len(wanted)} orders, {args.workers} processes, {killed} killed midway")
        wrong = check(services, wanted)
        services.app.log.close()
    for line in wrong:
        print(f"WRONG: {line}")
    print("every order was shipped once or undone completely" if not wrong else f"{len(wrong)} things are wrong")
    return 1 if wrong else 0


def prepare(services, count):
    """The orders, on flights all over the day; there is too little money and there are too few crates for all."""
    flights = services.flights()
    wanted = [
        services.Order(number, row["carrier"], row["origin"], row["dest"], 10 * int(row["distance"]))
        for number, row in list(flights.items())[:: max(len(flights) // count, 1)][:count]
    ]
    services.open_books()
    with services.books() as db:
        for carrier in sorted({order.customer for order in wanted}):
            needed = sum(order.cents for order in wanted if order.customer == carrier)
            services.book(db, "money", carrier, None, needed * 9 // 10)
        for airport, count in Counter(order.origin for order in wanted).items():
            services.book(db, "crates", airport, None, count // 2)
    return wanted


def fulfil(services, wanted, kill):
    """Send the orders and wait until each has come to its end; how many processes were killed."""
    log = services.app.log
    killed = 0
    services.orders.send_many(wanted, keys=[str(order.id) for order in wanted])
    ends = (services.Shipped, services.Declined, services.Refunded)
    ended = set()
    with services.events.tail(start="earliest") as happened:  # looks on, and takes nothing away from the services
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(ended) < len(wanted) and time.monotonic() < deadline:
            for event in happened.receive_many(100, timeout=0.1).values:
                if isinstance(event, ends):
                    ended.add(event.order.id)
            if kill and not killed and len(ended) > len(wanted) // 4:
                os.kill(log.groups["payments"].members[0].pid, signal.SIGKILL)
                killed += 1
    while any(log.groups[name].lag for name in log.groups) and time.monotonic() < deadline:
        time.sleep(0.05)  # what came twice because of the kill is let through too
    return killed


def check(services, wanted):
    """What is wrong, from the books alone: they are only added to, so a thing done twice stands there twice."""
    wrong, outcomes = [], Counter()
    flights = services.flights()
    with services.books() as db:
        lines = db.execute("SELECT book, id, amount FROM books WHERE id IS NOT NULL").fetchall()
        start = dict(db.execute("SELECT book, sum(amount) FROM books WHERE id IS NULL GROUP BY book").fetchall())
    booked = {(book, order.id): [] for book in ("money", "crates", "shipments") for order in wanted}
    for book, number, amount in lines:
        booked[book, number].append(amount)
    for order in wanted:
        money, crates, shipped = (booked[book, order.id] for book in ("money", "crates", "shipments"))
        if shipped:
            fits = (money, crates, shipped) == ([-order.cents], [-1], [1]) and flights[order.id]["dep_time"] != "NA"
        else:
            fits = money in ([], [-order.cents, order.cents]) and crates in ([], [-1, 1]) and not (crates and not money)
        if not fits:
            wrong.append(f"order {order.id}: money {money}, crates {crates}, shipments {shipped}")
        what = "shipped" if shipped else "flight cancelled" if crates else "no crate left" if money else "no money left"
        outcomes[what] += 1
    for what, count in outcomes.most_common():
        print(f"  {count:5} {what}")
    price = {order.id: order.cents for order in wanted}
    gone = [number for (book, number), amounts in booked.items() if book == "shipments" and amounts]
    for book, spent in (("money", sum(price[number] for number in gone)), ("crates", len(gone))):
        left = start[book] + sum(amount for name, _, amount in lines if name == book)
        if left < 0 or left != start[book] - spent:
            wrong.append(f"{book}: {left} left of {start[book]}, and {spent} went with the shipments")
    if len(outcomes) < 4:
        wrong.append(f"not every kind of end was met: {dict(outcomes)}; take more orders")
    log = services.app.log
    if "fulfilment.dead" in log and any(True for _ in log["fulfilment.dead"].scan()):
        wrong.append("there are dead letters: see `tidelog dead`")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
