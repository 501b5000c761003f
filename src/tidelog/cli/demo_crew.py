"""How are the demo's worker processes started, listened to, killed and ended?

Floor 9: imports common, demo_worker. Thread rule: one `Crew` is used by one thread.

Every worker has pipes of its own, so that killing one cannot leave another waiting for a lock. Leaving the `with` block
ends every process that is still there.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Iterator
from types import TracebackType
from typing import Self

import msgspec

from tidelog.cli.common import CommandError
from tidelog.cli.demo_worker import Job, Report

_decoder = msgspec.json.Decoder(Report)


class Worker:
    """One process."""

    def __init__(self, name: str, job: Job) -> None:
        self.name = name
        self.job = job
        self.last: Report | None = None
        """What it said last."""
        self.killed = False
        self.ended = False
        self._unread = b""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tidelog.cli.demo_worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.tell(msgspec.json.encode(job))

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def descriptor(self) -> int:
        """Where its reports come from."""
        assert self._process.stdout is not None  # it was asked for
        return self._process.stdout.fileno()

    def tell(self, line: bytes) -> None:
        """One line on its stdin."""
        assert self._process.stdin is not None  # it was asked for
        self._process.stdin.write(line + b"\n")
        self._process.stdin.flush()

    def finish(self) -> None:
        """Tell a subscriber that there is nothing more to come."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def kill(self) -> int:
        """SIGKILL; its exit status as `wait` gives it (-9)."""
        self.killed = True
        self._process.kill()
        return self._process.wait()

    def reports(self) -> Iterator[Report]:
        """What it has said since the last call. Raises CommandError if it failed or has ended before its time."""
        data = os.read(self.descriptor, 1 << 16)
        if not data:
            self.ended = True
            if not self.killed and (self.last is None or self.last.kind != "done"):
                raise CommandError(f"the {self.name} ended too early with status {self._process.wait()}")
            return
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            report = self.last = _decoder.decode(line)
            if report.kind == "failed":
                raise CommandError(f"the {self.name} failed: {report.text}")
            yield report

    def end(self) -> None:
        """Whatever it does: it is gone afterwards."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:  # a line that the process never read
                    pass


class Crew:
    """All workers of a run."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._workers: list[Worker] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.end()
        self._selector.close()

    def start(self, name: str, job: Job) -> Worker:
        """A new process that does `job`."""
        worker = Worker(name, job)
        self._workers.append(worker)
        self._selector.register(worker.descriptor, selectors.EVENT_READ, worker)
        return worker

    def listen(self, timeout: float) -> Iterator[tuple[Worker, Report]]:
        """What workers say within `timeout` seconds. Raises CommandError if one failed."""
        for key, _ in self._selector.select(timeout):
            worker: Worker = key.data
            for report in worker.reports():
                yield worker, report
            if worker.ended:
                self._selector.unregister(worker.descriptor)


KILLED_STATUS = -signal.SIGKILL
"""The exit status of a process that SIGKILL ended."""
