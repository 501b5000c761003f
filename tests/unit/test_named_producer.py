"""Does a named producer keep its identity, fence an older self, and send again without doubling?

Imports the public API; faults are put between a producer and the compiled sender. Batches are read back from the
segment files by their layout, not by the code that wrote them.
"""

from __future__ import annotations

import asyncio
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tidelog
from tests.unit.raw_batches import append, batch
from tidelog import lingering
from tidelog.errors import Closed, Fenced, Full, NoSpace, StorageFailed, TooLarge
from tidelog.log import Log
from tidelog.log import open as open_log
from tidelog.producer import Producer


def batches(folder: Path) -> Iterator[tuple[int, int, int, int, int, int]]:
    """(base offset, messages, producer id, epoch, base sequence, attributes) of every batch of a partition."""
    for file in sorted(folder.glob("*.log")):
        data, at = file.read_bytes(), 0
        while at + 61 <= len(data) and data[at + 16] == 2:
            base, length = struct.unpack_from(">qi", data, at)
            attributes = struct.unpack_from(">h", data, at + 21)[0]
            producer_id, epoch, sequence, count = struct.unpack_from(">qhii", data, at + 43)
            yield base, count, producer_id, epoch, sequence, attributes
            at += 12 + length


def values(log: Log, name: str = "events") -> list[Any]:
    return [message.raw.decode() for message in log[name].scan()]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Log]:
    with open_log(tmp_path / "named.log", lock_timeout=2) as log:
        yield log


# --- identity ---


def test_batches_carry_id_epoch_and_sequence(disk: Log, tmp_path: Path) -> None:
    events = disk.topic("events", bytes, partitions=1)
    with disk.producer(name="till-3") as producer:
        assert producer.name == "till-3"
        first = producer.send(events, b"one")
        many = producer.send_many(events, [b"two", b"three"])
        headed = producer.send(events, b"four", headers={"src": "web"})
        assert (first.offset, many.offset, headed.offset) == (0, 2, 3)
        assert not first.duplicate and not many.duplicate and many.duplicates.tolist() == [False, False]
    events.send(b"plain")
    with disk.producer(name="till-3", compression="gzip") as producer:
        producer.send(events, b"five" * 50)
        producer.send_many(events, [b"six" * 50, b"seven" * 50])
    found = list(batches(tmp_path / "named.log" / "events-0"))
    own = found[0][2]
    assert found == [
        (0, 1, own, 0, 0, 0),
        (1, 2, own, 0, 1, 0),
        (3, 1, own, 0, 3, 0),
        (4, 1, -1, -1, -1, 0),
        (5, 1, own, 1, 0, 1),
        (6, 2, own, 1, 1, 1),
    ]
    assert len(values(disk)) == 8
    check_store(disk)


def check_store(log: Log) -> None:
    for name in log:
        for partition in log[name].opened().partitions:
            found: list[object] = []
            partition.check(lambda *finding, found=found: found.append(finding))
            assert not found


def test_every_name_has_an_id_of_its_own_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "named.log"
    seen: dict[str, tuple[int, int]] = {}
    for opening in range(4):
        with open_log(path) as log:
            events = log.topic("events", bytes, partitions=2)
            for name in ("a", "b", "ü" * 92):
                with log.producer(name=name) as producer:
                    producer.send(events, name.encode(), partition=0)
                    named = producer._named
                    assert named is not None
                    identity = named.producer_id, named.epoch
                    if name in seen:
                        assert identity[0] == seen[name][0] and identity[1] > seen[name][1]
                    seen[name] = identity
        if opening == 1:  # another boot
            shared = path / "shared"
            shared.write_bytes(shared.read_bytes()[:16] + bytes(16) + shared.read_bytes()[32:])
    assert len({producer_id for producer_id, _ in seen.values()}) == 3
    assert all(epoch == 3 for _, epoch in seen.values())  # whoever closes in order gives back what was reserved


