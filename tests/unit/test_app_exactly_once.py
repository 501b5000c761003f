"""Has every message of an exactly-once handler its output once, whatever fails?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tidelog
from tests.unit.app_kit import SOON, committed, lag, until
from tests.unit.transaction_kit import values
from tidelog.app import App, Retry
from tidelog.message import Batch, Message


@pytest.fixture
def look(tmp_path: Path) -> Iterator[tidelog.Log]:
    """The log as somebody else sees it, with a channel "out" of one partition, so that its messages have an order."""
    with tidelog.open(tmp_path / "log") as log:
        log.queue("out", int, partitions=1)
        yield log


@pytest.fixture(params=["written", "synced"])
def app(request: pytest.FixtureRequest, look: tidelog.Log, tmp_path: Path) -> App:
    return App("billing", tmp_path / "log", level=request.param)


# --- what it does ---


@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
def test_output_and_offset_come_together(app: App, look: tidelog.Log, is_async: bool) -> None:
    work = app.queue("work", int, partitions=3)

    def double(number: int) -> int:
        return 2 * number

    async def double_(number: int) -> int:
        await asyncio.sleep(0)
        return 2 * number

    app.on(work, sends="out", delivery="exactly-once")(double_ if is_async else double)
    work.send_many(list(range(200)), keys=[str(n % 7) for n in range(200)])
    with app:
        out = look.queue("out", int)
        until(lambda: len(values(out)) == 200, app)
        until(lambda: sum(committed(look["work"]).values()) == 200, app)
        work.send(1000)
        until(lambda: 2000 in values(out), app)
    assert sorted(values(out)) == [2 * n for n in range(200)] + [2000]
    assert len(values(out, dirty=True)) == 201
    assert lag(look["work"]) == 0


@pytest.mark.parametrize("concurrency", [1, "key"])
def test_a_message_says_which_attempt_it_is(app: App, look: tidelog.Log, concurrency: Any) -> None:
    work = app.queue("work", int, partitions=1)
    attempts: list[int] = []

    @app.on(work, sends="out", delivery="exactly-once", concurrency=concurrency, retries=SOON)
    def count(message: Message[int]) -> int:
        attempts.append(message.attempt)
        if message.attempt < 3:
            raise ConnectionError("not yet")
        return message.value

    work.send(4)
    with app:
        until(lambda: values(look.queue("out", int)) == [4], app)
    assert attempts == [1, 2, 3]


def test_batches_lists_generators_and_nothing(app: App, look: tidelog.Log) -> None:
    work = app.topic("work", int, partitions=1)

    @app.on(work, group="sum", sends="sums", delivery="exactly-once", batch=10)
    def add(numbers: Batch[int]) -> int:
        return sum(numbers.values)

    @app.on(work, group="list", sends="listed", delivery="exactly-once")
    def spread(number: int) -> list[int]:
        return [number] * number

    @app.on(work, group="none", delivery="exactly-once")
    def note(message: Message[int]) -> None:
        seen.append(message.value)

    seen: list[int] = []
    work.send_many([0, 1, 2, 3])
    with app:
        until(lambda: all(row.lag == 0 for row in look["work"].offsets()) and len(look["work"].offsets()) == 3, app)
        assert sum(values(look.queue("sums", int))) == 6
        assert sorted(values(look.queue("listed", int))) == [1, 2, 2, 3, 3, 3]
    assert seen == [0, 1, 2, 3]


def test_ids_keys_and_traces_are_as_ever(app: App, look: tidelog.Log) -> None:
    work = app.queue("work", int, partitions=2)

    @app.on(work, sends="out", key=lambda value: f"key {value}", delivery="exactly-once")
    def same(number: int) -> int:
        return number

    trace = b"00-" + b"1" * 32 + b"-" + b"2" * 16 + b"-01"
    work.send(1, headers={"correlation-id": "c1", "traceparent": trace}, id="order 1")
    with app:
        out = look.queue("out", int)
        until(lambda: len(values(out)) == 1, app)
        (message,) = out.scan()
        assert (message.id, message.key, message.correlation_id) == ("order 1.same", b"key 1", "c1")
        assert message.headers["traceparent"][:35] == trace[:35]


# --- what fails ---


def test_what_was_handled_before_a_failure_is_committed(app: App, look: tidelog.Log) -> None:
    work = app.queue("work", int, partitions=1)

    @app.on(work, sends="out", delivery="exactly-once")
    def fragile(number: int) -> int:
        if number == 5:
            raise ValueError("five")
        return number

    work.send_many(list(range(10)))
    app.start()
    out = look.queue("out", int)
    until(lambda: app.failure is not None)
    assert isinstance(app.failure, ValueError)
    assert values(out) == [0, 1, 2, 3, 4]
    assert committed(look["work"]) == {0: 5}
    app.stop()


def test_a_retry_holds_up_its_partition_and_no_other(app: App, look: tidelog.Log) -> None:
    work, out = app.queue("work", str, partitions=2), look.queue("words", str, partitions=1)
    tries: list[float] = []

    @app.on(work, sends="words", delivery="exactly-once", retries=Retry(attempts=3, first=0.3, factor=1, jitter=0))
    def sometimes(value: str) -> str:
        if value == "a1":
            tries.append(time.monotonic())
            if len(tries) < 3:
                raise ValueError("not yet")
        return value

    for number in range(3):
        work.send(f"a{number}", partition=0)
        work.send(f"b{number}", partition=1)
    with app:
        until(lambda: len(values(out)) >= 4, app)
        assert len(tries) == 1
        assert sorted(values(out)) == ["a0", "b0", "b1", "b2"]
        assert committed(look["work"]) == {0: 1, 1: 3}
        until(lambda: lag(look["work"]) == 0, app)
    assert [value for value in values(out) if value.startswith("a")] == ["a0", "a1", "a2"]
    assert len(tries) == 3
    assert min(tries[1] - tries[0], tries[2] - tries[1]) >= 0.29


def test_dead_letters_are_part_of_it(app: App, look: tidelog.Log) -> None:
    work = app.queue("work", int, partitions=1)

    @app.on(work, sends="out", delivery="exactly-once", retries=SOON, dead_letter="dead")
    def fragile(number: int) -> int:
        if number % 5 == 3:
            raise ValueError(f"not {number}")
        return number

    work.send_many(list(range(20)))
    with app:
        out, dead = look.queue("out", int), look["dead"]
        until(lambda: sum(committed(look["work"]).values()) == 20, app)
        assert values(out) == [number for number in range(20) if number % 5 != 3]
        letters = list(dead.scan())
        assert [message.raw for message in letters] == [b"3", b"8", b"13", b"18"]
        assert {message.headers["attempts"] for message in letters} == {b"3"}
        assert len(list(dead.scan(isolation="read-uncommitted"))) == 4


def test_a_send_that_fails_half_way_takes_the_transaction_with_it(app: App, look: tidelog.Log) -> None:
    """The function's value cannot be sent: nothing that stood in the transaction with it is lost or doubled."""
    work = app.queue("work", int, partitions=1)
    out = app.queue("bytes", bytes, partitions=2, max_message_bytes=1000)
    calls: list[int] = []

    @app.on(work, sends=out, delivery="exactly-once", retries=SOON, dead_letter="dead")
    def large(number: int) -> list[bytes]:
        calls.append(number)
        return [b"%d" % number, b"x" * (2000 if number == 7 else 10)]

    work.send_many(list(range(12)))
    with app:
        until(lambda: sum(committed(look["work"]).values()) == 12, app)
        found = values(look["bytes"])
        assert sorted(found) == sorted(value for n in range(12) if n != 7 for value in (b"%d" % n, b"x" * 10))
        assert [message.raw for message in look["dead"].scan()] == [b"7"]
    assert calls.count(7) == 3, "it was called for each attempt"


