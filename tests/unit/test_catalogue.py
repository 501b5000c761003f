"""Do channels, definitions and partition slots agree, whatever was cut short, and whoever creates at the same time?"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tidelog._native import Store
from tidelog.errors import ChannelNotFound, Corrupt, StorageFailed
from tidelog.storage import definitions
from tidelog.storage.catalogue import Catalogue
from tidelog.storage.definitions import Definition

LIMITS: dict[str, Any] = {
    "segment_bytes": 1 << 20,
    "segment_ms": 1000,
    "retention_ms": -1,
    "retention_bytes": -1,
    "retention_consumed": False,
    "max_message_bytes": 1 << 20,
}


class Watched:
    """A store that writes down what it is asked, and fails where it is told to."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.calls: list[str] = []
        self.fail_at = ""

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._store, name)
        if not callable(value):
            return value

        def call(*args: Any, **options: Any) -> Any:
            self.calls.append(name)
            if self.fail_at == name:
                raise StorageFailed("the disk is on fire")
            return value(*args, **options)

        return call


@contextmanager
def opened(path: Path, *, unclean: bool = False) -> Iterator[tuple[Catalogue, Watched]]:
    """A catalogue on a store, put in order if this opener has the store for itself."""
    store = Store(str(path), flush_interval_ms=1000, lock_timeout_ms=5000, create=True)
    watched = Watched(store)
    if unclean:
        watched.__dict__["recovery"] = {"clean": False}
    catalogue = Catalogue(watched, segment_ms=3_600_000)  # type: ignore[arg-type]
    try:
        if store.recovered:
            catalogue.settle()
            store.ready()
        watched.calls.clear()
        yield catalogue, watched
    finally:
        store.close()


def make(name: str, **changes: Any) -> Any:
    """What builds the definition of a new channel."""

    def build(channel_id: str, slots: list[int], created_ms: int) -> Definition:
        return Definition(
            id=channel_id,
            local_id=slots[0],
            name=name,
            kind="queue",
            carries="command",
            partitions=slots,
            created_ms=created_ms,
            **changes,
        )

    return build


def create(catalogue: Catalogue, name: str = "orders", partitions: int = 2, **changes: Any) -> Definition:
    return catalogue.create(name, partitions, make(name, **changes))


def slots(store: Any) -> dict[str, tuple[int, str, int]]:
    """directory -> (slot, channel id, partition number)"""
    return {directory: (slot, channel_id.hex(), number) for slot, directory, channel_id, number in store.partitions()}


def agree(catalogue: Catalogue, store: Any) -> None:
    """Every slot belongs to exactly the partition of the definition that names it, and there is no other."""
    wanted = {
        f"{name}-{number}": (slot, catalogue.read(name).id, number)
        for name in catalogue.names()
        for number, slot in enumerate(catalogue.read(name).partitions)
    }
    assert slots(store) == wanted


def test_creating_allocates_first_and_commits_by_the_definition(tmp_path: Path) -> None:
    with opened(tmp_path) as (catalogue, store):
        generation = store.generation
        made = create(catalogue)
        order = ["lock_catalogue", "create_partitions", "bump_generation", "unlock_catalogue"]
        assert [call for call in store.calls if call in order] == order
        assert catalogue.names() == ["orders"]
        assert catalogue.read("orders") == made
        assert definitions.read(tmp_path / "channels", "orders") == made
        assert made.created_ms > 1_700_000_000_000
        assert store.generation != generation
        assert "orders" in catalogue
        assert "other" not in catalogue
        agree(catalogue, store)


def test_creating_what_exists_answers_what_is_there(tmp_path: Path) -> None:
    with opened(tmp_path) as (catalogue, store):
        made = create(catalogue)
        store.calls.clear()
        assert create(catalogue, partitions=7) == made
        assert "create_partitions" not in store.calls
        assert "bump_generation" not in store.calls


