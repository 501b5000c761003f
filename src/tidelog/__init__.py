"""tidelog: an append-only message log for Python.

    import tidelog

    with tidelog.open("shop.log") as log:
        orders = log.queue("orders", str)
        orders.send("three teas", key="tea")
        with orders.consumer(stop="end") as received:
            for message in received:
                print(message.value)

Everything public is named in `__all__`; nothing inside the package imports this file. Names are loaded at their first
use, so that a program which imports tidelog and then does not open a log pays next to nothing for it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tidelog import aio, native, testing
    from tidelog.app import App
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
        ReplyError,
        SchemaMismatch,
        StorageFailed,
        Timeout,
        TooLarge,
    )
    from tidelog.log import Log, open
    from tidelog.message import Batch, Message, Position, Receipt
    from tidelog.patterns.request import Replies
    from tidelog.producer import Producer

__all__ = [
    "App",
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
    "Replies",
    "ReplyError",
    "SchemaMismatch",
    "StorageFailed",
    "Timeout",
    "TooLarge",
    "Topic",
    "aio",
    "native",
    "open",
    "testing",
]


_HOMES = {
    "app": ("App",),
    "channel": ("Channel", "Queue", "Topic"),
    "consumer": ("Consumer",),
    "log": ("Log", "open"),
    "message": ("Batch", "Message", "Position", "Receipt"),
    "patterns.request": ("Replies",),
    "producer": ("Producer",),
}
_MODULES = ("aio", "native", "testing")
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Loads a public name, once."""
    if name not in __all__:
        raise AttributeError(f"module 'tidelog' has no attribute {name!r}")
    if name in _MODULES:
        value = importlib.import_module(f"tidelog.{name}")
    else:
        value = getattr(importlib.import_module(f"tidelog.{_HOME.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