def test_a_batch_that_fails_is_handled_one_by_one(app: App, look: tidelog.Log) -> None:
    work = app.queue("work", int, partitions=1)

    @app.on(work, sends="out", delivery="exactly-once", dead_letter="dead", batch=8)
    def add(numbers: Batch[int]) -> int:
        if 3 in numbers.values:
            raise ValueError("three")
        return sum(numbers.values)

    work.send_many(list(range(16)))
    with app:
        until(lambda: sum(committed(look["work"]).values()) == 16, app)
        assert sum(values(look.queue("out", int))) == sum(range(16)) - 3
        assert [message.raw for message in look["dead"].scan()] == [b"3"]


def test_a_stop_in_the_middle(app: App, look: tidelog.Log) -> None:
    work = app.queue("work", int, partitions=1)

    @app.on(work, sends="out", delivery="exactly-once")
    def slow(number: int) -> int:
        time.sleep(0.02)
        return number

    work.send_many(list(range(40)))
    with app:
        until(lambda: len(values(look.queue("out", int), dirty=True)) > 2, app)
    with app:
        out = look.queue("out", int)
        until(lambda: sum(committed(look["work"]).values()) == 40, app)
        assert values(out) == list(range(40))
        assert len(values(out, dirty=True)) == 40, "what was handled when it stopped was committed"


