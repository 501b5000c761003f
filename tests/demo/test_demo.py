"""Does the demo prove what it says, and does each proof fail when it should?

The runs are real: publishers and subscribers are processes of their own, and one is killed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tidelog.cli import demo_proof, demo_worker
from tidelog.log import open as open_log

RECORDS = 2000
SLICE = ["--limit", RECORDS, "--rate", 2000]
"""A second long: there must be a middle in which the subscriber can be killed."""
PROOFS = {
    "log-complete",
    "log-equal",
    "log-order",
    "delays-once",
    "delays-order",
    "delays-answer",
    "routes-once",
    "routes-order",
    "routes-answer",
    "committed",
    "killed",
}


def demo(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDELOG_")}
    return subprocess.run(
        [sys.executable, "-m", "tidelog.cli", "demo", *map(str, words)],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def result(folder: Path, *words: object) -> tuple[int, dict[str, Any]]:
    ran = demo(folder, "--no-plot", "--format", "json", *words)
    assert ran.stdout, ran.stderr
    return ran.returncode, json.loads(ran.stdout)


def test_everything_holds(tmp_path: Path) -> None:
    ran = demo(tmp_path, *SLICE, "--plot", "picture.png", "--keep", "kept")
    assert ran.returncode == 0, ran.stderr + ran.stdout
    assert ran.stdout.count("✔") == len(PROOFS) and "✘" not in ran.stdout
    for words in ("by SIGKILL", "hottest keys", "p99.9", "published", "read back", "mean delay per carrier"):
        assert words in ran.stdout, words
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(os.listdir(tmp_path)) == ["kept", "picture.png"]
    # What was kept is a store like any other, and holds what the demo said.
    with open_log(tmp_path / "kept" / "demo.log", create=False) as log:
        flights = log["flights"]
        assert sum(1 for _ in flights.scan()) == RECORDS
        assert {row.group for row in flights.offsets()} == {"delays", "routes"}


def test_the_figures_for_programs(tmp_path: Path) -> None:
    code, found = result(tmp_path, *SLICE, "--partitions", 4, "--publishers", 3)
    assert code == 0 and found["held"]
    assert {proof["name"] for proof in found["proofs"]} == PROOFS
    assert found["published"] == RECORDS and found["partitions"] == 4 and found["publishers"] == 3
    kill = found["kill"]
    assert kill["status"] == -9 and kill["group"] == "delays"
    assert 0 < sum(kill["committed"].values()) < RECORDS and kill["resumed"] == kill["committed"]
    assert found["skew"]["hottest"][0]["messages"] >= found["skew"]["hottest"][1]["messages"]
    assert sum(share["messages"] for share in found["skew"]["partitions"]) == RECORDS
    for latencies in found["latency_seconds"].values():
        assert 0 < latencies["p50"] <= latencies["p99"] <= latencies["max"]
    assert sum(flights for flights, *_ in found["answers"]["delays"].values()) == RECORDS
    assert os.listdir(tmp_path) == []


# Which proofs must fail when something is broken; all others must hold.
BROKEN = {
    "drop": {"log-complete", "delays-once", "delays-answer", "routes-once", "routes-answer"},
    "repeat": {"log-complete", "delays-once", "delays-answer", "routes-once", "routes-answer"},
    "swap": {"log-order", "delays-order", "routes-order"},
    "alter": {"log-equal", "delays-answer"},
    "forget": {"routes-once", "routes-answer"},
    "twice": {"routes-answer"},
}


def test_every_fault_is_tried() -> None:
    assert BROKEN.keys() == demo_worker.FAULTS.keys()


@pytest.mark.parametrize("fault", BROKEN)
def test_a_proof_fails_when_it_should(tmp_path: Path, fault: str) -> None:
    code, found = result(tmp_path, *SLICE, "--break", fault)
    failed = {proof["name"]: proof["detail"] for proof in found["proofs"] if not proof["held"]}
    assert failed.keys() == BROKEN[fault]
    assert all(failed.values()), "a proof fails without saying why"
    assert code == 1 and found["held"] is False


def test_a_kill_that_came_too_late_is_no_proof() -> None:
    class Channel:
        partitions = 1

        def bounds(self, partition: int) -> tuple[int, int]:
            return 0, 10

    def proof(**fields: Any) -> demo_proof.Proof:
        seen = demo_proof.Seen()
        for name, value in fields.items():
            setattr(seen.kill, name, value)
        return demo_proof._killed(None, seen, Channel())  # type: ignore[arg-type]

    assert proof(status=-9, committed={0: 4}, resumed={0: 4}).held
    assert not proof(status=0, committed={0: 4}, resumed={0: 4}).held
    assert not proof(status=-9, committed={0: 10}, resumed={0: 10}).held
    assert not proof(status=-9, committed={0: 4}, resumed={0: 3}).held


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    lines = ["id,city,note"] + [
        f'{number},{"Rome" if number % 3 else f"c{number}"},"a, {number}"' for number in range(1500)
    ]
    (tmp_path / "mine.csv").write_text("\n".join(lines) + "\n")
    ran = demo(tmp_path, "--input", "mine.csv", "--key", "city", "--rate", 1500, "--plot", "p.png")
    assert ran.returncode == 0, ran.stderr + ran.stdout
    assert "Rome 66.7 %" in ran.stdout and "✘" not in ran.stdout
    assert (tmp_path / "p.png").stat().st_size > 10_000
    code, found = result(tmp_path, "--input", "mine.csv", "--key", "city", "--rate", 1500, "--break", "alter")
    assert code == 1 and {proof["name"] for proof in found["proofs"] if not proof["held"]} == {"log-equal"}


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["--input", "no.csv", "--key", "a"], 3, "there is no file no.csv"),
        (["--input", "mine.csv"], 2, "Give --key"),
        (["--key", "a"], 2, "belongs to --input"),
        (["--input", "mine.csv", "--key", "x"], 3, "one of a, b"),
        (["--input", "empty.csv", "--key", "a"], 1, "holds no records"),
        (["--keep", "."], 2, "not an empty folder"),
        (["--rate", "fast"], 2, "--rate"),
    ],
)
def test_what_the_demo_refuses(tmp_path: Path, words: list[str], code: int, text: str) -> None:
    (tmp_path / "mine.csv").write_text("a,b\n1,2\n")
    (tmp_path / "empty.csv").write_text("a,b\n")
    ran = demo(tmp_path, "--no-plot", *words)
    assert ran.returncode == code and text in ran.stderr and ran.stderr.count("\n") == 1
    assert sorted(os.listdir(tmp_path)) == ["empty.csv", "mine.csv"]


def test_no_process_is_left_when_a_worker_fails(tmp_path: Path) -> None:
    """A row that cannot be read stops the run; the error names it, and nobody stays behind."""
    lines = ["a,b"] + [f"{number},x" for number in range(500)] + ["broken"]
    (tmp_path / "bad.csv").write_text("\n".join(lines))
    ran = demo(tmp_path, "--no-plot", "--input", "bad.csv", "--key", "a")
    assert ran.returncode == 1 and "record 501 has 1 cells" in ran.stderr
