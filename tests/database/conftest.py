"""One PostgreSQL server for all tests, an empty database for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.database import cluster


@pytest.fixture(scope="session")
def server() -> Iterator[cluster.Server]:
    """A server that is there for these tests."""
    with cluster.server() as running:
        yield running


@pytest.fixture
def conninfo(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Makes an empty database of a kind, and answers how to connect to it; "" for SQLite."""

    def make(kind: str) -> str:
        return "" if kind == "sqlite" else cluster.database(request.getfixturevalue("server"))

    return make
