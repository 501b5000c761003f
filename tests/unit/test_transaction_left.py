"""What becomes of a transaction that cannot even be aborted, since another process has stopped with the lock in hand?

The other process is a real one that lives; that it has the lock is written into the words that all processes share,
at the places that docs/format.md names. Nothing of such a transaction may ever be seen, and its producer goes on as
soon as the lock is free.
"""

from __future__ import annotations

import mmap
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

import tidelog
from tests.unit.transaction_kit import Failure, values
from tidelog.errors import Closed, Locked
from tidelog.log import Log

LOCK_AT = 448  # in the file `shared`: the lock of the transactions
RECORD_BYTES, OWNER_AT = 4096, 28  # of a slot in transactions/records

_STOPPED = """
import sys, tidelog
log = tidelog.open(sys.argv[1])
with log.transaction(log.producer(name="somebody")) as tx:
    tx.send(log["elsewhere"], b"of another process")
    print("ready", flush=True)
    sys.stdin.read()
"""


class Stopped:
    """A process that has the transactions lock whenever `holds` says so."""

    def __init__(self, store: Path, owner: int) -> None:
        self._store, self._owner = store, owner

    @contextmanager
    def holds(self) -> Iterator[None]:
        with (self._store / "shared").open("r+b") as file, mmap.mmap(file.fileno(), 4096) as words:

            def word() -> int:
                return int(struct.unpack_from("<I", words, LOCK_AT)[0])

            while word() != 0:  # a sweep has it for a moment
                time.sleep(0.0001)
            struct.pack_into("<I", words, LOCK_AT, self._owner)
            try:
                yield
            finally:
                assert word() & 0x7FFFFFFF == self._owner, "somebody has taken a lock that is held"
                struct.pack_into("<I", words, LOCK_AT, 0)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    with tidelog.open(tmp_path / "shop.log", lock_timeout=0.2) as log:
        yield log


@pytest.fixture
def stopped(log: Log, tmp_path: Path) -> Iterator[Stopped]:
    store = tmp_path / "shop.log"
    log.queue("elsewhere", partitions=1)
    with subprocess.Popen(
        [sys.executable, "-c", _STOPPED, str(store)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        records = (store / "transactions" / "records").read_bytes()
        yield Stopped(store, struct.unpack_from("<I", records, RECORD_BYTES + OWNER_AT)[0])
        process.stdin.close()
        assert process.wait(30) == 0


def by_exception(tx: Any) -> None:
    raise Failure


def by_leaving(tx: Any) -> None:
    pass


def by_abort(tx: Any) -> None:
    tx.abort()


@pytest.mark.parametrize(
    ("give_up", "error"),
    [(by_exception, Failure), (by_leaving, Locked), (by_abort, Locked)],
    ids=lambda it: it.__name__,
)
def test_its_producer_goes_on(
    log: Log, stopped: Stopped, give_up: Callable[[Any], None], error: type[Exception]
) -> None:
    orders = log.queue("orders", str, partitions=1)
    orders.send_many(["one", "two"])
    bills, producer = log.queue("bills", str, partitions=2), log.producer(name="till")
    with orders.consumer(delivery="manual") as consumer:
        with stopped.holds():
            pass  # it can be had, and given back
        with pytest.raises(error), ExitStack() as held, log.transaction(producer, consumer) as tx:
            assert [m.value for m in consumer.receive_many(2, timeout=10)] == ["one", "two"]
            tx.send(bills, "never", partition=0)
            tx.send(bills, "never", partition=1)
            held.enter_context(stopped.holds())
            give_up(tx)
        assert tx.state == "aborted"
        with pytest.raises(Closed, match="was aborted"):
            tx.send(bills, "late")
        # Nobody can say yet that it is over: the next one would have to wait too.
        with stopped.holds(), pytest.raises(Locked), log.transaction(producer):
            pytest.fail("it began beside one that is open")
        assert values(bills) == []
        with log.transaction(producer, consumer) as tx:
            assert [m.value for m in consumer.receive_many(2, timeout=10)] == ["one", "two"]
            tx.send(bills, "seen", partition=1)
        assert values(bills) == ["seen"]
        assert values(bills, dirty=True) == ["never", "never", "seen"]
        with log.transaction(producer) as tx:  # it is done once
            tx.send(bills, "and another", partition=0)
        assert sorted(values(bills)) == ["and another", "seen"]


def test_its_name_can_be_opened_anew(log: Log, stopped: Stopped) -> None:
    bills, producer = log.queue("bills", str, partitions=1), log.producer(name="till")
    with pytest.raises(Failure), ExitStack() as held, log.transaction(producer) as tx:
        tx.send(bills, "never")
        held.enter_context(stopped.holds())
        raise Failure
    producer.close()
    with log.producer(name="till") as again:
        with log.transaction(again) as tx:
            tx.send(bills, "seen")
        assert values(bills) == ["seen"]


def test_time_ends_it_where_nobody_comes_again(log: Log, stopped: Stopped) -> None:
    bills, producer = log.queue("bills", str, partitions=1), log.producer(name="till")
    with pytest.raises(Failure), ExitStack() as held, log.transaction(producer, timeout=0.5) as tx:
        tx.send(bills, "never")
        held.enter_context(stopped.holds())
        raise Failure
    bills.send("behind it")
    with bills.consumer() as consumer:
        assert consumer.receive(timeout=20).value == "behind it"
    with log.transaction(producer) as tx:  # what is left to do was done by somebody else
        tx.send(bills, "seen")
    assert values(bills) == ["behind it", "seen"]
