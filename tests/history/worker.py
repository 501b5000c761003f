"""What does each process of a run do: send, or receive, in one of several ways, and write down what came of it?

A worker is forked by run.py and lives until it is told to finish, or killed. Each random choice comes from a seed. What
tidelog may raise while others are killed, stopped and fenced is expected; anything else ends the process with a
traceback in `errors`, and the run fails.
"""

from __future__ import annotations

import os
import random
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.history import bugs, exactly
from tests.history.scoreboard import Count, Phase, Scoreboard
from tidelog.channel import Channel
from tidelog.errors import Fenced, Forked, Full, Locked, NoSpace, Timeout
from tidelog.log import Log
from tidelog.log import open as open_log
from tidelog.testing.recorder import Recorder
from tidelog.testing.recording import Receiving, Sending
from tidelog.testing.recording_txn import Naming

SEGMENT_BYTES = 4 << 20


@dataclass(frozen=True)
class Role:
    """What a worker does: it receives from channels, or without a group it sends; with `work` see exactly.py."""

    name: str
    group: str | None = None
    channels: tuple[str, ...] = ()
    delivery: str = "at-least-once"
    options: dict[str, Any] = field(default_factory=dict)
    slow: float = 0.0
    """Now and then a handler takes this many seconds."""
    work: str = ""
    """"move", "copy" or "resend"."""


ROLES = [
    Role("producer-a"),
    Role("producer-b"),
    Role("jobs-a", "jobs", ("jobs",), options={"max_processing": 0.4}, slow=0.6),
    Role("jobs-b", "jobs", ("jobs",), options={"max_processing": 0.4}, slow=0.6),
    Role("jobs-c", "jobs", ("jobs",), options={"max_processing": 0.4}),
    Role("once-a", "once", ("events",), "at-most-once"),
    Role("once-b", "once", ("events",), "at-most-once", {"strategy": "round-robin"}),
    Role("hand-a", "hand", ("events",), "manual", {"member": "hand-a", "member_timeout": 0.3}),
    Role("hand-b", "hand", ("events",), "manual"),
    Role("both-a", "both", ("events", "ticks")),
    Role("both-b", "both", ("events", "ticks"), options={"strategy": "range"}),
    Role("move-a", work="move"),
    Role("move-b", work="move"),
    Role("resend", work="resend"),
    Role("copy-a", "copy", ("moves",), work="copy"),
    Role("copy-b", "copy", ("moves",), options={"max_processing": 0.4}, slow=0.6, work="copy"),
    Role("copy-c", "copy", ("moves",), "manual", work="copy"),
    Role("see-a", "see", ("copied", "notes")),
    Role("see-b", "see", ("copied", "notes")),
    Role("dirty", "dirty", ("moves", "copied"), options={"isolation": "read-uncommitted"}),
]
MODES = {role.group: "exactly-once" if role.work else role.delivery for role in ROLES if role.group is not None}


