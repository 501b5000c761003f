"""Who acts in a cell?"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import tidelog
from tests.guarantees.actor import Actor, Remote, start

SPARE_COUNT = 3


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """A log with the channel of the tests, open in this process."""
    with tidelog.open(tmp_path / "log") as log:
        Actor(log).make()
        yield tmp_path / "log"


@pytest.fixture(scope="package")
def spares() -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Processes for actors. They are started ahead: that takes longer than most tests do, which wait much."""
    waiting: list[subprocess.Popen[str]] = []

    def take() -> subprocess.Popen[str]:
        waiting.extend(start() for _ in range(SPARE_COUNT + 1 - len(waiting)))
        return waiting.pop(0)

    yield take
    for one in waiting:
        one.communicate()


@pytest.fixture
def remote(spares: Callable[[], subprocess.Popen[str]]) -> Iterator[Callable[..., Remote]]:
    """Makes actors in processes of their own, and ends them."""
    made: list[Remote] = []

    def make(url: str | Path) -> Remote:
        made.append(Remote(url, running=spares()))
        return made[-1]

    yield make
    for one in made:
        one.end()


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Callable[[str], Actor]]:
    """Makes an actor of this process, on a directory or in memory."""
    made: list[Actor] = []

    def make(engine: str) -> Actor:
        made.append(Actor(tidelog.open("memory:" if engine == "memory" else tmp_path / "log")))
        return made[-1]

    yield make
    for one in made:
        one.close()
