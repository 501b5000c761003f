"""Is a message whose id was sent before left out, wherever and however it is sent again, and no other one?"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tidelog
from tidelog import aio
from tidelog.config import ChannelOptions
from tidelog.log import Log

TICK = np.dtype([("sym", "S4"), ("px", "f8")])


def values_of(channel: Any) -> list[Any]:
    """Every value, partition by partition."""
    return [message.value for message in channel.scan()]


def run(code: str, *arguments: str, kill: bool = False) -> str:
    """What a program of its own prints; `kill`: it ends by SIGKILL of itself."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == (-signal.SIGKILL if kill else 0), done.stderr
    return done.stdout


# --- one by one ---


def test_a_second_send_answers_the_first_position(tide: Log) -> None:
    orders = tide.queue("orders")
    first = orders.send(b"tea", id="web-1")
    again = orders.send(b"another tea", id="web-1")
    other = orders.send(b"rice", id="web-2")
    assert not first.duplicate
    assert first.duplicates.tolist() == [False]
    assert again.duplicate
    assert again.duplicates.tolist() == [True]
    assert again.result() == first.result() == again.result(level="synced")
    assert not other.duplicate
    assert sorted(values_of(orders)) == [b"rice", b"tea"]


def test_with_a_key_the_key_chooses_the_partition(tide: Log) -> None:
    orders = tide.queue("orders", partitions=7)
    first = orders.send(b"tea", key="k1", id="a")
    assert orders.send(b"tea", key="k1", id="a").result() == first.result()
    elsewhere = next(key for key in map(str, range(100)) if tidelog.native.murmur2(key) % 7 != first.partition)
    assert not orders.send(b"tea", key=elsewhere, partition=(first.partition + 1) % 7, id="a").duplicate


def test_an_id_is_a_str_with_at_least_one_character(tide: Log) -> None:
    orders = tide.queue("orders")
    sends: list[Callable[[Any], Any]] = [
        lambda id: orders.send(b"x", id=id),
        lambda id: orders.send_many([b"x"], ids=[id]),
    ]
    for send in sends:
        with pytest.raises(ValueError, match="at least one character"):
            send("")
        with pytest.raises(TypeError, match="a message id is a str, not int"):
            send(7)
    with tide.producer(linger=1.0) as producer:
        with pytest.raises(ValueError, match="at least one character"):
            producer.send(orders, b"x", id="")
        with pytest.raises(TypeError, match="str, not int"):
            producer.send(orders, b"x", id=7)  # type: ignore[arg-type]
    assert values_of(orders) == []


