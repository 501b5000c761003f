"""Has `tidelog.aio` the names of `tidelog`, with the same parameters and defaults?

Everything public is compared, so what is added on one side only fails here until it is added on the other, or stands
among the exceptions with its reason.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import tidelog
from tests.unit.loops import run
from tidelog import aio
from tidelog.aio.transaction import Transaction as AioTransaction
from tidelog.transaction import Transaction

PAIRS = {
    "Log": (tidelog.Log, aio.Log),
    "Channel": (tidelog.Channel, aio.Channel),
    "Queue": (tidelog.Queue, aio.Queue),
    "Topic": (tidelog.Topic, aio.Topic),
    "Producer": (tidelog.Producer, aio.Producer),
    "Consumer": (tidelog.Consumer, aio.Consumer),
    "Receipt": (tidelog.Receipt, aio.Receipt),
    "Replies": (tidelog.Replies, aio.Replies),
    "Transaction": (Transaction, AioTransaction),
}

MAPPING = "log.keys() and the like look at files, and no view of a mapping can be awaited: `await log.names()`"
SPIN = "a spin would stop the loop; on a thread it saves less than telling the loop costs"
SAME_OBJECT = "the open log or channel itself, for code that may block"

ONLY_SYNC = {
    ("Log", "keys"): MAPPING,
    ("Log", "values"): MAPPING,
    ("Log", "items"): MAPPING,
    ("Log", "__len__"): MAPPING,
    ("Log", "__iter__"): "`async for name in log`; iter(log) says so",
    ("Log", "engine"): "for tools: log.sync_log.engine",
}
ONLY_AIO = {
    ("Log", "sync_log"): SAME_OBJECT,
    ("Channel", "sync_channel"): SAME_OBJECT,
    ("Queue", "sync_channel"): SAME_OBJECT,
    ("Topic", "sync_channel"): SAME_OBJECT,
    ("Log", "names"): "what list(log) is there",
    ("Log", "call"): "for what has no coroutine of its own",
    ("Consumer", "reply"): "Message.reply blocks",
    ("Consumer", "end"): "for the log that is closed, from any thread",
    ("Replies", "end"): "for the log that is closed, from any thread",
}
WITHOUT = {
    ("Log", "consumer"): {"busy_poll": SPIN},
    ("Queue", "consumer"): {"busy_poll": SPIN},
    ("Topic", "consumer"): {"busy_poll": SPIN},
    ("Channel", "tail"): {"busy_poll": SPIN},
    ("Queue", "tail"): {"busy_poll": SPIN},
    ("Topic", "tail"): {"busy_poll": SPIN},
}
OTHER_KIND = {("Consumer", "lag"): "it looks at every partition, which may read files: a coroutine, not a property"}
AWAITED = {
    "__enter__": "__aenter__",
    "__exit__": "__aexit__",
    "__iter__": "__aiter__",
    "__next__": "__anext__",
    "__getitem__": "__getitem__",
    "__contains__": "__contains__",
    "__len__": "__len__",
}
BLOCKING = {
    "Log": {"queue", "topic", "get", "drop", "offsets", "sync", "close", "__getitem__"},
    "Channel": {"send", "send_many", "bounds", "describe", "read", "find", "skew", "trim", "configure", "sync"}
    | {"offsets", "ask_one"},
    "Producer": {"send", "send_many", "last", "flush", "close"},
    "Consumer": {"receive", "receive_many", "commit", "seek", "pause", "resume", "close"},
    "Receipt": {"result"},
    "Replies": {"close"},
    "Transaction": {"send", "send_many", "commit", "abort", "close"},
}
"""What may wait for a file, a lock, the disk or a message, and is a coroutine therefore."""


def public(kind: type) -> set[str]:
    """Its names, with what `with`, `for` and `[...]` call."""
    return {name for name in dir(kind) if not name.startswith("_") or name in AWAITED}


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    """Without the object itself, which a function of C takes by position alone."""
    found = [(one.name, one.kind, one.default) for one in inspect.signature(function).parameters.values()]
    return found[1:] if found and found[0][0] == "self" else found


def is_function(kind: type, name: str) -> bool:
    return inspect.isroutine(getattr(kind, name))


@pytest.mark.parametrize("which", PAIRS)
def test_the_same_names(which: str) -> None:
    sync, awaitable = PAIRS[which]
    there = {AWAITED.get(name, name) for name in public(sync) if (which, name) not in ONLY_SYNC}
    here = {name for name in dir(awaitable) if not name.startswith("_") or name in AWAITED.values()}
    extra = {name for kind, name in ONLY_AIO if kind == which}
    assert sorted(there - here) == []
    assert sorted(name for name in here - there - extra if not name.startswith("_")) == []
    assert extra <= here, "an exception that is none any more"
    assert {name for kind, name in ONLY_SYNC if kind == which} <= public(sync), "an exception that is none any more"


@pytest.mark.parametrize("which", PAIRS)
def test_the_same_parameters(which: str) -> None:
    sync, awaitable = PAIRS[which]
    compared = 0
    for name in sorted(public(sync) & public(awaitable)):
        where = (which, name)
        if name.startswith("__"):
            continue
        if is_function(sync, name) != is_function(awaitable, name):
            assert where in OTHER_KIND, f"{which}.{name}: a property there, a method here, or the other way"
            continue
        assert where not in OTHER_KIND, "an exception that is none any more"
        if not is_function(sync, name):
            continue
        left_out = WITHOUT.get(where, {})
        wanted = parameters(getattr(sync, name))
        assert set(left_out) <= {one[0] for one in wanted}, "an exception that is none any more"
        assert parameters(getattr(awaitable, name)) == [one for one in wanted if one[0] not in left_out], where
        compared += 1
    assert compared, which


def test_opening_takes_the_same_parameters() -> None:
    assert parameters(aio.open) == parameters(tidelog.open)


@pytest.mark.parametrize("which", BLOCKING)
def test_what_may_wait_is_a_coroutine(which: str) -> None:
    _, awaitable = PAIRS[which]
    for name in BLOCKING[which]:
        assert inspect.iscoroutinefunction(getattr(awaitable, name)), f"{which}.{name}"


def test_the_public_names() -> None:
    """Values are the same classes on both sides, and are not exported twice."""
    both = {name for name in tidelog.__all__ if name in aio.__all__}
    assert both == {"Channel", "Consumer", "Log", "Producer", "Queue", "Receipt", "Replies", "Topic"} | (
        {"open"} & set(tidelog.__all__)
    )
    assert set(aio.__all__) - set(tidelog.__all__) <= {"Opening", "open"}


@pytest.mark.parametrize("group", [None, "", 7], ids=repr)
def test_what_is_no_name_of_a_group_is_refused_alike(tmp_path: Path, group: Any) -> None:
    """At once, and with the same words; a reader without a group is a tail."""
    with tidelog.open(tmp_path / "sync") as log:
        prices, orders = log.topic("prices"), log.queue("orders")
        with pytest.raises((TypeError, ValueError)) as of_topic:
            prices.consumer(group)
        with pytest.raises((TypeError, ValueError)) as of_log:
            log.consumer(prices, orders, group=group)

    async def main() -> None:
        async with aio.open(tmp_path / "aio") as log:
            prices, orders = await log.topic("prices"), await log.queue("orders")
            with pytest.raises(type(of_topic.value)) as here:
                prices.consumer(group)
            assert str(here.value) == str(of_topic.value)
            with pytest.raises(type(of_log.value)) as here:
                log.consumer(prices, orders, group=group)
            assert str(here.value) == str(of_log.value)
            assert prices.tail().group is None

    run(main)


def test_what_is_no_channel_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        with tidelog.open(tmp_path / "sync") as other:
            async with aio.open(tmp_path / "aio") as log:
                for wrong in ("prices", other.topic("prices")):
                    with pytest.raises(TypeError, match="is no channel: give one of tidelog.aio"):
                        log.consumer(wrong, group="audit")  # type: ignore[arg-type]

    run(main)


def test_an_option_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """None is accepted and ignored."""

    async def main() -> None:
        async with aio.open(tmp_path / "aio") as log:
            prices, orders = await log.topic("prices"), await log.queue("orders")
            for refused in (
                lambda: orders.consumer(busy_poll=0.001),  # type: ignore[call-arg]
                lambda: prices.consumer("audit", busy_poll=0.001),  # type: ignore[call-arg]
                lambda: prices.tail(busy_poll=0.001),  # type: ignore[call-arg]
                lambda: log.consumer(prices, group="audit", busy_poll=0.001),  # type: ignore[call-arg]
            ):
                with pytest.raises(TypeError, match="busy_poll"):
                    refused()
            with pytest.raises(TypeError):
                await log.queue("other", shards=3)

    run(main)


def test_closing_a_transaction_aborts_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path / "aio") as log:
            bills, producer = await log.topic("bills", partitions=1), log.producer(name="till")
            tx = log.transaction(producer)
            await tx.close()
            assert tx.state == "new"
            async with tx:
                await tx.send(bills, b"x")
                await tx.close()
                assert tx.state == "aborted"
                await tx.close()
            found: AsyncIterator[Any] = bills.scan()
            assert [message async for message in found] == []

    run(main)
