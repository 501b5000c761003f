"""Is the log for asyncio opened, used from several loops and closed as it says?"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from tests.unit.loops import LOOPS, all_of, run, until
from tidelog import aio
from tidelog.errors import ChannelNotFound, Closed, SchemaMismatch
from tidelog.log import open as open_sync


def test_it_is_entered_or_awaited(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path / "a") as log:
            assert not log.closed
            assert log.can.shared and log.name.endswith("a")
            assert repr(log).startswith("<aio.Log")
        assert log.closed
        other = await aio.open(tmp_path / "a")
        try:
            assert await other.names() == []
        finally:
            await other.close()
            await other.close()
        with pytest.raises(ValueError, match="flush_interval"):
            await aio.open(tmp_path / "a", flush_interval=-1)

    run(main)


def test_a_cancelled_opening_leaves_nothing_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidelog.aio.worker.IDLE_SECONDS", 0.05)

    async def main() -> None:
        task = asyncio.ensure_future(_opened(tmp_path / "a"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # Whoever is alone in it afterwards finds that it was closed cleanly.
        await until(lambda: not [thread for thread in threading.enumerate() if thread.name == "tidelog-calls"], 20)

    run(main)
    with open_sync(tmp_path / "a") as log:
        assert len(log.engine.store.processes()) == 1  # type: ignore[attr-defined]
        assert log.engine.handles() == []


async def _opened(path: Path) -> aio.Log:
    return await aio.open(path)


@pytest.mark.parametrize("loop", LOOPS)
def test_channels_by_the_same_names(tmp_path: Path, loop: str) -> None:
    async def main() -> None:
        async with aio.open(tmp_path / "log") as log:
            orders = await log.queue("orders", str, partitions=2)
            prices = await log.topic("prices", np.dtype([("px", "f8")]), partitions=1)
            assert (orders.name, orders.kind, orders.partitions, orders.carries) == ("orders", "queue", 2, "command")
            assert (prices.kind, prices.codec.dtype) == ("topic", np.dtype([("px", "f8")]))
            assert [name async for name in log] == await log.names() == ["orders", "prices"]
            assert (await log["orders"]).kind == "queue"
            assert (await log.get("nothing", 7)) == 7
            with pytest.raises(ChannelNotFound):
                await log["nothing"]
            with pytest.raises(SchemaMismatch):
                await log.topic("orders")
            receipt = await prices.send_many(np.zeros(5, dtype=[("px", "f8")]))
            assert (receipt.count, receipt.partition, receipt.offset, receipt.done) == (5, 0, 4, True)
            assert receipt.offsets.tolist() == [0, 1, 2, 3, 4]
            assert receipt.partitions.tolist() == [0] * 5
            assert await prices.bounds(0) == (0, 5)
            assert (await prices.describe(0))["log_end"] == 5
            assert len(await prices.read([1, 3])) == 2
            assert await prices.find(datetime(2000, 1, 1, tzinfo=UTC)) == 0
            assert [message.offset async for message in prices.scan(start=2)] == [2, 3, 4]
            await prices.trim(2)
            assert await prices.bounds(0) == (2, 5)
            await orders.configure(partitions=3)
            assert orders.partitions == 3
            await orders.send("late", partition=2)
            assert await orders.bounds(2) == (0, 1)
            assert [part.messages for part in (await orders.skew()).partitions] == [0, 0, 1]
            await orders.sync()
            await log.sync()
            async with orders.consumer(stop="end") as received:
                assert [message.value async for message in received] == ["late"]
            assert {row.channel for row in await orders.offsets()} == {"orders"}
            assert await log.call(lambda: sorted(log.groups)) == ["orders"]
            await log.drop("orders")
            assert await log.names() == ["prices"]
            assert "aio." in repr(prices)

    run(main, loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_close_wakes_every_waiter_with_closed(tmp_path: Path, loop: str) -> None:
    async def main() -> None:
        log = await aio.open(tmp_path / "log")
        orders = await log.queue("orders")
        prices = await log.topic("prices")
        consumers = [orders.consumer(), prices.consumer("a"), prices.tail()]
        tasks = [asyncio.create_task(consumer.receive()) for consumer in consumers]
        tasks.append(asyncio.create_task(prices.tail().receive_many(5)))
        await until(lambda: all(consumer.assignment for consumer in consumers))
        await asyncio.sleep(0.05)
        assert not any(task.done() for task in tasks)
        await log.close()
        async with asyncio.timeout(10):
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [Closed] * 4
        for call in (orders.send(b"x"), orders.send_many([b"x"]), consumers[0].receive(), log.names(), log.sync()):
            with pytest.raises(Closed):
                await call

    run(main, loop)


def test_several_loops_in_threads_share_one_log(tmp_path: Path) -> None:
    """Each loop of each kind has a consumer of its own; a publisher on another loop is heard by all."""
    with open_sync(tmp_path / "log") as sync_log:
        log = aio.Log(sync_log)
        heard: dict[str, list[bytes]] = {}
        ready = threading.Barrier(5)
        kinds = ["asyncio", "asyncio", "uvloop", "uvloop"]

        def listen(name: str, kind: str) -> None:
            async def main() -> None:
                prices = await log.topic("prices", partitions=1)
                async with prices.tail() as received:
                    ready.wait(20)
                    heard[name] = [(await received.receive(20)).value for _ in range(300)]

            run(main, kind)

        threads = [threading.Thread(target=listen, args=(f"{kind}{n}", kind)) for n, kind in enumerate(kinds)]
        for thread in threads:
            thread.start()

        async def publish() -> None:
            prices = await log.topic("prices", partitions=1)
            ready.wait(20)
            for number in range(300):
                await prices.send(b"%d" % number)
                if number % 50 == 0:
                    await asyncio.sleep(0.001)

        run(publish)
        for thread in threads:
            thread.join(30)
        waiters = [thread for thread in threading.enumerate() if thread.name == "tidelog-waiter"]
        assert len(waiters) == 1, "one for all loops"
        assert list(heard.values()) == [[b"%d" % number for number in range(300)]] * 4
        run(log.close)


def test_two_logs_on_one_store_share_the_waiter(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path / "log") as one, aio.open(tmp_path / "log") as two:
            (a, b) = (await one.topic("t")).tail(), (await two.topic("t")).tail()
            first, second = asyncio.create_task(a.receive(20)), asyncio.create_task(b.receive(20))
            await until(lambda: bool(a.assignment and b.assignment))
            await asyncio.sleep(0.05)
            assert sum(thread.name == "tidelog-waiter" for thread in threading.enumerate()) == 1
            await (await one.topic("t")).send(b"x")
            assert [message.value for message in await all_of(first, second)] == [b"x", b"x"]
            await one.close()
            third = asyncio.create_task(b.receive(20))
            await asyncio.sleep(0.05)
            await (await two.topic("t")).send(b"y")
            assert (await third).value == b"y", "the waiter goes on for the other log"
        await until(lambda: not [thread for thread in threading.enumerate() if thread.name == "tidelog-waiter"])

    run(main)


def test_a_forked_child_starts_anew(tmp_path: Path) -> None:
    code = f"""
