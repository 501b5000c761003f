"""Do a function, a channel and the options of `app.on` fit together?

Floor 8: may import channels, handler, retry, config, places. Thread rule: a pure function.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from tidelog.app.channels import ChannelSpec, spec_of
from tidelog.app.handler import UNKNOWN, Bound, Concurrency, Handler, bind, check_payload, check_result, name_of
from tidelog.app.retry import Retries, retry_of
from tidelog.config import Duration, duration_ms
from tidelog.places import check_start

__all__ = ["make_handler"]

DELIVERIES = ("at-least-once", "at-most-once", "exactly-once")
MOST_AT_ONCE = 10_000
MOST_IN_BATCH = 1000


def make_handler(
    function: Callable[..., Any],
    channel: object,
    names: Mapping[str, Any],
    *,
    app_name: str,
    answers: bool = False,
    group: str | None = None,
    sends: object = None,
    key: Callable[[Any], Any] | None = None,
    retries: Retries = 0,
    dead_letter: object = None,
    concurrency: Concurrency = 1,
    delivery: Any = "at-least-once",
    start: Any = "earliest",
    max_processing: Duration | None = None,
    batch: int | None = None,
) -> Handler:
    """The handler, with what its annotations say. Raises TypeError or ValueError for what does not fit together."""
    bound = bind(function, names, answers=answers)
    name = name_of(function)
    payload = None if bound.payload is UNKNOWN else bound.payload
    returns = None if bound.returns is UNKNOWN else bound.returns
    spec = spec_of(channel, "topic" if group is not None else "queue", payload)
    check_payload(name, spec, bound.payload)
    if spec.channel is not None and spec.channel.codec.encode is not None and payload is not None:
        spec = replace(spec, type=payload)  # an open channel does not know its type; a description wants it
    _check_group(name, group)
    check_start(start)
    if answers and isinstance(channel, str):
        spec = replace(spec, reply=returns)
    if answers:
        if spec.kind != "queue":
            raise ValueError(
                f"{name} answers {spec.name!r}, which is a topic: an application answers on a queue. On a "
                f"topic use app.on(...), and message.reply(...) in the function"
            )
        if bound.takes == "batch":
            raise TypeError(f"{name} answers, and takes a Batch: a question is answered one by one")
        if spec.reply is None and not isinstance(channel, str):  # a mere name may be of a queue that says it
            raise TypeError(
                f"{name} answers {spec.name!r}, which has no type of its answers: declare it with reply=, as in "
                f"queue({spec.name!r}, ..., reply=int)"
            )
        check_result(name, bound, None if spec.channel is not None else spec.reply, f"the answers of {spec.name!r}")
        reply = returns if returns is not None else spec.reply
    else:
        reply = None
    if spec.kind == "queue" and group not in (None, spec.name):
        raise ValueError(
            f"{name} reads {spec.name!r} as the group {group!r}, but a queue has one group, its own: leave group= out"
        )
    if sends is None and not answers and _yields(function):
        raise TypeError(f"{name} yields values, but nothing says where they go: give sends=, or return nothing")
    _check_options(name, bound, concurrency, delivery, batch, max_processing, key, sends)
    output = None if sends is None else spec_of(sends, "queue", returns, either=True)
    if output is not None:
        check_result(name, bound, output.type, f"the messages of {output.name!r}")
    return Handler(
        name=name,
        function=function,
        channel=spec,
        group=spec.name if spec.kind == "queue" else group or app_name,
        pattern="async-response" if answers else "one-way" if spec.kind == "queue" else "publish-subscribe",
        takes=bound.takes,
        sends=output,
        key=key,
        reply=reply,
        retries=retry_of(retries),
        dead_letter=_dead_letter(dead_letter, spec),
        concurrency=concurrency,
        delivery=delivery,
        start=start,
        max_processing=max_processing,
        batch=MOST_IN_BATCH if batch is None else batch,
        description=inspect.getdoc(function),
        is_async=bound.is_async,
    )


def _check_group(name: str, group: object) -> None:
    if group is not None and not isinstance(group, str):
        raise TypeError(f"group={group!r} of {name} is no name of a group: give a str")
    if group == "":
        raise ValueError(f"group='' of {name} is no name of a group: give one, or leave group= out")


def _dead_letter(given: object, source: ChannelSpec) -> ChannelSpec | None:
    """Dead letters are bytes in one partition: they are few, and looked at in the order in which they came."""
    if given is None:
        return None
    spec = spec_of(given, "queue", None, partitions=1, carries="document", either=True)
    if spec.name == source.name:
        raise ValueError(
            f"the dead letters of {source.name!r} cannot go to {source.name!r} itself: name another channel"
        )
    return spec


def _yields(function: Callable[..., Any]) -> bool:
    call = getattr(function, "__call__", function)  # noqa: B004
    return any(check(each) for check in _GENERATORS for each in (function, call))


_GENERATORS = (inspect.isgeneratorfunction, inspect.isasyncgenfunction)


def _check_options(
    name: str,
    bound: Bound,
    concurrency: object,
    delivery: object,
    batch: object,
    max_processing: Duration | None,
    key: object,
    sends: object,
) -> None:
    if concurrency != "key":
        if isinstance(concurrency, bool) or not isinstance(concurrency, int):
            raise TypeError(f"concurrency={concurrency!r} of {name}: give a number of messages, or 'key'")
        if not 1 <= concurrency <= MOST_AT_ONCE:
            raise ValueError(f"concurrency={concurrency} of {name}: give 1 to {MOST_AT_ONCE}, or 'key'")
    if bound.takes == "batch" and concurrency != 1:
        raise ValueError(
            f"concurrency={concurrency!r} of {name}, which takes a Batch: batches are handled one after the other"
        )
    if delivery not in DELIVERIES:
        raise ValueError(
            f"delivery={delivery!r} of {name}: use one of {', '.join(DELIVERIES)}; a handler that wants to commit by "
            f"itself is a program with a consumer"
        )
    if batch is None:
        pass
    elif isinstance(batch, bool) or not isinstance(batch, int):
        raise TypeError(f"batch={batch!r} of {name}: give the most messages of a Batch")
    elif batch < 1:
        raise ValueError(f"batch={batch} of {name}: the least is 1")
    elif bound.takes != "batch":
        raise ValueError(f"batch={batch} of {name}, which takes no Batch: annotate Batch[...], or leave batch= out")
    if max_processing is not None:
        duration_ms(max_processing, "max_processing", least_ms=1)
    if key is not None and not callable(key):
        raise TypeError(f"key={key!r} of {name}: give a function that answers the key of a returned value")
    if key is not None and sends is None:
        raise ValueError(f"{name} has key=, which is for what it sends, but no sends=")
