"""Is every message delivered by the rule that was asked for, and does a group stand where it should?"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tidelog.channel import Queue
from tidelog.consumer import Assigned, Consumer
from tidelog.errors import Closed, NotSupported, OffsetOutOfRange, Timeout
from tidelog.log import Log
from tidelog.log import open as open_log
from tidelog.message import Position

DAY = datetime(2026, 3, 4, tzinfo=UTC)


@pytest.fixture
def orders(tide: Log) -> Queue[bytes]:
    """Ten messages, b"0" to b"9", a second apart, in one partition."""
    queue = tide.queue("orders", partitions=1)
    for number in range(10):
        queue.send(b"%d" % number, timestamp=DAY + timedelta(seconds=number))
    return queue


def committed(queue: Queue[bytes]) -> int | None:
    """The group's offset as anybody sees it."""
    return next((row.offset for row in queue.offsets() if row.offset >= 0), None)


class Failure(Exception):
    """What a handler raises."""


# --- the delivery rule ---


def test_at_least_once_commits_when_the_next_is_asked_for(orders: Queue[bytes]) -> None:
    with orders.consumer() as consumer:
        assert consumer.receive(timeout=5).value == b"0"
        assert committed(orders) is None
        assert consumer.receive(timeout=5).value == b"1"
        assert committed(orders) == 1
        assert len(consumer.receive_many(3, timeout=5)) == 3
        assert committed(orders) == 2
        assert len(consumer.receive_many(1, timeout=5)) == 1
        assert committed(orders) == 5
    assert committed(orders) == 6


def test_break_commits_and_an_exception_does_not(orders: Queue[bytes]) -> None:
    with orders.consumer() as consumer:
        for message in consumer:
            if message.value == b"3":
                break
    assert committed(orders) == 4
    with pytest.raises(Failure), orders.consumer() as consumer:
        for message in consumer:
            if message.value == b"6":
                raise Failure
    assert committed(orders) == 6
    with orders.consumer(stop="end") as consumer:
        assert [message.value for message in consumer] == [b"6", b"7", b"8", b"9"], "the failed one comes again"
    assert committed(orders) == 10


def test_closing_alone_commits_nothing(orders: Queue[bytes]) -> None:
    consumer = orders.consumer()
    consumer.receive_many(5, timeout=5)
    consumer.close()
    consumer.close()
    assert committed(orders) is None
    with pytest.raises(Closed):
        consumer.receive(timeout=0)
    with pytest.raises(Closed), consumer:
        pass


def test_at_most_once_commits_before_handing_over(orders: Queue[bytes]) -> None:
    with pytest.raises(Failure), orders.consumer(delivery="at-most-once") as consumer:
        consumer.receive(timeout=5)
        assert committed(orders) == 1
        consumer.receive_many(4, timeout=5)
        assert committed(orders) == 5
        raise Failure
    with orders.consumer(delivery="at-most-once") as consumer:
        assert consumer.receive(timeout=5).value == b"5"


def test_manual_commits_only_what_it_is_told(orders: Queue[bytes]) -> None:
    with orders.consumer(delivery="manual") as consumer:
        batch = consumer.receive_many(5, timeout=5)
        consumer.receive(timeout=5)
        assert committed(orders) is None
        consumer.commit(batch[2])
        assert committed(orders) == 3
        consumer.commit(batch)
        assert committed(orders) == 5
        assert consumer.committed == {Assigned("orders", 0): 5}
        consumer.receive(timeout=5)
    assert committed(orders) == 5
    with orders.consumer(delivery="manual") as consumer:
        consumer.receive_many(2, timeout=5)
        consumer.commit(level="synced")
        assert committed(orders) == 7
        with pytest.raises(TypeError):
            consumer.commit(5)  # type: ignore[arg-type]


def test_exactly_once_says_what_to_do_instead(orders: Queue[bytes]) -> None:
    with pytest.raises(NotSupported, match="own database"):
        orders.consumer(delivery="exactly-once")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"delivery": "twice"}, ValueError),
        ({"isolation": "dirty"}, ValueError),
        ({"start": "newest"}, ValueError),
        ({"start": -1}, ValueError),
        ({"start": 1.5}, TypeError),
        ({"stop": "start"}, ValueError),
        ({"busy_poll": -1}, ValueError),
        ({"strategy": "fair"}, ValueError),
        ({"member": ""}, ValueError),
        ({"member": "x" * 97}, ValueError),
        ({"member": 5}, ValueError),
        ({"member_timeout": -1}, ValueError),
        ({"max_processing": 0}, ValueError),
        ({"max_processing": "5"}, TypeError),
        ({"on_assign": 5}, TypeError),
        ({"on_revoke": "x"}, TypeError),
    ],
)
def test_options_out_of_range_hold_no_lease(orders: Queue[bytes], options: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(options))):
        orders.consumer(**options)
    with orders.consumer() as consumer:
        assert consumer.assignment == (Assigned("orders", 0),)


