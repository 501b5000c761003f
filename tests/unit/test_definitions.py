"""Do channel definitions come back as written, is creating atomic among processes, and are hostile files refused?"""

from __future__ import annotations

import errno
import multiprocessing
import os
import random
import stat
import uuid
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidelog.codec import codec_for
from tidelog.errors import ChannelNotFound, Corrupt, Error, NoSpace, NotSupported, SchemaMismatch, StorageFailed
from tidelog.storage import definitions as d

FULL: dict[str, Any] = {
    "id": "0123456789abcdef0123456789abcdef",
    "local_id": 3,
    "name": "orders",
    "kind": "queue",
    "carries": "command",
    "type": "Tick",
    "codec": "dtype",
    "dtype": [["sym", "|S8"], ["px", "<f8"]],
    "schema": {"type": "object", "text": "é"},
    "reply": d.Reply(type="Quote", codec="json", schema={"type": "object"}),
    "retention_ms": 1000,
    "retention_bytes": 10**12,
    "retention_consumed": True,
    "max_message_bytes": 256 << 20,
    "segment_bytes": 1 << 20,
    "compression": "zstd",
    "partitions": [7, 0, 4_000_000_000],
    "created_ms": 1_700_000_000_000,
}


def definition(**changes: Any) -> d.Definition:
    return d.Definition(**{**FULL, **changes})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "channels"


