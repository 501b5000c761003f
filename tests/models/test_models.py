"""Do the protocols between processes hold in every interleaving, and wherever somebody dies?

A model is tests/models/NAME.pml, in Promela; its steps name the C functions they stand for. Spin looks at every state
that it can get into: assertions hold, nobody waits for ever, and every situation that a model marks by `reached(n)` is
come by. Each `BUG_x` takes one rule away, and an error must be found.

`python -m tests.models.test_models --crashes 3` looks further than memory holds (supertrace: a state is a few bits).
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PROCESSES = HERE / "processes.inc"
TIMEOUT_SECONDS = 400
LONG_SECONDS = 7200
LINES_MAX = 150

# What is searched to the end: the model, what is defined for it, the situations that it then cannot come by. Two
# crashes unless it says otherwise.
SEARCHES: list[tuple[str, tuple[str, ...], set[int]]] = [
    ("lock", (), set()),
    ("append", (), set()),
    ("roll", (), set()),
    ("group", (), set()),
    ("transaction", (), set()),
    ("wait", (), set()),
    ("wait", ("THREADS=2", "CRASHES=0"), {3}),
]
MODELS = sorted({name for name, _, _ in SEARCHES})


@dataclass(frozen=True)
class Outcome:
    """What the verifier said."""

    errors: int
    complete: bool
    states: int
    depth: int
    seconds: float
    first_error: str
    reached: frozenset[int]
    text: str


class NotRun(Exception):
    """Spin or the compiler refused, or is not there; the message says what to do."""


def search(name: str, defines: tuple[str, ...], exhaustive: bool = True) -> Outcome:
    """Verify one model, all of it or as much as 2^31 bits can tell apart. Raises NotRun."""
    if shutil.which("spin") is None:
        raise NotRun("spin is not installed; on Debian or Ubuntu: sudo apt-get update && sudo apt-get install -y spin")
    definitions = [f"-D{word}" for word in defines]
    with tempfile.TemporaryDirectory() as scratch:
        commands = [
            ["spin", "-a", *definitions, str(HERE / f"{name}.pml")],
            [
                "gcc",
                "-O2",
                "-w",
                "-DSAFETY",
                "-DMEMLIM=4000",
                "-DCOLLAPSE" if exhaustive else "-DBITSTATE",
                "-o",
                "pan",
                "pan.c",
            ],
            ["./pan", "-m100000", "-w25" if exhaustive else "-w31"],
        ]
        for command in commands:
            done = subprocess.run(
                command,
                cwd=scratch,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=TIMEOUT_SECONDS if exhaustive else LONG_SECONDS,
                check=False,
            )
            if done.returncode and command[0] != "./pan":
                raise NotRun(f"{' '.join(command)}\n{done.stdout}")
        return outcome_of(done.stdout, (Path(scratch) / "pan.m").read_text())


def outcome_of(text: str, transitions: str) -> Outcome:
    """The verifier's output, read, with its table of transitions. Raises NotRun if it is none."""
    errors = re.search(r"depth reached (\d+), errors: (\d+)", text)
    states = re.search(r"^ *([\d.e+]+) states, stored", text, re.MULTILINE)
    seconds = re.search(r"elapsed time ([\d.]+) seconds", text)
    if errors is None or states is None:
        raise NotRun(f"the verifier ended without a result:\n{text[-3000:]}")
    found = re.search(r"^pan:\d+: (.*)$", text, re.MULTILINE)
    # A mark stands wherever its inline function is used; the verifier lists those places that it never came to.
    marked = Counter(re.findall(r"spin_assert\(\((\d+)!=0\)", transitions))
    missed = Counter(re.findall(r'"assert\(\((\d+)!=0\)\)"', text.partition("unreached in")[2]))
    return Outcome(
        errors=int(errors[2]),
        complete="Search not completed" not in text and "max search depth too small" not in text,
        states=int(float(states[1])),
        depth=int(errors[1]),
        seconds=float(seconds[1]) if seconds else 0.0,
        first_error=found[1] if found else "",
        reached=frozenset(int(number) for number in marked if marked[number] > missed[number]),
        text=text,
    )


