"""Do the strategies make what is promised, and do interleavings keep it?"""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec
import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from tidelog.app import App
from tidelog.log import open as open_log
from tidelog.partitioner import key_bytes
from tidelog.testing import strategies as tst
from tidelog.testing.app_machine import AppMachine
from tidelog.testing.judge import check
from tidelog.testing.stories import AnomalyFound
from tidelog.testing.strategies import Interleaving, Step


@settings(max_examples=50)
@given(tst.interleavings(producers=2, consumers=3, kills=2))
def test_at_least_once(run: Interleaving) -> None:
    check(run.history, idempotent=True)


@settings(max_examples=50)
@given(tst.interleavings(consumers=3, kills=2, delivery="at-most-once"))
def test_at_most_once(run: Interleaving) -> None:
    check(run.history, duplicates="at-most-once", idempotent=True)


@settings(max_examples=50)
@given(tst.interleavings(consumers=2, partitions=1, delivery="manual"))
def test_manual(run: Interleaving) -> None:
    check(run.history, order="partition", duplicates="manual", idempotent=True)


def test_interleavings_find_a_wrong_promise() -> None:
    """At-least-once is no exactly-once, and the shortest interleaving that shows it is short."""

    def broken(run: Interleaving) -> bool:
        try:
            check(run.history, duplicates="exactly-once")
        except AnomalyFound as found:
            return found.name == "redelivered"
        return False

    smallest = find(tst.interleavings(producers=1, consumers=1, partitions=1, most_steps=8), broken)
    assert [step.what for step in smallest.steps] == ["send", "receive"], "whoever is left at the end has not committed"


def test_a_log_of_ones_own_and_a_look_at_each_step() -> None:
    run = Interleaving((Step("send", 0, 3), Step("receive", 0, 2), Step("close", 0)), 1, 1, 2, "at-least-once")
    seen: list[Step] = []
    with open_log("memory:") as log:
        history = run.play(log.queue("mine", partitions=2), seen.append)
    assert tuple(seen) == run.steps
    assert history.channels == ["mine"]


@given(tst.messages())
def test_messages_can_be_sent(message: dict[str, Any]) -> None:
    key_bytes(message["key"])
    assert isinstance(message["value"], bytes)
    assert all(isinstance(name, str) and isinstance(data, bytes) for name, data in message["headers"])


@given(tst.keys(none=False))
def test_keys_without_none(key: Any) -> None:
    assert key is not None


class Order(msgspec.Struct, frozen=True):
    id: int
    quantity: int


class Bill(msgspec.Struct, frozen=True):
    id: int
    total: int


def shop() -> App:
    """An application that bills each order at 3 a piece, and refuses none."""
    app = App("shop")
    orders = app.queue("orders", Order, partitions=2)
    bills = app.queue("bills", Bill, partitions=2)

    @app.on(orders, sends=bills, retries=3)
    def bill(order: Order) -> Bill:
        return Bill(order.id, order.quantity * 3)

    return app


class Shop(AppMachine):
    """Every order is billed at least once, and nothing else is."""

    app = staticmethod(shop)
    messages: ClassVar[dict[str, Any]] = {"orders": st.builds(Order, st.integers(0, 99), st.integers(1, 9))}
    faults = ("append",)

    def at_rest(self, t: Any) -> None:
        billed = {(message.value.id, message.value.total) for message in t.messages("bills")}
        assert billed == {(sent.value.id, sent.value.quantity * 3) for sent in self.sent}


TestShop = Shop.TestCase
TestShop.settings = settings(max_examples=20, stateful_step_count=15)


def test_a_machine_finds_what_is_wrong() -> None:
    class Careful(Shop):
        faults = ()

        def at_rest(self, t: Any) -> None:
            assert len(t.messages("bills")) == len({sent.value.id for sent in self.sent}), "one bill for each id"

    Careful.TestCase.settings = settings(max_examples=50, stateful_step_count=10, phases=[Phase.generate])
    with pytest.raises(AssertionError, match="one bill for each id"):
        Careful.TestCase("runTest").runTest()


def test_a_machine_without_an_app_says_so() -> None:
    class Empty(AppMachine):
        pass

    with pytest.raises(TypeError, match="sets `app`"):
        Empty.TestCase("runTest").runTest()
