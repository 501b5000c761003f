"""Does every message arrive once and in order, wait for what is not there yet, and commit what was handed over?"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.stores import CHANNEL_ID, opened, shared
from tidelog import _native as n
from tidelog import errors


def numbered(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


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
        for timeout, given in ((0, 0), (0.0, timedelta(0)), (0.12, 0.12), (0.05, timedelta(milliseconds=50))):
            began = time.monotonic()
            with pytest.raises(errors.Timeout):
                reader.receive(given)
            assert len(reader.receive_many(10, given)) == 0
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
        for call in (
            lambda: reader.receive(10.0).value,
            lambda: next(reader).value,
            lambda: reader.receive_many(5, 10.0)[0].value,
        ):
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
        except BaseException as error:
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


def test_a_blocked_call_can_be_roused(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as log:
        reader = log.reader()
        found: list[int] = []
        thread, raised = blocked(lambda: found.append(len(reader.receive_many(10, 60.0))))
        reader._rouse()
        thread.join(5.0)
        assert not thread.is_alive() and not raised and found == [0]
        reader._rouse()  # nobody waits: the next wait ends
        assert not reader.receive_many(10, 60.0)
        begun = time.monotonic()
        assert not reader.receive_many(10, 0.2) and time.monotonic() - begun >= 0.2, "once"
        log.sender().send(b"a")
        reader._rouse()
        assert [message.raw for message in reader.receive_many(10, 60.0)] == [b"a"], (
            "what is there is handed over all the same"
        )
        reader._cancel()
        with pytest.raises(errors.Closed):
            reader.receive_many(1, 60.0)


def test_a_second_thread_is_refused_by_name(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as log:
        reader = log.reader()
        thread, raised = blocked(lambda: reader.receive(10.0))
        for call in (
            lambda: next(reader),
            lambda: reader.receive(0.0),
            lambda: reader._seek(0, 0),
            lambda: reader.commit(),
        ):
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


@pytest.mark.parametrize("type_", [None, str])
def test_what_somebody_has_is_never_written_over(tmp_path: Path, type_: Any) -> None:
    """A reader fills its last chunk again only when no message, batch or slice of one refers to it."""
    with opened(tmp_path / "s", 2, type_) as log:
        sender, reader = log.sender(), log.reader()
        held: list[tuple[Any, bytes]] = []
        for number in range(300):
            raw = b"%d" % number * (1 + number % 50)
            sender.send(
                raw if type_ is None else raw.decode(), key=b"%d" % number, headers={"n": raw}, timestamp=number
            )
            if number % 7 == 3:
                batch = reader.receive_many(1, 5.0)
                message: Any = batch[0]
                held.append((batch[0:1], raw))
            else:
                message = reader.receive(5.0)
            assert message.raw == raw and message.headers["n"] == raw and message.timestamp_ms == number * 1000
            if number % 3 == 0:
                held.append((message, raw))
            del message
        for kept, raw in held:
            one = kept if isinstance(kept, n.Message) else kept[0]
            assert one.raw == raw and one.headers["n"] == raw and one.value == (raw if type_ is None else raw.decode())


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


# --- life ---


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
                except BaseException:
                    outcome = place + 101
            os._exit(outcome)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert next(reader).value == b"1"
        assert sender.send(b"x").offset == 10
