"""Which pytest fixtures does an installed tidelog offer?

Floor 8: may import every lower floor, never the package root. pytest loads this module at start-up in every project
that has tidelog installed, so the engine is imported only when a fixture is asked for. Thread rule: pytest's main
thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tidelog.log import Log

__all__ = ["tide"]


@pytest.fixture
def tide(tmp_path: Path) -> Iterator[Log]:
    """An open log in a fresh directory (`tmp_path / "tide.log"`), closed when the test ends.

    The test fails at its end if it left producers or consumers open, or if a file of the log is damaged.
    """
    from tidelog.log import open as open_log

    path = tmp_path / "tide.log"
    log = open_log(path)
    try:
        yield log
        leaked = [repr(handle) for handle in log.engine.handles()]
    finally:
        log.close()
    if not (path / "tidelog.json").exists():  # the test removed the directory itself
        return
    with open_log(path) as again:
        found = _findings(again)
    if leaked:
        pytest.fail(f"the test left open: {', '.join(leaked)}; use `with`, or call close()", pytrace=False)
    if found:
        pytest.fail("files of the log are damaged:\n" + "\n".join(found), pytrace=False)


def _findings(log: Log) -> list[str]:
    """What a check of every partition finds, a line each."""
    found: list[str] = []

    def note(file: str, position: int, what: str, first_offset: int, next_offset: int) -> None:
        found.append(f"{file} at byte {position}: {what} (offsets {first_offset} to {next_offset})")

    for name in log:
        for partition in log[name].opened().partitions:
            partition.check(note)
    return found
