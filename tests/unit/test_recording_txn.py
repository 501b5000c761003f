"""Do named producers, transactions and repetitions write down what came of them?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import tidelog
from tidelog.errors import Fenced, Timeout
from tidelog.log import Log
from tidelog.testing.history import Flag, Kind, Status
from tidelog.testing.judge import check
from tidelog.testing.recorder import Recorder
from tidelog.testing.recording import Receiving, Sending, read_to_the_end
from tidelog.testing.recording_txn import Naming, Transacting
from tidelog.testing.stories import AnomalyFound


def identify(value: bytes) -> int:
    return int(value)


@pytest.fixture
def log() -> Iterator[Log]:
    with tidelog.open("memory:") as opened:
        yield opened


def outcomes(record: Recorder) -> list[tuple[str, bool, bool]]:
    """Of each transaction in order: its outcome, whether it was fenced, whether it has ended."""
    rows = record.history().rows
    return [
        (Status(row["status"]).name, bool(row["flags"] & Flag.FENCED), bool(row["end"]))
        for row in rows[rows["kind"] == Kind.TXN]
    ]


def test_copies_that_are_committed_and_given_up(log: Log) -> None:
    record = Recorder(process="")
    orders, bills = log.topic("orders", partitions=1), log.topic("bills", partitions=1)
    plain = Sending(record, orders, identify=identify)
    for number in range(4):
        plain.send(b"%d" % number)
    naming = Naming(record, log, "till")
    sending = Sending(record, bills, producer=naming.producer, identify=identify, facts=naming.facts)
    with Receiving(record, orders.consumer, group="copy", identify=identify, transacting=True) as received:
        with Transacting(record, log, naming, received) as tx:
            tx.send(sending, received.receive(1).value)
        with pytest.raises(ZeroDivisionError), Transacting(record, log, naming, received) as tx:
            tx.send(sending, received.receive(1).value)
            raise ZeroDivisionError
        with Transacting(record, log, naming, received) as tx:
            tx.send(sending, received.receive(1).value)
            tx.abort()
        with Transacting(record, log, naming, received) as tx:
            tx.send_many(sending, [one.value for one in received.receive_many(10, 1)])
            tx.commit()
    for channel in (orders, bills):
        read_to_the_end(record, channel, identify=identify)
    assert outcomes(record) == [("OK", False, True), ("FAIL", False, True), ("FAIL", False, True), ("OK", False, True)]
    history = record.history()
    rows = history.rows
    kept = rows[(rows["kind"] == Kind.SEND) & (rows["txn"] > 0)]
    assert [(int(row["value"]), int(row["txn"])) for row in kept] == [(0, 1), (1, 2), (1, 3), (1, 4), (2, 4), (3, 4)]
    commits = rows[rows["kind"] == Kind.COMMIT]
    assert [(int(row["offset"]), int(row["txn"])) for row in commits] == [(1, 1), (4, 4)]
    assert np.count_nonzero(rows["kind"] == Kind.BACK) == 2
    check(history, duplicates="recorded", idempotent=True)
    # What a later owner does not find committed, although the copy can be read, tears the transaction.
    receiving = Receiving(record, orders.consumer, group="copy", identify=identify, transacting=True)
    with receiving as received, pytest.raises(Timeout):
        received.receive(0)
    worse = record.history()
    worse.rows["offset"][np.flatnonzero(worse.rows["kind"] == Kind.ASSIGN)[-1]] = 2
    with pytest.raises(AnomalyFound, match="torn-txn"):
        check(worse, duplicates="recorded")


def test_what_was_owed_before_goes_along(log: Log) -> None:
    record = Recorder(process="")
    orders = log.topic("orders", partitions=1)
    plain = Sending(record, orders, identify=identify)
    plain.send_many([b"1", b"2"])
    naming = Naming(record, log, "till")
    with Receiving(record, orders.consumer, group="g", identify=identify) as received:
        received.receive(1)
        with Transacting(record, log, naming, received):
            pass
    rows = record.history().rows
    commit = rows[rows["kind"] == Kind.COMMIT]
    assert [(int(row["offset"]), int(row["txn"])) for row in commit] == [(1, 1)]
    check(record.history())


def test_a_zombie_is_told_as_fenced(log: Log) -> None:
    record = Recorder(process="")
    bills = log.topic("bills", partitions=1)
    older = Naming(record, log, "till")
    sending = Sending(record, bills, producer=older.producer, identify=identify, facts=older.facts)
    with pytest.raises(Fenced), Transacting(record, log, older) as tx:
        tx.send(sending, b"1")
        newer = Naming(record, log, "till")
        assert newer.facts["epoch"] > older.facts["epoch"]
    with pytest.raises(Fenced):
        sending.send(b"2")
    assert outcomes(record) == [("FAIL", True, True)]
    read_to_the_end(record, bills, identify=identify)
    history = record.history()
    check(history)
    at = np.flatnonzero(history.rows["kind"] == Kind.TXN)
    history.rows["status"][at], history.rows["flags"][at] = Status.OK, 0
    with pytest.raises(AnomalyFound, match="zombie"):
        check(history)


def test_what_was_never_asked_for_is_given_up(log: Log) -> None:
    record = Recorder(process="")
    bills = log.topic("bills", partitions=1)
    naming = Naming(record, log, "till")
    sending = Sending(record, bills, producer=naming.producer, identify=identify, facts=naming.facts)
    tx = Transacting(record, log, naming)
    tx.__enter__()
    tx.send(sending, b"1")
    assert outcomes(record) == [("FAIL", False, False)]
    tx.abort()


def test_repetitions_are_told(log: Log) -> None:
    record = Recorder(process="")
    bills = log.topic("bills", partitions=1)
    sending = Sending(record, bills, identify=identify)
    sending.send(b"1", id="1")
    sending.send(b"1", id="1")
    sending.send_many([b"2", b"1"], ids=["2", "1"])
    read_to_the_end(record, bills, identify=identify)
    rows = record.history().rows
    sends = rows[rows["kind"] == Kind.SEND]
    assert [bool(flags & Flag.DUPLICATE) for flags in sends["flags"]] == [False, True, False, True]
    assert sends["offset"].tolist() == [0, 0, 1, 0]
    check(record.history())