def test_a_newer_self_fences_the_older_one(disk: Log) -> None:
    events = disk.topic("events", str, partitions=1)
    older = disk.producer(name="till-3")
    older.send(events, "one")
    newer = disk.producer(name="till-3")
    for attempt in (
        lambda: older.send(events, "late"),
        lambda: older.send(events, "late", headers={"a": "b"}),
        lambda: older.send_many(events, ["late"] * 3),
        lambda: older.last(events),
    ):
        with pytest.raises(Fenced, match="newer producer of this name"):
            attempt()
    newer.send(events, "two")
    older.close()
    newer.send(events, "three")
    newer.close()
    assert values(disk) == ["one", "two", "three"]
    with disk.producer(name="another") as other:
        other.send(events, "four")


def test_gathered_messages_of_a_fenced_one_are_refused(disk: Log) -> None:
    events = disk.topic("events", str, partitions=2)
    older = disk.producer(name="till-3", linger=60)
    receipt = older.send(events, "late", partition=0)
    asked = older.send(events, "late too", partition=1)
    disk.producer(name="till-3").close()
    with pytest.raises(Fenced):
        older.send(events, "later still")
    with pytest.raises(Fenced):
        asked.result()
    with pytest.raises(Fenced):
        older.flush()
    older.close()  # said once
    assert receipt.done and values(disk) == []
    with pytest.raises(Fenced):
        receipt.result()


def test_fenced_across_processes(tmp_path: Path) -> None:
    path = tmp_path / "named.log"
    with open_log(path) as log:
        events = log.topic("events", str, partitions=1)
        producer = log.producer(name="till-3")
        producer.send(events, "mine")
        code = f"""
import tidelog
with tidelog.open({str(path)!r}) as log, log.producer(name="till-3") as producer:
    print(producer.last(log["events"])[0].offset, producer.send(log["events"], b"theirs").offset)
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
        assert done.stdout.split() == ["0", "1"]
        with pytest.raises(Fenced):
            producer.send(events, "late")
        with log.producer(name="till-3") as again:
            again.send(events, "mine again")
        assert [message.raw for message in events.scan()] == [b"mine", b"theirs", b"mine again"]


def test_a_killed_one_leaves_its_name_to_the_next(tmp_path: Path) -> None:
    path = tmp_path / "named.log"
    code = f"""
import os, tidelog
log = tidelog.open({str(path)!r})
producer = log.producer(name="till-3")
producer.send_many(log.topic("events", bytes, partitions=3), [b"x"] * 90, keys=[str(n) for n in range(90)])
os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == -9
    with open_log(path) as log, log.producer(name="till-3") as producer:
        last = producer.last(log["events"])
        assert [position.offset for position in last if position] == [log["events"].bounds(n)[1] - 1 for n in range(3)]
        assert [position.partition for position in last if position] == [0, 1, 2]


# --- last ---


def test_last_counts_only_its_own(disk: Log) -> None:
    events = disk.topic("events", bytes, partitions=3)
    with disk.producer(name="a") as a, disk.producer(name="b") as b:
        assert a.last(events) == [None, None, None]
        a.send(events, b"1", partition=1)
        b.send(events, b"2", partition=1)
        events.send(b"3", partition=1)
        a.send_many(events, [b"4"] * 5, partition=2)
        assert a.last(events) == [None, (1, 0), (2, 4)]
        assert b.last(events) == [None, (1, 1), None]
    with disk.producer(name="a") as a:
        assert a.last(events) == [None, (1, 0), (2, 4)]
        events.trim(before=3, partition=1)
        events.trim(before=5, partition=2)
        assert a.last(events) == [None, (1, 0), (2, 4)]
    with disk.producer() as nobody, pytest.raises(ValueError, match="without a name"):
        nobody.last(events)
    with pytest.raises(Closed):
        a.last(events)


# --- sending again ---


