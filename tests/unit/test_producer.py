"""Does a producer send with the ack, compression and partitions asked for, and does gathering lose or spoil nothing?"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from tidelog import producer as producer_module
from tidelog.errors import ChannelNotFound, Closed, NotSupported, SchemaMismatch, Timeout, TooLarge
from tidelog.lingering import Gathering
from tidelog.log import Log
from tidelog.log import open as open_log
from tidelog.message import Receipt
from tidelog.native import murmur2


class Order(msgspec.Struct):
    id: int


def values(log: Log, name: str = "events") -> list[Any]:
    return [message.value for message in log[name].scan()]


@pytest.mark.parametrize("linger", [0.0, 0.01])
@pytest.mark.parametrize("ack", ["written", "synced"])
def test_it_sends_to_several_channels(tide: Log, ack: str, linger: float) -> None:
    events, orders = tide.topic("events", str, partitions=2), tide.queue("orders", Order, partitions=1)
    with tide.producer(ack=ack, linger=linger) as producer:
        receipts = [producer.send(events, f"e{number}", key="k") for number in range(10)]
        order = producer.send(orders, Order(1), headers={"src": "web"}, id="web-1")
        assert isinstance(order, Receipt)
        producer.send_many(orders, [Order(2), Order(3)])
        producer.flush()
        assert order.done
        assert (order.partition, order.offset, order.count) == (0, 0, 1)
        assert order.result() == (0, 0)
        assert [receipt.offset for receipt in receipts] == list(range(10))
        assert {receipt.partition for receipt in receipts} == {(murmur2(b"k") & 0x7FFFFFFF) % 2}
    assert [message.value for message in events.scan()] == [f"e{number}" for number in range(10)]
    first, *rest = orders.scan()
    assert (first.value, first.id, first.headers["src"]) == (Order(1), "web-1", b"web")
    assert [message.value for message in rest] == [Order(2), Order(3)]


def test_names_are_refused_by_an_engine_that_has_none(tide: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tide.engine, "can", dataclasses.replace(tide.can, named_producers=False), raising=False)
    with pytest.raises(NotSupported, match="leave the name out"):
        tide.producer(name="till-3")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"ack": "all"}, ValueError),
        ({"linger": -1}, ValueError),
        ({"linger": "1"}, TypeError),
        ({"compression": "rar"}, ValueError),
        ({"partitioner": 5}, TypeError),
        ({"name": ""}, ValueError),
        ({"name": "n" * 185}, ValueError),
        ({"name": 5}, TypeError),
    ],
)
def test_options_out_of_range(tide: Log, options: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(options))):
        tide.producer(**options)
    assert tide.engine.handles() == []


@pytest.mark.parametrize("linger", [0.0, 0.01])
@pytest.mark.parametrize("compression", ["none", "gzip", "lz4"])
def test_compression(tide: Log, compression: str, linger: float) -> None:
    events = tide.topic("events", partitions=1)
    with tide.producer(compression=compression, linger=linger) as producer:
        producer.send_many(events, [b"many " * 100] * 50)
        for _ in range(50):
            producer.send(events, b"one by one " * 100)
    assert values(tide) == [b"many " * 100] * 50 + [b"one by one " * 100] * 50


@pytest.mark.parametrize("linger", [0.0, 0.01])
def test_a_partitioner_decides(tide: Log, linger: float) -> None:
    events = tide.topic("events", Order, partitions=4)
    seen = []

    def by_id(key: bytes | None, value: Order, partitions: int) -> int:
        seen.append((key, value, partitions))
        return value.id % partitions

    with tide.producer(partitioner=by_id, linger=linger) as producer:
        receipts = [producer.send(events, Order(number), key="k") for number in range(8)]
        assert [receipt.partition for receipt in receipts] == [0, 1, 2, 3] * 2
        assert producer.send(events, Order(1), partition=3).partition == 3
    assert seen == [(b"k", Order(number), 4) for number in range(8)]
    with (
        tide.producer(partitioner=lambda key, value, partitions: 9, linger=linger) as producer,
        pytest.raises(ValueError, match="answered 9"),
    ):
        producer.send(events, Order(1))


# --- gathering ---


def test_gathered_messages_wait_and_go_out_by_the_clock(tide: Log) -> None:
    events = tide.topic("events", partitions=1)
    with tide.producer(linger=0.3) as producer:
        receipt = producer.send(events, b"x")
        assert not receipt.done
        assert values(tide) == []
        deadline = time.monotonic() + 20
        while not receipt.done and time.monotonic() < deadline:
            time.sleep(0.01)
        assert receipt.done
        assert values(tide) == [b"x"]
        later = producer.send(events, b"y")  # the clock starts again
        deadline = time.monotonic() + 20
        while not later.done and time.monotonic() < deadline:
            time.sleep(0.01)
        assert values(tide) == [b"x", b"y"]


def test_gathered_messages_with_and_without_a_key_keep_their_order(tide: Log) -> None:
    """Whichever partition the keyless ones get, keyed ones of it that were sent later come later."""
    for turn in range(8):
        events = tide.topic(f"events-{turn}", partitions=2)
        with tide.producer(linger=3600) as producer:
            for number in range(40):
                key = None if number % 2 == 0 else b"k%d" % number
                producer.send(events, b"%d" % number, key=key)
        for partition in range(2):
            numbers = [int(message.raw) for message in events.scan(partition=partition)]
            assert numbers == sorted(numbers)


def test_asking_for_the_result_does_not_wait_for_the_clock(tide: Log) -> None:
    events = tide.topic("events", partitions=1)
    with tide.producer(linger=3600) as producer:
        receipts = [producer.send(events, b"%d" % number) for number in range(5)]
        begin = time.monotonic()
        assert receipts[3].result(timeout=20) == (0, 3)
        assert time.monotonic() - begin < 20
        assert all(receipt.done for receipt in receipts)
        assert receipts[4].offsets.tolist() == [4]
        assert receipts[4].partitions.tolist() == [0]
        assert receipts[4].result(timeout=20, level="synced").offset == 4


def test_a_full_batch_does_not_wait(tide: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(producer_module, "BATCH_BYTES", 1000)
    events = tide.topic("events", partitions=1)
    with tide.producer(linger=3600) as producer:
        receipts = [producer.send(events, b"x" * 100) for _ in range(25)]
        assert [receipt.done for receipt in receipts] == [True] * 20 + [False] * 5


def test_messages_of_one_key_keep_their_order(tide: Log) -> None:
    events = tide.topic("events", partitions=4)
    with tide.producer(linger=0.001) as producer:
        for number in range(3000):
            producer.send(events, b"%d" % number, key=b"%d" % (number % 13))
            if number % 500 == 7:
                producer.send_many(events, [b"%d" % number], keys=[b"%d" % (number % 13)])
    for partition in range(4):
        last: dict[bytes | None, int] = {}
        for message in events.scan(partition=partition):
            assert int(message.value) >= last.get(message.key, -1)
            last[message.key] = int(message.value)
    assert len(values(tide)) == 3006


def test_one_partition_keeps_the_order_of_everything(tide: Log) -> None:
    events = tide.topic("events", partitions=1)
    with tide.producer(linger=3600) as producer:
        for number in range(10):
            producer.send(events, b"%d" % number, key=None if number % 2 else b"k", partition=0 if number % 3 else None)
    assert values(tide) == [b"%d" % number for number in range(10)]


def test_timestamps_are_of_the_send(tide: Log) -> None:
    events = tide.topic("events", partitions=1)
    with tide.producer(linger=3600) as producer:
        before = time.time()
        producer.send(events, b"now")
        after = time.time()
        producer.send(events, b"then", timestamp=12.5)
        time.sleep(0.05)
    now, then = events.scan()
    assert before - 0.001 <= now.timestamp.timestamp() <= after + 0.001
    assert then.timestamp_ms == 12_500


def test_one_wrong_message_never_spoils_a_batch(tide: Log) -> None:
    events = tide.topic("events", Order, partitions=2, max_message_bytes=100)
    raw = tide.topic("raw", partitions=2, max_message_bytes=100)
    wrong: list[tuple[type[Exception], Any]] = [
        (SchemaMismatch, lambda p: p.send(events, "text")),
        ((TypeError, SchemaMismatch), lambda p: p.send(raw, "text")),  # type: ignore[list-item]
        (TooLarge, lambda p: p.send(raw, b"x" * 101)),
        (TooLarge, lambda p: p.send(raw, b"x" * 99, key="abc")),
        (TypeError, lambda p: p.send(raw, b"x", key=1.5)),
        (TypeError, lambda p: p.send(raw, b"x", headers={"a": 5})),
        (TypeError, lambda p: p.send(raw, b"x", id=5)),
        (TypeError, lambda p: p.send(raw, b"x", timestamp="now")),
        (ValueError, lambda p: p.send(raw, b"x", partition=2)),
    ]
    with tide.producer(linger=3600) as producer:
        producer.send(events, Order(1))
        producer.send(raw, b"good")
        for error, send in wrong:
            with pytest.raises(error):
                send(producer)
    assert values(tide) == [b'{"id":1}']
    assert values(tide, "raw") == [b"good"]


def test_errors_nobody_asked_for_are_raised_by_flush_once(tide: Log) -> None:
    events = tide.topic("events", partitions=1)
    producer = tide.producer(linger=3600)
    receipt = producer.send(events, b"x")
    tide.drop("events")
    with pytest.raises(ChannelNotFound):
        producer.flush()
    producer.flush()
    with pytest.raises(ChannelNotFound):
        receipt.result()
    assert receipt.done
    producer.close()


def test_errors_somebody_asked_for_are_not_raised_again(tide: Log) -> None:
    events = tide.topic("events", partitions=1)
    producer = tide.producer(linger=3600)
    receipt = producer.send(events, b"x")
    tide.drop("events")
    with pytest.raises(ChannelNotFound):
        receipt.result()
    producer.close()


def test_an_error_on_its_way_out_is_not_hidden(tide: Log) -> None:
    events = tide.topic("events", partitions=1)
    with pytest.raises(KeyError), tide.producer(linger=3600) as producer:
        producer.send(events, b"x")
        tide.drop("events")
        raise KeyError
    assert producer.closed


def test_leaving_with_flushes_and_close_is_idempotent(tide: Log) -> None:
    events = tide.topic("events", partitions=1)
    producer = tide.producer(linger=3600)
    producer.send(events, b"x")
    producer.close()
    producer.close()
    assert values(tide) == [b"x"]
    for use in (lambda: producer.send(events, b"y"), lambda: producer.send_many(events, [b"y"]), producer.__enter__):
        with pytest.raises(Closed):
            use()


def test_closing_the_log_sends_what_was_gathered(tmp_path: Path) -> None:
    log = open_log(tmp_path / "x")
    log.producer(linger=3600).send(log.topic("events", partitions=1), b"x")
    with open_log(tmp_path / "x") as other:
        log.close()
        assert values(other) == [b"x"]


def test_a_program_that_forgets_to_close_still_sends(tmp_path: Path) -> None:
    code = (
        "import tidelog\n"
        f"log = tidelog.open({str(tmp_path / 'x')!r})\n"
        "producer = log.producer(linger=0.2)\n"
        "producer.send(log.topic('events', partitions=1), b'x')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    with open_log(tmp_path / "x") as log:
        assert values(log) == [b"x"]


def test_a_program_that_ends_does_not_linger(tmp_path: Path) -> None:
    code = (
        "import tidelog\n"
        f"log = tidelog.open({str(tmp_path / 'x')!r})\n"
        "producer = log.producer(linger=3600)\n"
        "producer.send(log.topic('events', partitions=1), b'x')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    with open_log(tmp_path / "x") as log:
        assert values(log) == [b"x"]


def test_many_threads_share_a_producer(tide: Log) -> None:
    events = tide.topic("events", partitions=3)
    receipts: list[list[Receipt]] = [[] for _ in range(4)]
    with tide.producer(linger=0.001) as producer:

        def work(number: int) -> None:
            for count in range(500):
                receipts[number].append(producer.send(events, b"%d-%d" % (number, count), key=b"%d" % number))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    found = {(message.partition, message.offset): message.value for message in events.scan()}
    assert len(found) == 2000
    for number, mine in enumerate(receipts):
        offsets = [receipt.offset for receipt in mine]
        assert offsets == sorted(offsets)
        assert [found[receipt.result()] for receipt in mine] == [b"%d-%d" % (number, count) for count in range(500)]


def test_flush_waits_for_what_the_clock_is_sending(tide: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    events = tide.topic("events", partitions=1)
    begun = threading.Event()
    send = Gathering.send

    def slowly(self: Gathering, *arguments: Any) -> None:
        begun.set()
        time.sleep(0.3)
        send(self, *arguments)

    monkeypatch.setattr(Gathering, "send", slowly)
    producer = tide.producer(linger=0.001)
    producer.send(events, b"x")
    assert begun.wait(20)  # the clock's thread has taken it out
    producer.flush()
    assert [message.value for message in events.scan()] == [b"x"]
    producer.close()


def test_the_clock_ends_when_there_is_nothing_to_do(tide: Log) -> None:
    events = tide.topic("events", partitions=1)
    with tide.producer(linger=0.01) as producer:
        producer.send(events, b"x")
        assert any(thread.name == "tidelog-linger" and not thread.daemon for thread in threading.enumerate())
        deadline = time.monotonic() + 20
        while any(thread.name == "tidelog-linger" for thread in threading.enumerate()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert producer.send(events, b"y").result(timeout=20).offset == 1


def test_a_result_may_time_out(tide: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    events = tide.topic("events", partitions=1)
    with tide.producer(linger=3600) as producer:
        receipt = producer.send(events, b"x")
        send = producer._send_gathered
        monkeypatch.setattr(producer, "_send_gathered", lambda channel: None)
        with pytest.raises(Timeout, match="flush"):
            receipt.result(timeout=0.05)
        monkeypatch.setattr(producer, "_send_gathered", send)


def test_rows_through_a_producer(tide: Log) -> None:
    dtype = np.dtype([("sym", "S4"), ("px", "f8")])
    ticks = tide.topic("ticks", dtype, partitions=1)
    rows = np.array([(b"a", 1.0), (b"b", 2.0)], dtype)
    with tide.producer(linger=3600) as producer:
        producer.send(ticks, rows[0], key="a")
        producer.send(ticks, (b"b", 2.0))
        producer.send_many(ticks, rows, keys="sym")
    batch = ticks.read(range(4))
    assert batch.values.tobytes() == np.concatenate([rows, rows]).tobytes()
    assert batch.keys == [b"a", None, b"a", b"b"]


def test_more_partitions_while_gathering(tide: Log) -> None:
    events = tide.topic("events", partitions=1)
    with tide.producer(linger=3600) as producer:
        producer.send(events, b"x", key="k")
        events.configure(partitions=4)
        assert producer.send(events, b"y", partition=3).result().partition == 3
        assert producer.send(events, b"z", key="k").result().partition == (murmur2(b"k") & 0x7FFFFFFF) % 4
    assert sorted(values(tide)) == [b"x", b"y", b"z"]