# --- where it starts and stops ---


def test_the_start_matters_until_something_is_committed(orders: Queue[bytes]) -> None:
    places: list[tuple[Any, bytes | None]] = [
        ("earliest", b"0"),
        (7, b"7"),
        (DAY + timedelta(seconds=4), b"4"),
    ]
    for start, first in places:
        with pytest.raises(Failure), orders.consumer(start=start, stop="end") as consumer:
            assert next((message.value for message in consumer), None) == first
            raise Failure
    with orders.consumer(start=5) as consumer:
        consumer.receive(timeout=5)
    with orders.consumer(start=2) as consumer:
        assert consumer.receive(timeout=5).value == b"6"


def test_latest_is_remembered(tide: Log) -> None:
    """Or what came between two consumers that handled nothing would be skipped by the second."""
    events = tide.topic("events", partitions=1)
    events.send(b"before")
    for delivery in ("at-least-once", "at-most-once"):
        with events.consumer(delivery, start="latest", delivery=delivery):
            pass
    events.send(b"between")
    for delivery in ("at-least-once", "at-most-once"):
        with events.consumer(delivery, start="latest") as consumer:
            assert consumer.receive(timeout=5).value == b"between"
    with events.consumer("manual", start="latest", delivery="manual") as consumer:
        assert consumer.committed == {Assigned("events", 0): None}, "manual commits what it is told"


def test_stop_ends_iteration(orders: Queue[bytes]) -> None:
    stops: list[tuple[Any, int]] = [("end", 10), (4, 4), (DAY + timedelta(seconds=7), 7)]
    for stop, count in stops:
        with pytest.raises(Failure), orders.consumer(stop=stop, delivery="manual") as consumer:
            assert len(list(consumer)) == count
            assert len(consumer.receive_many(5, timeout=5)) == 0
            with pytest.raises(Timeout):
                consumer.receive()
            raise Failure
    with orders.consumer(stop="end", delivery="manual") as consumer:
        orders.send(b"10")
        assert len(list(consumer)) == 10, "the end as it was"


def test_groups_of_a_topic_are_independent(tide: Log) -> None:
    topic = tide.topic("events", partitions=2)
    topic.send_many([b"%d" % number for number in range(100)], keys=[b"%d" % number for number in range(100)])
    for group in ("a", "b"):
        with topic.consumer(group=group, stop="end") as consumer:
            assert len(list(consumer)) == 100
    with topic.consumer(group="a", stop="end") as consumer:
        assert list(consumer) == []
    with pytest.raises(ValueError, match="group"):
        topic.consumer(group="")
    with pytest.raises(TypeError):
        topic.consumer()  # type: ignore[call-arg]


def test_offsets_survive_reopening(tmp_path: Path) -> None:
    with open_log(tmp_path / "x") as log:
        queue = log.queue("orders", partitions=1)
        queue.send_many([b"0", b"1", b"2"])
        with queue.consumer() as consumer:
            consumer.receive(timeout=5)
    with open_log(tmp_path / "x") as log, log.queue("orders").consumer() as consumer:
        assert consumer.receive(timeout=5).value == b"1"


def test_an_offset_that_was_removed_is_said_once(orders: Queue[bytes]) -> None:
    with orders.consumer() as consumer:
        consumer.receive_many(2, timeout=5)
    orders.trim(before=5)
    with orders.consumer() as consumer:
        with pytest.raises(OffsetOutOfRange, match="5"):
            consumer.receive(timeout=5)
        assert consumer.receive(timeout=5).value == b"5"


# --- waiting ---


def test_time_outs(orders: Queue[bytes]) -> None:
    with orders.consumer(start="latest") as consumer:
        for timeout in (0, 0.1):
            begin = time.monotonic()
            with pytest.raises(Timeout):
                consumer.receive(timeout=timeout)
            assert time.monotonic() - begin >= timeout
            assert len(consumer.receive_many(5, timeout=timeout)) == 0
        with pytest.raises(ValueError, match="timeout"):
            consumer.receive(timeout=-1)
        with pytest.raises(ValueError, match="count"):
            consumer.receive_many(0)


