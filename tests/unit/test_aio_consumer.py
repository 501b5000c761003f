"""Do coroutines receive what they should, by the same delivery rules, alone and in groups?"""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from tests.unit.aio_kit import DAY, Failure, ten
from tests.unit.loops import LOOPS, all_of, counted, give_up, run, until
from tidelog import aio
from tidelog._native import Waiter
from tidelog.consumer import Assigned
from tidelog.errors import Closed, DecodeError, NotSupported, OffsetOutOfRange, Timeout
from tidelog.log import open as open_sync

# --- the delivery rule ---


@pytest.mark.parametrize("loop", LOOPS)
def test_at_least_once_commits_when_the_next_is_asked_for(tmp_path: Path, loop: str) -> None:
    async def main() -> None:
        async with aio.open(tmp_path / "log") as log:
            orders = await ten(log)
            async with orders.consumer() as consumer:
                assert (await consumer.receive(timeout=5)).value == b"0"
                assert await counted(log, "orders") == 0
                assert (await consumer.receive(timeout=5)).value == b"1"
                assert await counted(log, "orders") == 1
                assert len(await consumer.receive_many(3, timeout=5)) == 3
                assert await counted(log, "orders") == 2
                assert len(await consumer.receive_many(1, timeout=5)) == 1
                assert await counted(log, "orders") == 5
                assert consumer.position == {Assigned("orders", 0): 6}
                assert consumer.committed == {Assigned("orders", 0): 5}
                assert await consumer.lag() == 4
            assert await counted(log, "orders") == 6
            with pytest.raises(Failure):
                async with orders.consumer() as consumer:
                    async for message in consumer:
                        if message.value == b"8":
                            raise Failure
            assert await counted(log, "orders") == 8
            async with orders.consumer(stop="end") as consumer:
                assert [message.value async for message in consumer] == [b"8", b"9"], "the failed one comes again"
                with pytest.raises(Timeout, match="stop"):
                    await consumer.receive()
                assert len(await consumer.receive_many(5)) == 0
            assert await counted(log, "orders") == 10

    run(main, loop)


def test_the_other_delivery_rules(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path / "log") as log:
            orders = await ten(log)
            with pytest.raises(Failure):
                async with orders.consumer(delivery="at-most-once") as consumer:
                    await consumer.receive(timeout=5)
                    assert await counted(log, "orders") == 1
                    await consumer.receive_many(4, timeout=5)
                    raise Failure
            async with orders.consumer(delivery="manual") as consumer:
                batch = await consumer.receive_many(3, timeout=5)
                assert batch.values == [b"5", b"6", b"7"]
                assert await counted(log, "orders") == 5
                await consumer.commit(batch[0])
                assert await counted(log, "orders") == 6
                await consumer.commit(batch, level="synced")
                await consumer.receive(timeout=5)
                with pytest.raises(ValueError, match="level"):
                    await consumer.commit(level="flushed")
                with pytest.raises(TypeError):
                    await consumer.commit(5)  # type: ignore[arg-type]
            assert await counted(log, "orders") == 8
            with pytest.raises(NotSupported):
                await orders.consumer(delivery="exactly-once").receive()  # type: ignore[arg-type]
            with pytest.raises(ValueError, match="queue"):
                log.consumer(orders, group="other")

    run(main)


# --- waiting ---


@pytest.mark.parametrize("loop", LOOPS)
def test_a_message_wakes_those_who_wait_and_nobody_else(tmp_path: Path, loop: str) -> None:
    async def main() -> None:
        async with aio.open(tmp_path / "log") as log:
            topics = [await log.topic(f"t{number}", partitions=2) for number in range(10)]
            tails = [topics[number % 10].tail() for number in range(100)]
            tasks = [asyncio.create_task(tail.receive()) for tail in tails]
            await until(lambda: all(tail.assignment for tail in tails))
            await asyncio.sleep(0.1)
            threads = [thread for thread in threading.enumerate() if not thread.name.startswith("tidelog-")]
            await topics[3].send(b"three")
            woken = [number for number in range(100) if number % 10 == 3]
            await until(lambda: all(tasks[number].done() for number in woken))
            assert [number for number in range(100) if tasks[number].done()] == woken
            assert {tasks[number].result().value for number in woken} == {b"three"}
            after = threading.enumerate()
            assert [thread for thread in after if not thread.name.startswith("tidelog-")] == threads
            assert sum(thread.name == "tidelog-waiter" for thread in after) == 1, "no thread for each"
            for topic in topics:
                await topic.send(b"all")
            await all_of(*tasks)
            for tail in tails:
                await tail.close()

    run(main, loop)


