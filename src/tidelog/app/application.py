"""What is an application, and how does it run?

Floor 8: may import every module of this package, asyncapi, and what lies below. Thread rule: handlers and hooks are
added by one thread, before the application starts; `start` and `stop` by one thread at a time; `request_stop` by any,
signal handlers too.

    app = tidelog.App("billing", url="shop.log")

    @app.on("orders", sends="invoices", retries=3, dead_letter="orders.dead")
    def bill(order: Order) -> Invoice: ...

    app.run()
"""

from __future__ import annotations

import logging
import queue
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

from tidelog.app.attempt import attempt, attempt_async
from tidelog.app.event_loop import EventLoop
from tidelog.app.exactly_once import ExactlyOnceLoop
from tidelog.app.handler import Handler
from tidelog.app.inline import InlineLoop
from tidelog.app.outcome import Fatal, Outcome
from tidelog.app.output import Output
from tidelog.app.parallel import KEY_TASKS, KEY_THREADS, TaskLoop, ThreadLoop
from tidelog.app.registry import Registry
from tidelog.config import Duration, duration_ms
from tidelog.errors import Closed
from tidelog.log import Log
from tidelog.log import open as open_log
from tidelog.transaction import LEVELS, Level

if TYPE_CHECKING:
    from tidelog.app.channels import ChannelSpec
    from tidelog.channel import Channel
    from tidelog.testing.harness import Harness

__all__ = ["App"]

logger = logging.getLogger("tidelog.app")

Loop = InlineLoop | ThreadLoop | TaskLoop | ExactlyOnceLoop


