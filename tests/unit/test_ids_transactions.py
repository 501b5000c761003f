"""What becomes of an id that was sent in a transaction: is it taken, or free?

A transaction that is aborted sent nothing, a committed one sent everything, and of one that is open its own producer
alone knows what it sent.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tidelog
from tests.unit.transaction_kit import Failure, values
from tidelog.log import Log

BOOTS = ["the same boot", "another boot"]
SENDS = ["one by one", "many at once", "many at once, compressed"]


@pytest.fixture
def tide(tmp_path: Path) -> Iterator[Log]:
    with tidelog.open(tmp_path / "log") as log:
        yield log


def start_anew(store: Path) -> None:
    """What a new boot of the machine does to a closed store: its shared words are of another one."""
    with open(store / "shared", "r+b") as shared:
        shared.seek(16)
        shared.write(bytes(16))


def compression_of(way: str) -> Any:
    return "gzip" if way.endswith("compressed") else "none"


def sending(tx: Any, channel: Any, way: str) -> Callable[[list[str]], list[tuple[bool, int]]]:
    """Sends messages of these ids and answers whether each is a duplicate, and its offset."""

    def send(names: list[str]) -> list[tuple[bool, int]]:
        if way == "one by one":
            receipts = [tx.send(channel, name, id=name) for name in names]
            return [(receipt.duplicate, receipt.offset) for receipt in receipts]
        receipt = tx.send_many(channel, names, ids=names)
        return list(zip(receipt.duplicates.tolist(), receipt.offsets.tolist(), strict=True))

    return send


@pytest.mark.parametrize("way", SENDS)
def test_aborted_is_new(tide: Log, way: str) -> None:
    notes = tide.topic("notes", str, partitions=1, compression=compression_of(way))
    producer = tide.producer(name="p")
    for _ in range(3):
        with pytest.raises(Failure), tide.transaction(producer) as tx:
            answers = sending(tx, notes, way)(["a", "b", "c"])
            assert [duplicate for duplicate, _ in answers] == [False] * 3
            raise Failure
    assert not notes.send("a", id="a").duplicate
    assert notes.send("a", id="a").duplicate
    with tide.transaction(producer) as tx:
        answers = sending(tx, notes, way)(["a", "b", "c"])
        assert [duplicate for duplicate, _ in answers] == [True, False, False]
    assert notes.send_many(["b", "c", "d"], ids=["b", "c", "d"]).duplicates.tolist() == [True, True, False]
    assert values(notes) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("way", SENDS)
def test_committed_is_a_duplicate_of_the_first(tide: Log, way: str) -> None:
    notes = tide.topic("notes", str, partitions=1, compression=compression_of(way))
    producer, other = tide.producer(name="p"), tide.producer(name="other")
    with tide.transaction(producer) as tx:
        first = sending(tx, notes, way)(["a", "b"])
    taken = [(True, offset) for _, offset in first]
    for mine in (producer, other):
        with tide.transaction(mine) as tx:
            assert sending(tx, notes, way)(["a", "b"]) == taken
    outside = notes.send_many(["a", "b"], ids=["a", "b"])
    assert outside.duplicate
    assert outside.offsets.tolist() == [offset for _, offset in taken]
    assert notes.send("b", id="b").offset == taken[1][1]
    assert values(notes) == ["a", "b"]


@pytest.mark.parametrize("way", SENDS)
def test_within_its_own_open_transaction_a_duplicate(tide: Log, way: str) -> None:
    notes = tide.topic("notes", str, partitions=1, compression=compression_of(way))
    with tide.transaction(tide.producer(name="p")) as tx:
        send = sending(tx, notes, way)
        first = send(["a", "b"])
        assert send(["b", "a"]) == [(True, first[1][1]), (True, first[0][1])]
        again = send(["b", "c", "b"])
        assert [duplicate for duplicate, _ in again] == [True, False, True]
        assert again[0][1] == again[2][1] == first[1][1]
    assert values(notes) == ["a", "b", "c"]


@pytest.mark.parametrize("way", SENDS)
def test_another_ones_open_transaction_does_not_count(tide: Log, way: str) -> None:
    notes = tide.topic("notes", str, partitions=1, compression=compression_of(way))
    with pytest.raises(Failure), tide.transaction(tide.producer(name="p")) as tx:
        sending(tx, notes, way)(["a", "b"])
        assert not notes.send("a outside", id="a").duplicate
        with tide.transaction(tide.producer(name="other")) as inner:
            assert [duplicate for duplicate, _ in sending(inner, notes, way)(["a", "b"])] == [True, False]
        raise Failure
    assert notes.send("b", id="b").duplicate
    assert values(notes) == ["a outside", "b"], "the aborted one's are not seen, and swallowed nothing"


def test_a_transaction_after_an_aborted_one_of_the_same_producer(tide: Log) -> None:
    notes = tide.topic("notes", str, partitions=1)
    producer = tide.producer(name="p")
    with tide.transaction(producer) as tx:
        first = tx.send(notes, "a", id="a")
    with pytest.raises(Failure), tide.transaction(producer) as tx:
        assert tx.send(notes, "a", id="a").offset == first.offset, "an aborted repetition changes nothing"
        tx.send(notes, "b", id="b")
        raise Failure
    with tide.transaction(producer) as tx:
        assert tx.send(notes, "a", id="a").duplicate
        assert not tx.send(notes, "b", id="b").duplicate
        assert tx.send(notes, "b", id="b").duplicate
    assert values(notes) == ["a", "b"]


DYING = """
import os, signal, sys, tidelog
log = tidelog.open(sys.argv[1])
notes = log.topic("notes", str, partitions=1, compression=sys.argv[2])
with log.producer(name="p") as producer:
    with log.transaction(producer) as tx:
        tx.send(notes, "before", id="before")
    with log.transaction(producer) as tx:
        tx.send_many(notes, ["a", "b"], ids=["a", "b"])
        log.sync()
        os.kill(os.getpid(), signal.SIGKILL)
