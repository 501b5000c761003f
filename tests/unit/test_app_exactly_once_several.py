"""Has every message of an exactly-once handler its output once, in order, when several are handled at once?"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tidelog
from tests.unit.app_kit import SOON, committed, lag, until
from tests.unit.transaction_kit import values
from tidelog.app import App, Retry
from tidelog.message import Message


@pytest.fixture
def look(tmp_path: Path) -> Iterator[tidelog.Log]:
    """The log as somebody else sees it, with a channel "out" of one partition, so that its messages have an order."""
    with tidelog.open(tmp_path / "log") as log:
        log.queue("out", int, partitions=1)
        yield log


@pytest.fixture
def app(look: tidelog.Log, tmp_path: Path) -> App:
    return App("billing", tmp_path / "log", level="written")


class Watch:
    """How many functions ran at once, and whether two of a key did."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now: Counter[object] = Counter()
        self.most = 0
        self.at_once: list[object] = []
        """Keys of which two were handled at the same time. What a function raises is not to be relied on here."""
        self.order: dict[object, list[int]] = defaultdict(list)
        self.calls: Counter[int] = Counter()

    def begin(self, key: object, number: int) -> None:
        with self._lock:
            if self._now[key]:
                self.at_once.append(key)
            self._now[key] += 1
            self.most = max(self.most, self._now.total())
            self.order[key].append(number)
            self.calls[number] += 1

    def end(self, key: object) -> None:
        with self._lock:
            self._now[key] -= 1


@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
@pytest.mark.parametrize("concurrency", ["key", 4])
def test_output_comes_in_the_order_of_the_log(app: App, look: tidelog.Log, concurrency: Any, is_async: bool) -> None:
    work, watch, dice = app.queue("work", int, partitions=1), Watch(), random.Random(7)

    def handle(message: Message[int]) -> int:
        watch.begin(message.key, message.value)
        time.sleep(dice.random() / 200)
        watch.end(message.key)
        return message.value

    async def handle_(message: Message[int]) -> int:
        watch.begin(message.key, message.value)
        await asyncio.sleep(dice.random() / 200)
        watch.end(message.key)
        return message.value

    app.on(work, sends="out", delivery="exactly-once", concurrency=concurrency)(handle_ if is_async else handle)
    work.send_many(list(range(300)), keys=[str(n % 11) for n in range(300)])
    with app:
        until(lambda: sum(committed(look["work"]).values()) == 300, app)
    assert values(look.queue("out", int)) == values(look.queue("out", int), dirty=True) == list(range(300))
    assert watch.most >= 3 and (concurrency == "key" or watch.most <= 4) and not watch.at_once
    assert all(numbers == sorted(numbers) for numbers in watch.order.values())


def test_messages_without_a_key_go_at_once(app: App, look: tidelog.Log) -> None:
    work, together = app.queue("work", int, partitions=1), threading.Barrier(8)

    @app.on(work, sends="out", delivery="exactly-once", concurrency=8)
    def handle(number: int) -> int:
        together.wait(20)
        return number

    work.send_many(list(range(8)))
    with app:
        until(lambda: len(values(look.queue("out", int))) == 8, app)
    assert values(look.queue("out", int)) == list(range(8))


def test_what_was_handled_before_a_failure_is_committed(app: App, look: tidelog.Log) -> None:
    """What ran ahead of it is not, and comes again."""
    work, ahead = app.queue("work", int, partitions=1), threading.Event()

    @app.on(work, sends="out", delivery="exactly-once", concurrency=4)
    def fragile(number: int) -> int:
        if number == 5:
            assert ahead.wait(20)
            raise ValueError("five")
        if number == 6:
            ahead.set()
        return number

    work.send_many(list(range(10)))
    app.start()
    until(lambda: app.failure is not None)
    assert isinstance(app.failure, ValueError) and ahead.is_set()
    assert values(look.queue("out", int)) == values(look.queue("out", int), dirty=True) == [0, 1, 2, 3, 4]
    assert committed(look["work"]) == {0: 5}
    app.stop()


def test_a_retry_holds_up_its_partition_and_no_other(app: App, look: tidelog.Log) -> None:
    work, out = app.queue("work", str, partitions=2), look.queue("words", str, partitions=1)
    tries: list[float] = []
    behind: list[tuple[str, int]] = []

    @app.on_error
    def take_time(_: object) -> None:
        time.sleep(0.1)  # in which whoever is not held up goes on

    @app.on(
        work,
        sends="words",
        delivery="exactly-once",
        concurrency="key",
        retries=Retry(attempts=3, first=0.3, factor=1, jitter=0),
    )
    def sometimes(message: Message[str]) -> str:
        if message.value == "a1":
            tries.append(time.monotonic())
            if len(tries) < 3:
                raise ValueError("not yet")
        elif message.key == b"the key of a1" and message.offset > 1:
            behind.append((message.value, len(tries)))
        return message.value

    for number in range(4):
        work.send(f"a{number}", partition=0, key="the key of a1" if number % 2 else None)
        work.send(f"b{number}", partition=1)
    with app:
        until(lambda: len(values(out)) >= 5, app)
        assert sorted(values(out)) == ["a0", "b0", "b1", "b2", "b3"]
        assert committed(look["work"]) == {0: 1, 1: 4}
        until(lambda: lag(look["work"]) == 0, app)
    assert [value for value in values(out) if value.startswith("a")] == ["a0", "a1", "a2", "a3"]
    assert len(values(out, dirty=True)) == 8 and behind == [("a3", 3)]
    assert len(tries) == 3 and min(tries[1] - tries[0], tries[2] - tries[1]) >= 0.29


