"""Who acts in a cell?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import tidelog
from tests.guarantees.actor import Actor, Remote


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """A log with the channel of the tests, open in this process."""
    with tidelog.open(tmp_path / "log") as log:
        Actor(log).make()
        yield tmp_path / "log"


@pytest.fixture
def remote() -> Iterator[Callable[..., Remote]]:
    """Makes actors in processes of their own, and ends them."""
    made: list[Remote] = []

    def make(url: str | Path, flush_interval: float = 1.0) -> Remote:
        made.append(Remote(url, flush_interval))
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
