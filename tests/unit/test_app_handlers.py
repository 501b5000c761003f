"""Does a handler get what its signature asks for, and are combinations that make no sense refused?"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import msgspec
import numpy as np
import pytest

import tidelog
from tidelog.app import App, Handler, Retry
from tidelog.app.handler import UNKNOWN, bind
from tidelog.message import Batch, Message


class Order(msgspec.Struct):
    id: int


class Invoice(msgspec.Struct):
    id: int


def value(order: Order) -> Invoice: ...  # type: ignore[empty-body]
def message(order: Message[Order]) -> None: ...
def qualified(order: tidelog.Message[Order]) -> list[Invoice]: ...  # type: ignore[empty-body]
def batch(orders: Batch[Order]) -> Iterator[Invoice]: ...  # type: ignore[empty-body]
def bare_batch(orders: Batch) -> None: ...  # type: ignore[type-arg]
def nothing_said(order): ...  # type: ignore[no-untyped-def]
def maybe(order: Order) -> Invoice | None: ...
def anything(order: Any) -> Any: ...
def with_default(order: Order, factor: int = 2) -> None: ...
def star(*orders: Order) -> None: ...
def unseen(order: Message[NotThere]) -> None: ...  # type: ignore[name-defined]  # noqa: F821
async def coroutine(order: Order) -> Invoice: ...  # type: ignore[empty-body]


async def stream(order: Order) -> AsyncIterator[Invoice]:
    yield Invoice(order.id)


class Callable_:
    """An object that can be called."""

    def __call__(self, order: Message[Order]) -> Invoice: ...  # type: ignore[empty-body]


class AsyncCallable:
    """The same, as a coroutine."""

    async def __call__(self, order: Order) -> None: ...

    async def method(self, order: Order) -> None: ...


@pytest.mark.parametrize(
    ("function", "takes", "payload", "returns", "is_async"),
    [
        (value, "value", Order, Invoice, False),
        (message, "message", Order, None, False),
        (qualified, "message", Order, Invoice, False),
        (batch, "batch", Order, Invoice, False),
        (bare_batch, "batch", UNKNOWN, None, False),
        (nothing_said, "value", UNKNOWN, UNKNOWN, False),
        (maybe, "value", Order, Invoice, False),
        (anything, "value", UNKNOWN, UNKNOWN, False),
        (with_default, "value", Order, None, False),
        (star, "value", UNKNOWN, None, False),
        (unseen, "message", UNKNOWN, UNKNOWN, False),
        (coroutine, "value", Order, Invoice, True),
        (stream, "value", Order, Invoice, True),
        (Callable_(), "message", Order, Invoice, False),
        (AsyncCallable(), "value", Order, None, True),
        (AsyncCallable().method, "value", Order, None, True),
        (functools.partial(with_default, factor=3), "value", UNKNOWN, UNKNOWN, False),
    ],
)
def test_binding(function: Callable[..., Any], takes: str, payload: Any, returns: Any, is_async: bool) -> None:
    bound = bind(function)
    assert (bound.takes, bound.is_async) == (takes, is_async)
    if isinstance(function, functools.partial):
        return
    assert bound.payload is payload
    if function is not unseen:
        assert bound.returns is returns


def test_classes_beside_the_handler_are_seen() -> None:
    class Local(msgspec.Struct):
        id: int

    app = App("a")

    @app.on("locals")
    def handle(one: Local) -> None: ...

    assert app.handlers[0].channel.type is Local


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda: None, "takes 0 arguments"),
        (lambda a, b: None, "takes 2 arguments"),
        (lambda *, order: None, "takes 1 arguments"),
    ],
)
def test_wrong_numbers_of_arguments(function: Callable[..., Any], says: str) -> None:
    with pytest.raises(TypeError, match=says):
        App("a").on("orders")(function)


def test_what_a_handler_record_says() -> None:
    app = App("billing")
    orders = app.queue("orders", Order, partitions=2)
    prices = app.topic("prices", Order)
    quotes = app.queue("quotes", Order, reply=Invoice)

    @app.on(orders, sends="invoices", retries=3, dead_letter="orders.dead", concurrency="key")
    def bill(order: Order) -> Invoice:
        """Bill an order."""
        return Invoice(order.id)

    @app.on(prices)
    def watch(price: Order) -> None: ...

    @app.on(prices, group="chart", batch=5)
    def plot(ticks: Batch[Order]) -> None: ...

    @app.answers(quotes)
    async def quote(asked: Order) -> Invoice: ...  # type: ignore[empty-body]

    assert bill(Order(7)) == Invoice(7), "the function stays what it is"
    by_name: dict[str, Handler] = {handler.name: handler for handler in app.handlers}
    assert list(by_name) == ["bill", "watch", "plot", "quote"]
    one = by_name["bill"]
    assert (one.pattern, one.group, one.takes, one.concurrency) == ("one-way", "orders", "value", "key")
    assert one.retries == Retry(attempts=4) and one.description == "Bill an order."
    assert one.sends is not None and (one.sends.name, one.sends.type) == ("invoices", Invoice)
    assert one.dead_letter is not None and one.dead_letter.name == "orders.dead"
    assert by_name["watch"].group == "billing" and by_name["watch"].pattern == "publish-subscribe"
    assert by_name["plot"].group == "chart" and by_name["plot"].takes == "batch" and by_name["plot"].batch == 5
    assert by_name["quote"].pattern == "async-response" and by_name["quote"].reply is Invoice
    assert by_name["quote"].is_async
    assert [spec.name for spec in app.channels] == ["orders", "prices", "quotes"]


def test_one_function_for_two_channels_has_two_names() -> None:
    app = App("a")
    app.on("one")(value_of_any)
    app.on("two")(value_of_any)
    assert [handler.name for handler in app.handlers] == ["value_of_any", "value_of_any-2"]


def value_of_any(one: bytes) -> None: ...


def _app() -> App:
    app = App("a")
    app.queue("typed", Order)
    return app


@pytest.mark.parametrize(
    ("options", "function", "error", "says"),
    [
        ({"concurrency": 0}, value_of_any, ValueError, "give 1 to"),
        ({"concurrency": True}, value_of_any, TypeError, "number of messages, or 'key'"),
        ({"concurrency": "keys"}, value_of_any, TypeError, "number of messages, or 'key'"),
        ({"concurrency": 2}, bare_batch, ValueError, "one after the other"),
        ({"delivery": "manual"}, value_of_any, ValueError, "a program with a consumer"),
        ({"delivery": "exactly once"}, value_of_any, ValueError, "use one of"),
        ({"batch": 0}, value_of_any, ValueError, "the least is 1"),
        ({"batch": 1.5}, value_of_any, TypeError, "most messages of a Batch"),
        ({"retries": -1}, value_of_any, ValueError, "the least is 0"),
        ({"max_processing": 0}, value_of_any, ValueError, "too short"),
        ({"key": str}, value_of_any, ValueError, "no sends="),
        ({"key": "id", "sends": "out"}, value_of_any, TypeError, "give a function"),
        ({"dead_letter": "orders"}, value_of_any, ValueError, "cannot go to 'orders' itself"),
        ({"sends": 7}, value_of_any, TypeError, "is no channel"),
    ],
)
def test_options_that_are_refused(
    options: dict[str, Any], function: Callable[..., Any], error: type[Exception], says: str
) -> None:
    app = App("a")
    with pytest.raises(error, match=says):
        app.on("orders", **options)(function)
    assert not app.handlers


def test_combinations_that_are_refused() -> None:
    app = App("a")
    orders, prices, raw = app.queue("orders", Order), app.topic("prices", Order), app.queue("raw")

    def yields(order: Order) -> Iterator[Invoice]:
        yield Invoice(order.id)

    with pytest.raises(TypeError, match="takes Invoice, but the messages of 'orders' are Order"):

        @app.on(orders)
        def other(one: Invoice) -> None: ...

    with pytest.raises(TypeError, match="takes Order, but the messages of 'raw' are bytes"):
        app.on(raw)(value)
    with pytest.raises(TypeError, match="yields values, but nothing says where they go"):
        app.on(orders)(yields)
    with pytest.raises(ValueError, match=r"answers on a queue.*app\.on\(\.\.\.\), and message\.reply"):
        app.answers(prices)(value)
    with pytest.raises(TypeError, match="answered one by one"):
        app.answers(orders)(bare_batch)
    with pytest.raises(ValueError, match="has one group, its own"):
        app.on(orders, group="mine")(value)
    with pytest.raises(TypeError, match="is no channel"):
        app.on(Order)  # type: ignore[arg-type]
        app.on(Order)(value)  # type: ignore[arg-type]
    app.on(orders)(value)
    with pytest.raises(ValueError, match="a queue has one receiver"):
        app.on(orders)(maybe)
    app.on(prices)(value)
    with pytest.raises(ValueError, match="give each its own group="):
        app.on(prices)(maybe)
    app.on(prices, group="other")(maybe)


def test_names_of_applications() -> None:
    with pytest.raises(ValueError, match="has a name"):
        App("")
    with tidelog.open("memory:") as log, pytest.raises(ValueError, match="not both"):
        App("a", "shop.log", log=log)


def test_an_open_channel_is_used_as_it_is_and_its_log_is_the_application_s() -> None:
    rows = np.dtype([("px", "f8")])
    with tidelog.open("memory:") as log:
        orders, ticks = log.queue("orders", Order), log.topic("ticks", rows)
        app = App("a")
        app.on(orders)(value)
        app.on(ticks)(bare_batch)
        assert app.log.engine is log.engine
        assert app.handlers[0].channel.channel is orders
        assert app.handlers[0].channel.type is Order
        assert app.handlers[1].channel.open(app.log) is ticks


def test_a_declared_channel_is_opened_once_and_does_what_a_channel_does() -> None:
    with tidelog.open("memory:") as log:
        app = App("a", log=log)
        orders = app.queue("orders", Order, partitions=2)
        assert "orders" not in log
        orders.send(Order(1), key="a")
        assert orders.channel is orders.channel and orders.partitions == 2
        assert [one.value for one in orders.scan()] == [Order(1)]
        assert "orders" in repr(orders) and orders.kind == "queue" and orders.name == "orders"
        with pytest.raises(AttributeError):
            orders.nothing  # noqa: B018


def test_a_name_of_the_wrong_kind_says_what_to_do() -> None:
    with tidelog.open("memory:") as log:
        log.topic("prices", Order)
        log.queue("orders", Order)
        app = App("a", log=log)
        app.on("prices")(value)
        with pytest.raises(tidelog.SchemaMismatch, match="declare it with app.topic"):
            app.start()
        assert not app.running
        other = App("b", log=log)
        other.on("orders", group="g")(value)
        with pytest.raises(tidelog.SchemaMismatch, match="declare it with app.queue"):
            other.start()