import asyncio, os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from tidelog import aio
from tidelog.errors import Forked

async def parent(log):
    topic = await log.topic("t", partitions=1)
    async with topic.tail() as tail:
        task = asyncio.create_task(tail.receive(20))
        await asyncio.sleep(0.1)
        await topic.send(b"before")
        assert (await task).value == b"before"
    return topic

async def child(log, topic):
    for call in (lambda: topic.send(b"x"), lambda: topic.tail().receive(1), lambda: log.names()):
        try:
            await asyncio.wait_for(call(), 10)
        except Forked:
            pass
        else:
            raise AssertionError("a handle of the parent worked")
    async with aio.open({str(tmp_path / "log")!r}) as own:
        topic = await own.topic("t", partitions=1)
        async with topic.tail() as tail:
            task = asyncio.create_task(tail.receive(20))
            await asyncio.sleep(0.1)
            await topic.send_many([b"child"])
            assert (await task).value == b"child"

async def end(log, topic):
    async with topic.tail(start="earliest") as tail:
        assert [(await tail.receive(5)).value for _ in range(2)] == [b"before", b"child"]
    await log.close()

async def start():
    return await aio.open({str(tmp_path / "log")!r})

with asyncio.Runner() as runner:
    log = runner.run(start())
    topic = runner.run(parent(log))
