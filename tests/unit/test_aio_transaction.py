"""Do coroutines make messages and offsets visible together, also when they are cancelled?"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.unit.loops import LOOPS, run
from tests.unit.transaction_kit import Failure, committed
from tidelog import aio
from tidelog.aio.transaction import Transaction
from tidelog.errors import Closed, Fenced


async def shop(log: aio.Log) -> tuple[aio.Queue[bytes], aio.Topic[bytes], aio.Producer]:
    """Five orders in one partition; invoices in one."""
    orders = await log.queue("orders", partitions=1)
    await orders.send_many([b"%d" % number for number in range(5)])
    return orders, await log.topic("invoices", partitions=1), log.producer(name="till")


def seen(log: aio.Log, *, dirty: bool = False) -> list[Any]:
    isolation: Any = "read-uncommitted" if dirty else "read-committed"
    return [message.value for message in log.sync_log["invoices"].scan(isolation=isolation)]


@pytest.mark.parametrize("loop", LOOPS)
def test_together_or_not_at_all(tmp_path: Path, loop: str) -> None:
    async def main() -> None:
        async with aio.open(tmp_path / "log") as log:
            orders, invoices, producer = await shop(log)
            queue = log.sync_log["orders"]
            async with orders.consumer() as consumer:
                async with log.transaction(producer, consumer) as tx:
                    first = await consumer.receive(timeout=5)
                    batch = await consumer.receive_many(2, timeout=5)
                    receipt = await tx.send(invoices, first.value)
                    await tx.send_many(invoices, batch.values)
                    assert (receipt.offset, seen(log), committed(queue)) == (0, [], {})
                    assert (await receipt.result(level="synced", timeout=10)).offset == 0
                assert (tx.state, seen(log), committed(queue)) == ("committed", [b"0", b"1", b"2"], {0: 3})
                with pytest.raises(Failure):
                    async with log.transaction(producer, consumer) as tx:
                        await tx.send(invoices, (await consumer.receive(timeout=5)).value)
                        raise Failure
                assert (tx.state, seen(log)) == ("aborted", [b"0", b"1", b"2"])
                async for message in consumer:
                    assert message.value == b"3", "it comes again"
                    async with log.transaction(producer, consumer, level="written") as tx:
                        await tx.send(invoices, message.value)
                    break
            assert (seen(log), committed(queue)) == ([b"0", b"1", b"2", b"3"], {0: 4})

    run(main, loop)


def test_the_end_may_come_inside(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path / "log") as log:
            _, invoices, producer = await shop(log)
            async with log.transaction(producer) as tx:
                await tx.send(invoices, b"first")
                await tx.commit()
                with pytest.raises(Closed, match="was committed"):
                    await tx.send(invoices, b"late")
            async with log.transaction(producer) as tx:
                await tx.send(invoices, b"second")
                await tx.abort()
                with pytest.raises(Closed, match="was aborted"):
                    await tx.commit()
            assert seen(log) == [b"first"]
            with pytest.raises(RuntimeError, match="entered once"):
                async with tx:
                    pass
            with pytest.raises(ValueError, match="producer with a name"):
                log.transaction(log.producer())
            async with log.transaction(producer) as tx:
                with pytest.raises(RuntimeError, match="is open"):
                    await producer.send(invoices, b"beside")
                with pytest.raises(RuntimeError, match="one at a time"):
                    async with log.transaction(producer):
                        pass
                assert repr(tx) == "<aio.Transaction of 'till' open>"

    run(main, "asyncio")


def test_many_tasks_send_in_one(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path / "log") as log:
            _, invoices, producer = await shop(log)

            async def send(number: int) -> None:
                for turn in range(50):
                    await tx.send(invoices, b"%d %d" % (number, turn))

            async with log.transaction(producer) as tx:
                await asyncio.gather(*map(send, range(4)))
                assert seen(log) == []
            found = seen(log)
            for number in range(4):
                mine = [value for value in found if value.startswith(b"%d " % number)]
                assert mine == [b"%d %d" % (number, turn) for turn in range(50)]

    run(main, "asyncio")


def test_a_cancellation_aborts(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path / "log") as log:
            orders, invoices, producer = await shop(log)
            states = []

            async def work() -> None:
                async with orders.consumer() as consumer, log.transaction(producer, consumer) as tx:
                    states.append(tx)
                    await tx.send(invoices, (await consumer.receive(timeout=5)).value)
                    await asyncio.sleep(60)

            task = asyncio.create_task(work())
            while not seen(log, dirty=True):
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert states[0].state == "aborted"
            async with log.transaction(producer) as tx:
                await tx.send(invoices, b"next")
            assert seen(log) == [b"next"]
            async with orders.consumer() as consumer:
                assert (await consumer.receive(timeout=5)).value == b"0"

    run(main, "asyncio")


def test_a_cancellation_at_any_moment_leaves_all_or_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path / "log") as log:
            _, _, producer = await shop(log)
            out = await log.topic("out", partitions=2)
            states: dict[int, Transaction] = {}
            cut = 0

            async def one(number: int) -> None:
                tx = states[number] = log.transaction(producer, level="written" if number % 2 else "synced")
                async with tx:
                    await tx.send(out, b"%d" % number, partition=0)
                    await asyncio.sleep(0)
                    await tx.send(out, b"%d" % number, partition=1)

            for number in range(150):
                task = asyncio.create_task(one(number))
                for _ in range(number % 11):
                    await asyncio.sleep(0)
                await asyncio.sleep((number % 7) * 0.0003)
                task.cancel()
                try:
                    await task
                except asyncio.CancelledError:
                    cut += 1
            assert 10 < cut < 150, cut
            channel = log.sync_log["out"]
            halves = [[message.value for message in channel.scan(partition=number)] for number in range(2)]
            assert halves[0] == halves[1]
            kept = [number for number, tx in states.items() if tx.state == "committed"]
            assert halves[0] == [b"%d" % number for number in kept]
            assert {tx.state for tx in states.values()} <= {"committed", "aborted", "new"}

    run(main, "asyncio")


def test_another_task_inside_a_consumer(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path / "log") as log:
            _, invoices, producer = await shop(log)
            async with invoices.consumer("g") as consumer:
                with pytest.raises(RuntimeError, match="inside this consumer"):
                    async with log.transaction(producer, consumer) as tx:
                        task = asyncio.create_task(consumer.receive(timeout=20))
                        await asyncio.sleep(0.1)
                        await tx.send(invoices, b"never")
                assert tx.state == "aborted"
                await invoices.send(b"x")
                assert (await task).value == b"x"

    run(main, "asyncio")


def test_a_newer_producer_fences_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path / "log") as log:
            _, invoices, producer = await shop(log)
            with pytest.raises(Fenced):
                async with log.transaction(producer) as tx:
                    await tx.send(invoices, b"zombie's")
                    newer = log.producer(name="till")
                    await newer.last(invoices)
            assert (tx.state, seen(log)) == ("aborted", [])
            async with log.transaction(newer) as tx:
                await tx.send(invoices, b"newer")
            assert seen(log) == [b"newer"]

    run(main, "asyncio")


def test_closing_the_log_aborts(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path / "log") as log:
            _, invoices, producer = await shop(log)
            with pytest.raises(Closed):
                async with log.transaction(producer) as tx:
                    await tx.send(invoices, b"lost")
                    await log.close()
        async with aio.open(tmp_path / "log") as log:
            assert seen(log) == []

    run(main, "asyncio")
