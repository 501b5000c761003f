"""What changed between two descriptions of an application, and whom does it break?

Floor 8: may import errors. Thread rule: pure functions.

Descriptions are compared as others see them: channels by address, messages by name, operations by what they do (action,
channel, group) and not by their ids. Any AsyncAPI 3 document may be the old one, also one written by hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from tidelog.asyncapi.schema_changes import KEPT, READERS, Change, Resolve, compare_schemas
from tidelog.errors import DecodeError

__all__ = ["Change", "compare"]

JSON: TypeAlias = dict[str, Any]


def compare(old: JSON, new: JSON) -> list[Change]:
    """Every change that others may notice, those that break first, each group in the order of the old description.

    Raises DecodeError if one of them is no AsyncAPI 3 document, or a reference in it leads nowhere.
    """
    before, after = _Document(old, "the old description"), _Document(new, "the new description")
    try:
        found = list(dict.fromkeys([*_channels(before, after), *_operations(before, after)]))
    except RecursionError as error:
        raise DecodeError("one of the descriptions holds a schema that has no end: look at its references") from error
    return sorted(found, key=lambda change: not change.breaking)


class _Document:
    """A description with its references followed."""

    def __init__(self, document: JSON, what: str) -> None:
        self.what = what
        self.root = document
        version = document.get("asyncapi") if isinstance(document, dict) else None
        if not isinstance(version, str) or not version.startswith("3."):
            raise DecodeError(f"{what} is no AsyncAPI 3 document: its key asyncapi is {version!r}")
        self.channels = {name: self.object(part, name) for name, part in self.section("channels").items()}
        self.operations = {name: self.object(part, name) for name, part in self.section("operations").items()}
        self.written = {
            self.channel_of(operation) for operation in self.operations.values() if operation.get("action") == "send"
        }

    def section(self, name: str) -> JSON:
        """A part of the root; none is an empty one."""
        return self.object(self.root.get(name) or {}, name)

    def object(self, value: Any, where: str) -> JSON:
        """`value`, references followed. Raises DecodeError if it is no object."""
        value = self.resolve(value)
        if not isinstance(value, dict):
            raise DecodeError(f"{self.what} is wrong at {where}: an object must stand there")
        return value

    def resolve(self, value: Any) -> Any:
        """What a reference leads to, over other references too; anything else as it is."""
        for _ in range(64):
            if not isinstance(value, dict) or not isinstance(value.get("$ref"), str):
                return value
            reference = value["$ref"]
            value = self.root
            for step in self._steps(reference):
                if not isinstance(value, dict) or step not in value:
                    raise DecodeError(f"{self.what} has the reference {reference}, which leads nowhere")
                value = value[step]
        raise DecodeError(f"{self.what} has references that go in a circle")

    def _steps(self, reference: str) -> list[str]:
        if not reference.startswith("#/"):
            raise DecodeError(f"{self.what} refers to another file ({reference}): bring it into one, then compare")
        return [step.replace("~1", "/").replace("~0", "~") for step in reference[2:].split("/")]

    def address(self, channel: str) -> str | None:
        """Where others find a channel: its address, or its key if none is given; None if the asker says it."""
        found = self.channels[channel].get("address", channel)
        return found if isinstance(found, str) else None

    def channel_of(self, part: JSON) -> str:
        """The key of the channel that an operation or a reply refers to."""
        reference = (part.get("channel") or {}).get("$ref", "")
        steps = self._steps(reference) if reference.startswith("#/") else []
        if len(steps) != 2 or steps[0] != "channels" or steps[1] not in self.channels:
            raise DecodeError(
                f"{self.what} has an operation on {reference or 'nothing'}, which is none of its channels"
            )
        return steps[1]

    def messages(self, part: JSON) -> dict[str, JSON]:
        """Messages of a channel, by name."""
        result = {}
        for key, message in self.object(part.get("messages") or {}, "messages").items():
            message = self.object(message, key)
            for trait in message.get("traits") or ():
                message = {**self.object(trait, "traits"), **message}
            result[str(message.get("name") or key)] = message
        return result


# --- channels ---


def _channels(old: _Document, new: _Document) -> Iterator[Change]:
    addressed = {address: key for key in new.channels if (address := new.address(key)) is not None}
    seen = set()
    for key in old.channels:
        address = old.address(key)
        if address is None:  # for answers: compared with the operations that they belong to
            continue
        path = f"channels.{address}"
        if address not in addressed:
            moved = key in new.channels and new.address(key) is not None and new.address(key) not in seen
            if moved and old.address(key) != new.address(key) and not _has_address(old, str(new.address(key))):
                seen.add(new.address(key))
                yield Change(path, f"address changed to {new.address(key)}", True, "others use the old one")
            else:
                yield Change(path, "channel removed", True, "others may send to it or receive from it")
            continue
        seen.add(address)
        yield from _channel(path, old, new, key, addressed[address])
    for address in addressed:
        if address not in seen:
            yield Change(f"channels.{address}", "channel added", False, "nobody uses it yet")


def _has_address(document: _Document, address: str) -> bool:
    return any(document.address(key) == address for key in document.channels)


def _channel(path: str, old: _Document, new: _Document, old_key: str, new_key: str) -> Iterator[Change]:
    before, after = old.channels[old_key], new.channels[new_key]
    binding, now = _binding(old, before), _binding(new, after)
    partitions, count = binding.get("partitions"), now.get("partitions")
    if partitions != count:
        yield Change(
            f"{path}.partitions",
            f"changed from {_said(partitions)} to {_said(count)}",
            True,
            "keys move to other partitions, so the order per key does not hold across the change",
        )
    kind, other = before.get("x-tidelog-kind"), after.get("x-tidelog-kind")
    if kind is not None and other is not None and kind != other:
        yield Change(path, f"a {kind} became a {other}", True, "who gets a message is another rule")
    limits, limits_now = binding.get("topicConfiguration") or {}, now.get("topicConfiguration") or {}
    for name in sorted({*limits, *limits_now}):
        if limits.get(name) != limits_now.get(name):
            what = f"changed from {_said(limits.get(name))} to {_said(limits_now.get(name))}"
            yield Change(
                f"{path}.{name}", what, False, "the form of messages is the same; receivers far behind may care"
            )
    writes = old_key in old.written or new_key in new.written
    yield from _messages(path, (old, before), (new, after), writes)


def _binding(document: _Document, part: JSON) -> JSON:
    bindings = document.resolve(part.get("bindings") or {})
    return document.resolve(bindings.get("kafka") or {}) if isinstance(bindings, dict) else {}


def _messages(path: str, old: tuple[_Document, JSON], new: tuple[_Document, JSON], writes: bool) -> Iterator[Change]:
    before, after = old[0].messages(old[1]), new[0].messages(new[1])
    if len(before) == len(after) == 1 and before.keys() != after.keys():
        # The only message of a channel is what it is by its place, whatever its name.
        (name, message), (fresh, other) = *before.items(), *after.items()
        yield Change(
            f"{path}.{name}", f"message renamed to {fresh}", False, "the only message needs no name to be known"
        )
        yield from _message(f"{path}.{name}", (old[0], message), (new[0], other), writes)
        return
    for name, message in before.items():
        if name in after:
            yield from _message(f"{path}.{name}", (old[0], message), (new[0], after[name]), writes)
        else:
            yield Change(f"{path}.{name}", "message removed", True, KEPT)
    for name in after:
        if name not in before:
            reason = READERS if writes else "only this application receives it"
            yield Change(f"{path}.{name}", "message added", writes, reason)


def _message(path: str, old: tuple[_Document, JSON], new: tuple[_Document, JSON], writes: bool) -> Iterator[Change]:
    before, after = old[1], new[1]
    resolve: tuple[Resolve, Resolve] = (old[0].resolve, new[0].resolve)
    format_, format_now = (
        part.get("contentType") or document.root.get("defaultContentType")
        for document, part in ((old[0], before), (new[0], after))
    )
    if format_ != format_now:
        yield Change(path, f"format changed from {_said(format_)} to {_said(format_now)}", True, KEPT)
    yield from compare_schemas(f"{path}.payload", _payload(old), _payload(new), resolve, writes)
    yield from compare_schemas(f"{path}.headers", before.get("headers"), after.get("headers"), resolve, writes)
    keys = [_binding(document, part).get("key") for document, part in (old, new)]
    if keys[0] != keys[1]:
        for change in compare_schemas(f"{path}.key", keys[0], keys[1], resolve, True):
            reason = "other bytes choose other partitions, and receivers read the key"
            yield Change(change.path, f"key changed: {change.what}", True, reason)
    where, now = (document.resolve(part.get("correlationId")) or {} for document, part in (old, new))
    if where.get("location") != now.get("location"):
        what = f"correlation id moved from {_said(where.get('location'))} to {_said(now.get('location'))}"
        yield Change(path, what, True, "questions and answers are matched by it")


def _payload(side: tuple[_Document, JSON]) -> Any:
    payload = side[0].resolve(side[1].get("payload"))
    # Another schema language stands one level deeper, with the name of its format.
    return payload["schema"] if isinstance(payload, dict) and "schemaFormat" in payload else side[1].get("payload")


# --- operations ---


def _identity(document: _Document, operation: JSON) -> tuple[str, str]:
    key = document.channel_of(operation)
    return str(operation.get("action")), document.address(key) or key


def _group(document: _Document, operation: JSON) -> str | None:
    group = document.resolve(_binding(document, operation).get("groupId"))
    if isinstance(group, Mapping):
        listed = [group["const"]] if "const" in group else group.get("enum") or [None]
        return listed[0] if isinstance(listed[0], str) else None
    return group if isinstance(group, str) else None


def _operations(old: _Document, new: _Document) -> Iterator[Change]:
    left = dict(new.operations)
    for name, operation in old.operations.items():
        identity, group = _identity(old, operation), _group(old, operation)
        same = [key for key, other in left.items() if _identity(new, other) == identity]
        exact = [key for key in same if _group(new, left[key]) == group]
        # Another group in the place of this one, unless that one stood beside it before.
        known = {_group(old, other) for other in old.operations.values() if _identity(old, other) == identity}
        match = next(iter(sorted(exact, key=lambda key: key != name)), None) or next(
            (key for key in same if _group(new, left[key]) not in known), None
        )
        path = f"operations.{name}"
        if match is None:
            yield Change(path, "operation removed", True, _REMOVED.get(identity[0], "others may count on it"))
            continue
        other = left.pop(match)
        yield from _operation(path, (old, operation), (new, other), name, match)
    for name in left:
        yield Change(f"operations.{name}", "operation added", False, "nobody counts on it yet")


_REMOVED = {
    "receive": "what others send there is no longer handled",
    "send": "who receives from that channel gets nothing more",
}


def _operation(
    path: str, old: tuple[_Document, JSON], new: tuple[_Document, JSON], name: str, name_now: str
) -> Iterator[Change]:
    group, group_now = _group(*old), _group(*new)
    if group != group_now:
        reason = (
            "the new group has no committed offsets: it begins anew, and what the old one had not read it reads again"
        )
        yield Change(path, f"group changed from {_said(group)} to {_said(group_now)}", True, reason)
    if name != name_now:
        yield Change(path, f"renamed to {name_now}", False, "only generated code uses the name")
    before, after = old[0].resolve(old[1].get("reply")), new[0].resolve(new[1].get("reply"))
    writes = old[1].get("action") == "receive"
    if before and not after:
        reason = "who asks waits in vain" if writes else "answers are no longer read"
        yield Change(f"{path}.reply", "reply removed", True, reason)
    elif after and not before:
        yield Change(f"{path}.reply", "reply added", False, "who does not ask gets none")
    elif before and after:
        yield from _reply(f"{path}.reply", (old[0], before), (new[0], after), writes)
    delivery, delivery_now = old[1].get("x-tidelog-delivery"), new[1].get("x-tidelog-delivery")
    if delivery and delivery_now and delivery != delivery_now:
        what = f"delivery changed from {delivery} to {delivery_now}"
        yield Change(path, what, False, "others send as before; how often a message is handled after a crash is new")


def _reply(path: str, old: tuple[_Document, JSON], new: tuple[_Document, JSON], writes: bool) -> Iterator[Change]:
    where, now = (document.resolve(part.get("address")) or {} for document, part in (old, new))
    if where.get("location") != now.get("location"):
        what = f"address moved from {_said(where.get('location'))} to {_said(now.get('location'))}"
        yield Change(path, what, True, "answers go where the other side does not look")
    channels = [
        document.channels[document.channel_of(part)] if part.get("channel") else {} for document, part in (old, new)
    ]
    if channels[0].get("address") != channels[1].get("address"):
        what = f"answers go to {_said(channels[1].get('address'))} instead of {_said(channels[0].get('address'))}"
        yield Change(path, what, True, "the other side does not look there")
    yield from _messages(path, (old[0], channels[0]), (new[0], channels[1]), writes)


def _said(value: Any) -> str:
    return "none" if value is None else str(value)
