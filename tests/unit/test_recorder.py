"""Does a recorder write down what was done, whatever happens to the process?"""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from tidelog.errors import Closed, TooLarge
from tidelog.log import Log
from tidelog.log import open as open_log
from tidelog.testing.history import History, Kind, Status
from tidelog.testing.judge import check
from tidelog.testing.recorder import CHUNK_ROWS, Recorder, load
from tidelog.testing.recording import Receiving, Sending, read_to_the_end


def kinds(history: History) -> dict[str, int]:
    return history.counts()


@pytest.fixture(params=["memory", "file"])
def recorder(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return Recorder(None if request.param == "memory" else tmp_path / "run", process="me")


def test_sends_receipts_commits_and_the_end(tide: Log, recorder: Recorder) -> None:
    orders = tide.queue("orders", partitions=2)
    sending = Sending(recorder, orders)
    for number in range(10):
        sending.send(b"%d" % number, key=b"%d" % (number % 3))
    sending.send_many([b"x", b"y"], keys=[b"1", b"2"])
    with Receiving(recorder, orders.consumer, stop="end") as received:
        assert received.receive(timeout=5).key in (b"0", b"1", b"2")
        assert len(received.receive_many(3, timeout=5)) == 3
        assert len(list(received)) == 8
    assert read_to_the_end(recorder, orders) == 12
    history = recorder.history()
    counts = kinds(history)
    assert (counts["send"], counts["poll"], counts["final"]) == (12, 24, 2)
    assert counts["assign"] == counts["revoke"] == 2
    committed = {}
    for row in history.rows[history.rows["kind"] == Kind.COMMIT]:
        committed[int(row["partition"])] = int(row["offset"])
    assert committed == {row.partition: row.offset for row in orders.offsets()}
    sends = history.rows[history.rows["kind"] == Kind.SEND]
    assert (sends["status"] == Status.OK).all() and len(set(sends["value"].tolist())) == 12
    assert set(sends["value"].tolist()) == set(history.rows["value"][history.rows["kind"] == Kind.POLL].tolist())
    check(history, duplicates="exactly-once")
    assert History.parse("\n".join(history.text())).counts() == counts


@pytest.mark.parametrize("delivery", ["at-least-once", "at-most-once", "manual"])
def test_each_delivery_commits_what_is_recorded(tide: Log, delivery: Any) -> None:
    orders = tide.queue("orders", partitions=1)
    recorder = Recorder()
    Sending(recorder, orders).send_many([b"%d" % number for number in range(6)])
    with Receiving(recorder, orders.consumer, delivery=delivery, name=delivery) as received:
        batch = received.receive_many(3, timeout=5)
        if delivery == "manual":
            received.commit(batch[1])
        received.receive(timeout=5)
        if delivery == "manual":
            received.commit()
    rows = recorder.history().rows
    commits = rows["offset"][rows["kind"] == Kind.COMMIT].tolist()
    assert commits == {"at-least-once": [3, 4], "at-most-once": [3, 4], "manual": [2, 4]}[delivery]
    assert [row.offset for row in orders.offsets()] == [4]


def test_what_an_exception_leaves_uncommitted_may_come_again(tide: Log) -> None:
    orders = tide.queue("orders", partitions=1)
    recorder = Recorder()
    Sending(recorder, orders).send_many([b"1", b"2"])
    with pytest.raises(ZeroDivisionError), Receiving(recorder, orders.consumer) as received:
        received.receive_many(2, timeout=5)
        raise ZeroDivisionError
    with Receiving(recorder, orders.consumer) as received:
        assert len(received.receive_many(2, timeout=5)) == 2
    history = recorder.history()
    assert kinds(history)["lost"] == 1
    check(history)


def test_failed_sends(tide: Log) -> None:
    orders = tide.queue("orders", max_message_bytes=1024)
    recorder = Recorder()
    sending = Sending(recorder, orders)
    with pytest.raises(TooLarge):
        sending.send(b"x" * 2000)
    with pytest.raises(TooLarge):
        sending.send_many([b"x" * 2000])
    tide.close()
    with pytest.raises(Closed):
        sending.send(b"x")
    rows = recorder.history().rows
    assert rows["status"].tolist() == [Status.FAIL, Status.INFO, Status.FAIL]


def test_a_lingering_producer(tide: Log, recorder: Recorder) -> None:
    orders = tide.queue("orders", partitions=1)
    with tide.producer(linger=30) as producer:
        sending = Sending(recorder, orders, producer=producer)
        for number in range(5):
            sending.send(b"%d" % number)
        assert (recorder.history().rows["status"] == Status.INFO).all()
        sending.flush()
    read_to_the_end(recorder, orders)
    history = recorder.history()
    assert history.rows["offset"][history.rows["kind"] == Kind.SEND].tolist() == [0, 1, 2, 3, 4]
    check(history, order="partition")


def test_threads_are_clients_of_their_own(tide: Log, recorder: Recorder) -> None:
    orders = tide.queue("orders", partitions=3)
    sending = Sending(recorder, orders)

    def work() -> None:
        for number in range(500):
            sending.send(b"x", key=b"%d" % (number % 7))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    read_to_the_end(recorder, orders)
    history = recorder.history()
    assert len({name for name in history.clients if "orders" in name.name}) == 4
    assert kinds(history)["send"] == 2000
    check(history, order="partition", duplicates="exactly-once")


def test_many_rows_cross_chunks(recorder: Recorder) -> None:
    client = recorder.client("c")
    count = CHUNK_ROWS + 100
    written = recorder.rows(Kind.SEND, count, client=client, value=7, status=0)
    recorder.complete_rows(written, Status.OK, offset=__import__("numpy").arange(count))
    place = recorder.row(Kind.SEND, client)
    recorder.complete(place, Status.FAIL)
    rows = recorder.history().rows
    assert len(rows) == count + 1
    assert rows["offset"][:count].tolist() == list(range(count))


def test_a_killed_process_leaves_its_history(tmp_path: Path) -> None:
    """And says of its last send that nobody knows what became of it."""
    child = os.fork()
    if child == 0:
        try:
            with open_log(tmp_path / "log") as log:
                recorder = Recorder(tmp_path / "child")
                sending = Sending(recorder, log.queue("orders", partitions=1))
                sending.send(b"1")
                recorder.row(Kind.SEND, recorder.client("p"), end=0, value=9, status=Status.INFO)
                os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    with open_log(tmp_path / "log") as log:
        recorder = Recorder(tmp_path / "parent")
        read_to_the_end(recorder, log.queue("orders"))
    history = load(tmp_path)
    sends = history.rows[history.rows["kind"] == Kind.SEND]
    assert sends["status"].tolist() == [Status.OK, Status.INFO]
    check(history)
    with pytest.raises(FileNotFoundError, match="no history"):
        load(tmp_path / "nobody")


def test_identify(tide: Log) -> None:
    orders = tide.queue("orders", int)
    recorder = Recorder()
    sending = Sending(recorder, orders, identify=lambda value: value)
    sending.send(41)
    sending.send_many([42, 43])
    read_to_the_end(recorder, orders, identify=lambda value: value)
    rows = recorder.history().rows
    assert sorted(rows["value"][rows["kind"] == Kind.POLL].tolist()) == [41, 42, 43]
