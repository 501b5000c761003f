"""Does the harness run an application in the test's own thread, with a clock that stands still until it is turned?"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import tidelog
from tidelog.app import App, Failure, Retry
from tidelog.message import Batch, Message


class Order(msgspec.Struct):
    id: int
    sku: str = "tea"


class Invoice(msgspec.Struct):
    id: int


class Shop:
    """An application with one of everything."""

    def __init__(self) -> None:
        self.app = app = App("shop", url="/nowhere/that/exists", drain_timeout=1)
        self.orders = app.queue("orders", Order)
        self.invoices = app.topic("invoices", Invoice)
        self.quotes = app.queue("quotes", int, reply=str)
        self.posted: list[int] = []
        self.threads: set[int] = set()
        self.fail = 0
        self.told: list[str] = []

        @app.on(
            self.orders,
            sends=self.invoices,
            retries=Retry(attempts=4, first=10, factor=2, most=100),
            dead_letter="orders.dead",
            concurrency="key",
        )
        def bill(order: Order) -> Invoice:
            self.threads.add(threading.get_ident())
            if self.fail:
                self.fail -= 1
                raise ConnectionError("the till is closed")
            return Invoice(order.id)

        @app.on(self.invoices)
        async def post(invoice: Message[Invoice]) -> None:
            self.posted.append(invoice.value.id)

        @app.answers(self.quotes, retries=Retry(attempts=2, first=5))
        def quote(number: int) -> Iterator[str]:
            if number < 0:
                raise ValueError("too few")
            for one in range(number):
                yield str(one)

        @app.before_start
        def begin() -> None:
            self.told.append("start")

        @app.after_stop
        def end() -> None:
            self.told.append("stop")


def test_messages_flow_through_handlers_without_threads_or_waiting() -> None:
    shop = Shop()
    begun = time.monotonic()
    with shop.app.test() as t:
        t.send(shop.orders, Order(1), key="a")
        t.send("orders", Order(2), key="b")
        assert t.messages(shop.invoices) == [], "nothing runs by itself"
        message = t.expect(shop.invoices, Invoice(1), key="a")
        assert message.id.endswith(".bill")
        t.expect("invoices", Invoice(2))
        assert shop.posted == [1, 2]
        assert t.dead(shop.orders) == []
    assert shop.threads == {threading.get_ident()}
    assert shop.told == ["start", "stop"]
    assert time.monotonic() - begun < 20
    with pytest.raises(RuntimeError, match="not open"):
        t.run()
    with shop.app.test() as again:
        assert again.messages(shop.invoices) == [], "each test has a log of its own"


def test_the_clock_of_retries_is_turned_by_hand() -> None:
    shop = Shop()
    with shop.app.test() as t:
        shop.fail = 2
        t.send(shop.orders, Order(1), key="a")
        t.send(shop.orders, Order(2), key="a")
        t.run()
        assert shop.fail == 1 and t.now == 0
        t.advance(7.9)
        assert shop.fail == 1, "the first wait is 8 to 10 s"
        t.advance(2.1)
        assert shop.fail == 0
        t.expect(shop.invoices, Invoice(2), within=20)
        assert shop.posted == [1, 2]
        assert 16 <= t.now - 10 + 2.1 <= 22.1


def test_expect_within_a_time_that_is_too_short_says_what_came() -> None:
    shop = Shop()
    with shop.app.test() as t:
        t.send(shop.orders, Order(7), key="x")
        shop.fail = 1
        with pytest.raises(AssertionError, match="no message Invoice") as error:
            t.expect(shop.invoices, Invoice(7), within=5)
        assert "nothing" in str(error.value) and t.now == 5
        t.expect(shop.invoices, Invoice(7), within=5)
        t.send(shop.orders, Order(8), key="y")
        with pytest.raises(AssertionError, match=r"Invoice\(id=8\) key=b'y'"):
            t.expect(shop.invoices, Invoice(7), within=1)


def test_each_message_is_good_for_one_expect() -> None:
    shop = Shop()
    with shop.app.test() as t:
        for _ in range(2):
            t.send(shop.orders, Order(1), key="a")
        first = t.expect(shop.invoices, Invoice(1))
        second = t.expect(shop.invoices, Invoice(1))
        assert first.offset != second.offset
        with pytest.raises(AssertionError):
            t.expect(shop.invoices, Invoice(1))
        with pytest.raises(AssertionError):
            t.expect(shop.invoices, Invoice(1), key="b")


def test_dead_letters_are_found_by_their_channel() -> None:
    shop = Shop()
    with shop.app.test() as t:
        shop.fail = 100
        t.send(shop.orders, Order(1), key="a")
        t.advance(1000)
        (dead,) = t.dead(shop.orders)
        assert dead.raw == b'{"id":1,"sku":"tea"}' and dead.key == b"a"
        assert dead.headers["error-text"] == b"the till is closed" and dead.headers["attempts"] == b"4"
        assert [message.offset for message in t.dead("orders.dead")] == [0]
        assert t.messages(shop.invoices) == []


def test_questions_are_answered() -> None:
    shop = Shop()
    with shop.app.test() as t:
        assert [reply.value for reply in t.ask(shop.quotes, 3)] == ["0", "1", "2"]
        assert t.ask(shop.quotes, 0) == []
        assert t.ask("quotes", -1) == []
        (failed,) = t.ask(shop.quotes, -1, within=5)
        with pytest.raises(tidelog.ReplyError, match="too few"):
            failed.value  # noqa: B018
        with pytest.raises(TypeError, match="no reply="):
            t.ask(shop.orders, Order(1))


def test_a_handler_that_would_stop_the_application_raises_here() -> None:
    app = App("a")
    orders = app.queue("orders", Order)
    failures: list[Failure] = []
    app.on_error(failures.append)

    mended: list[bool] = []
    handled: list[int] = []

    @app.on(orders)
    def handle(order: Order) -> None:
        if not mended:
            raise ZeroDivisionError("as it stands")
        handled.append(order.id)

    with app.test() as t:
        t.send(orders, Order(1), key="a")
        t.send(orders, Order(2), key="a")
        for _ in range(2):
            with pytest.raises(ZeroDivisionError, match="as it stands"):
                t.run()
        mended.append(True)
        t.run()
        assert handled == [1, 2], "it goes on where it was"
        assert sum(row.lag for row in t.log.offsets()) == 0
    assert [failure.then for failure in failures] == ["stop", "stop"]


def test_channels_of_an_open_log_have_doubles_in_memory() -> None:
    dtype = np.dtype([("px", "f8")])
    with tidelog.open("memory:") as log:
        orders, ticks = log.queue("orders", Order), log.topic("ticks", dtype)
        quotes = log.queue("quotes", int, reply=int)
        app = App("a")
        sums: list[float] = []
        app.answers(quotes)(lambda number: number + 1)

        @app.on(orders, sends="names")
        def name(order: Order) -> str:
            return order.sku

        @app.on(ticks)
        def add(batch: Batch[Any]) -> None:
            sums.append(float(batch.values["px"].sum()))

        with app.test() as t:
            t.send(orders, Order(1, "milk"))
            t.expect("names", "milk")
            for px in (1.5, 2.5):
                t.send(ticks, np.array([(px,)], dtype)[0])
            t.run()
            assert sum(sums) == 4
            t.expect(ticks, np.array([(1.5,)], dtype)[0])
            assert [reply.value for reply in t.ask(quotes, 4)] == [5]
            assert t.channel(orders) is not orders
        assert not list(orders.scan()) and not list(ticks.scan()), "the real log is not touched"


def test_handlers_that_feed_each_other_for_ever_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from tidelog.testing import harness

    monkeypatch.setattr(harness, "ROUNDS_MAX", 50)
    app = App("a")
    ping, pong = app.queue("ping", int), app.queue("pong", int)
    app.on(ping, sends=pong)(lambda number: number + 1)
    app.on(pong, sends=ping)(lambda number: number + 1)
    with app.test() as t:
        t.send(ping, 1)
        with pytest.raises(RuntimeError, match="have not come to rest"):
            t.run()


def test_not_while_it_runs_and_not_twice() -> None:
    with tidelog.open("memory:") as log:
        app = App("a", log=log)
        with app, pytest.raises(RuntimeError, match="stop it first"), app.test():
            pass
        with app.test(), pytest.raises(RuntimeError, match="under test"), app.test():
            pass
        assert app.log is log


def test_starting_under_test_is_refused() -> None:
    shop = Shop()
    with shop.app.test() as t:
        with pytest.raises(RuntimeError, match="is under test"):
            shop.app.start()
        t.send(shop.orders, Order(1))
        t.expect(shop.invoices, Invoice(1))


def test_outside_of_the_test_nothing_reaches_the_real_log(tmp_path: Path) -> None:
    app = App("shop", url=tmp_path / "shop.log")
    orders = app.queue("orders", Order)
    with app.test() as t:
        t.send(orders, Order(1))
    with pytest.raises(RuntimeError, match="not open"):
        t.send(orders, Order(2))
    assert not (tmp_path / "shop.log").exists()


def test_expect_says_that_a_message_waits_for_its_next_attempt() -> None:
    shop = Shop()
    shop.fail = 1
    with shop.app.test() as t:
        t.send(shop.orders, Order(1))
        with pytest.raises(AssertionError, match="waits for its next attempt, in .* s: give within="):
            t.expect(shop.invoices, Invoice(1))
        t.expect(shop.invoices, Invoice(1), within=20)
