"""How do named producers and transactions write a history?

Floor 8: may import log, errors, testing.history, testing.recorder and testing.recording. Thread rule: each belongs to
one thread at a time.

A transaction is written down as aborted when it begins, as unknown when its commit is asked for, and with its outcome
when the answer comes: so what stands there when its process is killed is what is known.
"""

from __future__ import annotations

import time
from itertools import count
from types import TracebackType
from typing import Any, Literal, Self

from tidelog.errors import Fenced
from tidelog.log import Log
from tidelog.testing.history import Flag, Kind, Status
from tidelog.testing.recorder import Recorder
from tidelog.testing.recording import Receiving, Sending

__all__ = ["Naming", "Transacting"]


class Naming:
    """An opening of a producer's name, and which one it is: openings of a name are counted by its epochs."""

    def __init__(self, recorder: Recorder, log: Log, name: str, **options: Any) -> None:
        """`options`: of `log.producer`. Raises what that raises."""
        while True:
            began = time.monotonic_ns()
            self.producer = log.producer(name=name, **options)
            named = self.producer._named
            assert named is not None
            epoch = named.epoch
            if not named.fenced:  # else that was the epoch of whoever has opened the name since
                break
            self.producer.close()
        self.facts: dict[str, Any] = {"producer": name, "epoch": named.producer_id << 16 | epoch}
        self.client = recorder.client(f"{name}#{epoch}", **self.facts)
        recorder.row(Kind.OPEN, self.client, begin=began)
        self.numbers = count(1)


class Transacting:
    """What `log.transaction` does, written down. `send` and `send_many` take the `Sending` of the channel first."""

    def __init__(self, recorder: Recorder, log: Log, naming: Naming, *received: Receiving, **options: Any) -> None:
        """`received`: whose offsets go along; `options`: of `log.transaction`."""
        self._recorder, self._naming, self._received = recorder, naming, received
        self.transaction = log.transaction(naming.producer, *(one.consumer for one in received), **options)
        self.number = recorder.txn(f"{naming.facts['producer']}-{naming.facts['epoch']}-{next(naming.numbers)}")
        self._row: tuple[Any, int] | None = None
        self._joined = False

    def send(self, sending: Sending, value: Any, **options: Any) -> Any:
        """What `transaction.send` does."""
        return sending.send(value, within=self, **options)

    def send_many(self, sending: Sending, values: Any, **options: Any) -> Any:
        """What `transaction.send_many` does."""
        return sending.send_many(values, within=self, **options)

    def __enter__(self) -> Self:
        self._row = self._recorder.row(Kind.TXN, self._naming.client, end=0, txn=self.number, status=Status.FAIL)
        self.transaction.__enter__()
        for one in self._received:
            one.join(self.number)
        self._joined = True
        return self

    def commit(self) -> None:
        """What `transaction.commit` does."""
        self._ask()
        fenced = 0
        try:
            self.transaction.commit()
        except Fenced:
            fenced = int(Flag.FENCED)
            raise
        finally:
            self._answer(fenced)

    def abort(self) -> None:
        """What `transaction.abort` does."""
        try:
            self.transaction.abort()
        finally:
            self._answer(0)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        fenced = int(Flag.FENCED) if isinstance(error, Fenced) else 0
        if kind is None and self.transaction.state == "open":
            self._ask()
        try:
            self.transaction.__exit__(kind, error, trace)
        except Fenced:
            fenced = int(Flag.FENCED)
            raise
        finally:
            self._answer(fenced)
        return False

    def _ask(self) -> None:
        """Before it is committed: from here on nobody knows, until the answer is there."""
        assert self._row is not None
        began = time.monotonic_ns()
        for one in self._received:
            one.hand_in(began)
        self._recorder.ask(self._row)

    def _answer(self, fenced: int) -> None:
        """What became of it; nothing, while it is still open."""
        state = self.transaction.state
        if not self._joined or state == "open" or self._row is None:
            return
        self._joined = False
        if state != "unknown":
            status = Status.OK if state == "committed" else Status.FAIL
            self._recorder.complete(self._row, status, flags=fenced if status is Status.FAIL else 0)
        for one in self._received:
            one.leave(committed=state == "committed")
