"""How does a handler's loop get messages, and how does it tell the group how far it has come?

Floor 8: may import consumer, errors, handler, lanes, steps, message. Thread rule: one thread, the one that receives;
whoever shares the lanes with other threads gives the lock that guards them.

What goes wrong with receiving is settled here: what passes is waited out, an offset that retention has removed is
skipped and said, a lease that was lost drops what waits of its partition. What is left stops the application.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from tidelog.app import steps
from tidelog.app.handler import Handler
from tidelog.app.lanes import Lanes
from tidelog.consumer import Assigned, Consumer
from tidelog.errors import Closed, Error, Fenced, OffsetOutOfRange
from tidelog.message import Batch, Message

if TYPE_CHECKING:
    from tidelog.channel import Channel

__all__ = ["GAPS_SECONDS", "IDLE_SECONDS", "LOOK_SECONDS", "Intake"]

logger = logging.getLogger("tidelog.app")

LOOK_SECONDS = 0.05
"""How often a receiving thread that waits for its workers looks around."""
IDLE_SECONDS = 0.25
"""How long a loop sleeps in `receive_many` when nothing comes; `rouse` ends it."""
GAPS_SECONDS = 5.0
"""How long a partition that goes, or an application that stops, waits for messages that stand before finished ones."""
SPAN_MESSAGES = 10_000
SPAN_BYTES = 64 << 20
"""How far a partition runs ahead of a message that waits for its next attempt; then it pauses."""
TROUBLE_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0)
"""Waits after errors that pass."""


class Intake:
    """The consumer of one handler, with the lanes of what is unfinished."""

    def __init__(
        self,
        handler: Handler,
        channel: Channel[Any],
        lanes: Lanes,
        guard: AbstractContextManager[Any],
        revoking: Callable[[list[int], float], None],
    ) -> None:
        """Joins the group. `guard`: held while lanes are touched. `revoking`: called in the receiving thread with the
        partitions that go to somebody else; it does what `Lanes.cut` has left of them, until a time (monotonic). Raises
        what `channel.consumer` raises.
        """
        self.handler = handler
        self.channel = channel.name
        self._lanes = lanes
        self._guard = guard
        self.commits = handler.delivery != "at-most-once"
        """Whether anything is committed here; otherwise the consumer commits what it hands over."""
        self._paused: set[int] = set()
        self._held = False
        self._trouble = 0
        self._revoking = revoking
        self._roused = threading.Event()
        options: dict[str, Any] = {} if channel.kind == "queue" else {"group": handler.group}
        if handler.max_processing is not None:
            options["max_processing"] = handler.max_processing
        self.consumer: Consumer[Any] = channel.consumer(  # type: ignore[attr-defined]
            start=handler.start,
            delivery="manual" if self.commits else "at-most-once",
            on_assign=self._assigned if handler.start == "latest" and self.commits else None,
            on_revoke=self._revoked,
            **options,
        )

    # --- receiving ---

    def receive(self, count: int, timeout: float) -> Batch[Any] | None:
        """Up to `count` messages; None: none came within `timeout` seconds, or something passing went wrong.

        Raises Closed, Corrupt, StorageFailed and whatever else does not pass by itself.
        """
        try:
            batch = self.consumer.receive_many(count, timeout=timeout)
        except OffsetOutOfRange as error:  # once: the next call goes on at the log start
            logger.warning("%s: messages were removed before they were handled: %s", self.handler.name, error)
            return None
        except Error as error:
            if not (error.retriable or isinstance(error, Fenced)):
                raise
            wait = TROUBLE_SECONDS[min(self._trouble, len(TROUBLE_SECONDS) - 1)]
            self._trouble += 1
            logger.warning("%s cannot receive, again in %g s: %s", self.handler.name, wait, error)
            self._roused.wait(wait)
            return None
        self._trouble = 0
        if not len(batch):
            return None
        self._step("received", batch)
        return batch

    def rouse(self) -> None:
        """The loop stops: from now on `receive` sleeps no more. From any thread."""
        self._roused.set()
        self.consumer._rouse()

    def end(self) -> None:
        """Commit what is finished, for the last time; nothing if the consumer was closed by somebody else."""
        try:
            self.commit()
        except Closed:
            logger.warning("%s took too long to end: some messages will be handled twice", self.handler.name)

    def say_lost(self, count: int) -> None:
        """So many messages are given up that were committed before they were handled."""
        logger.warning(
            "%s stops before %d messages were handled that delivery='at-most-once' has committed: they are lost",
            self.handler.name,
            count,
        )

    def close(self) -> None:
        """Leave the group."""
        self.consumer.close()

    # --- committing ---

    def commit_upto(self, upto: Message[Any] | Batch[Any]) -> bool:
        """Everything up to this message, or to the end of this batch, is finished, and nothing before it unfinished.
        False: its partition is another consumer's by now."""
        if not self.commits:
            return True
        if steps.watcher is not None:
            self._step("before-commit", upto)
        try:
            self.consumer.commit(upto)
        except (Fenced, ValueError) as error:  # a ValueError: the partition is no longer assigned
            logger.warning("%s lost a partition, some messages will be handled twice: %s", self.handler.name, error)
            return False
        if steps.watcher is not None:
            self._step("after-commit", upto)
        return True

    def commit(self) -> None:
        """Tell the group how far the partitions are finished, where that has moved."""
        with self._guard:  # all the time: between two commits of a partition the offset must not go back
            for partition, offset in self._lanes.marks():
                if self.commits and not self._commit(partition, offset):
                    self._lanes.drop([partition])

    def commit_beside(self) -> None:
        """The same from a thread that does not receive and holds the guard, when a message is finished. What cannot be
        stored is left to `commit`, which may say why and settle it."""
        if not self.commits:
            return
        consumer = self.consumer
        for partition, offset in self._lanes.marks():
            self._step("before-commit", (partition, offset))
            if not consumer._commit_beside(consumer._index[Assigned(self.channel, partition)], offset):
                self._lanes.untold(partition, offset)
                continue
            self._step("after-commit", (partition, offset))

    def _step(self, name: str, subject: Any) -> None:
        if steps.watcher is not None:
            steps.watcher(name, self.handler.name, subject, "")

    def _commit(self, partition: int, offset: int) -> bool:
        """Whether it is still this consumer's."""
        self._step("before-commit", (partition, offset))
        try:
            self.consumer._commit(self.consumer._one(self.channel, partition), offset)
        except (Fenced, ValueError) as error:
            logger.warning(
                "%s lost partition %d of %s, some messages will be handled twice: %s",
                self.handler.name,
                partition,
                self.channel,
                error,
            )
            return False
        self._step("after-commit", (partition, offset))
        return True

    # --- pausing ---

    def pace(self, hold: bool = False) -> None:
        """Pause what runs too far ahead of its first unfinished message, or everything (`hold`); resume the rest."""
        if not self._paused and not hold and not self._lanes:
            return
        with self._guard:
            spans = {partition: self._lanes.span(partition) for partition in self._lanes.partitions()}
        mine = {assigned.partition for assigned in self.consumer.assignment}
        for partition in mine:
            messages, nbytes = spans.get(partition, (0, 0))
            if partition in self._paused:  # half empty before it goes on, so that it does not flutter
                full = messages > SPAN_MESSAGES // 2 or nbytes > SPAN_BYTES // 2
            else:
                full = messages >= SPAN_MESSAGES or nbytes >= SPAN_BYTES
            wanted = hold or full
            if wanted and partition not in self._paused:
                self.consumer.pause(partition, channel=self.channel)
                self._paused.add(partition)
            elif not wanted and partition in self._paused:
                self.consumer.resume(partition, channel=self.channel)
                self._paused.discard(partition)
        self._paused &= mine

    # --- partitions that come and go ---

    def _assigned(self, assigned: Sequence[Assigned]) -> None:
        """Whoever reads on here begins at the same place, even if nothing is handled before: "latest" asked again
        would skip what has come meanwhile."""
        committed, position = self.consumer.committed, self.consumer.position
        for one in assigned:
            if committed.get(one, 0) is None:
                self._commit(one.partition, position[one])

    def _revoked(self, assigned: Sequence[Assigned]) -> None:
        partitions = [one.partition for one in assigned]
        until = time.monotonic() + GAPS_SECONDS
        membership = self.consumer._membership
        with self._guard:
            if membership is not None and not membership.active:  # the others have begun with them already
                self._lanes.drop(partitions)
            elif self.commits:  # else it is committed already, and would be lost
                self._lanes.cut(partitions, until)
        try:
            self._revoking(partitions, until)
        finally:
            with self._guard:
                if self.commits:
                    self._lanes.drop(partitions)
                marks = self._lanes.marks()
                self._lanes.forget(partitions)
            self._paused.difference_update(partitions)
            if self.commits:
                for partition, offset in marks:
                    self._commit(partition, offset)
