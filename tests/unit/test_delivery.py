"""Is what was handed over committed when the delivery rule says so, by one consumer of a group at a time?"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest

from tests.unit.stores import CHANNEL_ID, Opened, opened, shared
from tidelog import errors


def numbered(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


def committed(log: Opened, group: str = "g") -> list[int | None]:
    return [log.store.committed(group, CHANNEL_ID, number) for number in range(len(log.parts))]


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
        for call in (
            lambda: reader.commit(message),
            lambda: reader.commit(),
            lambda: reader._commit(0, 1),
            lambda: reader._claim(0.0),
        ):
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
        child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
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