def test_what_is_written_comes_back(folder: Path) -> None:
    d.write_new(folder, definition())
    assert d.read(folder, "orders") == definition()
    assert d.read(str(folder), "orders").format == 1
    plain = d.Definition(
        id=d.new_id(), local_id=0, name="a.b", kind="topic", carries="event", partitions=[0], created_ms=0
    )
    d.write_new(folder, plain)
    assert d.read(folder, "a.b") == plain
    assert (plain.codec, plain.retention_ms, plain.max_message_bytes) == ("raw", -1, 16 << 20)
    assert d.names(folder) == ["a.b", "orders"]
    assert sorted(os.listdir(folder)) == ["a.b.json", "orders.json"]
    assert stat.S_IMODE((folder / "orders.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_the_longest_name(folder: Path) -> None:
    d.write_new(folder, definition(name="x" * 249))
    assert d.names(folder) == ["x" * 249]


def test_creating_twice_and_replacing(folder: Path) -> None:
    d.write_new(folder, definition())
    with pytest.raises(FileExistsError, match="the channel 'orders' exists already") as caught:
        d.write_new(folder, definition(local_id=9))
    assert caught.value.errno == errno.EEXIST
    assert caught.value.filename == str(folder / "orders.json")
    assert d.read(folder, "orders").local_id == 3
    d.replace(folder, definition(local_id=9))
    assert d.read(folder, "orders").local_id == 9
    assert os.listdir(folder) == ["orders.json"]


def test_removing(folder: Path) -> None:
    d.write_new(folder, definition())
    d.remove(folder, "orders")
    assert d.names(folder) == []
    for call in (d.read, d.remove):
        with pytest.raises(ChannelNotFound, match="there is no channel 'orders': create it"):
            call(folder, "orders")
    with pytest.raises(ChannelNotFound):
        d.replace(folder, definition())
    d.write_new(folder, definition(local_id=4))
    assert d.read(folder, "orders").local_id == 4


def test_looking_creates_nothing(folder: Path) -> None:
    assert d.names(folder) == []
    assert d.sweep(folder) == 0
    for call in (d.read, d.remove):
        with pytest.raises(ChannelNotFound):
            call(folder, "orders")
    with pytest.raises(ChannelNotFound):
        d.replace(folder, definition())
    assert not folder.exists()


def test_names_passes_over_what_is_no_definition(folder: Path) -> None:
    folder.mkdir()
    for name in ("a.json", ".tmp-1-2", "b.json~", "..json", "bad name.json", ".deleted.json", ".tmp-x.json", "c"):
        (folder / name).touch()
    assert d.names(folder) == [".tmp-x", "a"]
    assert d.sweep(folder) == 1
    assert not (folder / ".tmp-1-2").exists()
    assert (folder / ".tmp-x.json").exists()


@pytest.mark.parametrize("name", ["../orders", "a/b", "", ".", "a\0", ".deleted"])
def test_names_that_leave_the_directory(folder: Path, name: str) -> None:
    for call in (d.read, d.remove):
        with pytest.raises(ValueError, match="channel|reserved"):
            call(folder, name)
    with pytest.raises(ValueError, match="channel|reserved"):
        d.write_new(folder, definition(name=name))


WRONG: list[dict[str, Any]] = [
    {"id": "0" * 31}, {"id": "Z" * 32}, {"local_id": -1}, {"local_id": 2**32}, {"kind": "stack"}, {"carries": "x"},
    {"codec": "pickle"}, {"codec": "json"}, {"dtype": None}, {"dtype": [["a", "|O"]]}, {"retention_ms": -2},
    {"max_message_bytes": 0}, {"max_message_bytes": (256 << 20) + 1}, {"segment_bytes": 1 << 31}, {"partitions": []},
    {"partitions": [1, 1]}, {"partitions": [-1]}, {"created_ms": -1}, {"compression": "lzma"}, {"format": 0},
    {"reply": {"type": "x", "codec": "dtype"}}, {"reply": {"type": "x", "more": 1}}, {"name": "other"}, {"more": 1},
    {"retention_consumed": 1}, {"schema": []}, {"format": "1"},
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_fields_are_refused_both_ways(folder: Path, wrong: dict[str, Any]) -> None:
    if "more" not in wrong and wrong != {"name": "other"}:
        with pytest.raises(ValueError, match="is wrong"):
            d.write_new(folder, definition(**wrong))
    assert d.names(folder) == []
    folder.mkdir(exist_ok=True)
    text = msgspec.to_builtins(definition()) | wrong
    (folder / "orders.json").write_bytes(msgspec.json.encode(text))
    with pytest.raises(Corrupt) as caught:
        d.read(folder, "orders")
    assert caught.value.file == str(folder / "orders.json")
    assert caught.value.command == f"tidelog check {folder.parent} --repair"


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b"{}", bytes(5 << 20)])
def test_damaged_files(folder: Path, data: bytes) -> None:
    folder.mkdir()
    (folder / "orders.json").write_bytes(data)
    with pytest.raises(Corrupt, match="tidelog check"):
        d.read(folder, "orders")


def test_every_cut_and_many_flips_are_a_definition_or_corrupt(folder: Path) -> None:
    d.write_new(folder, definition())
    path = folder / "orders.json"
    good = path.read_bytes()
    for length in range(len(good) - 1):
        path.write_bytes(good[:length])
        with pytest.raises(Corrupt):
            d.read(folder, "orders")
    rng = random.Random(5)
    refused = 0
    for _ in range(2000):
        flipped = bytearray(good)
        flipped[rng.randrange(len(good))] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        try:
            assert d.read(folder, "orders").name == "orders"
        except (Corrupt, NotSupported):
            refused += 1
    assert refused > 500


@settings(max_examples=200)
@given(st.binary(max_size=300))
def test_any_bytes_are_a_typed_error(data: bytes) -> None:
    with pytest.raises((Corrupt, NotSupported)):
        d._parse(data, "orders", "orders.json")


def test_a_newer_format_is_refused_with_advice(folder: Path) -> None:
    folder.mkdir()
    (folder / "orders.json").write_bytes(b'{"format": 2, "name": {"new": "shape"}, "unknown": 1}')
    with pytest.raises(NotSupported, match=r"newer tidelog \(format 2, this one knows 1\): upgrade"):
        d.read(folder, "orders")


def test_links_and_other_kinds_of_files_are_refused(folder: Path, tmp_path: Path) -> None:
    d.write_new(folder, definition())
    (folder / "orders.json").rename(tmp_path / "elsewhere")
    (folder / "orders.json").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageFailed, match="symbolic link"):
        d.read(folder, "orders")
    (folder / "orders.json").unlink()
    os.mkfifo(folder / "orders.json")
    with pytest.raises(Corrupt, match="no regular file"):
        d.read(folder, "orders")
    (folder / "orders.json").unlink()
    (folder / "orders.json").mkdir()
    with pytest.raises(Corrupt, match="no regular file"):
        d.read(folder, "orders")
    link = tmp_path / "link"
    link.symlink_to(folder)
    for call in (lambda: d.names(link), lambda: d.write_new(link, definition(name="b"))):
        with pytest.raises(StorageFailed):
            call()


def test_a_missing_store_is_no_missing_channel(tmp_path: Path) -> None:
    with pytest.raises(StorageFailed, match="check the path"):
        d.write_new(tmp_path / "no" / "channels", definition())


