"""What waits for its batch in a producer that lingers, and what is the receipt of such a message?

Floor 6: may import engine.base, config, message, errors, and the compiled sender. Thread rule: batches are added to
under the producer's lock and sent by one thread at a time; receipts may be asked from any thread.
"""

from __future__ import annotations

import random
import threading
import time
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
        self.batches: dict[int, Gathering] = {}


class Gathering:
    """Messages that go out together, and what became of them."""

    def __init__(self, producer: Gatherer, channel: str) -> None:
        self.producer, self.channel = producer, channel
        self.messages: list[Waiting] = []
        self.bytes = 0
        self.due = 0.0
        self.asked = False
        """Somebody saw the error through a receipt."""
        self.error: BaseException | None = None
        self.receipt: Receipt | None = None
        self.done = Done()

    def add(self, message: Waiting) -> Lingering:
        """Put a message in; answers its receipt. Under the producer's lock."""
        self.messages.append(message)
        self.bytes += message.bytes
        return Lingering(self, len(self.messages) - 1)

    def send(self, sender: Sender, partition: int) -> None:
        """Send what is gathered and complete the receipts. Raises what sending raises."""
        messages, self.messages = self.messages, []
        options: dict[str, Any] = {"partition": partition}
        if any(message.key is not None for message in messages):
            options["keys"] = [message.key for message in messages]
        if any(message.headers for message in messages):
            options["headers"] = [message.headers for message in messages]
        if any(message.id is not None for message in messages):
            options["ids"] = [message.id for message in messages]
        options["timestamp"] = [message.timestamp for message in messages]
        self.receipt = sender.send_many([message.data for message in messages], **options)
        self.done.set()

    def fail(self, error: BaseException) -> None:
        """Complete the receipts with an error."""
        self.error = error
        self.done.set()


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

        Raises Timeout after `timeout` seconds, and what sending raised.
        """
        batch = self._batch
        if not batch.done.is_set():
            batch.producer._send_gathered(batch.channel)
        seconds = None if timeout is None else duration_ms(timeout, "timeout") / 1000
        if not batch.done.wait(seconds):
            raise Timeout(f"the message was not in the log after {timeout} s; call result() again, or flush()")
        if batch.error is not None:
            batch.asked = True
            raise batch.error
        receipt = batch.receipt
        assert receipt is not None
        if level is not None:
            receipt.result(seconds, level)
        return Position(int(receipt.partitions[self._place]), int(receipt.offsets[self._place]))
