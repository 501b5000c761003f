"""Who asks and who answers in tests of questions?"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

import tidelog

LONG = 30.0
"""Seconds after which something hangs; no test waits for it when all is well."""


class Ask(msgspec.Struct):
    """A question."""

    number: int


class Quote(msgspec.Struct):
    """An answer."""

    price: int


class Refusal(msgspec.Struct):
    """Another answer."""

    why: str


@contextlib.contextmanager
def responder(consumer: Any, handle: Callable[[Any], Any]) -> Iterator[threading.Thread]:
    """Handles the messages of a consumer on a thread."""

    def run() -> None:
        with contextlib.suppress(tidelog.Closed):
            for message in consumer:
                handle(message)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield thread
    finally:
        consumer.close()
        thread.join(LONG)
        assert not thread.is_alive()


def double(message: Any) -> None:
    message.reply(Quote(message.value.number * 2))


def reply_channels(log: tidelog.Log) -> list[str]:
    return [name for name in log if name.startswith("reply.")]
