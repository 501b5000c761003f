"""Which messages does the application get in every run?

Floor 8: may import app, log, codec, envelope, errors, testing.typed (which needs hypothesis), testing.chaos.journal.
Thread rule: called in one thread, in a process of its own.

They come from a function `chaos_inputs` of the application's module, from files, or are made up from the types of the
channels. They are sent once to a log that is thrown away, which finds what cannot be sent, and then kept as bytes: each
run begins with the same ones.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from tidelog import envelope
from tidelog.app.application import App
from tidelog.app.channels import ChannelSpec
from tidelog.app.dead_letter import raw_sender
from tidelog.errors import DecodeError, Error
from tidelog.log import Log
from tidelog.log import open as open_log
from tidelog.testing.chaos.journal import input_headers

if TYPE_CHECKING:
    from tidelog.channel import Channel

__all__ = ["REPLIES", "Input", "NoInputs", "collect", "fed_channels", "feed"]

REPLIES = "chaos.replies"
"""Where the answers to questions go."""
KEYS = 3
"""So many different keys have the messages that are made up."""
FUNCTION = "chaos_inputs"


class NoInputs(ValueError):
    """What the application should get cannot be made, read or sent."""


class Input(NamedTuple):
    """One message that it gets, as bytes that JSON can hold."""

    channel: str
    partition: int
    raw: str
    key: str | None
    headers: list[tuple[str, str]]
    text: str
    """The value, for people."""


def specs_of(app: App) -> dict[str, ChannelSpec]:
    """Every channel that the application has to do with; declared ones as they are declared."""
    found: dict[str, ChannelSpec] = {spec.name: spec for spec in app.channels}
    for handler in app.handlers:
        for spec in (handler.channel, handler.sends, handler.dead_letter):
            if spec is not None:
                found.setdefault(spec.name, spec)
    return found


def fed_channels(app: App) -> list[str]:
    """The channels that are handled and that no handler returns messages to; all of them, if there are none."""
    handled = list(dict.fromkeys(handler.channel.name for handler in app.handlers))
    inner = {handler.sends.name for handler in app.handlers if handler.sends is not None}
    return [name for name in handled if name not in inner] or handled


def collect(
    app: App, module: ModuleType | None, directory: Path, files: Mapping[str, str], count: int, seed: int
) -> list[Input]:
    """The inputs. `files`: by channel ("": the only one that is fed) the path of a file with a value in JSON on each
    line; `count`, `seed`: how many messages each channel gets that are made up. Raises NoInputs."""
    given = getattr(module, FUNCTION, None)
    with open_log(directory / "inputs.log") as log:
        channels = {name: spec.open(log) for name, spec in specs_of(app).items()}
        if files:
            wanted = _from_files(app, channels, files)
        elif given is not None:
            wanted = _from_function(given)
        else:
            wanted = _made_up(app, channels, count, seed)
        questions = {handler.channel.name for handler in app.handlers if handler.pattern == "async-response"}
        for number, (name, value, key) in enumerate(wanted, 1):
            _send(channels, name, value, key, number, name in questions)
        if not wanted:
            raise NoInputs(f"there is not one message for {app.name}: {FUNCTION}() or the --input files are empty")
        return _kept(channels, len(wanted))


def feed(app: App, log: Log, inputs: Iterable[Input]) -> None:
    """Opens every channel of the application in `log`, and sends the inputs."""
    channels: dict[str, Channel[Any]] = {name: spec.open(log) for name, spec in specs_of(app).items()}
    log.queue(REPLIES, partitions=1, carries="document")
    senders = {one.channel: raw_sender(channels[one.channel]) for one in inputs}
    for one in inputs:
        senders[one.channel].send(
            b64decode(one.raw),
            key=None if one.key is None else b64decode(one.key),
            headers=[(name, b64decode(value)) for name, value in one.headers],
            partition=one.partition,
        )


# --- where they come from ---


def _from_function(given: Any) -> list[tuple[str, Any, Any]]:
    if not callable(given):
        raise NoInputs(f"{FUNCTION} is a {type(given).__name__}, not a function that answers messages")
    wanted = []
    for item in given():
        channel, value, key = item if isinstance(item, tuple) and len(item) == 3 else (*_pair(item), None)
        name = channel if isinstance(channel, str) else getattr(channel, "name", None)
        if not isinstance(name, str):
            raise NoInputs(f"{FUNCTION}() gave {channel!r} as a channel: give one of the application, or its name")
        wanted.append((name, value, key))
    return wanted


def _pair(item: Any) -> tuple[Any, Any]:
    if not isinstance(item, tuple) or len(item) != 2:
        raise NoInputs(f"{FUNCTION}() gave {item!r}: give (channel, value) or (channel, value, key)")
    return item


def _from_files(app: App, channels: Mapping[str, Channel[Any]], files: Mapping[str, str]) -> list[tuple[str, Any, Any]]:
    wanted = []
    for given, path in files.items():
        name = given
        if not name:
            fed = fed_channels(app)
            if len(fed) != 1:
                raise NoInputs(f"--input {path}: for which of {', '.join(fed)}? Write --input CHANNEL={path}")
            name = fed[0]
        if name not in channels:
            raise NoInputs(f"--input {name}={path}: {app.name} has no channel {name!r}, it has {', '.join(channels)}")
        for number, line in enumerate(Path(path).read_bytes().splitlines(), 1):
            if line.strip():
                try:
                    wanted.append((name, _value(channels[name], specs_of(app)[name].type, line), f"{number % KEYS}"))
                except (DecodeError, ValueError, TypeError) as error:
                    raise NoInputs(f"{path}, line {number}: this is no value of {name!r}: {error}") from error
    return wanted


def _value(channel: Channel[Any], type_: Any, line: bytes) -> Any:
    """The value that a line of JSON stands for; text and bytes may stand there as they are."""
    codec = channel.codec
    if codec.name == "raw":
        return line
    if codec.name == "utf-8" and not line.startswith(b'"'):
        return line.decode()
    if codec.dtype is not None:
        found = msgspec.json.decode(line)
        return tuple(found[name] for name in codec.dtype.names or ()) if isinstance(found, dict) else tuple(found)
    if codec.name == "json" and codec.decode is not None and codec.decode_message is None:
        return codec.decode(line)
    return msgspec.json.decode(line, type=Any if type_ is None else type_)


def _made_up(app: App, channels: Mapping[str, Channel[Any]], count: int, seed: int) -> list[tuple[str, Any, Any]]:
    try:
        from tidelog.testing.typed import distinct, of_type
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "hypothesis":
            raise
        raise NoInputs(
            f"messages are made up by the package hypothesis: pip install 'tidelog[testing]', or give them by "
            f"{FUNCTION}() or --input"
        ) from error
    from hypothesis.errors import HypothesisException

    lists = []
    for name in fed_channels(app):
        codec = channels[name].codec
        try:
            values = distinct(of_type(specs_of(app)[name].type), count, seed, codec.encode or bytes)
        except HypothesisException as error:
            raise NoInputs(
                f"no values can be made up for {name!r} ({codec.type_name}): {error}; give them by {FUNCTION}() or "
                f"--input"
            ) from error
        if not values:
            raise NoInputs(
                f"no value that was made up for {name!r} ({codec.type_name}) can be sent: give them by {FUNCTION}() "
                f"or --input"
            )
        lists.append([(name, value, f"{number % KEYS}") for number, value in enumerate(values)])
    return [one for together in lists for one in together]


# --- sending, keeping ---


def _send(channels: Mapping[str, Channel[Any]], name: str, value: Any, key: Any, number: int, question: bool) -> None:
    channel = channels.get(name)
    if channel is None:
        raise NoInputs(f"there is no channel {name!r} in the application: it has {', '.join(channels)}")
    headers = input_headers(number)
    if question:
        headers += [(envelope.REPLY_TO, REPLIES), (envelope.CORRELATION_ID, f"input-{number}")]
    try:
        channel.send(value, key=key, headers=headers, id=f"input-{number}")
    except (Error, TypeError, ValueError) as error:
        raise NoInputs(f"input {number} cannot be sent to {name!r}: {error}") from error


def _kept(channels: Mapping[str, Channel[Any]], count: int) -> list[Input]:
    """What stands in the log now, in the order in which it was sent."""
    found: dict[int, Input] = {}
    for name, channel in channels.items():
        for message in channel.scan():
            own = [(key, bytes(value or b"")) for key, value in message.headers.all]
            number = int((message.id or "").removeprefix("input-"))
            found[number] = Input(
                name,
                message.partition,
                b64encode(bytes(message.raw)).decode(),
                None if message.key is None else b64encode(message.key).decode(),
                [(key, b64encode(value).decode()) for key, value in own],
                _text(message),
            )
    return [found[number] for number in range(1, count + 1)]


def _text(message: Any) -> str:
    text = repr(message.value)
    return text if len(text) <= 200 else text[:197] + "..."
