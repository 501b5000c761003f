"""Do messages for several channels become visible together, or not at all?"""

from __future__ import annotations

import gc
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tidelog
from tests.unit.transaction_kit import Failure, Shop, shops, values
from tidelog.errors import Closed, Fenced, OffsetOutOfRange, Timeout
from tidelog.log import Log


@pytest.fixture
def shop() -> Iterator[Shop]:
    yield from shops("memory:")


@pytest.fixture
def disk_shop(tmp_path: Path) -> Iterator[Shop]:
    yield from shops(tmp_path / "shop.log")


# --- together, or not at all ---


def test_the_engine_says_that_it_can(log: Log) -> None:
    assert log.can.transactions and log.can.named_producers


@pytest.mark.parametrize("level", ["written", "synced"])
def test_leaving_commits_everything_at_once(disk_shop: Shop, level: Any) -> None:
    shop = disk_shop
    with shop.log.transaction(shop.producer, level=level) as tx:
        for number in range(6):
            tx.send(shop.invoices, f"invoice {number}", partition=number % 3)
        tx.send_many(shop.receipts, ["a", "b"])
        assert tx.state == "open"
        assert shop.seen() == ([], [])
        assert sorted(values(shop.invoices, dirty=True)) == [f"invoice {number}" for number in range(6)]
    assert tx.state == "committed"
    assert shop.seen() == ([f"invoice {number}" for number in range(6)], ["a", "b"])