"""


def killed_in_a_transaction(store: Path, compression: str = "none") -> None:
    done = subprocess.run(
        [sys.executable, "-c", DYING, str(store), compression], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("boot", BOOTS)
def test_its_owner_was_killed(tmp_path: Path, boot: str, compression: str) -> None:
    killed_in_a_transaction(tmp_path / "log", compression)
    if boot == "another boot":
        start_anew(tmp_path / "log")
    with tidelog.open(tmp_path / "log") as log:
        notes = log.topic("notes", str)
        assert notes.send("before", id="before").duplicate
        assert not notes.send("a", id="a").duplicate
        with log.producer(name="p") as producer, log.transaction(producer) as tx:
            answers = sending(tx, notes, "many at once")(["before", "a", "b"])
            assert [duplicate for duplicate, _ in answers] == [True, True, False]
        assert values(notes) == ["before", "a", "b"]


@pytest.mark.parametrize("resender", ["the same name", "another name", "no name"])
def test_its_owner_is_killed_while_others_have_the_log_open(tmp_path: Path, resender: str) -> None:
    with tidelog.open(tmp_path / "log") as log:
        notes = log.topic("notes", str, partitions=1)
        notes.send("warm", id="warm")
        killed_in_a_transaction(tmp_path / "log")
        if resender == "no name":
            assert not notes.send_many(["a", "b"], ids=["a", "b"]).duplicates.any()
            assert notes.send("a", id="a").duplicate
        else:
            name = "p" if resender == "the same name" else "other"
            with log.producer(name=name) as producer, log.transaction(producer) as tx:
                assert not tx.send(notes, "a", id="a").duplicate
                assert not tx.send(notes, "b", id="b").duplicate
                assert tx.send(notes, "before", id="before").duplicate
        assert values(notes) == ["warm", "before", "a", "b"]


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("boot", BOOTS)
def test_after_the_log_was_opened_again(tmp_path: Path, boot: str, compression: Any) -> None:
    store = tmp_path / "log"
    with tidelog.open(store) as log:
        notes = log.topic("notes", str, partitions=1, compression=compression)
        with log.producer(name="p") as producer:
            with pytest.raises(Failure), log.transaction(producer) as tx:
                tx.send_many(notes, ["aborted 1", "aborted 2"], ids=["1", "2"])
                raise Failure
            with log.transaction(producer) as tx:
                first = tx.send(notes, "committed 3", id="3").offset
            plain = notes.send("plain 4", id="4").offset
            with pytest.raises(Failure), log.transaction(producer) as tx:
                tx.send(notes, "aborted 5", id="5")
                assert tx.send(notes, "again 3", id="3").duplicate
                raise Failure
    if boot == "another boot":
        start_anew(store)
    with tidelog.open(store) as log:
        notes = log.topic("notes", str)
        answer = notes.send_many(["1", "2", "3", "4", "5"], ids=["1", "2", "3", "4", "5"])
        assert answer.duplicates.tolist() == [False, False, True, True, False]
        assert answer.offsets[2:4].tolist() == [first, plain]
        with log.producer(name="p") as producer, log.transaction(producer) as tx:
            assert tx.send(notes, "1", id="1").duplicate
        assert values(notes) == ["committed 3", "plain 4", "1", "2", "5"]


def test_a_transaction_that_times_out_sent_nothing(tide: Log) -> None:
    notes = tide.topic("notes", str, partitions=1)
    producer = tide.producer(name="p")
    with pytest.raises(tidelog.Fenced), tide.transaction(producer, timeout=0.2) as tx:
        tx.send(notes, "a", id="a")
        with tide.producer(name="p") as newer, tide.transaction(newer) as later:
            assert not later.send(notes, "a again", id="a").duplicate
    assert notes.send("a", id="a").duplicate
    assert values(notes) == ["a again"]
