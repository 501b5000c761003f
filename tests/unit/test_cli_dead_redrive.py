"""Do `tidelog dead` and `tidelog redrive` show dead letters, and send each of them back once?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import tidelog
from tests.unit.commands import Commands
from tidelog.app.dead_letter import DeadLetters


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Commands:
    return Commands(capsys, monkeypatch)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "shop.log"
    with tidelog.open(path):
        yield path


def died(store: Path, number: int, *, key: str, error: Exception, attempts: int = 3, **headers: str) -> None:
    """One message that was sent to orders and could not be handled."""
    with tidelog.open(store) as log:
        orders = log.queue("orders", str, partitions=1)
        receipt = orders.send(f"order {number}", key=key, headers=headers, id=headers.pop("id", None))
        (message,) = orders.read([receipt.offset])
        DeadLetters(log.queue("orders.dead", partitions=1, carries="document"), "orders").put(message, error, attempts)


@pytest.fixture
def four(store: Path) -> Path:
    died(store, 0, key="tea", error=ValueError("no tea"), src="web")
    died(store, 1, key="milk", error=ConnectionError("no\nline"), attempts=5)
    died(store, 2, key="tea", error=tidelog.Timeout("late"), src="till")
    died(store, 3, key="rice", error=ValueError("no rice"), src="web", id="web-3")
    return store


def sent_back(store: Path, channel: str = "orders") -> list[tuple[str, bytes | None, dict[str, bytes]]]:
    """What came to the channel by a redrive."""
    with tidelog.open(store) as log:
        found = [message for message in log[channel].scan() if "redriven" in message.headers]
        return [(message.raw.decode(), message.key, dict(message.headers)) for message in found]


def test_dead_shows_where_each_came_from_and_why(run: Commands, four: Path) -> None:
    shown = run.good("dead", four, "orders.dead", "--format", "json").json
    assert [(row["offset"], row["from"], row["attempts"], row["error"], row["error_text"]) for row in shown] == [
        (0, "orders-0@0", 3, "ValueError", "no tea"),
        (1, "orders-0@1", 5, "ConnectionError", "no\nline"),
        (2, "orders-0@2", 3, "Timeout", "late"),
        (3, "orders-0@3", 3, "ValueError", "no rice"),
    ]
    assert shown[0]["key"] == "tea" and shown[0]["value"] == "order 0" and "ValueError: no tea" in shown[0]["traceback"]
    assert not any(row["done"] for row in shown)
    table = run.good("dead", four, "orders.dead").out
    assert "Traceback" not in table and "orders-0@1" in table and table.count("\n") == 5
    header, *lines = run.good("dead", four, "orders.dead", "--format", "tsv", "-c", "2").rows
    assert len(lines) == 2 and lines[1][header.index("error_text")] == "no\\nline"


@pytest.mark.parametrize(
    ("where", "offsets"),
    [
        (["--where", "error=ValueError"], [0, 3]),
        (["--where", "error=Timeout"], [2]),
        (["--where", "error-text=late"], [2]),
        (["--where", "key=tea"], [0, 2]),
        (["--where", "src=web", "--where", "key=tea"], [0]),
        (["--where", "src=nobody"], []),
        (["--offset", "0:1", "--offset", "3"], [1, 3]),
        (["--offset", "0:1", "--where", "key=tea"], []),
    ],
)
def test_both_commands_choose_alike(run: Commands, four: Path, where: list[str], offsets: list[int]) -> None:
    shown = run.good("dead", four, "orders.dead", *where, "--format", "json").json
    assert [row["offset"] for row in shown] == offsets
    dry = run.good("redrive", four, "orders.dead", *where, "--dry-run", "--format", "json").json
    assert [(row["offset"], row["status"]) for row in dry] == [(offset, "would be sent") for offset in offsets]
    assert sent_back(four) == []
    rows = run.good("redrive", four, "orders.dead", *where, "--format", "json").json
    assert [(row["offset"], row["status"], row["to"]) for row in rows] == [(o, "sent", "orders") for o in offsets]
    assert [text for text, _, _ in sent_back(four)] == [f"order {offset}" for offset in offsets]
    left = run.good("dead", four, "orders.dead", "--format", "json").json
    assert [row["offset"] for row in left] == [offset for offset in range(4) if offset not in offsets]


def test_what_goes_back_is_what_came(run: Commands, four: Path) -> None:
    run.good("redrive", four, "orders.dead", "--all")
    assert sent_back(four)[0] == ("order 0", b"tea", {"src": b"web", "redriven": b"1"})
    assert sent_back(four)[3] == ("order 3", b"rice", {"src": b"web", "message-id": b"web-3", "redriven": b"1"})


def test_running_it_twice_sends_nothing_twice_in_any_order(run: Commands, four: Path) -> None:
    choices = [["--offset", "0:2"], ["--where", "key=tea"], ["--all"], ["--all"], ["--offset", "0:2"]]
    counts = [
        len(run.good("redrive", four, "orders.dead", *choice, "--format", "json").json) for choice in choices
    ]  # fmt: skip
    assert counts == [1, 1, 2, 0, 0]
    assert sorted(text for text, _, _ in sent_back(four)) == [f"order {number}" for number in range(4)]
    everything = run.good("dead", four, "orders.dead", "--all", "--format", "json").json
    assert [row["done"] for row in everything] == [True] * 4
    said = run.good("dead", four, "orders.dead")
    assert said.out == "" and "no dead letters" in said.err
    assert "nothing to send back" in run.good("redrive", four, "orders.dead", "--all").err
    with tidelog.open(four) as log:
        assert not list(log["orders.dead.redriven"].scan()), "what was remembered is forgotten when it is not needed"
        (row,) = log["orders.dead"].offsets()
        assert (row.offset, row.lag) == (4, 0)
    died(four, 4, key="new", error=ValueError("again"))
    (row,) = run.good("redrive", four, "orders.dead", "--all", "--format", "json").json
    assert row["offset"] == 4


def test_a_message_that_comes_back_again_and_again_is_refused(run: Commands, store: Path) -> None:
    died(store, 0, key="a", error=ValueError("no"), redriven="2")
    died(store, 1, key="b", error=ValueError("no"), redriven="3")
    ran = run("redrive", store, "orders.dead", "--all", "--format", "json")
    assert ran.code == 1 and "add --force" in ran.err
    assert [(row["status"], row["redriven"]) for row in ran.json] == [("sent", 3), ("refused", 3)]
    assert [headers["redriven"] for _, _, headers in sent_back(store)[-1:]] == [b"3"]
    assert run("redrive", store, "orders.dead", "--all", "--limit", "3").code == 1
    assert run("redrive", store, "orders.dead", "--all", "--limit", "-1").code == 2
    (row,) = run.good("redrive", store, "orders.dead", "--all", "--limit", "4", "--format", "json").json
    assert (row["offset"], row["redriven"]) == (1, 4)
    died(store, 2, key="c", error=ValueError("no"), redriven="99")
    (row,) = run.good("redrive", store, "orders.dead", "--all", "--force", "--format", "json").json
    assert row["status"] == "sent"
    died(store, 3, key="d", error=ValueError("no"), redriven="not a number")
    (row,) = run.good("redrive", store, "orders.dead", "--all", "--format", "json").json
    assert row["redriven"] == 1


def test_channels_that_are_gone_and_messages_that_are_no_dead_letters(run: Commands, four: Path) -> None:
    with tidelog.open(four) as log:
        log["orders.dead"].send(b"written by hand", key="x")
        log.drop("orders")
        log.queue("elsewhere", int, partitions=1)
    ran = run("redrive", four, "orders.dead", "--all", "--format", "json")
    assert ran.code == 1 and ran.err.count("--to") == 2
    assert [row["status"] for row in ran.json] == ["no channel"] * 4 + ["no dead letter"]
    rows = run.good("redrive", four, "orders.dead", "--all", "--to", "elsewhere", "--format", "json").json
    assert [row["status"] for row in rows] == ["sent"] * 5
    assert len(sent_back(four, "elsewhere")) == 5


def test_going_slowly(run: Commands, four: Path) -> None:
    begun = time.monotonic()
    run.good("redrive", four, "orders.dead", "--all", "--max-per-second", "20")
    assert time.monotonic() - begun >= 3 / 20


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["redrive", "orders.dead"], 2, "which ones?"),
        (["redrive", "orders.dead", "--all", "--max-per-second", "0"], 2, "above zero"),
        (["redrive", "orders.dead", "--where", "nonsense"], 2, "name=value"),
        (["redrive", "orders.dead", "--offset", "x:1"], 2, "PARTITION:OFFSET"),
        (["redrive", "orders.dead", "--offset", "0:99"], 3, "no message at 0:99"),
        (["redrive", "orders.dead", "--offset", "7:0"], 3, "no message at 7:0"),
        (["redrive", "orders.dead", "--all", "--to", "orders.dead"], 1, "cannot be sent to"),
        (["redrive", "nothing", "--all"], 3, "nothing"),
        (["dead", "orders.dead", "--offset", "0:99"], 3, "no message at 0:99"),
        (["dead", "nothing"], 3, "nothing"),
        (["dead"], 2, "one dead-letter channel"),
    ],
)
def test_what_is_refused(run: Commands, four: Path, words: list[str], code: int, says: str) -> None:
    command, *rest = words
    ran = run(command, four, *rest)
    assert (ran.code, says in ran.err) == (code, True), ran.err
    assert sent_back(four) == []
