"""Is what does not fit together said when a function or a channel is registered, and in words that help?"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

import tidelog
from tidelog.app import App
from tidelog.app.handler import bind
from tidelog.message import Batch


class Order(msgspec.Struct):
    id: int


class Bill(msgspec.Struct):
    id: int


def to_bill(order: Order) -> Bill: ...  # type: ignore[empty-body]
def to_bills(order: Order) -> list[Bill]: ...  # type: ignore[empty-body]
def maybe_bill(order: Order) -> Bill | None: ...
def to_order(order: Order) -> Order: ...  # type: ignore[empty-body]
def to_numbers(order: Order) -> list[int]: ...  # type: ignore[empty-body]
def maybe_numbers(order: Order) -> list[int] | None: ...
def to_nothing(order: Order) -> None: ...
def of_list(orders: list[Order]) -> None: ...
def of_batch(orders: Batch[Order]) -> None: ...
def unsaid(order): ...  # type: ignore[no-untyped-def]


def each_bill(order: Order) -> Iterator[Bill]:
    yield Bill(order.id)


@pytest.mark.parametrize("register", ["on", "answers"])
def test_forgotten_parentheses(register: str) -> None:
    with pytest.raises(TypeError, match=r"to_bill is no channel: write @app\.on\(channel\) or @app\.answers"):
        getattr(App("a"), register)(to_bill)


@pytest.mark.parametrize("function", [to_bill, to_bills, maybe_bill, each_bill, unsaid])
def test_what_may_be_sent(function: Callable[..., Any]) -> None:
    app = App("a")
    app.on(app.queue("orders", Order), sends=app.queue("bills", Bill))(function)


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (to_order, "to_order returns Order, but the messages of 'bills' are Bill"),
        (to_numbers, "to_numbers returns int, but the messages of 'bills' are Bill"),
        (to_nothing, "to_nothing returns None, but the messages of 'bills' are what it returns"),
    ],
)
def test_what_may_not_be_sent(function: Callable[..., Any], says: str) -> None:
    app = App("a")
    orders, bills = app.queue("orders", Order), app.queue("bills", Bill)
    with pytest.raises(TypeError, match=says):
        app.on(orders, sends=bills)(function)
    assert not app.handlers


def test_lists_may_be_values() -> None:
    app = App("a")
    lists = app.queue("lists", list[int])
    app.on(app.queue("one", Order), sends=lists)(to_numbers)
    app.on(app.queue("two", Order), sends=lists)(maybe_numbers)


def test_answers_have_the_type_that_was_declared() -> None:
    app = App("a")
    prices = app.queue("prices", Order, reply=Bill)
    with pytest.raises(TypeError, match="to_order returns Order, but the answers of 'prices' are Bill"):
        app.answers(prices)(to_order)
    with pytest.raises(TypeError, match="to_bills returns"):  # a list is one answer
        app.answers(prices)(to_bills)
    with pytest.raises(TypeError, match="to_nothing returns None"):
        app.answers(prices)(to_nothing)
    app.answers(prices)(each_bill)
    with pytest.raises(TypeError, match="'bare', which has no type of its answers: declare it with reply="):
        app.answers(app.queue("bare", Order))(to_bill)
    with tidelog.open("memory:") as log, pytest.raises(TypeError, match="declare it with reply="):
        App("b", log=log).answers(log.queue("bare", Order))(to_bill)
    app.answers("named")(to_bill)
    assert app.handlers[-1].channel.reply is Bill


def test_a_list_is_one_answer() -> None:
    assert bind(to_bills, answers=True).returns == list[Bill]
    assert bind(each_bill, answers=True).returns is Bill
    assert bind(to_bills).returns is Bill
    app = App("a")
    lists = app.queue("lists", int, reply=list[int])

    @app.answers(lists)
    def count(most: int) -> list[int]:
        return list(range(most))

    with app.test() as t:
        assert [message.value for message in t.ask(lists, 3)] == [[0, 1, 2]]


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"batch": 5}, ValueError, "takes no Batch: annotate"),
        ({"group": ""}, ValueError, "is no name of a group"),
        ({"group": 5}, TypeError, "is no name of a group"),
        ({"start": "yesterday"}, ValueError, "'earliest', 'latest'"),
        ({"start": 1.5}, TypeError, "'earliest', 'latest'"),
        ({"sends": "no name"}, ValueError, "has the character ' '"),
        ({"dead_letter": "no/name"}, ValueError, "has the character '/'"),
    ],
)
def test_options_of_a_handler(options: dict[str, Any], error: type[Exception], says: str) -> None:
    app = App("a")
    with pytest.raises(error, match=says):
        app.on("orders", **options)(unsaid)


@pytest.mark.parametrize("kind", ["queue", "topic"])
def test_options_of_a_channel(kind: str) -> None:
    app = App("a")
    with tidelog.open("memory:") as log:
        for declare in (getattr(app, kind), getattr(log, kind)):
            with pytest.raises(
                TypeError, match=rf"{kind}\(\) got an unexpected option 'partition': did you mean 'partitions'"
            ):
                declare("orders", Order, partition=3)
            with pytest.raises(ValueError, match="partitions=0 is outside"):
                declare("orders", Order, partitions=0)
            with pytest.raises(ValueError, match="has the character"):
                declare("or ders", Order)
    assert not app.channels


def test_one_name_has_one_type() -> None:
    app = App("a")
    orders = app.queue("orders", Order)
    app.queue("orders", Order, partitions=2)
    with pytest.raises(ValueError, match="'orders' is declared as a queue of .*Order.* already"):
        app.queue("orders", Bill)
    with pytest.raises(ValueError, match="already, and now as a topic"):
        app.topic("orders", Order)
    with pytest.raises(ValueError, match="has values of .*Bill.* in 'orders', but elsewhere in a they are .*Order"):
        app.on("jobs", sends="orders")(to_bill)
    app.on("jobs", sends=orders)(to_order)


def test_a_list_is_no_batch() -> None:
    app = App("a")
    orders = app.queue("orders", Order)
    with pytest.raises(TypeError, match=r"a message of 'orders' is one Order: annotate Batch\[Order\]"):
        app.on(orders)(of_list)
    app.on(orders, batch=5)(of_batch)
    app.on(app.queue("lists", list[Order]))(of_list)


def test_the_count_of_workers_comes_first() -> None:
    with pytest.raises(ValueError, match="workers=0: the least is 1"):
        App("nowhere").run(workers=0)


def test_a_start_that_fails_has_not_stopped(caplog: pytest.LogCaptureFixture) -> None:
    app = App("a", "memory:")

    @app.before_start
    def fail() -> None:
        raise RuntimeError("no")

    app.on("orders")(unsaid)
    with caplog.at_level(logging.INFO), pytest.raises(RuntimeError, match="no"):
        app.start()
    assert not [record for record in caplog.records if "has stopped" in record.message]


def test_consumers_say_what_they_ignore() -> None:
    with tidelog.open("memory:") as log:
        queue, topic = log.queue("orders", Order), log.topic("events", Order)
        with pytest.raises(ValueError, match="give member= too"):
            queue.consumer(member_timeout=3)
        with pytest.raises(ValueError, match="give member= too"):
            topic.consumer("g", member_timeout=3)
        with pytest.raises(TypeError, match=r"use tail\(\)"):
            topic.consumer(None)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"use tail\(\)"):
            log.consumer(topic, group=None)  # type: ignore[arg-type]


def test_leaving_the_harness_shows_what_fails() -> None:
    app = App("a")
    orders = app.queue("orders", Order)

    @app.on(orders)
    def fail(order: Order) -> None:
        raise ValueError("seen")

    with pytest.raises(ValueError, match="seen"), app.test() as t:
        t.send(orders, Order(1))
    with pytest.raises(KeyError), app.test() as t:  # the error of the test itself is the one to be seen
        t.send(orders, Order(1))
        raise KeyError("other")
    assert not app.running


@pytest.mark.parametrize("fails", [False, True])
def test_a_refused_return_address_is_said_once(fails: bool, caplog: pytest.LogCaptureFixture) -> None:
    app = App("a")
    quotes = app.queue("quotes", int, reply=int)
    app.queue("commands", int)
    calls = []

    @app.answers(quotes, retries=3)
    def quote(number: int) -> int:
        calls.append(number)
        if fails:
            raise LookupError("none")
        return number

    with app.test() as t, caplog.at_level(logging.WARNING):
        t.send("commands", 1)
        t.send(quotes, 1, headers={"reply-to": "commands"})
        t.run()
        t.advance(100)
        assert len(t.messages("commands")) == 1
    said = [record.message for record in caplog.records if "carries commands" in record.message]
    assert len(said) == 1 and "an error answer" not in said[0]
    assert len(calls) == (4 if fails else 1)
