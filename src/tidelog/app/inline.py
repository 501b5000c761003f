"""How does one thread receive and handle messages, one after the other?

Floor 8: may import attempt, intake, lanes, handler, outcome, message. Thread rule: `step` and `run` belong to one
thread at a time; `stop` may be called from any.

The straight way has nothing per message but the call and the commit: as long as no message waits for a retry, nothing
is out of order. After a failure the messages go through lanes until none waits any more. The size of a batch follows
the handler's pace, because partitions are handed over between batches.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from tidelog.app.attempt import Attempt
from tidelog.app.handler import Handler
from tidelog.app.intake import GAPS_SECONDS, IDLE_SECONDS, Intake
from tidelog.app.lanes import Lane, Lanes
from tidelog.app.outcome import Fatal, Outcome
from tidelog.message import Batch

if TYPE_CHECKING:
    from tidelog.channel import Channel

__all__ = ["InlineLoop"]

FIRST_COUNT = 16
BATCH_SECONDS = (0.02, 0.1)
"""A batch that takes less than the first doubles, one that takes more than the second shrinks."""


class InlineLoop:
    """Receives for one handler and handles on the same thread."""

    def __init__(
        self,
        handler: Handler,
        channel: Channel[Any],
        outcome: Outcome,
        attempt: Attempt,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Joins the group. `now`: the clock of retries; one that is turned by hand is not waited for."""
        self.handler = handler
        self._outcome = outcome
        self._attempt = attempt
        self._now = now
        self._lanes = Lanes()
        self._intake = Intake(handler, channel, self._lanes, nullcontext(), self._work_off)
        self._batches = handler.takes == "batch"
        # At most once: what was received is committed already, so a batch that is cut short would be lost.
        self._most = 1 if handler.delivery == "at-most-once" and not self._batches else handler.batch
        self._count = self._most if self._batches else min(FIRST_COUNT, self._most)
        self._patient = now is time.monotonic
        self._patience_ends = math.inf
        self._woken = threading.Event()
        self._closed = False
        self.stopping = False

    # --- life ---

    def run(self) -> None:
        """Handle messages until `stop`. Raises Fatal, and what does not pass by itself."""
        try:
            while not self.stopping:
                self.step(IDLE_SECONDS)
            if self._lanes and self._intake.commits:
                self._lanes.cut(until=self._patience_ends)
                self._work_off(list(self._lanes.partitions()), self._patience_ends)
            elif self._lanes:
                self._work_rest()
        finally:
            self._intake.end()

    def stop(self, patience: float = GAPS_SECONDS) -> None:
        """Have `run` end when the handler returns from the message it has, and nothing unfinished stands before what is
        finished: a retry among that is waited for if it is due within `patience` seconds."""
        self._patience_ends = min(self._patience_ends, time.monotonic() + min(patience, GAPS_SECONDS))
        self.stopping = True
        self._woken.set()
        self._intake.rouse()

    def finish(self, deadline: float) -> bool:
        """After `run` has ended nothing is out any more."""
        return True

    def close(self) -> None:
        """Leave the group. From another thread it ends a `run` that hangs in its handler as soon as that returns."""
        self._closed = True
        self.stop(0.0)
        self._intake.close()

    @property
    def next_due(self) -> float | None:
        """When the next retry is due, by `now`; None: none waits."""
        return self._lanes.next_due()

    # --- one round ---

    def step(self, timeout: float) -> bool:
        """Receive what is there, waiting at most `timeout` seconds, and handle it; whether there was anything."""
        due = self._lanes.next_due()
        if due is not None:
            timeout = min(timeout, max(due - self._now(), 0.0))
        batch = self._intake.receive(self._count, timeout)
        if batch is not None:
            self._take(batch)
        worked = self._work() if self._lanes else False
        self._intake.pace()
        return batch is not None or worked

    def _take(self, batch: Batch[Any]) -> None:
        """Handle a batch, or put what must wait into lanes."""
        begun = time.monotonic()
        count = len(batch)
        done = parked = 0
        if not self._lanes:
            done, parked = self._whole(batch) if self._batches else self._straight(batch)
            if self._batches and done:
                self._intake.commit_upto(batch)
        if done + parked < count and not (self.stopping and self._intake.commits):
            size = batch.nbytes // count + 1
            for index in range(done + parked, count):
                message = batch[index]
                self._lanes.put(message, batch[index : index + 1] if self._batches else message, size)
        if not self._batches:
            self._pace_count(time.monotonic() - begun, count)

    def _straight(self, batch: Batch[Any]) -> tuple[int, int]:
        """Handle messages in turn until one has to wait for a retry: (how many are finished, how many wait)."""
        attempt, commits, commit = self._attempt, self._intake.commits, self._intake.commit_upto
        index = 0
        lost: set[int] = set()
        for message in batch:
            if self.stopping and commits:
                break
            if lost and message.partition in lost:
                index += 1
                continue
            try:
                attempt(message, message)
            except Exception as error:
                wait = self._outcome.failed(message, error, 1)
                if wait is not None:
                    self._lanes.put(message, message, batch.nbytes // len(batch) + 1)
                    lane = self._lanes.take(self._now())
                    assert lane is not None  # nothing else was in the lanes
                    self._lanes.again(lane, self._now() + wait)
                    return index, 1
            index += 1
            if commits and not commit(message):
                lost.add(message.partition)  # others have begun with it
        return index, 0

    def _whole(self, batch: Batch[Any]) -> tuple[int, int]:
        """Hand over a batch as a whole: all of it is finished, or nothing."""
        try:
            self._attempt(batch[0], batch)
        except Exception as error:
            self._outcome.batch_failed(batch, error)
            return 0, 0
        return len(batch), 0

    def _work(self) -> bool:
        """Handle everything in the lanes whose turn it is; whether there was anything."""
        lanes = self._lanes
        worked = False
        while not self.stopping:
            lane = lanes.take(self._now())
            if lane is None:
                break
            worked = True
            self._one(lane)
        return worked

    def _work_rest(self) -> None:
        """Handle what is committed already and would be lost."""
        while not self._closed and (lane := self._lanes.take(self._now())) is not None:
            self._one(lane)
        if self._lanes:
            self._intake.say_lost(len(self._lanes))

    def _one(self, lane: Lane) -> None:
        """Handle the first message of a lane that was taken."""
        message = lane.message
        try:
            self._attempt(*lane.call())
        except Exception as error:
            try:
                wait = self._outcome.failed(message, error, lane.attempts + 1)
            except Fatal:
                self._lanes.back(lane)
                raise
            if wait is None:
                self._lanes.done(lane)
            else:
                self._lanes.again(lane, self._now() + wait)
        else:
            self._lanes.done(lane)
        self._intake.commit()

    def _work_off(self, partitions: list[int], until: float) -> None:
        """Do what is left of partitions that go: retries that are due until then (monotonic), and what stands behind
        them and before what is finished."""
        lanes = self._lanes
        if not self._intake.commits:
            return
        while not self._closed and lanes.pending(partitions):
            self._woken.clear()
            if self._patience_ends < until:  # `stop` was called meanwhile
                until = self._patience_ends
                lanes.cut(partitions, until)
            left = until - time.monotonic()
            lane = lanes.take(self._now()) if left > 0 else None
            if lane is not None:
                self._one(lane)
                continue
            due = lanes.next_due()
            if due is None or left <= 0 or not self._patient:
                return
            self._woken.wait(min(max(due - self._now(), 0.0), left))

    def _pace_count(self, seconds: float, count: int) -> None:
        if seconds > BATCH_SECONDS[1]:
            self._count = max(1, int(count * BATCH_SECONDS[1] / 2 / seconds))
        elif seconds < BATCH_SECONDS[0] and count >= self._count:
            self._count = min(self._most, self._count * 2)
