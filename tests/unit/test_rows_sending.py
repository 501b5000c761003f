"""Do rows of a numpy dtype reach the right partition, in order, without a Python object for each?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kafka.partitioner.default import murmur2 as kafka_murmur2

from tests.unit.stores import opened
from tidelog import errors
from tidelog.partitioner import key_bytes

Row = np.dtype([("sym", "S4"), ("qty", "i4"), ("name", "U3"), ("px", "f8")])


def rule(key: Any, partitions: int) -> int:
    return (kafka_murmur2(key_bytes(key)) & 0x7FFFFFFF) % partitions


def rows(count: int) -> np.ndarray[Any, Any]:
    array = np.zeros(count, Row)
    array["sym"] = [f"s{number % 23}" for number in range(count)]
    array["qty"] = np.arange(count) - count // 2
    array["name"] = [f"n{number % 3}" for number in range(count)]
    array["px"] = np.arange(count) / 7
    return array


def as_lists(array: np.ndarray[Any, Any]) -> list[Any]:
    return array.tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("count", [0, 1, 1000, 70_000])
@pytest.mark.parametrize("field", [None, "sym", "qty", "name"])
@pytest.mark.parametrize("codec", [0, 3])
def test_rows_with_a_field_as_key(tmp_path: Path, count: int, field: str | None, codec: int) -> None:
    if codec and count == 70_000:
        count = 20_000
    with opened(tmp_path / "s", 4, Row) as log:
        array = rows(count)
        receipt = log.sender(codec).send_many(array, keys=field)
        assert receipt.count == count == len(receipt.offsets)
        got = dict.fromkeys(range(4), array[:0])
        reader = log.drained()
        while len(batch := reader.receive_many(5000, 5.0)):
            for number in set(batch.partitions.tolist()):
                mine = batch.partitions == number
                got[number] = np.concatenate([got[number], batch.values[mine]])
                keys = [key for key, here in zip(batch.keys, mine.tolist(), strict=True) if here]
                expected = [None if field is None else key_bytes(row[field].item()) for row in batch.values[mine]]
                assert keys == expected
        if field is None:
            assert sum(1 for part in got.values() if len(part)) <= 1
            assert as_lists(np.concatenate(list(got.values()))) == as_lists(array)
        else:
            chosen = np.array([rule(value, 4) for value in array[field].tolist()], "i4")
            assert receipt.partitions.tolist() == chosen.tolist()
            for number, part in got.items():
                assert as_lists(part) == as_lists(array[chosen == number])
                assert receipt.offsets[chosen == number].tolist() == list(range(len(part)))


def test_rows_from_columns_with_everything_beside_them(tmp_path: Path) -> None:
    with opened(tmp_path / "s", 3, Row) as log:
        array = rows(300)
        columns = {name: array[name] for name in Row.names or ()}
        sender = log.sender()
        sender.send_many(columns, keys=array["qty"], headers=[{"n": str(number)} for number in range(300)])
        sender.send_many(array, keys=lambda row: row["sym"], timestamp=np.arange(300).astype("M8[s]"))
        sender.send_many(array[::2], ids=[str(number) for number in range(150)])
        sender.send_many([tuple(row) for row in array.tolist()], keys="sym", headers={"x": "y"})
        sender.send(array[0], key="k")
        messages = sorted(log.drained(), key=lambda message: (message.partition, message.offset))
        assert len(messages) == 300 * 3 + 150 + 1
        kinds = {tuple(message.headers): 0 for message in messages}
        for message in messages:
            kinds[tuple(message.headers)] += 1
            if "n" in message.headers:
                number = int(message.headers["n"])
                assert message.value.item() == array[number].item()
                assert message.key == key_bytes(int(array["qty"][number]))
            if "message-id" in message.headers:
                assert message.value.item() == array[2 * int(message.id)].item()
                assert message.partition == rule(message.id, 3)
        assert kinds == {("n",): 300, (): 301, ("message-id",): 150, ("x",): 300}
        assert {message.timestamp_ms for message in messages if message.timestamp_ms < 1_000_000} == {
            number * 1000 for number in range(300)
        }


def test_rows_refuse_other_arrays_and_fields(tmp_path: Path) -> None:
    with opened(tmp_path / "s", 2, Row) as log:
        sender = log.sender()
        with pytest.raises(ValueError, match="no field 'nope'"):
            sender.send_many(rows(3), keys="nope")
        with pytest.raises(TypeError, match="px"):
            sender.send_many(rows(3), keys="px")
        with pytest.raises(errors.SchemaMismatch):
            sender.send_many(np.zeros(3, "i4"))
        with pytest.raises(ValueError, match="2 keys for 3"):
            sender.send_many(rows(3), keys=np.arange(2))
        assert sum(part.bounds()[1] for part in log.parts) == 0
