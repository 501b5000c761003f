"""Do the benchmarks measure what they say, and judge it rightly? No figure is judged here."""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import baselines, instructions, open_loop, readme_table, report
from benchmarks.__main__ import QUESTIONS
from benchmarks.growth import deviation
from benchmarks.harness import ROOT, Context, Figure, interleave, spread


def figure(**changes: Any) -> Figure:
    given: dict[str, Any] = {"name": "f", "title": "a figure", "unit": "ns", "measured": [2.0, 6.0, 4.0]}
    return Figure(**given | {"baseline": [1.0, 2.0, 1.0], "against": "hand", "table": True} | changes)


# --- statistics and verdicts ---


def test_ratio_is_the_median_of_pairs() -> None:
    assert figure().ratios == [2.0, 3.0, 4.0]
    assert figure().judgeable == 3.0


def test_spread() -> None:
    assert spread([]) is None
    assert spread([5.0]) == {"median": 5.0, "q1": 5.0, "q3": 5.0, "min": 5.0, "max": 5.0, "count": 1}
    assert spread([1.0, 2.0, 3.0, 4.0, 100.0]) == {
        "median": 3.0,
        "q1": 2.0,
        "q3": 4.0,
        "min": 1.0,
        "max": 100.0,
        "count": 5,
    }


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, ""),
        ({"reach": 4.0, "aim": 3.0}, "aim"),
        ({"reach": 4.0, "aim": 2.5}, "reach"),
        ({"reach": 2.9, "aim": 2.5}, "lost"),
        ({"reach": 3.1, "sign": ">="}, "lost"),
        ({"reach": 2.0, "aim": 3.0, "sign": ">="}, "aim"),
        ({"reach": 4.0, "judged": "value"}, "reach"),  # median of 2, 6, 4
        ({"reach": 3.9, "judged": "value"}, "lost"),
        ({"reach": 3.0, "judged": "excess"}, "reach"),  # median of 1, 4, 3
        ({"reach": 2.9, "judged": "excess"}, "lost"),
        ({"reach": 4.0, "baseline": []}, ""),
    ],
)
def test_verdict(changes: dict[str, Any], verdict: str) -> None:
    assert figure(**changes).verdict == verdict


def test_pairs_take_turns() -> None:
    calls: list[str] = []

    def side(name: str) -> Any:
        def call() -> float:
            calls.append(name)
            return float(len(calls))

        return call

    ours, theirs = interleave(side("a"), side("b"), 3)
    assert "".join(calls) == "ab" + "ab" + "ba" + "ab"  # a warm-up, then pairs with the first changing
    assert (ours, theirs) == ([3.0, 6.0, 7.0], [4.0, 5.0, 8.0])


def test_deviation_of_a_curve() -> None:
    points = [figure(measured=[value] * 3, baseline=[1.0] * 3) for value in (10.0, 10.0, 12.0, 9.0, 10.0)]
    assert deviation(points) == pytest.approx(0.2)


def test_directories_are_removed(tmp_path: Path) -> None:
    ctx = Context(work=tmp_path)
    with ctx.log() as log:
        log.queue("q").send(b"value")
        assert list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())


# --- the baselines do what they are compared for ---


@pytest.mark.parametrize("crc", [baselines.google_crc, baselines.core_crc, baselines.best_crc])
def test_checksums(crc: Any) -> None:
    assert baselines.checksum(crc(), b"123456789") == 0xE3069283


@pytest.mark.parametrize("of_source", [0, 1])
def test_copy_copies(of_source: int) -> None:
    source = np.frombuffer(os.urandom(200_001), np.uint8)
    to = np.zeros_like(source)
    crc = baselines.google_crc().address
    elapsed = baselines.compiled().bl_copy(to.ctypes.data, source.ctypes.data, source.size, crc, of_source)
    assert elapsed > 0 and (to == source).all()


def test_sustained_writes_everything(tmp_path: Path) -> None:
    source = np.frombuffer(os.urandom(1 << 20), np.uint8)
    elapsed = baselines.compiled().bl_sustained(
        str(tmp_path).encode(),
        4 << 20,
        3 << 20,
        source.ctypes.data,
        source.size,
        1 << 20,
        10_000_000,
        baselines.google_crc().address,
    )
    assert elapsed > 0
    written = b"".join(path.read_bytes() for path in sorted(tmp_path.iterdir()))
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["baseline-0", "baseline-1"]
    assert written.rstrip(b"\0") == (source.tobytes() * 4).rstrip(b"\0")