@dataclass
class Life:
    """One life of a worker: from fork to its end, or to its death."""

    role: Role
    slot: int
    number: int
    """How many lives there were before."""
    seed: int
    store: Path
    records: Path
    board: Scoreboard
    pace: float
    """Messages that a sender sends in a second, on average."""
    bug: str = ""
    forking: bool = False
    reopening: bool = False

    def run(self) -> None:
        """All of it; does not return."""
        code = 0
        try:
            signal.signal(signal.SIGUSR1, self._fork_soon)
            signal.signal(signal.SIGUSR2, self._reopen_soon)
            self.random = random.Random(f"{self.seed} {self.role.name} {self.number}")
            self.recorder = Recorder(
                self.records / f"{self.role.name}-{self.number}", process=f"{self.role.name}-{self.number}"
            )
            if self.bug:
                bugs.plant(self.bug)
            with self.patiently(lambda: open_log(self.store, segment_bytes=SEGMENT_BYTES)) as log:
                self.log: Log = log
                if self.role.work:
                    exactly.WORKS[self.role.work](self)
                elif self.role.group is None:
                    self._produce()
                else:
                    self._consume()
        except BaseException:
            self._say_wrong(traceback.format_exc())
            code = 3
        os._exit(code)

    def _say_wrong(self, what: str) -> None:
        """For the end of the run."""
        with (self.records / "errors").open("a") as errors:
            errors.write(f"--- {self.role.name}, life {self.number}, process {os.getpid()}\n{what}\n")

    def _fork_soon(self, *_: object) -> None:
        self.forking = True

    def _reopen_soon(self, *_: object) -> None:
        self.reopening = True

    def did(self, calls: int = 1) -> None:
        self.board.rows[self.slot, Count.CALLS] += calls

    def count(self, column: Count) -> None:
        self.board.rows[self.slot, column] += 1

    def patiently(self, make: Callable[[], Any]) -> Any:
        """What needs room on a disk that is full now and then."""
        while True:
            try:
                return make()
            except (NoSpace, Locked, Full):
                self.count(Count.NO_SPACE)
                time.sleep(0.02)

    def channel(self, name: str) -> Channel[Any]:
        found: Channel[Any] = self.patiently(lambda: self.log[name])
        return found

    def fork(self, handles: list[Callable[[], Any]]) -> None:
        """A child in which every handle must refuse to work, and which must not take anything from us when it ends."""
        self.forking = False
        child = os.fork()
        if child == 0:
            wrong: list[str] = []
            for number, use in enumerate(handles):
                try:
                    wrong.append(f"handle {number} of a forked child answered {use()!r}")
                except Forked:
                    pass
                except BaseException as error:
                    wrong.append(f"handle {number} of a forked child raised {error!r}")
            self.log.close()
            if wrong:
                self._say_wrong("\n".join(wrong))
            os._exit(bool(wrong))
        _, status = os.waitpid(child, 0)
        if status:
            self._say_wrong(f"a forked child ended with {os.waitstatus_to_exitcode(status)}")
        self.count(Count.FORKS_WRONG if status else Count.FORKS)

    # --- sending ---

    def _produce(self) -> None:
        channels = [self.channel(name) for name in ("jobs", "events", "ticks")]
        named = self.patiently(lambda: Naming(self.recorder, self.log, self.role.name, linger=0.01))
        mark = exactly.fresh_mark()
        pad = self.random.randbytes(300)
        lingering = self.log.producer(linger=0.01)
        synced = self.log.producer(ack="synced")
        made: dict[tuple[str, str], Sending] = {}
        for channel in channels:
            for how, producer in (
                ("plain", None),
                ("lingering", lingering),
                ("synced", synced),
                ("named", named.producer),
            ):
                made[channel.name, how] = Sending(
                    self.recorder,
                    channel,
                    producer=producer,
                    name=f"{channel.name}-{how}",
                    identify=exactly.identify,
                    synced=how == "synced",
                    facts=named.facts if how == "named" else None,
                )
        choose = self.random
        sent, began = 0, time.monotonic()

        def value() -> bytes:
            nonlocal mark, sent
            mark += 1
            sent += 1
            return mark.to_bytes(8, "big") + pad[: choose.randrange(40) if choose.random() < 0.95 else 300]

        def key() -> bytes | None:
            return b"%d" % choose.randrange(exactly.KEYS) if choose.random() < 0.8 else None

        while self.board.phase is Phase.RUN:
            if self.forking:
                self.fork([lambda: channels[0].send(b"forked"), lambda: lingering.send(channels[1], b"forked")])
            channel = choose.choices(channels, (4, 5, 2))[0]
            how = choose.choices(("plain", "many", "lingering", "synced", "named"), (56, 30, 6, 3, 5))[0]
            try:
                if how == "many":
                    values = [value() for _ in range(choose.randint(2, 40))]
                    keys = [key() for _ in values] if choose.random() < 0.7 else None
                    made[channel.name, "plain"].send_many(values, keys=keys)
                    self.did()
                elif how == "plain":
                    sending = made[channel.name, "plain"]
                    for _ in range(choose.randint(10, 100)):
                        if choose.random() < 0.05:
                            sending.send(value(), partition=choose.randrange(channel.partitions))
                        else:
                            sending.send(value(), key=key())
                        self.did()
                else:
                    sending = made[channel.name, how]
                    for _ in range(choose.randint(5, 30) if how in ("lingering", "named") else 2):
                        keyed = choose.random() < 0.8
                        sending.send(value(), key=b"%d" % choose.randrange(exactly.KEYS) if keyed else None)
                        self.did()
                    sending.flush()
            except NoSpace:
                self.count(Count.NO_SPACE)
                time.sleep(0.01)
            while self.board.phase is Phase.RUN and (
                self.board.rows[:, Count.LAG].max() > exactly.LAG_MAX
                or sent > self.pace * (time.monotonic() - began + 0.1)
            ):
                time.sleep(0.005)

    # --- receiving ---

    def _consume(self) -> None:
        channels = [self.channel(name) for name in self.role.channels]
        while True:
            self.reopening = False
            try:
                with self.patiently(lambda: self.open(channels)) as received:
                    self.count(Count.OPENED)
                    enough = self._receive(received)
                if enough:
                    self.board.rows[self.slot, Count.LAG] = 0
                    return
            except exactly.Oops:
                self.count(Count.RAISED)
            except Fenced:
                self.count(Count.FENCED)

    def open(self, channels: list[Any]) -> Receiving:
        options = {"delivery": self.role.delivery, **self.role.options}
        if len(channels) > 1 or channels[0].kind == "topic":
            options["group"] = self.role.group
        make = self.log.consumer if len(channels) > 1 else channels[0].consumer
        given = channels if len(channels) > 1 else []
        return Receiving(
            self.recorder,
            make,
            *given,
            name="consumer",
            identify=exactly.identify,
            transacting=self.role.work == "copy",
            **options,
        )

    def _receive(self, received: Receiving) -> bool:
        """Some calls of one consumer; True once there is nothing left to receive at the end of the run."""
        choose, manual = self.random, self.role.delivery == "manual"
        calls = choose.randint(200, 4000)
        empty = 0
        while calls > 0 and not self.reopening:
            if self.forking:
                self.fork([lambda: received.consumer.receive(timeout=0), self.log.offsets])
            phase = self.board.phase
            draining = phase is Phase.DRAIN
            patience = 0.3 if draining else 0.05
            last: Any = None
            if choose.random() < 0.3:
                last = received.receive_many(choose.randint(1, 100), timeout=patience)
                got = len(last)
                self.did(1 if got else 0)
                calls -= 10
            else:
                got = 0
                for _ in range(choose.randint(1, 60)):
                    try:
                        last = received.receive(timeout=patience)
                    except Timeout:
                        break
                    got += 1
                    calls -= 1
                self.did(got)
            if manual and got and choose.random() < 0.7:
                received.commit(last if choose.random() < 0.5 else None)
                self.did()
            if got and choose.random() < 0.1:
                self.board.rows[self.slot, Count.LAG] = received.consumer.lag
            empty = 0 if got else empty + 1
            if draining:
                if empty > 2 and received.consumer.lag == 0:
                    if manual:
                        received.commit()
                    return True
                continue
            if choose.random() < 0.002:
                raise exactly.Oops
            if self.role.slow and choose.random() < 0.001:
                time.sleep(self.role.slow)
            elif choose.random() < 0.01:
                time.sleep(choose.random() * 0.02)
        return False
