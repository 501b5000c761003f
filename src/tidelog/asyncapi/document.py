"""Which channels does an application use, what goes over them, and who answers whom: as an AsyncAPI 3.0 document?

Floor 8: may import the other modules of this package but the page's and the comparison's, codec, envelope and what lies
below. Thread rule: pure, callable from any thread.

The document is a function of the application's declarations: no clock, no host, no environment, no log is opened.
Operations are seen from the application: it receives what it has handlers for; it sends what its handlers return, its
dead letters, and to channels that it declares without handling them. Everything that AsyncAPI has no word for stands
under `x-tidelog-`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, TypeAlias

from tidelog.asyncapi.declared import KAFKA_BINDING, Application, Known, dead_letter_of, known_channels
from tidelog.asyncapi.headers import CORRELATION, REPLY_TO, headers
from tidelog.asyncapi.payload import Payload, Schemas, keys, safe_name
from tidelog.asyncapi.servers import servers_of
from tidelog.codec import Codec
from tidelog.envelope import MEDIA_TYPES

__all__ = ["describe"]

JSON: TypeAlias = dict[str, Any]

VERSION = "3.0.0"
PATTERNS = ("one-way", "publish-subscribe", "async-response")


def describe(app: Application) -> JSON:
    """The AsyncAPI 3.0 document of `app`, as JSON can hold it; the same at every call.

    Raises TypeError or ValueError for a type that a channel cannot have, ValueError for two declarations of one channel
    that contradict each other, or a wrong URL.
    """
    return _Description(app).document()


class _Description:
    """The document while it is made."""

    def __init__(self, app: Application) -> None:
        self.app = app
        self.schemas = Schemas()
        self.headers: JSON = {}
        self.messages: JSON = {}
        self.channels: JSON = {}
        self.operations: JSON = {}
        self.declared: dict[str, Known] = {}
        self.replies: dict[str, str] = {}

    def document(self) -> JSON:
        """The whole."""
        app = self.app
        self.declare()
        self.receive()
        self.send()
        info: JSON = {"title": app.name, "version": app.version}
        if app.description:
            info["description"] = app.description
        servers, security = servers_of(app.url)
        components: JSON = {}
        schemas = self.schemas.components | self.headers
        if schemas:
            components["schemas"] = dict(sorted(schemas.items()))
        if self.messages:
            components["messages"] = dict(sorted(self.messages.items()))
        if self.replies:
            components["correlationIds"] = {
                "correlation-id": {
                    "location": CORRELATION,
                    "description": "An answer repeats the correlation id of its question.",
                }
            }
            components["replyAddresses"] = {
                "reply-to": {
                    "location": REPLY_TO,
                    "description": "The channel of the one who asked, which nobody else reads.",
                }
            }
        if security:
            components["securitySchemes"] = security
        result: JSON = {
            "asyncapi": VERSION,
            "info": info,
            "defaultContentType": MEDIA_TYPES["json"],
            "servers": servers,
            "channels": self.channels,
            "operations": self.operations,
        }
        if components:
            result["components"] = components
        return result

    # --- channels ---

    def declare(self) -> None:
        """Every channel that the application names, by name; then those that answers go to."""
        self.declared = known_channels(self.app)
        for name in sorted(self.declared):
            self.channels[name] = self.channel(self.declared[name])
        for name in sorted(self.declared):
            if self.declared[name].reply is not None:
                self.replies[name] = self.reply_channel(self.declared[name])

    def channel(self, channel: Known) -> JSON:
        """A channel with its messages."""
        sources = sorted({each.channel.name for each in self.app.handlers if dead_letter_of(each) == channel.name})
        description = _SENTENCES[channel.pattern]
        if sources:
            description = f"Messages of {_listed(sources)} that could not be handled, as they were; headers say why."
        result: JSON = {
            "address": channel.name,
            "title": channel.name,
            "description": description,
            "messages": self.dead_letters(channel.name, sources) if sources else self.channel_messages(channel),
            "bindings": {"kafka": channel.binding()},
            "x-tidelog-pattern": channel.pattern,
            "x-tidelog-kind": channel.kind or "queue",
            "x-tidelog-carries": channel.carried,
        }
        if channel.limits is not None and channel.limits[2]:
            result["x-tidelog-retention"] = "consumed"
        if sources:
            result["x-tidelog-dead-letters-of"] = sources
        return result

    def channel_messages(self, channel: Known, owner: str | None = None) -> JSON:
        """The messages that are sent to a channel; `owner`: the dead-letter channel for which they are described."""
        role = "question" if channel.pattern == "async-response" else "message"
        return self.messages_of(owner or channel.name, channel.values, role, dead=owner is not None)

    def dead_letters(self, name: str, sources: Sequence[str]) -> JSON:
        """The messages of a channel that takes what handlers of the channels `sources` gave up on."""
        result: JSON = {}
        for source in sources:
            for key, message in self.channel_messages(self.declared[source], name).items():
                unique = key if result.get(key, message) == message else message["$ref"].rpartition("/")[2]
                result[unique] = message
        return result

    def reply_channel(self, channel: Known) -> str:
        """Adds the channel for the answers to questions on `channel`; its address is the asker's to say."""
        key = f"reply.{channel.name}"
        while key in self.channels:  # a channel that an application has called so
            key = f"reply.{key}"
        self.channels[key] = {
            "address": None,
            "title": f"answers to {channel.name}",
            "description": "One channel per requesting process; the header reply-to of the question names it.",
            "messages": self.answers(key, channel.answers),
            "x-tidelog-kind": "queue",
        }
        return key

    def answers(self, owner: str, codec: Codec) -> JSON:
        """What may come as an answer: a value, or an error instead."""
        result = self.messages_of(owner, codec, "answer")
        described = "Nothing, or a value that says more about the error."
        error = Payload("error", codec.name, {"description": described}, "The responder could not answer.")
        result["error" if "error" not in result else "error-"] = self.referred(
            "error", owner, self.message(error, "error", tagged=False, dead=False)
        )
        return result

    def messages_of(self, owner: str, codec: Codec, role: str, *, dead: bool = False) -> JSON:
        """The messages of a channel, as references to those that `components` holds."""
        result: JSON = {}
        for one in codec.types.values() if codec.types else [codec]:
            payload = self.schemas.payload(one, owner)
            message = self.message(payload, role, tagged=codec.types is not None, dead=dead)
            name = safe_name(payload.name)
            result[name] = self.referred(name, owner, message)
        return result

    def referred(self, name: str, owner: str, message: JSON) -> JSON:
        """A reference to a message, which joins `components` under the best name that is free."""
        key = next(key for key in keys(name, owner) if self.messages.setdefault(key, message) == message)
        return {"$ref": f"#/components/messages/{key}"}

    def message(self, payload: Payload, role: str, *, tagged: bool, dead: bool) -> JSON:
        """One message: value, headers, key, an example."""
        content_type = MEDIA_TYPES[payload.codec]
        schema, example = headers(
            role, content_type=content_type, type_name=payload.name, tagged=tagged, dead=dead, schemas=self.headers
        )
        result: JSON = {"name": payload.name, "title": payload.name}
        if payload.description:
            result["summary"] = _first_sentence(payload.description)
        result |= {"contentType": content_type, "headers": schema, "payload": payload.schema}
        if role != "message":
            result["correlationId"] = {"$ref": "#/components/correlationIds/correlation-id"}
        if role in ("message", "question"):
            result["bindings"] = {"kafka": {"key": dict(_KEY), "bindingVersion": KAFKA_BINDING}}
        shown: JSON = {"name": safe_name(payload.name), "headers": example}
        if payload.examples:
            shown["payload"] = payload.examples[0]
        result["examples"] = [shown]
        return result

    # --- operations ---

    def receive(self) -> None:
        """One operation for each handler."""
        seen = Counter(handler.name for handler in self.app.handlers)
        for handler in self.app.handlers:
            channel = handler.channel
            group = handler.group or channel.name
            name = handler.name if seen[handler.name] == 1 else f"{handler.name}.{channel.name}"
            while name in self.operations:
                name += "-"
            operation: JSON = {"action": "receive", "channel": {"$ref": f"#/channels/{channel.name}"}}
            if handler.description:
                operation["summary"] = _first_sentence(handler.description)
                operation["description"] = handler.description
            operation["messages"] = self.all_messages(channel.name)
            if channel.name in self.replies:
                operation["reply"] = self.reply(channel.name)
            operation["bindings"] = {
                "kafka": {"groupId": {"type": "string", "enum": [group]}, "bindingVersion": KAFKA_BINDING}
            }
            operation["x-tidelog-pattern"] = self.channels[channel.name]["x-tidelog-pattern"]
            operation["x-tidelog-delivery"] = handler.delivery or "at-least-once"
            if handler.concurrency not in (None, 1):
                operation["x-tidelog-concurrency"] = handler.concurrency
            attempts = getattr(getattr(handler, "retries", None), "attempts", 1)
            if attempts not in (None, 1):
                operation["x-tidelog-attempts"] = attempts
            dead = dead_letter_of(handler)
            if dead is not None:
                operation["x-tidelog-dead-letter"] = dead
            if handler.sends is not None:
                operation["x-tidelog-sends"] = handler.sends.name
            self.operations[name] = operation

    def send(self) -> None:
        """One operation for each channel that the application sends to."""
        handled = {handler.channel.name for handler in self.app.handlers}
        senders: dict[str, list[str]] = {}
        for handler in self.app.handlers:
            for target in (handler.sends.name if handler.sends is not None else None, dead_letter_of(handler)):
                if target is not None:
                    senders.setdefault(target, []).append(handler.name)
        for channel in self.app.channels:
            if channel.name not in handled:
                senders.setdefault(channel.name, [])
        for target in sorted(senders):
            operation: JSON = {"action": "send", "channel": {"$ref": f"#/channels/{target}"}}
            if senders[target]:
                operation["summary"] = f"Sent by {_listed(senders[target])}."
            operation["messages"] = self.all_messages(target)
            if target in self.replies and not senders[target]:  # what a handler sends does not wait for an answer
                operation["reply"] = self.reply(target)
            operation["x-tidelog-pattern"] = self.channels[target]["x-tidelog-pattern"]
            name = f"send.{target}"
            while name in self.operations:
                name += "-"
            self.operations[name] = operation

    def reply(self, channel: str) -> JSON:
        """The answer to an operation on `channel`."""
        key = self.replies[channel]
        return {
            "address": {"$ref": "#/components/replyAddresses/reply-to"},
            "channel": {"$ref": f"#/channels/{key}"},
            "messages": self.all_messages(key),
        }

    def all_messages(self, channel: str) -> list[JSON]:
        """References to every message of a channel."""
        return [{"$ref": f"#/channels/{channel}/messages/{key}"} for key in self.channels[channel]["messages"]]


_SENTENCES = {
    "one-way": "Point-to-point: each message goes to exactly one receiver, and nobody answers.",
    "publish-subscribe": "Publish-subscribe: every group of receivers gets every message.",
    "async-response": "Questions: whoever receives one answers to the channel that its header reply-to names; Spring "
    "Kafka's headers for that are honoured too.",
}

_KEY: JSON = {
    "type": "string",
    "description": "Optional. Text is UTF-8, a whole number is 8 bytes big-endian, bytes stand as they are. Messages "
    "of one key keep their order: the partition is Kafka's murmur2 of the key.",
}


def _first_sentence(text: str) -> str:
    paragraph = " ".join(text.strip().split("\n\n")[0].split())
    end = paragraph.find(". ")
    return paragraph if end < 0 else paragraph[: end + 1]


def _listed(names: Sequence[str]) -> str:
    unique = sorted(set(names))
    return unique[0] if len(unique) == 1 else f"{', '.join(unique[:-1])} and {unique[-1]}"
