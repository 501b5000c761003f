"""How does a program behave when sending, receiving or committing fails, is slow, or kills its process?

Floor 8: may import channel, producer, consumer, transaction, log, errors. Thread rule: everything may be called from
any thread; a fault holds for all threads of the process.

    with faults.fail("append", error=NoSpace, after=3) as fault:      # the fourth send of anything fails, once
        app.run()
    assert fault.hits == 1

    with faults.fail("append", error=OSError, done=True): ...         # it is sent, and then it fails: an answer is lost
    with faults.delay("commit", 0.2, times=None): ...                 # every commit takes longer
    faults.kill("receive", after=10, done=True)                       # holds until the process is dead

Points: "append" (send and send_many of channels, producers and transactions, lingering batches when they go out),
"receive" (receive, receive_many and iteration), "commit" (`commit`, and what the delivery rule commits by itself),
"sync" (`sync` of logs and channels). The seam is Python: methods that the handles have are wrapped while a fault is
there, and are what they were when the last one is gone. Methods that somebody took from a handle before
(`send = orders.send`) are not wrapped.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

from tidelog.channel import Channel
from tidelog.consumer import Consumer
from tidelog.errors import NoSpace
from tidelog.log import Log
from tidelog.producer import Producer
from tidelog.transaction import Transaction

__all__ = ["POINTS", "Fault", "Point", "delay", "fail", "kill", "watch"]

Point: TypeAlias = Literal["append", "receive", "commit", "sync"]
POINTS = ("append", "receive", "commit", "sync")
Watcher: TypeAlias = Callable[[str, str | None, bool, Any], None]
Raising: TypeAlias = "BaseException | type[BaseException] | Callable[[], BaseException]"

_METHODS: dict[type, dict[str, str]] = {
    Channel: {"send": "append", "send_many": "append", "sync": "sync"},
    Consumer: {"receive": "receive", "receive_many": "receive", "commit": "commit", "_finish": "leave"},
    Log: {"sync": "sync"},
    Producer: {"send": "slowly", "send_many": "slowly", "_sender": "sender"},
    Transaction: {"send": "slowly", "send_many": "slowly", "_sender": "sender"},
}


class Fault:
    """One fault, while it holds and afterwards."""

    def __init__(
        self, point: str, action: Callable[[], None], *, after: int, times: int | None, done: bool, on: str | None
    ) -> None:
        """Made by `fail`, `delay` and `kill`."""
        self.point, self.done, self.on = point, done, on
        self._action, self._after, self._times = action, after, times
        self.calls = 0
        """Calls that came by."""
        self.hits = 0
        """Calls that it hit."""

    def _due(self) -> bool:
        """Counts a call; whether it is one to hit. Under the lock."""
        self.calls += 1
        if self.calls <= self._after or (self._times is not None and self.hits >= self._times):
            return False
        self.hits += 1
        return True


_lock = threading.RLock()
_faults: list[Fault] = []
_watchers: list[Watcher] = []
_handed: weakref.WeakKeyDictionary[Any, bool] = weakref.WeakKeyDictionary()
"""Consumers that have handed something over which the next call commits."""


@contextmanager
def fail(
    point: Point,
    *,
    error: Raising = NoSpace,
    after: int = 0,
    times: int | None = 1,
    done: bool = False,
    on: str | None = None,
) -> Iterator[Fault]:
    """Calls at `point` raise `error` (a class, an instance, or a function that makes one).

    `after`: so many calls pass first. `times`: so many fail then (None: all). `done`: the call does its work before it
    fails, as when an answer is lost. `on`: only for this channel, or for consumers of this group. Raises ValueError for
    a point that does not exist, or counts below 0.
    """
    if not isinstance(error, BaseException) and not callable(error):
        raise TypeError(f"error={error!r}: give the class of an exception, an exception, or a function that makes one")
    if isinstance(error, type) and not issubclass(error, BaseException):
        raise TypeError(f"error={error.__qualname__} is no class of exceptions")

    def act() -> None:
        raise _made(error, point)

    with _held(Fault(_point(point), act, after=_count(after), times=_count(times), done=done, on=on)) as fault:
        yield fault


@contextmanager
def delay(
    point: Point,
    seconds: float,
    *,
    after: int = 0,
    times: int | None = None,
    done: bool = False,
    on: str | None = None,
) -> Iterator[Fault]:
    """Calls at `point` take `seconds` longer, before their work or (`done`) after it; the rest as for `fail`."""

    def act() -> None:
        time.sleep(seconds)

    with _held(Fault(_point(point), act, after=_count(after), times=_count(times), done=done, on=on)) as fault:
        yield fault


def kill(point: Point, *, after: int = 0, done: bool = False, on: str | None = None) -> None:
    """This process kills itself (SIGKILL) at a call of `point`: nothing is closed, no handler runs. The rest as for
    `fail`."""

    def act() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    _add(Fault(_point(point), act, after=_count(after), times=None, done=done, on=on))


@contextmanager
def watch(watcher: Watcher) -> Iterator[None]:
    """Have `watcher` called before and after every call of every point: (point, channel or group, whether it is done,
    what it answered). A call that raises is not done."""
    with _lock:
        if not (_faults or _watchers):
            _wrap()
        _watchers.append(watcher)
    try:
        yield
    finally:
        with _lock:
            _watchers.remove(watcher)
            if not (_faults or _watchers):
                _unwrap()


def _made(error: Raising, point: str) -> BaseException:
    if isinstance(error, BaseException):
        return error
    made = error(f"a fault of the test at {point!r}") if isinstance(error, type) else error()
    return made


def _point(point: str) -> str:
    if point not in POINTS:
        raise ValueError(f"there is no point {point!r}: use one of {', '.join(POINTS)}")
    return point


def _count(count: Any) -> Any:
    if count is not None and count < 0:
        raise ValueError(f"after= and times= count calls: {count} is below 0")
    return count


# --- holding ---


@contextmanager
def _held(fault: Fault) -> Iterator[Fault]:
    _add(fault)
    try:
        yield fault
    finally:
        with _lock:
            _faults.remove(fault)
            if not (_faults or _watchers):
                _unwrap()


def _add(fault: Fault) -> None:
    with _lock:
        if not (_faults or _watchers):
            _wrap()
        _faults.append(fault)


def _guard(point: str, on: str | None, call: Callable[[], Any]) -> Any:
    """One call that passes a point."""
    with _lock:
        due = [fault for fault in _faults if fault.point == point and fault.on in (None, on) and fault._due()]
        watchers = tuple(_watchers)
    for watcher in watchers:
        watcher(point, on, False, None)
    for fault in due:
        if not fault.done:
            fault._action()
    result = call()
    for fault in due:
        if fault.done:
            fault._action()
    for watcher in watchers:
        watcher(point, on, True, result)
    return result


# --- wrapping ---


def _wrap() -> None:
    for owner, methods in _METHODS.items():
        owner.__getattribute__ = _looking(methods)  # type: ignore[method-assign, assignment]
    Consumer.__iter__ = _iterate  # type: ignore[method-assign]
    Consumer.__next__ = lambda self: _received(self, lambda: super(Consumer, self).__next__())  # type: ignore[method-assign]


def _unwrap() -> None:
    for owner in _METHODS:
        del owner.__getattribute__
    del Consumer.__iter__, Consumer.__next__
    _handed.clear()


def _looking(methods: dict[str, str]) -> Callable[[Any, str], Any]:
    """`__getattribute__` that answers wrapped methods: instances may have methods of their own, which stand before
    those of the class."""

    def look(self: Any, name: str) -> Any:
        found = object.__getattribute__(self, name)
        point = methods.get(name)
        if point is None:
            return found
        if point == "slowly":  # past the senders that are known already
            return object.__getattribute__(self, f"_{name}")
        if point == "sender":
            return lambda *arguments, **options: _Sender(found(*arguments, **options), arguments[0].definition.name)
        if point == "receive":
            return lambda *arguments, **options: _received(self, lambda: found(*arguments, **options))
        if point == "leave":
            return lambda: _guard("commit", self.group, found) if _handed.pop(self, False) else found()
        if point == "commit":
            return lambda *arguments, **options: _committed(self, lambda: found(*arguments, **options))
        name_of = object.__getattribute__(self, "name") if isinstance(self, Channel) else None
        return lambda *arguments, **options: _guard(point, name_of, lambda: found(*arguments, **options))

    return look


def _received(consumer: Any, call: Callable[[], Any]) -> Any:
    """One call that receives; it may commit first what was handed over before, or at once what it hands over."""
    group = consumer.group
    mode = consumer._delivery
    if mode == "at-least-once" and _handed.pop(consumer, False):
        _guard("commit", group, lambda: None)
    if mode == "at-most-once":
        _guard("commit", group, lambda: None)
    result = _guard("receive", group, call)
    if mode == "at-least-once":
        _handed[consumer] = True
    return result


def _committed(consumer: Any, call: Callable[[], Any]) -> Any:
    result = _guard("commit", consumer.group, call)
    _handed.pop(consumer, None)
    return result


def _iterate(consumer: Any) -> Iterator[Any]:
    following = super(Consumer, consumer).__iter__()
    while True:
        try:
            message = _received(consumer, lambda: next(following))
        except StopIteration:
            return
        yield message


class _Sender:
    """A compiled sender, guarded."""

    def __init__(self, sender: Any, channel: str) -> None:
        self._sender, self._channel = sender, channel

    def send(self, *arguments: Any, **options: Any) -> Any:
        return _guard("append", self._channel, lambda: self._sender.send(*arguments, **options))

    def send_many(self, *arguments: Any, **options: Any) -> Any:
        return _guard("append", self._channel, lambda: self._sender.send_many(*arguments, **options))

    def _within(self, *arguments: Any) -> Any:
        """That of a transaction, which guards it itself."""
        return self._sender._within(*arguments)
