"""Does check find every kind of damage, and does --repair mend it without losing anything that was whole?

What is damaged is chosen by a parser of this file's own; what must still be there is the list of what was sent.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.commands import Commands
from tidelog.cli import segments
from tidelog.log import open as open_log
from tidelog.native import crc32c

ROUNDS, BATCH = 60, 50
TOTAL = ROUNDS * BATCH


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Commands:
    return Commands(capsys, monkeypatch)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """One partition of six segments with 60 batches of 50 messages."""
    path = tmp_path / "s.log"
    with open_log(path) as log:
        topic = log.topic("t", bytes, partitions=1, segment_bytes=1 << 16)
        for number in range(ROUNDS):
            topic.send_many([b"%06d" % (number * BATCH + at) + bytes(100) for at in range(BATCH)])
    return path


def logs(store: Path) -> list[Path]:
    found = sorted((store / "t-0").glob("*.log"))
    assert len(found) == 6
    return found


def batches(path: Path) -> list[tuple[int, int, int]]:
    """(position, bytes, base offset)"""
    data, at, found = path.read_bytes(), 0, []
    while at < len(data):
        base, length = struct.unpack_from(">qi", data, at)
        found.append((at, length + 12, base))
        at += length + 12
    return found


def flip(path: Path, at: int, count: int = 1) -> None:
    data = bytearray(path.read_bytes())
    for place in range(at, at + count):
        data[place] ^= 0xFF
    path.write_bytes(data)


def overwrite(path: Path, at: int, new: bytes) -> None:
    data = bytearray(path.read_bytes())
    data[at : at + len(new)] = new
    path.write_bytes(data)


def numbers(store: Path) -> list[int]:
    with open_log(store) as log:
        return [int(message.value[:6]) for message in log["t"].scan()]


def test_a_whole_store(run: Commands, store: Path) -> None:
    ran = run.good("check", store)
    assert f"6 segments, {TOTAL // 1000} 000 messages" in ran.out and "all whole" in ran.out
    found = run.good("check", store, "--format", "json").json
    assert found["findings"] == [] and found["put_aside"] == [] and found["messages"] == TOTAL
    assert found["bytes"] == sum(path.stat().st_size for path in logs(store))
    assert run.good("check", store, "--format", "tsv").out.count("\n") == 1
    before = {path: path.read_bytes() for path in (store / "t-0").iterdir()}
    assert run.good("check", store, "--repair", "--format", "json").json["repaired"] == []
    assert {path: path.read_bytes() for path in (store / "t-0").iterdir()} == before


# name: (what is damaged, by (segment, batch) or none; the batch whose messages are lost)
Damage = Callable[[Path], tuple[int, int] | None]


def payload(segment: int, batch: int) -> Damage:
    def damage(store: Path) -> tuple[int, int]:
        path = logs(store)[segment]
        flip(path, batches(path)[batch][0] + 100)
        return segment, batch

    return damage


def header(segment: int, batch: int) -> Damage:
    """Nothing of its first 200 bytes is left."""

    def damage(store: Path) -> tuple[int, int]:
        path = logs(store)[segment]
        flip(path, batches(path)[batch][0], 200)
        return segment, batch

    return damage


def zeros(segment: int, batch: int) -> Damage:
    def damage(store: Path) -> tuple[int, int]:
        path = logs(store)[segment]
        at, size, _ = batches(path)[batch]
        overwrite(path, at, bytes(size))
        return segment, batch

    return damage


def beside(name: str, at: int, count: int = 1) -> Damage:
    """A file beside the log of the second segment, or the seals."""

    def damage(store: Path) -> None:
        path = store / "t-0" / name if name == "seals" else logs(store)[1].with_suffix(name)
        flip(path, at, count)

    return damage


DAMAGES: dict[str, Damage] = {
    "payload of a complete segment": payload(1, 3),
    "first batch of all": payload(0, 0),
    "payload of the active segment": payload(-1, 1),
    "last batch of all": payload(-1, -1),
    "header in a complete segment": header(1, 3),
    "header of a segment's first batch": header(2, 0),
    "header of a segment's last batch": header(1, -1),
    "header in the active segment": header(-1, 2),
    "zeros at the end of a complete segment": zeros(1, -1),
    "zeros in the active segment": zeros(-1, -1),
    "offset index": beside(".index", 9, 3),
    "time index": beside(".timeindex", 5, 3),
    "length in a seal": beside("seals", 64 + 48 + 25),
    "base offset in a seal": beside("seals", 64 + 48 + 1),
    "header CRC in a seal": beside("seals", 64 + 48 + 29),
    "header of the seals": beside("seals", 9),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_found_and_mended(run: Commands, store: Path, name: str) -> None:
    whole = {path.name: path.read_bytes() for path in (store / "t-0").iterdir()}
    lost = DAMAGES[name](store)
    damaged = {path.name: path.read_bytes() for path in (store / "t-0").iterdir()}
    changed = {file for file in whole if whole[file] != damaged[file]}
    assert len(changed) == 1

    ran = run("check", store, "--format", "json")
    assert ran.code == 4
    assert {finding["file"] for finding in ran.json["findings"]} == {f"t-0/{file}" for file in changed}
    assert run("check", store).code == 4 and "--repair" in run("check", store).err
    assert {path.name: path.read_bytes() for path in (store / "t-0").iterdir()} == damaged, "check changed a file"

    gone = set() if lost is None else lost_numbers(store, whole, lost)
    ran = run.good("check", store, "--repair", "--format", "json")
    assert ran.json["findings"] == []
    kept = {
        action["file"]: (store / action["aside"]).read_bytes() for action in ran.json["repaired"] if action["aside"]
    }
    assert f"t-0/{changed.pop()}" in kept
    if lost is not None:
        at, size, base = located(whole, lost, store)
        file = f"t-0/{logs(store)[lost[0]].name}"
        assert kept[file] == damaged[logs(store)[lost[0]].name][at : at + size], (
            "what was taken out is not what was there"
        )
        action = next(action for action in ran.json["repaired"] if action["file"] == file)
        assert (action["first_offset"], action["next_offset"]) == (base, base + BATCH)

    assert numbers(store) == [number for number in range(TOTAL) if number not in gone]
    assert run.good("check", store).out.count("put aside") == 1
    with open_log(store) as log:  # offsets stay what they were, and the partition takes messages
        assert log["t"].bounds(0) == (0, TOTAL)
        assert log["t"].send(b"%06d" % TOTAL).result().offset == TOTAL
        for number in range(0, TOTAL, 7):
            if number not in gone:
                assert log["t"].read([number], 0)[0].raw[:6] == b"%06d" % number
    run.good("check", store)


def located(whole: dict[str, bytes], lost: tuple[int, int], store: Path) -> tuple[int, int, int]:
    data, at, found = whole[logs(store)[lost[0]].name], 0, []
    while at < len(data):
        base, length = struct.unpack_from(">qi", data, at)
        found.append((at, length + 12, base))
        at += length + 12
    return found[lost[1]]


def lost_numbers(store: Path, whole: dict[str, bytes], lost: tuple[int, int]) -> set[int]:
    base = located(whole, lost, store)[2]
    return set(range(base, base + BATCH))


def test_several_damages_at_once(run: Commands, store: Path) -> None:
    for damage in (payload(0, 2), payload(0, 3), header(3, 5), beside("seals", 64 + 1), payload(-1, 0)):
        damage(store)
    assert run("check", store).code == 4
    run.good("check", store, "--repair")
    found = numbers(store)
    assert len(found) == TOTAL - 4 * BATCH and found == sorted(found)


def test_the_active_segment_goes_on_and_is_sealed(run: Commands, store: Path) -> None:
    payload(-1, 1)(store)
    run.good("check", store, "--repair")
    with open_log(store) as log:
        for _ in range(ROUNDS):
            log["t"].send_many([bytes(100)] * BATCH)
    assert len(list((store / "t-0").glob("*.log"))) > 6
    run.good("check", store)  # its running header CRC is still right: the filler has the CRC of what was there


def test_a_seal_made_after_a_header_was_lost_is_mended_too(run: Commands, store: Path) -> None:
    """Nothing of a header was left: the running CRC of the active segment knows another one, and so does its seal."""
    header(-1, 1)(store)
    run.good("check", store, "--repair")
    with open_log(store) as log:
        for _ in range(ROUNDS):
            log["t"].send_many([bytes(100)] * BATCH)
    ran = run("check", store, "--format", "json")
    assert ran.code == 4 and ["CRC that the seal says" in one["what"] for one in ran.json["findings"]] == [True]
    run.good("check", store, "--repair")
    assert len(numbers_raw(store)) == TOTAL - BATCH + ROUNDS * BATCH


@pytest.mark.parametrize("values", [[25, 26], [0], [3], [4], [7], [8], [8189 - 61, 50], [16370, 3]])
def test_fillers_are_read_by_the_store(run: Commands, tmp_path: Path, values: list[int]) -> None:
    """Batches of lengths at which the lengths inside a record grow by a byte."""
    path = tmp_path / "f.log"
    with open_log(path) as log:
        topic = log.topic("t", bytes, partitions=1)
        for batch in ([b"before"], [bytes(size) for size in values], [b"after"]):
            topic.send_many(batch)
    log_file = next((path / "t-0").glob("*.log"))
    at, size, _ = batches(log_file)[1]
    flip(log_file, at + 30)
    assert run("check", path).code == 4
    run.good("check", path, "--repair")
    assert numbers_raw(path) == [b"before", b"after"], size
    with open_log(path) as log:
        assert log["t"].send(b"x").result().offset == len(values) + 2
    run.good("check", path)


def test_repair_wants_the_store_alone(run: Commands, store: Path) -> None:
    payload(1, 3)(store)
    before = {path: path.read_bytes() for path in (store / "t-0").iterdir()}
    code = (
        "import sys; from tidelog.log import open; log = open(sys.argv[1]); print('in', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code, store], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"in\n"
        assert run("check", store).code == 4  # looking is allowed
        ran = run("check", store, "--repair")
        assert ran.code == 1 and "open in another process" in ran.err
        other.communicate()
    assert {path: path.read_bytes() for path in (store / "t-0").iterdir()} == before
    run.good("check", store, "--repair")


def test_a_failed_sync_is_healed(run: Commands, store: Path) -> None:
    """A partition that refuses messages, as after a failed sync, takes them again; nothing that is on disk is lost."""
    kill_while_open(store)  # after a clean close the shared words are not what counts
    (store / "t-0" / "FAILED").write_text("t-0/x.log: errno 5\n")
    overwrite(store / "shared", 626688 + 196, struct.pack("<I", 5))
    with pytest.raises(OSError, match="check"), open_log(store) as log:
        log["t"].send(b"no")
    ran = run("check", store)
    assert ran.code == 4 and "FAILED" in ran.out
    ran = run.good("check", store, "--repair", "--format", "json")
    assert [action["aside"] for action in ran.json["repaired"]] == ["t-0/FAILED.torn"]
    assert numbers(store) == list(range(TOTAL))
    with open_log(store) as log:
        log["t"].send(b"yes")
    assert len(numbers_raw(store)) == TOTAL + 1


def kill_while_open(store: Path) -> None:
    code = "import os, sys; from tidelog.log import open; log = open(sys.argv[1]); log.sync(); os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code, store], check=False).returncode == -9


def numbers_raw(store: Path) -> list[bytes]:
    with open_log(store) as log:
        return [message.raw for message in log["t"].scan()]


def test_a_broken_definition_is_found_and_left_alone(run: Commands, store: Path) -> None:
    """Moving it away would make its messages nobody's, and they would be deleted."""
    path = store / "channels" / "t.json"
    text = path.read_text()
    path.write_text(text[:-5])
    ran = run("check", store, "--format", "json")
    assert ran.code == 4 and [finding["file"] for finding in ran.json["findings"]] == ["channels/t.json"]
    assert run("check", store, "--repair").code == 4
    path.write_text(text)
    assert numbers(store) == list(range(TOTAL))


