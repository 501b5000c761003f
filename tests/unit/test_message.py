"""Are times, headers, messages and the columns of a batch what was sent?"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tidelog
from tests.unit.raw_batches import append, framed, record
from tidelog.log import Log
from tidelog.message import Headers, Position, epoch_ms, epoch_ms_array


def test_moments_become_milliseconds() -> None:
    assert epoch_ms(datetime(1970, 1, 1, tzinfo=UTC)) == 0
    assert epoch_ms(datetime(1970, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))) == 0
    assert epoch_ms(datetime(1970, 1, 1, 0, 0, 1, 1000, tzinfo=UTC)) == 1001
    assert epoch_ms(datetime(1970, 1, 1, 0, 0, 1, 1, tzinfo=UTC)) == 1001, "the first message at or after it"
    assert epoch_ms(datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)) == -1000
    assert epoch_ms(1.007) == 1007
    assert epoch_ms(1.0071) == 1008
    assert epoch_ms(0) == 0
    with pytest.raises(ValueError, match="no time zone"):
        epoch_ms(datetime(2026, 1, 2, 3, 4, 5))


@pytest.mark.parametrize(("wrong", "error"), [(float("nan"), ValueError), (1e300, ValueError), ("1", TypeError)])
def test_what_is_no_moment_is_refused(wrong: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="the time"):
        epoch_ms(wrong)
    with pytest.raises(TypeError):
        epoch_ms(True)


@given(st.integers(-(10**14), 10**14))
def test_microseconds_round_up(microseconds: int) -> None:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
    exact = epoch_ms(moment)
    assert exact * 1000 >= microseconds > exact * 1000 - 1000
    assert epoch_ms_array(np.array([microseconds], "M8[us]")).tolist() == [exact]


def test_many_moments() -> None:
    moment = datetime(1970, 1, 1, 0, 0, 2, tzinfo=UTC)
    assert epoch_ms_array([moment, 3, 4.5]).tolist() == [2000, 3000, 4500]
    assert epoch_ms_array(np.array([1.5, 2.0])).tolist() == [1500, 2000]
    assert epoch_ms_array(np.array([1, 2], "M8[s]")).tolist() == [1000, 2000]
    assert epoch_ms_array([]).dtype == np.int64
    with pytest.raises(ValueError, match="NaT"):
        epoch_ms_array(np.array(["NaT"], "M8[ms]"))
    with pytest.raises(ValueError, match="one dimension"):
        epoch_ms_array(np.zeros((2, 2)))
    for wrong in ("2026", 5, None):
        with pytest.raises(TypeError):
            epoch_ms_array(wrong)


def test_headers_are_a_mapping_whose_last_value_wins() -> None:
    headers = Headers([("a", b"1"), ("b", "é"), ("a", b"2")])
    assert dict(headers) == {"a": b"2", "b": "é".encode()}
    assert headers.all == [("a", b"1"), ("b", "é".encode()), ("a", b"2")]
    assert len(headers) == 2
    assert list(headers) == ["a", "b"]
    assert "c" not in headers
    assert headers.get("c") is None
    with pytest.raises(KeyError):
        headers["c"]


def test_a_message_is_what_was_sent(tide: Log) -> None:
    topic = tide.topic("events", str, partitions=3)
    moment = datetime(2026, 5, 6, 7, 8, 9, 123000, tzinfo=UTC)
    receipt = topic.send("größe", key="k", headers={"src": "web", "n": b"\0"}, timestamp=moment, id="web-77")
    (message,) = topic.scan()
    assert (message.partition, message.offset) == receipt.result() == Position(receipt.partition, receipt.offset)
    assert message.value == "größe"
    assert message.raw == "größe".encode()
    assert message.key == b"k"
    assert message.headers["src"] == b"web"
    assert message.headers["n"] == b"\0"
    assert message.timestamp == moment
    assert message.timestamp.tzinfo is not None
    assert message.timestamp_ms == int(moment.timestamp() * 1000)
    assert (message.channel, message.id, message.kind) == ("events", "web-77", "event")
    assert message.correlation_id is None
    assert message.reply_to is None


def test_a_message_without_an_id_has_its_place_as_id(tide: Log) -> None:
    queue = tide.queue("orders", partitions=1)
    queue.send(b"a")
    queue.send(b"b")
    assert [message.id for message in queue.scan()] == ["orders-0-0", "orders-0-1"]
    assert next(iter(queue.scan())).kind == "command"
    assert tide.queue("papers", carries="document").send(b"x").done
    assert next(iter(tide["papers"].scan())).kind == "document"


def test_timestamps_are_now_unless_given(tide: Log) -> None:
    queue = tide.queue("orders", partitions=1)
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    queue.send(b"a")
    queue.send(b"b", timestamp=12.5)
    first, second = queue.scan()
    assert before <= first.timestamp <= datetime.now(UTC)
    assert second.timestamp_ms == 12_500


def test_batches_have_columns_and_are_sequences(tide: Log) -> None:
    queue = tide.queue("orders", partitions=1)
    queue.send_many([b"%d" % number for number in range(10)], keys=[b"k%d" % number for number in range(10)])
    batch = queue.read(range(10))
    assert len(batch) == 10
    assert batch.values == batch.raws == [b"%d" % number for number in range(10)]
    assert batch.keys == [b"k%d" % number for number in range(10)]
    assert batch.offsets.tolist() == list(range(10))
    assert batch.offsets.dtype == np.int64
    assert batch.partitions.tolist() == [0] * 10
    assert batch.timestamps.dtype == np.dtype("M8[ms]")
    assert batch.timestamps.astype(np.int64).tolist() == [message.timestamp_ms for message in batch]
    assert batch.nbytes == 10 * 3
    assert batch.ends() == {0: 10}
    assert [message.value for message in batch[2:5]] == [b"2", b"3", b"4"]
    assert batch[2:5].values == [b"2", b"3", b"4"]
    assert batch[-1].value == b"9"
    assert [message.value for message in reversed(batch)] == batch.values[::-1]
    with pytest.raises(IndexError):
        batch[10]


def test_values_of_every_length(tide: Log) -> None:
    """Short ones are in the message from the start, long ones when they are asked for; a null value is None."""
    topic: Any = tide.topic("lengths", partitions=1)
    lengths = [*range(300), 511, 512, 1023, 1024, 1025, 5000]
    sent = [bytes((length + i) % 256 for i in range(length)) for length in lengths]
    topic.send_many(sent)
    with tide.producer(name="a") as producer:
        named: Any = producer._named
        records = [record(0, None), record(1, b""), record(2, b"last")]
        append(
            topic.opened().partitions[0],
            framed(records, producer_id=named.producer_id, epoch=named.epoch, sequence=0),
        )
    wanted: list[bytes | None] = [*sent, None, b"", b"last"]
    for size in (1, 7, 1000):
        with topic.tail(start="earliest") as tail:
            received: list[tidelog.Message[Any]] = []
            values: list[bytes | None] = []
            while len(received) < len(wanted):
                batch = tail.receive_many(size)
                received += batch
                values += batch.values
        assert values == wanted
        assert [message.value for message in received] == wanted
        assert [message.raw for message in received] == [value or b"" for value in wanted]
    assert [message.value for message in topic.scan()] == wanted
    with topic.tail(start="earliest") as tail:
        assert [tail.receive(1).value for _ in wanted] == wanted
    assert received[5].value is received[5].value
    with pytest.raises(AttributeError):
        received[5].value = b"other"  # type: ignore[misc]
    assert "null value" in str(tidelog.Message.value.__doc__)


def test_a_row_is_read_through_its_message(tide: Log) -> None:
    dtype = np.dtype([("n", "<i4"), ("x", "<f8")])
    topic: Any = tide.topic("rows", dtype, partitions=1)
    topic.send_many(np.array([(1, 2.5), (3, 4.5)], dtype))
    with topic.tail(start="earliest") as tail:
        batch = tail.receive_many()
        first, second = batch
        assert (first.value["n"], second.value["x"]) == (1, 4.5)
        assert first.raw == np.array([(1, 2.5)], dtype).tobytes()
    assert [tuple(message.value) for message in topic.scan()] == [(1, 2.5), (3, 4.5)]
