"""Do messages reach the right partition, in order, byte for byte, and does the receipt say where?"""

from __future__ import annotations

import contextlib
import itertools
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from kafka.partitioner.default import murmur2 as kafka_murmur2

from tests.unit.stores import CHANNEL_ID, LIMIT, Opened, opened
from tidelog import _native as n
from tidelog import errors
from tidelog.partitioner import key_bytes


class Order(msgspec.Struct):
    id: int
    sku: str


def rule(key: Any, partitions: int) -> int:
    return (kafka_murmur2(key_bytes(key)) & 0x7FFFFFFF) % partitions


def everything(log: Opened) -> dict[int, list[tuple[Any, bytes | None]]]:
    """(value, key) of every message by partition, in order."""
    found: dict[int, list[tuple[Any, bytes | None]]] = {number: [] for number in range(len(log.parts))}
    for message in log.drained():
        assert message.offset == len(found[message.partition])
        found[message.partition].append((message.value, message.key))
    return found


def check_receipt(log: Opened, receipt: n.Receipt, values: list[bytes]) -> None:
    """Every message stands where the receipt says."""
    assert receipt.count == len(values) == len(receipt.partitions) == len(receipt.offsets)
    for value, number, offset in zip(values, receipt.partitions.tolist(), receipt.offsets.tolist(), strict=True):
        assert log.parts[number].read_at(np.array([offset]), log.shared, number)[0].value == value
    if values:
        assert receipt.result() == (receipt.partitions[-1], receipt.offsets[-1]) == (receipt.partition, receipt.offset)


# --- one message ---


def test_every_way_to_call_send_is_the_same(tmp_path: Path) -> None:
    """It is a C function; what it does not take itself goes to a def."""
    whole = {"key": b"k", "headers": {"h": b"1"}, "id": "i-1", "partition": 2, "timestamp": 5.0}
    made = {"".join(name): value for name, value in whole.items()}  # names that are not interned
    with opened(tmp_path / "s", 3) as log:
        send = log.sender().send
        for value in ({"value": b"named"}, {"value": b"named", "key": b"k"}):
            assert send(**value).offset >= 0
        for options in (whole, made, dict(reversed(whole.items()))):
            receipt = send(b"whole", **options)
            assert receipt.partition == 2
        assert send(b"none", key=None, headers=None, id=None, partition=None, timestamp=None).count == 1
        assert receipt.duplicate
        found = [message for message in log.drained() if message.value == b"whole"]
        assert [(m.key, m.id, m.timestamp.timestamp(), m.headers["h"]) for m in found] == [(b"k", "i-1", 5.0, b"1")]
        with pytest.raises(TypeError, match=r"send\(\).* unexpected keyword argument 'keys'"):
            send(b"x", keys=b"k")
        with pytest.raises(TypeError, match=r"send\(\) takes .*positional argument"):
            send(b"x", b"k")
        with pytest.raises(TypeError, match=r"send\(\)"):
            send()
        with pytest.raises(TypeError, match=r"send\(\) got multiple values"):
            send(b"x", value=b"y")


@pytest.mark.parametrize("value", [b"", b"x", b"x" * LIMIT, b"x" * (LIMIT + 1), 7])
def test_a_sender_that_is_not_attached_sends_nothing(value: Any) -> None:
    with pytest.raises(TypeError, match="not attached"):
        n.Sender().send(value)


def test_calls_of_send_keep_no_references(tmp_path: Path) -> None:
    value, key, label = b"value of this test", "key of this test", "id of this test"
    headers: dict[str, str] = {"header": "h"}
    with opened(tmp_path / "s", 1) as log:
        send = log.sender().send
        kept = (value, key, label, headers, None, send.__self__)
        before = [sys.getrefcount(one) for one in kept]
        for _ in range(1000):
            send(value)
            send(value, key=key, id=label, headers=headers, partition=None)
            with contextlib.suppress(TypeError):
                send(value, key=key, what=headers)
        grown = [now - then for then, now in zip(before, map(sys.getrefcount, kept), strict=True)]
        assert all(abs(more) < 100 for more in grown), grown


