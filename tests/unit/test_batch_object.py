"""Is a batch a sequence of messages and a set of columns that say the same, also as Arrow, also after everything else
is gone?"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from tests.unit.stores import Opened, opened
from tidelog import _native as n
from tidelog import errors

Row = np.dtype(
    [("sym", "S4"), ("qty", "<i4"), ("big", ">u2"), ("name", "U3"), ("px", "f8"), ("ok", "?"), ("at", "M8[us]")]
)


class Item(msgspec.Struct):
    id: int


def filled(log: Opened, count: int = 50) -> n.Batch[bytes]:
    """Two partitions with `count` messages each, the second one compressed, as one batch."""
    for number, codec in ((0, 0), (1, 3)):
        log.sender(codec).send_many(
            [b"%d:%d" % (number, at) for at in range(count)],
            keys=[None if at % 3 == 0 else b"k%d" % at for at in range(count)],
            headers=[{"at": str(at)} for at in range(count)],
            partition=number,
            timestamp=[float(at) for at in range(count)],
        )
    batch = log.reader().receive_many(10 * count, 5.0)
    assert len(batch) == 2 * count
    return batch


def test_columns_and_messages_say_the_same(tmp_path: Path) -> None:
    with opened(tmp_path / "s", 2) as log:
        batch = filled(log)
        assert isinstance(batch, Sequence)
        assert batch.values == batch.raws == [message.value for message in batch] == [message.raw for message in batch]
        assert batch.values is batch.values
        assert batch.keys == [message.key for message in batch]
        assert batch.offsets.tolist() == [message.offset for message in batch]
        assert batch.partitions.tolist() == [message.partition for message in batch]
        assert batch.timestamps.astype("i8").tolist() == [message.timestamp_ms for message in batch]
        assert (batch.offsets.dtype, batch.partitions.dtype, batch.timestamps.dtype) == ("i8", "i4", "M8[ms]")
        assert sorted(batch.values) == sorted(b"%d:%d" % (part, at) for part in (0, 1) for at in range(50))
        assert [message.headers["at"] for message in batch] == [b"%d" % at for at in range(50)] * 2
        assert batch.nbytes == sum(len(raw) + len(key or b"") for raw, key in zip(batch.raws, batch.keys, strict=True))
        assert batch.ends() == {0: 50, 1: 50}
        assert repr(batch) == "<Batch of 100 messages, ends {0: 50, 1: 50}>"


def test_it_slices_like_a_list(tmp_path: Path) -> None:
    with opened(tmp_path / "s", 2) as log:
        batch = filled(log, 7)
        every = list(batch.values)
        bounds = [None, *range(-16, 17, 3)]
        for start in bounds:
            for stop in bounds:
                for step in (None, 1, 2, 3, -1, -2, 50):
                    piece = batch[start:stop:step]
                    assert piece.values == every[start:stop:step]
                    assert [message.value for message in piece] == every[start:stop:step]
                    assert piece.offsets.tolist() == batch.offsets[start:stop:step].tolist()
                    assert piece.partitions.tolist() == batch.partitions[start:stop:step].tolist()
                    assert piece.keys == batch.keys[start:stop:step]
        for at in range(-14, 14):
            assert batch[at].value == every[at]
        for at in (14, -15):
            with pytest.raises(IndexError):
                batch[at]
        assert [message.value for message in reversed(batch)] == every[::-1]
        assert batch[::-1][2:5].values == every[::-1][2:5]
        assert batch[::-1].ends() == batch.ends() == {0: 7, 1: 7}
        assert batch[3:5].ends() in ({0: 5}, {1: 5})
        message = batch[3]
        assert message in [message] and batch.count(message) == 0
        with pytest.raises(ValueError, match="not in"):
            batch.index(message)


def test_it_matches_sequence_patterns_and_is_generic(tmp_path: Path) -> None:
    with opened(tmp_path / "s", 2) as log:
        match filled(log, 1):
            case [first, second]:
                assert {first.value, second.value} == {b"0:0", b"1:0"}
            case _:
                pytest.fail("a batch matches sequence patterns")
        assert n.Batch[bytes].__origin__ is n.Batch  # type: ignore[attr-defined]
        assert n.Message[bytes].__origin__ is n.Message  # type: ignore[attr-defined]


def test_messages_outlive_batch_reader_and_store(tmp_path: Path) -> None:
    log = Opened(tmp_path / "s", 2)
    batch = filled(log)
    message, piece = batch[3], batch[10:20]
    expected, values = (message.value, message.key, message.offset, message.headers.all), list(piece.values)
    chosen = batch[::7]
    chosen_values = list(chosen.values)
    log.store.close()
    del log, batch
    gc.collect()
    junk = [bytes(5000) for _ in range(2000)]
    del junk
    assert (message.value, message.key, message.offset, message.headers.all) == expected
    assert piece[:].values == values
    assert chosen[:].values == chosen_values


def test_memory_is_not_shared_between_batches(tmp_path: Path) -> None:
    """Chunks are recycled: a kept message must never see the next read's bytes."""
    with opened(tmp_path / "s") as log:
        log.sender().send_many([b"%06d" % at for at in range(20_000)])
        reader = log.drained()
        kept = []
        while len(batch := reader.receive_many(100, 5.0)):
            kept.append(batch[0])
            del batch
        assert [message.value for message in kept] == [b"%06d" % message.offset for message in kept]
        assert len(kept) >= 200


