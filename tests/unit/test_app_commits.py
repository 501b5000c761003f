"""Is each message committed when its handler has returned, and does a stop lose nothing that was not in hand?"""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import tidelog
from tidelog.app import App, Retry
from tidelog.message import Message

WAIT_SECONDS = 30.0

SERVICE = """
import sys, time
from pathlib import Path
import tidelog
from tidelog.message import Message

folder, concurrency, delivery, seconds = sys.argv[1:]
app = tidelog.App("service", folder + "/log", drain_timeout=20)
work = app.queue("work", str, partitions=4)
story = open(folder + "/story", "ab", buffering=0)

@app.on(work, concurrency=int(concurrency), delivery=delivery)
def handle(message: Message[str]) -> None:
    time.sleep(float(seconds))
    story.write(f"{message.partition}/{message.offset}\\n".encode())

app.run()
"""


class Service:
    """The program above, run again and again on one log."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "service.py").write_text(SERVICE)

    def start(self, concurrency: int, delivery: str, seconds: float) -> subprocess.Popen[bytes]:
        words = [self.folder / "service.py", self.folder, concurrency, delivery, seconds]
        return subprocess.Popen([sys.executable, *map(str, words)], stderr=subprocess.PIPE)

    def done(self) -> list[str]:
        story = self.folder / "story"
        return story.read_text().split() if story.exists() else []

    def until(self, count: int) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while len(self.done()) < count:
            assert time.monotonic() < deadline, len(self.done())
            time.sleep(0.001)


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(tmp_path)


@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_kill_repeats_only_what_was_in_hand(service: Service, concurrency: int) -> None:
    total, kills = 300, 3
    with tidelog.open(service.folder / "log") as log:
        work = log.queue("work", str, partitions=4)
        for number in range(total):  # one key in each partition, so that nothing overtakes
            work.send(str(number), key="same", partition=number % 4)
        for kill in range(kills):
            before = len(service.done())
            process = service.start(concurrency, "at-least-once", 0.002)
            service.until(before + 40)
            process.kill()
            process.communicate()
            assert len(service.done()) < total, "the kill came too late to mean anything"
            committed = sum(row.offset for row in work.offsets() if row.offset > 0)
            assert len(set(service.done())) - committed <= concurrency, kill
        process = service.start(concurrency, "at-least-once", 0)
        service.until(total)
        while sum(row.offset for row in work.offsets()) < total:
            time.sleep(0.01)
        process.terminate()
        process.communicate(timeout=WAIT_SECONDS)
    counted = Counter(service.done())
    assert len(counted) == total
    assert sum(counted.values()) - total <= kills * concurrency


@pytest.mark.parametrize("concurrency", [1, 4])
def test_sigterm_loses_nothing_that_is_committed_at_most_once(service: Service, concurrency: int) -> None:
    with tidelog.open(service.folder / "log") as log:
        work = log.queue("work", str, partitions=4)
        work.send_many([str(number) for number in range(400)])
        process = service.start(concurrency, "at-most-once", 0.05)
        service.until(10)
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=WAIT_SECONDS)
        assert process.returncode == 0, said
        assert time.monotonic() - begun < 5, "it had read far ahead"
        committed = sum(row.offset for row in work.offsets() if row.offset > 0)
        assert len(service.done()) == committed < 100
        assert len(set(service.done())) == committed


@pytest.mark.parametrize(("concurrency", "is_async"), [(1, False), (3, False), (3, True)])
def test_each_message_is_committed_before_the_next_one(concurrency: int, is_async: bool) -> None:
    with tidelog.open("memory:") as log:
        channel = log.queue("orders", int, partitions=1)
        channel.send_many(list(range(50)), keys=["a"] * 50)
        seen: list[tuple[int, int]] = []

        def handle(message: Message[int]) -> None:
            seen.append((message.offset, max((row.offset for row in channel.offsets()), default=0)))

        async def handle_async(message: Message[int]) -> None:
            handle(message)

        app = App("a", log=log)
        app.on(channel, concurrency=concurrency)(handle_async if is_async else handle)
        with app:
            deadline = time.monotonic() + WAIT_SECONDS
            while len(seen) < 50 and time.monotonic() < deadline:
                time.sleep(0.005)
        assert [max(committed, 0) for _, committed in seen] == list(range(50))


@pytest.mark.parametrize("concurrency", [1, 2])
def test_what_at_most_once_gives_up_is_said(concurrency: Any, caplog: pytest.LogCaptureFixture) -> None:
    with tidelog.open("memory:") as log:
        channel = log.queue("orders", int, partitions=1)
        channel.send(1)
        failed = threading.Event()
        app = App("a", log=log)

        @app.on(
            channel, concurrency=concurrency, delivery="at-most-once", retries=Retry(attempts=2, first=3600, most=3600)
        )
        def fail(number: int) -> None:
            failed.set()
            raise ConnectionError("not now")

        with caplog.at_level(logging.WARNING), app:
            assert failed.wait(WAIT_SECONDS)
            time.sleep(0.1)
        assert "before 1 messages were handled that delivery='at-most-once' has committed: they are lost" in caplog.text


def test_what_at_most_once_has_in_hand_too_long_is_called_lost(caplog: pytest.LogCaptureFixture) -> None:
    with tidelog.open("memory:") as log:
        channel = log.queue("orders", int, partitions=1)
        channel.send(1)
        begun, go_on = threading.Event(), threading.Event()
        app = App("a", log=log, drain_timeout=0.1)

        @app.on(channel, concurrency=2, delivery="at-most-once")
        def hang(number: int) -> None:
            begun.set()
            go_on.wait(WAIT_SECONDS)

        with caplog.at_level(logging.WARNING), app:
            assert begun.wait(WAIT_SECONDS)
        go_on.set()
        assert "and lost" in caplog.text and "handled again" not in caplog.text
