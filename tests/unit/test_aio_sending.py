"""Do coroutines send in order, whole, and without ever stopping their loop?"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests import builds
from tests.unit.loops import LOOPS, all_of, give_up, run, ticks, until
from tidelog import aio
from tidelog._native import Sender, WouldBlock
from tidelog.aio.worker import Worker
from tidelog.errors import Closed, Locked, SchemaMismatch, Timeout, TooLarge

OWNER = Path(__file__).parent.parent / "processes" / "stopped_owner.c"


@contextmanager
def stopped_owner(log: aio.Log, channel: aio.Channel[Any], partition: int) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of a partition and is stopped."""
    definition = channel.opened().definition
    command = [
        str(builds.program(OWNER, builds.TEST)),
        log.sync_log.engine.store.path,  # type: ignore[attr-defined]
        str(definition.partitions[partition]),
        definition.id,
    ]
    environment = {**os.environ, "TL_STOP": "append.copied:1"}
    owner = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert os.waitpid(owner.pid, os.WUNTRACED) == (owner.pid, signal.SIGSTOP << 8 | 0x7F), "it stopped itself"
        yield owner
    finally:
        os.kill(owner.pid, signal.SIGCONT)
        out, err = owner.communicate(timeout=30)
        assert (out, err) == ("appended\n", "")


async def offsets_of(channel: aio.Channel[Any], partition: int) -> list[bytes]:
    """The values of a partition in the order of their offsets."""
    return [message.value async for message in channel.scan(partition=partition)]


@pytest.mark.parametrize("loop", LOOPS)
def test_the_loop_goes_on_while_a_lock_owner_is_stopped(tmp_path: Path, loop: str) -> None:
    """Sends to the stopped partition wait in order, the loop ticks, others' consumers hear; then all is in."""

    async def main() -> None:
        async with aio.open(tmp_path / "log") as log:
            topic = await log.topic("t", partitions=2)
            other = await log.topic("other", partitions=1)
            for partition in (0, 1, 0, 1):
                await topic.send(b"before", partition=partition)
            await other.send(b"before")
            gaps: list[float] = []
            with stopped_owner(log, topic, 0) as owner:
                ticking = asyncio.create_task(ticks(gaps))
                sends = [asyncio.create_task(topic.send(b"%d" % n, partition=0)) for n in range(100)]
                async with other.tail() as tail:
                    for number in range(50):
                        await other.send(b"%d" % number)
                        assert (await tail.receive(20)).value == b"%d" % number
                        await asyncio.sleep(0.01)
                assert not any(task.done() for task in sends)
                await give_up(sends.pop())
                await give_up(ticking)
                os.kill(owner.pid, signal.SIGCONT)
                receipts = await all_of(*sends)
            assert [receipt.partition for receipt in receipts] == [0] * 99
            received = await offsets_of(topic, 0)
            assert received == [b"before"] * 2 + [b"stopped"] + [b"%d" % number for number in range(99)]
            assert len(gaps) >= 20
            late = sorted(gap for gap in gaps if gap > 0.1)
            assert len(late) <= 1, f"the loop stood still: {late}"

    run(main, loop)


def test_a_lock_that_is_held_too_long_is_an_error_of_the_send(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path / "log", lock_timeout=0.2) as log:
            topic = await log.topic("t", partitions=1)
            await topic.send(b"x")
            with stopped_owner(log, topic, 0), pytest.raises(Locked):
                await topic.send(b"y")
            await topic.send(b"z")
            assert await offsets_of(topic, 0) == [b"x", b"stopped", b"z"]

    run(main)


