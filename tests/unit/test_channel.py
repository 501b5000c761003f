"""Do values of every type come back, in every form of sending, and does history answer rightly?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypedDict

import msgspec
import numpy as np
import pydantic
import pytest

from tidelog.channel import Queue, Topic
from tidelog.errors import DecodeError, OffsetOutOfRange, SchemaMismatch, TooLarge
from tidelog.log import Log
from tidelog.native import murmur2

TICK = np.dtype([("sym", "S8"), ("px", "f8"), ("qty", "i4")])
DAY = datetime(2026, 3, 4, tzinfo=UTC)


class Order(msgspec.Struct):
    id: int
    sku: str


@dataclass
class Point:
    x: float
    y: float


class Line(TypedDict):
    text: str


class Model(pydantic.BaseModel):
    n: int


def ticks(count: int) -> np.ndarray[Any, Any]:
    rows = np.zeros(count, TICK)
    rows["sym"] = [b"AAPL", b"MSFT", b"X"] * (count // 3) + [b"AAPL"] * (count % 3)
    rows["px"] = np.arange(count) / 4
    rows["qty"] = np.arange(count)
    return rows


@pytest.mark.parametrize(
    ("type_", "value", "raw"),
    [
        (None, b"\0\xff", b"\0\xff"),
        (bytes, b"", b""),
        (str, "größe", "größe".encode()),
        (Order, Order(1, "tea"), b'{"id":1,"sku":"tea"}'),
        (Point, Point(1.5, -2.0), b'{"x":1.5,"y":-2.0}'),
        (Line, {"text": "a"}, b'{"text":"a"}'),
        (Model, Model(n=5), b'{"n":5}'),
        (list[int], [1, 2], b"[1,2]"),
    ],
)
def test_values_of_every_type_come_back(tide: Log, type_: Any, value: Any, raw: bytes) -> None:
    queue = tide.queue("values", type_, partitions=1)
    queue.send(value)
    queue.send_many([value, value])
    messages = list(queue.scan())
    assert [message.value for message in messages] == [value] * 3
    assert [message.raw for message in messages] == [raw] * 3
    assert queue.read([0, 1, 2]).values == [value] * 3


def test_msgpack_is_another_codec(tide: Log) -> None:
    queue = tide.queue("values", Order, codec="msgpack")
    queue.send(Order(1, "tea"))
    (message,) = queue.scan()
    assert message.value == Order(1, "tea")
    assert msgspec.msgpack.decode(message.raw) == {"id": 1, "sku": "tea"}


def test_values_of_another_type_are_refused(tide: Log) -> None:
    queue = tide.queue("values", Order)
    for wrong in ({"id": 1, "sku": "x"}, b"{}", None):
        with pytest.raises(SchemaMismatch, match="expected Order"):
            queue.send(wrong)  # type: ignore[arg-type]
    with pytest.raises(SchemaMismatch, match="value 1"):
        queue.send_many([Order(1, "a"), "b"])
    with pytest.raises((SchemaMismatch, TypeError)):
        tide.queue("bytes").send("text")  # type: ignore[arg-type]
    assert list(queue.scan()) == []


def test_bytes_that_are_no_value_are_named(tide: Log) -> None:
    tide.queue("values", Order)
    tide["values"].send(b"{broken")
    (message,) = tide.queue("values", Order).scan()
    assert message.raw == b"{broken"
    with pytest.raises(DecodeError, match=r"\.raw"):
        message.value  # noqa: B018


# --- keys and partitions ---


@pytest.mark.parametrize(
    ("key", "as_bytes"), [(b"k", b"k"), ("ä", "ä".encode()), (7, (7).to_bytes(8, "big")), (b"", b""), (-1, b"\xff" * 8)]
)
def test_keys_choose_the_partition_as_kafka_does(tide: Log, key: Any, as_bytes: bytes) -> None:
    topic = tide.topic("events", partitions=7)
    receipts = [topic.send(b"x", key=key), topic.send(b"y", key=as_bytes)]
    expected = (murmur2(as_bytes) & 0x7FFF_FFFF) % 7
    assert [receipt.partition for receipt in receipts] == [expected] * 2
    assert {message.key for message in topic.scan()} == {as_bytes}
    assert topic.send_many([b"z", b"z"], keys=[key, key]).partitions.tolist() == [expected] * 2
    assert topic.send_many([b"z"], keys=lambda value: key).partitions.tolist() == [expected]


def test_what_cannot_be_a_key_is_refused(tide: Log) -> None:
    topic = tide.topic("events")
    for wrong in (1.5, True, [b"k"]):
        with pytest.raises(TypeError, match="key"):
            topic.send(b"x", key=wrong)
    with pytest.raises(ValueError, match="8 bytes"):
        topic.send(b"x", key=1 << 63)


def test_a_partition_may_be_chosen(tide: Log) -> None:
    topic = tide.topic("events", partitions=3)
    assert topic.send(b"x", key="k", partition=2).partition == 2
    assert topic.send_many([b"a", b"b"], keys=["k", "l"], partition=1).partitions.tolist() == [1, 1]
    for wrong in (3, -1):
        with pytest.raises(ValueError, match="partition"):
            topic.send(b"x", partition=wrong)
    with pytest.raises(TypeError, match="partition"):
        topic.send(b"x", partition=True)


def test_messages_without_a_key_spread_over_all_partitions(tide: Log) -> None:
    topic = tide.topic("events", partitions=4)
    for _ in range(400):
        topic.send_many([b"x" * 1000] * 20)
    shares = [end for _, end in (topic.bounds(partition) for partition in range(4))]
    assert sum(shares) == 8000
    assert min(shares) > 0


def test_ids_choose_the_partition_where_there_is_no_key(tide: Log) -> None:
    topic = tide.topic("events", partitions=5)
    first = topic.send(b"x", id="web-77")
    again = [topic.send(b"x", id="web-77") for _ in range(10)]
    assert {receipt.partition for receipt in again} == {first.partition}
    receipt = topic.send_many([b"a", b"b"], ids=["web-77", "web-78"])
    assert receipt.partitions[0] == first.partition
    assert receipt.duplicates.tolist() == [True, False]
    assert [message.id for message in topic.scan(partition=first.partition)][:1] == ["web-77"]


# --- many at once ---


def test_any_iterable_can_be_sent(tide: Log) -> None:
    queue = tide.queue("values", partitions=1)
    receipt = queue.send_many(b"%d" % number for number in range(5000))
    assert receipt.count == 5000
    assert receipt.offsets.tolist() == list(range(5000))
    assert queue.send_many([]).count == 0
    assert [message.value for message in queue.scan()] == [b"%d" % number for number in range(5000)]


def test_headers_go_along(tide: Log) -> None:
    queue = tide.queue("values", partitions=1)
    queue.send_many([b"a", b"b"], headers={"src": "web"})
    queue.send_many([b"c", b"d"], headers=[{"n": "1"}, None])
    queue.send(b"e", headers=[("r", b"1"), ("r", b"2")])
    found = [message.headers.all for message in queue.scan()]
    assert found == [[("src", b"web")], [("src", b"web")], [("n", b"1")], [], [("r", b"1"), ("r", b"2")]]


def test_parallel_lists_must_have_the_same_length(tide: Log) -> None:
    queue = tide.queue("values")
    for options in ({"keys": ["k"]}, {"ids": ["a", "b", "c"]}, {"headers": [None]}):
        with pytest.raises(ValueError, match="2 messages|one for each"):
            queue.send_many([b"a", b"b"], **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "form", [lambda rows: rows, lambda rows: {name: rows[name] for name in TICK.names or ()}, lambda rows: list(rows)]
)
def test_rows_can_be_sent_as_array_columns_or_one_by_one(tide: Log, form: Callable[[Any], Any]) -> None:
    rows = ticks(100)
    topic = tide.topic("ticks", TICK, partitions=3)
    receipt = topic.send_many(form(rows), keys="sym")
    wanted = [(murmur2(bytes(key)) & 0x7FFF_FFFF) % 3 for key in rows["sym"]]
    assert receipt.partitions.tolist() == wanted
    for partition in range(3):
        mine = rows[np.array(wanted) == partition]
        found = topic.read(range(len(mine)), partition)
        assert isinstance(found.values, np.ndarray)
        assert found.values.dtype == TICK
        assert found.values.tobytes() == mine.tobytes()
        assert found.keys == [bytes(key) for key in mine["sym"]]


def test_one_row_can_be_sent(tide: Log) -> None:
    topic = tide.topic("ticks", TICK, partitions=1)
    topic.send((b"A", 1.5, 2))
    topic.send(ticks(3)[1])
    first, second = topic.scan()
    assert (first.value["sym"], first.value["px"], first.value["qty"]) == (b"A", 1.5, 2)
    assert second.value == ticks(3)[1]
    with pytest.raises(SchemaMismatch):
        topic.send((b"far too long", 1.5, 2))


@pytest.mark.parametrize("compression", ["gzip", "snappy", "lz4", "zstd"])
def test_every_compression_comes_back(tide: Log, compression: str) -> None:
    topic = tide.topic("events", partitions=2, compression=compression)
    values = [b"%d " % number * 50 for number in range(3000)]
    receipt = topic.send_many(values, keys=[b"k%d" % (number % 7) for number in range(3000)])
    places = list(zip(receipt.partitions.tolist(), receipt.offsets.tolist(), strict=True))
    found = {(message.partition, message.offset): message.value for message in topic.scan()}
    assert [found[place] for place in places] == values
    for partition in range(2):
        mine = [(offset, value) for (place, offset), value in zip(places, values, strict=True) if place == partition]
        mine = mine[::-97]
        assert topic.read([offset for offset, _ in mine], partition).values == [value for _, value in mine]
    assert topic.compression == compression


def test_too_large_is_refused_and_nothing_of_it_stays(tide: Log) -> None:
    queue = tide.queue("values", max_message_bytes=1000)
    queue.send(b"x" * 1000)
    queue.send(b"x" * 997, key="abc")
    for send in (
        lambda: queue.send(b"x" * 1001),
        lambda: queue.send(b"x" * 998, key="abc"),
        lambda: queue.send_many([b"y", b"x" * 1001]),
    ):
        with pytest.raises(TooLarge, match="max_message_bytes"):
            send()
    assert sorted(len(message.value) for message in queue.scan()) == [997, 1000]


def test_large_messages_up_to_the_limit(tide: Log) -> None:
    queue = tide.queue("values", partitions=1, max_message_bytes=32 << 20)
    value = bytes(range(256)) * (20 << 12)
    queue.send(value)
    queue.send_many([b"a", value, b"b"])
    assert [len(message.value) for message in queue.scan()] == [len(value), 1, len(value), 1]
    assert next(iter(queue.scan())).value == value


# --- history ---


def filled(log: Log, count: int = 100) -> Topic[bytes]:
    topic = log.topic("events", partitions=1)
    for number in range(count):
        topic.send(b"%d" % number, timestamp=DAY + timedelta(seconds=number))
    return topic


def numbers(messages: Any) -> list[int]:
    return [int(message.value) for message in messages]


def test_scan_from_and_to_every_kind_of_place(tide: Log) -> None:
    topic = filled(tide)
    assert numbers(topic.scan()) == list(range(100))
    assert numbers(topic.scan(start=40, stop=60)) == list(range(40, 60))
    assert numbers(topic.scan(start=40)) == list(range(40, 100))
    assert numbers(topic.scan(start=DAY + timedelta(seconds=10), stop=DAY + timedelta(seconds=12.5))) == [10, 11, 12]
    assert numbers(topic.scan(start="latest")) == []
    assert numbers(topic.scan(start=100)) == []
    assert numbers(topic.scan(start=50, stop=20)) == []
    assert numbers(topic.scan(start=99, stop=10_000)) == [99]
    for options in ({"start": "newest"}, {"stop": "start"}, {"start": -1}, {"partition": 1}, {"isolation": "dirty"}):
        with pytest.raises(ValueError, match=next(iter(options))):
            topic.scan(**options)  # type: ignore[arg-type]
    for options in ({"start": 1.5}, {"partition": "0"}):
        with pytest.raises(TypeError):
            topic.scan(**options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="tail"):
        topic.scan(stop=None)


def test_scan_goes_through_all_partitions_one_after_the_other(tide: Log) -> None:
    topic = tide.topic("events", partitions=3)
    topic.send_many([b"%d" % number for number in range(300)], keys=[b"k%d" % number for number in range(300)])
    places = [(message.partition, message.offset) for message in topic.scan()]
    assert places == sorted(places)
    assert len(places) == 300
    assert sum(len(list(topic.scan(partition=partition))) for partition in range(3)) == 300


def test_a_scan_ends_at_the_end_there_was(tide: Log) -> None:
    topic = filled(tide, 5)
    scan = topic.scan()
    next(scan)
    topic.send(b"5")
    assert numbers(scan) == [1, 2, 3, 4]


def test_read_in_any_order(tide: Log) -> None:
    topic = filled(tide)
    for wanted in ([5, 3, 99, 0, 3], [], list(range(100)), np.array([7, 1], np.int32)):
        assert numbers(topic.read(wanted)) == list(wanted)
    for wrong in ([100], [5, -1]):
        with pytest.raises((OffsetOutOfRange, ValueError)):
            topic.read(wrong)
    for wrong_type in ([1.5], [[1]]):
        with pytest.raises(TypeError, match="offsets are integers"):
            topic.read(wrong_type)
    with pytest.raises(ValueError, match="give partition="):
        tide.topic("more").read([0])


def test_find_is_the_first_message_not_older(tide: Log) -> None:
    topic = filled(tide)
    assert topic.find(DAY + timedelta(seconds=40)) == 40
    assert topic.find(DAY + timedelta(seconds=40, milliseconds=1)) == 41
    assert topic.find(DAY - timedelta(days=1)) == 0
    assert topic.find(DAY + timedelta(days=1)) == 100
    moments = np.array([DAY.replace(tzinfo=None) + timedelta(seconds=s) for s in (3, 77, 3)], "M8[ms]")
    assert topic.find(moments).tolist() == [3, 77, 3]
    assert topic.find([DAY, DAY.timestamp() + 5]).tolist() == [0, 5]
    with pytest.raises(ValueError, match="give partition="):
        tide.topic("more").find(DAY)


def test_trim_forgets_the_oldest(tide: Log) -> None:
    topic = filled(tide)
    topic.trim(before=30)
    assert topic.bounds(0) == (30, 100)
    assert numbers(topic.scan()) == list(range(30, 100))
    topic.trim(before=10)
    assert topic.bounds(0) == (30, 100), "it never goes back"
    topic.trim(before=DAY + timedelta(seconds=50))
    assert topic.bounds(0) == (50, 100)
    with pytest.raises(OffsetOutOfRange):
        list(topic.scan(start=49))
    with pytest.raises(OffsetOutOfRange):
        topic.read([49])
    topic.trim(before=10**9)
    assert topic.bounds(0) == (100, 100)
    assert topic.send(b"100").offset == 100, "an offset is never used again"


# --- changes ---


def test_more_partitions(tide: Log) -> None:
    topic = tide.topic("events", partitions=2)
    topic.send_many([b"x"] * 10, keys=[b"%d" % number for number in range(10)])
    topic.configure(partitions=5)
    assert topic.partitions == 5
    assert topic.send(b"y", partition=4).partition == 4
    assert topic.send_many([b"z"], partition=3).partition == 3
    assert len(list(topic.scan())) == 12
    assert tide.topic("events", partitions=5) is topic
    with pytest.raises(ValueError, match="cannot shrink"):
        topic.configure(partitions=4)
    with topic.consumer(group="g", stop="end") as consumer:
        assert len(list(consumer)) == 12
        assert {part for _, part in consumer.assignment} == set(range(5))


def test_what_is_configured_elsewhere_is_noticed(tide: Log) -> None:
    topic = tide.topic("events", partitions=2)
    other = tide["events"]
    assert other is not topic
    other.configure(partitions=3, retention=timedelta(days=1), max_message_bytes=100)
    assert topic.partitions == 3
    assert topic.retention == (86_400_000, -1, False)
    assert topic.max_message_bytes == 100
    with pytest.raises(TooLarge):
        topic.send(b"x" * 101)
    other.configure(retention=None, compression="lz4")
    assert topic.retention == (-1, -1, False)
    assert topic.compression == "lz4"
    topic.send_many([b"x" * 50] * 100)
    assert len(list(topic.scan())) == 100


def test_values_out_of_range_change_nothing(tide: Log) -> None:
    topic = tide.topic("events")
    for options in ({"retention": 0}, {"compression": "rar"}, {"max_message_bytes": 0}, {"segment_bytes": 5}):
        with pytest.raises(ValueError):
            topic.configure(**options)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        topic.configure(retention=1.5)  # type: ignore[arg-type]
    assert topic.retention == (-1, -1, False)
    assert topic.compression == "none"


def test_offsets_of_a_channel_are_its_own(tide: Log) -> None:
    orders, events = tide.queue("orders", partitions=1), tide.topic("events", partitions=1)
    for channel in (orders, events):
        channel.send_many([b"a", b"b", b"c"])
    with events.consumer(group="audit") as consumer:
        consumer.receive(timeout=5)
    with orders.consumer() as consumer:
        consumer.receive_many(2, timeout=5)
    (row,) = [row for row in events.offsets() if row.offset >= 0]
    assert (row.group, row.channel, row.partition, row.offset, row.log_end, row.lag) == ("audit", "events", 0, 1, 3, 2)
    assert row.committed_at is not None
    assert abs(datetime.now(UTC) - row.committed_at) < timedelta(minutes=1)
    assert [(row.group, row.lag) for row in orders.offsets()] == [("orders", 1)]
    assert {row.channel for row in tide.offsets()} == {"events", "orders"}


def test_sync_and_describe(tide: Log) -> None:
    topic = filled(tide, 10)
    topic.sync()
    tide.sync()
    info = topic.describe(0)
    assert (info["log_start"], info["log_end"]) == (0, 10)
    assert topic.send(b"10").result(timeout=10, level="synced").offset == 10
    with pytest.raises(ValueError, match="level"):
        topic.send(b"11").result(level="sealed")
    with pytest.raises(ValueError, match="no partition"):
        topic.describe(1)


# --- skew ---


def test_skew_counts_what_is_there(tide: Log) -> None:
    topic = tide.topic("events", partitions=3)
    keys = [b"tea"] * 500 + [b"milk"] * 60 + [b"k%d" % number for number in range(40)]
    receipt = topic.send_many([b"v" * 10 for _ in keys], keys=keys)
    topic.send_many([b"no key"] * 5, partition=0)
    skew = topic.skew(hottest=3)
    wanted = Counter(receipt.partitions.tolist())
    wanted[0] += 5
    assert [share.messages for share in skew.partitions] == [wanted[partition] for partition in range(3)]
    assert skew.messages == 605
    assert skew.bytes == sum(10 + len(key) for key in keys) + 5 * 6
    assert sum(share.bytes for share in skew.partitions) == skew.bytes
    assert skew.max_over_mean == pytest.approx(max(wanted.values()) / (605 / 3))
    home = (murmur2(b"tea") & 0x7FFF_FFFF) % 3
    assert skew.hottest[0][:3] == (b"tea", home, 500)
    assert skew.hottest[0].share == pytest.approx(500 / 605)
    assert skew.hottest[0].error == 0.0
    assert [key.key for key in skew.hottest[:2]] == [b"tea", b"milk"]
    assert len(skew.hottest) == 3
    assert skew.exact


def test_skew_of_nothing(tide: Log) -> None:
    skew = tide.topic("events", partitions=2).skew()
    assert (skew.messages, skew.max_over_mean, skew.hottest) == (0, 0.0, ())
    assert [share.message_share for share in skew.partitions] == [0.0, 0.0]
    for live in (False, True):
        with pytest.raises(ValueError, match="hottest=-1"):
            tide.topic("nothing").skew(-1, live=live)


def test_tail_sees_only_what_comes(tide: Log) -> None:
    orders: Queue[bytes] = tide.queue("orders", partitions=2)
    orders.send(b"before")
    with orders.tail() as live:
        assert len(live.receive_many(10, timeout=0)) == 0
        orders.send(b"after")
        assert live.receive(timeout=5).value == b"after"
        assert live.group is None
    assert [row for row in orders.offsets() if row.offset >= 0] == []