# --- what cannot be had ---


def test_wrong_words() -> None:
    with pytest.raises(ValueError, match="level='fast'"):
        App("billing", level="fast")  # type: ignore[arg-type]
    app = App("billing")
    with pytest.raises(ValueError, match="exactly-once"):

        @app.on("work", delivery="exactly once")  # type: ignore[arg-type]
        def handle(value: bytes) -> None: ...


# --- in a test ---


def test_the_harness_runs_it() -> None:
    app = App("billing")
    work = app.queue("work", int, partitions=1)
    fails = [2]

    @app.on(
        work, sends="out", delivery="exactly-once", retries=Retry(attempts=3, first=10, jitter=0), dead_letter="dead"
    )
    def handle(number: int) -> int:
        if number == 1 and fails[0]:
            fails[0] -= 1
            raise ValueError("one")
        if number == 9:
            raise ValueError("nine")
        return number + 100

    with app.test() as t:
        for number in (0, 1, 2, 9):
            t.send(work, number)
        t.run()
        assert [message.value for message in t.messages("out")] == [100]
        t.expect("out", 101, within=60)
        t.expect("out", 102)
        t.advance(60)
        assert [message.raw for message in t.dead(work)] == [b"9"]
        assert [message.value for message in t.messages("out")] == [100, 101, 102]


def test_the_harness_raises_what_stops_it() -> None:
    app = App("billing")
    work = app.queue("work", int, partitions=1)

    @app.on(work, sends="out", delivery="exactly-once")
    def handle(number: int) -> int:
        if number == 1:
            raise ValueError("one")
        return number

    with pytest.raises(ValueError, match="one"), app.test() as t:
        t.send(work, 0)
        t.send(work, 1)
        try:
            t.run()
        finally:
            assert [message.value for message in t.messages("out")] == [0]


def test_two_applications_share_the_work(tmp_path: Path) -> None:
    """Each has a producer of its own; partitions move between transactions."""
    apps = []
    for _ in range(2):
        app = App("billing", tmp_path / "log", level="written")
        work = app.queue("work", int, partitions=4)

        @app.on(work, sends="out", delivery="exactly-once")
        def same(number: int) -> int:
            return number

        apps.append(app)
    with tidelog.open(tmp_path / "log") as log:
        feed, out = log.queue("work", int, partitions=4), log.queue("out", int)
        feed.send_many(list(range(1000)), keys=[str(n % 50) for n in range(1000)])
        with apps[0]:
            until(lambda: len(values(out)) > 100, apps[0])
            with apps[1]:
                feed.send_many(list(range(1000, 2000)), keys=[str(n % 50) for n in range(1000)])
                until(lambda: lag(feed) == 0, apps[1])
            feed.send_many(list(range(2000, 2500)))
            until(lambda: lag(feed) == 0, apps[0])
        assert sorted(values(out)) == list(range(2500))
        for key in range(50):
            mine = [value for value in values(out) if value < 2000 and value % 50 == key]
            assert mine == sorted(mine)
