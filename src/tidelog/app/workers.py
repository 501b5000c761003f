"""How do several processes run one application, and what happens when one of them dies?

Floor 8: may import application, loading. Thread rule: `supervise` belongs to the main thread of a program.

Each worker is a fresh interpreter that imports the application by its name, so nothing is inherited by fork. They are
members of the same groups, so the partitions are shared out among them, and those of one that dies go to the others
until it is back. A worker ends by itself when its parent is gone.

    exit code of a worker           what follows
    0 while nobody asked            it is started again
    STOPPED (an error nobody took)  all are stopped: starting again would fail again
    anything else, a signal         it is started again, after a wait that grows while it dies young
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tidelog.app.application import App

__all__ = ["STOPPED", "check_count", "run_as_worker", "supervise", "worker_command"]

logger = logging.getLogger("tidelog.app")

STOPPED = 70
"""Exit code of a worker whose application stopped because of an error (EX_SOFTWARE)."""
WAIT_SECONDS = 0.1
WAIT_MOST_SECONDS = 10.0
YOUNG_SECONDS = 10.0
"""A worker that lived longer is started again at once."""
KILL_SECONDS = 5.0
"""How long a worker has beyond its application's drain_timeout, before it is killed."""


def check_count(workers: object) -> None:
    """Raise TypeError or ValueError unless it is a number of processes."""
    if isinstance(workers, bool) or not isinstance(workers, int):
        raise TypeError(f"workers={workers!r}: give a number of processes")
    if workers < 1:
        raise ValueError(f"workers={workers}: the least is 1")


def worker_command(target: str) -> list[str]:
    """The command line of a worker; the descriptor of `supervise` is added to it."""
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return [sys.executable, *flags, "-m", "tidelog.app.worker", target]


class _Worker:
    """One of the processes, and the next one in its place."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: subprocess.Popen[bytes] | None = None
        self.born = 0.0
        self.deaths = 0
        self.again_at: float | None = 0.0
        """When it is to be started (monotonic); None: it runs."""

    def died(self, now: float) -> float:
        """Seconds to wait before it is started again."""
        self.process = None
        self.deaths = 0 if now - self.born > YOUNG_SECONDS else self.deaths + 1
        wait = 0.0 if self.deaths == 0 else min(WAIT_SECONDS * 2.0 ** min(self.deaths - 1, 30), WAIT_MOST_SECONDS)
        self.again_at = now + wait
        return wait


def supervise(command: Sequence[str], count: int, *, drain_timeout: float) -> int:
    """Keep `count` processes of `command` running until SIGTERM or Ctrl-C, which they get as SIGTERM.

    Each gets one argument more: a descriptor that reaches its end when this process is gone. Answers 0, or 1 if a
    worker's application stopped because of an error. Raises KeyboardInterrupt after Ctrl-C, ValueError for a count
    below 1.
    """
    check_count(count)
    events: queue.SimpleQueue[tuple[str, int]] = queue.SimpleQueue()

    def asked(number: int, _: FrameType | None) -> None:
        events.put(("signal", number))

    before = {number: signal.signal(number, asked) for number in (signal.SIGTERM, signal.SIGINT)}
    alive, held = os.pipe()
    try:
        return _Supervisor([*command, str(alive)], alive, count, events, drain_timeout).run()
    finally:
        os.close(held)
        os.close(alive)
        for number, handler in before.items():
            if handler is not None:  # None: it was set by something that is not Python
                signal.signal(number, handler)


class _Supervisor:
    def __init__(
        self,
        command: list[str],
        descriptor: int,
        count: int,
        events: queue.SimpleQueue[tuple[str, int]],
        drain_timeout: float,
    ) -> None:
        self._command = command
        self._descriptor = descriptor
        self._workers = [_Worker(number) for number in range(count)]
        self._events = events
        self._drain = drain_timeout + KILL_SECONDS

    def run(self) -> int:
        code, interrupted = 0, False
        try:
            while True:
                self._start_due()
                try:
                    what, number = self._events.get(timeout=self._until_next())
                except queue.Empty:
                    continue
                if what == "signal":
                    logger.info("%s: the workers are told to stop", signal.Signals(number).name)
                    interrupted = number == signal.SIGINT
                    break
                if self._buried(self._workers[number]) == STOPPED:
                    logger.critical("worker %d stopped because of an error: so do the others", number)
                    code = 1
                    break
        finally:
            self._stop()
        if interrupted:
            raise KeyboardInterrupt
        return code

    def _start_due(self) -> None:
        now = time.monotonic()
        for worker in self._workers:
            if worker.again_at is not None and worker.again_at <= now:
                process = subprocess.Popen(self._command, pass_fds=(self._descriptor,), stdin=subprocess.DEVNULL)
                worker.process, worker.born, worker.again_at = process, now, None
                threading.Thread(
                    target=self._watch, args=(worker.number, process), name=f"worker-{worker.number}", daemon=True
                ).start()
                logger.info("worker %d runs as process %d", worker.number, process.pid)

    def _watch(self, number: int, process: subprocess.Popen[bytes]) -> None:
        process.wait()
        self._events.put(("died", number))

    def _until_next(self) -> float | None:
        due = [worker.again_at for worker in self._workers if worker.again_at is not None]
        return max(min(due) - time.monotonic(), 0.0) if due else None

    def _buried(self, worker: _Worker) -> int:
        assert worker.process is not None
        code: int = worker.process.returncode
        wait = worker.died(time.monotonic())
        if code != STOPPED:
            how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
            logger.warning("worker %d ended %s, again in %g s", worker.number, how, wait)
        return code

    def _stop(self) -> None:
        running = [worker.process for worker in self._workers if worker.process is not None]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + self._drain
        for process in running:
            try:
                process.wait(max(deadline - time.monotonic(), 0.0))
            except subprocess.TimeoutExpired:
                logger.error("process %d did not end within %g s and is killed", process.pid, self._drain)
                process.kill()
                process.wait()
            except BaseException:  # a second Ctrl-C
                for one in running:
                    one.kill()
                raise


def run_as_worker(app: App, descriptor: int) -> None:
    """Run `app` in this process until it is told to stop, or the parent behind `descriptor` is gone. Raises as
    `app.run`."""

    def watch() -> None:
        try:
            while os.read(descriptor, 1):
                pass
        except OSError:
            return
        logger.warning("the parent of this worker is gone: it stops")
        app.request_stop()

    threading.Thread(target=watch, name="parent", daemon=True).start()
    app.run()