class App(Registry):
    """Functions that handle the messages of channels, run together.

    `name`: of the service; topics are read as the group of this name unless `group=` says otherwise. `url`: of the log,
    as for `tidelog.open` (None: $TIDELOG_URL); or an open `log`, which is left open. `version`, `description`: for the
    API description. `drain_timeout`: seconds that handlers have to end when the application stops. `level`: of the
    transactions of handlers with delivery="exactly-once": "synced", or "written", which is faster, and atomic when
    processes die but not when the power is cut.

    A message is committed when its handler has returned and what it returned was sent: at least once. After a kill only
    what was in hand is handled again, and what had overtaken it in its partition (`concurrency`). A handler that
    raises gets the message again as `retries` says; meanwhile the messages of its key wait, and those of other keys go
    on. When the attempts are used up, or the bytes are no value of the channel's type, it goes to `dead_letter`;
    without one the application stops with the error, and nothing is lost.
    """

    def __init__(
        self,
        name: str,
        url: Any = None,
        version: str = "0.0.0",
        description: str | None = None,
        log: Log | None = None,
        *,
        drain_timeout: Duration = 10.0,
        level: Level = "synced",
    ) -> None:
        if not isinstance(name, str) or not name:
            raise ValueError(f"name={name!r}: an application has a name, it is the group that reads topics")
        if url is not None and log is not None:
            raise ValueError("give a url or an open log, not both")
        self.name = name
        self.url = url
        self.version = version
        self.description = description
        if level not in LEVELS:
            raise ValueError(f"level={level!r} does not exist: use one of {', '.join(LEVELS)}")
        self._level = level
        self.drain_timeout = duration_ms(drain_timeout, "drain_timeout") / 1000
        self._given = log
        self._testing: Log | None = None
        self._opened: Log | None = None
        self._opening = threading.RLock()
        self._events = EventLoop(f"{name}-events")
        super().__init__(self._events.call)
        self._loops: list[Loop] = []
        self._threads: list[threading.Thread] = []
        self._wishes: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._stopping = False
        self._running = False
        self._started = False  # all of it: a start that failed half way has nothing to say about its end
        self.failure: BaseException | None = None
        """Why the application stopped by itself, None if it did not."""

    def __repr__(self) -> str:
        return f"<App {self.name} with {len(self._handlers)} handlers{' running' if self._running else ''}>"

    # --- what it is made of ---

    @property
    def running(self) -> bool:
        """Between `start` and `stop`."""
        return self._running

    @property
    def log(self) -> Log:
        """The log, opened at the first use. Raises what `tidelog.open` raises."""
        with self._opening:
            if self._testing is not None:
                return self._testing
            if self._opened is not None and not self._opened.closed:
                return self._opened
            if self._given is not None:
                return self._given
            if self.url is None:
                for spec in (handler.channel for handler in self._handlers):
                    if spec.channel is not None:  # made by an open log: that is the one
                        self._given = Log(spec.channel._engine)
                        return self._given
            self._opened = open_log(self.url)
            return self._opened

    def relocate(self, url: Any) -> None:
        """Have it open another log than it was made with. Raises ValueError if it was given open channels, which stay
        where they are."""
        self._refuse_late()
        fixed = [h.channel.name for h in self._handlers if h.channel.channel is not None]
        if fixed:
            raise ValueError(
                f"{fixed[0]!r} is a channel of a log that is open already, and cannot be moved to {url}: declare it "
                f"with app.queue() or app.topic()"
            )
        self.url, self._given = url, None

    def _its_log(self) -> Log:
        return self.log

    def _refuse_late(self) -> None:
        if self._running:
            raise RuntimeError(f"the application {self.name} runs already: add handlers and hooks before it starts")

    # --- running ---

    def run(self, workers: int = 1) -> None:
        """Run until SIGTERM, Ctrl-C or an error that nothing can take; in the main thread of a program.

        SIGTERM ends it in order: nothing more is received, handlers have `drain_timeout` to end, what they finished is
        committed. Ctrl-C does the same and then raises KeyboardInterrupt; a second one does not wait.
        `workers`: so many processes, each of which imports the program's main module anew and runs the application; one
        that dies is started again.

        Raises the error of the handler that could not go on, and what `start` raises.
        """
        if workers != 1:
            # Loaded here, as they import this module.
            from tidelog.app.loading import target_of
            from tidelog.app.workers import check_count, supervise, worker_command

            check_count(workers)
            if supervise(worker_command(target_of(self)), workers, drain_timeout=self.drain_timeout):
                raise RuntimeError(
                    f"a worker of {self.name} stopped because of an error, which it has written to stderr"
                )
            return
        interrupted = False

        def asked(number: int, _: FrameType | None) -> None:
            nonlocal interrupted
            if number == signal.SIGINT:
                if interrupted:
                    raise KeyboardInterrupt
                interrupted = True
            # A SimpleQueue may be put into while the interrupted code is inside its get.
            self._wishes.put(signal.Signals(number).name)

        before = {number: signal.signal(number, asked) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            self.start()
            try:
                why = self._wishes.get()
                logger.info("%s stops: %s", self.name, why)
            finally:
                self.stop()
        finally:
            for number, handler in before.items():
                if handler is not None:  # None: it was set by something that is not Python
                    signal.signal(number, handler)
        if self.failure is not None:
            raise self.failure
        if interrupted:
            raise KeyboardInterrupt

    def start(self) -> None:
        """Open the log and begin to handle messages, on threads of its own; returns when every handler receives.

        Raises RuntimeError if it runs already or is under test, SchemaMismatch and whatever else the channels raise,
        and what a hook of before_start or after_start raises; then nothing runs.
        """
        if self._running:
            raise RuntimeError(f"the application {self.name} runs already: call stop() first")
        if self._testing is not None:
            raise RuntimeError(f"the application {self.name} is under test: leave `with app.test()` first")
        self.failure = None
        self._stopping = False
        try:
            log = self.log
            self._hooks.run("before_start")
            # One by one, so that a failure leaves none behind.
            for handler in self._handlers:
                self._loops.append(self._loop(handler))
            self._running = True
            for loop in self._loops:
                thread = threading.Thread(
                    target=self._run, args=(loop,), name=f"{self.name}-{loop.handler.name}", daemon=True
                )
                self._threads.append(thread)
                thread.start()
            self._hooks.run("after_start")
            self._started = True
        except BaseException:
            self.stop()
            raise
        logger.info("%s runs with %d handlers on %s", self.name, len(self._loops), log.name)

    def request_stop(self) -> None:
        """Have `run` end in order; may be called from anywhere, handlers too."""
        self._wishes.put("asked to")

    def stop(self) -> None:
        """Stop in order; idempotent. Handlers have `drain_timeout` to end, what they finished is committed.

        Raises nothing of what went wrong in handlers: see `failure`. Raises RuntimeError in a handler, which it would
        wait for: call `request_stop` there.
        """
        if threading.current_thread() in self._threads:
            raise RuntimeError("stop() waits for the handlers, so it cannot be called in one: call request_stop()")
        if self._stopping:
            return
        self._stopping = True
        started = self._started
        if self._running:
            self._hooks.run_all("before_stop")
        deadline = time.monotonic() + self.drain_timeout
        for loop in self._loops:
            loop.stop(self.drain_timeout / 2)  # retries are waited for one half of it, the other is for their handlers
        for loop, thread in zip(self._loops, self._threads, strict=False):
            ended = loop.finish(deadline)
            thread.join(max(deadline - time.monotonic(), 0.0) if ended else 1.0)
            if thread.is_alive() or not ended:
                again = loop.handler.delivery != "at-most-once"
                logger.warning(
                    "%s did not end within %g s: what it has %s",
                    loop.handler.name,
                    self.drain_timeout,
                    "will be handled again" if again else "is committed already (at-most-once), and lost",
                )
        for loop in self._loops:
            loop.close()
        if self._running:
            self._hooks.run_all("after_stop")
        self._loops, self._threads = [], []
        self._running = self._started = False
        self._events.close()
        with self._opening:
            opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()
        while not self._wishes.empty():  # of the run that ends here; not at the start, where a signal may be among them
            self._wishes.get()
        if started:
            logger.info("%s has stopped", self.name)

    def __enter__(self) -> App:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self.failure is not None:
            raise self.failure

    def _channel(self, spec: ChannelSpec) -> Channel[Any]:
        """The channel that is meant; one that is open already is used as it is, but not by a test."""
        if spec.channel is not None and self._testing is None:
            return spec.channel
        return spec.open(self.log)

    def _loop(self, handler: Handler) -> Loop:
        if handler.delivery == "exactly-once":
            return self._exactly_once(handler, KEY_THREADS if handler.concurrency == "key" else handler.concurrency)
        outcome = Outcome(handler, self._channel, self._hooks)
        channel = self._channel(handler.channel)
        many = handler.concurrency
        if handler.takes == "batch" or (many == 1 and not handler.is_async):
            return InlineLoop(handler, channel, outcome, attempt(handler, outcome, self._events))
        if handler.is_async:
            limit = KEY_TASKS if many == "key" else many
            return TaskLoop(handler, channel, outcome, attempt_async(handler, outcome), limit, self._events)
        limit = KEY_THREADS if many == "key" else many
        name = f"{self.name}-{handler.name}"
        return ThreadLoop(handler, channel, outcome, attempt(handler, outcome, self._events), limit, name)

    def _exactly_once(
        self, handler: Handler, limit: int = 1, now: Callable[[], float] = time.monotonic
    ) -> ExactlyOnceLoop:
        output = Output()
        outcome = Outcome(handler, self._channel, self._hooks, output.to)
        call = attempt(handler, outcome, self._events)
        return ExactlyOnceLoop(
            handler, self._channel(handler.channel), outcome, call, log=self.log, output=output, name=self.name,
            level=self._level, limit=limit, now=now,
        )  # fmt: skip

    def _run(self, loop: Loop) -> None:
        """A handler's receiving thread."""
        try:
            loop.run()
        except BaseException as error:
            if isinstance(error, Closed) and self._stopping:  # it was given up
                return
            cause = error.error if isinstance(error, Fatal) else error
            if self.failure is None:
                self.failure = cause
            logger.critical("%s stops: %s failed: %s", self.name, loop.handler.name, cause)
            for other in self._loops:
                other.stop()
            self._wishes.put(f"{loop.handler.name} failed")

    # --- describing, testing ---

    def asyncapi(self) -> dict[str, Any]:
        """The AsyncAPI 3.0 document of the application. Raises TypeError or ValueError for what cannot be described."""
        from tidelog.asyncapi.document import describe

        return describe(self)

    def test(self) -> Harness:
        """A context manager that runs the application in a log in memory, in this thread, with a clock that is turned
        by hand: see `tidelog.testing.harness`."""
        import importlib

        # The testing tools stand a floor above: what is delivered must not need them.
        harness = importlib.import_module("tidelog.testing.harness")
        return cast("Harness", harness.Harness(self))