pid = os.fork()
if pid == 0:
    try:
        asyncio.run(child(log, topic))
    except BaseException:
        import traceback
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
asyncio.run(end(log, topic))
print("fine")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("fine\n", 0), done.stderr


def test_importing_tidelog_loads_no_asyncio() -> None:
    code = (
        "import sys, tidelog\n"
        "tidelog.open('memory:').close()\n"
        "print('asyncio' in sys.modules, 'tidelog.aio' in sys.modules)\n"
        "tidelog.aio.open\n"
        "print('asyncio' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "True"]


def test_a_program_may_end_without_closing(tmp_path: Path) -> None:
    code = f"""
import asyncio
from tidelog import aio
async def main():
    log = await aio.open({str(tmp_path / "log")!r})
    topic = await log.topic("t")
    tail = topic.tail()
    asyncio.create_task(tail.receive())
    await asyncio.sleep(0.1)
    await topic.send_many([b"x"] * 10)
asyncio.run(main())
print("end")
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr, done.returncode) == ("end\n", "", 0)
    with open_sync(tmp_path / "log") as log:
        assert log.engine.store.recovery["clean"] in (True, False)  # type: ignore[attr-defined]
        assert sum(end for _, end in map(log["t"].bounds, range(4))) == 10


def test_what_is_public_is_documented() -> None:
    import inspect

    for name in aio.__all__:
        thing = getattr(aio, name)
        assert inspect.getdoc(thing), name
        if inspect.isclass(thing):
            for member, value in vars(thing).items():
                if not member.startswith("_") and (callable(value) or isinstance(value, property)):
                    assert inspect.getdoc(value), f"{name}.{member}"
    assert os.path.basename(str(aio.__file__)) == "__init__.py"


@pytest.mark.parametrize("loop", LOOPS)
def test_in_is_answered_and_for_is_refused(tmp_path: Path, loop: str) -> None:
    """Without either, Python would ask for log[0], log[1] and so on, without end."""

    async def main() -> None:
        async with aio.open(tmp_path / "log") as log:
            await log.queue("orders")
            assert "orders" in log
            assert "prices" not in log and "no/name" not in log
            assert 7 not in log
            with open_sync(tmp_path / "log") as other:
                other.topic("prices")
            assert "prices" in log
            (tmp_path / "log" / "channels" / "prices.json").write_bytes(b"damaged")
            assert "prices" in log
            await log.drop("orders")
            assert "orders" not in log
            for use in (lambda: list(log), lambda: [name for name in log]):  # noqa: C416
                with pytest.raises(TypeError, match=r"async for name in log.*await log\.names"):
                    use()
        with pytest.raises(Closed):
            "orders" in log  # noqa: B015

    run(main, loop)


def test_options_are_seen_and_changed(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path / "log") as log:
            prices = await log.topic("prices", retention=5000, compression="lz4", max_message_bytes=777)
            assert (prices.retention, prices.compression, prices.max_message_bytes) == ((-1, 5000, False), "lz4", 777)
            await prices.configure(retention="consumed", compression="gzip", max_message_bytes=888)
            assert (prices.retention, prices.compression, prices.max_message_bytes) == ((-1, -1, True), "gzip", 888)
            await prices.configure(partitions=9)  # what is not given stays
            assert (prices.retention, prices.partitions) == ((-1, -1, True), 9)
            await prices.configure(retention=None)
            assert prices.retention == (-1, -1, False)
            with pytest.raises(TypeError, match="keep"):
                await prices.configure(keep=1)  # type: ignore[call-arg]

    run(main)


def test_hot_keys_are_told(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path / "log") as log:
            events = []
            log.on_skew(events.append, threshold=0.9)
            clicks = await log.topic("clicks")
            for _ in range(12):
                await clicks.send_many([b"x"] * 10_000, keys=["hot"] * 10_000)
            assert [(event.channel, event.key) for event in events] == [("clicks", b"hot")]
            with pytest.raises(ValueError, match="threshold"):
                log.on_skew(events.append, threshold=2.0)

    run(main)
