"""What waits for its batch in a producer that lingers, and what is the receipt of such a message?

Floor 6: may import engine.base, config, message, errors, and the compiled sender. Thread rule: batches are added to
under the producer's lock and sent by one thread at a time; receipts may be asked from any thread.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from tidelog._native import Position, Receipt, Sender
from tidelog.config import Duration, duration_ms
from tidelog.engine.base import Opened
from tidelog.errors import Timeout
from tidelog.message import Headers

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Gathered", "Gathering", "Lingering", "Waiting"]

_WAIT_SECONDS = 0.2  # at most so long asleep at once
SLICE_MESSAGES = 8192
"""So many messages of at most about 1 MiB make no more than four batches."""


class Gatherer(Protocol):
    """What a batch needs of its producer."""

    def _send_gathered(self, channel: str) -> None: ...


class Waiting:
    """One message that waits for its batch."""

    __slots__ = ("bytes", "data", "headers", "id", "key", "partition", "timestamp")

    def __init__(
        self,
        data: bytes,
        key: bytes | None,
        headers: Headers | None,
        id: str | None,
        partition: int | None,
        timestamp: Any,
        size: int,
    ) -> None:
        self.data, self.key, self.headers, self.id = data, key, headers, id
        self.partition, self.timestamp, self.bytes = partition, timestamp, size


class Gathered:
    """What is gathered for one channel, by partition.

    Messages without a key share one partition, drawn when gathering begins, as a batch of them would: chosen when the
    batch goes out, they would come behind keyed messages of that partition that were sent later.
    """

    __slots__ = ("batches", "opened", "sticky")

    def __init__(self, opened: Opened) -> None:
        self.opened = opened
        self.sticky = random.randrange(len(opened.partitions))
        self.batches: dict[int, list[Gathering]] = {}
        """In the order in which they go out; more than one where a batch is kept to be sent again."""

    def put_before(self, newer: Gathered) -> None:
        """Make what is left here go out before what `newer` holds, which is taken over."""
        for partition, batches in newer.batches.items():
            self.batches[partition] = [*self.batches.get(partition, ()), *batches]
        self.sticky, self.opened = newer.sticky, newer.opened

    def drop_done(self) -> bool:
        """Forget batches that are done; whether others are left."""
        left = {
            partition: [batch for batch in some if not batch.done.is_set()] for partition, some in self.batches.items()
        }
        self.batches = {partition: some for partition, some in left.items() if some}
        return bool(self.batches)


class Gathering:
    """Messages that go out together, and what became of them.

    Those of a named producer go out with sequences that are chosen before the first attempt and stay the same, so that
    an attempt may be repeated whatever came of it: the log answers what it has already with its position. At most
    SLICE_MESSAGES at once, because it remembers the last five batches of a producer in a partition.
    """

    def __init__(self, producer: Gatherer, channel: str) -> None:
        self.producer, self.channel = producer, channel
        self.messages: list[Waiting] = []
        self.bytes = 0
        self.due = 0.0
        self.begun = False
        """It was tried to send it: no message joins any more."""
        self.kept: BaseException | None = None
        """Why the last attempt failed, of a batch that will be sent again."""
        self.asked = False
        """Somebody saw the error through a receipt."""
        self.error: BaseException | None = None
        self.sent: tuple[tuple[Receipt, ...], int, int] = ((), 0, -1)
        """(receipts, messages that they stand for, sequence of the next message where it was tried already). Replaced
        as a whole: an interrupt may come between any two steps."""
        self.done = Done()

    def add(self, message: Waiting) -> Lingering:
        """Put a message in; answers its receipt. Under the producer's lock."""
        self.messages.append(message)
        self.bytes += message.bytes
        return Lingering(self, len(self.messages) - 1)

    def send(self, sender: Sender, partition: int, sequence: Callable[[], int] | None) -> None:
        """Send what is gathered and complete the receipts. `sequence`: of a named producer's next message. Raises what
        sending raises."""
        self.begun, self.kept = True, None
        while True:
            receipts, count, begin = self.sent
            some = self.messages if sequence is None else self._slice(count)
            if not some:
                break
            if sequence is not None:
                if begin < 0:
                    begin = sequence()
                    self.sent = (receipts, count, begin)
                sender._begin_at(begin)
            receipt = sender.send_many([message.data for message in some], **_options(some, partition))
            self.sent = ((*receipts, receipt), count + len(some), -1)
            if sequence is None:
                break
        self.messages = []
        self.done.set()

    def _slice(self, begin: int) -> list[Waiting]:
        """What is sent at once from there on: all of it with ids, or all without, since ids and sequences are two ways
        to find out what is there already."""
        messages = self.messages
        end = min(begin + SLICE_MESSAGES, len(messages))
        for at in range(begin + 1, end):
            if (messages[at].id is None) != (messages[begin].id is None):
                return messages[begin:at]
        return messages[begin:end]

    def fail(self, error: BaseException) -> None:
        """Complete the receipts with an error."""
        self.error = error
        self.messages = []
        self.done.set()

    def receipt_of(self, place: int) -> tuple[Receipt, int]:
        """The receipt of one of its messages, and the message's place in it. Once it is done."""
        for receipt in self.sent[0]:
            if place < receipt.count:
                return receipt, place
            place -= receipt.count
        raise AssertionError("a batch that is done has a receipt for each message")


