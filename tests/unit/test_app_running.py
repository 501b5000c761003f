"""Does a running application handle every message, in the order of its key, and commit no more than it has finished?"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tidelog
from tidelog.app import App, Failure, Retry
from tidelog.message import Batch, Message

WAIT_SECONDS = 30.0
SOON = Retry(attempts=3, first=0.01, jitter=0)


class Order(msgspec.Struct):
    id: int


def until(holds: Callable[[], object], app: App | None = None) -> None:
    """Wait until something holds, as long as the application has no failure."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert app is None or app.failure is None, app.failure
        assert time.monotonic() < deadline, "it did not come to hold"
        time.sleep(0.002)


def committed(channel: Any) -> dict[int, int]:
    return {row.partition: row.offset for row in channel.offsets() if row.offset >= 0}


def lag(channel: Any) -> int:
    return sum(row.lag for row in channel.offsets())


MODES = [
    pytest.param(False, 1, id="inline"),
    pytest.param(False, 4, id="threads"),
    pytest.param(False, "key", id="threads by key"),
    pytest.param(True, 1, id="one task"),
    pytest.param(True, "key", id="tasks by key"),
]


def register(app: App, is_async: bool, function: Callable[[Message[Any]], Any], channel: Any, **options: Any) -> None:
    """The same function as a plain one or as a coroutine."""
    if is_async:

        async def handle(message: Message[Any]) -> Any:
            await asyncio.sleep(0)
            return function(message)

        app.on(channel, **options)(handle)
    else:

        def handle_(message: Message[Any]) -> Any:
            return function(message)

        app.on(channel, **options)(handle_)


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


# --- what is sent ---


def test_what_is_returned_is_sent_with_key_trace_and_an_id_that_stays_the_same(log: tidelog.Log) -> None:
    source, target = log.queue("in", int, partitions=1), log.queue("out", int, partitions=1)
    app = App("a", log=log)
    failed = threading.Event()

    @app.on(source, sends=target, retries=SOON)
    def double(number: int) -> Any:
        match number:
            case 0:
                return None
            case 1:
                return [10, 11, 12]
            case 2:
                return (value for value in (20, 21))
            case 3 if not failed.is_set():
                failed.set()

                def breaks() -> Iterator[int]:
                    yield 30
                    raise RuntimeError("after the first value")

                return breaks()
        return number * 10

    headers = {"traceparent": "00-1-2-01", "tracestate": "x=1", "correlation-id": "c7", "reply-to": "nobody"}
    for number in range(4):
        source.send(number, key=f"k{number}", headers=headers)
    source.send(4, key=None, id="given")
    with app:
        until(lambda: committed(source) == {0: 5}, app)
    sent = list(target.scan())
    assert sorted(message.value for message in sent) == [10, 11, 12, 20, 21, 30, 40], "a generator is sent whole"
    by_value = {message.value: message for message in sent}
    assert [by_value[value].key for value in (10, 12, 21, 30, 40)] == [b"k1", b"k1", b"k2", b"k3", None]
    assert by_value[11].id == "in-0-1.double.1" and by_value[30].id == "in-0-3.double"
    assert by_value[40].id == "given.double"
    assert dict(by_value[30].headers) == {
        "correlation-id": b"c7",
        "traceparent": b"00-1-2-01",
        "tracestate": b"x=1",
        "message-id": b"in-0-3.double",
    }
    assert set(by_value[40].headers) == {"message-id"}


def test_the_key_of_what_is_sent_can_be_chosen(log: tidelog.Log) -> None:
    source, target = log.queue("in", Order, partitions=1), log.queue("out", Order, partitions=1)
    app = App("a", log=log)

    @app.on(source, sends=target, key=lambda order: f"order {order.id}")
    async def pass_on(order: Order) -> AsyncIterator[Order]:
        yield order
        yield Order(order.id + 100)

    source.send(Order(1), key="x")
    with app:
        until(lambda: committed(source) == {0: 1}, app)
    assert [(one.value.id, one.key) for one in target.scan()] == [(1, b"order 1"), (101, b"order 101")]


def test_a_list_is_one_value_where_the_channel_holds_lists(log: tidelog.Log) -> None:
    app = App("a", log=log)
    source, target = app.queue("in", int, partitions=1), app.queue("out", list[int], partitions=1)

    @app.on(source, sends=target)
    def count(upto: int) -> list[int]:
        return list(range(upto))

    source.send(3)
    with app:
        until(lambda: committed(source) == {0: 1}, app)
    assert [one.value for one in target.scan()] == [[0, 1, 2]]


def test_a_value_of_the_wrong_type_fails_the_message(log: tidelog.Log) -> None:
    source, target = log.queue("in", int, partitions=1), log.queue("out", Order, partitions=1)
    app = App("a", log=log)

    @app.on(source, sends=target, dead_letter="dead")
    def wrong(number: int) -> Any:
        return number

    source.send(1)
    with app:
        until(lambda: committed(source) == {0: 1}, app)
    (dead,) = log["dead"].scan()
    assert dead.headers["error"] == b"SchemaMismatch"
    assert not list(target.scan())


# --- batches ---


def test_batches_are_handed_over_whole(log: tidelog.Log) -> None:
    dtype = np.dtype([("px", "f8"), ("qty", "i4")])
    ticks, sums = log.topic("ticks", dtype, partitions=1), log.topic("sums", dtype, partitions=1)
    rows = np.zeros(500, dtype)
    rows["px"] = np.arange(500)
    ticks.send_many(rows)
    app = App("a", log=log)
    sizes: list[int] = []

    @app.on(ticks, batch=200, sends=sums)
    def chart(batch: Batch[Any]) -> Any:
        sizes.append(len(batch))
        return batch.values[:2]

    with app:
        until(lambda: committed(ticks) == {0: 500}, app)
    assert sizes == [200, 200, 100]
    assert [message.value["px"] for message in sums.scan()] == [0, 1, 200, 201, 400, 401]


