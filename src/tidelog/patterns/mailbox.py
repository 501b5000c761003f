"""Who hands each answer to the thread that waits for it?

Floor 7: may import reply, engine.base, codec, envelope, errors, and the compiled reader. Thread rule: everything may be
called from any thread. In a forked child every call raises Forked.

A reply channel is a queue of one partition that one process alone reads, as its queue's group: the lease tells
everybody whether that process lives.

There is no thread behind it. Of the threads that wait for answers one reads (it leads), hands what is not its own to
the others, and when it has what it wanted, wakes one of them to lead. A single asker so sleeps on the log itself, and
its answer wakes it directly.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from contextlib import suppress
from typing import Any

from tidelog._native import Channelled, Message, Reader, message_as
from tidelog.codec import Codec
from tidelog.engine.base import Engine, Opened
from tidelog.envelope import CORRELATION_ID
from tidelog.errors import ChannelNotFound, Closed, Corrupt, DecodeError, Error, Forked, OffsetOutOfRange, Timeout
from tidelog.partitioner import key_bytes
from tidelog.patterns.reply import answer_decoder

__all__ = ["Mailbox", "Slot"]


class Slot:
    """One question that waits for answers; or all the answers that nobody waits for (`key` None)."""

    __slots__ = ("gate", "inbox", "key", "left", "notify", "shared", "taken", "waiting")

    def __init__(self, key: bytes | None, shared: Channelled, limit: int | None) -> None:
        self.key = key
        self.shared = shared
        self.left = limit
        """Answers still to come; None: any number."""
        self.inbox: deque[Message[Any]] = deque()
        self.taken: list[int] = []
        """Offsets that were handed over and not settled; of durable mailboxes only."""
        self.gate = threading.Lock()
        """Shut (held) until its sleeping owner is woken."""
        self.gate.acquire()
        self.waiting = False
        self.notify: Any = None
        """Called, from whichever thread reads, when an answer is there; for event loops."""


class Mailbox:
    """One reply channel of this process, and the questions that wait for answers in it."""

    def __init__(self, engine: Engine, opened: Opened, reader: Reader, *, durable: bool) -> None:
        self.name = opened.definition.name
        self.durable = durable
        self.late = 0
        """Answers that came for nobody (any more), and were dropped."""
        self._engine = engine
        self._opened = opened
        self._reader = reader
        self._pid = os.getpid()
        self._generation = opened.generation
        # Reentrant: a signal handler may close the log while its thread is in here.
        self._lock = threading.RLock()
        self._slots: dict[bytes, Slot] = {}
        self._rest: Slot | None = None
        self._asleep: dict[Slot, None] = {}
        self._leader: Slot | None = None
        self._closed = False
        self._failure: Error | None = None
        # Of a durable one: offsets that were read and not settled, in order, and those among them that nobody wanted.
        self._open: dict[int, None] = {}
        self._unclaimed: list[int] = []
        self._owed: list[int] = []
        self._read_to = -1
        self._commit_to = -1
        engine.adopt(self)

    @property
    def reader(self) -> Reader:
        """What reads the channel, for event loops that wait for several readers at once."""
        return self._reader

    @property
    def led(self) -> bool:
        """Whether a thread reads for everybody at the moment."""
        return self._leader is not None

    def usable(self) -> bool:
        """Whether questions can name it. False once its channel is gone. Raises Closed, Forked."""
        generation = self._engine.generation
        if self._closed or self._failure is not None:
            return False
        if generation != self._generation:
            try:
                if self._engine.definition(self.name).id != self._opened.definition.id:
                    raise ChannelNotFound(self.name)
            except ChannelNotFound:
                self._fail(self._dropped())
                return False
            self._generation = generation
        return True

    def typed(self, codec: Codec) -> Channelled:
        """What answers written by `codec` share."""
        return Channelled(
            self.name,
            "queue",
            encode=None,
            decode=None,
            encode_many=None,
            decode_many=None,
            dtype=None,
            key_bytes=key_bytes,
            decompress=self._opened.decompress,
            max_message_bytes=self._opened.definition.max_message_bytes,
            carries="document",
            decode_message=answer_decoder(codec),
        )

    # --- who waits for what ---

    def expect(self, key: bytes, shared: Channelled, limit: int | None) -> Slot:
        """A slot for the answers to the question with this id. Raises ValueError if one waits for them already."""
        self._check_process()
        self._settle_owed()
        slot = Slot(key, shared, limit)
        if self._slots.setdefault(key, slot) is not slot:
            raise ValueError(f"the question {key.decode()!r} waits for answers already: give another id, or none")
        return slot

    def expect_rest(self, shared: Channelled, limit: int | None) -> Slot:
        """A slot for all answers that nobody else waits for. Raises ValueError if there is one."""
        self._check_process()
        slot = Slot(None, shared, limit)
        with self._lock:
            if self._rest is not None:
                raise ValueError(f"{self.name!r} is being resumed already: close those replies first")
            self._settle_owed()
            self._rest = slot
            while self._unclaimed and slot.left != 0:
                self._put(slot, self._read_again(self._unclaimed.pop(0)))
        return slot

    def forget(self, slot: Slot) -> None:
        """Nobody waits for this slot any more."""
        if os.getpid() != self._pid:
            return
        # As good as without the lock, because the garbage collector may call this in the middle of anything.
        if slot.key is not None and self._slots.get(slot.key) is slot:
            del self._slots[slot.key]
        if self.durable:
            with self._lock:
                if self._rest is slot:
                    self._rest = None
                left = [message.offset for message in slot.inbox] + slot.taken
                slot.inbox.clear()
                slot.taken.clear()
                self._unclaimed = sorted({*self._unclaimed, *left})

    def take(self, slot: Slot) -> Message[Any]:
        """The next answer of a slot that has one."""
        message = slot.inbox.popleft()
        if self.durable:
            slot.taken.append(message.offset)
        return message

    def settle(self, slot: Slot) -> None:
        """What was taken of a slot is handled: a durable mailbox will not bring it again."""
        if slot.taken and os.getpid() == self._pid:
            with self._lock:
                self._settle(slot.taken)
                slot.taken.clear()

    def owe(self, slot: Slot) -> None:
        """What was taken of a slot counts as handled once the next thing is asked for, or the log is closed."""
        with self._lock:
            self._owed += slot.taken
            slot.taken.clear()

    # --- waiting ---

    def wait(self, slot: Slot, until: float | None) -> bool:
        """Whether there is an answer; waits for it until the monotonic time `until` (None: for ever).

        Raises Closed when the log is closed, ChannelNotFound when the reply channel was dropped, Forked.
        """
        if slot.inbox:
            return True
        self._check_process()
        if slot.waiting:
            raise RuntimeError("another thread waits for these answers: replies belong to one thread at a time")
        slot.waiting = True
        # An interrupt may come between any two steps; whatever of them was done, `_leave` undoes.
        try:
            while not slot.inbox:
                over = until is not None and time.monotonic() >= until
                with self._lock:
                    self._reset(slot)
                    if slot.inbox:
                        break
                    self._check()
                    if self._leader is None:
                        self._leader = slot
                    elif self._leader is not slot:
                        if over:
                            return False
                        self._asleep[slot] = None
                if self._leader is slot:
                    self._lead(slot, until)
                    if over and not slot.inbox:
                        return False
                else:
                    left = -1.0 if until is None else min(max(until - time.monotonic(), 0.0), threading.TIMEOUT_MAX)
                    slot.gate.acquire(timeout=left)
            return True
        finally:
            self._leave(slot)

    def poll(self) -> None:
        """Hand out what is there, without waiting; nothing if a thread reads already. Raises like `wait`."""
        self._check_process()
        me = Slot(None, self._opened.shared, 0)
        try:
            with self._lock:
                self._check()
                if self._leader is None:
                    self._leader = me
            if self._leader is me:
                self._lead(me, 0.0)
        finally:
            self._leave(me)

    def close(self) -> None:
        """Wake everybody who waits (Closed), and drop the channel unless it is durable; idempotent."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            if self._closed:
                return
            if self._failure is None:
                with suppress(Error):
                    self._settle_owed()
            self._closed = True
            self._wake_all()
        self._engine.forget(self)
        self._reader._cancel()
        self._reader._release()
        if not self.durable and self._failure is None:
            with suppress(Error):  # whoever makes the next reply channel drops what is left
                self._engine.drop(self.name)

    # --- inside; the lock is held where it says so ---

    def _lead(self, slot: Slot, until: float | None) -> None:
        """Read and hand out, until `slot` has something or the time is over."""
        reader, end = self._reader, -1
        while not slot.inbox:
            left = None if until is None else max(until - time.monotonic(), 0.0)
            if left == 0.0:  # what had come by now is still handed out, and nothing that comes meanwhile
                if end < 0:
                    end = self._opened.partitions[0].bounds()[1]
                elif reader._position(0) >= end:
                    return
            try:
                if self._commit_to >= 0:
                    with self._lock:
                        self._commit()
                message = reader.receive(left)
            except Timeout:
                return
            except OffsetOutOfRange:  # somebody trimmed the channel: go on where it begins now
                continue
            except (Closed, Forked):
                self._check()
                raise
            except ChannelNotFound:
                self._fail(self._dropped())
                self._check()
                raise
            except (Corrupt, DecodeError) as error:
                # What stands there would stand in the way of every answer to come. A durable channel may hold others'
                # work, so its user decides; an own one is left behind, and the next question makes another.
                if not self.durable:
                    self._fail(type(error)(f"{error}; answers that were awaited are lost with it, ask again"))
                raise
            self._hand_out(message, slot)

    def _hand_out(self, message: Message[Any], mine: Slot) -> None:
        key = message.headers.get(CORRELATION_ID)
        slot = None if key is None else self._slots.get(key)
        if slot is not None and slot.left != 0 and not self.durable:
            self._put(slot, message)
            if slot is not mine:
                with self._lock:
                    self._wake(slot)
            return
        if not self.durable:
            self.late += 1
            return
        with self._lock:
            self._open[message.offset] = None
            self._read_to = message.offset + 1
            wanted = slot if slot is not None and slot.left != 0 else self._rest
            if wanted is None or wanted.left == 0:
                self._unclaimed.append(message.offset)
                return
            self._put(wanted, message)
            if wanted is not mine:
                self._wake(wanted)

    def _put(self, slot: Slot, message: Message[Any]) -> None:
        slot.inbox.append(message_as(message, slot.shared))
        if slot.left is not None:
            slot.left -= 1
        if slot.notify is not None:
            slot.notify()

    def _read_again(self, offset: int) -> Message[Any]:
        import numpy as np

        partition = self._opened.partitions[0]
        return partition.read_at(np.array([offset], dtype=np.int64), self._opened.shared, 0)[0]

    def _settle(self, offsets: list[int]) -> None:
        """With the lock held. Commits up to the first answer that is not handled yet; a thread that leads is in the
        reader, and commits when it asks for the next one."""
        for offset in offsets:
            self._open.pop(offset, None)
        if offsets:
            self._commit_to = next(iter(self._open), self._read_to)
            if self._leader is None:
                self._commit()

    def _settle_owed(self) -> None:
        if self._owed:
            with self._lock:
                owed, self._owed = self._owed, []
                self._settle(owed)

    def _commit(self) -> None:
        """By who leads, or with the lock held and nobody leading."""
        offset, self._commit_to = self._commit_to, -1
        self._reader._commit(0, offset)

    def _reset(self, slot: Slot) -> None:
        """With the lock held: the slot sleeps no more, and its gate is shut."""
        self._asleep.pop(slot, None)
        slot.gate.acquire(blocking=False)

    def _leave(self, slot: Slot) -> None:
        """Its owner waits no more. If it led, or was woken to lead and did not, another one is woken."""
        with self._lock:
            slot.waiting = False
            self._reset(slot)
            if self._leader is slot:
                self._leader = None
            if self._leader is None and self._asleep:
                self._wake(next(iter(self._asleep)))

    def _wake(self, slot: Slot) -> None:
        """With the lock held."""
        if slot in self._asleep:
            del self._asleep[slot]
            slot.gate.release()

    def _wake_all(self) -> None:
        """With the lock held."""
        for slot in list(self._asleep):
            self._wake(slot)
        for waiting in (*list(self._slots.values()), self._rest):
            if waiting is not None and waiting.notify is not None:
                waiting.notify()

    def _fail(self, error: Error) -> None:
        with self._lock:
            if self._failure is None and not self._closed:
                self._failure = error
            self._wake_all()
        self._engine.forget(self)
        if not isinstance(error, ChannelNotFound):
            self._reader._release()
            with suppress(Error):
                self._engine.drop(self.name)

    def _dropped(self) -> ChannelNotFound:
        return ChannelNotFound(
            f"the reply channel {self.name!r} was dropped while answers were awaited in it: they are lost, ask again"
        )

    def _check(self) -> None:
        self._check_process()
        if self._closed:
            raise Closed("the log was closed while answers were awaited: open it again with tidelog.open")
        if self._failure is not None:
            raise type(self._failure)(str(self._failure))

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise Forked("these replies were asked for before fork(): call tidelog.open in the child, and ask there")
