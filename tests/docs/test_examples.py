"""Does every example in the README and in docs/ run as it stands?

Every fenced block belongs to a kind, and every kind has a rule (docs/contributing.md repeats them for writers):

    python   run top to bottom, one namespace per file, in a directory of the file's own
    sh       run by `sh -eu` in the same directory; lines of ./dev and .ci/run are not run: their verb, lane and paths
             must exist
    console  lines after "$ " are run, what follows them is what they print ("..." stands for anything)
    json     must be JSON
    text     diagrams and layouts: not run

A fence of another kind, of none, or one that is never closed fails: nothing is left out in silence.
"""

from __future__ import annotations

import gc
import json
import os
import re
import shlex
import subprocess
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
MUST_RUN = {"README.md", "format.md", "guarantees.md"}  # pages that are nothing without examples
SECONDS = 60

FENCE = re.compile(r"^(?P<indent>\s*)(?P<marks>`{3,}|~{3,})\s*(?P<info>.*?)\s*$")


@dataclass(frozen=True)
class Fence:
    """A fenced block: its language, its text, and the line of the page on which the text begins."""

    language: str
    text: str
    line: int


class BadPage(AssertionError):
    """A page that breaks a rule of its own: where, and what to do."""


def fences(text: str) -> Iterator[Fence]:
    """The fenced blocks of a page, in order."""
    opened: re.Match[str] | None = None
    begin, body, blank = 0, [], True
    for number, line in enumerate(text.split("\n"), 1):
        found = FENCE.match(line)
        if opened is None:
            if found:
                opened, begin, body = found, number + 1, []
            elif re.search(r"<(pre|code)\b|```|~~~", re.sub(r"`[^`]+`", "", line)):
                raise BadPage(f"line {number}: this hides an example from the test; begin a fence on a line of its own")
            elif blank and line.startswith("    "):
                raise BadPage(f"line {number}: an indented block is not run; use a fence")
            blank = not line.strip()
        elif found and not found["info"] and found["marks"].startswith(opened["marks"]):
            yield Fence(opened["info"], "\n".join(body) + "\n", begin)
            opened, blank = None, False
        else:
            indent = opened["indent"]
            body.append(line[len(indent) :] if line.startswith(indent) else line.lstrip())
    if opened is not None:
        raise BadPage(f"line {begin - 1}: the fence is never closed")


