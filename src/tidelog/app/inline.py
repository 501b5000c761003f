"""How does one thread receive and handle messages, one after the other?

Floor 8: may import attempt, intake, lanes, handler, outcome, message. Thread rule: `step` and `run` belong to one
thread at a time; `stop` may be called from any.

The straight way has nothing per message but the call itself: as long as no message waits for a retry, nothing is out of
order and a batch is committed as a whole. After a failure the messages go through lanes until none waits any more. The
size of a batch follows the handler's pace, because partitions are handed over, and a stop is seen, between batches.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from tidelog.app.attempt import Attempt
from tidelog.app.handler import Handler
from tidelog.app.intake import COMMIT_SECONDS, IDLE_SECONDS, Intake
from tidelog.app.lanes import Lanes
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
        """Joins the group. `now`: the clock of retries."""
        self.handler = handler
        self._outcome = outcome
        self._attempt = attempt
        self._now = now
        self._lanes = Lanes()
        self._intake = Intake(handler, channel, self._lanes, nullcontext())
        self._batches = handler.takes == "batch"
        # At most once: what was received is committed already, so a batch that is cut short would be lost.
        self._most = 1 if handler.delivery == "at-most-once" and not self._batches else handler.batch
        self._count = self._most if self._batches else min(FIRST_COUNT, self._most)
        self._commit_at = 0.0
        self.stopping = False

    # --- life ---

    def run(self) -> None:
        """Handle messages until `stop`. Raises Fatal, and what does not pass by itself."""
        try:
            while not self.stopping:
                self.step(IDLE_SECONDS)
        finally:
            self._intake.end()

    def stop(self) -> None:
        """Have `run` end when the handler returns from the message it has."""
        self.stopping = True

    def finish(self, deadline: float) -> bool:
        """After `run` has ended nothing is out any more."""
        return True

    def close(self) -> None:
        """Leave the group. From another thread it ends a `run` that hangs in its handler as soon as that returns."""
        self.stopping = True
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
        self._commit_at = time.monotonic() + COMMIT_SECONDS
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
            self._intake.commit_batch(batch if done == count else batch[:done])
        if done + parked < count and not self.stopping:
            size = batch.nbytes // count + 1
            for index in range(done + parked, count):
                message = batch[index]
                self._lanes.put(message, batch[index : index + 1] if self._batches else message, size)
        if not self._batches:
            self._pace_count(time.monotonic() - begun, count)

    def _straight(self, batch: Batch[Any]) -> tuple[int, int]:
        """Handle messages in turn until one has to wait for a retry: (how many are finished, how many wait)."""
        attempt, clock = self._attempt, time.monotonic
        index = told = 0
        for message in batch:
            if self.stopping:
                break
            try:
                attempt(message, message)
            except Exception as error:
                try:
                    wait = self._outcome.failed(message, error, 1)
                except Fatal:
                    self._intake.commit_batch(batch[told:index])
                    raise
                if wait is not None:
                    self._lanes.put(message, message, batch.nbytes // len(batch) + 1)
                    lane = self._lanes.take(self._now())
                    assert lane is not None  # nothing else was in the lanes
                    self._lanes.again(lane, self._now() + wait)
                    return index, 1
            index += 1
            now = clock()
            if now >= self._commit_at:
                self._commit_at = now + COMMIT_SECONDS
                self._intake.commit_batch(batch[told:index])
                told = index
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
            message = lane.message
            try:
                self._attempt(message, lane.subject)
            except Exception as error:
                try:
                    wait = self._outcome.failed(message, error, lane.attempts + 1)
                except Fatal:
                    lanes.back(lane)
                    raise
                if wait is None:
                    lanes.done(lane)
                else:
                    lanes.again(lane, self._now() + wait)
            else:
                lanes.done(lane)
            now = time.monotonic()
            if now >= self._commit_at:
                self._commit_at = now + COMMIT_SECONDS
                self._intake.commit()
        self._intake.commit()
        return worked

    def _pace_count(self, seconds: float, count: int) -> None:
        if seconds > BATCH_SECONDS[1]:
            self._count = max(1, int(count * BATCH_SECONDS[1] / 2 / seconds))
        elif seconds < BATCH_SECONDS[0] and count >= self._count:
            self._count = min(self._most, self._count * 2)
