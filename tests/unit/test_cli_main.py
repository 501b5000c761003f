"""Does the command line find its commands, and does every end become the right exit code and one line?"""

from __future__ import annotations

import os
import re
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


# --- what the log says to programs, said to users of the command line ---


@pytest.fixture
def shop(run: Commands, tmp_path: Path) -> Path:
    store = tmp_path / "shop.log"
    run.good("create", store, "orders", "--kind", "queue", "--partitions", "4", "--max-message", "1KB")
    run.good("create", store, "events", "--partitions", "2")
    run.good("send", store, "events", "-p", "1", stdin=b"a\nb\n")
    return store


PYTHON = re.compile(r"\blog\.|list\(|\blog\[|\b[a-z_]+=|\w\(\)|Error\b|None\b")
"""What belongs into a program."""


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ("tail events2", 3, "see `tidelog ls`, or create it: `tidelog create`"),
        ("info nosuch", 3, "`tidelog ls`"),
        ("drop nosuch --yes", 3, "`tidelog ls`"),
        ("offsets nosuch", 3, "`tidelog ls`"),
        ("dead nosuch", 3, "`tidelog ls`"),
        ("lag nosuch", 3, "list what exists with `tidelog groups`"),
        ("groups nosuch", 3, "`tidelog groups`"),
        ("groups nosuch --delete --yes", 3, "`tidelog groups`"),
        ("reset nosuch --to 5 --yes", 3, "give -c CHANNEL, or see `tidelog groups`"),
        ("reset orders -c orders --to 5 --yes", 2, "give -p PARTITION"),
        ("reset orders -c orders --to 0 -p 9 --yes", 2, "it has 0 to 3"),
        ("reset other -c orders --to earliest --yes", 2, "whose only group"),
        ("send orders -p 99", 3, "orders has no partition 99; it has 0 to 3"),
        ("send orders", 1, "a channel made with a larger --max-message"),
        ("redrive events --all --to events", 1, "cannot be sent to events itself"),
        ("create z --partitions 100000000", 2, "--partitions 100000000 is outside"),
        ("create z --max-message 3GB", 2, "--max-message 3000000000 is outside"),
        ("create z --segment 1", 2, "--segment 1 is outside"),
    ],
)
def test_errors_name_commands_and_options(run: Commands, shop: Path, words: str, code: int, says: str) -> None:
    command, *rest = words.split()
    ran = run(command, "-u", shop, *rest, stdin=b"x" * 2000 + b"\n")
    assert ran.code == code and says in ran.err and ran.err.count("\n") == 1, ran.err
    assert not PYTHON.search(ran.err), ran.err


@pytest.mark.parametrize("words", ["lag nosuch.log", "info shop.log", "send nosuch.log orders"])
def test_a_path_that_is_no_store_is_told_as_such(
    run: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shop.log").mkdir()
    ran = run(*words.split())
    path = words.split()[1]
    why = "holds no store" if path == "shop.log" else "is no store that exists"
    assert ran.code == 2 and f"{path} {why}, and was taken" in ran.err and "TIDELOG_URL" in ran.err
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize("name", ["info", "dead", "tail", "drop", "redrive --all"])
def test_a_missing_channel_leads_to_the_help_of_the_command(run: Commands, shop: Path, name: str) -> None:
    ran = run(*name.split(), "-u", shop)
    command = name.split()[0]
    assert ran.code == 2 and f"got nothing; see `tidelog {command} --help`" in ran.err


@pytest.mark.parametrize("words", [("ls",), ("tail", "events", "-o", "beginning"), ("ls", "--format", "json")])
def test_a_full_output_is_one_line(shop: Path, words: tuple[str, ...]) -> None:
    program = [sys.executable, "-m", "tidelog.cli", words[0], "-u", str(shop), *words[1:]]
    with open("/dev/full", "wb") as full:
        ran = subprocess.run(program, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        assert ran.returncode == 1
        assert (
            ran.stderr == "tidelog: the output cannot be written: No space left on device; write it to somewhere else\n"
        )
        silent = subprocess.run([*program[:4], "nosuch.log"], stdout=full, stderr=full, check=False)
        assert silent.returncode in (2, 3)


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_closed_streams_are_empty_ones(shop: Path, closed: str) -> None:
    for words, code in (("ls", 0), ("send events", 0), ("info nosuch", 3)):
        command, *rest = words.split()
        line = f"exec {sys.executable} -m tidelog.cli {command} -u {shop} {' '.join(rest)} {closed}"
        ran = subprocess.run(line, shell=True, capture_output=True, stdin=subprocess.DEVNULL, text=True, check=False)
        assert ran.returncode == code and "Traceback" not in ran.stderr and "Errno" not in ran.stderr, ran.stderr
