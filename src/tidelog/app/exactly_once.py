"""How does a handler's output become visible together with the commit of its input, and neither without the other?

Floor 8: may import ahead, output, intake, lanes, handler, outcome, attempt, steps, log, transaction, errors, message.
Thread rule: `step` and `run` belong to one thread at a time; `stop` may be called from any.

What was received is handled message by message, and what comes of it (what the function returned, dead letters, how far
the group has come) is one transaction. It ends when the messages at hand are handled, or after CHUNK_SECONDS: many
messages share the cost of a commit when there are many.

Only what stands before everything unfinished can be committed. So a message that waits for its next attempt holds up
its partition, and not only its key: the partition is paused there, and read again from that message on. A function that
raises has sent nothing, and what was handled before it in the same transaction is committed. If sending what it
returned fails half way, the transaction is aborted, and everything in it is handled again.

Several messages at once (ahead.py) are several of one transaction: what they lead to is sent in their order, and behind
one that fails nothing of its partition was sent. What ran ahead of it there is handled again.

The producer has the name of the application and of this consumer's place in the table of members. No two members that
live have the same place, and whoever comes to the place of a dead one opens its name, which ends what that one left.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tidelog._native import message_again
from tidelog.app import steps
from tidelog.app.ahead import Ahead, Handled
from tidelog.app.attempt import Attempt
from tidelog.app.handler import Handler
from tidelog.app.intake import GAPS_SECONDS, IDLE_SECONDS, TROUBLE_SECONDS, Intake
from tidelog.app.lanes import Lanes
from tidelog.app.outcome import Fatal, Outcome
from tidelog.app.output import Lost, Output
from tidelog.consumer import Assigned
from tidelog.errors import Error, Fenced
from tidelog.message import Batch, Message
from tidelog.producer import Producer
from tidelog.transaction import Level

if TYPE_CHECKING:
    from tidelog.channel import Channel
    from tidelog.log import Log

__all__ = ["ExactlyOnceLoop", "Output"]

logger = logging.getLogger("tidelog.app")

CHUNK_SECONDS = 0.5
"""A transaction takes in no further message after this time; what is received already is handed out again."""
BATCH_SECONDS = (0.02, 0.1)
"""A transaction that takes less than the first gets more messages, one that takes more than the second gets fewer."""
FIRST_COUNT = 16
TIMEOUT_SECONDS = 900.0
"""A function that is called in a transaction may take so long; then the transaction is aborted, and all comes again."""


class _Again(Exception):
    """The transaction holds half of what a message leads to, and must be aborted."""


@dataclass(slots=True)
class _Stuck:
    """A message that failed, and its partition with it."""

    offset: int
    attempts: int
    due: float
    error: Exception | None = None
    """It failed in a transaction that had to be aborted, and what follows from it is not done yet."""


class ExactlyOnceLoop:
    """Receives for one handler and handles on the same thread, in transactions."""

    def __init__(
        self,
        handler: Handler,
        channel: Channel[Any],
        outcome: Outcome,
        attempt: Attempt,
        *,
        log: Log,
        output: Output,
        name: str,
        level: Level,
        limit: int = 1,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Joins the group. `output`: where `outcome` and `attempt` send to; `name`: of the application; `limit`: so
        many messages at once; `now`: the clock of retries; one that is turned by hand is not waited for."""
        self.handler = handler
        self._outcome = outcome
        self._attempt = attempt
        self._log = log
        self._output = output
        self._name = name
        self._level = level
        self._now = now
        self._channel = channel.name
        self._producer: Producer | None = None
        self._row = -1
        self._stuck: dict[int, _Stuck] = {}
        self._paused: set[int] = set()
        # Before these offsets a batch has failed, and what is left of it is handled message by message.
        self._singly: dict[int, int] = {}
        self._batches = handler.takes == "batch"
        self._ahead = Ahead(attempt, output, limit, f"{name}-{handler.name}") if limit > 1 else None
        self._least = min(limit, handler.batch)
        self._count = handler.batch if self._batches else min(max(FIRST_COUNT, limit), handler.batch)
        self._trouble = 0
        self._woken = threading.Event()
        self.stopping = False
        self._intake = Intake(handler, channel, Lanes(), nullcontext(), self._revoked)

    # --- life ---

    def run(self) -> None:
        """Handle messages until `stop`. Raises Fatal, and what does not pass by itself."""
        while not self.stopping:
            self.step(IDLE_SECONDS)

    def stop(self, patience: float = GAPS_SECONDS) -> None:
        """Have `run` end when the handler returns from the message it has; what is finished is committed then."""
        self.stopping = True
        self._woken.set()
        if self._ahead is not None:
            self._ahead.halt()
        self._intake.rouse()

    def finish(self, deadline: float) -> bool:
        """After `run` has ended nothing is out any more."""
        return True

    def close(self) -> None:
        """Leave the group. A transaction that is open in another thread is aborted."""
        self.stop(0.0)
        if self._ahead is not None:
            self._ahead.close()
        self._intake.close()
        producer, self._producer = self._producer, None
        if producer is not None:
            with suppress(Error):
                producer.close()

    @property
    def next_due(self) -> float | None:
        """When the next retry is due, by `now`; None: none waits."""
        dues = [stuck.due for partition, stuck in self._stuck.items() if partition in self._paused]
        return min(dues, default=None)

    # --- one round ---

    def step(self, timeout: float) -> bool:
        """Receive what is there, waiting at most `timeout` seconds, and handle it; whether there was anything."""
        self._resume()
        due = self.next_due
        if due is not None:
            timeout = min(timeout, max(due - self._now(), 0.0))
        batch = self._intake.receive(self._count, timeout)
        if batch is None:
            return False
        begun = time.monotonic()
        try:
            self._handle(batch, begun)
        except _Again:
            pass
        except Lost as lost:
            self._settle(lost.error)
        except Error as error:
            self._settle(error)
        else:
            self._trouble = 0
        self._pause()
        if not self._batches:
            self._pace(time.monotonic() - begun, len(batch))
        return True

    def _settle(self, error: Error) -> None:
        """The transaction was aborted: its messages come again. Raises what does not pass by itself."""
        if isinstance(error, Fenced):
            self._forget_producer()  # it may be the name that was lost: it is opened again
        elif not error.retriable:
            raise error
        wait = TROUBLE_SECONDS[min(self._trouble, len(TROUBLE_SECONDS) - 1)]
        self._trouble += 1
        logger.warning(
            "%s: a transaction was aborted, its messages are handled again in %g s: %s", self.handler.name, wait, error
        )
        self._woken.wait(wait)

    def _handle(self, batch: Batch[Any], begun: float) -> None:
        """What was received, in one transaction."""
        stop: Fatal | None = None
        consumer = self._intake.consumer
        with self._log.transaction(self._named(), consumer, timeout=TIMEOUT_SECONDS, level=self._level) as transaction:
            self._output.transaction = transaction
            try:
                if not (self._batches and self._whole(batch)):
                    stop = self._one_by_one(batch, begun) if self._ahead is None else self._abreast(batch, begun)
            finally:
                self._output.transaction = None
            if steps.watcher is not None:
                steps.watcher("before-commit", self.handler.name, batch, "")
            transaction.commit()
            if steps.watcher is not None:
                steps.watcher("after-commit", self.handler.name, batch, "")
        if stop is not None:  # what was finished before it is committed
            raise stop

    def _whole(self, batch: Batch[Any]) -> bool:
        """Hand over a batch as a whole; False: its messages are to be handled one by one."""
        if self._singly:
            if any(message.offset < self._singly.get(message.partition, -1) for message in batch):
                return False
            self._singly.clear()
        self._output.touched = False
        try:
            self._attempt(batch[0], batch)
        except Lost:
            raise
        except Exception as error:
            self._outcome.batch_failed(batch, error)
            if not self._output.touched:
                return False
            for message in batch:
                self._singly[message.partition] = message.offset + 1
            raise _Again from error
        return True

    def _one_by_one(self, batch: Batch[Any], begun: float) -> Fatal | None:
        """Handle messages in turn. What is not handled is given back; Fatal: nothing can take one of them."""
        held: set[int] = set()
        for index, message in enumerate(batch):
            partition = message.partition
            if partition in held:
                continue
            if self.stopping or (index and time.monotonic() - begun > CHUNK_SECONDS):
                self._give_back(batch, index, held)
                return None
            given = self._as_given(message)
            try:
                wait = self._one(given, batch[index : index + 1] if self._batches else given)
            except Fatal as fatal:
                self._give_back(batch, index, held)
                return fatal
            if wait is not None:
                self._stuck[partition].due = self._now() + wait
                self._give_back_from(message)
                held.add(partition)
        return None

    def _abreast(self, batch: Batch[Any], begun: float) -> Fatal | None:
        """The same, several at once; what they lead to is sent in the order of the messages."""
        ahead, held = self._ahead, set[int]()
        assert ahead is not None
        messages = [self._as_given(message) for message in batch]
        settled = [number for number, message in enumerate(messages) if self._failed_in_part(message)]
        ahead.begin(messages, begun + CHUNK_SECONDS, settled)
        if self.stopping:  # it may have been told so before there was anything to halt
            ahead.halt()
        try:
            for index, message in enumerate(messages):
                partition = message.partition
                if partition in held:
                    continue
                handled = ahead.result(index)
                if handled is None:
                    self._give_back_from(message)
                    held.add(partition)
                    continue
                try:
                    wait = self._one(message, message, handled)
                except Fatal as fatal:
                    self._give_back(batch, index, held)
                    return fatal
                if wait is None:
                    ahead.settled(index)
                    continue
                ahead.drop(partition)
                self._stuck[partition].due = self._now() + wait
                self._give_back_from(message)
                held.add(partition)
        finally:
            ahead.end()
        return None

    def _as_given(self, message: Message[Any]) -> Message[Any]:
        """A message as the function gets it: it says which attempt this is."""
        stuck = self._stuck.get(message.partition)
        if stuck is None or stuck.offset != message.offset or not stuck.attempts:
            return message
        return message_again(message, stuck.attempts)

    def _failed_in_part(self, message: Message[Any]) -> bool:
        """Whether it is known what a message came to, and only what follows from that is left."""
        stuck = self._stuck.get(message.partition)
        return stuck is not None and stuck.offset == message.offset and stuck.error is not None

    def _one(self, message: Message[Any], subject: Any, handled: Handled | None = None) -> float | None:
        """Handle one message as it is given: None when it is finished, else the seconds to its next attempt. `handled`:
        what came of it already."""
        output = self._output
        stuck = self._stuck.get(message.partition)
        if stuck is None or stuck.offset != message.offset:  # it may wait further on: a transaction is done again
            stuck = _Stuck(message.offset, 0, math.inf)
        error, stuck.error = stuck.error, None
        if error is None:
            output.touched = False
            try:
                if handled is None:
                    self._attempt(message, subject)
                elif handled.error is not None:
                    raise handled.error
                else:
                    for send in handled.calls:
                        send()
            except Lost:
                raise
            except Exception as raised:
                if output.touched:
                    stuck.error = raised
                    self._stuck[message.partition] = stuck
                    raise _Again from raised
                error = raised
        wait = None if error is None else self._outcome.failed(message, error, stuck.attempts + 1)
        if wait is not None:
            stuck.attempts += 1
            self._stuck[message.partition] = stuck
        elif self._stuck.get(message.partition) is stuck:
            del self._stuck[message.partition]
        return wait

    # --- what is not handled ---

    def _give_back(self, batch: Batch[Any], first: int, held: set[int]) -> None:
        """The messages of a batch from `first` on come again."""
        for message in batch[first:]:
            if message.partition not in held:
                held.add(message.partition)
                self._give_back_from(message)

    def _give_back_from(self, message: Message[Any]) -> None:
        consumer = self._intake.consumer
        consumer._return(consumer._index[Assigned(message.channel, message.partition)], message.offset)

    def _pause(self) -> None:
        """Partitions whose first message waits are not read meanwhile."""
        if not self._stuck:
            return
        mine = {assigned.partition for assigned in self._intake.consumer.assignment}
        for partition, stuck in list(self._stuck.items()):
            if partition not in mine:
                del self._stuck[partition]
            elif stuck.error is None and partition not in self._paused and self._now() < stuck.due < math.inf:
                self._intake.consumer.pause(partition, channel=self._channel)
                self._paused.add(partition)

    def _resume(self) -> None:
        now = self._now()
        for partition in list(self._paused):
            if self._stuck[partition].due <= now:
                self._paused.discard(partition)
                self._intake.consumer.resume(partition, channel=self._channel)

    def _revoked(self, partitions: list[int], until: float) -> None:
        """These go to somebody else, who reads them from where they were committed. Nothing is out: they change between
        two transactions only."""
        for partition in partitions:
            self._stuck.pop(partition, None)
            self._singly.pop(partition, None)
            self._paused.discard(partition)

    def _pace(self, seconds: float, count: int) -> None:
        if seconds > BATCH_SECONDS[1]:
            self._count = max(self._least, int(count * BATCH_SECONDS[1] / 2 / seconds))
        elif seconds < BATCH_SECONDS[0] and count >= self._count:
            self._count = min(self.handler.batch, self._count * 2)

    # --- the producer ---

    def _named(self) -> Producer:
        membership = self._intake.consumer._membership
        assert membership is not None  # a handler reads as a group
        row = membership.row
        if self._producer is None or row != self._row:
            self._forget_producer()
            self._producer = self._log.producer(name=f"{self._name}.exactly-once.{row}")
            self._row = row
        return self._producer

    def _forget_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            with suppress(Error):
                producer.close()
