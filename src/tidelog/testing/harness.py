"""How is an application tested without a server, without threads, and without waiting?

Floor 8, above the applications: may import app and every lower floor, never the package root. Thread rule: one thread,
the test's.

    with app.test() as t:
        t.send(orders, Order(1, "tea", 3), key="tea")
        t.expect(invoices, Invoice(1, 30))

The application's channels are opened in a log in memory. Its handlers run in the calling thread, when `run`, `advance`,
`expect`, `ask` or `dead` are called, one after the other whatever their concurrency is. The clock of retries stands
still until `advance` or `expect` turns it, so nothing ever sleeps. A handler that would stop the application raises its
error from the call that ran it; at the next call it has been started again, and gets what it had not committed. Leaving
`with` without an exception runs what is left, so that no error of a handler stays unseen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from tidelog import envelope
from tidelog._native import Channelled, message_as
from tidelog.app.attempt import attempt
from tidelog.app.channels import AppChannel, ChannelSpec, spec_of
from tidelog.app.dead_letter import FROM_CHANNEL
from tidelog.app.exactly_once import ExactlyOnceLoop
from tidelog.app.inline import InlineLoop
from tidelog.app.outcome import Fatal, Outcome
from tidelog.config import Duration, duration_ms
from tidelog.log import open as open_log
from tidelog.message import Message, Receipt
from tidelog.partitioner import key_bytes
from tidelog.patterns.reply import answer_decoder

if TYPE_CHECKING:
    from tidelog.app.application import App
    from tidelog.app.channels import ChannelLike
    from tidelog.app.handler import Handler
    from tidelog.channel import Channel
    from tidelog.log import Log

__all__ = ["Harness"]

REPLIES = "harness.replies"
ROUNDS_MAX = 100_000
"""Rounds of `run` after which handlers that feed each other are taken for an endless loop."""


class Harness:
    """An application under test; made by `app.test()`, and used as a context manager."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._log: Log | None = None
        self._loops: dict[str, InlineLoop | ExactlyOnceLoop] = {}  # by handler
        self._specs: dict[str, ChannelSpec] = {}
        self._expected: dict[str, Counter[tuple[int, int]]] = {}
        self._asked = 0
        self._restless = False
        self.now = 0.0
        """Seconds on the clock of retries; 0 at the beginning."""

    def __enter__(self) -> Self:
        app = self._app
        if app.running or app._testing is not None:
            raise RuntimeError(f"the application {app.name} runs already, or is under test: stop it first")
        self._log = app._testing = open_log("memory:")
        try:
            for spec in app.channels:
                self._specs[spec.name] = spec
            for handler in app.handlers:
                for one in (handler.channel, handler.sends, handler.dead_letter):
                    if one is not None:
                        self._specs.setdefault(one.name, one)
            app._hooks.run("before_start")
            for handler in app.handlers:
                self._loop(handler)
            app._hooks.run("after_start")
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        failure: BaseException | None = None
        if kind is None and not self._restless:
            try:
                self.run()
            except BaseException as one:
                failure = one
        first = self._app._hooks.run_all("before_stop")
        first = self._app._hooks.run_all("after_stop") or first
        self._close()
        if failure is not None:
            raise failure
        if kind is None and first is not None:
            raise first

    @property
    def log(self) -> Log:
        """The log in memory. Raises RuntimeError outside of `with`."""
        if self._log is None:
            raise RuntimeError("the harness is not open: write `with app.test() as t:`")
        return self._log

    # --- doing ---

    def send(self, channel: ChannelLike, value: Any, *, key: Any = None, **options: Any) -> Receipt:
        """Send one message; the options are those of `channel.send`. Handlers see it at the next `run`."""
        return self.channel(channel).send(value, key=key, **options)

    def run(self) -> int:
        """Run every handler until none has anything to do now; how many rounds that took. Retries wait for the clock.

        Raises the error of a handler that would have stopped the application; what it had not committed comes again.
        """
        rounds = 0
        _ = self.log  # raises outside of `with`
        while sum(self._step(handler) for handler in self._app.handlers):
            rounds += 1
            if rounds > ROUNDS_MAX:
                self._restless = True
                raise RuntimeError(
                    f"the handlers have not come to rest in {ROUNDS_MAX} rounds: does one send to a channel that leads "
                    f"back to itself?"
                )
        return rounds

    def advance(self, seconds: Duration) -> None:
        """Turn the clock forward; retries that become due meanwhile run at their time. Raises like `run`."""
        self._advance_to(self.now + duration_ms(seconds, "seconds") / 1000)

    # --- looking ---

    def expect(self, channel: ChannelLike, value: Any, *, within: Duration = 0.0, key: Any = None) -> Message[Any]:
        """Run, and answer the message of `channel` that equals `value`; the clock is turned by at most `within` seconds
        for it. Each message is good for one call. `key`: it must have this key too.

        Raises AssertionError, saying what came instead, and like `run`.
        """
        until = self.now + duration_ms(within, "within") / 1000
        wanted_key = None if key is None else key_bytes(key)
        opened = self.channel(channel)
        taken = self._expected.setdefault(opened.name, Counter())
        self.run()
        while True:
            messages = self.messages(opened)
            for message in messages:
                place = (message.partition, message.offset)
                if not taken[place] and _equal(message, value) and (key is None or message.key == wanted_key):
                    taken[place] += 1
                    return message
            due = self._next_due()
            if due is None or due > until:
                break
            self._advance_to(due)
        self.now = max(self.now, until)
        left = [message for message in messages if not taken[message.partition, message.offset]]
        shown = "\n".join(f"  {_shown(message)}" for message in left[-20:]) or "  nothing"
        waits = "" if due is None else f"\na message waits for its next attempt, in {due - self.now:g} s: give within="
        raise AssertionError(
            f"no message {value!r} came to {opened.name!r} within {duration_ms(within, 'within') / 1000:g} s; what "
            f"came and was not expected yet:\n{shown}{waits}"
        )

    def messages(self, channel: ChannelLike) -> list[Message[Any]]:
        """Every message of a channel so far, by partition; runs nothing."""
        return list(self.channel(channel).scan())

    def dead(self, channel: ChannelLike) -> list[Message[Any]]:
        """Run, and answer the dead letters of a channel, or every message if it is a dead-letter channel itself."""
        self.run()
        name = self.channel(channel).name
        homes = {
            handler.dead_letter.name: handler.dead_letter
            for handler in self._app.handlers
            if handler.dead_letter is not None and handler.channel.name == name
        }
        if not homes:
            return self.messages(channel)
        found = [message for home in homes.values() for message in home.open(self.log).scan()]
        return [message for message in found if message.headers.get(FROM_CHANNEL) == name.encode()]

    def ask(
        self, channel: ChannelLike, value: Any, *, key: Any = None, headers: Mapping[str, Any] | None = None,
        within: Duration = 0.0,
    ) -> list[Message[Any]]:  # fmt: skip
        """Ask a question, run, and answer the replies; the clock is turned by `within` seconds, for responders that are
        tried again. The `value` of an error answer raises ReplyError. Raises TypeError if the channel has no reply=."""
        opened = self.channel(channel)
        codec = opened.reply
        if codec is None:
            raise TypeError(f"{opened.name!r} has no reply=, the type of its answers: declare it with reply=")
        replies = self.log.queue(REPLIES, partitions=1, carries="document")
        self._asked += 1
        question = f"question-{self._asked}"
        own = [(envelope.CORRELATION_ID, question), (envelope.REPLY_TO, REPLIES)]
        opened.send(value, key=key, headers=envelope.enclose(list(own), headers, None), id=question)
        self.run()
        self.advance(within)
        shared = Channelled(
            REPLIES,
            "queue",
            encode=None,
            decode=None,
            encode_many=None,
            decode_many=None,
            dtype=None,
            key_bytes=key_bytes,
            decompress=replies.opened().decompress,
            max_message_bytes=replies.max_message_bytes,
            carries="document",
            decode_message=answer_decoder(codec),
        )
        return [message_as(message, shared) for message in replies.scan() if message.correlation_id == question]

    def channel(self, channel: ChannelLike) -> Channel[Any]:
        """The channel of the log in memory that stands for `channel` (declared, open elsewhere, or a name).

        Raises ChannelNotFound for a name that nobody has declared, RuntimeError outside of `with`.
        """
        log = self.log  # first: outside of `with` a declared channel is one of the application's real log
        if isinstance(channel, AppChannel):
            return channel.channel
        name = channel if isinstance(channel, str) else channel.name
        spec = self._specs.get(name)
        if spec is not None:
            return spec.open(log)
        if isinstance(channel, str):
            return log[channel]
        return spec_of(channel, "queue").open(log)

    # --- inside ---

    def _loop(self, handler: Handler) -> InlineLoop | ExactlyOnceLoop:
        loop = self._loops.get(handler.name)
        if loop is None:
            loop = self._made(handler)
            self._loops[handler.name] = loop
        return loop

    def _made(self, handler: Handler) -> InlineLoop | ExactlyOnceLoop:
        if handler.delivery == "exactly-once":
            return self._app._exactly_once(handler, now=lambda: self.now)
        outcome = Outcome(handler, self._app._channel, self._app._hooks)
        call = attempt(handler, outcome, self._app._events)
        return InlineLoop(handler, self._app._channel(handler.channel), outcome, call, lambda: self.now)

    def _step(self, handler: Handler) -> bool:
        before = envelope.current.set(None)
        try:
            return self._loop(handler).step(0.0)
        except BaseException as error:
            loop = self._loops.pop(handler.name, None)
            if loop is not None:
                with suppress(Exception):  # the first error is the one to be told
                    loop.close()
            if isinstance(error, Fatal):
                raise error.error from None
            raise
        finally:
            envelope.current.reset(before)

    def _next_due(self) -> float | None:
        return min((due for loop in self._loops.values() if (due := loop.next_due) is not None), default=None)

    def _advance_to(self, until: float) -> None:
        self.run()
        while (due := self._next_due()) is not None and due <= until:
            self.now = max(self.now, due)
            self.run()
        self.now = max(self.now, until)

    def _close(self) -> None:
        for loop in self._loops.values():
            loop.close()
        self._loops = {}
        self._app._events.close()
        self._app._testing = None
        log, self._log = self._log, None
        if log is not None:
            log.close()


def _equal(message: Message[Any], value: Any) -> bool:
    """Whether the value is this one; rows and arrays by all of their fields."""
    try:
        same = message.value == value
    except Exception:  # bytes that are no value of the type, or an error answer: nothing that could be expected
        return False
    return bool(same.all()) if hasattr(same, "all") else bool(same)


def _shown(message: Message[Any]) -> str:
    try:
        value = repr(message.value)
    except Exception as error:
        value = f"{message.raw[:200]!r} ({type(error).__name__})"
    return f"{value}{'' if message.key is None else f' key={message.key!r}'}"
