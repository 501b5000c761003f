"""What do real applications look like that are described: one for each pattern, and both of their sides?"""

from __future__ import annotations

from datetime import timedelta

from tests.descriptions.apps import Cancelled, Created, Invoice, Model, Order, Quote, QuoteRequest, Refused, Tick
from tidelog.app import App
from tidelog.message import Batch, Message

billing = App("billing", url="shop.log", version="1.2.0", description="Writes invoices.")
orders = billing.queue("orders", Order, partitions=8, retention=timedelta(days=7))


@billing.on(orders, sends="invoices", retries=3, dead_letter="orders.dead", concurrency="key")
def bill(order: Order) -> Invoice:
    """Write the invoice.

    One for each order.
    """
    raise NotImplementedError


@billing.on("orders.dead")
def look(message: Message[bytes]) -> None:
    """Look at what went wrong."""


charts = App("charts", url="memory:", version="2.0.0")
prices = charts.topic("prices", Tick, partitions=2)
changes = charts.topic("changes", Created | Cancelled, retention="consumed")


@charts.on(prices, group="chart", batch=500)
def plot(ticks: Batch) -> None:  # type: ignore[type-arg]
    """Draw them."""


@charts.on(changes, delivery="at-most-once")
async def watch(change: Created | Cancelled) -> None:
    """Follow them."""


pricing = App("pricing")
quotes = pricing.queue("quotes", QuoteRequest, reply=Quote | Refused)


@pricing.answers(quotes)
def quote(request: QuoteRequest) -> Quote | Refused:
    """Say what it costs."""
    raise NotImplementedError


@pricing.answers("models")
def model(name: str) -> Model:
    """Say what it is like."""
    raise NotImplementedError


@pricing.answers("anything")
def anything(value):  # type: ignore[no-untyped-def]
    """Say whatever there is to say."""


basket = App("basket", url="kafka://a:9092,b:9092?sasl=plain", version="0.1.0")
basket.queue("quotes", QuoteRequest, reply=Quote | Refused)
basket.queue("orders", Order, partitions=8)
basket.topic("seen", str, carries="document", codec="utf-8")

REAL = {app.name: app for app in (billing, charts, pricing, basket)}