@pytest.mark.parametrize("length", [1, 7, 8, 9, 100, 101, 5000])
def test_ids_of_any_length(tide: Log, length: int) -> None:
    orders = tide.queue("orders", partitions=1)
    stem = "é" * (length // 2) + "x" * (length - 2 * (length // 2))
    one, other = stem[:-1] + "a", stem[:-1] + "b"
    assert [orders.send(b"x", id=id).duplicate for id in (one, other, one, other)] == [False, False, True, True]
    assert [message.id for message in orders.scan()] == [one, other]
    assert orders.send_many([b"x", b"x"], ids=[one, other + "c"]).duplicates.tolist() == [True, False]


def test_an_id_beside_other_headers_and_of_a_channel_of_several_types(tide: Log) -> None:
    orders = tide.queue("orders", partitions=1)
    first = orders.send(b"x", id="a", headers={"src": "web"})
    assert orders.send(b"x", id="a").result() == first.result()
    assert orders.send(b"x", id="a", headers=[("src", "web")], timestamp=1.0).duplicate
    assert len(values_of(orders)) == 1


def test_a_header_of_that_name_counts_but_is_not_looked_for(tide: Log) -> None:
    orders = tide.queue("orders", partitions=1)
    orders.send(b"0", id="warm")
    first = orders.send(b"1", headers={"message-id": "a"})
    second = orders.send(b"2", headers={"message-id": "a"})
    assert not second.duplicate
    assert orders.send(b"3", id="a").offset == second.offset == first.offset + 1
    orders.send_many([b"4", b"5"], headers=[{"message-id": "b"}, {"message-id": "c"}])
    assert orders.send(b"6", id="b").duplicate
    assert orders.send(b"7", id="c").duplicate
    assert values_of(orders) == [b"0", b"1", b"2", b"4", b"5"]


def test_a_question_is_looked_for_only_by_an_id_that_was_given(tmp_path: Path) -> None:
    with tidelog.open(tmp_path / "log") as log:
        quotes = log.queue("quotes", partitions=3, reply=bytes)
        for _ in range(60):
            quotes.ask(b"x", timeout=0).close()
        questions = list(quotes.scan())
        assert len({message.id for message in questions}) == 60
        assert all(message.id == message.correlation_id for message in questions)
        assert {message.partition for message in questions} == {0, 1, 2}, "without a key they spread"
        assert list(tmp_path.rglob("ids")) == [], "nobody looked"
        for _ in range(2):
            quotes.ask(b"x", timeout=0, id="mine").close()
        assert sum(1 for _ in quotes.scan()) == 61
        first = questions[0]
        assert quotes.send(b"x", id=first.id, partition=first.partition).duplicate, "they count all the same"


# --- the window ---


def test_by_count(tide: Log) -> None:
    orders = tide.queue("orders", partitions=1, dedup_count=3)
    for name in "abc":
        assert not orders.send(b"", id=name).duplicate
    orders.send_many([b""] * 100)  # messages without an id are not counted
    assert orders.send(b"", id="a").duplicate
    assert not orders.send(b"", id="d").duplicate  # a is the fourth now
    assert not orders.send(b"", id="a").duplicate
    assert [orders.send(b"", id=name).duplicate for name in "cda"] == [True, True, True]
    assert not orders.send(b"", id="b").duplicate


def test_by_age(tide: Log) -> None:
    orders = tide.queue("orders", partitions=1, dedup_window=0.4)
    begun = time.monotonic()
    orders.send(b"1", id="a")
    again = orders.send(b"2", id="a").duplicate
    if time.monotonic() - begun < 0.4:
        assert again
    time.sleep(0.45)
    assert not orders.send(b"3", id="a").duplicate
    assert orders.dedup_window == 0.4


def test_none_is_looked_for_where_the_window_has_no_room(tide: Log) -> None:
    orders = tide.queue("orders", partitions=1, dedup_count=0)
    assert [orders.send(b"x", id="a").duplicate for _ in range(3)] == [False] * 3
    assert orders.send_many([b"x"] * 2, ids=["a", "a"]).duplicates.tolist() == [False, False]
    orders.configure(dedup_count=10)
    assert orders.dedup_count == 10
    assert orders.send(b"x", id="a").duplicate  # what came while none was looked for counts all the same
    orders.configure(dedup_count=0, dedup_window=60)
    assert not orders.send(b"x", id="a").duplicate
    assert (orders.dedup_count, orders.dedup_window) == (0, 60.0)


def test_more_ids_than_the_file_had_room_for(tide: Log) -> None:
    orders = tide.queue("orders", partitions=1, dedup_count=20_000)
    names = [f"order {number}" for number in range(30_000)]
    for at in range(0, len(names), 3000):
        assert not orders.send_many([b""] * 3000, ids=names[at : at + 3000]).duplicates.any()
    again = orders.send_many([b""] * len(names), ids=names[::-1]).duplicates
    # Backwards: 20,000 are known, then every new one takes the place of the oldest.
    assert again.tolist() == [True] * 20_000 + [False] * 10_000


def test_options_out_of_range() -> None:
    for wrong in (
        {"dedup_count": -1},
        {"dedup_count": 10_000_001},
        {"dedup_window": 31 * 24 * 3600},
        {"dedup_window": 0},
    ):
        with pytest.raises(ValueError, match=f"^{next(iter(wrong))}="):
            ChannelOptions.of("queue", **wrong)  # type: ignore[arg-type]
    for odd in ({"dedup_count": 1.5}, {"dedup_window": "10"}):
        with pytest.raises(TypeError, match=f"^{next(iter(odd))} is"):
            ChannelOptions.of("queue", **odd)


def test_configure_checks_the_window(tide: Log) -> None:
    orders = tide.queue("orders")
    with pytest.raises(ValueError, match="dedup_count=-1"):
        orders.configure(dedup_count=-1)
    with pytest.raises(ValueError, match="at most 30 days"):
        orders.configure(dedup_window=1e9)
    assert (orders.dedup_count, orders.dedup_window) == (100_000, 600.0)


# --- many at once, and every way to send ---


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("ack", ["written", "synced"])
def test_many_at_once(tide: Log, compression: str, ack: str) -> None:
    topic = tide.topic("t", partitions=3, compression=compression)
    with tide.producer(ack=ack) as producer:
        names = [f"id {number}" for number in range(1000)]
        first = producer.send_many(topic, [b"%d" % number for number in range(1000)], ids=names)
        mixed = names[500:] + [f"new {number}" for number in range(500)]
        second = producer.send_many(topic, [b"again"] * 1000, ids=mixed)
    assert not first.duplicate
    assert second.duplicates.tolist() == [True] * 500 + [False] * 500
    assert second.offsets[:500].tolist() == first.offsets[500:].tolist()
    assert second.partitions[:500].tolist() == first.partitions[500:].tolist()
    assert not second.duplicate
    whole = topic.send_many([b"x"] * 3, ids=["id 1", "new 2", "id 1"])
    assert whole.duplicate
    assert whole.result().offset == first.offsets[1]
    assert len(values_of(topic)) == 1500
    for number in range(3):  # the order of the others is kept
        kept = [message.value for message in topic.scan(partition=number) if message.value != b"again"]
        assert kept == sorted(kept, key=int)


@pytest.mark.parametrize("compression", ["none", "lz4"])
def test_a_repetition_within_a_call_is_a_duplicate_of_its_first(tide: Log, compression: str) -> None:
    orders = tide.queue("orders", partitions=1, compression=compression)
    receipt = orders.send_many([b"0", b"1", b"2", b"3", b"4", b"5"], ids=["a", None, "b", "a", None, "b"])
    assert receipt.duplicates.tolist() == [False, False, False, True, False, True]
    assert receipt.offsets.tolist() == [0, 1, 2, 0, 3, 2]
    assert values_of(orders) == [b"0", b"1", b"2", b"4"]
    assert orders.send_many([b"6"] * 3, ids=["b", "c", "c"]).offsets.tolist() == [2, 4, 4]


def test_a_repetition_within_a_call_counts_the_ids_between(tide: Log) -> None:
    orders = tide.queue("orders", partitions=1, dedup_count=2)
    receipt = orders.send_many([b"%d" % n for n in range(7)], ids=["a", "b", "a", "c", "a", "a", None])
    assert receipt.duplicates.tolist() == [False, False, True, False, False, True, False]
    assert receipt.offsets.tolist() == [0, 1, 0, 2, 3, 3, 4]


def test_rows_and_arrays(tide: Log) -> None:
    ticks = tide.topic("ticks", TICK, partitions=2)
    rows = np.zeros(100, TICK)
    rows["px"] = np.arange(100)
    names = [f"tick {number}" for number in range(100)]
    first = ticks.send_many(rows, ids=names)
    again = ticks.send_many(rows[50:], keys=None, ids=names[50:])
    assert again.duplicate
    assert again.offsets.tolist() == first.offsets[50:].tolist()
    ticks.send_many(rows, keys="sym", ids=names[:1] + ["n"] * 99)
    assert sum(end - start for start, end in map(ticks.bounds, range(2))) in (101, 102)


def test_a_lingering_producer(tide: Log) -> None:
    orders = tide.queue("orders", partitions=2)
    with tide.producer(linger=30.0, compression="gzip") as producer:
        receipts = [producer.send(orders, b"x", id=name) for name in ("a", "b", "a", "c")]
        plain = producer.send(orders, b"y")
        producer.flush()
        assert [receipt.duplicate for receipt in receipts] == [False, False, True, False]
        assert receipts[2].offset == receipts[0].offset
        assert receipts[2].duplicates.tolist() == [True]
        assert not plain.duplicate
        late = producer.send(orders, b"z", id="a")
        producer.flush()
        assert late.result() == receipts[0].result()
        assert late.duplicate


def test_coroutines(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path / "log") as log:
            orders = await log.queue("orders", dedup_count=50)
            assert orders.dedup_count == 50
            first = await orders.send(b"x", id="a")
            again = await orders.send(b"x", id="a")
            assert (first.duplicate, again.duplicate) == (False, True)
            assert again.offset == first.offset
            many = await orders.send_many([b"x"] * 3, ids=["a", "b", "b"])
            assert many.duplicates.tolist() == [True, False, True]
            await orders.configure(dedup_window=5)
            assert orders.dedup_window == 5.0

    asyncio.run(main())


def test_threads_that_send_the_same_ids(tide: Log) -> None:
    orders = tide.queue("orders", partitions=1)
    names = [f"id {number}" for number in range(2000)]
    receipts: list[list[Any]] = [[] for _ in range(4)]

    def send(turn: int) -> None:
        for name in names:
            receipts[turn].append(orders.send(b"%d" % turn, id=name))

    threads = [threading.Thread(target=send, args=(turn,)) for turn in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for at in range(len(names)):
        ones = [receipts[turn][at] for turn in range(4)]
        assert len({one.offset for one in ones}) == 1
        assert sum(not one.duplicate for one in ones) == 1
    assert orders.bounds(0) == (0, 2000)


# --- across processes, deaths and restarts ---

SENDER = """
import sys, tidelog
log = tidelog.open(sys.argv[1])
orders = log["orders"]
for number in range(int(sys.argv[2])):
    receipt = orders.send(b"x", id=f"id {number}")
    print(number, receipt.offset, receipt.duplicate)
"""


def test_two_processes_that_send_the_same_ids(tmp_path: Path) -> None:
    with tidelog.open(tmp_path / "log") as log:
        log.queue("orders", partitions=1)
        programs = [
            subprocess.Popen(
                [sys.executable, "-c", SENDER, str(tmp_path / "log"), "3000"], stdout=subprocess.PIPE, text=True
            )
            for _ in range(2)
        ]
        said = [[line.split() for line in program.communicate(timeout=60)[0].splitlines()] for program in programs]
        assert [program.returncode for program in programs] == [0, 0]
        for one, other in zip(*said, strict=True):
            assert one[:2] == other[:2]
            assert {one[2], other[2]} == {"True", "False"}
        assert log["orders"].bounds(0) == (0, 3000)


def test_ids_survive_closing_and_opening(tmp_path: Path) -> None:
    places = []
    for turn in range(3):
        with tidelog.open(tmp_path / "log") as log:
            orders = log.queue("orders", partitions=1)
            receipts = [orders.send(b"x", id=f"id {number}", timestamp=5.0) for number in range(100)]
            orders.send(b"y", id=f"turn {turn}")
            places.append([receipt.offset for receipt in receipts])
            assert all(receipt.duplicate is (turn > 0) for receipt in receipts)
    assert places[0] == places[1] == places[2]


KILLED = """
import os, signal, sys, tidelog
log = tidelog.open(sys.argv[1])
orders = log.queue("orders", partitions=1, compression=sys.argv[2])
orders.send_many([b"x"] * 100, ids=[f"id {number}" for number in range(100)])
log.sync()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("compression", ["none", "lz4"])
@pytest.mark.parametrize("boot", ["the same boot", "another boot"])
def test_ids_survive_kill_and_power_cut(tmp_path: Path, compression: str, boot: str) -> None:
    store = tmp_path / "log"
    run(KILLED, str(store), compression, kill=True)
    if boot == "another boot":
        with open(store / "shared", "r+b") as shared:
            shared.seek(16)
            shared.write(bytes(16))
    with tidelog.open(store) as log:
        orders = log["orders"]
        receipts = [orders.send(b"x", id=f"id {number}") for number in range(110)]
        assert [receipt.duplicate for receipt in receipts] == [True] * 100 + [False] * 10
        assert [receipt.offset for receipt in receipts[:100]] == list(range(100))


def test_what_a_cut_took_was_never_sent(tmp_path: Path) -> None:
    store = tmp_path / "log"
    run(KILLED, str(store), "none", kill=True)
    segment = next((store / "orders-0").glob("*.log"))
    data = segment.read_bytes()
    # The only batch did not reach the disk whole, whatever the checkpoint says of it.
    with open(segment, "r+b") as file:
        file.seek(data.index(b"id 50"))
        file.write(b"?")
    with open(store / "shared", "r+b") as shared:
        shared.seek(16)
        shared.write(bytes(16))
    with tidelog.open(store) as log:
        orders = log["orders"]
        assert not orders.send(b"x", id="id 50").duplicate
        assert not orders.send(b"x", id="id 0").duplicate


def test_a_channel_made_again_knows_no_ids(tmp_path: Path) -> None:
    with tidelog.open(tmp_path / "log") as log:
        for _ in range(3):
            orders = log.queue("orders", partitions=1)
            assert not orders.send(b"x", id="a").duplicate
            assert orders.send(b"x", id="a").duplicate
            log.drop("orders")


def test_a_trimmed_message_still_counts(tmp_path: Path) -> None:
    with tidelog.open(tmp_path / "log") as log:
        orders = log.queue("orders", partitions=1, segment_bytes=65536)
        first = orders.send(b"x", id="a")
        orders.send_many([b"x" * 30_000] * 20)
        orders.trim(15)
        assert orders.bounds(0)[0] >= 10
        assert orders.send(b"x", id="a").offset == first.offset == 0


def test_a_damaged_file_is_found_and_can_be_deleted(tmp_path: Path) -> None:
    store = tmp_path / "log"
    with tidelog.open(store) as log:
        orders = log.queue("orders", partitions=1)
        first = orders.send(b"x", id="a")
    path = store / "orders-0" / "ids"
    check = [sys.executable, "-m", "tidelog.cli", "check", str(store)]
    assert subprocess.run(check, capture_output=True, check=False, timeout=60).returncode == 0
    with open(path, "r+b") as file:
        file.write(b"????????")
    found = subprocess.run(check, capture_output=True, check=False, timeout=60, text=True)
    assert found.returncode != 0
    assert "message ids" in found.stdout + found.stderr
    repaired = subprocess.run([*check, "--repair"], capture_output=True, check=False, timeout=60, text=True)
    assert "made again from the log" in repaired.stdout + repaired.stderr
    assert not path.exists()
    assert subprocess.run(check, capture_output=True, check=False, timeout=60).returncode == 0
    with tidelog.open(store) as log:
        assert log["orders"].send(b"x", id="a").result() == first.result()
    path.unlink()
    with tidelog.open(store) as log:
        assert log["orders"].send(b"x", id="a").result() == first.result()


def test_a_file_of_another_store_is_not_believed(tmp_path: Path) -> None:
    stores = [tmp_path / "one", tmp_path / "other"]
    for store, name in zip(stores, "ab", strict=True):
        with tidelog.open(store) as log:
            log.queue("orders", partitions=1).send(b"x", id=name)
    foreign = (stores[0] / "orders-0" / "ids").read_bytes()
    (stores[1] / "orders-0" / "ids").write_bytes(foreign)
    with tidelog.open(stores[1]) as log:
        orders = log["orders"]
        assert not orders.send(b"x", id="a").duplicate
        assert orders.send(b"x", id="b").duplicate


def test_duplicates_are_no_samples(tide: Log) -> None:
    orders = tide.topic("orders", partitions=2)
    orders.send_many([b"x"] * 200, keys=["a"] * 200, ids=[f"id {n}" for n in range(200)])
    before = orders.skew(live=True).samples
    for _ in range(50):
        assert orders.send_many([b"x"] * 200, keys=["a"] * 200, ids=[f"id {n}" for n in range(200)]).duplicate
        assert orders.send(b"x", key="a", id="id 7").duplicate
    assert orders.skew(live=True).samples == before
