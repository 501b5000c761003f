"""Does a Membership say who belongs to a group, store plans for the right version, and end when it should?"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tidelog import errors
from tidelog._native import Membership, Store

CHANNEL = bytes(range(16))


def opened(path: Path, look: bool = False) -> Store:
    store = Store(str(path / "store"), flush_interval_ms=1000, lock_timeout_ms=3000, create=True, look=look)
    if store.recovered:
        store.ready()
    return store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = opened(tmp_path)
    yield store
    store.close()


def join(store: Store, name: str | None = None, *, group: str = "g", **more: Any) -> Membership:
    options: dict[str, Any] = {"channels": [3], "strategy": "sticky", "max_processing": None, "away": 10.0, **more}
    return Membership(store, group, name=name, **options)


def slots_of(store: Store, count: int = 4, group: str = "g") -> list[int]:
    return [store.offset_slot(group, CHANNEL, partition, True) for partition in range(count)]


def test_members_are_listed_in_the_order_they_joined(store: Store) -> None:
    first, second = join(store), join(store, "till-3", channels=[1, 2], strategy="range")
    assert first.view() == (first.version, first.members())
    assert first.members() == [
        (first.index, first.id, os.getpid(), None, "sticky", (3,), False),
        (second.index, second.id, os.getpid(), "till-3", "range", (1, 2), False),
    ]
    assert store.group_members("g") == (first.version, 0, second.members())
    assert store.group_members("nobody's") == (0, 0, [])
    assert first.id != second.id and first.active and not first.fenced

    version, turn = second.version, second.turn
    first.leave()
    first.leave()
    assert [first.active, first.fenced, second.active] == [False, False, True]
    assert second.version > version and second.turn != turn
    assert [member[1] for member in second.members()] == [second.id]


def test_a_plan_counts_for_one_version(store: Store) -> None:
    first = join(store)
    slots = slots_of(store)
    assert first.targets(slots) == [-1] * 4
    assert first.install(first.version, slots, [first.index] * 4)
    assert first.assigned == first.version and first.targets(slots) == [first.index] * 4
    second = join(store)
    assert first.assigned != first.version
    assert not second.install(first.version - 1, slots, [second.index] * 4)
    assert first.targets(slots) == [first.index] * 4
    assert second.install(version=second.version, slots=slots, members=[first.index, -1, second.index, second.index])
    assert first.targets(slots) == [first.index, -1, second.index, second.index]
    with pytest.raises(ValueError, match="another group"):
        first.install(first.version, slots_of(store, group="h"), [0] * 4)
    with pytest.raises(ValueError, match="3 members for 4 slots"):
        first.install(first.version, slots, [0] * 3)
    with pytest.raises(ValueError, match="no member"):
        first.install(first.version, slots, [512] * 4)
    first.leave()
    with pytest.raises(errors.Fenced):
        first.install(second.version, slots, [second.index] * 4)


def test_a_name_keeps_its_place(store: Store) -> None:
    other, older = join(store), join(store, "till")
    slots = slots_of(store)
    assert other.install(other.version, slots, [older.index] * 4)
    newer = join(store, "till")
    assert (newer.index, other.assigned) == (older.index, other.version) and newer.id != older.id
    assert older.fenced and not older.active and newer.active and not newer.fenced
    newer.leave(keep=True)
    assert [(member[3], member[6]) for member in other.members()] == [(None, False), ("till", True)]
    assert other.assigned == other.version
    back = join(store, "till")
    assert back.index == older.index and other.assigned == other.version
    del back  # as a consumer that is never closed
    assert [member[6] for member in other.members()] == [False, True]


def test_away_for_too_long(store: Store) -> None:
    other, named = join(store), join(store, "till", away=0.05)
    version = other.version
    named.leave(keep=True)
    deadline = time.monotonic() + 10
    while len(other.members()) == 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
        other.sweep()
    assert other.version > version


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": ""}, "1 to 96 bytes"),
        ({"name": "n" * 97}, "1 to 96 bytes"),
        ({"channels": []}, "1 to 64 channels"),
        ({"channels": range(65)}, "1 to 64 channels"),
        ({"strategy": ""}, "1 to 23 bytes"),
        ({"strategy": "s" * 24}, "1 to 23 bytes"),
        ({"group": ""}, "1 to 1024 bytes"),
        ({"away": -1.0}, "0 or more seconds"),
    ],
)
def test_options_no_member_may_have(store: Store, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        join(store, **options)
    assert store.group_members("g")[2] == []


def test_a_full_table_says_so(store: Store) -> None:
    members = [join(store) for _ in range(512)]
    with pytest.raises(errors.Full, match="512 members"):
        join(store)
    members.pop().leave()
    assert len(join(store).members()) == 512


def test_after_close(store: Store) -> None:
    member = join(store)
    store.close()
    assert not member.active
    member.leave()
    for use in (
        member.view,
        member.sweep,
        lambda: member.version,
        lambda: join(store),
        lambda: store.group_members("g"),
    ):
        with pytest.raises(errors.Closed):
            use()


def test_slots_that_are_not_there(store: Store) -> None:
    assert store.offset_slot("g", CHANNEL, 7, False) == -1
    slot = store.offset_slot("g", CHANNEL, 7, True)
    assert store.offset_slot("g", CHANNEL, 7, False) == slot
    member = join(store)
    assert member.install(member.version, [slot], [member.index])
    store.lock_catalogue()
    store.forget_channel(CHANNEL)
    store.unlock_catalogue()
    with pytest.raises(errors.ChannelNotFound):
        member.targets([slot])
    with pytest.raises(errors.ChannelNotFound):
        member.install(member.version, [slot], [member.index])


CHILD = """
import sys, time
from tidelog._native import Membership, Store
store = Store(sys.argv[1], flush_interval_ms=1000, lock_timeout_ms=3000, create=False, look=sys.argv[2] == "look")
if sys.argv[2] == "look":
    print(store.group_members("g"))
else:
    member = Membership(store, "g", channels=[3], name=None, strategy="sticky", max_processing=None, away=10.0)
    print(member.id, flush=True)
    time.sleep(60)
"""


def child(store: Store, what: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", CHILD, store.path, what], stdout=subprocess.PIPE, text=True)


def test_another_process_joins_and_dies(store: Store) -> None:
    member = join(store)
    with child(store, "join") as process:
        assert process.stdout is not None
        theirs = int(process.stdout.readline())
        assert [(entry[1], entry[2]) for entry in member.members()] == [(member.id, os.getpid()), (theirs, process.pid)]
        version = member.version
        process.kill()
        deadline = time.monotonic() + 10
        while member.version == version:  # nobody asks: the store's own thread notices
            assert time.monotonic() < deadline
            time.sleep(0.001)
    assert [entry[1] for entry in member.members()] == [member.id]


def test_one_who_only_looks_sees_them(store: Store) -> None:
    member = join(store, "till")
    with child(store, "look") as process:
        assert process.stdout is not None
        assert process.stdout.read().strip() == repr(store.group_members("g"))
    assert member.active
