"""Does a producer that lingers go on sending when an interrupt came while it took a message in?

An interrupt may come between any two lines, so one is raised before each of them in turn, but for the line that takes
and gives back the lock: CPython looks at signals at calls and jumps back, and never between the lock and its block.
"""

from __future__ import annotations

import inspect
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from tidelog.log import Log
from tidelog.log import open as open_log
from tidelog.producer import Producer

WAIT_SECONDS = 10


class Interrupting:
    """Raises KeyboardInterrupt before the so-manieth line of a function that runs in this thread."""

    def __init__(self, function: Any, before: int) -> None:
        self.code, self.left, self.raised = function.__code__, before, False
        lines, begin = inspect.getsourcelines(function)
        self.locking = {begin + at for at, line in enumerate(lines) if line.strip().startswith("with ")}

    def __enter__(self) -> Interrupting:
        sys.settrace(self._called)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _called(self, frame: FrameType, event: str, _: Any) -> Any:
        return self._stepped if frame.f_code is self.code else None

    def _stepped(self, frame: FrameType, event: str, _: Any) -> Any:
        if event == "line" and frame.f_lineno not in self.locking:
            self.left -= 1
            if self.left < 0 and not self.raised:
                self.raised = True
                raise KeyboardInterrupt
        return self._stepped


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    with open_log(tmp_path / "interrupted.log") as log:
        yield log


@pytest.mark.parametrize("first", [True, False], ids=["an idle producer", "one with messages in hand"])
def test_an_interrupt_before_any_line_of_taking_a_message_in(
    log: Log, first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next message goes out when its time has come, without a flush; nothing is sent twice; the clock lives."""
    orders = log.queue("orders", partitions=2)
    died: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", died.append)
    lines = 0
    while True:
        interrupting = Interrupting(Producer._gather, lines)
        with log.producer(linger=0.005) as producer:
            if not first:
                producer.send(orders, b"%d before" % lines, partition=1)
            try:
                with interrupting:
                    producer.send(orders, b"%d maybe" % lines, partition=0)
            except KeyboardInterrupt:
                time.sleep(0.015)  # the clock looks at what the interrupt has left
            receipts = [producer.send(orders, b"%d in %d" % (lines, part), partition=part) for part in range(2)]
            until = time.monotonic() + WAIT_SECONDS
            while not all(receipt.done for receipt in receipts) and time.monotonic() < until:
                time.sleep(0.001)
            assert all(receipt.done for receipt in receipts), f"an interrupt before line {lines} stopped the clock"
        lines += 1
        if not interrupting.raised:
            break
    assert lines > 10
    assert not died
    values = [message.value for message in orders.scan()]
    assert len(values) == len(set(values))
    assert {b"%d in %d" % (number, part) for number in range(lines) for part in range(2)} <= set(values)
