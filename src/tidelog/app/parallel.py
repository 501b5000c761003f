"""How are several messages of one handler handled at once, those of one key one after the other?

Floor 8: may import attempt, event_loop, intake, lanes, handler, outcome. Thread rule: `run` belongs to the receiving
thread; everything shared with the workers is behind one lock, which is never held while a handler runs.

One consumer receives for all workers. What is finished is committed at once by whoever finished it; what is finished
out of order stays uncommitted until what was before it is finished too. The workers are threads for plain functions,
and tasks on the event loop for coroutines.
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

from tidelog.app.attempt import Attempt, AttemptAsync
from tidelog.app.event_loop import EventLoop
from tidelog.app.handler import Handler
from tidelog.app.intake import GAPS_SECONDS, IDLE_SECONDS, LOOK_SECONDS, Intake
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
        self._intake = Intake(handler, channel, self._lanes, self._changed, self._wait_out)
        # What is read ahead only waits in memory, and is given up when a partition goes to somebody else.
        self._enough = max(RECEIVE_COUNT, 8 * limit)
        self._given_up = False
        self._patience = None if handler.max_processing is None else duration_ms(handler.max_processing, "") / 1000
        self._error: BaseException | None = None
        self.stopping = False
        self._receiving = False  # what is received and not in the lanes yet: `finish` must not overlook it

    # --- life, in the receiving thread ---

    def run(self) -> None:
        """Receive until `stop`, then wait for what is out as long as `finish` allows. Raises Fatal, and what does not
        pass by itself."""
        self._receiving = True
        try:
            while not self.stopping:
                self._round()
        finally:
            with self._changed:
                self._receiving = False
                self._changed.notify_all()
        with self._changed:
            while (self._lanes.running or self._must_go_on()) and not self._given_up:
                self._changed.wait(IDLE_SECONDS)
            lost = len(self._lanes) - self._lanes.running
        self._intake.end()
        if lost and not self._intake.commits:
            self._intake.say_lost(lost)
        if self._error is not None:
            raise self._error

    def stop(self, patience: float = GAPS_SECONDS) -> None:
        """Hand out nothing more, except what stands before a message that is finished already: a retry among that is
        waited for if it is due within `patience` seconds."""
        with self._changed:
            if self._intake.commits:
                self._lanes.cut(until=time.monotonic() + min(patience, GAPS_SECONDS))
            self.stopping = True
            self._kick()
            self._changed.notify_all()
        self._intake.rouse()

    def finish(self, deadline: float) -> bool:
        """Wait for what is out until `deadline` (monotonic); False: it takes longer, and is given up."""
        with self._changed:
            while (self._receiving or self._lanes.running or self._must_go_on()) and (
                left := deadline - time.monotonic()
            ) > 0:
                self._changed.wait(left)
            self._given_up = True
            self._kick()
            self._changed.notify_all()
            return self._lanes.running == 0

    def close(self) -> None:
        """Leave the group."""
        self.stop(0.0)
        self._intake.close()

    def _round(self) -> None:
        lanes = self._lanes
        with self._changed:
            while self._stuck() and not self.stopping:  # not asking for more is how the group learns of it
                self._changed.wait(LOOK_SECONDS)
            room = self._room(self._enough)
            timeout = LOOK_SECONDS if lanes else IDLE_SECONDS
        full = not room
        if full:
            with self._changed:
                self._changed.wait_for(lambda: self.stopping or self._room(self._enough // 2), LOOK_SECONDS)
                room = self._room(self._enough // 2)
            timeout = 0.0
        self._intake.pace(hold=not room)
        batch = self._intake.receive(room or 1, timeout)  # also without room: partitions may have to be given back
        if batch is not None:
            size = batch.nbytes // len(batch) + 1
            with self._changed:
                if not (self.stopping and self._intake.commits):  # else somebody else will have them
                    for message in batch:
                        lanes.put(message, message, size)
                self._kick()
        self._intake.commit()

    def _room(self, enough: int) -> int:
        """How many messages may be received now; the lock is held. What is committed already waits for nothing, so that
        an application that ends has nothing to lose but what it has in hand."""
        if self._intake.commits:
            return RECEIVE_COUNT if self._lanes.ready < enough else 0
        return max(self._limit - self._lanes.held, 0)

    def _stuck(self) -> bool:
        """Whether a message is out for longer than its handler may take."""
        if self._patience is None:
            return False
        oldest = self._lanes.oldest()
        return oldest is not None and time.monotonic() - oldest > self._patience

    def _wait_out(self, partitions: list[int], until: float) -> None:
        """Wait until what is left of partitions that go is done. What is out is waited for as long as it takes; what
        only fills the gaps before it is given up at `until`, and what ran ahead of it is handled twice."""
        with self._changed:
            while self._lanes.pending(partitions) and not self._given_up and self._error is None:
                left = until - time.monotonic()
                if left <= 0 and self._intake.commits:
                    self._lanes.drop(partitions)
                self._changed.wait(min(left, IDLE_SECONDS) if left > 0 else IDLE_SECONDS)

    # --- in the workers ---

    def _must_go_on(self) -> bool:
        """Whether something has to be handled although it stops: `cut` has left only what completes the commits, now or
        at a retry; with at-most-once everything is committed already, and would be lost."""
        if self._error is not None or self._given_up:
            return False
        return bool(self._lanes) if self._intake.commits else self._lanes.ready > 0

    def _kick(self) -> None:
        """There may be something to take; the lock is held."""
        raise NotImplementedError

    def _settle(self, lane: Lane, wait: float | None) -> None:
        """What was out is finished (None), or waits for its next attempt."""
        with self._changed:
            if wait is None:
                self._lanes.done(lane)
                self._intake.commit_beside()
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
        self._intake.rouse()


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
            self._threads -= 1  # what is received after this one ended gets another
            self._takers.notify_all()
            return None

    def _work(self) -> None:
        while (lane := self._next()) is not None:
            message = lane.message
            try:
                try:
                    self._attempt(*lane.call())
                    wait = None
                except Exception as error:
                    wait = self._outcome.failed(message, error, lane.attempts + 1)
            except BaseException as error:  # Fatal, and what is no Exception: SystemExit
                with self._changed:
                    self._threads -= 1
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
                await self._attempt(*lane.call())
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
