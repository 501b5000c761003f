"""Does a partition handle answer for its partition: bounds, state, trimming, syncing, looking for damage?"""

from __future__ import annotations

import contextlib
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.stores import CHANNEL_ID, opened, shared
from tidelog import _native as n
from tidelog import errors


def test_bounds_state_and_tail(tmp_path: Path) -> None:
    with opened(tmp_path / "s", 2) as log:
        part = log.parts[1]
        assert part.slot == log.slots[1] and part.bounds() == (0, 0)
        before = part.tail()
        log.sender().send_many([b"x"] * 10, partition=1, timestamp=5.0)
        assert part.bounds() == (0, 10) and part.tail() > before
        state = part.describe()
        assert (state["log_start"], state["log_end"], state["max_timestamp_ms"]) == (0, 10, 5000)
        assert state["tail"] == part.tail() and state["segments"] == 1 and state["failed"] == 0
        assert 0 < state["bytes"] <= state["allocated_bytes"] and state["lease"] > 10
        assert log.parts[0].bounds() == (0, 0)


def test_syncing_up_to_a_tail(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as log:
        part = log.parts[0]
        log.sender().send(b"a")
        first = part.tail()
        log.sender().send(b"b")
        part.sync(first, 10.0)
        assert part.describe()["synced"] >= first
        part.sync()
        assert part.describe()["synced"] == part.tail()
        log.store.sync()
        with pytest.raises(ValueError, match="timeout"):
            part.sync(None, -1)


def test_trim_and_retain(tmp_path: Path) -> None:
    with opened(tmp_path / "s", segment_bytes=1 << 16) as log:
        for _ in range(20):
            log.sender().send_many([bytes(1000)] * 100)
        part = log.parts[0]
        segments = part.describe()["segments"]
        part.trim(1500)
        assert part.bounds() == (1500, 2000) and part.describe()["segments"] < segments
        with pytest.raises((errors.OffsetOutOfRange, ValueError)):
            part.trim(2001)
        log.store.lock_catalogue()
        log.store.configure_partitions(
            log.slots,
            segment_bytes=1 << 16,
            segment_ms=-1,
            retention_ms=-1,
            retention_bytes=1 << 17,
            retention_consumed=False,
            max_message_bytes=1 << 20,
        )
        log.store.unlock_catalogue()
        before = part.bounds()[0]
        log.store.housekeep()
        part.retain(0)
        assert part.bounds()[0] > before


def test_what_a_deleter_that_died_has_left_goes_with_the_next_segment(tmp_path: Path) -> None:
    with opened(tmp_path / "s", segment_bytes=1 << 16) as log:
        for _ in range(20):
            log.sender().send_many([bytes(1000)] * 100)
        part, folder = log.parts[0], tmp_path / "s" / "ch-0"
        part.trim(500)
        kept = sorted(folder.glob("*.log"))
        first = f"{0:020}"
        garbage = [
            folder / (first + suffix)
            for suffix in (".log", ".index", ".timeindex", ".log.deleted", ".producers.deleted")
        ]
        garbage.append(folder / f"{kept[0].stem}.index.deleted")  # renamed; what stands there now is another one
        yours = [folder / name for name in (f"{first}.log.torn", f"{first}.log.torn-12", "notes.deleted")]
        for path in (*garbage, *yours):
            path.write_bytes(b"left")
        part.trim(550)
        assert all(path.exists() for path in garbage), "no segment went"
        part.trim(1000)
        assert not any(path.exists() for path in garbage)
        assert all(path.exists() for path in yours)
        assert set(folder.glob("*.log")) < set(kept)
        found = part.read_at(np.arange(1000, 2000), log.shared, 0)
        assert [len(message.value) for message in found] == [1000] * 1000


def collect(part: n.Partition) -> tuple[int, list[tuple[Any, ...]], list[tuple[int, int, int]]]:
    findings: list[tuple[Any, ...]] = []
    seen: list[tuple[int, int, int]] = []
    count = part.check(lambda *row: findings.append(row), lambda *row: seen.append(row))
    return count, findings, seen


def test_check_sees_everything_and_finds_a_flipped_byte(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as log:
        for _ in range(40):
            log.sender().send_many([bytes(1000)] * 100)
        count, findings, seen = collect(log.parts[0])
        assert (count, findings) == (0, [])
        assert sum(row[1] for row in seen) == 40 and sum(row[2] for row in seen) == 4000
        assert sum(row[0] for row in seen) == log.parts[0].describe()["bytes"]
        (segment,) = (tmp_path / "s").glob("**/ch-0/*.log")
        with segment.open("r+b") as file:
            file.seek(5000)
            file.write(b"\xff")
        count, findings, _ = collect(log.parts[0])
        assert count == len(findings) > 0
        file_name, position, what, first, following = findings[0]
        assert file_name.endswith(".log") and 0 <= position <= 5000 and "CRC" in what
        assert first <= 5 < following
        reader = log.reader()
        with pytest.raises(errors.Corrupt) as caught:
            reader.receive(5.0)
        assert caught.value.file.endswith(".log") and "tidelog check" in caught.value.command
        with pytest.raises(errors.Corrupt):
            reader.receive(5.0)
        reader._seek(0, caught.value.skipped_to)  # type: ignore[attr-defined]
        assert reader.receive(5.0).offset == caught.value.skipped_to >= 100  # type: ignore[attr-defined]


def test_what_callbacks_raise_is_raised(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as log:
        log.sender().send(b"x")

        def fail(*_: Any) -> None:
            raise RuntimeError("from the callback")

        with pytest.raises(RuntimeError, match="from the callback"):
            log.parts[0].check(fail, fail)
        log.sender(1).send_many([b"x"] * 10)
        with pytest.raises(RuntimeError, match="from the callback"):
            log.parts[0].find(np.array([0, 1]), fail)
            log.parts[0].read_at(np.array([0, 5]), broken(fail), 0)


def broken(decompress: Any) -> n.Channelled:
    """A channel of bytes that unpacks by `decompress`."""
    return n.Channelled(
        "ch",
        "topic",
        encode=None,
        decode=None,
        encode_many=None,
        decode_many=None,
        dtype=None,
        key_bytes=lambda key: key,
        decompress=decompress,
        max_message_bytes=1000,
    )


def test_a_batch_that_cannot_be_unpacked_loses_nothing_before_it(tmp_path: Path) -> None:
    with opened(tmp_path / "s", 2) as log:
        log.sender().send_many([b"a", b"b"], partition=0)
        log.sender(1).send_many([b"c", b"d"], partition=0)
        log.sender().send_many([b"e", b"f"], partition=1)
        unpacking: list[Any] = [RuntimeError("not now"), RuntimeError("nor now"), KeyboardInterrupt(), None]
        real = log.shared

        def unpack(codec: int, data: bytes) -> bytes:
            if (trouble := unpacking.pop(0)) is not None:
                raise trouble
            return zlib.decompress(data, wbits=31)

        log.shared = broken(unpack)
        reader = log.reader()
        first = reader.receive_many(100, 5.0)
        got = [*first.values]
        while unpacking:
            with contextlib.suppress(RuntimeError, KeyboardInterrupt):
                got += reader.receive_many(100, 5.0).values
        assert sorted(got) == [b"a", b"b", b"c", b"d", b"e", b"f"]
        assert got.index(b"a") < got.index(b"b") < got.index(b"c") < got.index(b"d")
        log.shared = real


def test_a_partition_is_made_by_its_store_only() -> None:
    with pytest.raises(TypeError, match=r"Store\.partition"):
        n.Partition().bounds()


def contents(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def test_looking_changes_nothing(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as log:
        log.sender().send(b"x")
    before = contents(tmp_path / "s")
    store = n.Store(str(tmp_path / "s"), flush_interval_ms=1000, lock_timeout_ms=1000, create=False, look=True)
    part = store.partition(store.partitions()[0][0], CHANNEL_ID)
    assert part.bounds() == (0, 1)
    assert part.read_at(np.array([0]), shared(), 0).values == [b"x"]
    with pytest.raises(ValueError, match="look"):
        part.trim(1)
    store.close()
    assert contents(tmp_path / "s") == before