def test_a_sender_that_never_waits_says_which_partition_it_had_chosen(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path / "log") as log:
            topic = await log.topic("t", partitions=4)
            sender = Sender()
            log.sync_log.engine.attach_sender(sender, topic.opened())
            sender._never_wait()
            with pytest.raises(WouldBlock) as blocked:
                sender.send(b"x", partition=3)  # a segment has to be made first
            assert blocked.value.args == (3,)
            assert await topic.bounds(3) == (0, 0), "nothing was sent"
            await topic.send(b"x", partition=3)
            assert sender.send(b"y", partition=3).offset == 1
            with pytest.raises(WouldBlock):
                sender.send(bytes(1 << 20), partition=3)
            await topic.send(bytes(1 << 20), partition=3)
            assert await topic.bounds(3) == (0, 3)

    run(main)


@pytest.mark.parametrize("loop", LOOPS)
def test_tasks_keep_the_order_in_which_they_send(tmp_path: Path, loop: str) -> None:
    """Whatever has to go by the thread: fresh segments, large messages, batches in between."""

    async def main() -> None:
        async with aio.open(tmp_path / "log", segment_bytes=1 << 20) as log:
            topic = await log.topic("t", partitions=1)
            expected: list[bytes] = []
            tasks: list[asyncio.Task[aio.Receipt]] = []
            for number in range(400):
                value = b"%d" % number + (bytes(100_000) if number % 29 == 0 else bytes(700))
                if number % 37 == 0:
                    expected += [value, value]
                    tasks.append(asyncio.create_task(topic.send_many([value, value])))
                else:
                    expected.append(value)
                    tasks.append(asyncio.create_task(topic.send(value, headers={"n": str(number)})))
            receipts = await all_of(*tasks)
            assert [receipt.offset for receipt in receipts] == sorted(receipt.offset for receipt in receipts)
            assert await offsets_of(topic, 0) == expected

    run(main, loop)


def test_most_sends_take_no_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    submitted: list[str] = []
    submit = Worker.submit

    def counting(self: Worker, *arguments: Any, **options: Any) -> Any:
        submitted.append(self._name)
        return submit(self, *arguments, **options)

    async def main() -> None:
        async with aio.open(tmp_path / "log") as log:
            topic = await log.topic("t", partitions=4)
            for number in range(2000):
                await topic.send(b"x" * 50, key=str(number))
            monkeypatch.setattr(Worker, "submit", counting)
            for number in range(2000):
                await topic.send(b"x" * 50, key=str(number), headers={"a": "b"})
            monkeypatch.setattr(Worker, "submit", submit)

    run(main)
    assert set(submitted) <= {"tidelog-sends"}
    assert len(submitted) < 100


def test_others_get_their_turn_while_one_task_sends_and_one_receives(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path / "log") as log:
            topic = await log.topic("t", partitions=1)
            await topic.send(b"x")
            turns = 0

            async def other() -> None:
                nonlocal turns
                while True:
                    turns += 1
                    await asyncio.sleep(0)

            task = asyncio.create_task(other())
            for _ in range(3000):
                await topic.send(b"x")
            assert turns >= 10
            async with topic.consumer("g", stop="end") as received:
                turns = 0
                assert len([message async for message in received]) == 3001
                assert turns >= 10
            await give_up(task)

    run(main)


def test_what_is_wrong_with_a_message_is_said_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path / "log") as log:
            topic = await log.topic("t", str, max_message_bytes=1000)
            for bad, error in (
                (topic.send(7), SchemaMismatch),  # type: ignore[arg-type]
                (topic.send("x" * 2000), TooLarge),
                (topic.send("x", partition=9), ValueError),
                (topic.send_many(["x", 7]), SchemaMismatch),
                (topic.send_many(["x"], keys=["a", "b"]), ValueError),
            ):
                with pytest.raises(error):
                    await bad

    run(main)


