"""How often does the function of an `App` get a message, and how often is there what it returned?

One partition unless a test says otherwise. "a" is handled and committed; then b, c and d are sent, and something
happens to the worker that has b in hand. A story tells which values the function got; RESULTS holds what it returned.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tidelog
from tests.guarantees.actor import WAIT_SECONDS, Actor, Remote
from tests.guarantees.applying import DEAD
from tests.guarantees.cells import Cell, application_cells

HANDLING_SECONDS = 0.4


class Scene:
    """The log, the workers and the story of a test."""

    def __init__(self, cell: Cell, folder: Path, remote: Callable[..., Remote]) -> None:
        self.cell = cell
        self.folder = folder
        self.remote = remote
        self.log = tidelog.open(folder / "log")
        self.actor = Actor(self.log)

    def worker(self, **options: Any) -> Remote:
        """Another process of the application."""
        worker = self.remote(self.folder / "log")
        worker.start_application(self.cell.delivery, self.cell.ack, str(self.folder / "story"), **options)
        return worker

    def begin(self, *rest: str, **options: Any) -> Remote:
        """A worker that has handled and committed a, and gets what is sent then."""
        self.actor.make()
        self.actor.send(["a"], self.cell.ack)
        worker = self.worker(**options)
        self.until_committed(1)
        self.actor.send(list(rest), self.cell.ack)
        return worker

    def story(self) -> list[str]:
        """What the function got, in order."""
        story = self.folder / "story"
        return story.read_text().split() if story.exists() else []

    def results(self) -> list[str]:
        """What is there of what it returned."""
        return self.actor.results()

    def finish(self, count: int, *workers: Remote) -> None:
        """So many messages are committed, and the workers have ended in order: what is in hand is done too."""
        self.until_committed(count)
        for worker in workers:
            worker.stop_application()

    def until_committed(self, count: int) -> None:
        """So many messages of the channel count as handled."""
        self.until(lambda: sum(max(row.offset, 0) for row in self.actor.orders.offsets()) >= count)

    def until(self, what: Callable[[], object]) -> None:
        """It is so."""
        end = time.monotonic() + WAIT_SECONDS
        while not what():
            assert time.monotonic() < end, (self.story(), self.results())
            time.sleep(0.005)


@pytest.fixture
def scene(cell: Cell, tmp_path: Path, remote: Callable[..., Remote]) -> Any:
    scene = Scene(cell, tmp_path, remote)
    yield scene
    scene.log.close()


def after_a_kill(scene: Scene, worker: Remote) -> None:
    """Whoever comes next does what is left."""
    worker.wait()
    scene.finish(4, scene.worker())


@application_cells()
def test_worker_killed_in_its_function(cell: Cell, scene: Scene) -> None:
    after_a_kill(scene, scene.begin("b", "c", "d", dies="handler", at="b"))
    if cell.delivery == "at-most-once":
        assert scene.story() == ["a", "b", "c", "d"] and scene.results() == ["a", "c", "d"], "b is lost"
    else:
        assert scene.story() == ["a", "b", "b", "c", "d"] and scene.results() == ["a", "b", "c", "d"]


@application_cells()
def test_worker_killed_after_sending(cell: Cell, scene: Scene) -> None:
    """What the function returned was sent, and unless it is at-most-once the commit has not been made."""
    after_a_kill(scene, scene.begin("b", "c", "d", dies="send", at="b"))
    again = [] if cell.delivery == "at-most-once" else ["b"]
    assert scene.story() == ["a", "b", *again, "c", "d"]
    assert scene.results() == ["a", "b", "c", "d"]


@application_cells()
def test_function_raises(cell: Cell, scene: Scene) -> None:
    """With a dead-letter channel."""
    scene.finish(4, scene.begin("bad", "c", "d"))
    assert scene.story() == ["a", "bad", "c", "d"] and scene.results() == ["a", "c", "d"]
    assert [message.value for message in scene.log[DEAD].scan()] == [b"bad"]


@application_cells()
def test_worker_ends(cell: Cell, scene: Scene) -> None:
    """It is told to while b is in hand, which it finishes."""
    worker = scene.begin("b", "c", "d", seconds=0.1)
    scene.until(lambda: "b" in scene.story())
    worker.stop_application()
    ended = scene.story()
    assert ended == ["a", "b", "c", "d"][: len(ended)] and scene.results() == ended, "what was begun is finished"
    scene.finish(4, scene.worker())
    assert scene.story() == scene.results() == ["a", "b", "c", "d"]


@application_cells()
def test_worker_stopped_with_max_processing(cell: Cell, scene: Scene) -> None:
    """It goes on when another one has handled everything, and what it comes with then counts for nothing."""
    late = scene.begin("b", "c", "d", seconds=HANDLING_SECONDS, max_processing=2 * HANDLING_SECONDS)
    scene.until(lambda: "b" in scene.story())
    late.signal(signal.SIGSTOP)
    scene.finish(4, scene.worker())
    late.signal(signal.SIGCONT)
    late.stop_application()
    again = [] if cell.delivery == "at-most-once" else ["b"]
    assert scene.story() == ["a", "b", *again, "c", "d"]
    assert sorted(scene.results()) == ["a", "b", "c", "d"]
    assert sum(row.offset for row in scene.actor.orders.offsets()) == 4


@application_cells()
def test_worker_joins(cell: Cell, scene: Scene) -> None:
    """While the first one has something in hand in one of two partitions; both share the rest."""
    values = [f"{partition}-{number}" for number in range(8) for partition in range(2)]
    scene.actor.make(partitions=2)
    for partition in range(2):
        scene.actor.send([value for value in values if value[0] == str(partition)], cell.ack, partition)
    first = scene.worker(seconds=0.02)
    scene.until(lambda: len(scene.story()) >= 2)
    scene.finish(len(values), first, scene.worker(seconds=0.02))
    assert sorted(scene.story()) == sorted(scene.results()) == sorted(values)