class Page:
    """What the examples of one page share: a namespace and a directory."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.directory = directory
        self.module = types.ModuleType("example_" + re.sub(r"\W", "_", name))
        self.ran = 0
        # The command of this checkout, whatever the machine has installed under that name.
        programs = directory / ".bin"
        programs.mkdir()
        command = programs / "tidelog"
        command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m tidelog.cli "$@"\n')
        command.chmod(0o755)
        path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        kept = {key: value for key, value in os.environ.items() if not key.startswith("TIDELOG_")}
        self.environment = kept | {"PATH": path, "NO_COLOR": "1", "COLUMNS": "120"}

    def run(self, fence: Fence) -> None:
        """One block by the rule of its kind. Raises BadPage, or what the example raises."""
        rule = getattr(self, f"run_{fence.language}", None) if fence.language.isidentifier() else None
        if rule is None:
            raise BadPage(
                f"line {fence.line}: there is no rule for the kind {fence.language!r}: "
                f"use python, sh, console, json or text"
            )
        rule(fence)

    def run_text(self, fence: Fence) -> None:
        if re.search(r"^(>>> |\$ |import tidelog\b|from tidelog\b)", fence.text, re.M):
            raise BadPage(f"line {fence.line}: this looks like an example, but text is not run: use python or console")

    def run_json(self, fence: Fence) -> None:
        json.loads(fence.text)

    def run_python(self, fence: Fence) -> None:
        # The line numbers of a traceback are those of the page.
        code = compile("\n" * (fence.line - 1) + fence.text, self.name, "exec", dont_inherit=True)
        exec(code, self.module.__dict__)
        self.ran += 1

    def run_sh(self, fence: Fence) -> None:
        mine = []
        for number, line in enumerate(fence.text.splitlines(), fence.line):
            if line.startswith(("./dev", ".ci/run")):
                checked_command(line, number)
            else:
                mine.append(line)
        if "".join(mine).strip():
            self.shell("\n".join(mine), fence.line)
        self.ran += 1

    def run_console(self, fence: Fence) -> None:
        commands = re.split(r"^\$ ", fence.text, flags=re.M)
        if commands[0].strip() or len(commands) == 1:
            raise BadPage(f"line {fence.line}: a console block begins with '$ ' and a command")
        line = fence.line
        for command in commands[1:]:
            first, _, expected = command.partition("\n")
            compare(self.shell(first, line), expected, line)
            line += command.count("\n")
        self.ran += 1

    def shell(self, script: str, line: int) -> str:
        """What `script` prints. Raises BadPage when it fails."""
        done = subprocess.run(
            ["sh", "-eu", "-c", script],
            stdin=subprocess.DEVNULL,
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        if done.returncode != 0:
            raise BadPage(
                f"line {line}: exit code {done.returncode} from\n{script}\nstdout: {done.stdout}\nstderr: {done.stderr}"
            )
        return done.stdout


def compare(printed: str, expected: str, line: int) -> None:
    """Raise BadPage unless `printed` is `expected`, where "..." is anything; blanks at line ends do not count."""

    def tidy(text: str) -> str:
        return "\n".join(part.rstrip() for part in text.strip().splitlines())

    pattern = ".*?".join(re.escape(part) for part in tidy(expected).split("..."))
    if not re.fullmatch(pattern, tidy(printed), re.S):
        raise BadPage(f"line {line}: the page says\n{expected}\nbut the command printed\n{printed}")


def checked_command(line: str, number: int) -> None:
    """Raise BadPage if a ./dev or .ci/run line names a verb, lane or path that the project does not have."""
    words = shlex.split(line, comments=True)
    script = ROOT / words[0]
    if not script.is_file() or not os.access(script, os.X_OK):
        raise BadPage(f"line {number}: {words[0]} is no program of this project")
    text = script.read_text(encoding="utf-8")
    if words[0] == "./dev":
        verbs = re.findall(r"^    (\w+(?: \| \w+)+)\) verb=", text, re.M)
        known = set(verbs[0].split(" | ")) if verbs else set()
    else:
        known = set(re.findall(r"^lane (\S+)", text, re.M))
    if words[1:] and words[1] not in known:
        raise BadPage(f"line {number}: {words[0]} has no {words[1]!r}, only {', '.join(sorted(known))}")
    for word in words[2:]:
        path = word.partition("::")[0]
        if path.startswith(("tests/", "native/", "src/", "benchmarks/")) and not (ROOT / path).exists():
            raise BadPage(f"line {number}: there is no {path}")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_page(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Page(path.name, tmp_path)
    blocks = list(fences(path.read_text(encoding="utf-8")))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, page.module.__name__, page.module)
    for key in [key for key in os.environ if key.startswith("TIDELOG_")]:
        monkeypatch.delenv(key)
    try:
        for block in blocks:
            page.run(block)
    finally:
        page.module.__dict__.clear()
        gc.collect()  # logs that an example left open are closed before their directory goes
    if path.name in MUST_RUN:
        assert page.ran, "the page has no example that runs"


BROKEN = {
    "unknown kind": "```rust\nlet x = 1;\n```\n",
    "no kind": "```\nimport tidelog\n```\n",
    "attributes": "```python no-run\n1 / 0\n```\n",
    "never closed": "```python\nx = 1\n",
    "pre": "<pre>tidelog ls</pre>\n",
    "quoted": "> ```python\n> 1 / 0\n> ```\n",
    "beside a list mark": "- ```python\n  1 / 0\n  ```\n",
    "indented": "So:\n\n    tidelog ls\n",
    "python raises": "```python\nassert 1 == 2\n```\n",
    "second block": "```python\nx = 1\n```\n\n1. in a list\n   ```python\n   assert x == 2\n   ```\n",
    "sh fails": "```sh\nfalse\ntrue\n```\n",
    "no such command": "```sh\ntidelog no-such-command\n```\n",
    "no such verb": "```sh\n./dev fly\n```\n",
    "no such lane": "```sh\n.ci/run no-such-lane\n```\n",
    "no such path": "```sh\n./dev test tests/no-such-directory\n```\n",
    "console differs": "```console\n$ echo one\ntwo\n```\n",
    "console without command": "```console\none\n```\n",
    "not JSON": "```json\n{1}\n```\n",
    "text that should run": "```text\n$ tidelog ls\n```\n",
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_broken_page_is_seen(text: str, tmp_path: Path) -> None:
    page = Page("broken.md", tmp_path)
    with pytest.raises((AssertionError, ValueError)):
        for block in fences(text):
            page.run(block)


def test_good_page(tmp_path: Path) -> None:
    page = Page("good.md", tmp_path)
    text = (
        "```python\nx = 1\n```\n- a list\n  ```python\n  assert x == 1\n  ```\n"
        "```sh\necho one > file   # a comment\n./dev test tests/docs   # not run\n```\n"
        "````text\n```\nnot run\n```\n````\n"
        '```console\n$ cat file\none\n$ echo "a 17 b"\na ... b\n```\n```json\n{"a": [1]}\n```\n'
    )
    blocks = list(fences(text))
    for block in blocks:
        page.run(block)
    assert [block.language for block in blocks] == ["python", "python", "sh", "text", "console", "json"]
    assert page.ran == 4
