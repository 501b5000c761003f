"""Who sends and receives in the tests of guarantees, here or in a process of its own that can be killed and stopped?

`Actor` works on a log; `Remote` is an actor in another process with the same methods, driven over pipes: `python -m
tests.guarantees.actor` is told by one JSON line what to open, reads one for each call and answers it with one. Between
two calls a process does nothing, so a receiver that has answered `receive` has that message in hand until it is asked
again.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import tidelog
from tests.guarantees import applying
from tests.guarantees.transacting import RESULTS, Transacting
from tidelog import errors

ROOT = Path(__file__).resolve().parent.parent.parent
WAIT_SECONDS = 30.0
"""How long is waited for a message that must come."""
SILENCE_SECONDS = 0.2
"""How long is waited for a message that must not come."""


class Actor:
    """Sends and receives on one log. Values are str; a receiver is known by a name that the test chooses."""

    def __init__(self, log: tidelog.Log) -> None:
        self.log = log
        self.stacks: dict[str, ExitStack] = {}
        self.receivers: dict[str, Any] = {}
        self.in_hand: dict[str, Any] = {}
        self.applications: list[Any] = []

    @property
    def orders(self) -> tidelog.Topic[str]:
        """The channel that everything is about."""
        return self.log.topic("orders", str)

    def make(self, partitions: int = 1) -> None:
        """Make the channel."""
        self.log.topic("orders", str, partitions=partitions)

    def send(self, values: list[str], ack: str, partition: int = 0) -> list[int]:
        """The offsets, once they are acknowledged."""
        with self.log.producer(ack=ack) as producer:
            return [producer.send(self.orders, value, partition=partition).result().offset for value in values]

    def send_without_end(self) -> None:
        """Sends until the process is killed; the first word goes out when it has begun."""
        orders = self.orders
        number = 0
        while True:
            orders.send_many([f"more {number + n}" for n in range(100)], partition=0)
            if number == 0:
                os.write(1, b'["done", null]\n')
            number += 100

    def join(self, name: str, delivery: Any, level: Any = "written", group: str = "g", **options: Any) -> None:
        """A receiver of a group, or for delivery "none" one without a group that reads from the start. `level`: of the
        transactions of "exactly-once", whose producer has the receiver's name."""
        orders = self.orders
        stack = self.stacks[name] = ExitStack()
        if delivery == "none":
            self.receivers[name] = stack.enter_context(orders.tail(start="earliest"))
        elif delivery == "exactly-once":
            producer = stack.enter_context(self.log.producer(name=name))
            consumer = stack.enter_context(orders.consumer(group=group, **options))
            self.receivers[name] = stack.enter_context(Transacting(self.log, producer, consumer, level))
        else:
            self.receivers[name] = stack.enter_context(orders.consumer(group=group, delivery=delivery, **options))

    def receive(self, name: str, timeout: float = WAIT_SECONDS) -> str | None:
        """The next value, which it has in hand from then on; None when none came."""
        self.in_hand.pop(name, None)
        try:
            message = self.in_hand[name] = self.receivers[name].receive(timeout=timeout)
        except errors.Timeout:
            return None
        return str(message.value)

    def rest(self, name: str, count: int, silence: float = SILENCE_SECONDS) -> list[str]:
        """Everything that is still coming: `count` messages must, and then there is silence for so long."""
        found: list[str] = []
        while True:
            value = self.receive(name, WAIT_SECONDS if len(found) < count else silence)
            if value is None:
                return found
            found.append(value)

    def commit(self, name: str, level: str | None = None) -> None:
        """What it has in hand."""
        self.receivers[name].commit(self.in_hand[name], level=level)

    def commit_all(self, name: str) -> None:
        """Everything that it was handed."""
        self.receivers[name].commit()

    def held(self, name: str) -> list[int]:
        """Its partitions."""
        return [assigned.partition for assigned in self.receivers[name].assignment]

    def leave(self, name: str, how: str = "done") -> None:
        """How: "done" ends its `with`, "raise" ends it by an exception, "close" closes it."""
        stack = self.stacks.pop(name)
        receiver = self.receivers.pop(name)
        if how == "close":
            receiver.close()
        with suppress(Wrong), stack:
            if how == "raise":
                raise Wrong

    def scan(self) -> list[str]:
        """The whole history."""
        return [message.value for message in self.orders.scan()]

    def results(self, channel: str = RESULTS) -> list[str]:
        """What came of the messages that were received exactly once, or by an application."""
        return [message.value for message in self.log.topic(channel, str).scan()]

    def handle_together(self, name: str, count: int) -> None:
        """An exactly-once receiver is to take so many messages into one transaction."""
        if isinstance(self.receivers[name], Transacting):
            self.receivers[name].together = count

    def bounds(self) -> list[int]:
        """Log start and log end of partition 0."""
        return list(self.orders.bounds(0))

    def channels(self) -> list[str]:
        """Their names."""
        return list(self.log)

    def place(self) -> str:
        """The directory of a log in memory."""
        engine: Any = self.log._engine
        return str(engine._memory.path)

    def fork(self, name: str) -> list[str]:
        """What a forked child meets that uses what its parent had: to receive, commit, send and scan."""
        orders = self.orders
        receiver, message = self.receivers[name], self.in_hand[name]
        back, out = os.pipe()
        child = os.fork()
        if child == 0:
            met = []
            calls: list[Callable[[], object]] = [
                lambda: receiver.receive(timeout=0),
                lambda: receiver.commit(message),
                lambda: orders.send("from the child"),
                lambda: list(orders.scan()),
                receiver.close,
            ]
            for call in calls:
                try:
                    call()
                    met.append("nothing")
                except BaseException as error:
                    met.append(type(error).__name__)
            os.write(out, json.dumps(met).encode())
            os._exit(0)
        os.close(out)
        with os.fdopen(back) as stream:
            told: list[str] = json.load(stream)
        os.waitpid(child, 0)
        return told

    def start_application(self, delivery: str, level: str, story: str, **options: Any) -> None:
        """Run the application in this process."""
        self.applications.append(applying.start(self.log, delivery, level, story, **options))

    def stop_application(self) -> None:
        """When what its function has in hand is finished; of several all."""
        for application in self.applications:
            application.stop()

    def wait_for_commit(self, group: str, offset: int) -> None:
        """The group has come as far as this in partition 0."""
        end = time.monotonic() + WAIT_SECONDS
        while all(row.offset < offset for row in self.orders.offsets() if row.group == group):
            assert time.monotonic() < end, list(self.orders.offsets())
            time.sleep(0.005)

    def close(self) -> None:
        """Everything it has."""
        for name in list(self.receivers):
            self.leave(name, "close")
        self.log.close()