def test_nothing_is_handled_twice_at_one_time(app: App, look: tidelog.Log) -> None:
    """What ran ahead of a message that failed comes again: not before it has returned."""
    work, watch, failed = app.queue("work", int, partitions=1), Watch(), threading.Event()

    @app.on(work, sends="out", delivery="exactly-once", concurrency=2, retries=SOON)
    def handle(number: int) -> int:
        watch.begin(number, number)
        try:
            if number == 1:
                time.sleep(0.3)
            elif not failed.is_set():
                time.sleep(0.05)
                failed.set()
                raise ValueError("not yet")
        finally:
            watch.end(number)
        return number

    work.send_many([0, 1])
    with app:
        until(lambda: sum(committed(look["work"]).values()) == 2, app)
    assert values(look.queue("out", int)) == [0, 1]
    assert watch.calls == {0: 2, 1: 2} and not watch.at_once


def test_dead_letters_are_part_of_it(app: App, look: tidelog.Log) -> None:
    work, dead, watch = app.queue("work", int, partitions=1), look.queue("dead", int, partitions=1), Watch()

    @app.on(work, sends="out", delivery="exactly-once", concurrency="key", dead_letter="dead")
    def odd(message: Message[int]) -> int:
        watch.begin(message.key, message.value)
        watch.end(message.key)
        if message.value % 2 == 0:
            raise ValueError("even")
        return message.value

    work.send_many(list(range(60)), keys=[str(n % 5) for n in range(60)])
    with app:
        until(lambda: sum(committed(look["work"]).values()) == 60, app)
    assert values(look.queue("out", int)) == [n for n in range(60) if n % 2]
    assert values(dead) == [n for n in range(60) if n % 2 == 0]
    assert all(numbers == sorted(numbers) for numbers in watch.order.values())
    assert set(watch.calls.values()) == {1} and not watch.at_once


def test_a_send_that_fails_half_way_takes_the_transaction_with_it(app: App, look: tidelog.Log) -> None:
    work = app.queue("work", int, partitions=1)
    out = app.queue("bytes", bytes, partitions=2, max_message_bytes=1000)
    calls: list[int] = []

    @app.on(work, sends=out, delivery="exactly-once", concurrency=4, retries=SOON, dead_letter="dead")
    def large(number: int) -> list[bytes]:
        calls.append(number)
        return [b"%d" % number, b"x" * (2000 if number == 7 else 10)]

    work.send_many(list(range(12)))
    with app:
        until(lambda: sum(committed(look["work"]).values()) == 12, app)
        found = values(look["bytes"])
        assert sorted(found) == sorted(value for n in range(12) if n != 7 for value in (b"%d" % n, b"x" * 10))
        assert [message.raw for message in look["dead"].scan()] == [b"7"]
    assert calls.count(7) >= 3, (
        "it was called for each attempt, and when another one of its transaction was tried again"
    )


def test_stops_in_the_middle(app: App, look: tidelog.Log) -> None:
    work = app.queue("work", int, partitions=2)

    @app.on(work, sends="out", delivery="exactly-once", concurrency=4)
    def slowly(number: int) -> int:
        time.sleep(0.003)
        return number

    work.send_many(list(range(400)), keys=[str(n % 13) for n in range(400)])
    for enough in (10, 100, 200):
        with app:
            until(lambda enough=enough: len(values(look.queue("out", int))) > enough, app)
        assert len(values(look.queue("out", int))) == sum(committed(look["work"]).values())
    with app:
        until(lambda: sum(committed(look["work"]).values()) == 400, app)
    assert (
        sorted(values(look.queue("out", int))) == sorted(values(look.queue("out", int), dirty=True)) == list(range(400))
    )


def test_a_time_limit_gives_back_what_was_not_begun(app: App, look: tidelog.Log) -> None:
    """A transaction takes in no message after half a second, and other partitions do not wait for a slow one."""
    work, watch = app.queue("work", int, partitions=1), Watch()

    @app.on(work, sends="out", delivery="exactly-once", concurrency=2)
    def slowly(number: int) -> int:
        watch.begin(number, number)
        time.sleep(0.2)
        watch.end(number)
        return number

    work.send_many(list(range(16)))
    with app:
        until(lambda: len(values(look.queue("out", int))) > 0, app)
        assert len(values(look.queue("out", int))) <= 8
        until(lambda: sum(committed(look["work"]).values()) == 16, app)
    assert values(look.queue("out", int)) == list(range(16))
    assert set(watch.calls.values()) == {1}, "what was given back had not been begun"


def test_the_harness_runs_it() -> None:
    app = App("billing")
    work = app.queue("work", int, partitions=1)

    @app.on(work, sends="out", delivery="exactly-once", concurrency="key")
    def handle(number: int) -> int:
        assert threading.current_thread() is threading.main_thread()
        return number + 100

    with app.test() as t:
        for number in range(3):
            t.send(work, number)
        t.run()
        assert [message.value for message in t.messages("out")] == [100, 101, 102]
