"""What is an application made of: which channels, which handlers, which hooks?

Floor 8: may import channels, declaring, handler, hooks, retry, config. Thread rule: everything is added by one thread,
before the application starts.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from tidelog.app.channels import AppChannel, ChannelLike, ChannelSpec, spec_of
from tidelog.app.declaring import make_handler
from tidelog.app.handler import Concurrency, Handler, fits
from tidelog.app.hooks import Failure, Hooks
from tidelog.app.retry import Retries
from tidelog.config import ChannelOptions, Duration, check_channel_options
from tidelog.names import check_channel

if TYPE_CHECKING:
    from tidelog.log import Log

__all__ = ["Registry"]

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class Registry:
    """The half of `App` that is filled when a program's modules are imported."""

    name: str

    def __init__(self, call: Callable[[Any], Any]) -> None:
        """`call` waits for what an async hook returned."""
        self._handlers: list[Handler] = []
        self._channels: list[ChannelSpec] = []
        self._hooks = Hooks(call)

    def _its_log(self) -> Log:
        """The log in which declared channels are opened."""
        raise NotImplementedError

    def _refuse_late(self) -> None:
        """Raise RuntimeError if it is too late to add anything."""
        raise NotImplementedError

    @property
    def handlers(self) -> Sequence[Handler]:
        """What was registered, in this order."""
        return tuple(self._handlers)

    @property
    def channels(self) -> Sequence[ChannelSpec]:
        """The channels that `queue` and `topic` declared."""
        return tuple(self._channels)

    # --- channels ---

    @overload
    def queue(self, name: str, type: None = None, **options: Any) -> AppChannel[bytes]: ...
    @overload
    def queue(self, name: str, type: type[T], **options: Any) -> AppChannel[T]: ...
    @overload
    def queue(self, name: str, type: Any, **options: Any) -> AppChannel[Any]: ...
    def queue(self, name: str, type: Any = None, **options: Any) -> AppChannel[Any]:
        """Declare a queue; it is created or opened when it is first used. The options and errors are those of
        `log.queue`; what is wrong with a name or an option is raised here."""
        return self._declare("queue", name, type, options)

    @overload
    def topic(self, name: str, type: None = None, **options: Any) -> AppChannel[bytes]: ...
    @overload
    def topic(self, name: str, type: type[T], **options: Any) -> AppChannel[T]: ...
    @overload
    def topic(self, name: str, type: Any, **options: Any) -> AppChannel[Any]: ...
    def topic(self, name: str, type: Any = None, **options: Any) -> AppChannel[Any]:
        """Declare a topic; it is created or opened when it is first used. The options and errors are those of
        `log.topic`; what is wrong with a name or an option is raised here."""
        return self._declare("topic", name, type, options)

    def _declare(
        self,
        kind: Literal["queue", "topic"],
        name: str,
        type_: Any,
        options: dict[str, Any],
    ) -> AppChannel[Any]:
        check_channel(name)
        check_channel_options(kind, options)
        reply = options.pop("reply", None)
        ChannelOptions.of(kind, **options)  # what is out of range shows here, not when the log is opened
        own = {field: options.pop(field, None) for field in ("partitions", "carries", "codec", "retention")}
        spec = ChannelSpec(name=name, kind=kind, type=type_, reply=reply, options=options, **own)
        for known in self._channels:
            if known.name == name and (known.kind, known.type) != (kind, type_):
                raise ValueError(
                    f"{name!r} is declared as a {known.kind} of {known.type} already, and now as a {kind} of {type_}: "
                    f"declare it once, and use what that returned"
                )
        self._channels.append(spec)
        return AppChannel(spec, self._its_log)

    # --- handlers ---

    def on(
        self,
        channel: ChannelLike,
        *,
        group: str | None = None,
        sends: ChannelLike | None = None,
        key: Callable[[Any], Any] | None = None,
        retries: Retries = 0,
        dead_letter: ChannelLike | None = None,
        concurrency: Concurrency = 1,
        delivery: Literal["at-least-once", "at-most-once", "exactly-once"] = "at-least-once",
        start: Any = "earliest",
        max_processing: Duration | None = None,
        batch: int | None = None,
    ) -> Callable[[F], F]:
        """Register a function for the messages of `channel`; it is returned as it is, so it can be called directly.

        What it takes is said by the annotation of its parameter: `Message[T]`, `Batch[T]`, or the value. `group`: for a
        topic, default the application's name. `sends`: where the returned value goes; None sends nothing, a list or a
        generator is sent one by one. Its key is what `key` answers for it, else the incoming message's. `retries`: a
        number, or a `tidelog.app.Retry`. `dead_letter`: where messages go that cannot be handled. `concurrency`: how
        many messages at once, or "key": as many as there are keys; messages of one key are always one after the other.
        `delivery`: "at-most-once" commits before the function is called; with "exactly-once" what is sent (`sends`,
        `dead_letter`) and the commit are one transaction, so that both are there once or not at all: a retry holds up
        its partition, and with `concurrency` what ran ahead of it there is handled again. `start`: where a new group
        begins.
        `max_processing`: seconds after which a message that is still being handled loses its partition to another
        member. `batch`: the most messages of a `Batch` (default 1000).

        What is sent for one message has the id MESSAGE-ID.FUNCTION (of several: .0, .1 ... behind it), so that it is
        the same when the message is handled again, and the correlation id and trace of the message. What a function of
        a `Batch` returns comes from many: it has no id and no correlation id, and no key but what `key` answers.

        Raises TypeError or ValueError for what does not fit together.
        """
        spec_of(channel, "queue")  # a forgotten @app.on(...) shows here
        names = _names_in_sight()

        def register(function: F) -> F:
            self._add(
                make_handler(
                    function,
                    channel,
                    names,
                    app_name=self.name,
                    group=group,
                    sends=sends,
                    key=key,
                    retries=retries,
                    dead_letter=dead_letter,
                    concurrency=concurrency,
                    delivery=delivery,
                    start=start,
                    max_processing=max_processing,
                    batch=batch,
                )
            )
            return function

        return register

    def answers(
        self,
        channel: ChannelLike,
        *,
        retries: Retries = 0,
        dead_letter: ChannelLike | None = None,
        concurrency: Concurrency = 1,
        start: Any = "earliest",
        max_processing: Duration | None = None,
    ) -> Callable[[F], F]:
        """Register a function that answers the questions of a queue: what it returns is the answer, what a generator
        yields are several, None is none. When its attempts are used up the error is the answer.

        The queue was declared with `reply=`, the type of its answers; where only its name is given, that is what the
        function is annotated to return. The options and errors are those of `on`.
        """
        spec_of(channel, "queue")
        names = _names_in_sight()

        def register(function: F) -> F:
            self._add(
                make_handler(
                    function,
                    channel,
                    names,
                    app_name=self.name,
                    answers=True,
                    retries=retries,
                    dead_letter=dead_letter,
                    concurrency=concurrency,
                    start=start,
                    max_processing=max_processing,
                )
            )
            return function

        return register

    def _add(self, handler: Handler) -> None:
        self._refuse_late()
        for known in self._handlers:
            if (known.channel.name, known.group) == (handler.channel.name, handler.group):
                raise ValueError(
                    f"{known.name} reads {handler.channel.name!r} as the group {handler.group!r} already, and "
                    f"{handler.name} would take half of its messages: "
                    + ("a queue has one receiver" if handler.channel.kind == "queue" else "give each its own group=")
                )
        self._check_types(handler)
        taken = {known.name for known in self._handlers}
        if handler.name in taken:
            number = next(number for number in range(2, len(taken) + 3) if f"{handler.name}-{number}" not in taken)
            handler = replace(handler, name=f"{handler.name}-{number}")
        self._handlers.append(handler)

    def _check_types(self, new: Handler) -> None:
        """Raise ValueError if a channel would have values of two types."""
        known = [*self._channels, *(spec for handler in self._handlers for spec in _specs(handler))]
        for spec in _specs(new):
            for other in known:
                if other.name != spec.name or None in (spec.type, other.type) or fits(other.type, spec.type):
                    continue
                raise ValueError(
                    f"{new.name} has values of {spec.type} in {spec.name!r}, but elsewhere in {self.name} they are "
                    f"{other.type}: make both the same type"
                )

    # --- hooks ---

    def before_start(self, function: F) -> F:
        """Have a function (or coroutine function) called when the log is open and before anything is received."""
        return self._hook("before_start", function)

    def after_start(self, function: F) -> F:
        """Have it called when every handler receives."""
        return self._hook("after_start", function)

    def on_error(self, function: Callable[[Failure], Any]) -> Callable[[Failure], Any]:
        """Have it called with a `Failure` whenever a handler failed."""
        return self._hook("on_error", function)

    def before_stop(self, function: F) -> F:
        """Have it called when the application begins to stop; nothing new is received from then on."""
        return self._hook("before_stop", function)

    def after_stop(self, function: F) -> F:
        """Have it called when every handler has ended and committed; the log is still open."""
        return self._hook("after_stop", function)

    def _hook(self, moment: str, function: F) -> F:
        self._refuse_late()
        self._hooks.add(moment, function)
        return function


def _specs(handler: Handler) -> list[ChannelSpec]:
    return [spec for spec in (handler.channel, handler.sends, handler.dead_letter) if spec is not None]


def _names_in_sight() -> Mapping[str, Any]:
    """The local names where a handler is written: its annotations may be names of classes beside it."""
    return dict(sys._getframe(2).f_locals)
