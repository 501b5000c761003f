"""What happens to messages of an application when it stops or a partition goes to another one?"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import defaultdict
from typing import Any

import pytest

import tidelog
from tests.unit.app_kit import WAIT_SECONDS, committed, until
from tidelog.app import App, Retry, inline, intake, parallel
from tidelog.message import Message


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
