"""Does check find damage in files that follow from the log and in records of transactions, and does --repair mend it?

What must be true afterwards is told by the log itself: what was aborted stays unseen, what was sent twice stays once.
"""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.commands import Commands
from tidelog.cli import derived
from tidelog.log import open as open_log
from tidelog.native import crc32c


class Change(Exception):
    """Of mind."""


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Commands:
    return Commands(capsys, monkeypatch)


FILLING = """
import os, sys
from tidelog.log import open as open_log

class Change(Exception):
    pass

log = open_log(sys.argv[1])
topic = log.topic("t", bytes, partitions=2, segment_bytes=1 << 16)
topic.send(b"once", id="once", partition=0)
till = log.producer(name="till")
for number in range(60):
    try:
        with log.transaction(till, level="written") as transaction:
            for at in range(20):
                transaction.send(topic, b"%03d" % number + bytes(200), partition=0)
            if number % 3 == 0:
                raise Change
    except Change:
        pass
till.send(topic, b"last", partition=0)
topic.trim(before=1, partition=0)
undecided = log.transaction(till)
undecided.__enter__()
undecided.send(topic, b"undecided", partition=0)
log.sync()
if sys.argv[2] == "kill":
    os.kill(os.getpid(), 9)
undecided.__exit__(Change, Change(), None)
log.close()
"""
SEEN = [b"%03d" % number for number in range(60) if number % 3 for _ in range(20)] + [b"las"]


