"""Does every message arrive once and in order, wait for what is not there yet, and commit what was handed over?"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.stores import CHANNEL_ID, Opened, opened, shared
from tidelog import _native as n
from tidelog import errors


def numbered(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


def committed(log: Opened, group: str = "g") -> list[int | None]:
    return [log.store.committed(group, CHANNEL_ID, number) for number in range(len(log.parts))]


# --- order and completeness ---


@pytest.mark.parametrize("codec", [0, 3])
@pytest.mark.parametrize("how", ["next", "receive", "1", "7", "1000", "100000"])
def test_every_message_arrives_once_and_in_order(tmp_path: Path, how: str, codec: int) -> None:
    with opened(tmp_path / "s", 3) as log:
        sender = log.sender(codec)
        for at in range(300):
            sender.send(b"%d" % at, key=b"%d" % at)
        sender.send_many(numbered(5000), keys=numbered(5000))
        reader = log.drained()
        got: list[n.Message[bytes]] = []
        if how == "next":
            got = list(reader)
        elif how == "receive":
            while len(got) < 5300:
                got.append(reader.receive(5.0))
        else:
            while len(batch := reader.receive_many(int(how), 5.0)):
                assert len(batch) <= int(how)
                got.extend(batch)
        assert len(got) == 5300
        for number in range(3):
            offsets = [message.offset for message in got if message.partition == number]
            assert offsets == list(range(len(offsets)))
            assert len(offsets) == log.parts[number].bounds()[1]
        assert sorted(int(message.value) for message in got) == sorted([*range(300), *range(5000)])


def test_partitions_take_turns(tmp_path: Path) -> None:
    with opened(tmp_path / "s", 4) as log:
        for number in range(4):
            log.sender().send_many([bytes(1000)] * 2000, partition=number)
        reader = log.drained()
        turns: list[int] = []
        while len(batch := reader.receive_many(500, 5.0)):
            turns += [number for number in batch.partitions.tolist() if not turns or turns[-1] != number]
        assert len(turns) >= 8, "a partition with much to read must not keep the others waiting to its end"


def test_several_channels_in_one_reader(tmp_path: Path) -> None:
    with opened(tmp_path / "s", 2) as log:
        log.store.lock_catalogue()
        slots = log.store.create_partitions(
            ["other-0"],
            b"o" * 16,
            segment_bytes=1 << 20,
            segment_ms=-1,
            retention_ms=-1,
            retention_bytes=-1,
            retention_consumed=False,
            max_message_bytes=1000,
        )
        log.store.unlock_catalogue()
        other, text = log.store.partition(slots[0], b"o" * 16), shared(str, name="other", kind="queue")
        sender = n.Sender()
        sender._attach(log.store, [other], text, synced=False, partitioner=None, compress=None, codec_id=0)
        sender.send_many(["eins", "zwei"])
        log.sender().send(b"one", partition=1)
        reader = n.Reader()
        reader._attach(
            log.store,
            [(log.parts[0], 0, log.shared), (log.parts[1], 1, log.shared), (other, 0, text)],
            group="g",
            channel_ids=[CHANNEL_ID, CHANNEL_ID, b"o" * 16],
            mode="manual",
            uncommitted=False,
            busy_poll=0.0,
            max_bytes=1 << 20,
        )
        assert reader._claim(0.0) == [None, None, None]
        batch = reader.receive_many(100, 5.0)
        found = {(message.channel, message.partition, message.value, message.kind) for message in batch}
        assert found == {("ch", 1, b"one", "event"), ("other", 0, "eins", "command"), ("other", 0, "zwei", "command")}
        assert sorted(map(str, batch.values)) == ["b'one'", "eins", "zwei"]
        reader.commit(batch)
        assert [reader._committed(index) for index in range(3)] == [None, 1, 2]


# --- waiting ---


def test_time_outs(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as log:
        reader = log.reader()
        for timeout in (0, 0.0, 0.12):
            began = time.monotonic()
            with pytest.raises(errors.Timeout):
                reader.receive(timeout)
            assert len(reader.receive_many(10, timeout)) == 0
            assert 2 * timeout <= time.monotonic() - began < 2 * timeout + 1
        for wrong in (-1, float("nan")):
            with pytest.raises(ValueError, match="timeout"):
                reader.receive(wrong)
        with pytest.raises(TypeError):
            reader.receive("1")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="count"):
            reader.receive_many(0)


def test_a_blocked_call_wakes_for_a_message(tmp_path: Path) -> None:
    with opened(tmp_path / "s", 2) as log:
        reader = log.reader()
        for call in (lambda: reader.receive(10.0).value, lambda: next(reader).value, lambda: reader.receive_many(5, 10.0)[0].value):
            timer = threading.Timer(0.1, lambda: log.sender().send(b"late", partition=1))
            began = time.monotonic()
            timer.start()
            assert call() == b"late"
            assert 0.05 < time.monotonic() - began < 5
            timer.join()


def blocked(call: Callable[[], Any]) -> tuple[threading.Thread, list[BaseException]]:
    raised: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001
            raised.append(error)

    thread = threading.Thread(target=run, name="the blocked one")
    thread.start()
    time.sleep(0.1)
    assert thread.is_alive()
    return thread, raised


@pytest.mark.parametrize("how", ["cancel", "close"])
def test_a_blocked_call_wakes_for_a_close(tmp_path: Path, how: str) -> None:
    with opened(tmp_path / "s") as log:
        reader = log.reader()
        thread, raised = blocked(lambda: next(reader))
        if how == "cancel":
            reader._cancel()
        else:
            log.store.close()
        thread.join(5.0)
        assert not thread.is_alive()
        assert [type(error) for error in raised] == [errors.Closed]
        with pytest.raises(errors.Closed):
            next(reader)
        with pytest.raises(errors.Closed):
            reader.receive_many(1, 0.0)


def test_a_second_thread_is_refused_by_name(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as log:
        reader = log.reader()
        thread, raised = blocked(lambda: reader.receive(10.0))
        for call in (lambda: next(reader), lambda: reader.receive(0.0), lambda: reader._seek(0, 0), lambda: reader.commit()):
            with pytest.raises(RuntimeError, match=r"'the blocked one' is inside .* 'MainThread'"):
                call()
        reader._cancel()
        thread.join(5.0)
        assert len(raised) == 1


def test_a_signal_interrupts_a_blocked_call(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as log:
        reader = log.reader()
        timer = threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            reader.receive(10.0)
        timer.join()
        log.sender().send(b"after")
        assert reader.receive(5.0).value == b"after"


# --- where it stands ---


def test_seek_and_position(tmp_path: Path) -> None:
    with opened(tmp_path / "s", 2) as log:
        for number in range(2):
            log.sender().send_many(numbered(1000), partition=number)
        reader = log.reader()
        assert [reader._position(index) for index in range(2)] == [0, 0]
        first = [next(reader) for _ in range(10)]
        number = first[0].partition
        assert {message.partition for message in first} == {number}
        assert reader._position(number) == 10 and reader._position(1 - number) == 0
        reader._seek(1 - number, 995)
        assert reader._position(number) == 10 and reader._position(1 - number) == 995
        rest = reader.receive_many(5000, 5.0)
        while len(batch := reader.receive_many(5000, 0.0)):
            rest = [*rest, *batch]
        assert sorted((message.partition, message.offset) for message in rest) == sorted(
            [(number, offset) for offset in range(10, 1000)] + [(1 - number, offset) for offset in range(995, 1000)]
        )
        assert [reader._position(index) for index in range(2)] == [1000, 1000]
        reader._seek(0, 500)
        assert next(reader).offset == 500
        with pytest.raises(ValueError, match="negative"):
            reader._seek(0, -1)
        with pytest.raises(IndexError):
            reader._seek(2, 0)
        with pytest.raises(IndexError):
            reader._position(-1)


def test_stop_ends_iteration_exactly_there(tmp_path: Path) -> None:
    with opened(tmp_path / "s", 2) as log:
        for number in range(2):
            log.sender().send_many(numbered(1000), partition=number)
        reader = log.reader()
        reader._stop_at([17, 0])
        assert [(message.partition, message.offset) for message in reader] == [(0, offset) for offset in range(17)]
        assert list(reader) == []
        with pytest.raises(errors.Timeout, match="stop"):
            reader.receive()
        assert len(reader.receive_many(10)) == 0
        assert reader._position(0) == 17
        reader._stop_at([20, 3])
        assert len(reader.receive_many(1000, 5.0)) + len(reader.receive_many(1000, 5.0)) == 6
        reader._stop_at(None)
        assert reader.receive(5.0).offset in (3, 20)
        with pytest.raises(ValueError, match="ends"):
            reader._stop_at([1])


def test_paused_partitions_hand_over_nothing(tmp_path: Path) -> None:
    with opened(tmp_path / "s", 2) as log:
        for number in range(2):
            log.sender().send_many(numbered(100), partition=number)
        reader = log.reader()
        taken = next(reader)
        reader._pause(taken.partition, True)
        others = [*reader.receive_many(1000, 5.0)]
        assert {message.partition for message in others} == {1 - taken.partition} and len(others) == 100
        assert len(reader.receive_many(10, 0.05)) == 0
        reader._pause(taken.partition, False)
        assert [message.offset for message in reader.receive_many(1000, 5.0)] == list(range(1, 100))


def test_below_the_log_start_is_an_error_once(tmp_path: Path) -> None:
    with opened(tmp_path / "s", segment_bytes=1 << 16) as log:
        for _ in range(40):
            log.sender().send_many([bytes(1000)] * 100)
        log.parts[0].trim(2000)
        start, end = log.parts[0].bounds()
        assert start == 2000
        for receive in (lambda reader: reader.receive(5.0), lambda reader: reader.receive_many(1, 5.0)[0], next):
            reader = log.reader()
            with pytest.raises(errors.OffsetOutOfRange, match=rf"no offset 0 .*\[2000, {end}\)"):
                receive(reader)
            assert receive(reader).offset == 2000
        reader = log.reader()
        reader._seek(0, end + 1)
        with pytest.raises(errors.OffsetOutOfRange):
            reader.receive(5.0)


def test_random_access_and_search_by_time(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as log:
        log.sender().send_many(numbered(3000), timestamp=[float(at // 10) for at in range(3000)])
        log.sender(1).send_many(numbered(3000), timestamp=[float(at // 10 + 300) for at in range(3000)])
        wanted = np.random.default_rng(3).integers(0, 6000, 500)
        batch = log.parts[0].read_at(wanted, log.shared, 9)
        assert batch.offsets.tolist() == wanted.tolist() and set(batch.partitions.tolist()) == {9}
        assert batch.values == [b"%d" % (offset % 3000) for offset in wanted]
        for wrong in (-1, 6000):
            with pytest.raises(errors.OffsetOutOfRange, match=f"offset {wrong}, "):
                log.parts[0].read_at(np.array([5, wrong]), log.shared, 0)
        assert len(log.parts[0].read_at(np.array([], "i8"), log.shared, 0)) == 0
        times = np.array([0, 1, 1000, 299_000, 300_000, 599_000, 600_000])
        found = log.parts[0].find(times, lambda codec, data: __import__("zlib").decompress(data, wbits=31))
        assert found.tolist() == [0, 10, 10, 2990, 3000, 5990, 6000]


# --- delivery ---


def test_at_least_once_commits_when_the_next_is_asked_for(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as log:
        log.sender().send_many(numbered(100))
        reader = log.reader("at-least-once", "g")
        assert committed(log) == [None]
        next(reader)
        assert committed(log) == [None]
        next(reader)
        assert committed(log) == [1]
        reader.receive(1.0)
        assert committed(log) == [2]
        batch = reader.receive_many(10, 1.0)
        assert committed(log) == [3] and batch.ends() == {0: 13}
        reader._settle()
        assert committed(log) == [13]
        next(reader)
        reader._release()
        again = log.reader("at-least-once", "g")
        assert next(again).offset == 13


def test_at_most_once_commits_before_handing_over(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as log:
        log.sender().send_many(numbered(100))
        reader = log.reader("at-most-once", "g")
        for offset in range(3):
            assert next(reader).offset == offset
            assert committed(log) == [offset + 1]
        assert reader.receive_many(7, 1.0).ends() == {0: 10}
        assert committed(log) == [10]


def test_manual_commits_only_by_commit(tmp_path: Path) -> None:
    with opened(tmp_path / "s", 2) as log:
        for number in range(2):
            log.sender().send_many(numbered(100), partition=number)
        reader = log.reader("manual", "g")
        messages = [next(reader) for _ in range(5)]
        number = messages[0].partition
        reader._settle()
        assert committed(log) == [None, None]
        reader.commit(messages[2])
        assert committed(log)[number] == 3
        reader.commit()
        assert committed(log)[number] == 5
        seen = reader.receive_many(1000, 5.0)
        reader.commit(seen[:3][::-1], level="synced")
        assert committed(log)[number] == 8
        reader._commit(1 - number, 42)
        assert committed(log)[1 - number] == 42 == reader._committed(1 - number)
        foreign = log.parts[number].read_at(np.array([50, 60]), log.shared, number)
        reader.commit(foreign)
        assert committed(log)[number] == 61
        reader.commit(foreign[0])
        assert committed(log)[number] == 51
        with pytest.raises(TypeError, match="Message"):
            reader.commit(5)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="level"):
            reader.commit(level="replicated")
        with pytest.raises(ValueError, match="does not read"):
            reader.commit(log.parts[0].read_at(np.array([1]), shared(name="elsewhere"), 0))


def test_a_seek_back_does_not_commit_what_came_before(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as log:
        log.sender().send_many(numbered(100))
        reader = log.reader("at-least-once", "g")
        for _ in range(10):
            next(reader)
        reader._seek(0, 2)
        assert next(reader).offset == 2
        assert committed(log) == [9]
        next(reader)
        assert committed(log) == [3]


def test_a_reader_without_a_group_commits_nothing(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as log:
        log.sender().send_many(numbered(10))
        reader = log.reader()
        message = next(reader)
        reader._settle()
        for call in (lambda: reader.commit(message), lambda: reader.commit(), lambda: reader._commit(0, 1), lambda: reader._claim(0.0)):
            with pytest.raises(ValueError, match="group"):
                call()
        assert log.store.offsets() == []
        with pytest.raises(ValueError, match="mode"):
            log.reader("exactly-once", "g")
        with pytest.raises(ValueError, match="group"):
            log.reader("manual", None)


def test_a_partition_of_a_group_has_one_consumer(tmp_path: Path) -> None:
    with opened(tmp_path / "s", 2) as log:
        first = log.reader("manual", "g")
        second = log.reader("manual", "g", claim=False)
        with pytest.raises(errors.Locked, match=r"partition 0 of 'ch' .* group 'g'") as caught:
            second._claim(0.1)
        assert str(os.getpid()) in caught.value.holder
        log.reader("manual", "another group")
        threading.Timer(0.2, first._release).start()
        assert second._claim(10.0) == [None, None]
        first._commit  # noqa: B018
        with pytest.raises(ValueError, match="claimed"):
            first._commit(0, 1)
        second._commit(0, 5)
        with pytest.raises(errors.Locked):
            log.store.set_offset("g", CHANNEL_ID, 0, 3)
        log.store.set_offset("g", CHANNEL_ID, 0, 3, force=True)
        assert second._committed(0) == 3
        del second, first
        assert log.reader("manual", "g")._claim(0.0) == [3, None]


def test_the_lease_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with opened(path) as log:
        log.sender().send_many(numbered(10))
        code = f"""
            import os, sys
            sys.path[:0] = {sys.path!r}
            from pathlib import Path
            from tests.unit.stores import Opened
            log = Opened(Path({str(path)!r}))
            reader = log.reader("at-least-once", "g")
            next(reader), next(reader), next(reader)
            print("ready", flush=True)
            sys.stdin.read()
            os._exit(1)
        """
        child = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert child.stdin is not None and child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        reader = log.reader("at-least-once", "g", claim=False)
        with pytest.raises(errors.Locked, match=f"process {child.pid}"):
            reader._claim(0.0)
        (row,) = log.store.offsets()
        assert (row[0], row[1], row[2], row[3], row[5]) == ("g", CHANNEL_ID, 0, 2, child.pid)
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()
        assert reader._claim(5.0) == [2]
        reader._seek(0, 2)
        assert next(reader).value == b"2"


def test_a_lost_lease_fences_commits(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as log:
        log.sender().send_many(numbered(100))
        reader = log.reader("at-least-once", "g")
        next(reader)
        log.store.lock_catalogue()
        log.store.forget_group("g")
        log.store.unlock_catalogue()
        with pytest.raises(errors.Error):
            next(reader)
        assert log.store.committed("g", CHANNEL_ID, 0) is None
        assert log.store.offsets() == []


def test_committed_offsets_survive_closing(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as log:
        log.sender().send_many(numbered(100))
        reader = log.reader("at-least-once", "g")
        reader.receive_many(40, 1.0)
        reader._settle()
        reader._release()
    with opened(tmp_path / "s") as log:
        assert committed(log) == [40]
        assert next(log.reader("at-least-once", "g")).value == b"40"


def test_an_unattached_reader_says_so() -> None:
    for call in (lambda: next(n.Reader()), lambda: n.Reader().receive(0.0), lambda: n.Reader().commit()):
        with pytest.raises(TypeError, match="not attached"):
            call()
    n.Reader()._release()
    n.Reader()._cancel()


def test_handles_of_a_parent_are_refused_in_a_child(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as log:
        sender, reader = log.sender(), log.reader("at-least-once", "g")
        sender.send_many(numbered(10))
        next(reader)
        pid = os.fork()
        if pid == 0:
            outcome = 0
            calls: list[Callable[[], Any]] = [
                lambda: sender.send(b"x"),
                lambda: sender.send_many([b"x"] * 2000),
                lambda: next(reader),
                lambda: reader.receive_many(5, 0.0),
                lambda: log.parts[0].bounds(),
                lambda: log.store.sync(),
            ]
            for place, call in enumerate(calls):
                try:
                    call()
                    outcome = place + 1
                except errors.Forked:
                    pass
                except BaseException:  # noqa: BLE001
                    outcome = place + 101
            os._exit(outcome)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert next(reader).value == b"1"
        assert sender.send(b"x").offset == 10
