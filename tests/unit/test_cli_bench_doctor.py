"""Do bench and doctor measure and tell, and is a stall never told without the meter?"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

from tests.unit.commands import Commands
from tidelog.cli import bench_report, bench_run, bench_worker, machine
from tidelog.cli.histogram import Histogram


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Commands:
    return Commands(capsys, monkeypatch)


SMALL = ["--messages", "2000", "--rate", "500", "--seconds", "1", "--segment", "64KiB", "--partitions", "2"]


def test_bench_measures_three_phases_and_loses_nothing(run: Commands, tmp_path: Path) -> None:
    page = tmp_path / "b.html"
    ran = run.good("bench", *SMALL, "--producers", "2", "--dir", tmp_path, "--format", "json", "--report", page)
    append, deliver, latency = ran.json["phases"]
    assert (append["phase"], append["messages"]) == ("append", 2000)
    assert (deliver["messages"], deliver["lost"], deliver["doubled"], deliver["disordered"]) == (2000, 0, 0, 0)
    assert latency["messages"] == 500 and latency["lost"] == 0
    assert 0 < latency["p50_seconds"] <= latency["p99_seconds"] <= latency["max_seconds"]
    assert ran.json["hiccup_seconds"]["max"] >= 0 and ran.json["generator_late_seconds"]["max"] > 0
    assert "fsync" not in ran.err and f"report: {page}" in ran.err
    text = page.read_text()
    assert "<table>" in text and "data:image/png;base64," in text and "hiccup meter" in text
    assert os.listdir(tmp_path) == ["b.html"], "the store was left behind"


def test_bench_as_text_names_the_machine(run: Commands, tmp_path: Path) -> None:
    ran = run.good("bench", "--messages", "1000", "--rate", "none", "--dir", tmp_path)
    assert "append" in ran.out and "deliver" in ran.out and "latency" not in ran.out
    assert "tidelog" in ran.out.splitlines()[-1] and "sync" in ran.out.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["--size", "10"], 2, "at least 24 bytes"),
        (["--seconds", "0.1"], 2, "warm-up"),
        (["--report", "x.pdf"], 2, ".html or .png"),
        (["--messages", "1", "--producers", "2"], 2, "at least one for each producer"),
        (["--dir", "no-such-folder"], 3, "no folder"),
    ],
)
def test_bench_refuses(run: Commands, words: list[str], code: int, text: str) -> None:
    ran = run("bench", *words)
    assert ran.code == code and text in ran.err


def test_a_picture_needs_matplotlib_and_a_page_does_not(
    run: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    import tidelog.cli

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "tidelog.cli.plotting", raising=False)
    monkeypatch.delattr(tidelog.cli, "plotting", raising=False)
    words = ["bench", "--messages", "500", "--rate", "none", "--dir", tmp_path, "--report"]
    run.good(*words, tmp_path / "a.html")
    assert "No pictures" in (tmp_path / "a.html").read_text()
    ran = run(*words, tmp_path / "a.png")
    assert ran.code == 3 and "pip install" in ran.err


def job(**fields: object) -> bench_worker.Job:
    return bench_worker.Job(role="deliver", messages=4, producers=2, size=24, **fields)  # type: ignore[arg-type]


def head(producer: int, number: int) -> bytes:
    return b"".join(value.to_bytes(8, "little") for value in (producer, number, 99))


def verdict(*rounds: list[tuple[int, int, int]]) -> tuple[int, int, int]:
    """Of (producer, number, partition) as they arrive."""
    import numpy as np

    ledger = bench_worker._Ledger(job())
    for messages in rounds:
        due = ledger.add(
            [head(producer, number) for producer, number, _ in messages],
            np.array([partition for *_, partition in messages], dtype=np.int32),
        )
        assert due.tolist() == [99] * len(messages)
    return ledger.verdict()


def test_the_ledger_sees_what_is_wrong() -> None:
    first, second = [(0, n, 0) for n in range(4)], [(1, n, 1) for n in range(4)]
    assert verdict(first + second) == (0, 0, 0)
    assert verdict(first[:2], second, first[2:]) == (0, 0, 0)
    assert verdict(first[:3] + second) == (1, 0, 0)
    assert verdict(first, second, [(1, 3, 1)]) == (0, 1, 1)
    assert verdict([first[1], first[0], *first[2:], *second]) == (0, 0, 1)
    assert verdict(first[2:], first[:2], second) == (0, 0, 1)
    assert verdict([(0, 0, 0), (0, 1, 1), (0, 2, 0), (0, 3, 1), *second]) == (0, 0, 0)  # order is a partition's
    assert verdict([*first, *second, (7, 0, 0)])[1] == 1


def test_a_stall_is_the_machines_only_if_hiccups_cover_it() -> None:
    assert bench_run.covered((0, 100), []) == 0
    assert bench_run.covered((0, 100), [(10, 20), (15, 30), (90, 200)]) == pytest.approx(0.3)
    assert bench_run.covered((50, 60), [(0, 1000)]) == 1
    outcome = bench_run.Outcome()
    assert bench_report.stall_sentence(outcome) == "no message waited longer than 10 ms"
    outcome.stalls, outcome.shown = [(0, 20_000_000), (50_000_000, 90_000_000)], [True, False]
    said = bench_report.stall_sentence(outcome)
    assert "2 stalls above 10 ms (longest 40 ms)" in said and "cover most of 1" in said and "may be the log's" in said
    outcome.shown = [True, True]
    assert "may be" not in bench_report.stall_sentence(outcome)


def test_an_unsound_phase_makes_the_benchmark_fail() -> None:
    assert bench_run.Phase("deliver", lost=0, doubled=0, disordered=0).sound
    assert bench_run.Phase("append").sound
    for wrong in ("lost", "doubled", "disordered"):
        assert not bench_run.Phase("deliver", **{wrong: 1}).sound  # type: ignore[arg-type]


# --- doctor ---


def test_doctor_finds_this_machine_fit(run: Commands, tmp_path: Path) -> None:
    ran = run.good("doctor", tmp_path / "not-there" / "a.log", "--format", "json")
    facts = {(fact["area"], fact["what"]): fact for fact in ran.json}
    assert facts["store", "send, sync, receive"]["value"] == "works"
    assert "GB/s" in facts["build", "CRC-32C"]["value"] or "MB/s" in facts["build", "CRC-32C"]["value"]
    assert facts["build", "compiler"]["state"] == "ok"
    assert "median" in facts["disk", "sync of 4 KiB"]["value"]
    assert not [fact for fact in ran.json if fact["state"] == "problem"]
    assert os.listdir(tmp_path) == []
    assert "Nothing stands in the way." in run.good("doctor", tmp_path).out
    assert run("doctor", tmp_path, tmp_path).code == 2


def test_doctor_tells_of_a_broken_extension(run: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    import tidelog

    monkeypatch.setitem(sys.modules, "tidelog._native", None)
    monkeypatch.delattr(tidelog, "_native", raising=False)
    ran = run("doctor", tmp_path)
    assert ran.code == 3 and "cannot be loaded" in ran.out and "./dev build" in ran.out


def test_doctor_refuses_network_file_systems(run: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "filesystem", lambda path: ("nfs4", "/net", "rw"))
    ran = run("doctor", tmp_path)
    assert ran.code == 3 and "put the store on a local file system" in ran.out


def test_what_is_known_of_the_machine(tmp_path: Path) -> None:
    kind, mount, _ = machine.filesystem(str(tmp_path))
    assert kind != "?" and str(tmp_path.resolve()).startswith(mount)
    assert machine.sync_cost(str(tmp_path)).count >= 3
    assert machine.can_allocate(str(tmp_path))
    assert machine.cpu_model()
    assert machine.read_number("/proc/sys/vm/max_map_count") and machine.read_number("/no/such/file") is None
    assert os.listdir(tmp_path) == []


def test_matplotlib_is_a_choice() -> None:
    assert importlib.util.find_spec("matplotlib") is not None, "the tests of pictures need the demo extra"
    assert Histogram().total == 0
