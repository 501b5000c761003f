"""Does a subscriber that is killed at any instant go on without losing or doubling anything?"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tidelog.cli import demo_answers, demo_facts, demo_proof, demo_source
from tidelog.cli.common import CommandError
from tidelog.cli.demo_state import States
from tidelog.native import murmur2


class Killed(Exception):
    """Stands for SIGKILL: nothing after it happens."""


def test_every_place_to_die(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Die at a random file operation, or between save and commit, again and again."""
    import tidelog.cli.demo_state as module

    source = random.Random(3)
    log = [(source.randrange(2), f"k{source.randrange(5)}") for _ in range(4000)]
    offsets = [0, 0]
    messages = []
    for row, (partition, key) in enumerate(log):
        messages.append((partition, offsets[partition], row, key))
        offsets[partition] += 1
    fuse = 0

    def spend() -> None:
        nonlocal fuse
        fuse -= 1
        if fuse == 0:
            raise Killed

    real_replace, real_write = module.os.replace, Path.write_bytes

    def replace(*arguments: object) -> None:
        spend()
        real_replace(*arguments)  # type: ignore[arg-type]
        spend()

    def write(path: Path, data: bytes) -> int:
        spend()
        return real_write(path, data)

    monkeypatch.setattr(module.os, "replace", replace)
    monkeypatch.setattr(Path, "write_bytes", write)

    committed = [0, 0]
    deaths = repeated = 0
    while committed != offsets:
        fuse = source.randrange(1, 30)
        states = States(tmp_path, "g")
        held = list(committed)
        try:
            for partition, offset, row, key in messages:
                if offset < committed[partition]:
                    continue
                table = states.accept(partition, offset, row)
                if table is None:
                    repeated += 1
                else:
                    table.setdefault(key, [0])[0] += 1
                held[partition] = offset + 1
                if source.random() < 0.05:
                    states.save()
                    spend()
                    committed = list(held)
            states.save()
            committed = list(held)
        except Killed:
            deaths += 1
    assert deaths > 20 and repeated > 20, "the test has not died where it matters"

    final = States(tmp_path, "g")
    loaded = [final.load(partition) for partition in range(2)]
    assert [state.next_offset for state, _ in loaded] == offsets
    for partition, (_, rows) in enumerate(loaded):
        assert list(rows) == [row for part, _, row, _ in messages if part == partition]
    total = demo_answers.merge(state.table for state, _ in loaded)
    assert total == {key: [sum(1 for _, k in log if k == key)] for _, key in log}


def test_a_journal_that_is_too_short_is_no_state(tmp_path: Path) -> None:
    states = States(tmp_path, "g")
    states.accept(0, 0, 7)
    states.save()
    (tmp_path / "g-0.rows").write_bytes(b"")
    with pytest.raises(CommandError, match="0 of 1"):
        States(tmp_path, "g").load(0)


# --- the source ---


def test_flights_turn_into_events_and_back() -> None:
    source = demo_source.find_flights(limit=3000)
    header, position = source.header(), source.key_position()
    for row, cells in source.rows():
        event = source.event(row, cells, header)
        assert demo_source.fields(event) == cells
        assert (event.tailnum or "NA") == cells[position]  # type: ignore[union-attr]


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('city,who\nRome,"a, b"\nOslo,\n')
    source = demo_source.Source(path=str(path), key="city")
    assert [cells for _, cells in source.rows()] == [["Rome", "a, b"], ["Oslo", ""]]
    event = source.event(0, ["Rome", "a, b"], source.header())
    assert demo_source.fields(event) == ["Rome", "a, b"]


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        ("", "a", "no column 'a'"),
        ("a,a\n", "a", "names a column twice"),
        ("a,b\n1\n", "a", "record 1 has 1 cells"),
        ("a,b\n1,2\n", "c", "use --key with one of a, b"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, text: str, key: str, message: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    source = demo_source.Source(path=str(path), key=key)
    with pytest.raises(CommandError, match=message):
        list(source.rows())
    with pytest.raises(CommandError):
        demo_facts.gather(source)


def test_fingerprints_tell_cells_apart() -> None:
    cells = [["a", "bc"], ["ab", "c"], ["a\0b", "c"], ["a", "b\0c"], ["abc"], ["abc", ""], ["", "abc"]]
    assert len({demo_facts.fingerprint(row) for row in cells}) == len(cells)


def test_the_plain_partition_rule_is_kafkas() -> None:
    source = random.Random(1)
    for length in range(40):
        key = source.randbytes(length)
        assert demo_proof.kafka_partition(key, 12) == (murmur2(key) & 0x7FFFFFFF) % 12