def test_what_cannot_be_defined_leaves_no_slots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> None:
        raise StorageFailed("no")

    with opened(tmp_path) as (catalogue, store):
        with monkeypatch.context() as patch:
            patch.setattr(definitions, "write_new", fail)
            with pytest.raises(StorageFailed):
                create(catalogue)
        assert slots(store) == {}
        assert create(catalogue).name == "orders"
        with pytest.raises(ValueError):
            create(catalogue, "bad", segment_bytes=5)
        assert "bad" not in catalogue
        agree(catalogue, store)


def test_the_lock_is_given_back_whatever_happens(tmp_path: Path) -> None:
    with opened(tmp_path) as (catalogue, store):
        store.fail_at = "create_partitions"
        with pytest.raises(StorageFailed):
            create(catalogue)
        assert store.calls.count("lock_catalogue") == store.calls.count("unlock_catalogue") == 1
        store.fail_at = ""
        create(catalogue)


def test_names_that_collide(tmp_path: Path) -> None:
    with opened(tmp_path) as (catalogue, store):
        create(catalogue, "a.b")
        with pytest.raises(ValueError, match="collides"):
            create(catalogue, "a_b")
        agree(catalogue, store)


def test_configuring_tells_file_and_partitions(tmp_path: Path) -> None:
    with opened(tmp_path) as (catalogue, store):
        create(catalogue)
        generation = store.generation
        changed = catalogue.configure("orders", retention_ms=60_000)
        assert catalogue.read("orders") == changed
        assert definitions.read(tmp_path / "channels", "orders").retention_ms == 60_000
        assert store.calls.count("configure_partitions") == 1
        assert store.generation != generation
        with pytest.raises(ChannelNotFound):
            catalogue.configure("nothing", retention_ms=1)
        with pytest.raises(ValueError):
            catalogue.configure("orders", max_message_bytes=0)
        assert catalogue.read("orders") == changed


def test_growing(tmp_path: Path) -> None:
    with opened(tmp_path) as (catalogue, store):
        before = create(catalogue)
        after = catalogue.configure("orders", partitions=5)
        assert after.partitions[:2] == before.partitions
        assert len(set(after.partitions)) == 5
        agree(catalogue, store)
        with pytest.raises(ValueError, match="cannot shrink"):
            catalogue.configure("orders", partitions=4)
    with opened(tmp_path) as (catalogue, store):
        agree(catalogue, store)
        assert len(catalogue.read("orders").partitions) == 5


def test_dropping_commits_by_the_definition(tmp_path: Path) -> None:
    with opened(tmp_path) as (catalogue, store):
        made = create(catalogue)
        create(catalogue, "other")
        store.set_offset("g", bytes.fromhex(made.id), 0, 5)
        catalogue.drop("orders")
        assert catalogue.names() == ["other"]
        assert store.offsets() == []
        assert not (tmp_path / "orders-0").exists()
        agree(catalogue, store)
        with pytest.raises(ChannelNotFound):
            catalogue.drop("orders")
        assert create(catalogue).id != made.id


def test_other_handles_see_changes(tmp_path: Path) -> None:
    with opened(tmp_path) as (one, _), opened(tmp_path) as (two, _):
        made = create(one)
        assert two.read("orders") == made
        two.configure("orders", retention_ms=5)
        assert one.read("orders").retention_ms == 5
        one.drop("orders")
        with pytest.raises(ChannelNotFound):
            two.read("orders")


# --- cut short ---


def half_create(catalogue: Catalogue, store: Any) -> None:
    """Slots, and no definition."""
    store.create_partitions(["orders-0", "orders-1"], bytes.fromhex(definitions.new_id()), **LIMITS)


def half_drop(catalogue: Catalogue, store: Any) -> None:
    """No definition any more, and everything else."""
    made = create(catalogue)
    store.set_offset("g", bytes.fromhex(made.id), 0, 5)
    definitions.remove(Path(store.path) / "channels", "orders")


def half_growth(catalogue: Catalogue, store: Any) -> None:
    """More slots than the definition knows."""
    made = create(catalogue)
    store.create_partitions(["orders-2", "orders-3"], bytes.fromhex(made.id), first_partition=2, **LIMITS)


