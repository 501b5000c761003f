"""Do consumers on event loops share partitions as they come and go?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.aio_kit import Failure, ten
from tests.unit.loops import LOOPS, all_of, counted, run, until
from tidelog import aio
from tidelog.consumer import Assigned
from tidelog.errors import Closed, Fenced, Timeout

# --- groups ---


@pytest.mark.parametrize("loop", LOOPS)
def test_consumers_share_the_partitions_as_they_come_and_go(tmp_path: Path, loop: str) -> None:
    """Every message is received once, with members of this loop and of a thread coming and going."""

    async def main() -> None:
        async with aio.open(tmp_path / "log") as log:
            topic = await log.topic("t", int, partitions=8)
            received: list[int] = []
            told: list[tuple[str, str, list[int]]] = []
            stay = asyncio.Event()

            def tell(name: str, what: str) -> Callable[[list[Assigned]], Any]:
                async def change(parts: list[Assigned]) -> None:
                    await asyncio.sleep(0.001)
                    told.append((name, what, sorted(part.partition for part in parts)))

                return change

            async def member(name: str, leave: asyncio.Event) -> None:
                options: dict[str, Any] = {"on_assign": tell(name, "+"), "on_revoke": tell(name, "-")}
                async with topic.consumer("g", **options) as consumer:
                    while not leave.is_set():
                        received.extend((await consumer.receive_many(20, timeout=0.02)).values)

            async def publish() -> None:
                for number in range(4000):
                    await topic.send(number, key=number)
                    if number % 20 == 0:
                        await asyncio.sleep(0.002)

            publishing = asyncio.create_task(publish())
            first = asyncio.create_task(member("first", stay))
            for _ in range(3):
                leave = asyncio.Event()
                others = [asyncio.create_task(member(f"other{n}", leave)) for n in range(3)]
                await asyncio.sleep(0.1)
                leave.set()
                await all_of(*others)
            await publishing
            await until(lambda: len(received) >= 4000)
            stay.set()
            await all_of(first)
            assert sorted(received) == list(range(4000))
            assert {what for _, what, _ in told} == {"+", "-"}
            # Nobody was told of a partition that another one had: at any time each has at most one owner.
            owner: dict[int, str] = {}
            for name, what, parts in told:
                for part in parts:
                    if what == "+":
                        assert owner.setdefault(part, name) == name
                    else:
                        assert owner.pop(part) == name
            assert owner == {}

    run(main, loop)


def test_on_revoke_may_commit(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path / "log") as log:
            topic = await log.topic("t", int, partitions=2)
            done: dict[int, aio.Receipt] = {}
            handled: dict[int, Any] = {}
            revoked: list[int] = []

            async def commit(parts: list[Assigned]) -> None:
                # Things of the log that need its other threads work here too.
                await topic.bounds(0)
                for part in parts:
                    await consumer.commit(handled[part.partition])
                    revoked.append(part.partition)

            consumer = topic.consumer("g", delivery="manual", on_revoke=commit)
            async with consumer:
                for number in range(10):
                    done[number] = await topic.send(number, partition=number % 2)
                for _ in range(10):
                    message = await consumer.receive(5)
                    handled[message.partition] = message
                assert await counted(log, "g") == 0
                async with topic.consumer("g") as other:
                    task = asyncio.create_task(other.receive(20))
                    with pytest.raises(Timeout):
                        await consumer.receive(0.3)
                    assert len(revoked) == 1
                    assert await counted(log, "g") == 5
                    await topic.send(10, partition=revoked[0])
                    assert (await task).value == 10
            assert sorted(revoked) == [0, 1]
            assert await counted(log, "g") == 11

    run(main)


def test_an_error_of_on_assign_is_raised_by_the_receive(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path / "log") as log:
            orders = await ten(log)

            told: list[list[Assigned]] = []

            def refuse(new: list[Assigned]) -> None:
                told.append(new)
                if len(told) == 1:
                    raise Failure

            consumer = orders.consumer(on_assign=refuse)
            with pytest.raises(Failure):
                await consumer.receive()
            assert (await consumer.receive()).value == b"0"
            assert len(told) == 2
            assert told[0] == told[1]
            await consumer.close()
            with pytest.raises(TypeError, match="on_assign"):
                await orders.consumer(on_assign=5).receive()  # type: ignore[arg-type]

    run(main)


def test_a_consumer_may_be_closed_by_what_it_calls(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path / "log") as log:
            orders = await ten(log)

            async def close(_: list[Assigned]) -> None:
                with pytest.raises(RuntimeError, match="inside"):
                    await consumer.receive()
                await consumer.close()

            consumer = orders.consumer(on_assign=close)
            with pytest.raises(Closed):
                await consumer.receive(20)
            await consumer.close()
            assert log.sync_log.engine.handles() == []

    run(main)


def test_a_newer_member_of_the_name_fences_the_older_one(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path / "log") as log:
            orders = await ten(log)
            async with orders.consumer(member="till") as older:
                assert older.member == "till"
                assert (await older.receive(5)).value == b"0"
                waiting = older.generation
                assert waiting is not None
                newer = orders.consumer(member="till")
                task = asyncio.create_task(newer.receive(20))
                with pytest.raises(Fenced):
                    while True:
                        await older.receive(5)
                await orders.send(b"for the newer one")
                received = [(await task).value]
                while received[-1] != b"for the newer one":
                    received.append((await newer.receive(20)).value)
                await newer.close()
                with pytest.raises(Fenced):
                    await older.receive(5)
                await older.close()

    run(main)


@pytest.mark.parametrize("loop", LOOPS)
def test_waiting_is_no_processing_and_handling_is(tmp_path: Path, loop: str) -> None:
    async def main() -> None:
        async with aio.open(tmp_path / "log") as log:
            orders = await log.queue("orders", int, partitions=1)
            async with orders.consumer(max_processing=0.3) as slow:
                waiting = asyncio.create_task(slow.receive(20))
                await asyncio.sleep(1.0)
                await orders.send(1)
                assert (await waiting).value == 1
                before = slow.generation
                async with orders.consumer() as other:
                    taken = asyncio.create_task(other.receive(20))
                    await asyncio.sleep(0.1)
                    assert not taken.done(), "it is being handled"
                    assert (await taken).value == 1, "for too long: another one goes on"
                    with pytest.raises(Fenced):
                        await slow.commit()
                assert slow.generation != before
                await orders.send(2)
                assert (await slow.receive(20)).value == 2, "it has joined again"

    run(main, loop)


def test_new_partitions_are_noticed_while_it_waits(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path / "log") as log:
            topic = await log.topic("t", int, partitions=1)
            async with topic.consumer("g") as one, topic.tail() as two:
                tasks = [asyncio.create_task(consumer.receive(20)) for consumer in (one, two)]
                await asyncio.sleep(0.1)
                await topic.configure(partitions=3)
                await topic.send(7, partition=2)
                assert [message.value for message in await all_of(*tasks)] == [7, 7]

    run(main)
