"""Does `tidelog chaos` find the duplicate and the loss that an application has, at the right step, and nothing in one
that is right?

The application is docs/examples/kill_every_step. Where a kill must lead to a duplicate or a loss, and where it cannot,
follows from where its commit stands; each step is tried by itself and held against that.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
EXAMPLE = ROOT / "docs" / "examples" / "kill_every_step" / "app.py"
SECONDS = 110


def chaos(folder: Path, *words: str, target: Path = EXAMPLE) -> subprocess.CompletedProcess[str]:
    """`tidelog chaos` as a user runs it, in a directory that has nothing in it afterwards."""
    command = [sys.executable, "-m", "tidelog.cli", "chaos", str(target), "--seed", "5", "-q", *words]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDELOG_")}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS, stdin=subprocess.DEVNULL
    )
    assert done.returncode in (0, 1), done.stderr
    assert not [path for path in folder.iterdir() if path.suffix in (".log", ".sqlite")], "only its own directories"
    return done


def document(folder: Path, *words: str, target: Path = EXAMPLE) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """(exit code, the whole, the handlers by name) of --format json."""
    done = chaos(folder, *words, "--format", "json", target=target)
    whole = json.loads(done.stdout)
    assert whole["ok"] == (done.returncode == 0)
    return done.returncode, whole, {one["handler"]: one for one in whole["handlers"]}


def test_the_whole(tmp_path: Path) -> None:
    code, whole, handlers = document(tmp_path, "--expect", "exactly-once", "--random", "5")
    assert code == 1
    assert whole["messages"] == 5 and whole["kills"] > 40 and not whole["not_reached"]
    bill, charge, ship, confirm = (handlers[name] for name in ("bill", "charge", "ship", "confirm"))
    for right in (bill, confirm):
        assert right["ok"] and right["verdict"] == "exactly once" and right["effects"] == 5 and right["kills"] >= 13
        assert right["story"] is None
    assert not charge["ok"] and charge["duplicates"] and not charge["lost"] and not charge["unexpected"]
    assert charge["killed_at"].startswith(("charge/after-effect", "charge/after-handler", "charge/before-commit"))
    killed = [line for line in charge["story"]["steps"] if line.endswith("HERE THE PROCESS IS KILLED")]
    assert len(killed) == 1
    assert sum("is done" in line for line in charge["story"]["steps"]) == 2
    assert charge["story"]["so"].endswith("is there twice, and should be there once.")
    assert not ship["ok"] and ship["lost"] and not ship["duplicates"] and not ship["unexpected"]
    assert ship["killed_at"].startswith(("ship/received", "ship/before-handler", "ship/before-effect"))
    assert ship["story"]["steps"][-1] == "the application is started again, and the message does not come again"


@pytest.mark.parametrize(
    ("step", "charged_twice"),
    [
        ("charge/received", 0),
        ("charge/before-handler", 0),
        ("charge/before-effect", 0),
        ("charge/after-effect", 3),
        ("charge/after-handler", 3),
        ("charge/before-commit", 3),
        ("charge/after-commit", 0),
    ],
)
def test_where_a_kill_leads_to_a_duplicate(tmp_path: Path, step: str, charged_twice: int) -> None:
    _, whole, handlers = document(tmp_path, "--expect", "charge=exactly-once", "--only", step)
    assert whole["kills"] == (1 if step == "charge/received" else 3)
    assert (handlers["charge"]["duplicates"], handlers["charge"]["lost"]) == (charged_twice, 0)
    assert handlers["charge"]["ok"] == (charged_twice == 0)
    assert handlers["bill"]["ok"]


@pytest.mark.parametrize(
    ("step", "lost"),
    [
        ("ship/received", 3),
        ("ship/before-handler", 3),
        ("ship/before-effect", 3),
        ("ship/after-effect", 0),
        ("ship/after-handler", 0),
    ],
)
def test_where_a_kill_leads_to_a_loss(tmp_path: Path, step: str, lost: int) -> None:
    code, whole, handlers = document(tmp_path, "--only", step)
    assert whole["kills"] == 3
    assert (handlers["ship"]["lost"], handlers["ship"]["duplicates"]) == (lost, 0)
    assert code == (1 if lost else 0)
    assert handlers["bill"]["ok"]


def test_the_right_one_is_right_at_every_step(tmp_path: Path) -> None:
    _, whole, handlers = document(tmp_path, "--only", "bill", "--expect", "bill=exactly-once")
    assert whole["kills"] == handlers["bill"]["kills"] >= 13
    assert handlers["bill"]["ok"] and handlers["bill"]["verdict"] == "exactly once"


def test_a_promise_that_is_kept_is_told_in_a_line(tmp_path: Path) -> None:
    words = ["--expect", "ship=at-most-once", "--only", "charge/after-effect/charge@1", "--only", "ship/received@1"]
    done = chaos(tmp_path, *words)
    assert done.returncode == 0, done.stdout
    rows = [line.split("  ") for line in done.stdout.splitlines()[:5]]
    assert [row[0] for row in rows] == ["handler", "bill", "charge", "ship", "confirm"]
    assert re.search(r"^charge: at least once, as promised: \d kills? led to a duplicate", done.stdout, re.M)
    assert re.search(
        r"^ship: at most once, as promised: \d kills? led to a loss, for example ship/rec", done.stdout, re.M
    )
    assert "HERE THE PROCESS IS KILLED" not in done.stdout
    assert "HERE THE PROCESS IS KILLED" in chaos(tmp_path, *words, "-v").stdout
    assert done.stdout.rstrip().endswith("seed 5: every handler kept what is expected of it")


def test_a_story_can_be_played_again(tmp_path: Path) -> None:
    # A kill hits what the others have in hand, too: what ship loses is no story here.
    expected = ("--expect", "charge=exactly-once", "--expect", "ship=at-most-once")
    done = chaos(tmp_path, "--only", "charge/after-handler", *expected)
    assert done.returncode == 1 and "NOT KEPT by charge" in done.stdout
    (again,) = [line.split()[-1] for line in done.stdout.splitlines() if line.startswith("  Again: tidelog chaos")]
    _, whole, handlers = document(tmp_path, "--only", again, *expected)
    assert (whole["kills"], handlers["charge"]["duplicates"], handlers["charge"]["killed_at"]) == (1, 1, again)


def test_rows_for_programs(tmp_path: Path) -> None:
    done = chaos(tmp_path, "--only", "ship/before-effect/ship@2", "--format", "tsv")
    heading, *rows = [line.split("\t") for line in done.stdout.splitlines()]
    ship = dict(zip(heading, rows[2], strict=True))
    assert done.returncode == 1 and len(rows) == 4
    assert (ship["handler"], ship["lost"], ship["ok"], ship["killed_at"]) == (
        "ship",
        "1",
        "False",
        "ship/before-effect/ship@2",
    )


SERVICE = """
import tidelog
from tidelog import Batch
from tidelog.testing import effect