def test_typed_values_and_what_is_not_of_the_type(tmp_path: Path) -> None:
    with opened(tmp_path / "s", type_=Item) as log:
        log.sender().send_many([Item(at) for at in range(5)])
        batch = log.reader().receive_many(100, 5.0)
        assert batch.values == [Item(at) for at in range(5)]
        assert batch[2].value is batch[2:].values[0] or batch[2].value == Item(2)
        message = batch[1]
        assert message.value is message.value
        assert message.raw == b'{"id":1}'
    with opened(tmp_path / "s") as raw:
        raw.sender().send(b"not json")
    with opened(tmp_path / "s", type_=Item) as log:
        batch = log.reader().receive_many(100, 5.0)
        with pytest.raises(errors.DecodeError, match="message 5"):
            batch.values  # noqa: B018
        with pytest.raises(errors.DecodeError):
            batch[5].value  # noqa: B018
        assert batch[5].raw == b"not json" and batch[:5].values == [Item(at) for at in range(5)]


def test_a_message_describes_itself(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as log:
        log.sender().send(b"v" * 100, key=b"key", timestamp=datetime(2020, 1, 1, tzinfo=UTC))
        message = log.reader().receive(5.0)
        assert repr(message) == f"<Message ch-0@0 key=b'key' {b'v' * 60!r}... 100 bytes>"
        assert (message.channel, message.partition, message.offset, message.kind) == ("ch", 0, 0, "event")
        assert message.timestamp == datetime(2020, 1, 1, tzinfo=UTC)
        log.sender().send(b"", timestamp=-62135596801.0)  # a second before the year 1
        with pytest.raises(errors.DecodeError, match="timestamp_ms"):
            log.parts[0].read_at(np.array([1]), log.shared, 0)[0].timestamp  # noqa: B018


def test_an_empty_batch(tmp_path: Path) -> None:
    for type_ in (None, Item, Row):
        with opened(tmp_path / str(type_)[:5], type_=type_) as log:
            batch = log.reader().receive_many(10, 0.0)
            assert len(batch) == 0 == batch.nbytes and not batch
            assert type(batch.values) is (np.ndarray if type_ is Row else list)
            assert type_ is not Row or batch.values.dtype == Row
            assert list(batch) == list(batch.values) == batch.raws == batch.keys == []
            assert batch.offsets.tolist() == batch.partitions.tolist() == batch.timestamps.tolist() == []
            assert batch.ends() == {} and len(batch[::-1]) == len(batch[:]) == 0
            assert pa.table(batch).num_rows == 0


# --- rows ---


def rows(count: int) -> np.ndarray[Any, Any]:
    array = np.zeros(count, Row)
    array["sym"] = [b"s%d" % (at % 5) for at in range(count)]
    array["qty"] = np.arange(count) - 5
    array["big"] = np.arange(count) * 3
    array["name"] = [f"n\u00e9{at % 7}" for at in range(count)]
    array["px"] = np.arange(count) / 3
    array["ok"] = np.arange(count) % 3 == 0
    array["at"] = np.arange(count).astype("M8[us]") + 10**15
    return array


@pytest.mark.parametrize("codec", [0, 1])
def test_rows_arrive_as_one_array(tmp_path: Path, codec: int) -> None:
    with opened(tmp_path / "s", 2, Row) as log:
        array = rows(30_000)
        log.sender(codec).send_many(array, keys="sym", timestamp=7.0)
        reader = log.drained()
        seen = 0
        while len(batch := reader.receive_many(700, 5.0)):
            seen += len(batch)
            values = batch.values
            assert len(batch) <= 700 and isinstance(values, np.ndarray) and values.dtype == Row
            assert values.flags.c_contiguous
            assert batch.keys == list(values["sym"].tolist())
            assert batch.timestamps.astype("i8").tolist() == [7000] * len(batch)
            assert np.shares_memory(batch[5:9].values, values)
            assert batch[3].value.item() == values[3].item()
            assert batch[3].raw == values[3].tobytes() == batch.raws[3]
            assert batch[3].offset == batch.offsets[3]
            assert batch[::-3].values.tolist() == values[::-3].tolist()
            assert batch[::-3].keys == batch.keys[::-3]
            assert batch[::-3].offsets.tolist() == batch.offsets[::-3].tolist()
            assert batch.nbytes == len(batch) * Row.itemsize + sum(map(len, batch.keys))
        assert seen == 30_000


def test_headers_of_rows_are_fetched_when_asked_for(tmp_path: Path) -> None:
    with opened(tmp_path / "s", type_=Row) as log:
        log.sender().send_many(
            rows(10), headers=[{"n": str(at)} for at in range(10)], ids=[f"id{at}" for at in range(10)]
        )
        batch = log.reader().receive_many(100, 5.0)
        assert isinstance(batch.values, np.ndarray)
        assert [message.headers["n"] for message in batch] == [b"%d" % at for at in range(10)]
        assert [message.id for message in batch[::2]] == ["id0", "id2", "id4", "id6", "id8"]


def test_rows_one_by_one_and_by_offset(tmp_path: Path) -> None:
    with opened(tmp_path / "s", type_=Row) as log:
        array = rows(2000)
        log.sender().send_many(array)
        reader = log.drained()
        first = next(reader)
        assert first.value.item() == array[0].item()
        assert reader.receive_many(5, 5.0).values.tolist() == array[1:6].tolist()
        assert [message.value.item() for message in reader] == array[6:].tolist()
        wanted = np.array([5, 1999, 0, 5])
        batch = log.parts[0].read_at(wanted, log.shared, 0)
        assert batch.values.tolist() == array[wanted].tolist() and batch.offsets.tolist() == wanted.tolist()


def test_a_value_of_another_width_is_an_error_that_says_where(tmp_path: Path) -> None:
    with opened(tmp_path / "s", type_=Row) as log:
        log.sender().send_many(rows(3))
    with opened(tmp_path / "s") as raw:
        raw.sender().send(b"short")
        raw.sender(1).send_many([b"short"])
    with opened(tmp_path / "s", type_=Row) as log:
        reader = log.reader()
        assert len(reader.receive_many(10, 5.0)) == 3
        for offset in (3, 4):  # plain, then compressed
            batch = reader.receive_many(1, 5.0)
            assert batch.raws == [b"short"] and batch.offsets.tolist() == [offset]
            with pytest.raises(errors.DecodeError, match=f"offset {offset}"):
                batch.values  # noqa: B018
        reader._seek(0, 3)
        assert reader.receive(5.0).raw == b"short"
        with pytest.raises(errors.DecodeError, match="offset 3"):
            log.parts[0].read_at(np.array([1, 3]), log.shared, 0).values  # noqa: B018


# --- Arrow ---


def test_arrow_of_bytes(tmp_path: Path) -> None:
    with opened(tmp_path / "s", 2) as log:
        batch = filled(log)
        for piece in (batch, batch[3:77], batch[::-2], batch[:0]):
            table = pa.table(piece)
            table.validate(full=True)
            assert table.column_names == ["value", "key", "offset", "timestamp", "partition"]
            assert table["value"].to_pylist() == list(piece.values)
            assert table["key"].to_pylist() == piece.keys
            assert table["offset"].to_pylist() == piece.offsets.tolist()
            assert table["partition"].to_pylist() == piece.partitions.tolist()
            assert table.schema.field("timestamp").type == pa.timestamp("ms", "UTC")
            assert table["timestamp"].cast(pa.int64()).to_pylist() == piece.timestamps.astype("i8").tolist()


def test_arrow_of_rows(tmp_path: Path) -> None:
    with opened(tmp_path / "s", type_=Row) as log:
        array = rows(1000)
        log.sender().send_many(array, keys="sym")
        batch = log.reader().receive_many(1000, 5.0)
        for piece, values in ((batch, array), (batch[11:500:3], array[11:500:3])):
            table = pa.table(piece)
            table.validate(full=True)
            assert table.column_names == [*(Row.names or ()), "key", "offset", "timestamp", "partition"]
            for name in ("sym", "qty", "big", "name", "px", "ok"):
                assert table[name].to_pylist() == values[name].tolist()
            assert table["at"].cast(pa.int64()).to_pylist() == values["at"].astype("i8").tolist()
            assert table["key"].to_pylist() == values["sym"].tolist()


def test_arrow_of_plain_numbers_and_of_clashing_and_unfit_fields(tmp_path: Path) -> None:
    with opened(tmp_path / "a", type_=np.dtype("f8")) as log:
        log.sender().send_many(np.arange(5) / 2)
        assert pa.table(log.reader().receive_many(10, 5.0))["value"].to_pylist() == [0.0, 0.5, 1.0, 1.5, 2.0]
    with opened(tmp_path / "b", type_=np.dtype([("key", "i4"), ("offset", "M8[D]"), ("raw", "V3")])) as log:
        log.sender().send_many([(1, np.datetime64("2020-01-02"), b"abc")])
        table = pa.table(log.reader().receive_many(10, 5.0))
        assert table.column_names == ["key", "offset", "raw", "_key", "_offset", "timestamp", "partition"]
        assert table["offset"].to_pylist() == [datetime(2020, 1, 2)]
        assert table["raw"].to_pylist() == [b"abc"] and table["key"].to_pylist() == [1]
    with opened(tmp_path / "c", type_=np.dtype([("many", "f4", (3,))])) as log:
        log.sender().send_many(np.zeros(2, [("many", "f4", (3,))]))
        with pytest.raises(errors.NotSupported, match="many"):
            pa.table(log.reader().receive_many(10, 5.0))


def test_arrow_streams_are_released_however_they_are_used(tmp_path: Path) -> None:
    with opened(tmp_path / "s", 2) as log:
        batch = filled(log)
        for _ in range(50):
            batch.__arrow_c_stream__()  # never imported
            stream = pa.RecordBatchReader.from_stream(batch)
            assert stream.schema.names[0] == "value"
            del stream  # imported, nothing taken
        taken = pa.RecordBatchReader.from_stream(batch)
        first = taken.read_next_batch()
        with pytest.raises(StopIteration):
            taken.read_next_batch()
        del taken
        gc.collect()
        assert first.column(0).to_pylist() == batch.values


def test_a_value_that_refers_to_its_message_is_collected(tmp_path: Path) -> None:
    class Node(msgspec.Struct, weakref=True):
        id: int
        message: Any = None

    with opened(tmp_path / "s", type_=Node) as log:
        log.sender().send_many([Node(at) for at in range(10)])
        messages = list(log.reader().receive_many(10, 5.0))
        for message in messages:
            message.value.message = message
        watched = [weakref.ref(message.value) for message in messages]
        assert all(one() is message.value for one, message in zip(watched, messages, strict=True))
        del message, messages
        gc.collect()
        assert [one() for one in watched] == [None] * 10