def test_other_processes_and_threads_wake_a_loop_too(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path / "log") as log:
            topic = await log.topic("t", partitions=1)
            async with topic.tail() as tail:
                task = asyncio.create_task(tail.receive(20))
                await asyncio.sleep(0.05)
                thread = threading.Thread(target=topic.sync_channel.send, args=(b"thread",))
                thread.start()
                assert (await task).value == b"thread"
                thread.join()
                code = f"import tidelog; tidelog.open({str(tmp_path / 'log')!r})['t'].send(b'process')"
                process = await asyncio.create_subprocess_exec(__import__("sys").executable, "-c", code)
                assert (await tail.receive(20)).value == b"process"
                assert await process.wait() == 0

    run(main)


@pytest.mark.parametrize("loop", LOOPS)
def test_time_outs(tmp_path: Path, loop: str) -> None:
    async def main() -> None:
        async with aio.open(tmp_path / "log") as log:
            topic = await log.topic("t", partitions=1)
            async with topic.tail() as tail:
                before = asyncio.get_running_loop().time()
                with pytest.raises(Timeout, match="0.1"):
                    await tail.receive(timeout=0.1)
                assert len(await tail.receive_many(10, timeout=timedelta(milliseconds=100))) == 0
                assert 0.19 < asyncio.get_running_loop().time() - before < 5
                with pytest.raises(Timeout):
                    await tail.receive(timeout=0)
                assert len(await tail.receive_many(10, timeout=0)) == 0
                with pytest.raises(ValueError):
                    await tail.receive(timeout=-1)
                with pytest.raises(ValueError):
                    await tail.receive_many(0)
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await tail.receive()
                await topic.send(b"x")
                assert (await tail.receive(timeout=0)).value == b"x"

    run(main, loop)


def test_what_is_far_behind_or_large_is_read_too(tmp_path: Path) -> None:
    """A backlog of several segments, batches past 64 KiB, compressed ones, rows."""

    async def main() -> None:
        async with aio.open(tmp_path / "log", segment_bytes=1 << 20) as log:
            topic = await log.topic("t", partitions=3)
            expected = [b"%d" % n + bytes(n * 7 % 3000) for n in range(3000)]
            await topic.send_many(expected, keys=[str(n) for n in range(3000)])
            await topic.send(bytes(3_000_000))
            packed = await log.topic("packed", partitions=1, compression="lz4")
            await packed.send_many(expected)
            async with topic.consumer("g", stop="end") as consumer:
                values = [message.value async for message in consumer]
            assert sorted(values) == sorted([*expected, bytes(3_000_000)])
            async with packed.consumer("g", stop="end") as consumer:
                values = []
                while batch := await consumer.receive_many(700):
                    values += batch.values
            assert values == expected
            rows = await log.topic("rows", np.dtype([("n", "i8")]), partitions=1)
            await rows.send_many({"n": np.arange(10_000)})
            async with rows.tail(start="earliest") as tail:
                got = await tail.receive_many(10_000, timeout=5)
                assert np.array_equal(got.values["n"], np.arange(len(got)))
                later = asyncio.create_task(tail.receive_many(10_000, timeout=20))
                await asyncio.sleep(0.05)
                await rows.send_many({"n": np.arange(5)})
                assert len(await later) > 0

    run(main)


