"""Does a producer, or a transaction, that knows its way to a channel still see what changed since?"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

import tidelog
from tidelog.errors import ChannelNotFound, Closed, Fenced, Forked, NoSpace, SchemaMismatch
from tidelog.testing import faults

WAYS = [
    pytest.param({}, id="plain"),
    pytest.param({"name": "till"}, id="named"),
    pytest.param({"linger": 0.001}, id="lingering"),
    pytest.param({"ack": "synced"}, id="synced"),
]


def values(channel: Any) -> list[Any]:
    return [message.value for message in channel.scan()]


@pytest.mark.parametrize("options", WAYS)
def test_partitions_that_come_are_used(log: tidelog.Log, options: dict[str, Any]) -> None:
    orders = log.queue("orders", partitions=1)
    with log.producer(**options) as producer:
        for _ in range(3):
            producer.send(orders, b"one")
        orders.configure(partitions=4)
        for number in range(4):
            producer.send(orders, b"four", partition=number)
        producer.flush()
    assert [message.partition for message in orders.scan() if message.value == b"four"] == [0, 1, 2, 3]


@pytest.mark.parametrize("options", WAYS)
def test_another_channel_of_the_name_is_another_channel(log: tidelog.Log, options: dict[str, Any]) -> None:
    orders = log.queue("orders")
    with log.producer(**options) as producer:
        producer.send(orders, b"old")
        producer.flush()
        log.drop("orders")
        with pytest.raises(ChannelNotFound):
            producer.send(orders, b"lost")
        new = log.queue("orders", str)
        producer.send(new, "new")
        producer.flush()
        with pytest.raises(SchemaMismatch):
            producer.send(new, 7)  # type: ignore[arg-type]
    assert values(new) == ["new"]


@pytest.mark.parametrize("options", WAYS)
def test_a_limit_that_changes_holds_at_once(log: tidelog.Log, options: dict[str, Any]) -> None:
    orders = log.queue("orders", max_message_bytes=100)
    with log.producer(**options) as producer:
        producer.send(orders, bytes(100))
        orders.configure(max_message_bytes=50)
        with pytest.raises(tidelog.TooLarge):
            producer.send(orders, bytes(51))
        with pytest.raises(tidelog.TooLarge):
            producer.send_many(orders, [bytes(51)])


@pytest.mark.parametrize("options", WAYS)
def test_what_is_closed_refuses(tmp_path: Path, options: dict[str, Any]) -> None:
    log = tidelog.open(tmp_path / "log")
    orders = log.queue("orders")
    producer, other = log.producer(**options), log.producer()
    producer.send(orders, b"x")
    other.send(orders, b"x")
    producer.close()
    for send in (producer.send, producer.send_many):
        with pytest.raises(Closed, match="the producer was closed"):
            send(orders, b"y")
    log.close()
    with pytest.raises(Closed):
        other.send(orders, b"y")


def test_a_fenced_name_is_told_so(log: tidelog.Log) -> None:
    orders = log.queue("orders", partitions=1)
    older = log.producer(name="till")
    for _ in range(3):
        older.send(orders, b"older")
    newer = log.producer(name="till")
    with pytest.raises(Fenced):
        older.send(orders, b"zombie")
    newer.send(orders, b"newer")
    assert values(orders) == [b"older"] * 3 + [b"newer"]


def test_a_child_is_told_of_the_fork(tmp_path: Path) -> None:
    with tidelog.open(tmp_path / "log") as log:
        orders = log.queue("orders")
        producer, named = log.producer(), log.producer(name="till")
        producer.send(orders, b"parent")
        named.send(orders, b"parent")
        child = os.fork()
        if child == 0:
            told = 0
            for one in (producer, named):
                try:
                    one.send(orders, b"child")
                except Forked:
                    told += 1
            os._exit(told)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
        assert values(orders) == [b"parent"] * 2


def test_faults_take_part_although_the_way_is_known(log: tidelog.Log) -> None:
    orders = log.queue("orders", partitions=1)
    producer = log.producer(name="till")
    producer.send(orders, b"before")
    with faults.fail("append", on="orders", times=2) as fault:
        with pytest.raises(NoSpace):
            producer.send(orders, b"lost")
        with pytest.raises(NoSpace), log.transaction(producer) as tx:
            tx.send(orders, b"lost")
        producer.send(orders, b"third")
    assert (fault.calls, fault.hits) == (3, 2)
    producer.send(orders, b"after")
    assert values(orders) == [b"before", b"third", b"after"]


def test_transactions_go_the_way_of_their_producer(log: tidelog.Log) -> None:
    """And what is too late never goes into the next one."""
    orders, receipts = log.queue("orders", partitions=1), log.topic("receipts", str, partitions=1)
    producer = log.producer(name="till")
    for number in range(5):
        with log.transaction(producer) as tx:
            tx.send(orders, b"%d" % number)
            tx.send_many(receipts, [str(number)] * 3)
    with pytest.raises(Closed, match="has ended|was committed|is over"):
        tx.send(orders, b"late")
    with log.transaction(producer) as following:
        with pytest.raises(Closed):
            tx.send(orders, b"late")
        following.send(orders, b"5")
        with pytest.raises(RuntimeError):
            producer.send(orders, b"outside")
    assert values(orders) == [b"0", b"1", b"2", b"3", b"4", b"5"]
    assert values(receipts) == [str(number) for number in range(5) for _ in range(3)]


def test_the_right_channel_among_many(log: tidelog.Log) -> None:
    channels = [log.topic(f"t{number}", int, partitions=1) for number in range(40)]
    producer = log.producer(name="till")
    for round_ in range(3):
        for number, channel in enumerate(channels):
            producer.send(channel, 100 * round_ + number)
    for number, channel in enumerate(channels):
        assert values(channel) == [number, 100 + number, 200 + number]


def test_many_threads_of_one_name(log: tidelog.Log) -> None:
    """Each message has a sequence of its own, in the order of the log, whoever sent it."""
    orders, plain = log.topic("orders", partitions=1), log.producer()
    producer = log.producer(name="till")
    threads = [
        threading.Thread(target=lambda: [producer.send(orders, b"named") for _ in range(2000)]) for _ in range(4)
    ] + [threading.Thread(target=lambda: [plain.send(orders, b"plain") for _ in range(2000)])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = values(orders)
    assert (found.count(b"named"), found.count(b"plain")) == (8000, 2000)
    assert producer.last(orders) == [tidelog.Position(0, max(i for i, value in enumerate(found) if value == b"named"))]
    problems: list[object] = []
    orders.opened().partitions[0].check(lambda *place: problems.append(place))
    assert not problems
