"""What does an application say of its channels and handlers, and what is known of a channel when all is put together?

Floor 8: may import codec, config and what lies below. An application is known by what it offers (`Application`), so
that the modules that make applications may import this package. Thread rule: frozen values and pure functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol, TypeAlias

from tidelog.codec import Codec, codec_for
from tidelog.config import DEFAULT_PARTITIONS, parse_retention

__all__ = ["KAFKA_BINDING", "Application", "Declared", "Handling", "Known", "dead_letter_of", "known_channels"]

JSON: TypeAlias = dict[str, Any]

KAFKA_BINDING = "0.5.0"
"""Version of AsyncAPI's words for Kafka."""


class Declared(Protocol):
    """A channel as an application declares it; it may have an open `channel` too, which then knows better."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> Any: ...
    @property
    def type(self) -> Any: ...
    @property
    def reply(self) -> Any: ...
    @property
    def partitions(self) -> int | None: ...
    @property
    def carries(self) -> Any: ...
    @property
    def codec(self) -> str | None: ...
    @property
    def retention(self) -> Any: ...


class Handling(Protocol):
    """A handler of an application."""

    @property
    def name(self) -> str: ...
    @property
    def channel(self) -> Declared: ...
    @property
    def group(self) -> str | None: ...
    @property
    def sends(self) -> Declared | None: ...
    @property
    def dead_letter(self) -> Any: ...
    @property
    def delivery(self) -> Any: ...
    @property
    def concurrency(self) -> Any: ...
    @property
    def description(self) -> str | None: ...


class Application(Protocol):
    """What a description is made from."""

    @property
    def name(self) -> str: ...
    @property
    def url(self) -> Any: ...
    @property
    def version(self) -> str: ...
    @property
    def description(self) -> str | None: ...
    @property
    def handlers(self) -> Sequence[Handling]: ...
    @property
    def channels(self) -> Sequence[Declared]: ...


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a channel; None: nobody said."""

    name: str
    kind: str | None = None
    type: Any = None
    codec: str | Codec | None = None
    reply: Any = None
    partitions: int | None = None
    carries: str | None = None
    limits: tuple[int, int, bool] | None = None
    """retention_ms, retention_bytes, retention "consumed"."""
    weak: bool = False
    """Only named, and described for the case that nobody else does."""

    @classmethod
    def of(cls, declared: Declared, reply: Any = None) -> Known:
        """From a declaration, or the open channel that it is for. `reply`: the type of answers, if it says none."""
        opened = getattr(declared, "channel", None)
        limits = None if declared.retention is None else parse_retention(declared.retention)
        type_, codec = declared.type, declared.codec
        if opened is not None:
            limits = opened.retention
            if (
                type_ is None or opened.codec.schema() is not None
            ):  # a channel that was opened by its name alone has none
                type_, codec = None, opened.codec
        return cls(
            declared.name,
            declared.kind,
            type_,
            codec,
            reply if declared.reply is None else declared.reply,
            declared.partitions,
            declared.carries,
            limits,
            getattr(declared, "either", False),
        )

    def united(self, other: Known) -> Known:
        """What both say. Raises ValueError where they contradict each other."""
        if self.weak and not other.weak:
            return other.united(self)
        result: dict[str, Any] = {}
        for field in fields(self):
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            same = mine is theirs or (type(mine) is type(theirs) and mine == theirs)
            if mine is None or theirs is None or same or other.weak:
                result[field.name] = theirs if mine is None else mine
            else:
                raise ValueError(
                    f"the channel {self.name!r} is declared twice, once with {field.name}={mine!r} and once with "
                    f"{field.name}={theirs!r}: declare it once, and give that object to every handler"
                )
        return Known(**result)

    @property
    def pattern(self) -> str:
        """The interaction pattern that the channel is made for: one of PATTERNS."""
        if self.reply is not None:
            return "async-response"
        return "publish-subscribe" if self.kind == "topic" else "one-way"

    @property
    def carried(self) -> str:
        """What its messages are."""
        return self.carries or ("event" if self.kind == "topic" else "command")

    @property
    def values(self) -> Codec:
        """How values are written. Raises TypeError or ValueError for a type that a channel cannot have."""
        return self.codec if isinstance(self.codec, Codec) else codec_for(self.type, self.codec)

    @property
    def answers(self) -> Codec:
        """How answers are written. Raises like `values`."""
        return self.reply if isinstance(self.reply, Codec) else codec_for(self.reply)

    def binding(self) -> JSON:
        """How it stands in Kafka."""
        age_ms, size_bytes, _ = self.limits or (-1, -1, False)
        return {
            "partitions": self.partitions or DEFAULT_PARTITIONS,
            "topicConfiguration": {
                "cleanup.policy": ["delete"],
                "retention.ms": age_ms,
                "retention.bytes": size_bytes,
            },
            "bindingVersion": KAFKA_BINDING,
        }


def known_channels(app: Application) -> dict[str, Known]:
    """Every channel that the application names, by name. Raises ValueError where two places contradict each other."""
    named = [Known.of(declared) for declared in app.channels]
    for handler in app.handlers:
        answers = getattr(handler, "pattern", None) == "async-response"
        reply = getattr(handler, "reply", None)
        # Answers of a function that does not say what it returns are bytes, as they are to whoever asks.
        named.append(Known.of(handler.channel, bytes if answers and reply is None else reply))
        if handler.sends is not None:
            named.append(Known.of(handler.sends))
        dead = handler.dead_letter
        if dead is not None:
            named.append(Known.of(dead) if hasattr(dead, "kind") else Known(str(dead), weak=True))
    result: dict[str, Known] = {}
    for channel in named:
        result[channel.name] = result.get(channel.name, channel).united(channel)
    return result


def dead_letter_of(handler: Handling) -> str | None:
    """The name of the channel for what a handler gives up on; it may be given as a channel or as a name."""
    dead = handler.dead_letter
    return getattr(dead, "name", dead) or None
