"""What is done to the processes of a run, and how often did it really happen?

Kill, stop and continue, fork, a full disk, consumers that come and go. An event counts when it hit something: a process
is killed after it has done something in this life, a full disk when a send was refused. Imports nothing of tidelog.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.history.scoreboard import Count, Scoreboard
from tests.history.worker import Life, Role

FULL_SECONDS = 0.25


class Crew:
    """The workers: started, watched, killed and started again."""

    def __init__(self, roles: list[Role], make: Callable[[Role, int, int], Life], board: Scoreboard) -> None:
        self.roles, self._make, self.board = roles, make, board
        self.pids: dict[int, int] = {}
        """By slot."""
        self.lives: Counter[int] = Counter()
        self.calls_at_start: dict[int, int] = {}
        self.wrong: list[str] = []
        """Processes that ended as they should not."""

    def start(self, slot: int) -> None:
        """A new life for a slot."""
        life = self._make(self.roles[slot], slot, self.lives[slot])
        self.lives[slot] += 1
        self.calls_at_start[slot] = int(self.board.rows[slot, Count.CALLS])
        pid = os.fork()
        if pid == 0:
            life.run()
        self.pids[slot] = pid

    def kill(self, slot: int) -> None:
        """Kills it and waits until it is gone."""
        pid = self.pids.pop(slot)
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
            self.wrong.append(self._say(slot, status))

    def signal(self, slot: int, number: int) -> None:
        """Sends a signal."""
        os.kill(self.pids[slot], number)

    def busy(self, slot: int) -> bool:
        """Whether it has done something in this life."""
        return slot in self.pids and int(self.board.rows[slot, Count.CALLS]) > self.calls_at_start[slot]

    def look(self) -> None:
        """Notes who has ended by itself."""
        for slot, pid in list(self.pids.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                del self.pids[slot]
                if status:
                    self.wrong.append(self._say(slot, status))

    def end(self, slots: list[int], seconds: float) -> bool:
        """Waits for processes to end by themselves; kills and notes those that do not. Whether all did."""
        until = time.monotonic() + seconds
        while any(slot in self.pids for slot in slots) and time.monotonic() < until:
            self.look()
            time.sleep(0.02)
        late = [slot for slot in slots if slot in self.pids]
        for slot in late:
            self.wrong.append(f"{self.roles[slot].name} did not end within {seconds:g} s")
            self.kill(slot)
        return not late

    def _say(self, slot: int, status: int) -> str:
        code = os.waitstatus_to_exitcode(status)
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return f"{self.roles[slot].name} ended with {how}"


class Nemesis:
    """Deals events out evenly over a run, in an order drawn by its seed."""

    def __init__(self, crew: Crew, board: Scoreboard, store: Path, seed: int, *, fills: bool) -> None:
        self.crew, self.board, self.store = crew, board, store
        self.random = random.Random(f"{seed} nemesis")
        self.counts: Counter[str] = Counter()
        self._continue_at: dict[int, float] = {}
        self._filler = store.parent / "filler"
        self._free_at = 0.0
        self._fills = fills
        self._refused = 0

    def run(self, seconds: float, wanted: dict[str, int], enough: Callable[[], bool], most_seconds: float) -> None:
        """Events until the time is over and everything wanted has happened (at the latest after `most_seconds`)."""
        events = [name for name, count in wanted.items() for _ in range(count)]
        self.random.shuffle(events)
        began = time.monotonic()
        pause = seconds * 0.95 / max(len(events), 1)
        due = began + 0.3
        while not self.crew.wrong:
            now = time.monotonic()
            self._release(now)
            self.crew.look()
            missing = [name for name, count in wanted.items() if self.counts[name] < count]
            if now - began >= seconds and not missing and enough():
                break
            if now - began >= most_seconds:
                break
            if now >= due:
                due = max(due + pause, now)
                name = events.pop() if events else self.random.choice(missing) if missing else ""
                if name:
                    getattr(self, f"_{name}")()
            time.sleep(min(0.01, pause))
        self._release(float("inf"))

    def _release(self, now: float) -> None:
        for slot, moment in list(self._continue_at.items()):
            if now >= moment:
                del self._continue_at[slot]
                if slot in self.crew.pids:
                    self.crew.signal(slot, signal.SIGCONT)
        if self._free_at and now >= self._free_at:
            self._free_at = 0.0
            self._filler.unlink(missing_ok=True)
            refused = self.board.total(Count.NO_SPACE)
            self.counts["full"] += refused > self._refused
            self._refused = refused

    def _victim(self, *, consumer: bool = False) -> int | None:
        busy = [
            slot
            for slot, role in enumerate(self.crew.roles)
            if self.crew.busy(slot) and slot not in self._continue_at and (role.group is not None or not consumer)
        ]
        return self.random.choice(busy) if busy else None

    def _kill(self) -> None:
        victims = [self._victim()]
        if self.random.random() < 0.05:  # everybody at once: the next to open finds a store that nobody has
            victims = [slot for slot in range(len(self.crew.roles)) if self.crew.busy(slot)]
            self.counts["all killed"] += 1
        for slot in victims:
            if slot is not None:
                self._continue_at.pop(slot, None)
                self.crew.kill(slot)
                self.counts["kill"] += 1
        for slot in victims:
            if slot is not None:
                self.crew.start(slot)

    def _stop(self) -> None:
        slot = self._victim()
        if slot is not None:
            self.crew.signal(slot, signal.SIGSTOP)
            self._continue_at[slot] = time.monotonic() + self.random.choice((0.02, 0.1, 0.3, 0.7))
            self.counts["stop"] += 1

    def _fork(self) -> None:
        slot = self._victim()
        if slot is not None:
            self.crew.signal(slot, signal.SIGUSR1)
            self.counts["fork"] += 1

    def _storm(self) -> None:
        """Several consumers leave and come back at once."""
        for _ in range(3):
            slot = self._victim(consumer=True)
            if slot is not None:
                self.crew.signal(slot, signal.SIGUSR2)
        self.counts["storm"] += 1

    def _full(self) -> None:
        if self._free_at:
            return
        if not self._fills:
            self.counts["full"] += 1
            return
        self._refused = self.board.total(Count.NO_SPACE)
        with self._filler.open("wb") as file:
            while (free := shutil.disk_usage(self.store).free) > 4096:
                try:
                    os.posix_fallocate(file.fileno(), file.seek(0, 2), free // 2 if free > 1 << 20 else 4096)
                except OSError:
                    break
        self._free_at = time.monotonic() + FULL_SECONDS