class Breaking:
    """Stands between a producer and its compiled sender, and fails before or after the append."""

    def __init__(self, producer: Producer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.plan: list[tuple[str, BaseException]] = []
        self.calls = 0
        true = producer._sender

        def wrapped(opened: Any, *, gathered: bool = False) -> Any:
            return Broken(true(opened, gathered=gathered), self) if gathered else true(opened, gathered=gathered)

        monkeypatch.setattr(producer, "_sender", wrapped)


class Broken:
    def __init__(self, sender: Any, breaking: Breaking) -> None:
        self.sender, self.breaking = sender, breaking

    def _begin_at(self, sequence: int) -> None:
        self.sender._begin_at(sequence)

    def send_many(self, items: Any, **options: Any) -> Any:
        self.breaking.calls += 1
        when, error = self.breaking.plan.pop(0) if self.breaking.plan else ("never", RuntimeError())
        if when == "before":
            raise error
        receipt = self.sender.send_many(items, **options)
        if when == "after":
            raise error
        return receipt


@pytest.mark.parametrize("error", [NoSpace("full"), tidelog.errors.Locked("held"), tidelog.errors.Timeout("slow")])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("compression", [None, "gzip"])
def test_a_batch_that_failed_is_sent_again_in_its_place(
    disk: Log, monkeypatch: pytest.MonkeyPatch, when: str, error: Exception, compression: str | None
) -> None:
    events = disk.topic("events", str, partitions=1)
    with disk.producer(name="till-3", linger=60, compression=compression) as producer:
        breaking = Breaking(producer, monkeypatch)
        breaking.plan = [(when, error)] * 4
        first = [producer.send(events, f"a{number}", key=f"k{number % 3}") for number in range(10)]
        for _ in range(2):
            with pytest.raises(type(error)):
                producer.flush()
            assert not first[0].done
        later = producer.send(events, "b")  # behind it, in a batch of its own
        with pytest.raises(type(error)):
            later.result()
        with pytest.raises(type(error)):
            producer.send_many(events, ["c"])  # nothing of it is sent: it would overtake
    assert values(disk) == [f"a{number}" for number in range(10)] + ["b"]
    assert [receipt.offset for receipt in first] == list(range(10)) and later.offset == 10
    assert [receipt.duplicate for receipt in first] == [when == "after"] * 10
    assert first[0].duplicates.tolist() == [when == "after"] and not later.duplicate


def test_send_many_waits_for_what_is_kept(disk: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    events = disk.topic("events", str, partitions=1)
    with disk.producer(name="till-3", linger=60) as producer:
        breaking = Breaking(producer, monkeypatch)
        breaking.plan = [("before", Full("later"))]
        producer.send(events, "a")
        with pytest.raises(Full):
            producer.send_many(events, ["b"])
        producer.send_many(events, ["b"])
    assert values(disk) == ["a", "b"]


def test_an_interrupt_after_the_append_doubles_nothing(disk: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    events = disk.topic("events", str, partitions=2)
    with disk.producer(name="till-3", linger=60) as producer:
        breaking = Breaking(producer, monkeypatch)
        breaking.plan = [("after", KeyboardInterrupt())]
        receipts = [producer.send(events, str(number), partition=number % 2) for number in range(10)]
        with pytest.raises(KeyboardInterrupt):
            producer.flush()
        producer.flush()
    assert sorted(map(int, values(disk))) == list(range(10))
    assert sum(receipt.duplicate for receipt in receipts) == 5
    assert [receipt.result() for receipt in receipts] == [(number % 2, number // 2) for number in range(10)]


def test_an_unnamed_producer_gives_such_a_batch_up(disk: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    events = disk.topic("events", str, partitions=1)
    with disk.producer(linger=60) as producer:
        breaking = Breaking(producer, monkeypatch)
        breaking.plan = [("before", NoSpace("full"))]
        producer.send(events, "lost")
        with pytest.raises(NoSpace):
            producer.flush()
        producer.flush()
    assert values(disk) == []


def test_what_cannot_be_sent_at_the_end_is_given_up(disk: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    events = disk.topic("events", str, partitions=1)
    producer = disk.producer(name="till-3", linger=60)
    breaking = Breaking(producer, monkeypatch)
    breaking.plan = [("before", NoSpace("full"))] * 2
    receipt = producer.send(events, "lost")
    with pytest.raises(NoSpace):
        producer.close()
    with pytest.raises(NoSpace):
        receipt.result()
    assert producer.closed and values(disk) == []
    disk.producer(name="till-3").close()


def test_an_error_that_stays_is_not_tried_again(disk: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    events = disk.topic("events", str, partitions=1)
    with disk.producer(name="till-3", linger=60) as producer:
        breaking = Breaking(producer, monkeypatch)
        breaking.plan = [("before", StorageFailed("gone"))]
        producer.send(events, "lost")
        with pytest.raises(StorageFailed):
            producer.flush()
        producer.flush()
        producer.send(events, "kept")
    assert values(disk) == ["kept"] and breaking.calls == 2


def test_the_clock_sends_again(disk: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    events = disk.topic("events", str, partitions=1)
    with disk.producer(name="till-3", linger=0.02) as producer:
        breaking = Breaking(producer, monkeypatch)
        breaking.plan = [("after", NoSpace("full")), ("before", NoSpace("full"))]
        receipt = producer.send(events, "a")
        assert lingering.Done.wait(receipt._batch.done, 10)  # type: ignore[attr-defined]
        assert receipt.duplicate and breaking.calls == 3
    assert values(disk) == ["a"]


def test_large_gatherings_are_sent_again_whole(disk: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """More batches than the log remembers of a producer: only the slice that was under way is in doubt."""
    events = disk.topic("events", bytes, partitions=1)
    with disk.producer(name="till-3", linger=60) as producer:
        breaking = Breaking(producer, monkeypatch)
        breaking.plan.extend([("after", NoSpace("full"))] * 9)
        receipts = [producer.send(events, b"%d" % number) for number in range(60_000)]
        for _ in range(9):
            with pytest.raises(NoSpace):
                producer.flush()
    assert [int(message.value) for message in events.scan()] == list(range(60_000))
    assert [receipts[number].offset for number in (0, 8191, 8192, 59_999)] == [0, 8191, 8192, 59_999]
    check_store(disk)


def test_ids_and_sequences_go_together(disk: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    events = disk.topic("events", str, partitions=1)
    with disk.producer(name="till-3", linger=60) as producer:
        breaking = Breaking(producer, monkeypatch)
        breaking.plan = [("after", NoSpace("full")), ("never", NoSpace()), ("after", NoSpace("full"))]
        for number in range(9):
            producer.send(events, str(number), id=f"id-{number}" if number % 4 < 2 else None)
        for _ in range(2):
            with pytest.raises(NoSpace):
                producer.flush()
    assert values(disk) == [str(number) for number in range(9)]


def test_a_bad_message_spoils_nothing(disk: Log) -> None:
    events = disk.topic("events", bytes, partitions=1, max_message_bytes=1000)
    with disk.producer(name="till-3", linger=60) as producer:
        producer.send(events, b"a")
        with pytest.raises(TooLarge):
            producer.send(events, b"x" * 2000)
        producer.send(events, b"b")
    assert values(disk) == ["a", "b"]


# --- with others ---


def test_threads_share_one(disk: Log) -> None:
    events = disk.topic("events", bytes, partitions=2)
    with disk.producer(name="till-3") as producer:

        def work(thread: int) -> None:
            for number in range(300):
                producer.send(events, b"%d %d" % (thread, number), key=str(thread))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    seen: dict[bytes, list[int]] = {}
    for message in events.scan():
        sender, number = message.value.split()
        seen.setdefault(sender, []).append(int(number))
    assert seen == {b"%d" % thread: list(range(300)) for thread in range(4)}


def test_plain_senders_beside_it(tmp_path: Path) -> None:
    """Another process appends to the same partition all the while: nothing of the state depends on who wrote."""
    path = tmp_path / "named.log"
    with open_log(path) as log:
        events = log.topic("events", bytes, partitions=1)
        code = f"""
import tidelog
with tidelog.open({str(path)!r}) as log, log.producer(name="other") as producer:
    for number in range(2000):
        (producer.send if number % 3 else lambda c, v: c.send(v))(log["events"], b"theirs")
"""
        other = subprocess.Popen([sys.executable, "-c", code])
        with log.producer(name="till-3") as producer:
            offsets = [producer.send(events, b"%d" % number).offset for number in range(2000)]
        assert other.wait(60) == 0
        mine = [(message.offset, message.value) for message in events.scan() if message.value != b"theirs"]
        assert mine == [(offset, b"%d" % number) for number, offset in enumerate(offsets)]
        assert sum(1 for _ in events.scan()) == 4000
        check_store(log)


def test_in_memory_and_after_fork(disk: Log) -> None:
    with tidelog.open("memory:") as log, log.producer(name="a") as producer:
        assert log.can.named_producers
        events = log.topic("events", str, partitions=1)
        assert producer.send(events, "x").offset == 0 and producer.last(events) == [(0, 0)]


def test_closing_the_log_closes_the_name(tmp_path: Path) -> None:
    log = open_log(tmp_path / "named.log")
    producer = log.producer(name="a", linger=60)
    producer.send(log.topic("events", str, partitions=1), "x")
    log.close()
    assert producer.closed
    with open_log(tmp_path / "named.log") as log:
        assert values(log) == ["x"]


def test_names_are_many_but_not_without_end(disk: Log) -> None:
    producers = [disk.producer(name=f"name-{number}") for number in range(1024)]
    with pytest.raises(Full, match="1024 names"):
        disk.producer(name="one more")
    assert len(disk.engine.handles()) == 1024
    producers.pop().close()
    disk.producer(name="one more").close()
    for producer in producers:
        producer.close()


def test_asyncio(tmp_path: Path) -> None:
    async def main() -> None:
        async with tidelog.aio.open(tmp_path / "named.log") as log:
            events = await log.topic("events", str, partitions=1)
            async with log.producer(name="till-3") as producer:
                receipts = [await producer.send(events, str(number)) for number in range(5)]
                many = await producer.send_many(events, ["5", "6"])
                assert [receipt.offset for receipt in receipts] == list(range(5)) and not receipts[0].duplicate
                assert many.duplicates.tolist() == [False, False]
                assert await producer.last(events) == [(0, 6)]
                newer = log.producer(name="till-3", linger=0.01)
                receipt = await newer.send(events, "7")
                assert await receipt.result() == (0, 7)
                with pytest.raises(Fenced):
                    await producer.send(events, "late")
                with pytest.raises(Fenced):
                    await producer.last(events)
                await newer.close()
            assert [message.value async for message in events.scan()] == [str(number) for number in range(8)]

    asyncio.run(main())


def test_sequences_wrap(disk: Log, tmp_path: Path) -> None:
    """A producer that sends for long enough begins at 0 again; the one here is set close to the end by a batch of its
    id."""
    events = disk.topic("events", bytes, partitions=1)
    with disk.producer(name="till-3") as producer:
        named = producer._named
        assert named is not None
        partition = events.opened().partitions[0]
        assert append(partition, batch(named.producer_id, named.epoch, 2**31 - 3, [b"a"])) == (0, False)
        for number in range(5):
            producer.send(events, b"%d" % number)
    assert [found[4] for found in batches(tmp_path / "named.log" / "events-0")] == [
        2**31 - 3,
        2**31 - 2,
        2**31 - 1,
        0,
        1,
        2,
    ]