@pytest.fixture(params=["close", "kill"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Transactions in a partition of several segments, every third one aborted. "kill": its words are still in use,
    and a transaction is open."""
    path = tmp_path / "s.log"
    done = subprocess.run([sys.executable, "-c", FILLING, path, request.param], check=False)
    assert done.returncode == (0 if request.param == "close" else -9)
    return path


def seen(store: Path) -> list[bytes]:
    with open_log(store) as log:
        return [message.value[:3] for message in log["t"].scan(partition=0)]


def flip(path: Path, at: int, count: int = 1) -> bytes:
    data = bytearray(path.read_bytes())
    for place in range(at, at + count):
        data[place] ^= 0xFF
    path.write_bytes(data)
    return bytes(data)


def files(store: Path, suffix: str) -> list[Path]:
    found = sorted((store / "t-0").glob(f"*{suffix}"))
    assert len(found) > 2
    return found


def mended(run: Commands, store: Path, path: Path) -> dict[str, str]:
    """Check names this file, and repair mends it: what was done with it."""
    name = str(path.relative_to(store))
    ran = run("check", store, "--format", "json")
    assert ran.code == 4
    assert {finding["file"] for finding in ran.json["findings"]} == {name}
    ran = run.good("check", store, "--repair", "--format", "json")
    assert ran.json["findings"] == []
    actions = [action for action in ran.json["repaired"] if action["file"] == name]
    assert len(actions) == 1
    assert seen(store) == SEEN
    return dict(actions[0])


@pytest.mark.parametrize("which", [0, 1, -1])
@pytest.mark.parametrize("damage", ["entry", "gone", "short"])
def test_an_index_of_aborted_transactions(run: Commands, store: Path, which: int, damage: str) -> None:
    path = files(store, ".txnindex")[which]
    whole = path.read_bytes()
    if damage == "entry":
        flip(path, 12, 5)
    elif damage == "short":
        path.write_bytes(whole[:-34])
    else:
        path.unlink()
    damaged = path.read_bytes() if path.exists() else b""
    action = mended(run, store, path)
    # All but the last stable offset, which is only ever a hint how far to look.
    cut = [[data[at : at + 26] for at in range(0, len(data), 34)] for data in (whole, path.read_bytes())]
    assert cut[1][: len(cut[0])] == cut[0]
    assert (store / action["aside"]).read_bytes() == damaged if damaged else action["aside"] == ""


def test_a_file_of_producers_is_made_again(run: Commands, store: Path) -> None:
    path = files(store, ".producers")[-1]
    whole = path.read_bytes()
    flip(path, 64 + 20)
    assert "deleted" in mended(run, store, path)["what"]
    with open_log(store) as log, log.producer(name="till") as till:
        position = till.last(log["t"])[0]
        assert position is not None
        assert position.offset == log["t"].bounds(0)[1] - 2, "the last one was aborted, its marker stands behind it"
        till.send(log["t"], b"on", partition=0)
    assert path.read_bytes() == whole
    run.good("check", store)


def test_the_first_file_of_producers_stays_a_mark(run: Commands, store: Path) -> None:
    """Without it nobody would expect batches with a producer id, and what the others say would count for nothing."""
    path = files(store, ".producers")[0]
    damaged = flip(path, 60)
    action = mended(run, store, path)
    assert (store / action["aside"]).read_bytes() == damaged
    data = path.read_bytes()
    assert len(data) == 64
    assert struct.unpack_from("<I", data, 60)[0] == crc32c(data[:60])
    with open_log(store) as log, log.producer(name="till") as till:
        assert till.last(log["t"])[0] is not None
    run.good("check", store)


def test_ids_are_made_again(run: Commands, store: Path) -> None:
    flip(store / "t-0" / "ids", 9)
    with open_log(store) as log:  # whoever uses them first does not need repair
        assert log["t"].send(b"again", id="once", partition=0).duplicate
    flip(store / "t-0" / "ids", 9)
    assert "deleted" in mended(run, store, store / "t-0" / "ids")["what"]
    with open_log(store) as log:
        assert log["t"].send(b"again", id="once", partition=0).duplicate
        assert not log["t"].send(b"new", id="new", partition=0).duplicate


def unbelievable(path: Path) -> bytes:
    """It is said to have ended, and has more units than fit."""
    data = bytearray(path.read_bytes())
    data[4096 + 4] = 4
    path.write_bytes(data)
    return flip(path, 4096 + 52, 4)


RECORDS: dict[str, Callable[[Path], bytes]] = {
    "magic": lambda path: flip(path, 0),
    "count": lambda path: flip(path, 16),
    "state": lambda path: flip(path, 4096 + 4, 4),
    "units": unbelievable,
}


@pytest.mark.parametrize("name", RECORDS)
def test_records_of_transactions(run: Commands, store: Path, name: str) -> None:
    path = store / "transactions" / "records"
    damaged = RECORDS[name](path)
    action = mended(run, store, path)
    assert "aborted" in action["what"]
    assert (store / action["aside"]).read_bytes()[:16] == damaged[:16]
    run.good("check", store)
    with open_log(store) as log, log.producer(name="till") as till:
        with log.transaction(till) as transaction:
            transaction.send(log["t"], b"new", partition=0)
        with pytest.raises(Change), log.transaction(till) as transaction:
            transaction.send(log["t"], b"not", partition=0)
            raise Change
    assert seen(store) == [*SEEN, b"new"]


@pytest.mark.parametrize("name", ["magic", "count"])
def test_damaged_records_keep_nobody_out(run: Commands, store: Path, name: str) -> None:
    """Without a repair too: the next opener puts them aside."""
    RECORDS[name](store / "transactions" / "records")
    assert seen(store) == SEEN
    with open_log(store) as log, log.producer(name="till") as till, log.transaction(till) as transaction:
        transaction.send(log["t"], b"new", partition=0)
    assert seen(store) == [*SEEN, b"new"]
    run.good("check", store)


def test_the_aborted_ones_of_a_log_are_read_without_the_store(store: Path) -> None:
    named = [
        struct.unpack_from(">hqqq", path.read_bytes(), at)[1:]
        for path in files(store, ".txnindex")
        for at in range(0, path.stat().st_size, 34)
    ]
    found = [one[1:] for one in derived.aborted_transactions(str(store / "t-0"))]
    assert found == [entry for entry in named if entry in found]
    assert len(found) >= 20