@pytest.mark.parametrize("call", ["write", "fsync", "link", "rename", "open"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_failed_system_calls(folder: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int) -> None:
    d.write_new(folder, definition())

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(NoSpace if number == errno.ENOSPC else StorageFailed) as caught:
            d.replace(folder, definition(local_id=9)) if call == "rename" else d.write_new(folder, definition(name="b"))
        assert caught.value.errno == number
        assert str(folder) in str(caught.value)
    assert d.read(folder, "orders") == definition()
    # After a failed sync of the directory the new one may be there, but then it is whole.
    assert set(os.listdir(folder)) <= {"orders.json", "b.json"}
    if "b" in d.names(folder):
        assert d.read(folder, "b") == definition(name="b")


def test_data_is_synced_before_it_gets_its_name_and_the_name_before_returning(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.mkdir()
    steps: list[str] = []
    real = {name: getattr(os, name) for name in ("fsync", "link", "rename", "unlink")}

    def fsync(fd: int) -> None:
        steps.append("sync directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "sync file")
        real["fsync"](fd)

    def record(name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> None:
            steps.append(name)
            real[name](*args, **kwargs)

        return call

    monkeypatch.setattr(os, "fsync", fsync)
    for name in ("link", "rename"):
        monkeypatch.setattr(os, name, record(name))
    d.write_new(folder, definition())
    assert steps == ["sync file", "link", "sync directory"]
    steps.clear()
    d.replace(folder, definition())
    assert steps == ["sync file", "rename", "sync directory"]
    steps.clear()
    monkeypatch.setattr(os, "unlink", record("unlink"))
    d.remove(folder, "orders")
    assert steps == ["unlink", "sync directory"]


def test_short_writes_are_continued(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, bytes(data)[:7]))
    d.write_new(folder, definition())
    assert d.read(folder, "orders") == definition()


def test_no_descriptor_leaks(folder: Path) -> None:
    d.write_new(folder, definition())
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with pytest.raises(FileExistsError):
            d.write_new(folder, definition())
        with pytest.raises(ChannelNotFound):
            d.read(folder, "none")
        d.replace(folder, definition())
        d.names(folder)
    assert len(os.listdir("/proc/self/fd")) == before


def _create(folder: Path, mine: int, names: list[str], barrier: Any, won: Any) -> None:
    barrier.wait()
    for name in names:
        try:
            d.write_new(folder, definition(name=name, local_id=mine))
        except FileExistsError:
            pass
        else:
            won.put((name, mine))
        assert d.read(folder, name).name == name  # never half a definition


def test_of_many_processes_one_creates(folder: Path) -> None:
    context = multiprocessing.get_context("spawn")
    names = [f"c{n}" for n in range(30)]
    barrier, won = context.Barrier(4), context.Queue()
    processes = [context.Process(target=_create, args=(folder, n, names, barrier, won)) for n in range(4)]
    for process in processes:
        process.start()
    winners = dict(won.get(timeout=60) for _ in names)
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert won.empty()
    assert {name: d.read(folder, name).local_id for name in names} == winners
    assert len(os.listdir(folder)) == len(names)


def test_ids() -> None:
    ids = {d.new_id() for _ in range(500)}
    assert len(ids) == 500
    for fresh in ids:
        assert uuid.UUID(hex=fresh).version == 4
        assert len(d.topic_id_base64(fresh)) == 22
        assert not d.topic_id_base64(fresh).startswith("-")
    assert d.topic_id_base64("00" * 16) == "A" * 22
    assert d.topic_id_base64("00" * 15 + "01") == "AAAAAAAAAAAAAAAAAAAAAQ"  # Kafka's metadata topic
    assert d.topic_id_base64("ff" * 16) == "_" * 21 + "w"
    for wrong in ("", "00", "0" * 33, "zz" * 16, " " * 32, "00" * 8 + " " * 16):
        with pytest.raises(ValueError):
            d.topic_id_base64(wrong)


def wanted(**changes: Any) -> d.Wanted:
    return d.Wanted(**{"kind": "queue", "codec": "dtype", "dtype": FULL["dtype"], **changes})


def test_comparing_what_is_there_with_what_is_wanted() -> None:
    d.compare(definition(), wanted())
    d.compare(definition(), wanted(partitions=3))
    d.compare(definition(schema={"other": 1}, type="Other", carries="event", retention_ms=5), wanted())
    codec = codec_for(np.dtype([("sym", "S8"), ("px", "f8")]))
    d.compare(definition(), wanted(codec=codec.name, dtype=codec.descr))


@pytest.mark.parametrize(
    ("change", "because"),
    [
        ({"kind": "topic"}, "it is a queue, not a topic"),
        ({"codec": "json", "dtype": None}, r"its codec is 'dtype' \(Tick\), not 'json'"),
        ({"dtype": [["sym", "|S8"], ["px", ">f8"]]}, "its dtype is .* not .*>f8"),
        ({"partitions": 4}, "it has 3 partitions, not 4"),
        ({"kind": "topic", "partitions": 1}, "not a topic; it has 3 partitions, not 1: open it as it is"),
    ],
)
def test_differences_are_named(change: dict[str, Any], because: str) -> None:
    with pytest.raises(SchemaMismatch, match=because) as caught:
        d.compare(definition(), wanted(**change))
    assert isinstance(caught.value, Error)
    assert "'orders'" in str(caught.value)