@pytest.mark.parametrize("busy_poll", [0.0, 0.01, timedelta(milliseconds=5)])
def test_a_sleeper_is_woken(tide: Log, busy_poll: Any) -> None:
    queue = tide.queue("orders", partitions=2)
    with queue.consumer(busy_poll=busy_poll) as consumer:
        timer = threading.Timer(0.2, lambda: queue.send(b"x"))
        timer.start()
        assert consumer.receive(timeout=30).value == b"x"
        timer.join()


def blocked(consumer: Consumer[Any]) -> tuple[threading.Thread, list[BaseException]]:
    """A thread that waits in `receive`, and what that raises."""
    raised: list[BaseException] = []

    def wait() -> None:
        try:
            consumer.receive(timeout=60)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.2)
    return thread, raised


def test_close_wakes_a_blocked_call(tide: Log) -> None:
    consumer = tide.queue("orders").consumer()
    thread, raised = blocked(consumer)
    consumer.close()
    thread.join(20)
    assert not thread.is_alive()
    assert [type(error) for error in raised] == [Closed]
    with tide.queue("orders").consumer() as another:
        assert len(another.assignment) == 4


def test_a_second_thread_is_refused(tide: Log) -> None:
    with tide.queue("orders").consumer() as consumer:
        thread, raised = blocked(consumer)
        with pytest.raises(RuntimeError, match="thread"):
            consumer.receive(timeout=0)
        tide.queue("orders").send(b"x")
        thread.join(20)
        assert raised == []


# --- other processes and groups ---


