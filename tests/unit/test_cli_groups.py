"""Do groups, lag and reset do what they say, in every format, once and again and again, and from any process?

The live table is drawn on a pseudo-terminal of its own. Rates are computed from looks that are made up here.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import tidelog
from tests.unit.commands import Commands
from tidelog.cli.lag_rates import Rates, drains, drains_in


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Commands:
    return Commands(capsys, monkeypatch)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A topic that two groups have read in part, and a queue that nobody has read."""
    path = tmp_path / "shop.log"
    with tidelog.open(path) as log:
        topic = log.topic("prices", partitions=2)
        for number in range(40):
            topic.send(b"%d" % number, partition=number % 2)
        log.queue("orders", partitions=1).send_many([b"x"] * 7)
        log.groups.reset("audit", "earliest", channel="prices")
        log.groups.reset("billing", 15, channel="prices", partition=0)
    return path


# --- reply channels ---


def test_reply_channels_of_questions_are_listed_only_when_asked_for(run: Commands, tmp_path: Path) -> None:
    store = tmp_path / "shop.log"
    with tidelog.open(store) as log:
        quotes = log.queue("quotes", str, reply=str, partitions=1)
        log.queue("reply.durable", partitions=1)
        with quotes.ask("tea", timeout=0.1) as replies:
            list(replies)
        (own,) = [name for name in log if name not in ("quotes", "reply.durable")]
        with quotes.consumer() as consumer:
            consumer.receive(timeout=5)
            for command, column, usual in (
                ("ls", "channel", ["quotes", "reply.durable"]),
                ("groups", "group", ["quotes"]),
                ("lag", "group", ["quotes"]),
            ):
                found = run.good(command, store, "--format", "json").json
                assert [row[column] for row in found] == usual
                found = run.good(command, store, "--all", "--format", "json").json
                assert sorted(row[column] for row in found) == sorted([*usual, own])
                if command != "ls":
                    assert run.good(command, store, own).out
            watched = ("lag", store, "--watch", "-c", "1", "--format", "tsv")
            assert own not in run.good(*watched).out and own in run.good(*watched, "--all").out


# --- groups ---


def test_list(run: Commands, store: Path) -> None:
    found = run.good("groups", store, "--format", "json").json
    assert [(row["group"], row["state"], row["members"], row["channels"], row["lag"]) for row in found] == [
        ("audit", "empty", 0, ["prices"], 40),
        ("billing", "empty", 0, ["prices"], 25),  # 5 of one partition, and the other as a whole
    ]
    assert all(0 <= row["lag_seconds"] < 60 for row in found)
    lines = run.good("groups", store).out.splitlines()
    assert lines[0].split() == ["group", "state", "members", "channels", "partitions", "lag", "lag", "time"]
    assert lines[1].split()[:6] == ["audit", "empty", "0", "prices", "2", "40"]
    assert run.good("groups", store, "--format", "tsv").rows[2][0] == "billing"


def test_describe(run: Commands, store: Path) -> None:
    with tidelog.open(store) as log, log["prices"].consumer("audit", member="teller") as consumer:  # type: ignore[attr-defined]
        consumer.receive(timeout=5)
        found = run.good("groups", store, "audit", "--format", "json").json
        text = run.good("groups", store, "audit").out
        rows = run.good("groups", store, "audit", "--format", "tsv").rows
    (member,) = found["members"]
    assert found["state"] == "stable"
    assert (member["member"], member["pid"], member["state"]) == ("teller", os.getpid(), "active")
    assert sorted(member["partitions"]) == ["prices-0", "prices-1"]
    assert [(row["partition"], row["member"]) for row in found["offsets"]] == [(0, "teller"), (1, "teller")]
    assert text.startswith("audit  stable, 1 member, lag 40, ")
    assert "prices-0, prices-1" in text
    assert rows[0][:3] == ["channel", "partition", "committed"]
    assert [row[:3] for row in rows[1:]] == [["prices", "0", "0"], ["prices", "1", "0"]]


