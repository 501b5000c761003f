"""Does whoever watches an application see each step of each message, in order, and nothing when nobody does?"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tidelog.app import App, steps
from tidelog.message import Batch, Message
from tidelog.testing import effect, effects

Step = tuple[str, str, Any, str]


@pytest.fixture
def seen() -> Iterator[list[Step]]:
    """What a watcher is told: (step, handler, offset or what it is about, detail)."""
    told: list[Step] = []
    lock = threading.Lock()

    def watcher(what: str, handler: str, subject: Any, detail: str) -> None:
        about = (
            subject.offset if isinstance(subject, Message) else len(subject) if isinstance(subject, Batch) else subject
        )
        with lock:
            told.append((what, handler, about, detail))

    steps.watcher = watcher
    yield told
    steps.watcher = None


def run(app: App, channel: Any, values: list[Any], until: int, seen: list[Step]) -> list[Step]:
    """The steps of an application that gets these values, when there were `until` of them."""
    channel.send_many(values, partition=0)
    with app:
        deadline = time.monotonic() + 10
        while len(seen) < until and time.monotonic() < deadline:
            time.sleep(0.005)
    return list(seen)


def test_values_one_by_one(seen: list[Step]) -> None:
    app = App("steps", url="memory:")
    numbers = app.queue("numbers", int, partitions=1)

    @app.on(numbers)
    def take(number: int) -> None: ...

    assert run(app, numbers, [7, 8], 9, seen) == [
        ("received", "take", 2, ""),
        ("before-handler", "take", 7, ""),
        ("after-handler", "take", 7, ""),
        ("before-commit", "take", 0, ""),
        ("after-commit", "take", 0, ""),
        ("before-handler", "take", 8, ""),
        ("after-handler", "take", 8, ""),
        ("before-commit", "take", 1, ""),
        ("after-commit", "take", 1, ""),
    ]


def test_at_most_once_commits_nothing_here(seen: list[Step]) -> None:
    app = App("steps", url="memory:")
    numbers = app.queue("numbers", int, partitions=1)

    @app.on(numbers, delivery="at-most-once")
    def take(number: int) -> None: ...

    assert [what for what, *_ in run(app, numbers, [7, 8], 6, seen)] == 2 * [
        "received",
        "before-handler",
        "after-handler",
    ]


def test_batches(seen: list[Step]) -> None:
    app = App("steps", url="memory:")
    numbers = app.queue("numbers", int, partitions=1)

    @app.on(numbers)
    async def take(some: Batch[int]) -> None: ...

    assert run(app, numbers, [7, 8, 9], 5, seen) == [
        (what, "take", 3, "")
        for what in ("received", "before-handler", "after-handler", "before-commit", "after-commit")
    ]


@pytest.mark.parametrize("is_async", [False, True])
def test_several_at_once(seen: list[Step], is_async: bool) -> None:
    app = App("steps", url="memory:")
    numbers = app.queue("numbers", int, partitions=1)

    def take(number: int) -> None: ...

    async def take_async(number: int) -> None: ...

    app.on(numbers, concurrency=4)(take_async if is_async else take)
    told = run(app, numbers, [7, 8, 9], 9, seen)
    for number in (7, 8, 9):
        assert [what for what, _, about, _ in told if about == number] == ["before-handler", "after-handler"]
    commits = [about for what, _, about, _ in told if what == "after-commit"]
    assert commits == sorted(commits) and commits[-1] == (0, 3)
    assert [about for what, _, about, _ in told if what == "before-commit"] == commits


def test_answers_and_dead_letters(seen: list[Step]) -> None:
    app = App("steps", url="memory:")
    questions = app.queue("questions", int, reply=int, partitions=1)
    bad = app.queue("bad", int, partitions=1)

    @app.answers(questions)
    def answer(number: int) -> int:
        return number + 1

    @app.on(bad, dead_letter="bad.dead")
    def fail(number: int) -> None:
        raise ValueError(number)

    with app:
        assert questions.ask_one(1, timeout=10).value == 2
        bad.send(1)
        deadline = time.monotonic() + 10
        while ("after-commit", "fail", 0, "") not in seen and time.monotonic() < deadline:
            time.sleep(0.005)
    answered = [(what, detail) for what, handler, _, detail in seen if handler == "answer"]
    assert [what for what, _ in answered] == [
        "received",
        "before-handler",
        "after-handler",
        "before-send",
        "after-send",
        "before-commit",
        "after-commit",
    ]
    assert answered[3][1] == answered[4][1] != ""
    failed = [(what, detail) for what, handler, _, detail in seen if handler == "fail"]
    assert failed == [
        ("received", ""),
        ("before-handler", ""),
        ("before-send", "bad.dead"),
        ("after-send", "bad.dead"),
        ("before-commit", ""),
        ("after-commit", ""),
    ]


def test_nobody_watches() -> None:
    def take(number: int) -> None: ...

    assert steps.watcher is None
    assert steps.watched("take", take) is take
    assert steps.watched_async("take", take) is take


def test_effects_are_told_to_whoever_asks() -> None:
    effect("charge", 3)  # nobody does
    told: list[tuple[str, tuple[Any, ...]]] = []
    effects.recorder = lambda name, of: told.append((name, of))
    try:
        effect("charge", 3, "eur")
        effect("note")
    finally:
        effects.recorder = None
    assert told == [("charge", (3, "eur")), ("note", ())]
