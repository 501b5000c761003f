"""Does a running application handle every message, in the order of its key, and commit no more than it has finished?"""

from __future__ import annotations

import random
import threading
import time
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tidelog
from tests.unit.app_kit import MODES, SOON, Order, committed, lag, register, until
from tidelog.app import App, Failure, Retry
from tidelog.message import Message


@pytest.mark.parametrize(("is_async", "concurrency"), MODES)
def test_every_message_once_in_the_order_of_its_key_and_committed(
    log: tidelog.Log, is_async: bool, concurrency: Any
) -> None:
    channel = log.queue("orders", Order)
    seen: dict[bytes | None, list[int]] = defaultdict(list)
    app = App("a", log=log)
    register(app, is_async, lambda m: seen[m.key].append(m.value.id), channel, concurrency=concurrency)
    channel.send_many([Order(i) for i in range(3000)], keys=[f"{i % 17}" for i in range(3000)])
    with app:
        until(lambda: committed(channel) and lag(channel) == 0, app)
    assert dict(seen) == {f"{k}".encode(): list(range(k, 3000, 17)) for k in range(17)}


@pytest.mark.parametrize(("is_async", "concurrency"), MODES)
def test_a_poison_message_holds_up_its_own_key_and_no_other(log: tidelog.Log, is_async: bool, concurrency: Any) -> None:
    channel = log.queue("orders", Order, partitions=1)
    mended = threading.Event()
    seen: list[int] = []

    def handle(message: Message[Order]) -> None:
        if message.value.id == 0 and not mended.is_set():
            raise ConnectionError("not yet")
        seen.append(message.value.id)

    app = App("a", log=log)
    policy = Retry(attempts=1_000_000, first=0.01, most=0.02)
    register(app, is_async, handle, channel, concurrency=concurrency, retries=policy)
    channel.send_many([Order(i) for i in range(100)], keys=[f"{i % 10}" for i in range(100)])
    with app:
        until(lambda: len(seen) == 90, app)
        time.sleep(0.1)
        assert len(seen) == 90 and all(one % 10 for one in seen), "the key 0 waits, and nobody else"
        assert committed(channel) in ({}, {0: 0}), "nothing behind the poison message may be committed"
        mended.set()
        until(lambda: committed(channel) == {0: 100}, app)
    assert [one for one in seen if one % 10 == 0] == list(range(0, 100, 10))


@pytest.mark.parametrize(("is_async", "concurrency"), MODES)
def test_used_up_attempts_end_in_the_dead_letter_channel(log: tidelog.Log, is_async: bool, concurrency: Any) -> None:
    channel = log.queue("orders", Order, partitions=1)
    tries: dict[int, int] = defaultdict(int)

    def handle(message: Message[Order]) -> None:
        tries[message.value.id] += 1
        if message.value.id % 5 == 0:
            raise ValueError(f"no {message.value.id}")

    app = App("a", log=log)
    register(
        app, is_async, handle, channel, concurrency=concurrency, retries=SOON, dead_letter="orders.dead"
    )  # fmt: skip
    for i in range(10):
        channel.send(Order(i), key=f"k{i % 5}", headers={"src": "web", "attempts": "a user's own"})
    with app:
        until(lambda: committed(channel) == {0: 10}, app)
    assert tries == {i: 3 if i % 5 == 0 else 1 for i in range(10)}
    dead = list(log["orders.dead"].scan())
    assert [message.raw for message in dead] == [b'{"id":0}', b'{"id":5}']
    assert [message.key for message in dead] == [b"k0", b"k0"]
    headers = dict(dead[1].headers)
    trace = headers.pop("traceback").decode()
    assert headers == {
        "src": b"web",
        "dead-letter-channel": b"orders",
        "dead-letter-partition": b"0",
        "dead-letter-offset": b"5",
        "dead-letter-group": b"orders",
        "error": b"ValueError",
        "error-text": b"no 5",
        "attempts": b"3",
    }
    assert trace.startswith("Traceback") and "no 5" in trace and "tidelog/app" not in trace


@pytest.mark.parametrize(("is_async", "concurrency"), MODES)
def test_a_message_says_which_attempt_it_is_and_its_value_is_fresh(
    log: tidelog.Log, is_async: bool, concurrency: Any
) -> None:
    channel = log.queue("orders", Order, partitions=1)
    seen: dict[str, list[tuple[int, int]]] = defaultdict(list)

    def handle(message: Message[Order]) -> None:
        seen[message.id].append((message.attempt, message.value.id))
        message.value.id += 100  # what an attempt does to its value is not there for the next one
        if len(seen[message.id]) <= len(message.id):
            raise ConnectionError("not yet")

    app = App("a", log=log)
    register(app, is_async, handle, channel, concurrency=concurrency, retries=Retry(attempts=9, first=0.001))
    channel.send(Order(7), id="x", key="k")
    channel.send(Order(8), id="yyy", key="k", headers={"attempt": "10"})
    with app:
        until(lambda: committed(channel) == {0: 2}, app)
    assert seen == {"x": [(1, 7), (2, 7)], "yyy": [(10, 8), (11, 8), (12, 8), (13, 8)]}


