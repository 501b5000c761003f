"""Can a log be opened in every way, is it a mapping of channels, and does it end in order?"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from tidelog.channel import Queue, Topic
from tidelog.errors import (
    ChannelNotFound,
    Closed,
    Error,
    Forked,
    NotSupported,
    SchemaMismatch,
    Timeout,
)
from tidelog.log import Log
from tidelog.log import open as open_log
from tidelog.storage import memory


class Order(msgspec.Struct):
    id: int
    sku: str


def in_child(work: Callable[[], None]) -> None:
    """Run `work` in a forked child; fail with what it raised."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        text = b""
        try:
            work()
        except BaseException as error:
            text = f"{type(error).__name__}: {error}".encode() or b"?"
        os.write(writer, text)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        found = pipe.read().decode()
    os.waitpid(pid, 0)
    assert not found, found


# --- opening ---


def test_a_path_a_url_and_the_environment_open_the_same_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "shop.log"
    with open_log(place) as log:
        log.queue("orders").send(b"one")
    monkeypatch.setenv("TIDELOG_URL", str(place))
    for url in (str(place), f"tidelog://{place}", f"tidelog://{place}?flush_interval=0.5", None):
        with open_log(url) as log:
            assert [message.value for message in log["orders"].scan()] == [b"one"]