@pytest.mark.parametrize("error", [Failure, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_exception_aborts(shop: Shop, error: type[BaseException]) -> None:
    with pytest.raises(error), shop.log.transaction(shop.producer) as tx:
        tx.send(shop.invoices, "never")
        raise error
    assert tx.state == "aborted"
    assert shop.seen() == ([], [])
    assert values(shop.invoices, dirty=True) == ["never"]
    with shop.log.transaction(shop.producer) as tx:
        tx.send(shop.invoices, "next")
    assert shop.seen() == (["next"], [])


def test_the_end_may_come_inside(shop: Shop) -> None:
    with shop.log.transaction(shop.producer) as tx:
        tx.send(shop.invoices, "first")
        tx.commit()
        assert values(shop.invoices) == ["first"]
        for refused in (tx.commit, lambda: tx.send(shop.invoices, "late"), tx.abort):
            with pytest.raises(Closed, match="was committed"):
                refused()
    with shop.log.transaction(shop.producer) as tx:
        tx.send(shop.invoices, "second")
        tx.abort()
        tx.abort()
        with pytest.raises(Closed, match="was aborted"):
            tx.commit()
        with pytest.raises(Closed, match="was aborted"):
            tx.send(shop.invoices, "late")
        with pytest.raises(Closed, match="was aborted"):
            tx.send_many(shop.invoices, ["late"])
    assert values(shop.invoices) == ["first"]


def test_break_and_return_commit(shop: Shop) -> None:
    def one() -> None:
        for number in range(9):
            with shop.log.transaction(shop.producer) as tx:
                tx.send(shop.receipts, str(number))
                if number == 2:
                    return

    one()
    assert values(shop.receipts) == ["0", "1", "2"]


def test_a_transaction_without_anything(shop: Shop) -> None:
    with shop.log.transaction(shop.producer) as tx:
        pass
    assert tx.state == "committed"


def test_it_must_be_entered_and_only_once(shop: Shop) -> None:
    tx = shop.log.transaction(shop.producer)
    assert tx.state == "new"
    for refused in (lambda: tx.send(shop.invoices, "x"), tx.commit, tx.abort):
        with pytest.raises(RuntimeError, match="enter it"):
            refused()
    with tx:
        pass
    with pytest.raises(RuntimeError, match="entered once"), tx:
        pass


def test_receipts_hold_real_positions(shop: Shop) -> None:
    with shop.log.transaction(shop.producer) as tx:
        one = tx.send(shop.invoices, "one", partition=2)
        many = tx.send_many(shop.invoices, ["b", "c", "d", "e"], keys=["k", "l", "m", "n"])
        assert one.result(level="synced", timeout=10) == one.result()
        assert len(many.offsets) == 4
    by_place = {(message.partition, message.offset): message.value for message in shop.invoices.scan()}
    assert by_place[one.partition, one.offset] == "one"
    places = zip(many.partitions.tolist(), many.offsets.tolist(), strict=True)
    assert [by_place[place] for place in places] == ["b", "c", "d", "e"]


def test_everything_that_can_be_sent(log: Log) -> None:
    """Codecs, rows, keys, headers, ids, timestamps, compression, a partitioner."""
    import msgspec

    class Order(msgspec.Struct):
        id: int

    tick = np.dtype([("sym", "S4"), ("px", "f8")])
    orders, ticks = log.queue("o", Order, partitions=4), log.topic("t", tick, partitions=2)
    packed = log.topic("p", partitions=3, compression="zstd")
    producer = log.producer(name="p", partitioner=lambda key, value, partitions: partitions - 1)
    keyed = log.producer(name="q", compression="lz4")
    rows = np.array([(b"a", 1.0), (b"b", 2.0), (b"c", 3.0)], dtype=tick)
    with log.transaction(producer) as first, log.transaction(keyed) as second:
        first.send(orders, Order(1), headers={"src": "web"}, id="one", timestamp=1.5)
        first.send_many(orders, [Order(2), Order(3)])
        second.send_many(ticks, rows, keys="sym")
        second.send_many(ticks, {"sym": rows["sym"], "px": rows["px"]})
        second.send_many(packed, [b"x" * 100] * 50, keys=[b"%d" % number for number in range(50)])
        second.send(packed, b"single", key=7)
        assert values(orders) == values(ticks) == values(packed) == []
    found = list(orders.scan())
    assert [message.value.id for message in found] == [1, 2, 3]
    assert {message.partition for message in found} == {3}, "the producer's partitioner"
    assert (found[0].id, found[0].headers["src"], found[0].timestamp_ms) == ("one", b"web", 1500)
    assert sorted(message.value["sym"] for message in ticks.scan()) == [b"a", b"a", b"b", b"b", b"c", b"c"]
    assert sorted(map(len, values(packed))) == [6] + [100] * 50


def test_plain_messages_and_transactions_of_others_stand_beside_it(shop: Shop) -> None:
    """A channel is not locked: others send, and readers see that when what came before it is decided."""
    other = shop.log.producer(name="other")
    with shop.log.transaction(shop.producer) as tx:
        shop.receipts.send("before all")
        tx.send(shop.receipts, "mine")
        shop.receipts.send("plain")
        with shop.log.transaction(other) as second:
            second.send(shop.receipts, "other's")
        assert values(shop.receipts) == ["before all"], "a partition is read up to the first message that is undecided"
        assert values(shop.receipts, dirty=True) == ["before all", "mine", "plain", "other's"]
    assert values(shop.receipts) == ["before all", "mine", "plain", "other's"]
    with pytest.raises(Failure), shop.log.transaction(shop.producer) as tx:
        tx.send(shop.receipts, "never")
        shop.receipts.send("plain 2")
        raise Failure
    assert values(shop.receipts)[4:] == ["plain 2"]


# --- what readers see, wherever they look ---


def test_isolation_is_the_same_everywhere(shop: Shop) -> None:
    receipts = shop.receipts
    receipts.send("plain", timestamp=10)
    with pytest.raises(Failure), shop.log.transaction(shop.producer) as tx:
        lost = tx.send(receipts, "aborted", timestamp=20)
        raise Failure
    with shop.log.transaction(shop.producer) as tx:
        kept = tx.send(receipts, "committed", timestamp=30)
    with shop.log.transaction(shop.producer) as tx:
        undecided = tx.send(receipts, "open", timestamp=40)
        clean, dirty = ["plain", "committed"], ["plain", "aborted", "committed", "open"]
        assert values(receipts) == clean and values(receipts, dirty=True) == dirty
        assert receipts.read([kept.offset]).values == ["committed"]
        for hidden in (lost, undecided):
            with pytest.raises(OffsetOutOfRange):
                receipts.read([hidden.offset])
        both = receipts.read([undecided.offset, lost.offset], isolation="read-uncommitted")
        assert both.values == ["open", "aborted"]
        found = receipts.find([5, 15, 25, 35])
        assert found.tolist() == [0, kept.offset, kept.offset, undecided.offset]
        for group, isolation, expected in (("a", "read-committed", clean), ("b", "read-uncommitted", dirty)):
            with receipts.consumer(group, isolation=isolation, stop="end") as consumer:  # type: ignore[arg-type]
                assert consumer.lag == len(expected), "what it may not read does not count"
                assert [message.value for message in consumer] == expected
                assert consumer.lag == 0
            with receipts.consumer(group + "many", isolation=isolation, stop="end") as consumer:  # type: ignore[arg-type]
                assert consumer.receive_many(100).values == expected
        everything = receipts.tail(start="earliest", isolation="read-uncommitted")
        with receipts.tail(start="earliest") as tail, everything:
            assert tail.receive_many(9, timeout=1).values == clean
            assert everything.receive_many(9, timeout=1).values == dirty
            with pytest.raises(Timeout):
                tail.receive(timeout=0.05)


def test_rows_of_an_aborted_transaction_are_not_in_the_array(log: Log) -> None:
    ticks = log.topic("ticks", np.dtype("i8"), partitions=1)
    producer = log.producer(name="p")
    for turn, fails in enumerate([False, True, False]):
        try:
            with log.transaction(producer) as tx:
                tx.send_many(ticks, np.arange(3) + 10 * turn)
                if fails:
                    raise Failure
        except Failure:
            pass
    with ticks.consumer("g", stop="end") as consumer:
        assert consumer.receive_many(100).values.tolist() == [0, 1, 2, 20, 21, 22]
    assert [int(value) for value in values(ticks, dirty=True)] == [0, 1, 2, 10, 11, 12, 20, 21, 22]


def test_a_waiting_reader_is_woken_by_the_commit(shop: Shop) -> None:
    got: list[str] = []
    with shop.receipts.tail() as tail:
        thread = threading.Thread(target=lambda: got.append(tail.receive(timeout=20).value))
        thread.start()
        with shop.log.transaction(shop.producer) as tx:
            tx.send(shop.receipts, "news")
            time.sleep(0.1)
            assert not got
        thread.join(10)
    assert got == ["news"]


def test_latest_is_before_what_is_undecided(shop: Shop) -> None:
    """Who begins at the end while a transaction is open gets what that commits."""
    shop.receipts.send("old")
    with shop.log.transaction(shop.producer) as tx:
        tx.send(shop.receipts, "open")
        tail = shop.receipts.tail()
        late = shop.receipts.consumer("late", start="latest")
        with shop.receipts.consumer("drain", stop="end") as drain:  # does not wait for the end of the transaction
            assert [message.value for message in drain] == ["old"]
    assert tail.receive(timeout=5).value == "open"
    assert late.receive(timeout=5).value == "open"


# --- the producer ---


def test_it_needs_a_producer_with_a_name(shop: Shop) -> None:
    with pytest.raises(ValueError, match="producer with a name"):
        shop.log.transaction(shop.log.producer())
    with pytest.raises(TypeError, match="producer with a name, not as a Queue"):
        shop.log.transaction(shop.orders)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="level='fast'"):
        shop.log.transaction(shop.producer, level="fast")  # type: ignore[arg-type]
    for timeout in (0, -1, "soon"):
        with pytest.raises((ValueError, TypeError)):
            shop.log.transaction(shop.producer, timeout=timeout)  # type: ignore[arg-type]
    with tidelog.open("memory:") as elsewhere, pytest.raises(ValueError, match="of one log"):
        elsewhere.transaction(shop.producer)


def test_one_at_a_time_and_nothing_beside_it(shop: Shop) -> None:
    with shop.log.transaction(shop.producer) as tx:
        with pytest.raises(RuntimeError, match="'till' is open"):
            shop.producer.send(shop.invoices, "beside")
        with pytest.raises(RuntimeError, match="'till' is open"):
            shop.producer.send_many(shop.invoices, ["beside"])
        with pytest.raises(RuntimeError, match="one at a time"), shop.log.transaction(shop.producer):
            pass
        tx.send(shop.invoices, "inside")
    shop.producer.send(shop.invoices, "behind")
    assert sorted(values(shop.invoices)) == ["behind", "inside"]


def test_what_lingers_goes_out_before(log: Log) -> None:
    queue = log.queue("q", str, partitions=1)
    with log.producer(name="slow", linger=30) as producer:
        producer.send(queue, "gathered")
        with log.transaction(producer) as tx:
            tx.send(queue, "inside")
            with pytest.raises(RuntimeError, match="is open"):
                producer.send(queue, "beside")
        producer.send(queue, "after")
    assert values(queue) == ["gathered", "inside", "after"]


def test_a_newer_producer_of_the_name_fences_the_transaction(shop: Shop) -> None:
    with pytest.raises(Fenced), shop.log.transaction(shop.producer) as tx:
        tx.send(shop.invoices, "zombie's")
        newer = shop.log.producer(name="till")
        with pytest.raises(Fenced):
            tx.send(shop.invoices, "late")
    assert tx.state == "aborted"
    with pytest.raises(Fenced), shop.log.transaction(shop.producer):
        pass
    with shop.log.transaction(newer) as tx:
        tx.send(shop.invoices, "newer")
    assert values(shop.invoices) == ["newer"]


def test_a_transaction_that_takes_too_long_is_aborted(shop: Shop) -> None:
    with pytest.raises(Fenced, match="time"), shop.log.transaction(shop.producer, timeout=0.05) as tx:
        tx.send(shop.receipts, "late")
        shop.receipts.send("behind it")
        with shop.receipts.tail(start="earliest") as tail:
            assert tail.receive(timeout=10).value == "behind it", "whoever waits behind it ends it"
    assert tx.state == "aborted"
    assert values(shop.receipts) == ["behind it"]


def test_threads_may_share_one(shop: Shop) -> None:
    with shop.log.transaction(shop.producer) as tx:

        def send(number: int) -> None:
            for turn in range(50):
                tx.send(shop.invoices, f"{number} {turn}", key=str(number))

        threads = [threading.Thread(target=send, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    found = values(shop.invoices)
    assert len(found) == 200
    for number in range(4):
        assert [one for one in found if one.startswith(f"{number} ")] == [f"{number} {turn}" for turn in range(50)]


def test_a_thread_that_sends_while_it_is_committed(shop: Shop) -> None:
    """A send that returned is part of it; one that came too late raises and is not."""
    sent: list[str] = []
    refused: list[BaseException] = []

    def send() -> None:
        try:
            for number in range(1_000_000):
                tx.send(shop.receipts, str(number))
                sent.append(str(number))
        except (Closed, Fenced) as error:
            refused.append(error)

    with shop.log.transaction(shop.producer) as tx:
        thread = threading.Thread(target=send)
        thread.start()
        while len(sent) < 100:
            time.sleep(0.001)
    thread.join(20)
    assert len(refused) == 1
    assert values(shop.receipts) == sent


# --- ends that nobody asked for ---


def test_garbage_is_aborted(shop: Shop) -> None:
    tx = shop.log.transaction(shop.producer).__enter__()
    tx.send(shop.receipts, "lost")
    shop.receipts.send("kept")
    assert values(shop.receipts) == []
    del tx
    gc.collect()
    assert values(shop.receipts) == ["kept"]
    with shop.log.transaction(shop.producer) as tx:
        tx.send(shop.receipts, "next")
    assert values(shop.receipts) == ["kept", "next"]


@pytest.mark.parametrize("what", ["producer", "log"])
def test_closing_aborts(tmp_path: Path, what: str) -> None:
    with tidelog.open(tmp_path / "log") as other:
        for shop in shops(tmp_path / "log"):
            with pytest.raises(Closed), shop.log.transaction(shop.producer) as tx:
                tx.send(shop.receipts, "lost")
                getattr(shop, what).close()
            assert values(other.topic("receipts", str)) == []
            other["receipts"].send(b"kept")
            assert values(other.topic("receipts", str)) == ["kept"]


def test_an_interrupt_anywhere_leaves_all_or_nothing(tmp_path: Path) -> None:
    """Signals at random places of many transactions: each is whole or absent, and the log goes on."""
    rounds, hits, whole = 300, 0, set()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for shop in shops(tmp_path / "log"):
            for number in range(rounds):
                tx = None
                try:
                    signal.setitimer(signal.ITIMER_REAL, 0.00001 + (number % 97) * 0.00001)
                    with shop.log.transaction(shop.producer, level="written") as tx:
                        for part in range(3):
                            tx.send(shop.invoices, f"{number} {part}", partition=part)
                    signal.setitimer(signal.ITIMER_REAL, 0)
                except KeyboardInterrupt:
                    hits += 1
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
                if tx is not None:
                    assert tx.state in ("committed", "aborted", "new")
                    if tx.state == "committed":
                        whole.add(number)
            found: dict[int, set[str]] = {}
            for value in values(shop.invoices):
                found.setdefault(int(value.split()[0]), set()).add(value.split()[1])
            assert all(parts == {"0", "1", "2"} for parts in found.values())
            assert whole <= set(found)
            assert len(set(found) - whole) <= hits
    finally:
        signal.signal(signal.SIGALRM, before)
    assert 10 <= hits < rounds, f"{hits} of {rounds} were interrupted"


def test_a_forked_child_does_not_touch_it(tmp_path: Path) -> None:
    import os

    for shop in shops(tmp_path / "log"):
        with shop.log.transaction(shop.producer) as tx:
            tx.send(shop.receipts, "parent's")
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    tx.send(shop.receipts, "child's")
                except tidelog.Forked:
                    code = 0
                finally:
                    os._exit(code)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert values(shop.receipts) == ["parent's"]


def test_it_shows_itself(shop: Shop) -> None:
    with shop.log.transaction(shop.producer) as tx:
        assert repr(tx) == "<Transaction of 'till' open>"
