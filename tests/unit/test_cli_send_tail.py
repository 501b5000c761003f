"""Do lines become messages and messages lines again, in every format?"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.unit.commands import Commands
from tidelog.cli.send import read_lines, split_keys
from tidelog.log import open as open_log


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Commands:
    return Commands(capsys, monkeypatch)


@pytest.fixture
def store(tmp_path: Path, run: Commands) -> Path:
    path = tmp_path / "a.log"
    run.good("create", path, "a", "--partitions", "1")
    return path


def test_lines_there_and_back(run: Commands, store: Path) -> None:
    ran = run.good("send", store, "a", stdin=b"one\ntwo\nthree")
    assert "sent 3 messages to a (written)" in ran.err
    assert run.good("tail", store, "a").out == "one\ntwo\nthree\n"
    assert run.good("tail", store, "a", "-o", "-1").out == "three\n"
    assert run.good("tail", store, "a", "-o", "1", "-c", "1").out == "two\n"
    assert run.good("tail", store, "a", "-o", "end").out == ""
    assert run.good("tail", store, "a", "-o", "@-1h", "-p", "0").out == "one\ntwo\nthree\n"
    assert run.good("tail", store, "a", "-o", "99").out == ""


def test_a_file_keys_headers_and_packing(run: Commands, store: Path, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_bytes(b"k:v\nplain\n")
    run.good("send", store, "a", tmp_path / "in.txt", "-K", ":", "-H", "src=web", "-z", "lz4", "--ack", "synced", "-q")
    run.good("send", store, "a", "-k", "fixed", stdin=b"x\n")
    shown = [json.loads(line) for line in run.good("tail", store, "a", "-J").out.splitlines()]
    assert [(one["key"], one["payload"]) for one in shown] == [("k", "v"), (None, "plain"), ("fixed", "x")]
    assert shown[0]["headers"] == ["src", "web"] and "headers" not in shown[2]
    assert [one["offset"] for one in shown] == [0, 1, 2] and {one["topic"] for one in shown} == {"a"}


def test_format_tokens_and_styles(run: Commands, store: Path) -> None:
    run.good("send", store, "a", "-k", "tea", stdin=b"green\ttab\n")
    out = run.good("tail", store, "a", "-F", r"%t[%p]@%o %k/%K %S %% %s\n").out
    assert out == "a[0]@0 tea/3 9 % green\ttab\n"
    row = run.good("tail", store, "a", "--format", "tsv").out.rstrip("\n").split("\t")
    assert row[:2] == ["0", "0"] and row[3:] == ["tea", "green\\ttab"]
    line = run.good("tail", store, "a", "--format", "table").out
    assert "tea" in line and "green\\ttab" in line
    assert run("tail", store, "a", "-F", "%q").code == 2


def test_values_are_checked_against_the_channel(run: Commands, store: Path) -> None:
    run.good("create", store, "j", "--type", "json")
    ran = run("send", store, "j", stdin=b'{"a":1}\nnot json\n')
    assert ran.code == 1 and "not json" in ran.err and "holds JSON" in ran.err
    run.good("create", store, "u", "--type", "text")
    assert run("send", store, "u", stdin=b"\xff\n").code == 1
    with open_log(store) as log:
        log.topic("rows", np.dtype([("sym", "S4"), ("px", "f8")]), partitions=1)
    run.good("send", store, "rows", stdin=b'["tea", 1.5]\n{"px": 2.0, "sym": "milk"}\n')
    assert run.good("tail", store, "rows").out == '{"sym": "tea", "px": 1.5}\n{"sym": "milk", "px": 2.0}\n'
    assert run("send", store, "rows", stdin=b"[1]\n").code == 1


def test_what_is_not_there(run: Commands, store: Path) -> None:
    assert run("tail", store, "nope").code == 3
    assert run("send", store, "nope", stdin=b"x\n").code == 3
    assert run("send", store, "a", "no-such-file").code == 3
    assert run("tail", store, "a", "-p", "9").code == 3


def test_follow_shows_what_comes_later(store: Path) -> None:
    program = [sys.executable, "-m", "tidelog.cli"]
    with open_log(store) as log:
        log["a"].send(b"before")
        with subprocess.Popen(
            [*program, "tail", "-u", store, "a", "-f"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as tail:
            assert tail.stdout is not None and tail.stderr is not None
            assert tail.stdout.readline() == b"before\n"
            log["a"].send(b"after")
            assert tail.stdout.readline() == b"after\n"
            os.kill(tail.pid, signal.SIGINT)
            assert tail.wait(30) == 130
            assert tail.stderr.read() == b""


class Slow:
    """A pipe that gives what it has."""

    def __init__(self, *parts: bytes) -> None:
        self._parts = list(parts)

    def read1(self, size: int, /) -> bytes:
        return self._parts.pop(0) if self._parts else b""


def test_lines_come_out_as_they_arrive() -> None:
    assert list(read_lines(Slow(b"a\nb", b"c", b"\nd\n", b"e"))) == [[b"a"], [b"bc", b"d"], [b"e"]]
    assert list(read_lines(Slow(b"\n\n"))) == [[b"", b""]]
    assert list(read_lines(Slow())) == []


def test_keys_are_split_off() -> None:
    assert split_keys([b"k:v:w", b"x"], b":", None) == ([b"k", None], [b"v:w", b"x"])
    assert split_keys([b"x"], None, b"k") == ([b"k"], [b"x"])
    assert split_keys([b"x"], None, None) == (None, [b"x"])