def test_nothing_given_and_nothing_set_says_what_to_give(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TIDELOG_URL", raising=False)
    with pytest.raises(ValueError, match="TIDELOG_URL"):
        open_log()


def test_a_log_that_must_exist(tmp_path: Path) -> None:
    with pytest.raises((Error, OSError)):
        open_log(tmp_path / "none.log", create=False)
    assert not (tmp_path / "none.log").exists()
    open_log(tmp_path / "some.log").close()
    open_log(tmp_path / "some.log", create=False).close()


def test_clusters_are_refused_with_a_sentence() -> None:
    with pytest.raises(NotSupported, match="on this host only"):
        open_log("kafka://localhost:9092")


@pytest.mark.parametrize("options", [{"flush_interval": 0}, {"lock_timeout": -1}, {"segment_bytes": 1}])
def test_options_out_of_range_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        open_log(tmp_path / "x", **options)
    assert not (tmp_path / "x").exists()


def test_two_handles_in_one_process_share_the_log(tmp_path: Path) -> None:
    with open_log(tmp_path / "x") as one, open_log(tmp_path / "x") as two:
        one.queue("orders").send(b"a")
        assert [message.value for message in two["orders"].scan()] == [b"a"]
        one.close()
        two["orders"].send(b"b")
        assert len(list(two["orders"].scan())) == 2


def test_what_an_engine_can_do_is_a_frozen_record(tide: Log) -> None:
    assert tide.can.engine == "embedded"
    assert tide.can.shared
    assert tide.can.transactions and tide.can.named_producers
    with pytest.raises(FrozenInstanceError):
        tide.can.shared = False  # type: ignore[misc]


# --- memory ---


def test_a_log_in_memory_vanishes_at_close() -> None:
    log = open_log("memory:")
    path = Path(log.engine.path)  # type: ignore[attr-defined]
    assert path.is_dir()
    assert log.can.engine == "memory"
    assert not log.can.persistent
    log.queue("orders").send(b"x")
    log.close()
    assert not path.exists()


def test_logs_in_memory_are_private() -> None:
    with open_log("memory:") as one, open_log("memory:") as two:
        one.queue("orders").send(b"x")
        assert list(one) == ["orders"]
        assert list(two) == []


def test_a_log_in_memory_is_removed_when_the_program_ends() -> None:
    code = "import tidelog; log = tidelog.open('memory:'); log.queue('q').send(b'x'); print(log.engine.path)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip()
    assert not os.path.exists(done.stdout.strip())


def test_what_a_killed_process_left_in_memory_is_removed() -> None:
    code = (
        "import tidelog, os, signal\n"
        "log = tidelog.open('memory:'); print(log.engine.path, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    left = done.stdout.strip()
    assert os.path.isdir(left)
    with open_log("memory:") as log:
        assert not os.path.exists(left)
        assert os.path.isdir(log.engine.path)  # type: ignore[attr-defined]
        open_log("memory:").close()
        assert os.path.isdir(log.engine.path), "a living one stays"  # type: ignore[attr-defined]


def test_a_forked_child_leaves_the_directory_alone() -> None:
    directory = memory.MemoryDirectory()
    in_child(directory.remove)
    assert os.path.isdir(directory.path)
    directory.remove()
    directory.remove()
    assert not os.path.exists(directory.path)


def test_without_room_in_shared_memory_a_temporary_directory_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "ROOM_BYTES", 1 << 62)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    directory = memory.MemoryDirectory()
    assert os.path.dirname(directory.path) == str(tmp_path)
    directory.remove()


# --- channels ---


def test_a_log_is_a_mapping(tide: Log) -> None:
    assert len(tide) == 0
    assert list(tide) == []
    assert "orders" not in tide
    assert tide.get("orders") is None
    tide.queue("orders")
    tide.topic("a.prices")
    assert list(tide) == ["a.prices", "orders"]
    assert len(tide) == 2
    assert "orders" in tide
    assert 5 not in tide
    assert isinstance(tide["orders"], Queue)
    assert isinstance(tide["a.prices"], Topic)
    assert dict(tide)["orders"] is tide.get("orders")
    with pytest.raises(ChannelNotFound, match=r"list\(log\)"):
        tide["nothing"]
    for wrong in ("../x", "", 5):
        with pytest.raises(ChannelNotFound):
            tide[wrong]  # type: ignore[index]


@pytest.mark.parametrize("name", ["", "..", "a/b", "__consumer_offsets", "x" * 250])
def test_names_that_are_not_allowed(tide: Log, name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        tide.queue(name)
    assert list(tide) == []


def test_names_that_collide_in_kafka(tide: Log) -> None:
    tide.queue("a.b")
    with pytest.raises(ValueError, match="collides"):
        tide.queue("a_b")
    assert list(tide) == ["a.b"]


def test_the_same_channel_is_the_same_handle(tide: Log) -> None:
    orders = tide.queue("orders", Order)
    assert tide.queue("orders", Order) is orders
    assert tide["orders"] is tide["orders"]
    assert tide["orders"] is not orders
    identity = id(orders)
    del orders
    gc.collect()
    assert tide.queue("orders", Order).name == "orders"
    assert identity


def test_opening_again_compares_kind_codec_dtype_and_partitions(tide: Log) -> None:
    ticks = np.dtype([("px", "f8")])
    tide.topic("ticks", ticks, partitions=2)
    tide.queue("orders", Order)
    assert tide.topic("ticks", ticks).partitions == 2
    assert tide.queue("orders", Order, partitions=4).partitions == 4
    for wrong in (
        lambda: tide.queue("ticks", ticks),
        lambda: tide.topic("ticks", np.dtype([("px", "f4")])),
        lambda: tide.topic("ticks", bytes),
        lambda: tide.topic("ticks", ticks, partitions=3),
        lambda: tide.queue("orders", Order, codec="msgpack"),
        lambda: tide.queue("orders"),
    ):
        with pytest.raises(SchemaMismatch, match="exists, but"):
            wrong()


def test_the_payload_schema_may_grow(tide: Log) -> None:
    class Wider(msgspec.Struct):
        id: int
        sku: str
        note: str = ""

    tide.queue("orders", Order).send(Order(1, "tea"))
    wider = tide.queue("orders", Wider)
    assert next(iter(wider.scan())).value == Wider(1, "tea", "")


def test_a_name_alone_opens_with_the_stored_dtype_or_bytes(tide: Log) -> None:
    ticks = np.dtype([("sym", "S8"), ("px", "f8")])
    tide.topic("ticks", ticks).send_many(np.array([(b"a", 1.5)], ticks))
    tide.queue("orders", Order).send(Order(1, "tea"))
    assert tide["ticks"].codec.dtype == ticks
    assert next(iter(tide["ticks"].scan())).value["px"] == 1.5
    assert next(iter(tide["orders"].scan())).value == b'{"id":1,"sku":"tea"}'
    assert tide["orders"].codec.name == "json"
    tide["orders"].send(b'{"id":2,"sku":"x"}')
    assert [message.value.id for message in tide.queue("orders", Order).scan()].count(2) == 1


def test_dropping(tide: Log) -> None:
    orders = tide.queue("orders")
    orders.send(b"x")
    with orders.consumer() as consumer:
        consumer.receive(timeout=5)
    assert any(row.channel == "orders" for row in tide.offsets())
    tide.drop("orders")
    assert list(tide) == []
    assert tide.offsets() == []
    with pytest.raises(ChannelNotFound):
        tide.drop("orders")
    for use in (lambda: orders.send(b"y"), lambda: list(orders.scan()), orders.consumer, lambda: orders.bounds(0)):
        with pytest.raises(ChannelNotFound):
            use()
    fresh = tide.queue("orders", Order)
    assert list(fresh.scan()) == []
    fresh.send(Order(1, "new"))
    with pytest.raises(ChannelNotFound, match="dropped and created again"):
        orders.bounds(0)
    with fresh.consumer(stop="end") as consumer:
        assert [message.value for message in consumer] == [Order(1, "new")]


def test_ten_thousand_partitions_open_and_work(tmp_path: Path) -> None:
    with open_log(tmp_path / "wide", segment_bytes=1 << 16) as log:
        wide = log.topic("wide", partitions=10_000)
        for partition in (0, 4_999, 9_999):
            assert wide.send(b"x", partition=partition).partition == partition
    with open_log(tmp_path / "wide") as log:
        assert log["wide"].partitions == 10_000
        assert [log["wide"].bounds(partition) for partition in (0, 1, 9_999)] == [(0, 1), (0, 0), (0, 1)]


# --- the end ---


def test_close_is_idempotent_and_everything_after_it_says_closed(tmp_path: Path) -> None:
    log = open_log(tmp_path / "x")
    orders = log.queue("orders")
    consumer, producer = orders.consumer(), log.producer()
    log.close()
    log.close()
    assert log.closed
    assert consumer.closed
    assert producer.closed
    consumer.close()
    producer.close()
    uses: list[Callable[[], Any]] = [
        lambda: log.queue("orders"),
        lambda: log["orders"],
        lambda: list(log),
        log.offsets,
        log.sync,
        log.producer,
        orders.consumer,
        orders.tail,
        lambda: orders.send(b"x"),
        lambda: orders.send_many([b"x"]),
        lambda: list(orders.scan()),
        lambda: orders.bounds(0),
        lambda: consumer.receive(timeout=0),
        lambda: producer.send(orders, b"x"),
    ]
    for use in uses:
        with pytest.raises(Closed):
            use()


def test_what_is_closed_is_named_in_whole_sentences(tmp_path: Path) -> None:
    log = open_log(tmp_path / "x")
    orders = log.queue("orders")
    consumer = orders.consumer()
    reader = orders.tail()
    reader.close()
    consumer.close()
    for closed in (reader, consumer):
        with pytest.raises(Closed, match=r"^the consumer was closed: make a new one with channel\.consumer\(\)$"):
            closed.receive(timeout=0)
    log.close()
    with pytest.raises(Closed, match=r"^the log of the channel 'orders' was closed: open the log again with tidelog"):
        orders.send(b"x")
    again = r"^the log (.*/x )?was closed( \(.*/x\))?: open (it|the log) again with tidelog\.open$"
    for use in (lambda: log["orders"], lambda: orders.bounds(0), lambda: list(orders.scan()), orders.consumer):
        with pytest.raises(Closed, match=again):
            use()


def test_a_store_without_its_lock_file_says_how_to_mend_it(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with open_log(path) as log:
        log.queue("orders").send(b"kept")
    (path / "store.lock").unlink()
    for create in (True, False):
        with pytest.raises(ValueError, match=r"store\.lock is missing .*make an empty file of this name"):
            open_log(path, create=create)
    assert not (path / "store.lock").exists()
    (path / "store.lock").touch()
    with open_log(path) as log:
        assert [message.value for message in log["orders"].scan()] == [b"kept"]


def test_close_wakes_a_blocked_receiver(tmp_path: Path) -> None:
    log = open_log(tmp_path / "x")
    consumer = log.queue("orders").consumer()
    raised: list[BaseException] = []

    def wait() -> None:
        try:
            consumer.receive(timeout=60)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.2)
    begin = time.monotonic()
    log.close()
    thread.join(20)
    assert not thread.is_alive()
    assert time.monotonic() - begin < 10
    assert [type(error) for error in raised] == [Closed]


def test_a_forgotten_log_is_closed(tmp_path: Path) -> None:
    orders = open_log(tmp_path / "x").queue("orders")
    gc.collect()
    orders.send(b"x")  # the channel keeps the store open
    del orders
    gc.collect()
    with open_log(tmp_path / "x") as log:
        assert [message.value for message in log["orders"].scan()] == [b"x"]


def test_messages_survive_the_end_without_close(tmp_path: Path) -> None:
    code = f"import tidelog, os; tidelog.open({str(tmp_path / 'x')!r}).queue('q').send(b'x'); os._exit(0)"
    subprocess.run([sys.executable, "-c", code], check=True)
    with open_log(tmp_path / "x") as log:
        assert [message.value for message in log["q"].scan()] == [b"x"]


def test_a_forked_child_opens_anew(tmp_path: Path) -> None:
    with open_log(tmp_path / "x") as log:
        orders = log.queue("orders", partitions=1)
        consumer, producer = orders.consumer(), log.producer()
        orders.send(b"parent")

        def work() -> None:
            uses: list[Callable[[], Any]] = [
                lambda: orders.send(b"x"),
                lambda: list(orders.scan()),
                lambda: list(log),
                lambda: consumer.receive(timeout=0),
                lambda: producer.send(orders, b"x"),
                log.producer,
                lambda: log.producer(linger=1.0),
            ]
            for use in uses:
                with pytest.raises(Forked, match=r"tidelog\.open"):
                    use()
            for end in (consumer, producer, log):
                end.close()  # type: ignore[attr-defined]
            with open_log(tmp_path / "x") as mine:
                mine["orders"].send(b"child")

        in_child(work)
        assert [consumer.receive(timeout=5).value for _ in range(2)] == [b"parent", b"child"]
        with pytest.raises(Timeout):
            consumer.receive(timeout=0)
        consumer.close()


def test_retention_may_be_given_in_every_form(tide: Log) -> None:
    assert tide.topic("a", retention=timedelta(days=7)).retention == (7 * 86_400_000, -1, False)
    assert tide.topic("b", retention=10**9).retention == (-1, 10**9, False)
    assert tide.topic("c", retention="consumed").retention == (-1, -1, True)
    assert tide.topic("d").retention == (-1, -1, False)


def test_texts_for_people(tide: Log) -> None:
    orders = tide.queue("orders", Order)
    assert "tide.log" in repr(tide)
    assert repr(orders).startswith("<Queue orders of Order, 4 partitions")
