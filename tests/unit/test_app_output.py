"""What becomes of what a handler returns: messages, answers; and of batches that fail?"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest

import tidelog
from tests.unit.app_kit import SOON, WAIT_SECONDS, Order, committed, until
from tidelog.app import App, Retry
from tidelog.message import Batch

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
