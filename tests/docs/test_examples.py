"""Does every example in the README and in docs/ run as it stands?

Every fenced block belongs to a kind, and every kind has a rule (docs/contributing.md repeats them for writers):

    python   run top to bottom, one namespace per file, in a directory of the file's own; a block whose first line is
             "# NAME.py" is saved there under this name and imported, so that what follows can import and run it
    sh       run by `sh -eu` in the same directory; lines of ./dev and .ci/run are not run: their verb, lane and paths
             must exist
    console  lines after "$ " are run, what follows them is what they print ("..." stands for anything)
    json     must be JSON
    text     diagrams and layouts: not run

A fence of another kind, of none, or one that is never closed fails: nothing is left out in silence.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
GUIDES = [ROOT / "docs" / "tutorial.md", *sorted((ROOT / "docs" / "howto").glob("*.md"))]
MUST_RUN = {"README.md", "docs/format.md", "docs/guarantees.md", *(str(path.relative_to(ROOT)) for path in GUIDES)}
"""Pages that are nothing without examples."""
SECONDS = 60

SAVED = re.compile(r"# (?P<module>[a-z_]\w*)\.py\n")
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
        self.saved: list[str] = []
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
        saved = SAVED.match(fence.text)
        if saved:
            self.save(saved["module"], fence.text)
            return
        # The line numbers of a traceback are those of the page.
        code = compile("\n" * (fence.line - 1) + fence.text, self.name, "exec", dont_inherit=True)
        exec(code, self.module.__dict__)
        self.ran += 1

    def save(self, module: str, text: str) -> None:
        """A file of the page's own, as a reader would write it; importing it is running it."""
        if module not in self.saved and module in sys.modules:
            raise BadPage(f"{module}.py: there is a module of this name, choose another")
        (self.directory / f"{module}.py").write_text(text, encoding="utf-8")
        sys.modules.pop(module, None)
        self.saved.append(module)
        importlib.invalidate_caches()
        importlib.import_module(module)
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
        done = subprocess.Popen(
            ["sh", "-eu", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.directory,
            env=self.environment,
            text=True,
            start_new_session=True,
        )
        try:
            stdout, stderr = done.communicate(timeout=SECONDS)
        except BaseException:  # what it left in the background ends with it
            os.killpg(done.pid, signal.SIGKILL)
            done.communicate()
            raise
        if done.returncode != 0:
            raise BadPage(
                f"line {line}: exit code {done.returncode} from\n{script}\nstdout: {stdout}\nstderr: {stderr}"
            )
        return stdout


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
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # a file that is written twice in a second is another one
    monkeypatch.setitem(sys.modules, page.module.__name__, page.module)
    for key in [key for key in os.environ if key.startswith("TIDELOG_")]:
        monkeypatch.delenv(key)
    try:
        for block in blocks:
            page.run(block)
    finally:
        page.module.__dict__.clear()
        for module in page.saved:
            forgotten: Any = sys.modules.pop(module, None)
            if forgotten is not None:
                forgotten.__dict__.clear()
        gc.collect()  # logs that an example left open are closed before their directory goes
    if str(path.relative_to(ROOT)) in MUST_RUN:
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
    "saved file raises": "```python\n# raises_here.py\nassert 1 == 2\n```\n",
    "saved under a taken name": "```python\n# json.py\nx = 1\n```\n",
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
def test_broken_page_is_seen(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    page = Page("broken.md", tmp_path)
    with pytest.raises((AssertionError, ValueError)):
        for block in fences(text):
            page.run(block)


def test_good_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    page = Page("good.md", tmp_path)
    text = (
        "```python\n# good_page_file.py\ny = 1\n```\n```python\nimport good_page_file\nx = good_page_file.y\n```\n"
        "- a list\n  ```python\n  assert x == 1\n  ```\n"
        "```sh\necho one > file   # a comment\n./dev test tests/docs   # not run\n```\n"
        "````text\n```\nnot run\n```\n````\n"
        '```console\n$ cat file\none\n$ echo "a 17 b"\na ... b\n```\n```json\n{"a": [1]}\n```\n'
    )
    blocks = list(fences(text))
    for block in blocks:
        page.run(block)
    assert [block.language for block in blocks] == ["python"] * 3 + ["sh", "text", "console", "json"]
    assert page.ran == 5
    assert (tmp_path / "good_page_file.py").exists()