def test_send_many_takes_what_the_other_one_takes(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path / "log") as log:
            topic = await log.topic("t", str, partitions=3)
            here = asyncio.get_running_loop()
            called: list[bool] = []

            def key_of(value: str) -> str:
                called.append(asyncio.get_running_loop() is here)
                return value

            receipt = await topic.send_many((str(n) for n in range(10)), keys=key_of, ids=(f"id{n}" for n in range(10)))
            assert called == [True] * 10, "the program's functions run on its own thread"
            assert receipt.count == 10
            found = sorted([(m.value, m.key, m.id) async for m in topic.scan()])
            assert found == [(str(n), b"%d" % n, f"id{n}") for n in range(10)]

    run(main)


@pytest.mark.parametrize("loop", LOOPS)
def test_synced_sends_share_their_syncs(tmp_path: Path, loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with aio.open(tmp_path / "log") as log:
            topic = await log.topic("t", partitions=1)
            async with log.producer(ack="synced") as producer:
                await producer.send(topic, b"x")
                receipts = await all_of(*(producer.send(topic, b"%d" % n) for n in range(200)))
                assert {receipt.count for receipt in receipts} == {1}
                batch = await producer.send_many(topic, [b"a", b"b"])
                assert batch.offset == 202
            found = await topic.describe(0)
            assert found["synced"] == found["tail"]
            receipt = await topic.send(b"y")
            position = await receipt.result(level="synced", timeout=20)
            assert (position.partition, position.offset) == (0, 203)
            found = await topic.describe(0)
            assert found["synced"] == found["tail"]
            with pytest.raises(ValueError, match="level"):
                await receipt.result(level="flushed")

    run(main, loop)


def test_lingering_messages_go_out_in_batches(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path / "log") as log:
            topic = await log.topic("t", partitions=1)
            async with log.producer(linger=5.0) as producer:
                receipts = [await producer.send(topic, b"%d" % n) for n in range(1000)]
                assert not receipts[0].done
                with pytest.raises(RuntimeError, match="await"):
                    _ = receipts[0].offset
                with pytest.raises(Timeout):
                    await (await producer.send(topic, b"1000")).result(timeout=0)
                await producer.flush()
                assert [receipt.offset for receipt in receipts] == list(range(1000))
                assert (await receipts[7].result()).offset == 7
                await producer.send(topic, b"1001")
                await producer.send_many(topic, [b"1002", b"1003"])
            assert producer.closed
            assert await offsets_of(topic, 0) == [b"%d" % n for n in range(1004)]
            assert (await topic.describe(0))["bytes"] < 1004 * 40, "fewer batches than messages"
            with pytest.raises(Closed):
                await producer.send(topic, b"x")
            async with log.producer(linger=0.01) as producer:
                receipt = await producer.send(topic, b"x")
                await until(lambda: receipt.done)
            with pytest.raises(ValueError, match="ack"):
                log.producer(ack="maybe")

    run(main)


def test_a_fast_sender_waits_for_its_batches(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path / "log") as log:
            topic = await log.topic("t", partitions=1)
            most = 0
            async with log.producer(linger=10.0) as producer:
                for _ in range(300):
                    await producer.send(topic, bytes(200_000))
                    most = max(most, log._threads.sends.pending(producer._gathering))
            assert most <= 10, "the memory of a producer is bounded"
            assert await topic.bounds(0) == (0, 300)

    run(main)


def test_a_cancelled_send_that_had_not_begun_sends_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path / "log") as log:
            topic = await log.topic("t", partitions=1)
            await topic.send(b"first")
            with stopped_owner(log, topic, 0):
                begun = asyncio.create_task(topic.send(b"begun"))
                await until(lambda: bool(log._threads.sends.pending(topic._sending)))
                await asyncio.sleep(0.05)
                behind = asyncio.create_task(topic.send(b"behind"))
                many = asyncio.create_task(topic.send_many([b"many"]))
                await asyncio.sleep(0.01)
                for task in (begun, behind, many):
                    await give_up(task)
                    assert task.cancelled()
            await topic.send(b"last")
            values = await offsets_of(topic, 0)
            assert values == [b"first", b"stopped", b"begun", b"last"]

    run(main)