class Wrong(Exception):
    """What a receiver raises that is to fail."""


class Remote:
    """An actor in a process of its own. Its calls raise what they raised there."""

    def __init__(
        self, url: str | Path, flush_interval: float = 1.0, running: subprocess.Popen[str] | None = None
    ) -> None:
        self.running = running or start()
        assert self.running.stdin is not None
        self.running.stdin.write(json.dumps([str(url), flush_interval]) + "\n")
        self.running.stdin.flush()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*words: Any, **options: Any) -> Any:
            self.begin(name, *words, **options)
            return self.answer()

        return call

    def begin(self, name: str, *words: Any, **options: Any) -> None:
        """A call whose answer is fetched later."""
        assert self.running.stdin is not None
        self.running.stdin.write(json.dumps([name, words, options]) + "\n")
        self.running.stdin.flush()

    def answer(self) -> Any:
        """Of the call that was begun."""
        assert self.running.stdout is not None
        line = self.running.stdout.readline()
        assert line, f"the process ended with {self.running.wait()}"
        kind, *words = json.loads(line)
        if kind == "raised":
            raise getattr(errors, words[0], AssertionError)(words[1])
        return words[0]

    def wait(self) -> None:
        """It dies by itself."""
        self.running.wait(WAIT_SECONDS)

    def signal(self, number: int) -> None:
        """SIGSTOP, SIGCONT and the like."""
        self.running.send_signal(number)

    def kill(self) -> None:
        """Gone, without a word."""
        self.running.kill()
        self.running.wait()

    def end(self) -> None:
        """Whatever state it is in."""
        with suppress(ProcessLookupError):
            os.kill(self.running.pid, signal.SIGCONT)
        self.kill()
        for stream in (self.running.stdin, self.running.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()


def start() -> subprocess.Popen[str]:
    """A process that waits to be told what to open."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.guarantees.actor"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def main() -> None:
    """Do what comes in, until it ends."""
    first = sys.stdin.readline()
    if not first:  # nobody needed it
        return
    url, flush_interval = json.loads(first)
    with tidelog.open(url, flush_interval=flush_interval) as log:
        actor = Actor(log)
        for line in sys.stdin:
            name, words, options = json.loads(line)
            try:
                answer: list[Any] = ["done", getattr(actor, name)(*words, **options)]
            except Exception as error:
                answer = ["raised", type(error).__name__, str(error)]
            os.write(1, (json.dumps(answer) + "\n").encode())
            if name == "close":
                break


if __name__ == "__main__":
    main()