@pytest.mark.parametrize(("is_async", "concurrency"), MODES)
def test_without_a_dead_letter_channel_the_application_stops_and_nothing_is_lost(
    log: tidelog.Log, is_async: bool, concurrency: Any
) -> None:
    channel = log.queue("orders", Order, partitions=1)
    other = log.queue("other", partitions=1)
    seen: list[int] = []
    broken = True

    def handle(message: Message[Order]) -> None:
        if message.value.id == 3 and broken:
            raise ValueError("no 3")
        seen.append(message.value.id)

    channel.send_many([Order(i) for i in range(6)], keys=["k"] * 6)
    app = App("a", log=log)
    register(app, is_async, handle, channel, concurrency=concurrency, retries=SOON)
    app.on(other)(lambda value: None)
    app.start()
    until(lambda: app.failure is not None)
    app.stop()
    assert isinstance(app.failure, ValueError) and str(app.failure) == "no 3"
    assert any("orders-0@3" in note and "attempt 3" in note for note in app.failure.__notes__)
    assert seen == [0, 1, 2]
    assert committed(channel) == {0: 3}
    broken = False
    again = App("a", log=log)
    register(again, is_async, handle, channel, concurrency=concurrency)
    with again:
        until(lambda: committed(channel) == {0: 6}, again)
    assert seen == [0, 1, 2, 3, 4, 5]


@settings(max_examples=25)
@given(
    keys=st.lists(st.integers(0, 4) | st.none(), min_size=1, max_size=60),
    fails=st.dictionaries(st.integers(0, 59), st.integers(1, 6), max_size=20),
    concurrency=st.sampled_from([1, 3, "key"]),
    is_async=st.booleans(),
    partitions=st.integers(1, 3),
    seed=st.integers(0, 1 << 30),
)
def test_order_per_key_holds_through_failures(
    keys: list[int | None],
    fails: dict[int, int],
    concurrency: Any,
    is_async: bool,
    partitions: int,
    seed: int,
) -> None:
    """Random messages fail a random number of times, some for good; per key the final outcomes keep their order, no two
    messages of one key are out at once, and everything is committed in the end."""
    chance = random.Random(seed)
    left = dict(fails)
    finals: dict[Any, list[int]] = defaultdict(list)
    out: set[Any] = set()
    lock = threading.Lock()
    overlaps: list[Any] = []

    def handle(message: Message[Order]) -> None:
        number, key = message.value.id, message.key
        with lock:
            if key is not None and key in out:
                overlaps.append(key)
            out.add(key)
        if chance.random() < 0.3:
            time.sleep(chance.random() * 0.002)
        with lock:
            out.discard(key)
            left[number] = left.get(number, 0) - 1
            if left[number] >= 0:
                raise RuntimeError(f"{number} fails")
            finals[key].append(number)

    def died(failure: Failure) -> None:
        if failure.then == "dead-letter":
            finals[failure.message.key].append(failure.message.value.id)

    with tidelog.open("memory:") as log:
        channel = log.queue("orders", Order, partitions=partitions)
        app = App("a", log=log)
        policy = Retry(attempts=4, first=0.001, factor=1.5, jitter=1)
        register(app, is_async, handle, channel, concurrency=concurrency, retries=policy, dead_letter="orders.dead")
        app.on_error(died)
        for number, key in enumerate(keys):
            channel.send(Order(number), key=None if key is None else f"key {key}")
        with app:
            until(lambda: committed(channel) and lag(channel) == 0, app)
        dead = sorted(message.raw for message in log["orders.dead"].scan())
    assert not overlaps
    expected: dict[Any, list[int]] = defaultdict(list)
    for number, key in enumerate(keys):
        expected[None if key is None else f"key {key}".encode()].append(number)
    for key, numbers in expected.items():
        assert (sorted(finals[key]) if key is None else finals[key]) == numbers
    gone = [number for number, times in fails.items() if times >= 4 and number < len(keys)]
    assert dead == sorted(b'{"id":%d}' % number for number in gone)


def test_bytes_of_another_type_are_dead_at_once(log: tidelog.Log) -> None:
    channel = log.queue("orders", Order, partitions=1)
    raw = log.engine.open(channel.opened().definition, tidelog.codec.Codec("raw", "bytes"))
    sender = tidelog._native.Sender()
    log.engine.attach_sender(sender, raw)
    sender.send(b"not json", key=b"k")
    channel.send(Order(1), key="k")
    seen: list[int] = []
    app = App("a", log=log)

    @app.on(channel, retries=Retry(attempts=9, first=60), dead_letter="orders.dead")
    def handle(order: Order) -> None:
        seen.append(order.id)

    with app:
        until(lambda: committed(channel) == {0: 2}, app)
    (dead,) = log["orders.dead"].scan()
    assert dead.raw == b"not json" and dead.headers["attempts"] == b"1"
    assert dead.headers["error"] == b"DecodeError"
    assert seen == [1]


def test_a_decode_error_of_the_handler_s_own_is_an_error_like_others(log: tidelog.Log) -> None:
    channel = log.queue("orders", Order, partitions=1)
    tries: list[int] = []
    app = App("a", log=log)

    @app.on(channel, retries=SOON, dead_letter="orders.dead")
    def handle(order: Order) -> None:
        tries.append(order.id)
        raise tidelog.DecodeError("something else that it reads")

    channel.send(Order(1))
    with app:
        until(lambda: committed(channel) == {0: 1}, app)
    assert tries == [1, 1, 1]