def test_baselines_report_errors(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        baselines.checked(baselines.compiled().bl_pwrite_synced(-1, 0, b"x", 1, 1))
    with pytest.raises(OSError, match="No such file"):
        crc = baselines.google_crc().address
        address = np.zeros(1 << 20, np.uint8)
        arguments = (1 << 20, 1 << 20, address.ctypes.data, 1 << 20, 1 << 20, 1_000_000_000, crc)
        baselines.checked(baselines.compiled().bl_sustained(bytes(tmp_path / "missing"), *arguments))


@pytest.mark.parametrize("spin", [0, 1])
def test_ping_pong(spin: int) -> None:
    page = np.zeros(4096, np.uint8)
    count = 50
    echo = threading.Thread(target=baselines.compiled().bl_pong, args=(page.ctypes.data, 1, count, spin))
    echo.start()
    assert baselines.compiled().bl_ping(page.ctypes.data, 1, count, spin) > 0
    echo.join()
    assert page.view("<u4")[[0, 16]].tolist() == [count, count]


def test_synced_writes(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w+b") as file:
        assert baselines.compiled().bl_pwrite_synced(file.fileno(), 3, b"abc", 3, 2) > 0
        assert file.read() == b"\0\0\0abcabc"


def test_populated_file_is_mapped(tmp_path: Path) -> None:
    mapped = baselines.Mapped(tmp_path / "file", 1 << 16)
    assert baselines.address_of(tmp_path / "file") == mapped.address
    ctypes.memmove(mapped.address, b"written", 7)
    mapped.close()
    assert (tmp_path / "file").read_bytes()[:8] == b"written\0"
    with pytest.raises(RuntimeError, match="not mapped"):
        baselines.address_of(tmp_path / "file")


def test_meter_counts_every_sleep_when_asked() -> None:
    ends, late, worst = np.zeros(4096, np.int64), np.zeros(4096, np.int64), ctypes.c_int64()
    library = baselines.compiled()
    assert library.bl_meter_start(1_000_000, -(1 << 62)) == 0
    threading.Event().wait(0.05)
    count = library.bl_meter_stop(ends.ctypes.data, late.ctypes.data, 4096, ctypes.byref(worst))
    assert count > 0 and worst.value == late[:count].max() and (np.diff(ends[:count]) > 0).all()


def test_queue_loops() -> None:
    assert baselines.put_ns([b"value"] * 10, 2) > 0
    assert baselines.get_ns([b"value"] * 10, 2) > 0


# --- the open loop blames the right one ---

MS = 1_000_000


def test_stalls() -> None:
    due = np.arange(10, dtype=np.int64) * MS
    latency = np.array([0, 1, 12, 11, 10, 2, 0, 30, 0, 0], np.int64) * MS
    assert open_loop.stalls_of(due, latency) == [
        open_loop.Stall(2 * MS, 14 * MS, 12 * MS),
        open_loop.Stall(7 * MS, 37 * MS, 30 * MS),
    ]
    assert open_loop.stalls_of(due, np.zeros(10, np.int64)) == []


@pytest.mark.parametrize(
    ("hiccups", "expected"),
    [
        ([], False),
        ([(0, 10)], False),  # before
        ([(8, 16)], True),  # 6 of 12 inside
        ([(8, 15)], False),  # 5 of 12 inside
        ([(11, 14), (15, 18)], True),
        ([(0, 100)], True),
    ],
)
def test_stall_is_shown(hiccups: list[tuple[int, int]], expected: bool) -> None:
    stall = open_loop.Stall(10 * MS, 22 * MS, 12 * MS)
    assert open_loop.shown(stall, [open_loop.Hiccup(a * MS, b * MS) for a, b in hiccups]) is expected


# --- instruction counts ---

TOOLCHAIN = {"compiler": "gcc 12"}


def counts(toolchain: dict[str, str] = TOOLCHAIN, **values: float) -> dict[str, Any]:
    return {"toolchain": toolchain, "instructions": values}


@pytest.mark.parametrize(
    ("new", "fine"),
    [
        (counts(send=102.9), True),
        (counts(send=97.1), True),
        (counts(send=103.1), False),
        (counts(send=96.9), False),
        (counts(send=100.0, more=1.0), False),
        (counts(), False),
        (counts({"compiler": "gcc 13"}, send=500.0), None),
    ],
)
def test_counts_are_compared(new: dict[str, Any], fine: bool | None) -> None:
    lines, found = instructions.compare(counts(send=100.0), new)
    assert found is fine and lines


@pytest.mark.parametrize(
    ("by", "fine"),
    [(1.0, True), (0.9, True), (1.019, True), (1.021, False)],
    ids=["as many", "fewer", "some", "too many"],
)
@pytest.mark.parametrize("name", instructions.LIMITS)
def test_limits_between_counts(name: str, by: float, fine: bool) -> None:
    """Reading read-committed, where no transaction is open, takes at most two in a hundred more."""
    values = dict.fromkeys(instructions.OPERATIONS, 500.0)
    values[name] *= by
    lines, found = instructions.within_limits(counts({"compiler": "another one"}, **values))
    assert found is fine and len(lines) == len(instructions.LIMITS)
    assert [line.startswith(name) for line in lines if "more than" in line] == ([] if fine else [True])


def test_callgrind_files_are_parsed() -> None:
    header = "version: 1\ndesc: Trigger: {}\n\nevents: Ir\nsummary: {}\n\nfn=f\n1 5\ntotals: {}\n"
    texts = [
        header.format("Client Request: send", 500, 500),
        header.format("Client Request: send", 20, 20),  # of another thread
        header.format("Client Request: commit", 7, 7),
        header.format("Program termination", 9, 9),
    ]
    assert instructions.parse(texts) == {"send": 520, "commit": 7}


# --- the README ---


def content(*figures: Figure, smoke: bool = False) -> dict[str, Any]:
    facts = {"cpu": "a CPU", "cpus": 2, "crc32c": "table", "python": "3"}
    rows = [json.loads(json.dumps(one.as_dict())) for one in figures]
    return {"question": "q", "date": "2026-01-01", "smoke": smoke, "machine": facts, "figures": rows}


def test_readme_table_keeps_rows_that_are_lost() -> None:
    good, bad = figure(title="good", reach=3.5), figure(title="bad", reach=2.0)
    aside = figure(title="aside", table=False)
    lines = readme_table.table([content(good, aside), content(bad)]).splitlines()
    assert lines[-2:] == [
        "| good | 4 ns | hand, 1 ns | 3 x | ≤ 3.5 x |",
        "| bad | 4 ns | hand, 1 ns | 3 x | ≤ 2 x **lost** |",
    ]
    assert "aside" not in "".join(lines)


def test_readme_refuses_a_smoke_run() -> None:
    with pytest.raises(ValueError, match="smoke"):
        readme_table.table([content(figure(), smoke=True)])


def test_readme_is_rewritten_between_the_markers() -> None:
    text = f"before\n{readme_table.BEGIN}\nold\n{readme_table.END}\nafter\n"
    new = readme_table.rewritten(text, "new")
    assert new == text.replace("old", "new")
    assert readme_table.rewritten(new, "new") == new
    for wrong in ("", readme_table.BEGIN, readme_table.END + readme_table.BEGIN, text + text):
        with pytest.raises(ValueError, match="once each"):
            readme_table.rewritten(wrong, "new")


def test_the_readme_has_the_markers() -> None:
    readme_table.rewritten((ROOT / "README.md").read_text(), "")


# --- the whole ---


def test_every_question_is_listed() -> None:
    asking = {path.stem for path in (ROOT / "benchmarks").glob("*.py") if "\ndef run(ctx" in path.read_text()}
    assert asking == set(QUESTIONS) and len(QUESTIONS) == len(asking)
    for name in QUESTIONS:
        assert callable(importlib.import_module(f"benchmarks.{name}").run)


def benchmarks(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)


def test_smoke(tmp_path: Path) -> None:
    asked = ["send", "receive", "crc", "growth"]
    done = benchmarks("--smoke", "--only", ",".join(asked), "--results", tmp_path / "out", "--dir", tmp_path / "work")
    assert done.returncode == 0, done.stderr
    assert not list((tmp_path / "work").iterdir()), "logs are left behind"
    contents = report.load(tmp_path / "out", QUESTIONS)
    assert [content["question"] for content in contents] == asked
    for row in (row for content in contents for row in content["figures"]):
        assert row["title"] in done.stdout
        assert len(row["baseline"]) in (0, len(row["measured"])) and min(row["measured"]) >= 0
        if row["baseline"]:
            assert row["ratio_stats"]["count"] == 3 and min(row["baseline"]) > 0
    text = (tmp_path / "out" / "report.md").read_text()
    assert "A smoke run" in text and "LOST" not in text
    for image in ("ratios.png", "growth.png"):
        assert image in text and (tmp_path / "out" / image).read_bytes().startswith(b"\x89PNG")


def test_a_question_that_fails_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "work").write_text("no directory")
    done = benchmarks("--smoke", "--only", "commit,crc", "--results", tmp_path / "out", "--dir", tmp_path / "work")
    assert done.returncode == 1
    assert "failed to run: commit" in done.stderr
    assert (tmp_path / "out" / "crc.json").exists()


@pytest.mark.parametrize("arguments", [("--only", "speed"), ("--pairs", "14"), ("--quick",)])
def test_usage(arguments: tuple[str, ...]) -> None:
    assert benchmarks(*arguments).returncode == 2
