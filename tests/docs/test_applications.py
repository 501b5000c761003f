"""Do the complete applications in docs/examples run to their end, killed processes included, and would they notice if
something were wrong?

Each main.py judges itself against an oracle of its own (books that are only added to, the file row by row, the data).
So it is run as a reader would run it, and its checks are shown results that are wrong.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import tidelog

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "docs" / "examples"
RUNS = {
    "order_fulfilment": ["--orders", "100", "--workers", "2", "--kill"],
    "flight_analytics": ["--flights", "40000", "--workers", "2", "--kill"],
    "price_quotes": ["--questions", "60", "--workers", "2", "--kill"],
}
FOLDERS = {
    "order_fulfilment": "FULFILMENT_FOLDER",
    "flight_analytics": "ANALYTICS_FOLDER",
    "price_quotes": "QUOTES_FOLDER",
}


def test_every_example_is_run() -> None:
    assert {path.parent.name for path in EXAMPLES.glob("*/main.py")} == RUNS.keys()
    for name in RUNS:
        assert {path.name for path in (EXAMPLES / name).iterdir() if path.is_file()} == {
            "README.md",
            "app.py",
            "main.py",
        }


@pytest.mark.parametrize("name", RUNS)
def test_application_with_a_killed_worker(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name / "main.py"), *RUNS[name]],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "killed" in done.stdout and not re.search(r"\b0 (killed|times)", done.stdout), done.stdout


@pytest.mark.parametrize("name", RUNS)
def test_application_describes_itself(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tidelog.cli", "docs", f"docs.examples.{name}.app:app", "--format", "yaml"],
        cwd=EXAMPLES.parent.parent,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "asyncapi: 3.0.0" in done.stdout


@contextmanager
def loaded(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ModuleType, Any]]:
    """(app.py, main.py) of an example, with its files in `folder`."""
    monkeypatch.setenv(FOLDERS[name], str(folder))
    made = []
    for part in ("app", "main"):
        spec = importlib.util.spec_from_file_location(f"{name}_{part}", EXAMPLES / name / f"{part}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)  # annotations are looked up there
        spec.loader.exec_module(module)
        made.append(module)
    yield made[0], made[1]


def test_order_fulfilment_in_one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything twice, as after a crash: the books have it once. Then the check is shown what is wrong."""
    with loaded("order_fulfilment", tmp_path, monkeypatch) as (services, main):
        orders = main.prepare(services, 100)
        with services.app.test() as t:
            for order in (*orders, *orders):
                t.send(services.orders, order, key=str(order.id))
            t.run()
            assert not t.dead(services.orders)
            ends = {type(event.value).__name__ for event in t.messages(services.events)}
            assert ends == {event.__name__ for event in services.Event.__args__}
        with tidelog.open(tmp_path / "log"):  # main.py looks for dead letters there
            assert main.check(services, orders) == []
            with services.books() as db:
                (number,) = db.execute("SELECT id FROM books WHERE book = 'shipments' LIMIT 1").fetchone()
                shipped = next(order for order in orders if order.id == number)
                services.book(db, "shipments", shipped.dest, shipped, 1)
            assert main.check(services, orders), "an order that was shipped twice was not noticed"
            with services.books() as db:
                db.execute("DELETE FROM books WHERE book = 'shipments' AND id = ?", (number,))
            assert main.check(services, orders), "an order that was paid and not shipped was not noticed"
        services.app.log.close()


def test_flight_analytics_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with loaded("flight_analytics", tmp_path, monkeypatch) as (analytics, main):
        rows = main.read(3000)
        with analytics.app.test() as t:
            analytics.flights.send_many(main.table(analytics, rows), keys="carrier")
            t.run()
            again = analytics.flights.channel.consumer(group="again", stop="end")
            with again:
                while batch := again.receive_many(500):
                    analytics.delays(batch)  # as after a crash
            for message in t.messages(analytics.alerts):
                assert message.value.minutes > analytics.LATE_MINUTES
            alerts = [(message.id, message.value) for message in t.messages(analytics.alerts)]
        for number, alert in alerts:
            analytics.alerts.send(alert, id=number)
            analytics.alerts.send(alert, id=number)  # twice, under one id
        assert main.check(analytics, rows) == []
        with analytics.figures() as db:
            db.execute("UPDATE sums SET c = c + 1 WHERE label = 'UA'")
        assert len(main.check(analytics, rows)) == 1
        analytics.alerts.send(alerts[0][1], id="another")
        assert len(main.check(analytics, rows)) == 2
        analytics.app.log.close()


def test_price_quotes_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with loaded("price_quotes", tmp_path, monkeypatch) as (sellers, _), sellers.app.test() as t:
        offers = [message.value for message in t.ask(sellers.requests, sellers.Request("JFK", "LAX", 2))]
        # From the file: 2,475 miles; AA flew it 3,217 times, B6 1,688, DL 2,501, UA 2,046.
        flown = {"AA": 3217, "B6": 1688, "DL": 2501, "UA": 2046}
        assert {offer.carrier: offer.cents for offer in offers} == {
            carrier: 2 * (3_000 + 12 * 2475 + 100_000 // times) for carrier, times in flown.items()
        }
        refused = t.ask(sellers.requests, sellers.Request("LGA", "ORD", 10))
        assert len(refused) == 2  # AA and UA
        for message in refused:
            with pytest.raises(tidelog.ReplyError) as error:
                message.value  # noqa: B018
            assert error.value.kind == "TooManySeats"
        assert t.ask(sellers.requests, sellers.Request("JFK", "MOON", 1)) == []
        (far,) = t.ask(sellers.routes, sellers.Route("EWR", "HNL"))
        assert far.value.miles == 4963
        (unknown,) = t.ask(sellers.routes, sellers.Route("JFK", "MOON"))
        with pytest.raises(tidelog.ReplyError, match="nobody flies"):
            unknown.value  # noqa: B018


def test_folders_are_the_examples_own() -> None:
    for name, variable in FOLDERS.items():
        assert f'os.environ.get("{variable}"' in (EXAMPLES / name / "app.py").read_text(encoding="utf-8")
        assert variable not in os.environ
