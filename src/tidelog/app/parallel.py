"""How are several messages of one handler handled at once, those of one key one after the other?

Floor 8: may import attempt, event_loop, intake, lanes, handler, outcome. Thread rule: `run` belongs to the receiving
thread; everything shared with the workers is behind one lock, which is never held while a handler runs.

One consumer receives for all workers. What they finish out of order stays uncommitted until what was before it is
finished too. The workers are threads for plain functions, and tasks on the event loop for coroutines.
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

from tidelog.app.attempt import Attempt, AttemptAsync
from tidelog.app.event_loop import EventLoop
from tidelog.app.handler import Handler
from tidelog.app.intake import COMMIT_SECONDS, IDLE_SECONDS, Intake
from tidelog.app.lanes import Lane, Lanes
from tidelog.app.outcome import Outcome
from tidelog.config import duration_ms

if TYPE_CHECKING:
    from tidelog.channel import Channel

__all__ = ["KEY_TASKS", "KEY_THREADS", "TaskLoop", "ThreadLoop"]

KEY_THREADS = 32
"""How many keys are handled at once by threads with concurrency="key"."""
KEY_TASKS = 256
"""And by coroutines."""
RECEIVE_COUNT = 200
GAPS_SECONDS = 5.0
"""How long a partition that goes waits for messages that stand before finished ones."""


class _ParallelLoop:
    """What threads and tasks share: receiving, committing, ending."""

    def __init__(self, handler: Handler, channel: Channel[Any], outcome: Outcome, limit: int) -> None:
        """Joins the group. `limit`: so many messages are out at once."""
        self.handler = handler
        self._outcome = outcome
        self._limit = limit
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._lanes = Lanes()
        self._intake = Intake(handler, channel, self._lanes, self._changed)
        self._intake.revoking = self._wait_out
        # What is read ahead only waits in memory, and is given up when a partition goes to somebody else.
        self._enough = max(RECEIVE_COUNT, 8 * limit)
        self._given_up = False
        self._commits = handler.delivery == "at-least-once"
        self._patience = None if handler.max_processing is None else duration_ms(handler.max_processing, "") / 1000
        self._error: BaseException | None = None
        self.stopping = False

    # --- life, in the receiving thread ---

    def run(self) -> None:
        """Receive until `stop`, then wait for what is out as long as `finish` allows. Raises Fatal, and what does not
        pass by itself."""
        while not self.stopping:
            self._round()
        with self._changed:
            while (self._lanes.running or self._must_go_on()) and not self._given_up:
                self._changed.wait(IDLE_SECONDS)
        self._intake.end()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Hand out nothing more, except what stands before a message that is finished already."""
        with self._changed:
            if not self.stopping and self._commits:
                self._lanes.cut()
            self.stopping = True
            self._kick()
            self._changed.notify_all()

    def finish(self, deadline: float) -> bool:
        """Wait for what is out until `deadline` (monotonic); False: it takes longer, and is given up."""
        with self._changed:
            while (self._lanes.running or self._must_go_on()) and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
            self._given_up = True
            self._changed.notify_all()
            return self._lanes.running == 0

    def close(self) -> None:
        """Leave the group."""
        self.stop()
        self._intake.close()

    def _round(self) -> None:
        lanes = self._lanes
        with self._changed:
            full = lanes.ready >= self._enough
            timeout = COMMIT_SECONDS if lanes else IDLE_SECONDS
            while self._stuck() and not self.stopping:  # not asking for more is how the group learns of it
                self._changed.wait(COMMIT_SECONDS)
        if full:
            self._intake.pace(hold=True)
            with self._changed:
                self._changed.wait_for(lambda: self.stopping or lanes.ready < self._enough // 2, COMMIT_SECONDS)
            timeout = 0.0
        batch = self._intake.receive(RECEIVE_COUNT, timeout)
        if batch is not None:
            size = batch.nbytes // len(batch) + 1
            with self._changed:
                if not (self.stopping and self._commits):  # else somebody else will have them
                    for message in batch:
                        lanes.put(message, message, size)
                self._kick()
        self._intake.commit()
        with self._changed:
            full = lanes.ready >= self._enough // 2 and full
        self._intake.pace(hold=full)

    def _stuck(self) -> bool:
        """Whether a message is out for longer than its handler may take."""
        if self._patience is None:
            return False
        oldest = self._lanes.oldest()
        return oldest is not None and time.monotonic() - oldest > self._patience

    def _wait_out(self, partitions: list[int]) -> None:
        """Wait until what is left of partitions that go is done. What is out is waited for as long as it takes; what
        only fills the gaps before it is given up after a while, and handled twice."""
        until = time.monotonic() + GAPS_SECONDS
        with self._changed:
            while self._lanes.pending(partitions) and not self._given_up and self._error is None:
                left = until - time.monotonic()
                if left <= 0 and self._commits:
                    self._lanes.drop(partitions)
                self._changed.wait(min(left, IDLE_SECONDS) if left > 0 else IDLE_SECONDS)

    # --- in the workers ---

    def _must_go_on(self) -> bool:
        """Whether something has to be handled although it stops: `cut` has left only what completes the commits; with
        at-most-once everything is committed already, and would be lost."""
        return self._error is None and not self._given_up and self._lanes.ready > 0

    def _kick(self) -> None:
        """There may be something to take; the lock is held."""
        raise NotImplementedError

    def _settle(self, lane: Lane, wait: float | None) -> None:
        """What was out is finished (None), or waits for its next attempt."""
        with self._changed:
            if wait is None:
                self._lanes.done(lane)
            else:
                self._lanes.again(lane, time.monotonic() + wait)
            self._kick()
            self._changed.notify_all()

    def _failed(self, lane: Lane, error: BaseException) -> None:
        """Nothing can take the message: the application stops, and it stays unfinished."""
        with self._changed:
            self._lanes.back(lane)
            self._error = self._error or error
            self.stopping = True
            self._changed.notify_all()


class ThreadLoop(_ParallelLoop):
    """Handles on threads, as many as there are messages that may go at once, up to a limit."""

    def __init__(
        self, handler: Handler, channel: Channel[Any], outcome: Outcome, attempt: Attempt, limit: int, name: str
    ) -> None:
        """`name`: of the threads."""
        super().__init__(handler, channel, outcome, limit)
        self._attempt = attempt
        self._name = name
        self._threads = 0
        # Of the same lock. Whoever takes something wakes the next thread if there is more, or a retry to wait for, so
        # that one call is enough to get all going, and a busy application wakes nobody.
        self._takers = threading.Condition(self._lock)

    def _kick(self) -> None:
        wanted = min(self._limit, self._lanes.running + self._lanes.ready)
        while self._threads < wanted:
            self._threads += 1
            # A daemon: a handler that never returns must not keep the program from ending after drain_timeout.
            threading.Thread(target=self._work, name=f"{self._name}-{self._threads}", daemon=True).start()
        self._takers.notify()

    def _next(self) -> Lane | None:
        """Waits for a message to handle; None: there will be none."""
        with self._changed:
            while not self.stopping or self._must_go_on():
                now = time.monotonic()
                lane = self._lanes.take(now)
                due = self._lanes.next_due()
                if lane is not None:
                    if due is not None or self._lanes.ready:
                        self._takers.notify()
                    return lane
                self._takers.wait(None if due is None else max(due - now, 0.0))
            self._takers.notify_all()
            return None

    def _work(self) -> None:
        while (lane := self._next()) is not None:
            message = lane.message
            try:
                try:
                    self._attempt(message, lane.subject)
                    wait = None
                except Exception as error:
                    wait = self._outcome.failed(message, error, lane.attempts + 1)
            except BaseException as error:  # Fatal, and what is no Exception: SystemExit
                self._failed(lane, error)
                return
            self._settle(lane, wait)


class TaskLoop(_ParallelLoop):
    """Handles in tasks on the event loop, up to a limit at once."""

    def __init__(
        self,
        handler: Handler,
        channel: Channel[Any],
        outcome: Outcome,
        attempt: AttemptAsync,
        limit: int,
        events: EventLoop,
    ) -> None:
        """`events`: where the tasks run."""
        super().__init__(handler, channel, outcome, limit)
        self._attempt = attempt
        self._loop = events.loop
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def _kick(self) -> None:
        self._loop.call_soon_threadsafe(self._pump)

    def _pump(self) -> None:
        """Start what may start; on the loop."""
        with self._changed:
            while (not self.stopping or self._must_go_on()) and self._lanes.running < self._limit:
                lane = self._lanes.take(time.monotonic())
                if lane is None:
                    break
                task = self._loop.create_task(self._handle(lane))
                self._tasks.add(task)  # the loop itself keeps no task alive
                task.add_done_callback(self._tasks.discard)
            due = self._lanes.next_due()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due is not None:
            self._timer = self._loop.call_later(max(due - time.monotonic(), 0.0), self._pump)

    async def _handle(self, lane: Lane) -> None:
        message = lane.message
        try:
            try:
                await self._attempt(message, lane.subject)
                wait = None
            except Exception as error:
                # On a thread: it writes to the log, and calls hooks that may wait for the loop.
                wait = await asyncio.to_thread(self._outcome.failed, message, error, lane.attempts + 1)
        except BaseException as error:  # Fatal, and a cancellation when the loop is closed
            self._failed(lane, error)
            if isinstance(error, asyncio.CancelledError):
                raise
            return
        self._settle(lane, wait)
