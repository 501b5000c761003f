"""How are several messages of one transaction handled at once, those of one key one after the other?

Floor 8: may import attempt, output, message. Thread rule: everything but the work itself belongs to the thread that has
the transaction.

The functions run on threads of their own and send nothing by themselves: what they would send is collected, and
whoever has the transaction asks for the results in the order of the messages. So a message that fails takes nothing
back from those before it, and of those behind it in its partition nothing was sent: they are given up, and handled
again. Before a transaction ends, everything that was begun is waited for, so no message is ever handled twice at one
time.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from tidelog.app.attempt import Attempt
from tidelog.app.output import Output
from tidelog.message import Message

__all__ = ["Ahead", "Handled"]


@dataclass(frozen=True, slots=True)
class Handled:
    """What came of one message."""

    calls: Sequence[Callable[[], Any]] = ()
    """Send what it leads to."""
    error: BaseException | None = None
    """What its function raised."""


class Ahead:
    """Threads that handle the messages of one batch after the other."""

    def __init__(self, attempt: Attempt, output: Output, limit: int, name: str) -> None:
        """`limit`: so many messages at once; `name`: of the threads."""
        self._attempt = attempt
        self._output = output
        self._limit = limit
        self._name = name
        self._changed = threading.Condition()
        self._threads = 0
        self._running = 0
        self._ended = False
        self._messages: Sequence[Message[Any]] = ()
        self._results: dict[int, Handled] = {}
        self._begun: set[int] = set()
        # (number of its next message, all that are left): the first message that can be handled comes first.
        self._lanes: list[tuple[int, deque[int]]] = []
        # By the number of a message that failed or was skipped: nobody knows yet whether the next of its key may go.
        self._parked: dict[int, deque[int]] = {}
        self._dropped: set[int] = set()
        self._halted = True
        self._until = 0.0

    # --- in the thread that has the transaction ---

    def begin(self, messages: Sequence[Message[Any]], until: float, skip: Sequence[int] = ()) -> None:
        """Handle these. None is begun after `until` (monotonic), but for the first. `skip`: numbers of messages that
        are settled without calling the function."""
        lanes: dict[Hashable, deque[int]] = {}
        for number, message in enumerate(messages):
            key = message.key
            lane: Hashable = number if key is None else (message.partition, key)
            lanes.setdefault(lane, deque()).append(number)
        with self._changed:
            self._messages = messages
            self._results = {number: Handled() for number in skip}
            self._begun = set(skip)
            self._dropped = set()
            self._parked = {lane[0]: lane for lane in lanes.values() if lane[0] in self._begun}
            self._lanes = [(lane[0], lane) for lane in lanes.values() if lane[0] not in self._begun]
            heapq.heapify(self._lanes)
            self._halted = False
            self._until = until
            while self._threads < min(self._limit, len(self._lanes)):
                self._threads += 1
                # A daemon: a handler that never returns must not keep the program from ending after drain_timeout.
                threading.Thread(target=self._work, name=f"{self._name}-{self._threads}", daemon=True).start()
            self._changed.notify_all()

    def result(self, number: int) -> Handled | None:
        """What came of a message, when it has come; None: it was not begun, and will not be. To be asked in the order
        of the messages, so that those of its key before it are settled."""
        with self._changed:
            while number not in self._results:
                if number not in self._begun and (self._halted or not self._lanes):
                    return None
                self._changed.wait()
            return self._results[number]

    def settled(self, number: int) -> None:
        """A message that failed, or was skipped, counts as handled: those of its key behind it may go on."""
        with self._changed:
            lane = self._parked.pop(number, None)
            if lane is not None:
                self._go_on(lane)
                self._changed.notify_all()

    def drop(self, partition: int) -> None:
        """Begin no more messages of a partition."""
        with self._changed:
            self._dropped.add(partition)

    def halt(self) -> None:
        """Begin no more messages."""
        with self._changed:
            self._halted = True
            self._changed.notify_all()

    def end(self) -> None:
        """Begin no more messages, and wait for those that were begun."""
        self.halt()
        with self._changed:
            while self._running:
                self._changed.wait()

    def close(self) -> None:
        """The threads end when they have returned from the message they have."""
        with self._changed:
            self._halted = self._ended = True
            self._changed.notify_all()

    # --- in the workers ---

    def _take(self) -> tuple[int, deque[int]] | None:
        with self._changed:
            while not self._ended:
                while self._lanes and not self._halted:
                    if self._begun and time.monotonic() > self._until:
                        self._halted = True
                        self._changed.notify_all()  # somebody may wait for one that will not be begun
                        break
                    number, lane = heapq.heappop(self._lanes)
                    if self._messages[number].partition not in self._dropped:
                        self._begun.add(number)
                        self._running += 1
                        return number, lane
                self._changed.wait()
            return None

    def _go_on(self, lane: deque[int]) -> None:
        lane.popleft()
        if lane:
            heapq.heappush(self._lanes, (lane[0], lane))

    def _work(self) -> None:
        while (taken := self._take()) is not None:
            number, lane = taken
            message = self._messages[number]
            with self._output.collected() as calls:
                try:
                    self._attempt(message, message)
                    handled = Handled(calls)
                except BaseException as error:  # whoever has the transaction decides what follows
                    handled = Handled(error=error)
            with self._changed:
                self._results[number] = handled
                self._running -= 1
                if handled.error is None:
                    self._go_on(lane)
                else:
                    self._parked[number] = lane
                self._changed.notify_all()
