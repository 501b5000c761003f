"""Does an application keep its promises, in whatever order messages come, time passes and things fail?

Floor 8: may import testing.faults and hypothesis; the application comes from whoever runs the machine. Thread rule:
Hypothesis runs it in one thread.

    class Billing(AppMachine):
        app = app                                         # a tidelog.App
        messages = {orders: st.builds(Order, ...)}        # what the world sends it
        faults = ("append",)                              # what may fail while handlers run

        def at_rest(self, t):                             # when nothing is left to do
            assert len(t.messages(invoices)) == len(self.sent)

    TestBilling = Billing.TestCase

The handlers run in the harness of `app.test()`: one thread, a log in memory, a clock that is turned by hand. When a run
of the machine ends, the clock is turned on until every retry is done; then each group must have handled all there is,
and `at_rest` is called.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, ClassVar, NamedTuple

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tidelog.errors import NoSpace
from tidelog.testing import faults as _faults

__all__ = ["AppMachine", "Sent"]


class Sent(NamedTuple):
    """A message that the machine sent."""

    channel: Any
    value: Any
    key: Any
    partition: int
    offset: int


class AppMachine(RuleBasedStateMachine):
    """Sends, runs handlers, turns the clock and makes things fail; subclass it, see the head of this module."""

    app: ClassVar[Any] = None
    """The application; made anew for each run if it is a function that answers one."""
    messages: ClassVar[Mapping[Any, st.SearchStrategy[Any]]] = {}
    """The values that are sent, by channel."""
    keys: ClassVar[st.SearchStrategy[Any]] = st.none() | st.sampled_from(["a", "b", "c"])
    """The keys they are sent with; `strategies.keys()` has more."""
    faults: ClassVar[tuple[str, ...]] = ()
    """Points of testing.faults that fail now and then while handlers run: "append" is what a full disk does. A commit
    that fails ends an application, so it is no point for a machine."""
    errors: ClassVar[tuple[type[BaseException], ...]] = (NoSpace,)
    """What they fail with, and what a run may therefore raise."""
    patience: ClassVar[float] = 24 * 3600.0
    """Seconds by which the clock is turned at the end, so that every retry is done."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[Sent] = []
        """Everything that was sent so far, in order."""
        self.harness: Any = None

    @initialize()
    def begin(self) -> None:
        """The application, in a harness."""
        cls = type(self)
        if cls.app is None or not cls.messages:
            raise TypeError(f"{cls.__name__} sets `app`, a tidelog.App, and `messages`, strategies by channel")
        made = cls.__dict__.get("app", cls.app)
        made = made if hasattr(made, "test") else cls.app()
        self.harness = made.test().__enter__()

    @rule(data=st.data())
    def send(self, data: st.DataObject) -> None:
        """The world sends a message."""
        channel = data.draw(st.sampled_from(list(self.messages)), label="channel")
        value = data.draw(self.messages[channel], label="value")
        key = data.draw(self.keys, label="key")
        receipt = self.harness.send(channel, value, key=key)
        self.sent.append(Sent(channel, value, key, receipt.partition, receipt.offset))

    @rule()
    def run_handlers(self) -> None:
        """The handlers do what there is to do now."""
        self.harness.run()

    @rule(seconds=st.sampled_from([0.01, 0.5, 5.0, 60.0]))
    def advance(self, seconds: float) -> None:
        """Time passes: retries become due."""
        self.harness.advance(seconds)

    @precondition(lambda self: bool(self.faults))
    @rule(data=st.data(), after=st.integers(0, 3), done=st.booleans())
    def run_with_a_fault(self, data: st.DataObject, after: int, done: bool) -> None:
        """The handlers run, and one call fails."""
        point = data.draw(st.sampled_from(self.faults), label="point")
        error = data.draw(st.sampled_from(self.errors), label="error")
        with suppress(*self.errors), _faults.fail(point, error=error, after=after, done=done):  # type: ignore[arg-type]
            self.harness.run()

    def at_rest(self, t: Any) -> None:
        """Checks of your own, once nothing is left to do; `t` is the harness."""

    def teardown(self) -> None:
        """Comes to rest, checks, and closes."""
        if self.harness is None:
            return
        failing = sys.exc_info()[0] is not None
        try:
            if not failing:
                self.harness.advance(self.patience)
                left = [row for row in self.harness.log.offsets() if row.lag]
                assert not left, f"messages are left that nobody handled: {left}"
                self.at_rest(self.harness)
        finally:
            self.harness.__exit__(*sys.exc_info())
