"""Do faults that a test asks for happen where and as often as it says, and leave nothing behind?"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tidelog.channel import Channel
from tidelog.consumer import Consumer
from tidelog.errors import NoSpace, StorageFailed
from tidelog.log import Log
from tidelog.log import open as open_log
from tidelog.producer import Producer
from tidelog.testing import faults


def clean() -> bool:
    """Whether nothing is wrapped any more."""
    return not any("__getattribute__" in owner.__dict__ for owner in (Channel, Consumer, Log, Producer))


@pytest.fixture(autouse=True)
def nothing_stays() -> Any:
    yield
    assert clean()
    assert "__iter__" not in Consumer.__dict__ and "__next__" not in Consumer.__dict__


def values(channel: Channel[Any]) -> list[bytes]:
    return [message.value for message in channel.scan()]


def test_whoever_watches_sees_every_call_before_and_after(tide: Log) -> None:
    orders = tide.queue("orders", partitions=1)
    seen: list[tuple[str, str | None, bool]] = []

    def watcher(point: str, on: str | None, done: bool, answer: Any) -> None:
        seen.append((point, on, done))
        assert (answer is None) == (not done or point == "commit")

    with faults.watch(watcher):
        orders.send(b"a")
        with pytest.raises(NoSpace), faults.fail("append", error=NoSpace):
            orders.send(b"b")
        with orders.consumer(stop="end", delivery="manual") as received:
            received.commit(received.receive(timeout=5))
        with faults.fail("sync", error=StorageFailed):
            pass
        assert not clean(), "it still watches"
    assert seen == [
        ("append", "orders", False),
        ("append", "orders", True),
        ("append", "orders", False),
        ("receive", "orders", False),
        ("receive", "orders", True),
        ("commit", "orders", False),
        ("commit", "orders", True),
    ]


def test_appends_fail_after_some_and_then_go_on(tide: Log) -> None:
    orders = tide.queue("orders", partitions=1)
    with faults.fail("append", error=NoSpace, after=2, times=2) as fault:
        orders.send(b"0")
        orders.send_many([b"1"])
        with pytest.raises(NoSpace, match="append"):
            orders.send(b"2")
        with pytest.raises(NoSpace):
            orders.send_many([b"3"])
        orders.send(b"4")
    assert (fault.calls, fault.hits) == (5, 2)
    assert values(orders) == [b"0", b"1", b"4"]


def test_done_and_then_failed(tide: Log) -> None:
    orders = tide.queue("orders", partitions=1)
    with faults.fail("append", error=StorageFailed("the answer is lost"), done=True), pytest.raises(StorageFailed):
        orders.send(b"0")
    assert values(orders) == [b"0"]


def test_producers_and_what_lingers(tide: Log) -> None:
    orders = tide.queue("orders", partitions=1)
    with tide.producer() as plain, faults.fail("append"), pytest.raises(NoSpace):
        plain.send(orders, b"0")
    with tide.producer(linger=30) as lingering:
        with faults.fail("append", error=lambda: NoSpace("full")) as fault:
            receipt = lingering.send(orders, b"1")
            assert fault.calls == 0
            with pytest.raises(NoSpace, match="full"):
                receipt.result()
        lingering.send(orders, b"2")
    assert values(orders) == [b"2"]


def test_a_channel_that_has_grown_is_guarded_too(tide: Log) -> None:
    orders = tide.queue("orders", partitions=1)
    orders.configure(partitions=2)
    with faults.fail("append"), pytest.raises(NoSpace):
        orders.send(b"0")


def test_only_one_channel_or_group(tide: Log) -> None:
    first, second = tide.queue("first", partitions=1), tide.topic("second", partitions=1)
    second.send(b"0")
    with faults.fail("append", on="second", times=None):
        first.send(b"0")
        with pytest.raises(NoSpace):
            second.send(b"0")
    with (
        second.consumer(group="a") as mine,
        second.consumer(group="b") as others,
        faults.fail("receive", error=ZeroDivisionError, on="a"),
    ):
        assert others.receive(timeout=5).value == b"0"
        with pytest.raises(ZeroDivisionError):
            mine.receive(timeout=5)


def test_receiving_fails_before_or_after_its_work(tide: Log) -> None:
    orders = tide.queue("orders", partitions=1)
    orders.send_many([b"0", b"1", b"2", b"3"])
    with orders.consumer(delivery="manual") as received:
        with faults.fail("receive", error=ZeroDivisionError), pytest.raises(ZeroDivisionError):
            received.receive(timeout=5)
        assert received.receive(timeout=5).value == b"0"
        with faults.fail("receive", error=ZeroDivisionError, done=True), pytest.raises(ZeroDivisionError):
            received.receive_many(1, timeout=5)
        with faults.fail("receive", error=ZeroDivisionError, after=1), pytest.raises(ZeroDivisionError):
            for message in received:
                assert message.value == b"2"
        assert next(received).value == b"3"


def committed(channel: Channel[Any]) -> list[int]:
    return [row.offset for row in channel.offsets()]


def test_commits_that_the_delivery_rule_makes(tide: Log) -> None:
    orders = tide.queue("orders", partitions=1)
    orders.send_many([b"0", b"1", b"2", b"3"])
    with faults.fail("commit", error=ZeroDivisionError, after=1) as fault:
        with pytest.raises(ZeroDivisionError), orders.consumer() as received:
            received.receive(timeout=5)
            received.receive(timeout=5)
            assert fault.calls == 1
            received.receive(timeout=5)
        assert committed(orders) == [1]
    with (
        faults.fail("commit", error=ZeroDivisionError),
        pytest.raises(ZeroDivisionError),
        orders.consumer() as received,
    ):
        assert received.receive(timeout=5).value == b"1"
    assert committed(orders) == [1], "leaving `with` commits, and that failed"
    with faults.fail("commit", error=ZeroDivisionError) as fault, orders.consumer(delivery="at-most-once") as received:
        with pytest.raises(ZeroDivisionError):
            received.receive(timeout=5)
        assert received.receive(timeout=5).value == b"1"
    with orders.consumer(delivery="manual") as received:
        received.receive(timeout=5)
        with faults.fail("commit", error=ZeroDivisionError), pytest.raises(ZeroDivisionError):
            received.commit()
        assert committed(orders) == [2]
        received.commit()
    assert committed(orders) == [3]


def test_iteration_is_the_same_with_a_fault_around_it(tide: Log) -> None:
    orders = tide.queue("orders", partitions=2)
    orders.send_many([b"%d" % number for number in range(20)], keys=[b"%d" % number for number in range(20)])
    with faults.fail("sync") as fault, orders.consumer(stop="end") as received:
        assert len([message.value for message in received]) == 20
    assert fault.hits == 0
    assert sum(committed(orders)) == 20


def test_sync_and_delay(tide: Log) -> None:
    orders = tide.queue("orders", partitions=1)
    with faults.fail("sync", error=StorageFailed, times=2) as fault:
        for sync in (tide.sync, orders.sync):
            with pytest.raises(StorageFailed):
                sync()
    assert fault.hits == 2
    with faults.delay("append", 0.1, after=1, times=1) as fault:
        orders.send(b"0")
        began = time.monotonic()
        orders.send(b"1")
        assert time.monotonic() - began >= 0.1
    assert fault.hits == 1


def test_several_at_once_and_one_inside_another(tide: Log) -> None:
    orders = tide.queue("orders", partitions=1)
    with faults.fail("append", error=ZeroDivisionError, after=1) as outer:
        with faults.fail("append", error=KeyError), pytest.raises(KeyError):
            orders.send(b"0")
        with pytest.raises(ZeroDivisionError):
            orders.send(b"1")
    assert outer.calls == 2


def test_arguments_out_of_range() -> None:
    with pytest.raises(ValueError, match="append, receive"), faults.fail("open"):  # type: ignore[arg-type]
        pass
    with pytest.raises(TypeError, match="give the class of an exception"), faults.fail("append", error=3):  # type: ignore[arg-type]
        raise AssertionError
    with pytest.raises(TypeError, match="int is no class of exceptions"), faults.fail("append", error=int):  # type: ignore[arg-type]
        raise AssertionError
    with pytest.raises(ValueError, match="below 0"), faults.fail("append", after=-1):
        pass
    with pytest.raises(ValueError, match="below 0"), faults.delay("append", 1, times=-1):
        pass


@pytest.mark.parametrize("done", [False, True])
def test_kill(tmp_path: Path, done: bool) -> None:
    child = os.fork()
    if child == 0:
        try:
            with open_log(tmp_path / "x") as log:
                orders = log.queue("orders", partitions=1)
                faults.kill("append", after=3, done=done)
                for number in range(10):
                    orders.send(b"%d" % number)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    with open_log(tmp_path / "x") as log:
        assert len(values(log["orders"])) == (4 if done else 3)
