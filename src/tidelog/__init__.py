"""tidelog: an append-only message log for Python.

    import tidelog

    with tidelog.open("shop.log") as log:
        orders = log.queue("orders", str)
        orders.send("three teas", key="tea")
        with orders.consumer(stop="end") as received:
            for message in received:
                print(message.value)

Everything public is named in `__all__`; nothing inside the package imports this file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tidelog import native
from tidelog.channel import Channel, Queue, Topic
from tidelog.consumer import Consumer
from tidelog.errors import (
    ChannelNotFound,
    Closed,
    Corrupt,
    DecodeError,
    Error,
    Fenced,
    Forked,
    Full,
    Locked,
    NoSpace,
    NotSupported,
    OffsetOutOfRange,
    SchemaMismatch,
    StorageFailed,
    Timeout,
    TooLarge,
)
from tidelog.log import Log, open
from tidelog.message import Batch, Message, Position, Receipt
from tidelog.producer import Producer

if TYPE_CHECKING:
    from tidelog import testing

__all__ = [
    "Batch",
    "Channel",
    "ChannelNotFound",
    "Closed",
    "Consumer",
    "Corrupt",
    "DecodeError",
    "Error",
    "Fenced",
    "Forked",
    "Full",
    "Locked",
    "Log",
    "Message",
    "NoSpace",
    "NotSupported",
    "OffsetOutOfRange",
    "Position",
    "Producer",
    "Queue",
    "Receipt",
    "SchemaMismatch",
    "StorageFailed",
    "Timeout",
    "TooLarge",
    "Topic",
    "native",
    "open",
    "testing",
]


def __getattr__(name: str) -> Any:
    """`testing` is for tests only, so it is imported when it is asked for."""
    if name == "testing":
        import importlib

        return importlib.import_module("tidelog.testing")
    raise AttributeError(f"module 'tidelog' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
