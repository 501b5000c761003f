"""Asks several processes for prices and distances, from asyncio, and checks every answer.

    python main.py [--questions 150] [--workers 2] [--kill]

Exit code 0: every question got exactly the answers that the data gives. 1: not so. With --kill one of the responding
processes is killed midway.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import tidelog

PATIENCE_SECONDS = 40
AT_ONCE = 16


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=150)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kill", action="store_true", help="kill a worker midway, as a crash would")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["QUOTES_FOLDER"] = folder  # read when app.py is imported, here and in the workers
        import app as sellers

        command = [sys.executable, "-m", "tidelog.cli", "run", str(Path(sellers.__file__)), "--log-level", "error"]
        running = subprocess.Popen([*command, "--workers", str(args.workers)])
        try:
            wrong = asyncio.run(ask_all(sellers, args.questions, args.kill))
        finally:
            running.terminate()
            running.wait()
    for line in wrong:
        print(f"WRONG: {line}")
    print("every question was answered as it should be" if not wrong else f"{len(wrong)} answers are wrong")
    return 1 if wrong else 0


async def ask_all(sellers, count, kill):
    """What is wrong with the answers."""
    miles, _ = sellers.timetable()
    places = sorted(miles)
    asked = [sellers.Request(*places[number % len(places)], 1 + number % 12) for number in range(count)]
    async with tidelog.aio.open(sellers.FOLDER / "log") as log:
        requests = await log.topic("requests", sellers.Request, reply=sellers.Quote)
        routes = await log.queue("routes", sellers.Route, reply=sellers.Distance)
        # The first questions wait in the channels until the responders have come up.
        room = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(prices(sellers, requests, one, room)) for one in asked]
            tasks += [group.create_task(distance(sellers, routes, one, room)) for one in (*places, ("JFK", "MOON"))]
            if kill:
                while sum(task.done() for task in tasks) < len(tasks) // 2:
                    await asyncio.sleep(0.01)
                responders = await log.call(log.groups.__getitem__, sellers.CARRIERS[0])
                os.kill(responders.members[0].pid, signal.SIGKILL)
                print("one responder killed")
        wrong = [line for task in tasks for line in task.result()]
        cheapest = await first_offer(sellers, requests)
        late = await nobody(sellers, requests)
        print(f"{count} requests for prices, {len(places) + 1} for distances; first offer {cheapest}; {late}")
        return wrong


async def prices(sellers, requests, wanted, room):
    """Ask all carriers. This asker knows how many will answer, so it ends at the last one and not at the time-out."""
    right = {
        carrier: cents if wanted.seats <= sellers.SEATS else "TooManySeats"
        for carrier in sellers.CARRIERS
        if (cents := sellers.price(carrier, wanted)) is not None
    }
    got = {}
    if not right:
        return []
    async with room, requests.ask(wanted, key=wanted.dest, timeout=PATIENCE_SECONDS) as replies:
        async for message in replies:
            try:
                got[message.value.carrier] = message.value.cents  # the same answer may come twice after a crash
            except tidelog.ReplyError as error:
                got[error.text.partition(" ")[0]] = error.kind
            if len(got) == len(right):
                break
    return [] if got == right else [f"{wanted}: {got}, and the data says {right}"]


async def distance(sellers, routes, place, room):
    """Ask for one answer."""
    miles = sellers.timetable()[0]
    async with room:
        message = await routes.ask_one(sellers.Route(*place), key=place[1], timeout=PATIENCE_SECONDS)
    try:
        answer = message.value.miles
    except tidelog.ReplyError as error:
        answer = error.kind
    right = miles.get(place, "UnknownRoute")
    return [] if answer == right else [f"{place}: {answer}, and the data says {right}"]


async def first_offer(sellers, requests):
    """`limit=1`: whoever is first gets the deal; the others' answers are dropped."""
    async with requests.ask(sellers.Request("JFK", "LAX", 2), limit=1, timeout=PATIENCE_SECONDS) as replies:
        async for message in replies:
            return f"{message.value.carrier} {message.value.cents / 100:.2f}"
    return "none"


async def nobody(sellers, requests):
    """Nobody flies there: after the time-out there are simply no answers."""
    async with requests.ask(sellers.Request("JFK", "MOON", 1), timeout=0.3) as replies:
        return f"{len([message async for message in replies])} offers for the moon"


if __name__ == "__main__":
    sys.exit(main())