def text_of(name: str) -> str:
    """A model with what it includes; what all include, processes.inc, counts for the lock alone."""
    text = (HERE / f"{name}.pml").read_text()
    for included in re.findall(r'#include "(\w+\.inc)"', text):
        if included != PROCESSES.name or name == "lock":
            text += (HERE / included).read_text()
    return text


def bugs_of(name: str) -> list[str]:
    """The rules that can be taken away from a model."""
    return sorted(set(re.findall(r"\bBUG_[A-Z_]+", text_of(name))))


def situations_of(name: str) -> list[int]:
    """The numbers of a model's `reached(n)`."""
    return sorted({int(number) for number in re.findall(r"\breached\((\d+)\)", text_of(name))})


def first_error(name: str, bug: str) -> Outcome:
    """The search with the fewest crashes that finds an error, which is far quicker than the whole; else the whole."""
    for crashes in (0, 1):
        found = run(name, (bug, f"CRASHES={crashes}"))
        if found.errors:
            return found
    return run(name, (bug,))


def run(name: str, defines: tuple[str, ...]) -> Outcome:
    """`search`, or a failed test with what is missing."""
    try:
        return search(name, defines)
    except NotRun as error:
        pytest.fail(f"NOT RUN: {error}", pytrace=False)


@pytest.mark.timeout(TIMEOUT_SECONDS + 60)
@pytest.mark.parametrize(
    ("name", "defines", "never"), SEARCHES, ids=[" ".join([name, *words]) for name, words, _ in SEARCHES]
)
def test_every_state(name: str, defines: tuple[str, ...], never: set[int]) -> None:
    found = run(name, defines)
    print(f"{name} {' '.join(defines)}: {found.states:,} states, depth {found.depth:,}, {found.seconds:.0f} s")
    assert found.errors == 0, f"{found.first_error}\n{found.text[-3000:]}"
    assert found.complete, found.text[-3000:]
    stuck = re.findall(r".*-end-.*", found.text)
    assert not stuck, f"a process of the model never ends: {stuck}"
    assert found.reached == set(situations_of(name)) - never, found.text[-3000:]


@pytest.mark.timeout(TIMEOUT_SECONDS + 60)
@pytest.mark.parametrize(("name", "bug"), [(name, bug) for name in MODELS for bug in bugs_of(name)])
def test_bug_is_found(name: str, bug: str) -> None:
    found = first_error(name, bug)
    print(f"{name} {bug}: {found.first_error}, {found.states:,} states")
    assert found.errors > 0, f"{name}.pml does not notice that {bug} takes a rule away"
    assert "assertion violated" in found.first_error or "invalid end state" in found.first_error, found.text[-3000:]


def test_every_model_is_searched_and_can_fail() -> None:
    assert {path.stem for path in HERE.glob("*.pml")} == set(MODELS)
    for name in MODELS:
        assert len(bugs_of(name)) >= 2, name
        assert len(situations_of(name)) >= 3, name


@pytest.mark.parametrize("path", sorted([*HERE.glob("*.pml"), *HERE.glob("*.inc")]), ids=lambda path: path.name)
def test_model_is_readable(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert len(lines) <= LINES_MAX
    assert [line for line in lines if len(line) > 130] == []


def test_functions_that_steps_stand_for_exist() -> None:
    """`file.c:function` in a comment of a model is a function of that file of the core."""
    core = HERE.parent.parent / "native"
    missing = []
    for model in [*HERE.glob("*.pml"), *HERE.glob("*.inc")]:
        for file, function in re.findall(r"\b(\w+\.[ch]):(\w+)", model.read_text()):
            sources = [path for path in (core / "src" / file, core / "include" / "tidelog" / file) if path.exists()]
            if not any(re.search(rf"\b{function}\(", path.read_text()) for path in sources):
                missing.append(f"{model.name}: {file}:{function}")
    assert missing == []


def main() -> int:
    """Search every model with more crashes, as far as hashed states go; 1 if an error was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.models.test_models")
    parser.add_argument("--crashes", type=int, default=3)
    options = parser.parse_args()
    failed = 0
    for name in MODELS:
        found = search(name, (f"CRASHES={options.crashes}",), exhaustive=False)
        print(f"{name}: {found.states:,} states, depth {found.depth:,}, {found.seconds:.0f} s", flush=True)
        if found.errors or not found.complete:
            failed = 1
            print(f"{found.first_error}\n{found.text[-3000:]}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