@pytest.mark.parametrize("half", [half_create, half_drop, half_growth])
def test_the_next_opener_finishes_what_was_cut_short(tmp_path: Path, half: Any) -> None:
    with opened(tmp_path) as (catalogue, store):
        create(catalogue, "other")
        half(catalogue, store)
    with opened(tmp_path, unclean=True) as (catalogue, store):
        agree(catalogue, store)
        assert store.offsets() == []
        assert "other" in catalogue
        create(catalogue)
        catalogue.configure("orders", partitions=4)
        agree(catalogue, store)


@pytest.mark.parametrize("half", [half_create, half_drop])
def test_a_clean_close_keeps_no_slots_without_a_name(tmp_path: Path, half: Any) -> None:
    with opened(tmp_path) as (catalogue, store):
        half(catalogue, store)
    with opened(tmp_path) as (catalogue, store):
        agree(catalogue, store)


@pytest.mark.parametrize("half", [half_create, half_drop, half_growth])
def test_whoever_needs_the_name_does_not_wait_for_an_opener(tmp_path: Path, half: Any) -> None:
    with opened(tmp_path) as (catalogue, store):
        half(catalogue, store)
        create(catalogue)
        catalogue.configure("orders", partitions=4)
        agree(catalogue, store)


def test_temporary_files_are_swept(tmp_path: Path) -> None:
    with opened(tmp_path) as (catalogue, _):
        create(catalogue)
    stray = tmp_path / "channels" / ".tmp-1-abc"
    stray.write_bytes(b"{")
    with opened(tmp_path) as (catalogue, _):
        assert not stray.exists()
        assert catalogue.names() == ["orders"]


@pytest.mark.parametrize("unclean", [False, True])
def test_a_damaged_definition_costs_no_messages(tmp_path: Path, unclean: bool) -> None:
    with opened(tmp_path) as (catalogue, store):
        create(catalogue)
        create(catalogue, "other")
        before = slots(store)
    file = tmp_path / "channels" / "orders.json"
    good = file.read_bytes()
    file.write_bytes(good[:-10])
    with opened(tmp_path, unclean=unclean) as (catalogue, store):
        assert slots(store) == before
        assert catalogue.names() == ["orders", "other"]
        assert "orders" in catalogue
        with pytest.raises(Corrupt, match="orders"):
            catalogue.read("orders")
        with pytest.raises(Corrupt):
            create(catalogue)
    file.write_bytes(good)
    with opened(tmp_path) as (catalogue, store):
        agree(catalogue, store)


def test_a_damaged_channel_can_be_dropped(tmp_path: Path) -> None:
    with opened(tmp_path) as (catalogue, store):
        create(catalogue)
        create(catalogue, "other")
        (tmp_path / "channels" / "orders.json").write_bytes(b"\0")
        store.bump_generation()
        catalogue.drop("orders")
        assert catalogue.names() == ["other"]
        agree(catalogue, store)


def test_what_is_written_on_disk_is_one_json_file_for_a_channel(tmp_path: Path) -> None:
    with opened(tmp_path) as (catalogue, _):
        made = create(catalogue)
    assert msgspec.json.decode((tmp_path / "channels" / "orders.json").read_bytes())["id"] == made.id


def test_of_many_processes_that_create_one_channel_one_wins(tmp_path: Path) -> None:
    code = (
        "import sys, tidelog\n"
        "with tidelog.open(sys.argv[1]) as log:\n"
        "    for number in range(20):\n"
        "        log.queue(f'q{number}', partitions=2).send(sys.argv[2].encode())\n"
    )
    with opened(tmp_path / "x") as (catalogue, store):
        processes = [
            subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "x"), str(number)]) for number in range(3)
        ]
        assert [process.wait(120) for process in processes] == [0, 0, 0]
        assert len(catalogue.names()) == 20
        agree(catalogue, store)