def test_delete(run: Commands, store: Path) -> None:
    assert run("groups", store, "audit", "--delete").code == 2, "without a terminal nobody can be asked"
    assert run("groups", store, "--delete", "--yes").code == 2
    assert run("groups", store, "audit", "--yes").code == 2, "it would be ignored"
    assert "is removed" in run.good("groups", store, "audit", "--delete", "--yes").out
    assert [row["group"] for row in run.good("groups", store, "--format", "json").json] == ["billing"]
    assert run("groups", store, "audit", "--delete", "--yes").code == 3


def test_nothing_there(run: Commands, tmp_path: Path, store: Path) -> None:
    for command in ("groups", "lag"):
        assert run(command, store, "nope").code == 3
        assert "there is no group 'nope'" in run(command, store, "nope").err
        assert run(command, tmp_path / "nowhere", "x").code == 3
    with tidelog.open(tmp_path / "empty.log"):
        pass
    for command in ("groups", "lag"):
        ran = run.good(command, tmp_path / "empty.log")
        assert (ran.out, ran.err) == ("", "no group has read anything yet\n")
        assert run.good(command, tmp_path / "empty.log", "--format", "json").json == []


# --- lag ---


def test_lag_once(run: Commands, store: Path) -> None:
    found = run.good("lag", store, "--format", "json").json
    assert [(row["group"], row["channel"], row["members"], row["lag"]) for row in found] == [
        ("audit", "prices", 0, 40),
        ("billing", "prices", 0, 25),
    ]
    assert [row["group"] for row in run.good("lag", store, "billing", "--format", "json").json] == ["billing"]
    lines = run.good("lag", store).out.splitlines()
    assert lines[0].split() == ["group", "channel", "members", "lag", "lag", "time"]
    assert lines[2].split()[:4] == ["billing", "prices", "0", "25"]
    for words in (["--interval", "1s"], ["-c", "3"], ["--watch", "--interval", "soon"], ["--watch", "-c", "0"]):
        assert run("lag", store, *words).code == 2, words


def test_watching_on_a_pipe(run: Commands, store: Path) -> None:
    text = run.good("lag", store, "audit", "--watch", "--interval", "50ms", "-c", "3").out.splitlines()
    assert text[0].split()[:4] == ["time", "group", "channel", "members"]
    assert len(text) == 4
    assert text[1].split()[1:5] == ["audit", "prices", "0", "40"]
    assert text[3].endswith("never, nobody reads")
    lines = run.good("lag", store, "--watch", "--interval", "50ms", "-c", "2", "--format", "json").out.splitlines()
    found = [json.loads(line) for line in lines]
    assert [row["group"] for row in found] == ["audit", "billing"] * 2
    assert [row["in_per_s"] for row in found] == [None, None, 0.0, 0.0]
    rows = run.good("lag", store, "--watch", "--interval", "50ms", "-c", "2", "--format", "tsv").rows
    assert rows[0][0] == "time"
    assert len({len(row) for row in rows}) == 1
    assert len(rows) == 5


def test_watching_what_comes_and_goes(run: Commands, store: Path) -> None:
    """Another process opens the store, sends, reads and closes it between two looks of this one."""
    code = "import sys, tidelog; log = tidelog.open(sys.argv[1]); log['prices'].send_many([b'x'] * 1000, partition=0)"
    command = [sys.executable, "-m", "tidelog.cli", "lag", str(store), "billing", "--watch", "--interval", "100ms"]
    with subprocess.Popen([*command, "--format", "json"], stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        try:
            assert json.loads(watching.stdout.readline())["lag"] == 25
            subprocess.run([sys.executable, "-c", code, str(store)], check=True, timeout=60)
            assert any(json.loads(line)["lag"] == 1025 for line in watching.stdout)
        finally:
            watching.kill()
    with tidelog.open(store) as log:
        assert log.engine.store.recovery["clean"], "nobody was kept from closing it in order"  # type: ignore[attr-defined]


class Terminal:
    """A program on a pseudo-terminal."""

    def __init__(self, *words: object, columns: int = 120) -> None:
        self._fd, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
        self._before = termios.tcgetattr(self._fd)
        environment = {**os.environ, "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"}
        environment.pop("COLUMNS", None)  # of the terminal the tests run in
        command = [sys.executable, "-m", "tidelog.cli", *map(str, words)]
        self.process = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # so that Ctrl-C reaches it
        )
        os.close(theirs)
        self.seen = ""

    def until(self, text: str, seconds: float = 60.0) -> None:
        """Read what it draws until `text` was drawn."""
        start, end = len(self.seen), time.monotonic() + seconds
        while text not in self.seen[start:]:
            assert time.monotonic() < end, f"{text!r} was not drawn: {self.seen[start:]!r}"
            self._read()

    def _read(self) -> None:
        if select.select([self._fd], [], [], 0.1)[0]:
            try:
                self.seen += os.read(self._fd, 65536).decode("utf-8", "replace")
            except OSError as error:  # it has ended
                raise AssertionError(f"it ended: {self.seen!r}") from error

    def type(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def ended(self) -> int:
        """Wait for its end, reading on, and answer the exit code."""
        while self.process.poll() is None:
            try:
                self._read()
            except AssertionError:
                break
        return self.process.wait(60)

    def is_as_before(self) -> bool:
        """Whether the terminal shows what is typed again, line by line."""
        now = termios.tcgetattr(self._fd)
        return bool(now[3] == self._before[3])

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._fd)