def _options(messages: list[Waiting], partition: int) -> dict[str, Any]:
    options: dict[str, Any] = {"partition": partition}
    if any(message.key is not None for message in messages):
        options["keys"] = [message.key for message in messages]
    if any(message.headers for message in messages):
        options["headers"] = [message.headers for message in messages]
    if any(message.id is not None for message in messages):
        options["ids"] = [message.id for message in messages]
    options["timestamp"] = [message.timestamp for message in messages]
    return options


class Done:
    """An event that an interrupt cannot break: threading.Event takes its lock in Python code."""

    def __init__(self) -> None:
        self._flag = False
        self._gate = threading.Lock()
        self._gate.acquire()

    def is_set(self) -> bool:
        """Whether it was set."""
        return self._flag

    def set(self) -> None:
        """Wake whoever waits, now and later."""
        self._flag = True
        with suppress(RuntimeError):  # it is open already
            self._gate.release()

    def wait(self, seconds: float | None) -> bool:
        """Wait until it is set; False after `seconds` (None: for ever)."""
        until = time.monotonic() + (threading.TIMEOUT_MAX if seconds is None else seconds)
        while not self._flag and (left := until - time.monotonic()) >= 0:
            if self._gate.acquire(timeout=min(left, _WAIT_SECONDS)):
                self._gate.release()
        return self._flag


class Lingering(Receipt):
    """The receipt of one message that waits for its batch; complete once the batch is in the log."""

    def __init__(self, batch: Gathering, index: int) -> None:
        """Made by `Producer.send`."""
        self._batch = batch
        self._place = index

    @property
    def done(self) -> bool:
        """Whether the message is in the log, or failed."""
        return self._batch.done.is_set()

    @property
    def count(self) -> int:
        """Messages this receipt stands for: 1."""
        return 1

    @property
    def partition(self) -> int:
        """The message's partition; waits for the batch. Raises what sending raised."""
        return self.result().partition

    @property
    def offset(self) -> int:
        """The message's offset; waits for the batch. Raises what sending raised."""
        return self.result().offset

    @property
    def duplicate(self) -> bool:
        """Whether the message was in the log before; waits for the batch. Raises what sending raised."""
        self.result()
        receipt, place = self._batch.receipt_of(self._place)
        return bool(receipt.duplicates[place])

    @property
    def duplicates(self) -> NDArray[np.bool_]:
        """The same as an array of one."""
        import numpy as np

        return np.array([self.duplicate], dtype=np.bool_)

    @property
    def partitions(self) -> NDArray[np.int32]:
        """The partition as an array of one."""
        import numpy as np

        return np.array([self.partition], dtype=np.int32)

    @property
    def offsets(self) -> NDArray[np.int64]:
        """The offset as an array of one."""
        import numpy as np

        return np.array([self.offset], dtype=np.int64)

    def result(self, timeout: Duration | None = None, level: str | None = None) -> Position:
        """Where the message is; sends its batch now if it still waits. `level="synced"`: wait for the disk too.

        Raises Timeout after `timeout` seconds, and what sending raised. What a named producer could not send is kept
        where the error says `retriable`: call again, or `flush`.
        """
        batch = self._batch
        if not batch.done.is_set():
            batch.producer._send_gathered(batch.channel)
        seconds = None if timeout is None else duration_ms(timeout, "timeout") / 1000
        until = None if seconds is None else time.monotonic() + seconds
        while not batch.done.wait(
            _WAIT_SECONDS if until is None else min(_WAIT_SECONDS, max(until - time.monotonic(), 0))
        ):
            if (kept := batch.kept) is not None:
                raise kept
            if until is not None and time.monotonic() >= until:
                raise Timeout(f"the message was not in the log after {timeout} s; call result() again, or flush()")
        if batch.error is not None and self._place >= batch.sent[1]:
            batch.asked = True
            raise batch.error
        receipt, place = batch.receipt_of(self._place)
        if level is not None:
            receipt.result(seconds, level)
        return Position(int(receipt.partitions[place]), int(receipt.offsets[place]))
