"""Does an application start, share its partitions, and stop in order: hooks, drains, hand-overs, limits?"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

import tidelog
from tests.unit.app_kit import WAIT_SECONDS, committed, until
from tidelog.app import App, Failure, Retry, inline, intake, parallel
from tidelog.message import Message


def test_hooks_are_called_in_order_and_async_ones_are_waited_for(log: tidelog.Log) -> None:
    app = App("a", log=log)
    told: list[Any] = []
    orders = app.queue("orders", int, partitions=1)

    @app.before_start
    def first() -> None:
        told.append("before_start")
        assert not app.running and not app.log.closed

    @app.after_start
    async def second() -> None:
        await asyncio.sleep(0.01)
        told.append("after_start")

    @app.on_error
    async def failed(failure: Failure) -> None:
        told.append((failure.handler, failure.message.value, str(failure.error), failure.attempt, failure.then))
        raise RuntimeError("what a hook raises decides nothing")

    @app.before_stop
    def third() -> None:
        told.append("before_stop")
        raise RuntimeError("and does not keep the application from stopping")

    @app.after_stop
    def fourth() -> None:
        told.append("after_stop")
        assert committed(orders) == {0: 1}

    @app.on(orders, retries=Retry(attempts=2, first=0), dead_letter="dead")
    async def handle(number: int) -> None:
        raise ValueError(f"no {number}")

    with app:
        orders.send(7)
        until(lambda: committed(orders) == {0: 1}, app)
        with pytest.raises(RuntimeError, match="runs already"):
            app.on("more")(lambda value: None)
        with pytest.raises(RuntimeError, match="runs already"):
            app.start()
    assert told == [
        "before_start",
        "after_start",
        ("handle", 7, "no 7", 1, "retry"),
        ("handle", 7, "no 7", 2, "dead-letter"),
        "before_stop",
        "after_stop",
    ]
    assert not app.running
    app.stop()


@pytest.mark.parametrize("moment", ["before_start", "after_start"])
def test_a_hook_that_raises_stops_the_start(log: tidelog.Log, moment: str) -> None:
    app = App("a", log=log)
    orders = app.queue("orders", int)
    app.on(orders)(lambda number: None)

    def refuse() -> None:
        raise RuntimeError("not today")

    getattr(app, moment)(refuse)
    with pytest.raises(RuntimeError, match="not today"):
        app.start()
    assert not app.running and not log.engine.handles()
    with pytest.raises(TypeError, match="takes a function"):
        app.before_stop(7)  # type: ignore[type-var]


def test_it_can_be_started_again(log: tidelog.Log) -> None:
    seen: list[int] = []
    app = App("a", log=log)
    orders = app.queue("orders", int, partitions=1)
    app.on(orders)(seen.append)
    for number in range(3):
        orders.send(number)
        with app:
            until(lambda: committed(orders) == {0: number + 1}, app)  # noqa: B023
    assert seen == [0, 1, 2]


def test_a_log_that_it_opened_is_closed_and_one_that_was_given_is_not(tmp_path: Any) -> None:
    app = App("a", tmp_path / "shop.log")
    app.on("orders")(lambda value: None)
    with app:
        mine = app.log
    assert mine.closed
    with tidelog.open(tmp_path / "shop.log") as given:
        with App("b", log=given) as other:
            assert other.log is given
        assert not given.closed


@pytest.mark.parametrize("concurrency", [1, 4, "key"])
@pytest.mark.parametrize("is_async", [False, True])
def test_stopping_finishes_what_is_being_handled_and_commits_it(
    log: tidelog.Log, concurrency: Any, is_async: bool
) -> None:
    channel = log.queue("orders", int, partitions=1)
    channel.send_many(list(range(100)), keys=[str(number) for number in range(100)])
    begun, go, ended = threading.Semaphore(0), threading.Event(), []

    def handle(number: int) -> None:
        begun.release()
        go.wait(WAIT_SECONDS)
        ended.append(number)

    async def handle_async(number: int) -> None:
        begun.release()
        while not go.is_set():
            await asyncio.sleep(0.001)
        ended.append(number)

    app = App("a", log=log)
    app.on(channel, concurrency=concurrency)(handle_async if is_async else handle)
    app.start()
    assert begun.acquire(timeout=WAIT_SECONDS)
    stopper = threading.Thread(target=app.stop)
    stopper.start()
    time.sleep(0.2)
    assert not ended and stopper.is_alive()
    go.set()
    stopper.join(WAIT_SECONDS)
    assert not stopper.is_alive()
    count = len(ended)
    limit = {1: 1, 4: 4, "key": parallel.KEY_TASKS if is_async else parallel.KEY_THREADS}[concurrency]
    assert 1 <= count <= limit, "what was not being handled is left"
    assert sorted(ended) == list(range(count))
    assert committed(channel) == {0: count}


@pytest.mark.parametrize("concurrency", [1, 2])
@pytest.mark.parametrize("is_async", [False, True])
def test_a_handler_that_does_not_end_is_given_up_after_the_drain_timeout(
    log: tidelog.Log, concurrency: Any, is_async: bool
) -> None:
    channel = log.queue("orders", int, partitions=1)
    channel.send_many([0, 1, 2], keys=["a", "a", "a"])
    stuck, end = threading.Event(), threading.Event()

    def handle(number: int) -> None:
        if number == 1:
            stuck.set()
            end.wait(WAIT_SECONDS)

    async def handle_async(number: int) -> None:
        if number == 1:
            stuck.set()
            await asyncio.sleep(WAIT_SECONDS)

    app = App("a", log=log, drain_timeout=0.2)
    app.on(channel, concurrency=concurrency)(handle_async if is_async else handle)
    app.start()
    assert stuck.wait(WAIT_SECONDS)
    begun = time.monotonic()
    app.stop()
    assert time.monotonic() - begun < 8
    assert committed(channel).get(0, 0) <= 1
    end.set()
    seen: list[int] = []
    again = App("b", log=log)
    again.on(channel)(seen.append)
    with again:
        until(lambda: committed(channel) == {0: 3}, again)
    assert seen[-2:] == [1, 2]


def test_stop_in_a_handler_says_what_to_call(log: tidelog.Log) -> None:
    channel = log.queue("orders", int, partitions=1)
    app = App("a", log=log)
    app.on(channel)(lambda number: app.stop())
    channel.send(1)
    app.start()
    until(lambda: app.failure is not None)
    app.stop()
    assert "request_stop" in str(app.failure)


@pytest.mark.parametrize("concurrency", [1, "key"])
def test_a_partition_pauses_when_it_has_run_too_far_ahead(
    log: tidelog.Log, concurrency: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "SPAN_MESSAGES", 100)
    monkeypatch.setattr(inline, "BATCH_SECONDS", (0.0, 10.0))  # so many as the first time are read each time
    channel = log.queue("orders", int, partitions=2)
    for partition in range(2):
        channel.send_many(list(range(2000)), keys=[str(number) for number in range(2000)], partition=partition)
    mended = threading.Event()
    seen: dict[int, list[int]] = {0: [], 1: []}
    app = App("a", log=log)

    @app.on(channel, concurrency=concurrency, retries=Retry(attempts=10**6, first=0.01, most=0.01))
    def handle(message: Message[int]) -> None:
        if message.partition == 0 and message.value == 0 and not mended.is_set():
            raise ConnectionError("not yet")
        seen[message.partition].append(message.value)

    with app:
        until(lambda: committed(channel).get(1) == 2000, app)  # the other one goes on to its end
        time.sleep(0.2)
        ahead = len(seen[0])
        assert 90 <= ahead <= 100 + parallel.RECEIVE_COUNT, "it stops a little after the limit"
        mended.set()
        until(lambda: committed(channel) == {0: 2000, 1: 2000}, app)
    assert sorted(seen[0]) == list(range(2000))


@pytest.mark.parametrize(("concurrency", "is_async"), [(1, False), (3, False), ("key", True)])
def test_at_most_once_commits_before_the_handler(log: tidelog.Log, concurrency: Any, is_async: bool) -> None:
    channel = log.queue("orders", int, partitions=1)
    channel.send_many(list(range(20)), keys=["a"] * 20)
    seen: list[tuple[int, int]] = []
    app = App("a", log=log)

    def handle(number: int) -> None:
        seen.append((number, committed(channel).get(0, 0)))

    async def handle_async(number: int) -> None:
        handle(number)

    app.on(channel, delivery="at-most-once", concurrency=concurrency)(handle_async if is_async else handle)
    with app:
        until(lambda: len(seen) == 20, app)
    assert [number for number, _ in seen] == list(range(20))
    assert all(offset > number for number, offset in seen)


@pytest.mark.parametrize(("concurrency", "is_async"), [(1, False), (3, False), ("key", True)])
def test_at_most_once_loses_nothing_when_it_stops_in_order(log: tidelog.Log, concurrency: Any, is_async: bool) -> None:
    channel = log.queue("orders", int, partitions=1)
    channel.send_many(list(range(300)), keys=[f"{number % 5}" for number in range(300)])
    seen: list[int] = []

    def handle(number: int) -> None:
        time.sleep(0.001)
        seen.append(number)

    async def handle_async(number: int) -> None:
        await asyncio.sleep(0.001)
        seen.append(number)

    app = App("a", log=log)
    app.on(channel, delivery="at-most-once", concurrency=concurrency)(handle_async if is_async else handle)
    with app:
        until(lambda: seen, app)
    assert len(seen) == len(set(seen)) == committed(channel)[0]


def test_at_most_once_hands_over_what_it_has_when_a_partition_goes(log: tidelog.Log) -> None:
    channel = log.queue("orders", int, partitions=2)
    channel.send_many(list(range(400)), keys=[f"k{number}" for number in range(400)])
    seen: list[int] = []

    def make(name: str) -> App:
        app = App(name, log=log)

        @app.on(channel, delivery="at-most-once", concurrency=4)
        def handle(number: int) -> None:
            time.sleep(0.001)
            seen.append(number)

        return app

    first, second = make("first"), make("second")
    with first:
        until(lambda: seen, first)
        with second:
            until(lambda: len(seen) == 400, second)
    assert sorted(seen) == list(range(400))


def test_one_stuck_handler_of_many_loses_its_partitions_after_max_processing(log: tidelog.Log) -> None:
    channel = log.queue("orders", int, partitions=1)
    release = threading.Event()
    stuck = threading.Event()
    slow = App("slow", log=log, drain_timeout=0.2)

    @slow.on(channel, concurrency=2, max_processing=0.3)
    def hang(number: int) -> None:
        stuck.set()
        release.wait(WAIT_SECONDS)

    seen: list[int] = []
    other = App("other", log=log)
    other.on(channel)(seen.append)
    channel.send(1, key="a")
    with slow:
        assert stuck.wait(WAIT_SECONDS)
        with other:
            until(lambda: seen == [1], other)
            until(lambda: committed(channel) == {0: 1}, other)
        release.set()


def test_a_topic_that_a_dead_letter_comes_back_to_is_skipped_by_the_groups_that_had_it(log: tidelog.Log) -> None:
    prices = log.topic("prices", int, partitions=1)
    first, second = App("first", log=log), App("second", log=log)
    broken = True
    seen: list[tuple[str, int]] = []

    @first.on(prices, dead_letter="prices.dead")
    def one(price: int) -> None:
        if broken:
            raise ValueError("broken")
        seen.append(("first", price))

    @second.on(prices, concurrency="key")
    def two(price: int) -> None:
        seen.append(("second", price))

    with first, second:
        prices.send(5)
        until(lambda: len(list(log["prices.dead"].scan())) == 1 and seen == [("second", 5)])
        broken = False
        from tidelog.app.redrive import redrive

        (row,) = redrive(log, log["prices.dead"], lambda message: True)
        assert row.status == "sent"
        prices.send(6)
        until(lambda: len(seen) >= 4)
    assert sorted(seen) == [("first", 5), ("first", 6), ("second", 5), ("second", 6)]


def test_latest_stays_where_it_was_first_asked_for(log: tidelog.Log) -> None:
    """Otherwise a member that takes over before anything was committed would skip what came meanwhile."""
    channel = log.queue("orders", int, partitions=2)
    for partition in range(2):
        channel.send(0, partition=partition)
    seen: list[int] = []
    first, second = App("first", log=log), App("second", log=log)
    for app in (first, second):
        app.on(channel, start="latest")(seen.append)
    with first:
        until(lambda: committed(channel) == {0: 1, 1: 1}, first)
    for partition in range(2):
        channel.send(1 + partition, partition=partition)
    with second:
        until(lambda: len(seen) == 2, second)
    assert sorted(seen) == [1, 2]


def test_open_channels_stay_in_their_log_whatever_the_application_s_own_is(tmp_path: Any) -> None:
    with tidelog.open("memory:") as log:
        orders = log.queue("orders", int, partitions=1)
        app = App("a", tmp_path / "other.log")
        seen: list[int] = []
        app.on(orders, sends="answers", retries=1)(lambda number: seen.append(number) or str(number).encode())
        orders.send(5)
        with app:
            until(lambda: committed(orders) == {0: 1}, app)
            assert "orders" not in app.log and "answers" in app.log
        with pytest.raises(ValueError, match="cannot be moved"):
            app.relocate(tmp_path / "third.log")
    assert seen == [5]


def test_an_application_can_be_told_another_log(tmp_path: Any) -> None:
    app = App("a", tmp_path / "one.log")
    orders = app.queue("orders", int, partitions=1)
    app.on(orders)(lambda number: None)
    app.relocate(tmp_path / "two.log")
    with app:
        orders.send(1)
        until(lambda: committed(orders) == {0: 1}, app)
        with pytest.raises(RuntimeError, match="runs already"):
            app.relocate(tmp_path / "three.log")
    assert not (tmp_path / "one.log").exists()


def test_questions_of_a_handler_belong_to_the_trace_of_its_message(log: tidelog.Log) -> None:
    orders, quotes = log.queue("orders", int, partitions=1), log.queue("quotes", int, reply=int, partitions=1)
    app = App("a", log=log)
    app.answers(quotes)(lambda number: number + 1)
    answers: list[int] = []

    @app.on(orders, concurrency=2)
    def handle(number: int) -> None:
        answers.append(quotes.ask_one(number, timeout=WAIT_SECONDS).value)

    orders.send(1, headers={"traceparent": "00-a-b-01"})
    with app:
        until(lambda: committed(orders) == {0: 1}, app)
    assert answers == [2]
    (question,) = quotes.scan()
    assert question.headers["traceparent"] == b"00-a-b-01"