@contextmanager
def other_process(code: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().strip() == "ready"
            yield process
        finally:
            process.kill()
            process.wait()


def test_the_death_of_another_process_frees_its_partitions(tmp_path: Path) -> None:
    with open_log(tmp_path / "x") as log:
        queue = log.queue("orders", partitions=1)
        queue.send_many([b"0", b"1", b"2"])
        code = (
            "import tidelog, time\n"
            f"c = tidelog.open({str(tmp_path / 'x')!r})['orders'].consumer()\n"
            "c.receive(timeout=5); c.receive(timeout=5)\n"
            "print('ready', flush=True); time.sleep(600)"
        )
        with other_process(code) as process, queue.consumer() as consumer:
            with pytest.raises(Timeout):
                consumer.receive(timeout=0.3)
            assert consumer.assignment == ()
            assert [row.owner_pid for row in queue.offsets()] == [process.pid]
            process.kill()
            assert consumer.receive(timeout=30).value == b"1", "what the killed one had not committed comes again"


def test_tails_and_other_groups_are_not_in_the_way(tide: Log) -> None:
    topic = tide.topic("events")
    with topic.consumer(group="a"), topic.consumer(group="b"), topic.tail(), topic.tail():
        pass


# --- moving ---


def test_seek_to_every_kind_of_place(orders: Queue[bytes]) -> None:
    with orders.consumer(delivery="manual") as consumer:
        fifth = consumer.receive_many(6, timeout=5)[5]

        def after(place: Any, **options: Any) -> bytes:
            consumer.seek(place, **options)
            return consumer.receive(timeout=5).value

        assert after(fifth) == b"5"
        assert after((0, 8)) == b"8"
        assert after(Position(0, 2)) == b"2"
        assert after(DAY + timedelta(seconds=6)) == b"6"
        assert after("earliest") == b"0"
        assert after(3) == b"3"
        assert after(4, partition=0) == b"4"
        consumer.seek("latest")
        assert len(consumer.receive_many(5, timeout=0)) == 0
        assert consumer.position == {Assigned("orders", 0): 10}
        consumer.seek((0, 10))
        for wrong in ((0, 11), 11):
            with pytest.raises(OffsetOutOfRange, match="0 .. 10"):
                consumer.seek(wrong)
        for place in ((1, 0), "nowhere", -1, (0, "x")):
            with pytest.raises(ValueError):
                consumer.seek(place)  # type: ignore[arg-type]
        for wrong_type in (1.5, (0, 1.5), (0,), None):
            with pytest.raises(TypeError):
                consumer.seek(wrong_type)  # type: ignore[arg-type]


def test_seeking_commits_nothing(orders: Queue[bytes]) -> None:
    with orders.consumer() as consumer:
        consumer.receive_many(5, timeout=5)
        consumer.seek((0, 1))
        assert committed(orders) is None
        assert consumer.receive(timeout=5).value == b"1"
    assert committed(orders) == 2


def test_position_and_lag(orders: Queue[bytes]) -> None:
    with orders.consumer() as consumer:
        assert consumer.position == {Assigned("orders", 0): 0}
        assert consumer.lag == 10
        consumer.receive(timeout=5)
        assert consumer.position == {Assigned("orders", 0): 1}, "not what was read ahead"
        assert consumer.lag == 9
        consumer.receive_many(20, timeout=5)
        assert consumer.lag == 0
        orders.send(b"x")
        assert consumer.lag == 1
        assert consumer.assignment == (Assigned("orders", 0),)
        assert consumer.group == "orders"


def test_pause_and_resume(tide: Log) -> None:
    queue = tide.queue("orders", partitions=2)
    for partition in range(2):
        queue.send_many([b"%d" % partition] * 5, partition=partition)
    with queue.consumer() as consumer:
        consumer.pause(0)
        assert consumer.receive_many(20, timeout=5).values == [b"1"] * 5
        with pytest.raises(Timeout):
            consumer.receive(timeout=0.05)
        consumer.resume(0)
        assert consumer.receive_many(20, timeout=5).values == [b"0"] * 5
        consumer.pause()
        queue.send(b"x")
        assert len(consumer.receive_many(5, timeout=0.05)) == 0
        consumer.resume()
        assert consumer.receive(timeout=5).value == b"x"
        with pytest.raises(ValueError, match="not assigned"):
            consumer.pause(2)


# --- several channels ---


def test_one_consumer_of_several_channels(tide: Log) -> None:
    names, numbers = tide.topic("names", str, partitions=2), tide.topic("numbers", int, partitions=1)
    names.send_many(["a", "b", "c"], partition=1)
    numbers.send_many([1, 2])
    with tide.consumer(names, numbers, group="audit", stop="end") as consumer:
        found = [(message.channel, message.value) for message in consumer]
        assert sorted(map(repr, found)) == sorted(
            map(repr, [("names", "a"), ("names", "b"), ("names", "c"), ("numbers", 1), ("numbers", 2)])
        )
        assert consumer.position == {Assigned("names", 0): 0, Assigned("names", 1): 3, Assigned("numbers", 0): 2}
        with pytest.raises(ValueError, match="which channel"):
            consumer.seek((0, 1))
        consumer.seek((0, 1), channel="numbers")
        assert consumer.receive(timeout=5).value == 2
    assert {(row.channel, row.partition): row.offset for row in tide.offsets() if row.offset >= 0} == {
        ("names", 1): 3,
        ("numbers", 0): 2,
    }


def test_a_queue_has_one_group(tide: Log) -> None:
    orders = tide.queue("orders")
    with pytest.raises(ValueError, match="only group"):
        tide.consumer(orders, group="audit")
    tide.consumer(orders, group="orders").close()
    with pytest.raises(ValueError, match="named twice"):
        tide.consumer(orders, orders, group="orders")
    with pytest.raises(ValueError, match="at least one channel"):
        tide.consumer(group="orders")
    with pytest.raises(TypeError, match="'orders' is no channel"):
        tide.consumer("orders", group="orders")  # type: ignore[arg-type]


def test_signals_get_through_while_waiting(tmp_path: Path) -> None:
    code = (
        "import tidelog, signal, os\n"
        f"c = tidelog.open({str(tmp_path / 'x')!r}).queue('orders').consumer()\n"
        "print('ready', flush=True)\n"
        "try:\n    c.receive()\n"
        "except KeyboardInterrupt:\n    print('interrupted', flush=True)"
    )
    with other_process(code) as process:
        import signal

        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "interrupted"


def test_every_use_after_close_says_closed(orders: Queue[bytes]) -> None:
    consumer = orders.consumer()
    consumer.close()
    uses: list[Callable[[], Any]] = [
        lambda: consumer.receive(timeout=0),
        lambda: consumer.receive_many(5, timeout=0),
        lambda: next(consumer),
        consumer.commit,
        lambda: consumer.seek("earliest"),
        consumer.pause,
        consumer.resume,
    ]
    for use in uses:
        with pytest.raises(Closed):
            use()
    with suppress(Closed):
        repr(consumer)
