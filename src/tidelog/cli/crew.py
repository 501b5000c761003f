"""How are worker processes started, listened to, killed and ended? (demo and bench)

Floor 9: imports common. Thread rule: one `Crew` is used by one thread.

A worker is a module run by `python -m`. It reads its job as one line of JSON from stdin and writes reports as lines of
JSON to stdout; the end of stdin means: finish. Every worker has pipes of its own and shares nothing else with its
parent, so that SIGKILL at any instant breaks nothing but the worker; when the parent dies, workers find stdin closed.
"""

from __future__ import annotations

import os
import select
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Generic, Self, TypeVar

import msgspec

from tidelog.cli.common import CommandError, explain

KILLED_STATUS = -signal.SIGKILL
"""The exit status of a process that SIGKILL ended."""


class Report(msgspec.Struct, omit_defaults=True):
    """What a worker has to say; times are of the host's monotonic clock, so that they compare between processes."""

    kind: str
    """"ready", "progress", "done" or "failed"."""
    at_ns: int
    done: int = 0
    """How much of its work."""
    text: str = ""


J = TypeVar("J", bound=msgspec.Struct)
R = TypeVar("R", bound=Report)


class Worker(Generic[J, R]):
    """One process."""

    def __init__(self, name: str, module: str, job: J, report_type: type[R]) -> None:
        self.name = name
        self.job = job
        self.last: R | None = None
        """What it said last."""
        self.killed = False
        self.ended = False
        self._decoder = msgspec.json.Decoder(report_type)
        self._unread = b""
        self._process = subprocess.Popen([sys.executable, "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.tell(msgspec.json.encode(job))

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def is_done(self) -> bool:
        """Whether it said that it has done its work."""
        return self.last is not None and self.last.kind == "done"

    @property
    def descriptor(self) -> int:
        """Where its reports come from."""
        assert self._process.stdout is not None  # it was asked for
        return self._process.stdout.fileno()

    def tell(self, line: bytes) -> None:
        """One line on its stdin. A worker that is gone is noticed when it is listened to."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(line + b"\n")
            self._process.stdin.flush()

    def finish(self) -> None:
        """Close its stdin: there is nothing more to come."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()

    def kill(self) -> int:
        """SIGKILL; its exit status as `wait` gives it (-9)."""
        self.killed = True
        self._process.kill()
        return self._process.wait()

    def reports(self) -> Iterator[R]:
        """What it has said since the last call. Raises CommandError if it failed or has ended before its time."""
        data = os.read(self.descriptor, 1 << 16)
        if not data:
            self.ended = True
            if not self.killed and not self.is_done:
                raise CommandError(f"the {self.name} ended too early with status {self._process.wait()}")
            return
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            report = self.last = self._decoder.decode(line)
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
                with suppress(BrokenPipeError):  # a line that the process never read
                    pipe.close()


class Crew(Generic[J, R]):
    """All workers of a run. Leaving the `with` block ends every process that is still there."""

    def __init__(self, module: str, report_type: type[R], *, silence_seconds: float = 60.0) -> None:
        """`silence_seconds`: give up when nobody has said anything for this long."""
        self._module = module
        self._report_type = report_type
        self._silence_seconds = silence_seconds
        self._selector = selectors.DefaultSelector()
        self._workers: list[Worker[J, R]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.end()
        self._selector.close()

    def start(self, name: str, job: J) -> Worker[J, R]:
        """A new process that does `job`."""
        worker = Worker(name, self._module, job, self._report_type)
        self._workers.append(worker)
        self._selector.register(worker.descriptor, selectors.EVENT_READ, worker)
        return worker

    def listen(self, timeout: float) -> Iterator[tuple[Worker[J, R], R]]:
        """What workers say within `timeout` seconds. Raises CommandError if one failed."""
        for key, _ in self._selector.select(timeout):
            worker: Worker[J, R] = key.data
            for report in worker.reports():
                yield worker, report
            if worker.ended:
                self._selector.unregister(worker.descriptor)

    def until(self, reached: Callable[[], bool], note: Callable[[Worker[J, R], R], None]) -> None:
        """Listen until `reached()`; every report goes to `note`. Raises CommandError if a worker failed or all are
        silent for too long."""
        moved = time.monotonic()
        while not reached():
            for worker, report in self.listen(0.02):
                moved = time.monotonic()
                note(worker, report)
            if time.monotonic() - moved > self._silence_seconds:
                raise CommandError(f"no worker has said anything for {self._silence_seconds:.0f} s; run it again")


# --- the worker's side ---


def work(job_type: type[J], do: Callable[[J], None]) -> int:
    """Read the job from stdin and do it; the result is the exit code. What goes wrong is reported."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its workers itself
    try:
        do(msgspec.json.decode(next_line(), type=job_type))
    except BrokenPipeError:
        return 1
    except Exception as error:
        if os.environ.get("TIDELOG_LOG_LEVEL", "").lower() == "debug":
            raise
        say(Report("failed", time.monotonic_ns(), text=explain(error)[0]))
        return 1
    return 0


def say(report: Report) -> None:
    """One report. A kill in the middle leaves the beginning of a line, which nobody takes for a report."""
    data = msgspec.json.encode(report) + b"\n"
    while data:
        data = data[os.write(1, data) :]


def next_line() -> bytes:
    """A line of stdin, read byte by byte: without a buffer that would hide the end of stdin from `stdin_ended`."""
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            break
        line += byte
    return bytes(line)


def stdin_ended() -> bool:
    """Whether the parent has closed stdin (or is gone)."""
    return bool(select.select([0], [], [], 0)[0])