def test_a_batch_that_fails_is_handed_over_again_one_by_one(log: tidelog.Log) -> None:
    channel = log.queue("orders", Order, partitions=1)
    channel.send_many([Order(i) for i in range(10)], keys=[f"{i % 2}" for i in range(10)])
    calls: list[list[int]] = []
    app = App("a", log=log)

    @app.on(channel, retries=SOON, dead_letter="orders.dead")
    async def handle(batch: Batch[Order]) -> None:
        ids = [order.id for order in batch.values]
        calls.append(ids)
        if 4 in ids:
            raise ValueError("four")

    with app:
        until(lambda: committed(channel) == {0: 10}, app)
    assert calls[0] == list(range(10))
    alone = [ids[0] for ids in calls[1:]]
    assert all(len(ids) == 1 for ids in calls[1:])
    assert [one for one in alone if one % 2] == [1, 3, 5, 7, 9]
    assert [one for one in alone if not one % 2] == [0, 2, 4, 4, 4, 6, 8]
    assert [message.raw for message in log["orders.dead"].scan()] == [b'{"id":4}']


# --- questions ---


@pytest.mark.parametrize("is_async", [False, True])
def test_what_is_returned_is_the_answer_and_what_is_raised_too(log: tidelog.Log, is_async: bool) -> None:
    quotes = log.queue("quotes", int, reply=int, partitions=1)
    app = App("a", log=log)
    tries: list[int] = []

    def answer(number: int) -> Any:
        tries.append(number)
        if number == 1:
            raise LookupError("nothing for 1")
        return None if number == 2 else number * 10

    async def answer_async(number: int) -> Any:
        return answer(number)

    app.answers(quotes, retries=SOON)(answer_async if is_async else answer)
    with app:
        assert quotes.ask_one(5, timeout=WAIT_SECONDS).value == 50
        failed = quotes.ask_one(1, timeout=WAIT_SECONDS)
        with pytest.raises(tidelog.ReplyError, match="nothing for 1") as error:
            failed.value  # noqa: B018
        assert error.value.kind == "LookupError"
        with pytest.raises(tidelog.Timeout):
            quotes.ask_one(2, timeout=0.3)
    assert tries == [5, 1, 1, 1, 2]


@pytest.mark.parametrize("dead_letter", [None, "quotes.dead"])
def test_an_error_that_is_answered_is_a_warning(
    log: tidelog.Log, caplog: pytest.LogCaptureFixture, dead_letter: str | None
) -> None:
    quotes = log.queue("quotes", str, reply=int, partitions=1)
    app = App("a", log=log)
    told: list[tuple[str, int]] = []
    app.on_error(lambda failure: told.append((failure.then, failure.attempt)))

    @app.answers(quotes, retries=Retry(attempts=2, first=0), dead_letter=dead_letter)
    def price(name: str) -> int:
        return {"tea": 3}[name]

    with app:
        failed = quotes.ask_one("rum", timeout=WAIT_SECONDS)
        with pytest.raises(tidelog.ReplyError) as error:
            failed.value  # noqa: B018
        until(lambda: len(told) == 2, app)
    assert (error.value.kind, error.value.text) == ("KeyError", "rum")
    assert (failed.headers["error"], failed.headers["error-text"]) == (b"KeyError", b"rum")
    assert told == [("retry", 1), ("dead-letter" if dead_letter else "answer", 2)]
    _, last = [record for record in caplog.records if "price failed at quotes-0@0" in record.getMessage()]
    if dead_letter is None:
        assert (last.levelname, last.exc_info) == ("WARNING", None) and "to an error answer" in last.getMessage()
    else:
        assert last.levelname == "ERROR" and last.exc_info is not None
        (dead,) = log[dead_letter].scan()
        assert (dead.headers["error"], dead.headers["error-text"]) == (b"KeyError", b"rum")


def test_a_generator_gives_several_answers(log: tidelog.Log) -> None:
    quotes = log.queue("quotes", int, reply=int, partitions=1)
    app = App("a", log=log)

    @app.answers(quotes)
    def count(upto: int) -> Iterator[int]:
        yield from range(upto)

    with app, quotes.ask(3, timeout=WAIT_SECONDS, limit=3) as replies:
        assert [reply.value for reply in replies] == [0, 1, 2]


@pytest.mark.parametrize("address", ["reply.gone", "quotes", "no such/name", "commands"])
def test_a_question_with_a_wrong_address_stops_nobody(log: tidelog.Log, address: str) -> None:
    quotes = log.queue("quotes", int, reply=int, partitions=1)
    log.queue("commands", partitions=1)
    app = App("a", log=log)
    app.answers(quotes)(lambda number: number)
    quotes.send(1, headers={"reply-to": address})
    with app:
        assert quotes.ask_one(2, timeout=WAIT_SECONDS).value == 2
        until(lambda: committed(quotes) == {0: 2}, app)
    assert not list(log["commands"].scan())


def test_a_question_that_nobody_waits_for_needs_another_place(log: tidelog.Log) -> None:
    quotes = log.queue("quotes", int, reply=int, partitions=1)
    app = App("a", log=log)

    @app.answers(quotes)
    def refuse(number: int) -> int:
        raise ValueError("no")

    quotes.send(1)
    app.start()
    until(lambda: app.failure is not None)
    app.stop()
    assert isinstance(app.failure, ValueError)