@pytest.mark.parametrize("key", [b"", b"k", "tea", "t\u00e9", 7, -1, np.bytes_(b"ab"), np.int32(7), bytearray(b"k")])
def test_a_key_chooses_kafkas_partition(tmp_path: Path, key: Any) -> None:
    with opened(tmp_path / "s", 5) as log:
        receipt = log.sender().send(b"v", key=key)
        assert receipt.partition == rule(key, 5)
        assert (receipt.offset, receipt.count, receipt.done) == (0, 1, True)
        assert receipt.result(1.0) == n.Position(rule(key, 5), 0)
        assert everything(log)[receipt.partition] == [(b"v", key_bytes(key))]


def test_offsets_grow_by_one_and_sizes_do_not_matter(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as log:
        sender = log.sender()
        values = [bytes([size % 251]) * size for size in (0, 1, 100, 63, 64, 65_000, 65_536, 300_000, LIMIT - 1)]
        for offset, value in enumerate(values):
            assert sender.send(value, key=b"k").offset == offset
        assert everything(log)[0] == [(value, b"k") for value in values]


def test_bytes_like_values_and_wrong_ones(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as log:
        sender = log.sender()
        sender.send(bytearray(b"a"))
        sender.send(memoryview(b"b"))
        sender.send_many([b"c", bytearray(b"d"), memoryview(b"e")])
        assert [value for value, _ in everything(log)[0]] == [b"a", b"b", b"c", b"d", b"e"]
        for wrong in ("text", None, 3, [b"x"]):
            with pytest.raises(errors.SchemaMismatch):
                sender.send(wrong)
            with pytest.raises(errors.SchemaMismatch):
                sender.send_many([b"x", wrong])
        assert log.parts[0].bounds() == (0, 5)


@pytest.mark.parametrize("key", [True, 1.5, object(), 1 << 70])
def test_wrong_keys_send_nothing(tmp_path: Path, key: Any) -> None:
    with opened(tmp_path / "s") as log:
        with pytest.raises((TypeError, ValueError)):
            log.sender().send(b"v", key=key)
        with pytest.raises((TypeError, ValueError), match="key 1"):
            log.sender().send_many([b"v", b"w"], keys=[b"k", key])
        assert log.parts[0].bounds() == (0, 0)


def test_without_a_key_it_sticks_until_16_kib_then_moves(tmp_path: Path) -> None:
    with opened(tmp_path / "s", 4) as log:
        sender = log.sender()
        chosen = [sender.send(bytes(1024)).partition for _ in range(16 * 40)]
        runs = [set(chosen[at : at + 16]) for at in range(0, len(chosen), 16)]
        assert all(len(run) == 1 for run in runs)
        assert all(one != other for one, other in itertools.pairwise(runs))
        assert set(chosen) == {0, 1, 2, 3}


def test_partition_and_partitioner_override_the_rule(tmp_path: Path) -> None:
    with opened(tmp_path / "s", 3) as log:
        assert log.sender().send(b"v", key=b"k", partition=2).partition == 2
        for wrong, error in ((3, ValueError), (-1, ValueError), (True, TypeError), ("1", TypeError)):
            with pytest.raises(error):
                log.sender().send(b"v", partition=wrong)  # type: ignore[arg-type]
        asked: list[Any] = []

        def longest(key: bytes | None, value: bytes, partitions: int) -> int:
            asked.append((key, value, partitions))
            return len(value) % partitions

        sender = log.sender(partitioner=longest)
        assert sender.send(b"four", key="k").partition == 1
        receipt = sender.send_many([b"", b"a", b"bb", b"ccc"], keys=[None, b"1", None, b"2"])
        assert receipt.partitions.tolist() == [0, 1, 2, 0]
        assert asked == [(b"k", b"four", 3), (None, b"", 3), (b"1", b"a", 3), (None, b"bb", 3), (b"2", b"ccc", 3)]
        check_receipt(log, receipt, [b"", b"a", b"bb", b"ccc"])
        with pytest.raises(ValueError, match="lambda"):
            log.sender(partitioner=lambda *_: 9).send(b"")
        with pytest.raises(TypeError, match="answered 'x'"):
            log.sender(partitioner=lambda *_: "x").send_many([b""])


def test_an_id_chooses_the_partition_of_a_message_without_key(tmp_path: Path) -> None:
    with opened(tmp_path / "s", 7) as log:
        sender = log.sender()
        ids = [f"id-{number}" for number in range(20)]
        assert [sender.send(b"", id=one).partition for one in ids] == [rule(one, 7) for one in ids]
        assert sender.send_many([b""] * 20, ids=ids).partitions.tolist() == [rule(one, 7) for one in ids]
        assert sender.send(b"", id="a", key="b").partition == rule("b", 7)
        assert {message.id for message in log.drained()} == {*ids, "a"}


@pytest.mark.parametrize(
    ("given", "milliseconds"),
    [
        (datetime(2020, 1, 2, 3, 4, 5, 678_000, UTC), 1577934245678),
        (datetime(2020, 1, 2, 4, 4, 5, 678_000, timezone(timedelta(hours=1))), 1577934245678),
        (1577934245.678, 1577934245678),
        (0, 0),
        (-1.5, -1500),
        (np.datetime64("2020-01-02T03:04:05.678"), 1577934245678),
    ],
)
def test_timestamps_are_stored_as_given(tmp_path: Path, given: Any, milliseconds: int) -> None:
    with opened(tmp_path / "s") as log:
        log.sender().send(b"", timestamp=given)
        log.sender().send_many([b"", b""], timestamp=given)
        log.sender().send_many([b"", b""], timestamp=[given, given])
        messages = list(log.drained())
        assert [message.timestamp_ms for message in messages] == [milliseconds] * 5
        assert messages[0].timestamp == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)


def test_a_timestamp_needs_a_zone_and_defaults_to_now(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as log:
        for wrong, error in (
            (datetime(2020, 1, 1), ValueError),
            ("now", TypeError),
            (True, TypeError),
            (1e300, ValueError),
        ):
            with pytest.raises(error):
                log.sender().send(b"", timestamp=wrong)  # type: ignore[arg-type]
        before = datetime.now(UTC) - timedelta(seconds=1)
        log.sender().send(b"")
        log.sender().send_many([b""])
        for message in log.drained():
            assert before < message.timestamp < datetime.now(UTC) + timedelta(seconds=1)


def test_too_large_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with opened(tmp_path / "s", limit=1000) as log:
        sender = log.sender()
        sender.send(bytes(990), key=bytes(10))
        for send in (
            lambda: sender.send(bytes(1001)),
            lambda: sender.send(bytes(990), key=bytes(11)),
            lambda: sender.send_many([b"a", bytes(1001)]),
            lambda: sender.send_many([b"a", bytes(990)], keys=[b"", bytes(11)]),
            lambda: sender.send_many([b"a"] * 20_000 + [bytes(1001)]),
        ):
            with pytest.raises(errors.TooLarge):
                send()
        assert log.parts[0].bounds() == (0, 1)


# --- many messages ---


def numbered(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


@pytest.mark.parametrize("count", [0, 1, 2, 999, 1000, 8192, 8193, 20_000])
@pytest.mark.parametrize("make", [list, tuple, iter, lambda values: (value for value in values)])
def test_any_iterable_arrives_in_order(tmp_path: Path, count: int, make: Callable[[list[bytes]], Any]) -> None:
    with opened(tmp_path / "s", 3) as log:
        values = numbered(count)
        receipt = log.sender().send_many(make(values))
        assert receipt.count == count
        assert len(set(receipt.partitions.tolist())) <= 1
        assert receipt.offsets.tolist() == list(range(count))
        arrived = [value for part in everything(log).values() for value, _ in part]
        assert arrived == values
        if count == 0:
            assert receipt.result() == (-1, -1)


@pytest.mark.parametrize("count", [1, 257, 1000, 9000])
@pytest.mark.parametrize("codec", [0, 1, 3])
@pytest.mark.parametrize("how", ["list", "iterator", "function"])
def test_keys_scatter_and_keep_their_order(tmp_path: Path, count: int, codec: int, how: str) -> None:
    with opened(tmp_path / "s", 4) as log:
        values = numbered(count)
        keys: list[Any] = [[f"key-{number % 17}", number % 5, b"raw", None][number % 4] for number in range(count)]
        by_value = dict(zip(values, keys, strict=True))
        given = {"list": keys, "iterator": iter(keys), "function": by_value.__getitem__}[how]
        receipt = log.sender(codec).send_many(values if how != "iterator" else iter(values), keys=given)
        check_receipt(log, receipt, values[:50] if count < 50 else values) if count <= 1000 else None
        found = everything(log)
        assert sum(map(len, found.values())) == count
        for number, part in found.items():
            places = [int(value) for value, _ in part]
            assert places == sorted(places)
            for value, key in part:
                assert key == key_bytes(by_value[value])
                assert key is None or number == rule(key, 4)


@pytest.mark.parametrize("codec", [0, 1, 2, 3, 4])
def test_compressed_batches_of_any_size_come_back(tmp_path: Path, codec: int) -> None:
    with opened(tmp_path / "s", 2) as log:
        values = [bytes([number % 256]) * (number * 37 % 5000) for number in range(2000)]
        sender = log.sender(codec)
        receipt = sender.send_many(values, partition=1)
        check_receipt(log, receipt, values)
        assert sender.send(b"one", key=b"k", partition=0, headers={"a": "b"}).offset == 0
        found = everything(log)
        assert [value for value, _ in found[1]] == values
        assert found[0] == [(b"one", b"k")]


def test_typed_values(tmp_path: Path) -> None:
    with opened(tmp_path / "s", 4, Order) as log:
        orders = [Order(number, f"sku-{number % 3}") for number in range(3000)]
        sender = log.sender()
        sender.send_many(orders, keys=lambda order: order.sku)
        sender.send_many(iter(orders), keys=(order.sku for order in orders))
        assert sender.send(Order(-1, "x"), key="sku-0").partition == rule("sku-0", 4)
        found = everything(log)
        assert sum(map(len, found.values())) == 6001
        for number, part in found.items():
            for value, key in part:
                assert isinstance(value, Order)
                assert number == rule(key, 4)
        with pytest.raises(errors.SchemaMismatch, match="Order"):
            sender.send({"id": 1})
        with pytest.raises(errors.SchemaMismatch, match="value 1"):
            sender.send_many([Order(1, "a"), 5])


def test_parallel_lists_must_be_as_long_as_the_values(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as log:
        sender = log.sender()
        two: Any
        for name, two in (
            ("keys", [b"a", b"b"]),
            ("ids", ["a", "b"]),
            ("timestamp", [1.0, 2.0]),
            ("headers", [{}, {}]),
        ):
            for values in ([b"1"], [b"1", b"2", b"3"]):
                with pytest.raises(ValueError, match="give one for each"):
                    sender.send_many(values, **{name: two})
        assert log.parts[0].bounds() == (0, 0)
        for name, two in (
            ("keys", [b"a", b"b"]),
            ("ids", ["a", "b"]),
            ("timestamp", [1.0, 2.0]),
            ("headers", [{}, {}]),
        ):
            with pytest.raises(ValueError, match="give one for each"):
                sender.send_many(iter([b"1", b"2", b"3"]), **{name: iter(two) if name != "timestamp" else two})
        with pytest.raises(ValueError, match="more headers"):
            sender.send_many(iter([b"1"]), headers=iter([{}, {}]))
        with pytest.raises(TypeError, match="sequence"):
            sender.send_many([b"1"], keys="text")
        sender.send_many([b"1", b"2"], ids=["a", "b"], headers={"common": "h"}, timestamp=[1.0, 2.0], keys=[b"k", None])
        _, first, second = log.drained()
        assert first.headers == {"common": b"h", "message-id": b"a"} and second.id == "b"
        assert (first.timestamp_ms, second.timestamp_ms) == (1000, 2000)


def test_common_headers_without_ids(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as log:
        log.sender().send_many([b"1"] * 2000, headers={"a": "b"})
        assert all(message.headers == {"a": b"b"} for message in log.drained())


def test_a_failing_iterator_keeps_what_was_sent_and_says_so(tmp_path: Path) -> None:
    def values() -> Iterator[bytes]:
        yield from numbered(2500)
        raise RuntimeError("source broke")

    with opened(tmp_path / "s") as log:
        with pytest.raises(RuntimeError, match="source broke") as caught:
            log.sender().send_many(values())
        assert log.parts[0].bounds() == (0, 2048)
        assert caught.value.__notes__ == ["the first 2048 messages of this call are in the log already"]


def test_a_list_that_another_thread_changes_is_safe(tmp_path: Path) -> None:
    with opened(tmp_path / "s", 2) as log:
        values: list[Any] = [bytes(200) for _ in range(5000)]
        stop = threading.Event()

        def shrink() -> None:
            while not stop.is_set():
                values[:] = [bytes(200) for _ in range(5000)]

        thread = threading.Thread(target=shrink)
        thread.start()
        try:
            sender = log.sender()
            for _ in range(30):
                sender.send_many(values)
                sender.send_many(values, keys=lambda value: value[:4])
        finally:
            stop.set()
            thread.join()
        assert {message.raw for message in log.drained()} == {bytes(200)}


def test_threads_share_a_sender(tmp_path: Path) -> None:
    with opened(tmp_path / "s", 3) as log:
        sender = log.sender()
        receipts: list[tuple[int, n.Receipt]] = []

        def work(name: int) -> None:
            for number in range(50):
                receipts.append((name, sender.send(b"%d:%d" % (name, number), key=b"%d" % name)))
                sender.send_many([b"%d:m" % name] * 300, keys=[b"%d" % name] * 300)

        threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = everything(log)
        assert sum(map(len, found.values())) == 4 * 50 * 301
        for name, receipt in receipts:
            value, key = found[receipt.partition][receipt.offset]
            assert value.startswith(b"%d:" % name) and key == b"%d" % name


# --- durability and life ---


@pytest.mark.parametrize("codec", [0, 1])
def test_synced_returns_with_everything_on_disk(tmp_path: Path, codec: int) -> None:
    with opened(tmp_path / "s", 2) as log:
        sender = log.sender(codec, synced=True)

        def on_disk() -> list[bool]:
            return [info["synced"] >= info["tail"] for info in (part.describe() for part in log.parts)]

        sender.send(b"a", partition=0)
        assert on_disk()[0]
        sender.send_many(numbered(500), keys=numbered(500))
        assert on_disk() == [True, True]
        receipt = log.sender().send_many(numbered(500), keys=numbered(500))
        assert on_disk() != [True, True]
        assert receipt.result(10.0, level="synced") == receipt.result()
        assert on_disk() == [True, True]
        single = log.sender().send(b"z")
        assert single.result(level="synced") == (single.partition, single.offset)
        with pytest.raises(ValueError, match="level"):
            single.result(level="replicated")
        with pytest.raises(ValueError, match="timeout"):
            single.result(-1.0, level="synced")


def test_a_closed_store_a_dropped_channel_and_an_unattached_sender(tmp_path: Path) -> None:
    with opened(tmp_path / "s", 2) as log:
        sender = log.sender()
        receipt = sender.send(b"x")
        log.store.lock_catalogue()
        log.store.drop_partitions(log.slots)
        log.store.unlock_catalogue()
        with pytest.raises(errors.ChannelNotFound):
            sender.send(b"x")
        with pytest.raises(errors.ChannelNotFound):
            sender.send_many([b"x"] * 2000)
        log.store.close()
        for call in (lambda: sender.send(b"x"), lambda: sender.send_many([b"x"]), lambda: log.parts[0].bounds()):
            with pytest.raises(errors.Closed):
                call()
        assert receipt.result() == (receipt.partition, receipt.offset)
        with pytest.raises(errors.Closed):
            receipt.result(level="synced")
    with pytest.raises(TypeError, match="not attached"):
        n.Sender().send(b"x")
    with pytest.raises(TypeError, match="not attached"):
        n.Sender().send_many([b"x"])


def test_receipts_describe_themselves(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as log:
        assert repr(log.sender().send(b"x")) == "<Receipt partition 0 offset 0>"
        receipt = log.sender().send_many([b"x", b"y"])
        assert repr(receipt) == "<Receipt of 2 messages, the last in partition 0 at offset 2>"
        assert receipt.partitions.dtype == np.int32 and receipt.offsets.dtype == np.int64


def test_a_store_lists_what_is_in_it(tmp_path: Path) -> None:
    with opened(tmp_path / "s", 2) as log:
        assert log.store.partitions() == [(log.slots[0], "ch-0", CHANNEL_ID, 0), (log.slots[1], "ch-1", CHANNEL_ID, 1)]
        assert [row[2] for row in log.store.processes()] == [True]
        with pytest.raises(errors.ChannelNotFound):
            log.store.partition(log.slots[0], b"x" * 16)
        with pytest.raises(ValueError, match="16 bytes"):
            log.store.partition(log.slots[0], b"short")