@contextmanager
def terminal(*words: object, columns: int = 120) -> Iterator[Terminal]:
    made = Terminal(*words, columns=columns)
    try:
        yield made
    finally:
        made.close()


def test_watching_on_a_terminal(store: Path) -> None:
    with terminal("lag", store, "--watch", "--interval", "100ms") as screen:
        screen.until("q quits")
        screen.until("billing")
        screen.type("s")
        screen.until("by lag")
        with tidelog.open(store) as log:
            log["prices"].send_many([b"x"] * 3000, partition=0)
            screen.until("3 025")
        screen.type("q")
        assert screen.ended() == 0
        assert screen.is_as_before()


def test_watching_on_a_narrow_terminal_leaves_columns_out(store: Path) -> None:
    """Squeezed, every heading and name would be folded into pieces."""
    for columns, has, has_not in ((40, ["group", "channel", "lag"], ["in/s", "members"]), (20, ["lag"], ["channel"])):
        with terminal("lag", store, "--watch", "--interval", "100ms", "-c", "2", columns=columns) as screen:
            assert screen.ended() == 0
        lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.seen).splitlines()
        (heading, *_) = [line for line in lines if re.match(r"\s*group\s+.*lag", line)]
        assert all(word in heading.split() for word in has), heading
        assert not any(word in heading for word in has_not), heading
        assert any(line.lstrip().startswith("billing ") for line in lines)


def test_watching_ends_by_ctrl_c(store: Path) -> None:
    with terminal("lag", store, "--watch", "--interval", "5s") as screen:
        screen.until("billing")
        screen.type("\x03")
        assert screen.ended() == 130
        assert screen.is_as_before()


# --- rates ---


class Part(NamedTuple):
    partition: int
    log_end: int
    lag: int
    committed: int | None


def row(*parts: Part) -> dict[str, Any]:
    return {"group": "g", "channel": "c", "lag": sum(part.lag for part in parts), "parts": list(parts)}


def seen(*looks: tuple[float, dict[str, Any]]) -> dict[str, Any]:
    rates = Rates()
    for now, found in looks:
        rates.note(now, [found])
    last = looks[-1][1] | rates.of("g", "c")
    return last | {"drains": drains(last), "drains_in_s": drains_in(last)}


def test_rates_of_a_group_that_catches_up() -> None:
    found = seen((10.0, row(Part(0, 1000, 900, 100))), (12.0, row(Part(0, 1200, 500, 700))))
    assert (found["in_per_s"], found["out_per_s"]) == (100, 300)
    assert (found["drains_in_s"], found["drains"]) == (2.5, "2.5 s")


def test_rates_of_a_group_that_falls_behind() -> None:
    before, after = row(Part(0, 0, 0, 0), Part(1, 0, 0, 0)), row(Part(0, 5000, 4000, 1000), Part(1, 1, 1, None))
    found = seen((0.0, before), (1.0, after))
    assert (found["in_per_s"], found["out_per_s"]) == (5001, 1000)
    assert found["drains"] == "steady", "less than a second's traffic is on its way"
    found = seen((0.0, row(Part(0, 90_000, 90_000, 0))), (1.0, row(Part(0, 95_000, 94_000, 1000))))
    assert (found["drains"], found["drains_in_s"]) == ("never, growing 4 000/s", None)


