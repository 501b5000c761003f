"""Does the command line find its commands, and does every end become the right exit code and one line?"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.commands import Commands
from tidelog.cli import COMMANDS, common
from tidelog.errors import ChannelNotFound, Corrupt, Locked, NoSpace


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Commands:
    return Commands(capsys, monkeypatch)


def test_without_a_command_help_goes_to_stderr(run: Commands) -> None:
    ran = run()
    assert ran.code == 2 and ran.out == "" and "usage: tidelog COMMAND" in ran.err


@pytest.mark.parametrize("word", ["--help", "-h", "help"])
def test_help_lists_every_command(run: Commands, word: str) -> None:
    ran = run.good(word)
    for name, summary in COMMANDS.items():
        assert f"{name} " in ran.out and summary in ran.out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_examples(run: Commands, name: str) -> None:
    ran = run.good(name, "--help")
    assert ran.out.startswith(f"usage: tidelog {name}")
    assert f"  tidelog {name}" in ran.out or f"| tidelog {name}" in ran.out
    assert run.good("help", name).out == ran.out


@pytest.mark.parametrize("name", COMMANDS)
def test_an_unknown_option_is_a_usage_error(run: Commands, name: str) -> None:
    ran = run(name, "--no-such-option")
    assert ran.code == 2 and ran.out == ""
    assert ran.err.startswith("tidelog: ") and ran.err.count("\n") == 1 and f"tidelog {name} --help" in ran.err


def test_a_wrong_command_is_answered_with_a_near_one(run: Commands) -> None:
    ran = run("taill")
    assert ran.code == 2 and "`tidelog tail`" in ran.err
    assert "before the command" in run("--format", "json", "ls").err


def test_version(run: Commands) -> None:
    assert run.good("--version").out.startswith("tidelog ")


LOOKING = [
    ("ls",),
    ("info", "x"),
    ("offsets",),
    ("check",),
    ("tail", "x"),
    ("trim", "x", "--before", "1"),
    ("drop", "x"),
]


@pytest.mark.parametrize("words", LOOKING, ids=lambda words: words[0])
def test_only_create_makes_a_store(run: Commands, tmp_path: Path, words: tuple[str, ...]) -> None:
    for place in (tmp_path / "nothing.log", tmp_path):
        ran = run(words[0], "-u", place, *words[1:])
        assert ran.code == 3 and "tidelog create" in ran.err
        assert os.listdir(tmp_path) == []


def test_without_a_store_it_says_how_to_name_one(run: Commands) -> None:
    ran = run("ls")
    assert ran.code == 2 and "TIDELOG_URL" in ran.err


def test_the_store_may_come_from_the_environment(
    run: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDELOG_URL", str(tmp_path / "a.log"))
    run.good("create", "orders")
    assert [row["channel"] for row in run.good("ls", "--format", "json").json] == ["orders"]


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (common.CommandError("no", common.Exit.USAGE), 2, "no"),
        (Corrupt("bad bytes", file="a", position=3, command="tidelog check x --repair"), 4, "run: tidelog check x"),
        (ChannelNotFound("there is no channel"), 3, "there is no channel"),
        (Locked("held"), 1, "held"),
        (NoSpace("full", errno=28), 1, "full"),
        (FileNotFoundError(2, "No such file", "in.csv"), 3, "in.csv is not there"),
        (PermissionError(13, "Permission denied", "in.csv"), 1, "in.csv: Permission denied"),
        (ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib"), 3, "pip install matplotlib"),
        (MemoryError(), 1, "out of memory"),
        (RuntimeError("what\nnow"), 1, "what now (RuntimeError)"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_errors_are_one_line_and_a_code(error: Exception, code: int, text: str) -> None:
    said, found = common.explain(error)
    assert found == code and text in said and "\n" not in said


def test_a_closed_pipe_and_python_m(tmp_path: Path) -> None:
    """`tidelog ... | head -1` ends well; the module runs as the program does."""
    store = tmp_path / "a.log"
    program = [sys.executable, "-m", "tidelog.cli"]
    subprocess.run([*program, "create", store, "a"], check=True, capture_output=True)
    lines = b"".join(b"%d\n" % number for number in range(200_000))
    subprocess.run([*program, "send", "-u", store, "a"], input=lines, check=True, capture_output=True)
    with subprocess.Popen([*program, "tail", "-u", store, "a", "-o", "beginning"], stdout=subprocess.PIPE) as tail:
        assert tail.stdout is not None
        tail.stdout.readline()
        tail.stdout.close()
        assert tail.wait(60) == 0