def test_a_broken_identity_is_found(run: Commands, store: Path) -> None:
    (store / "tidelog.json").write_text(json.dumps({"format": "x"}))
    ran = run("check", store, "--format", "json")
    assert ran.code == 4 and [finding["file"] for finding in ran.json["findings"]] == ["tidelog.json"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of kafka-python itself
def test_kafka_reads_a_mended_segment(run: Commands, store: Path) -> None:
    """kafka-python, which has never heard of us, finds every batch whole, and messages in all but the fillers."""
    from kafka.record import MemoryRecords

    payload(1, 3)(store)
    header(1, 5)(store)
    run.good("check", store, "--repair")
    records = MemoryRecords(logs(store)[1].read_bytes())
    seen: list[int] = []
    fillers = 0
    while (batch := records.next_batch()) is not None:
        assert batch.validate_crc()
        if batch.is_control_batch:
            fillers += 1
            assert [record.key for record in batch] == [b"\0\0\x7f\xff"]
        else:
            seen += [int(record.value[:6]) for record in batch]
    first, last = int(logs(store)[1].name[:20]), int(logs(store)[2].name[:20])
    lost = {*range(first + 3 * BATCH, first + 4 * BATCH), *range(first + 5 * BATCH, first + 6 * BATCH)}
    assert fillers == 2 and seen == [number for number in range(first, last) if number not in lost]


# --- fillers ---


@pytest.mark.parametrize("size", [61, *range(68, 200), 1000, 8250, 8260, 2_097_230, 2_097_240])
def test_fillers_of_every_length(size: int) -> None:
    damaged = os.urandom(size)
    head = struct.pack(">qii", 70, size - 12, 0) + b"\x02" + damaged[17:21]
    damaged = head + damaged[21:]
    for whole in (False, True):
        made = segments.filler(damaged, segments.Hole(0, size, 70, 90, whole), segments.Walk(70))
        assert made is not None and len(made) == size
        found = segments.parse(made, 0)
        assert found is not None and (found.base_offset, found.last_offset, found.size_bytes) == (70, 89, size)
        assert struct.unpack_from(">I", made, 17)[0] == crc32c(made[21:])
        if whole and size >= 76:
            assert made[:21] == head, "the running header CRC would change"


@pytest.mark.parametrize("size", [0, 60, 62, 67])
def test_there_is_no_filler_for_less_than_a_batch(size: int) -> None:
    assert segments.filler(bytes(100), segments.Hole(0, size, 0, 5, False), segments.Walk(0)) is None


def test_hostile_bytes_end_the_walk() -> None:
    for data in (b"", b"\xff" * 1000, b"\x00\x00\x00\x00\x02" * 300, os.urandom(5000), struct.pack(">qi", 0, 1 << 30)):
        found = segments.walk(data, 0, -1)
        assert not found.batches
        assert sum(hole.end - hole.begin for hole in found.holes) <= len(data)
