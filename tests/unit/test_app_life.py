"""Does an application start, share its partitions, and stop in order: hooks, drains, hand-overs, limits?"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest

import tidelog
from tidelog.app import App, Failure, Retry, inline, intake, parallel
from tidelog.message import Message

WAIT_SECONDS = 30.0


def until(holds: Callable[[], object], app: App | None = None) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert app is None or app.failure is None, app.failure
        assert time.monotonic() < deadline, "it did not come to hold"
        time.sleep(0.002)


def committed(channel: Any) -> dict[int, int]:
    return {row.partition: row.offset for row in channel.offsets() if row.offset >= 0}


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
def test_two_applications_share_the_partitions_and_hand_them_over_in_order(log: tidelog.Log, concurrency: Any) -> None:
    """One works, another joins and leaves again, several times; no message twice, order per key kept."""
    channel = log.queue("orders", int, partitions=4)
    lock = threading.Lock()
    seen: dict[bytes | None, list[int]] = defaultdict(list)
    who: dict[str, int] = defaultdict(int)

    def make(name: str) -> App:
        app = App(name, log=log)

        @app.on(channel, concurrency=concurrency, retries=Retry(attempts=3, first=0.001))
        def handle(message: Message[int]) -> None:
            time.sleep(0.0005)
            with lock:
                seen[message.key].append(message.value)
                who[name] += 1

        return app

    total = 4000
    first = make("first")
    with first:
        channel.send_many(list(range(total)), keys=[f"k{number % 50}" for number in range(total)])
        for _ in range(3):
            second = make("second")
            with second:
                time.sleep(0.15)
        until(lambda: sum(committed(channel).values()) == total, first)
    assert who["second"] > 0
    for key, numbers in seen.items():
        assert numbers == sorted(numbers)
        assert len(set(numbers)) == len(numbers), f"{key!r} came twice although nobody died"
    assert sum(map(len, seen.values())) == total


class HotKey:
    """A slow key among quick ones, so that the quick ones run ahead of it."""

    def __init__(self, log: tidelog.Log, partitions: int) -> None:
        self.log = log
        self.channel = log.queue("orders", int, partitions=partitions)
        for partition in range(partitions):
            keys = ["hot" if number % 4 == 0 else f"cold {number}" for number in range(120)]
            self.channel.send_many(list(range(120)), keys=keys, partition=partition)
        self.seen: list[tuple[int, int]] = []
        self.hot = 0

    def app(self, name: str, is_async: bool) -> App:
        app = App(name, log=self.log)

        def handle(message: Message[int]) -> None:
            time.sleep(0.01 if message.key == b"hot" else 0)
            self.hot += message.key == b"hot"
            self.seen.append((message.partition, message.value))

        async def handle_async(message: Message[int]) -> None:
            await asyncio.sleep(0.01 if message.key == b"hot" else 0)
            self.hot += message.key == b"hot"
            self.seen.append((message.partition, message.value))

        app.on(self.channel, concurrency="key")(handle_async if is_async else handle)
        return app


@pytest.mark.parametrize("is_async", [False, True])
def test_nothing_that_is_finished_is_handled_again_after_a_stop(log: tidelog.Log, is_async: bool) -> None:
    case = HotKey(log, 1)
    with case.app("first", is_async) as first:
        until(lambda: case.hot >= 3, first)
    finished = len(case.seen)
    assert case.hot < finished == committed(case.channel)[0]
    with case.app("second", is_async) as second:
        until(lambda: len(case.seen) >= 120, second)
    assert sorted(case.seen) == [(0, number) for number in range(120)]


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("gaps", [intake.GAPS_SECONDS, 0.0])
def test_nothing_that_is_finished_is_handled_again_after_a_hand_over(
    log: tidelog.Log, is_async: bool, gaps: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "GAPS_SECONDS", gaps)
    case = HotKey(log, 2)
    with case.app("first", is_async) as first:
        until(lambda: case.hot >= 3, first)
        with case.app("second", is_async):
            until(lambda: len(set(case.seen)) == 240, first)
            until(lambda: sum(committed(case.channel).values()) == 240, first)
    assert set(case.seen) == {(partition, number) for partition in range(2) for number in range(120)}
    twice = len(case.seen) - 240
    assert twice == 0 if gaps else twice > 0, "without the time to close the gaps, what ran ahead comes twice"


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("concurrency", [1, "key"])
@pytest.mark.parametrize("how", ["hand-over", "stop"])
def test_a_retry_that_is_due_soon_is_done_before_its_partition_goes(
    log: tidelog.Log, how: str, concurrency: Any, is_async: bool
) -> None:
    """The first message of each partition waits for a retry, and what is behind it is finished: nothing comes twice."""
    channel = log.queue("orders", int, partitions=2)
    for partition in range(2):
        channel.send_many(list(range(20)), keys=[str(number // 2) for number in range(20)], partition=partition)
    tries: dict[tuple[int, int], list[str]] = defaultdict(list)

    def make(name: str) -> App:
        app = App(name, log=log)

        def handle(message: Message[int]) -> None:
            mine = tries[message.partition, message.value]
            mine.append(name)
            if message.value == 0 and len(mine) == 1:
                raise ConnectionError("not yet")

        async def handle_async(message: Message[int]) -> None:
            handle(message)

        policy = Retry(attempts=3, first=0.6, jitter=0)
        app.on(channel, concurrency=concurrency, retries=policy)(handle_async if is_async else handle)
        return app

    first, second = make("first"), make("second")
    with first:
        until(lambda: len(tries) == 38, first)  # all but 1, which is behind 0 in each partition
        assert not committed(channel)
        if how == "hand-over":
            with second:
                until(lambda: sum(committed(channel).values()) == 40, second)
        else:
            first.stop()
            assert sum(committed(channel).values()) == 40, "the retries were waited for"
    expected = {(partition, number): 2 if number == 0 else 1 for partition in range(2) for number in range(20)}
    assert {place: len(who) for place, who in tries.items()} == expected


@pytest.mark.parametrize("concurrency", [1, "key"])
def test_a_late_retry_is_not_waited_for(log: tidelog.Log, concurrency: Any) -> None:
    channel = log.queue("orders", int, partitions=1)
    channel.send_many(list(range(20)), keys=[str(number) for number in range(20)])
    first, second = App("first", log=log), App("second", log=log)
    seen: list[int] = []

    @first.on(channel, concurrency=concurrency, retries=Retry(attempts=2, first=3600, most=3600))
    def handle(number: int) -> None:
        if number == 3:
            raise ConnectionError("not today")
        seen.append(number)

    second.on(channel)(seen.append)
    with first:
        until(lambda: len(seen) == 19, first)
        begun = time.monotonic()
        first.stop()
        assert time.monotonic() - begun < intake.GAPS_SECONDS / 2
    assert committed(channel) == {0: 3}
    with second:
        until(lambda: committed(channel) == {0: 20}, second)
    assert seen[19:] == list(range(3, 20)), "from the waiting message on, in order"


@pytest.mark.parametrize("concurrency", [1, "key"])
@pytest.mark.parametrize("is_async", [False, True])
def test_an_idle_application_stops_at_once(
    log: tidelog.Log, monkeypatch: pytest.MonkeyPatch, concurrency: Any, is_async: bool
) -> None:
    for module in (inline, parallel):
        monkeypatch.setattr(module, "IDLE_SECONDS", WAIT_SECONDS)
    seen: list[int] = []

    async def handle_async(number: int) -> None:
        seen.append(number)

    channel = log.queue("orders", int, partitions=1)
    app = App("a", log=log, drain_timeout=WAIT_SECONDS)
    app.on(channel, concurrency=concurrency)(handle_async if is_async else seen.append)
    app.start()
    channel.send(1)
    until(lambda: committed(channel) == {0: 1}, app)
    time.sleep(0.2)  # it sleeps now
    begun = time.monotonic()
    app.stop()
    assert time.monotonic() - begun < WAIT_SECONDS / 6
    assert seen == [1]


def test_what_fails_for_good_stops_an_idle_receiver_at_once(log: tidelog.Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "IDLE_SECONDS", 4 * WAIT_SECONDS)
    monkeypatch.setattr(parallel, "LOOK_SECONDS", 4 * WAIT_SECONDS)
    channel = log.queue("orders", int, partitions=1)
    app = App("a", log=log)

    @app.on(channel, concurrency="key")
    def fail(number: int) -> None:
        time.sleep(0.3)
        raise ValueError("no")

    channel.send(1)
    app.start()
    until(lambda: app.failure is not None)
    app.stop()


@pytest.mark.parametrize("concurrency", [1, "key"])
def test_what_waits_for_a_retry_goes_to_the_next_owner(log: tidelog.Log, concurrency: Any) -> None:
    channel = log.queue("orders", int, partitions=2)
    bad = App("bad", log=log)
    tried = threading.Event()

    @bad.on(channel, concurrency=concurrency, retries=Retry(attempts=100, first=3600, most=3600))
    def fail(number: int) -> None:
        tried.set()
        raise ConnectionError("never")

    good = App("good", log=log)
    seen: list[int] = []
    good.on(channel, concurrency=concurrency)(seen.append)
    channel.send(0, partition=0, key="a")
    channel.send(1, partition=1, key="b")
    with bad:
        assert tried.wait(WAIT_SECONDS)
        with good:
            until(lambda: len(seen) == 1, good)  # the partition that was handed over
            time.sleep(0.1)
            assert len(seen) == 1
            bad.stop()
            until(lambda: sum(committed(channel).values()) == 2, good)
    assert sorted(seen) == [0, 1]


@pytest.mark.parametrize("is_async", [False, True])
def test_what_fails_while_its_partition_goes_is_not_tried_again_here(log: tidelog.Log, is_async: bool) -> None:
    channel = log.queue("orders", int, partitions=2)
    story: list[tuple[str, int]] = []
    out = threading.Semaphore(0)
    first, second = App("first", log=log), App("second", log=log)

    def fail(partition: int) -> None:
        story.append(("first", partition))
        out.release()
        time.sleep(0.3)
        raise ConnectionError("never")

    async def fail_async(partition: int) -> None:
        story.append(("first", partition))
        out.release()
        await asyncio.sleep(0.3)
        raise ConnectionError("never")

    policy = Retry(attempts=10**6, first=0.01, most=0.01)
    first.on(channel, concurrency="key", retries=policy)(fail_async if is_async else fail)
    second.on(channel)(lambda partition: story.append(("second", partition)))
    for partition in range(2):
        channel.send(partition, partition=partition, key="k")
    with first:
        assert out.acquire(timeout=WAIT_SECONDS) and out.acquire(timeout=WAIT_SECONDS)
        with second:
            until(lambda: any(name == "second" for name, _ in story), first)
            time.sleep(0.7)  # more than one round of tries of the one that stayed
            at = next(index for index, (name, _) in enumerate(story) if name == "second")
            went = story[at][1]
            after = story[at + 1 :]
            assert ("first", went) not in after and ("first", 1 - went) in after


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
        until(lambda: sum(committed(prices).values()) == 0 or len(seen) == 4)
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