def test_errors_are_those_of_the_consumer(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path / "log") as log:
            orders = await ten(log)
            async with orders.consumer(delivery="manual") as consumer:
                await consumer.receive()
                await consumer.seek((0, 2))
                await orders.trim(5)
                with pytest.raises(OffsetOutOfRange):
                    await consumer.receive()
                assert (await consumer.receive()).value == b"5", "once; then it goes on at the log start"
                with pytest.raises(OffsetOutOfRange):
                    await consumer.seek((0, 1))
                await consumer.seek("latest")
                await consumer.seek(DAY + timedelta(seconds=7))
                assert (await consumer.receive()).value == b"7"
                await consumer.pause()
                with pytest.raises(Timeout):
                    await consumer.receive(0.05)
                await consumer.resume()
                assert (await consumer.receive()).value == b"8"
            texts = await log.topic("texts", int, partitions=1)
            await (await log["texts"]).send(b"no number")
            async with texts.consumer("g") as received:
                message = await received.receive()
                with pytest.raises(DecodeError):
                    _ = message.value
            await log.drop("texts")

    run(main)


# --- whose it is ---


def test_one_task_and_one_loop_at_a_time(tmp_path: Path) -> None:
    async def main() -> aio.Consumer[bytes]:
        topic = await log.topic("t", partitions=1)
        tail = topic.tail()
        first = asyncio.create_task(tail.receive(), name="first")
        await until(lambda: bool(tail.assignment))
        with pytest.raises(RuntimeError, match="'first' is inside"):
            await tail.receive()
        with pytest.raises(RuntimeError, match="inside"):
            await tail.commit()
        await topic.send(b"x")
        assert (await first).value == b"x"
        return tail

    async def elsewhere() -> None:
        with pytest.raises(RuntimeError, match="loop"):
            await tail.receive()

    log = aio.Log(open_sync(tmp_path / "log"))
    tail = run(main)
    run(elsewhere)
    run(log.close)


def test_a_closed_consumer_says_so(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path / "log") as log:
            topic = await log.topic("t", partitions=1)
            never_used = topic.tail()
            await never_used.close()
            tail = topic.tail()
            task = asyncio.create_task(tail.receive())
            await until(lambda: bool(tail.assignment))
            await tail.close()
            with pytest.raises(Closed):
                await task
            await tail.close()
            for closed in (never_used, tail):
                assert closed.closed
                with pytest.raises(Closed):
                    await closed.receive()
                with pytest.raises(Closed):
                    async with closed:
                        pass
            assert log.sync_log.engine.handles() == []

    run(main)


def test_entering_may_be_cancelled_and_leaves_no_member_behind(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path / "log") as log:
            orders = await ten(log)
            entered = 0
            for turns in range(40):

                async def enter() -> None:
                    nonlocal entered
                    async with orders.consumer():
                        entered += 1
                        await asyncio.sleep(60)

                task = asyncio.create_task(enter())
                await asyncio.sleep(0.0001 * turns)
                await give_up(task)
            assert 0 < entered < 40
            await until(lambda: not log.sync_log.engine.handles())
            await until(lambda: not log.sync_log.engine.members("orders").members)

    run(main)


# --- the waiter ---


def test_a_watch_that_was_taken_back_tells_nobody(tmp_path: Path) -> None:
    with open_sync(tmp_path / "log") as log:
        topic = log.topic("t", partitions=1)
        told: list[list[str]] = []
        waiter = Waiter.of(log.engine.store)  # type: ignore[attr-defined]
        try:
            with topic.tail() as one, topic.tail() as two:
                for tail in (one, two):
                    assert len(tail.receive_many(1, timeout=0)) == 0
                first = waiter.watch(one, told.append, "one")
                second = waiter.watch(two, told.append, "two")
                assert waiter.waiting == 2
                waiter.unwatch(first)
                waiter.unwatch(first)
                assert waiter.waiting == 1
                topic.send(b"x")
                run(lambda: until(lambda: bool(told)))
                assert told == [["two"]]
                assert waiter.waiting == 0
                waiter.unwatch(second)
                # A reader that has something at once is told at once.
                waiter.watch(one, told.append, "one")
                run(lambda: until(lambda: len(told) == 2))
                assert two.receive(1).value == b"x"
        finally:
            waiter.release()