app = tidelog.App("service", url="service.log")
orders = app.queue("orders", int, partitions=2)
invoices = app.topic("invoices", int)
parcels = app.queue("parcels", int)
prices = app.queue("prices", str, reply=int)
bad = app.queue("bad", int)
later = []

@app.on(orders, sends=invoices, concurrency="key")
def bill(order: int) -> int:
    return order * 10

@app.on(invoices, group="books")
async def book(invoice: int) -> None:
    effect("book", invoice)
    parcels.send(invoice // 10)

@app.on(parcels)
def pack(some: Batch[int]) -> None:
    for one in some.values:
        effect("pack", one)

@app.answers(prices)
async def quote(sku: str) -> int:
    return len(sku)

@app.on(bad, dead_letter="bad.dead", concurrency=3)
def fail(number: int) -> None:
    raise ValueError(number)

@app.on("notes")
def note(data: bytes) -> None:
    later.append(data)          # committed before it is done
    if len(later) == 2:
        while later:
            effect("note", later.pop().decode())

def chaos_inputs():
    for number in range(1, 5):
        yield orders, number, str(number)
        yield prices, "x" * number
        yield bad, number
        yield "notes", b"%d" % number
"""


def test_every_kind_of_handler(tmp_path: Path) -> None:
    """Returned, sent by itself, batches, answers, dead letters: nothing is lost, what has no message id is doubled by a
    kill between the send and the commit, and whoever stands behind is not blamed for it. Work that is put off is lost.
    """
    service = tmp_path / "service.py"
    service.write_text(SERVICE)
    steps = ["bill/after-send", "book/after-send", "pack/after-effect", "quote/after-send", "fail/after-send"]
    only = [word for step in [*steps, "note/after-commit"] for word in ("--only", step)]
    code, whole, handlers = document(tmp_path, *only, target=service)
    assert code == 1 and not any(one["unexpected"] or one["stuck"] for one in handlers.values()), whole
    for name in ("bill", "book", "pack", "quote", "fail"):
        assert handlers[name]["ok"] and handlers[name]["lost"] == 0, (name, whole)
    assert handlers["book"]["duplicates"] and handlers["pack"]["duplicates"], whole
    assert not handlers["note"]["ok"] and handlers["note"]["lost"]
    assert handlers["note"]["killed_at"].startswith("note/after-commit")
    _, whole, handlers = document(tmp_path, "--only", "book/after-send", "--expect", "exactly-once", target=service)
    assert handlers["book"]["duplicates"] == whole["kills"], whole
    # One more parcel, packed once more: that is right.
    assert handlers["pack"]["lost"] == 0 and not handlers["pack"]["unexpected"], whole


def test_an_application_that_a_kill_stops(tmp_path: Path) -> None:
    service = tmp_path / "service.py"
    service.write_text(
        "import pathlib\nimport tidelog\napp = tidelog.App('once', url='once.log')\n"
        "@app.on(app.queue('orders', int))\n"
        "def make(order: int) -> None:\n    pathlib.Path(f'order-{order}').mkdir()\n"
        "def chaos_effects():\n    return [path.name for path in pathlib.Path('.').glob('order-*')]\n"
    )
    code, _, handlers = document(tmp_path, "--only", "make/after-handler@1", target=service)
    assert code == 1 and handlers["make"]["stuck"] == 1
    assert handlers["make"]["verdict"].startswith("does not go on after 1 kill")
    assert "FileExistsError" in " ".join(handlers["make"]["story"]["steps"])


def test_everything_is_kept_when_asked_for(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tidelog.cli", "chaos", EXAMPLE, "-q", "--only", "bill/received", "--keep"],
        cwd=tmp_path,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    (kept,) = tmp_path.glob("tidelog-chaos-*")
    assert f"everything is in {kept}" in done.stdout
    assert {path.name for path in kept.iterdir()} == {"inputs", "run-1", "run-2", "run-3"}
    assert (kept / "run-3" / "journal").read_text().count('"before-handler"') >= 5
    assert (kept / "run-3" / "here" / "bills.sqlite").exists()
