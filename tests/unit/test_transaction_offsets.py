"""Is what a consumer has handed over committed together with what was sent, or not at all?"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.transaction_kit import Failure, Shop, committed, shops, values
from tidelog.errors import Fenced, Timeout
from tidelog.log import Log


@pytest.fixture
def shop() -> Iterator[Shop]:
    yield from shops("memory:")


def held(consumer: Any) -> int:
    """How many partitions it has."""
    return len(consumer.assignment)


def bills(shop: Shop, messages: Any) -> list[str]:
    return [message.value.replace("order", "invoice") for message in messages]


@pytest.mark.parametrize("delivery", ["at-least-once", "manual"])
def test_the_offsets_are_committed_with_the_output(shop: Shop, delivery: Any) -> None:
    with shop.orders.consumer(delivery=delivery) as consumer:
        with shop.log.transaction(shop.producer, consumer) as tx:
            first = consumer.receive(timeout=5)
            batch = consumer.receive_many(2, timeout=5)
            tx.send_many(shop.invoices, bills(shop, [first, *batch]))
            assert committed(shop.orders) == {}, "asking for the next one commits nothing inside"
        assert committed(shop.orders) == {0: 3}
        assert sorted(values(shop.invoices)) == ["invoice 0", "invoice 1", "invoice 2"]
        assert consumer.receive(timeout=5).value == "order 3"
        assert committed(shop.orders) == {0: 3}
    assert committed(shop.orders) == {0: 3 if delivery == "manual" else 4}, "outside its own rule holds again"


@pytest.mark.parametrize("delivery", ["at-least-once", "manual"])
def test_after_an_abort_the_messages_come_again(shop: Shop, delivery: Any) -> None:
    with shop.orders.consumer(delivery=delivery) as consumer:
        with shop.log.transaction(shop.producer, consumer) as tx:
            tx.send_many(shop.invoices, bills(shop, consumer.receive_many(2, timeout=5)))
        for _ in range(2):
            with pytest.raises(Failure), shop.log.transaction(shop.producer, consumer) as tx:
                assert consumer.receive(timeout=5).value == "order 2"
                assert consumer.receive_many(2, timeout=5).values == ["order 3", "order 4"]
                tx.send(shop.invoices, "never")
                raise Failure
        with shop.log.transaction(shop.producer, consumer) as tx:
            assert consumer.receive(timeout=5).value == "order 2"
            tx.abort()
            assert consumer.receive(timeout=5).value == "order 2"
        assert committed(shop.orders) == {0: 2}
        assert consumer.receive(timeout=5).value == "order 3", "what came behind the abort was outside of it"
    assert sorted(values(shop.invoices)) == ["invoice 0", "invoice 1"]


def test_the_usual_loop(shop: Shop) -> None:
    """A message that was in hand when the transaction began goes along with it."""
    with shop.orders.consumer(stop="end") as consumer:
        for message in consumer:
            with shop.log.transaction(shop.producer, consumer) as tx:
                tx.send(shop.invoices, message.value)
            assert committed(shop.orders) == {0: message.offset + 1}
    seen: list[str] = []
    shop.orders.send_many(["a", "b", "c"])
    with shop.orders.consumer(stop="end") as consumer:
        for message in consumer:
            seen.append(message.value)
            try:
                with shop.log.transaction(shop.producer, consumer) as tx:
                    tx.send(shop.receipts, message.value)
                    if seen.count("b") < 3 and message.value == "b":
                        raise Failure
            except Failure:
                pass
    assert seen == ["a", "b", "b", "b", "c"]
    assert values(shop.receipts) == ["a", "b", "c"]


def test_back_to_where_it_was_sought(shop: Shop) -> None:
    """An abort goes back to the last commit, or to a seek behind that."""
    with shop.orders.consumer(delivery="manual") as consumer:
        consumer.commit(consumer.receive(timeout=5))
        consumer.seek((0, 3))
        with pytest.raises(Failure), shop.log.transaction(shop.producer, consumer):
            assert consumer.receive(timeout=5).value == "order 3"
            raise Failure
        with shop.log.transaction(shop.producer, consumer):
            assert consumer.receive(timeout=5).value == "order 3"
    assert committed(shop.orders) == {0: 4}


def test_several_consumers_and_groups(shop: Shop) -> None:
    prices = shop.log.topic("prices", int, partitions=2)
    prices.send_many([1, 2, 3], partition=0)
    prices.send_many([4, 5], partition=1)
    with shop.orders.consumer() as orders, prices.consumer("billing") as priced:
        with shop.log.transaction(shop.producer, orders, priced) as tx:
            taken = len(orders.receive_many(2, timeout=5)) + len(priced.receive_many(100, timeout=5))
            taken += len(priced.receive_many(100, timeout=0.2))
            tx.send(shop.receipts, str(taken))
        assert (committed(shop.orders), committed(prices, "billing")) == ({0: 2}, {0: 3, 1: 2})
        with pytest.raises(Failure), shop.log.transaction(shop.producer, orders, priced) as tx:
            orders.receive_many(2, timeout=5)
            raise Failure
        assert orders.receive(timeout=5).value == "order 2"
    assert values(shop.receipts) == ["7"]


def test_only_what_was_handed_over(shop: Shop) -> None:
    """Not what was read ahead."""
    with shop.orders.consumer() as consumer, shop.log.transaction(shop.producer, consumer):
        assert next(iter(consumer)).value == "order 0"
    assert committed(shop.orders) == {0: 1}


def test_the_program_cannot_commit_beside_it(shop: Shop) -> None:
    with shop.orders.consumer() as consumer, shop.log.transaction(shop.producer, consumer):
        message = consumer.receive(timeout=5)
        for upto in (None, message):
            with pytest.raises(RuntimeError, match="takes part in a transaction"):
                consumer.commit(upto)
    assert committed(shop.orders) == {0: 1}


def test_which_consumers_may_take_part(shop: Shop) -> None:
    with shop.orders.consumer(delivery="at-most-once") as consumer, pytest.raises(ValueError, match="at-most-once"):
        shop.log.transaction(shop.producer, consumer)
    with shop.receipts.tail() as tail, pytest.raises(ValueError, match="without a group"):
        shop.log.transaction(shop.producer, tail)
    with shop.orders.consumer() as consumer:
        with pytest.raises(ValueError, match="named twice"):
            shop.log.transaction(shop.producer, consumer, consumer)
        other = shop.log.producer(name="other")
        with shop.log.transaction(shop.producer, consumer):
            with pytest.raises(RuntimeError, match="another transaction"), shop.log.transaction(other, consumer):
                pass
            with shop.log.transaction(other):  # what failed to begin is over
                pass
    with pytest.raises(TypeError, match="consumers"):
        shop.log.transaction(shop.producer, shop.orders)  # type: ignore[arg-type]


def test_a_consumer_that_was_closed_inside(shop: Shop) -> None:
    consumer = shop.orders.consumer()
    with pytest.raises(Fenced, match="closed"), shop.log.transaction(shop.producer, consumer) as tx:
        tx.send(shop.invoices, consumer.receive(timeout=5).value)
        consumer.close()
    assert tx.state == "aborted"
    assert values(shop.invoices) == []
    idle = shop.orders.consumer()
    with shop.log.transaction(shop.producer, idle) as tx:
        idle.close()
        tx.send(shop.invoices, "it had handed over nothing")
    assert values(shop.invoices) == ["it had handed over nothing"]


def test_a_second_thread_inside_a_consumer(shop: Shop) -> None:
    empty = shop.log.topic("empty", str, partitions=1)
    consumer = empty.consumer("g")
    entered = threading.Event()
    ended: list[BaseException] = []

    def wait() -> None:
        entered.set()
        try:
            consumer.receive(timeout=20)
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=wait)
    with pytest.raises(RuntimeError, match="one thread"), shop.log.transaction(shop.producer, consumer) as tx:
        thread.start()
        entered.wait(10)
        time.sleep(0.2)
        tx.send(shop.invoices, "never")
    assert tx.state == "aborted"
    empty.send("x")
    thread.join(10)
    assert ended == []
    assert values(shop.invoices) == []
    with shop.log.transaction(shop.producer, consumer):
        assert consumer.receive(timeout=5).value == "x", "it goes back before its next message"
    assert committed(empty, "g") == {0: 1}


# --- the group moves meanwhile ---


def test_a_partition_stays_as_long_as_something_of_it_is_owed(log: Log) -> None:
    topic, out = log.topic("t", int, partitions=4), log.topic("out", int, partitions=1)
    for number in range(40):
        topic.send(number, partition=number % 4)
    producer = log.producer(name="p")
    first = topic.consumer("g")
    assert held(first) == 4
    with log.transaction(producer, first) as tx:
        got = [message.value for message in first.receive_many(100, timeout=5)]
        second = topic.consumer("g")
        more: list[int] = []
        thread = threading.Thread(target=lambda: more.extend(second.receive_many(1000, timeout=1.0).values))
        thread.start()
        while batch := first.receive_many(100, timeout=0.3):  # asked for the next, and gives nothing away
            got += batch.values
        assert held(first) == 4
        thread.join()
        assert more == []
        tx.send_many(out, got)
    assert sorted(got) == list(range(40))
    with pytest.raises(Timeout):
        first.receive(timeout=0.3)
    assert held(first) == 2, "behind the transaction it gives them away"
    topic.send_many([100], partition=0)
    topic.send_many([101], partition=1)
    topic.send_many([102], partition=2)
    topic.send_many([103], partition=3)
    rest = []
    while len(rest) < 4:
        rest += first.receive_many(10, timeout=0.2).values + second.receive_many(10, timeout=0.2).values
    assert sorted(rest) == [100, 101, 102, 103]
    assert sorted(values(out)) == list(range(40))


def test_a_consumer_that_has_taken_nothing_gives_partitions_away(log: Log) -> None:
    topic = log.topic("t", int, partitions=4)
    first = topic.consumer("g")
    with log.transaction(log.producer(name="p"), first):
        second = topic.consumer("g")
        for _ in range(10):
            first.receive_many(10, timeout=0.05)
            second.receive_many(10, timeout=0.05)
        assert (held(first), held(second)) == (2, 2)


def test_a_consumer_that_was_expelled_cannot_commit(shop: Shop) -> None:
    slow = shop.orders.consumer(max_processing=0.1)
    with pytest.raises(Fenced), shop.log.transaction(shop.producer, slow) as tx:
        tx.send(shop.invoices, slow.receive(timeout=5).value)
        time.sleep(0.3)
        with shop.orders.consumer() as other:
            assert other.receive(timeout=10).value == "order 0"
    assert tx.state == "aborted"
    assert values(shop.invoices) == []
    assert committed(shop.orders) == {0: 1}, "what the other one has handled"
    with shop.log.transaction(shop.producer, slow) as tx:
        message = slow.receive(timeout=5)
        assert message.value == "order 1"
        tx.send(shop.invoices, message.value)
    assert values(shop.invoices) == ["order 1"]


def test_a_newer_consumer_of_its_name_takes_over(shop: Shop) -> None:
    old = shop.orders.consumer(member="till-3")
    with pytest.raises(Fenced), shop.log.transaction(shop.producer, old) as tx:
        tx.send(shop.invoices, old.receive(timeout=5).value)
        new = shop.orders.consumer(member="till-3")
        assert new.receive(timeout=5).value == "order 0"
    assert values(shop.invoices) == []


def test_the_time_is_up_while_something_is_owed(shop: Shop) -> None:
    """The partition may go then: the transaction is lost anyway."""
    first = shop.orders.consumer()
    with pytest.raises(Fenced), shop.log.transaction(shop.producer, first, timeout=0.2) as tx:
        tx.send(shop.invoices, first.receive(timeout=5).value)
        with pytest.raises(Timeout):
            shop.receipts.consumer("g").receive(timeout=0.3)
    assert values(shop.invoices) == []
    assert first.receive(timeout=5).value == "order 0"


# --- other processes ---

_DIES = """
import os, sys, tidelog
log = tidelog.open(sys.argv[1])
orders, invoices = log.queue("orders", str), log.queue("invoices", str)
with orders.consumer() as consumer, log.transaction(log.producer(name="till"), consumer) as tx:
    tx.send_many(invoices, [m.value for m in consumer.receive_many(3, timeout=10)])
    if sys.argv[2] == "before":
        os.kill(os.getpid(), 9)
    tx.commit()
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_process_that_is_killed(tmp_path: Path, moment: str) -> None:
    for shop in shops(tmp_path / "log"):
        ended = subprocess.run([sys.executable, "-c", _DIES, str(tmp_path / "log"), moment], timeout=60, check=False)
        assert ended.returncode == -9
        with shop.orders.consumer() as consumer:
            left = consumer.receive_many(100, timeout=5).values
        assert len(left) == (5 if moment == "before" else 2)
        assert len(values(shop.invoices)) == 5 - len(left)
        with shop.log.transaction(shop.log.producer(name="till")) as tx:
            tx.send(shop.receipts, "next")
        assert values(shop.receipts) == ["next"]
