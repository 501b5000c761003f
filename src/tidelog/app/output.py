"""Where does everything go that a handler leads to, while it is handled in a transaction?

Floor 8: may import transaction, errors. Thread rule: `transaction` and `touched` belong to the thread that has the
transaction; `collected` may be used by any number of threads beside it, each for itself.

A send goes into the transaction that is open. Where functions run on other threads, what they send is collected first,
and sent by the thread that has the transaction, in the order of the messages: so the order of what is sent does not
depend on which function was quicker, and what is not wanted any more was never sent.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from tidelog.errors import Closed, Error, Fenced
from tidelog.transaction import Transaction

if TYPE_CHECKING:
    from tidelog.channel import Channel

__all__ = ["Lost", "Output"]


class Lost(Exception):
    """The transaction was lost while something was sent in it: no fault of the message."""

    def __init__(self, error: Error) -> None:
        super().__init__(str(error))
        self.error = error


class Output:
    """Where everything goes that a handler leads to: into the transaction that is open."""

    def __init__(self) -> None:
        self.transaction: Transaction | None = None
        self.touched = False
        """Something was sent, or may have been, since this was set to False."""
        self._here = threading.local()

    def to(self, channel: Channel[Any], raw: bool) -> _Into:
        """What sends to `channel` in whatever transaction is open then. `raw`: bytes, whatever type it has."""
        return _Into(self, channel, raw)

    @contextmanager
    def collected(self) -> Iterator[list[Callable[[], Any]]]:
        """What this thread sends is put into a list meanwhile, as calls that send it."""
        calls: list[Callable[[], Any]] = []
        self._here.calls = calls
        try:
            yield calls
        finally:
            self._here.calls = None


class _Into:
    def __init__(self, output: Output, channel: Channel[Any], raw: bool) -> None:
        self._output, self._channel, self._raw = output, channel, raw

    def send(self, value: Any, **options: Any) -> Any:
        return self._call("send", value, options)

    def send_many(self, values: Any, **options: Any) -> Any:
        return self._call("send_many", values, options)

    def _call(self, name: str, values: Any, options: dict[str, Any]) -> Any:
        calls: list[Callable[[], Any]] | None = getattr(self._output._here, "calls", None)
        if calls is None:
            return self._send(name, values, options)
        calls.append(partial(self._send, name, values, options))
        return None

    def _send(self, name: str, values: Any, options: dict[str, Any]) -> Any:
        output = self._output
        transaction = output.transaction
        assert transaction is not None  # messages are handled in one
        output.touched = True
        try:
            if self._raw:
                return getattr(transaction._sender(self._channel.opened(), raw=True), name)(values, **options)
            return getattr(transaction, name)(self._channel, values, **options)
        except (Fenced, Closed) as error:
            raise Lost(error) from error