def test_what_looks_like_reading_and_is_none() -> None:
    gap = 1 << 30  # of a power cut: the committed offset leaps over it
    found = seen((0.0, row(Part(0, gap + 100, 150, 50))), (1.0, row(Part(0, gap + 100, 90, gap + 10))))
    assert (found["in_per_s"], found["out_per_s"]) == (0, 60)
    found = seen((0.0, row(Part(0, 1000, 1000, 0))), (1.0, row(Part(0, 1000, 300, 0))))  # retention
    assert found["out_per_s"] == 0
    assert found["drains"] == "never, nobody reads"
    found = seen((0.0, row(Part(0, 1000, 100, 900))), (1.0, row(Part(0, 1000, 1000, 0))))  # reset to the start
    assert found["out_per_s"] == 0


def test_rates_are_of_the_last_seconds() -> None:
    looks = [(float(now), row(Part(0, min(now, 20) * 100, min(now, 20) * 100, 0))) for now in range(40)]
    assert seen(*looks[:20])["in_per_s"] == pytest.approx(100)
    assert seen(*looks)["in_per_s"] == 0


def test_nothing_to_drain() -> None:
    assert seen((0.0, row(Part(0, 5, 5, 0))))["drains"] is None, "one look knows no rate"
    found = seen((0.0, row(Part(0, 5, 0, 5))), (1.0, row(Part(0, 5, 0, 5))))
    assert (found["drains"], found["drains_in_s"]) == (None, 0.0)
    found = seen((0.0, row(Part(0, 5, 0, 5))), (1.0, row(Part(0, 105, 0, 105))))
    assert (found["drains"], found["drains_in_s"]) == ("steady", 0.0)


# --- reset ---


@pytest.mark.parametrize(
    ("where", "places"),
    [
        ("earliest", [0, 0]),
        ("latest", [20, 20]),
        ("+3", [18, 3]),
        ("-3", [12, 0]),
        ("@2026-01-01", [0, 0]),
        ("@-0.001s", [20, 20]),
    ],
)
def test_reset(run: Commands, store: Path, where: str, places: list[int]) -> None:
    time.sleep(0.01)
    planned = run.good("reset", store, "billing", "--to", where, "--dry-run", "--format", "json").json
    assert [(row["before"], row["after"]) for row in planned] == list(zip([15, None], places, strict=True))
    with tidelog.open(store) as log:
        assert [part.committed for part in log.groups["billing"].offsets] == [15, None]
    done = run.good("reset", store, "billing", "--to", where, "--yes", "--format", "json").json
    assert done == planned
    with tidelog.open(store) as log:
        assert [part.committed for part in log.groups["billing"].offsets] == places


def test_reset_of_one_partition(run: Commands, store: Path) -> None:
    text = run.good("reset", store, "billing", "--to", "7", "-c", "prices", "-p", "1", "--yes").out.splitlines()
    assert text[0].split() == ["channel", "part", "committed", "reset", "to"]
    assert text[1].split() == ["prices", "1", "-", "7"]
    text = run.good("reset", store, "orders", "--to", "latest", "-c", "orders", "--yes").out.splitlines()
    assert text[1].split() == ["orders", "0", "-", "7"]


def test_resets_that_are_refused(run: Commands, store: Path) -> None:
    def code(*words: str) -> int:
        return run("reset", store, *words).code

    assert code("billing", "--to", "latest") == 2, "without a terminal nobody can be asked"
    assert code("billing", "--to", "soon", "--yes") == 2
    assert code("billing", "--to", "7", "--yes") == 2
    assert code("billing", "--to", "7", "-p", "2", "--yes") == 2
    assert code("billing") == 2
    assert code("--to", "latest") == 2
    assert code("nope", "--to", "latest", "--yes") == 3
    assert code("billing", "--to", "99", "-p", "0", "--yes") == 1
    with tidelog.open(store) as log, log["prices"].consumer("billing"):  # type: ignore[attr-defined]
        ran = run("reset", store, "billing", "--to", "latest", "--yes")
        assert (ran.code, "close its consumers" in ran.err) == (1, True)
        assert run("reset", store, "billing", "--to", "latest", "--dry-run").code == 1
    with tidelog.open(store) as log:
        assert log.groups["billing"].offsets[0].committed == 15
