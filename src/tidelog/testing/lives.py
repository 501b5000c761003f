"""How are processes started and killed a thousand times in a test?

Floor 8: may import log, in the nursery. Thread rule: a `Lives` belongs to one thread; `step` may be called from any.

A life is one run of a program (a function) in a process of its own, from its start to its death. One process, the
nursery, imports the programs once and opens nothing; each life is a fork of it, so that a death costs a few
milliseconds and nothing of the calling process (threads, open logs, connections) is inherited. The nursery waits for
its children and kills them, so no number of a process is ever another's. Lives end with the nursery, and the nursery
with the process that made it.

A life dies when it is told to (`kill`), or at a step: a place that `step("name")` marks, or a line of a function that
is traced. It then kills itself with SIGKILL, which is as final as from outside and always at the same place.
"""

from __future__ import annotations

import ctypes
import importlib
import inspect
import json
import multiprocessing
import os
import pickle
import selectors
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection
from types import CodeType, FrameType, TracebackType
from typing import Any, Literal, NamedTuple, Self, TypeAlias

__all__ = ["Ended", "Lives", "Program", "step"]

Program: TypeAlias = Callable[[], object]
"""What a life does: a function at the top of a module, or a functools.partial of one; the nursery imports it."""

PR_SET_PDEATHSIG = 1
MOST_TEXT = 30_000


class Ended(NamedTuple):
    """How a life ended."""

    life: int
    status: Literal["killed", "done", "failed"]
    """done: the program returned; failed: it raised, or its process ended by itself."""
    steps: tuple[str, ...]
    """The steps that it passed, each once, in the order of their first passing."""
    at: str | None
    """The step at which it killed itself; None if it died otherwise."""
    text: str
    """What went wrong, for one that failed."""


class _Passing:
    """The steps of this life."""

    def __init__(self, report: int, armed: str | None, nth: int) -> None:
        self._report, self._armed, self._left = report, armed, nth
        self._seen: set[str] = set()

    def __call__(self, name: str) -> None:
        if name not in self._seen:
            self._seen.add(name)
            self.say("step", name)
        if name == self._armed:
            self._left -= 1
            if self._left == 0:
                self.say("at", name)
                os.kill(os.getpid(), signal.SIGKILL)

    def say(self, what: str, text: str) -> None:
        """One line to the nursery, which reads all the time."""
        data = json.dumps([what, text[-MOST_TEXT:]]).encode() + b"\n"
        while data:
            data = data[os.write(self._report, data) :]


_passing: _Passing | None = None


def step(name: str) -> None:
    """Marks a place at which a kill test may kill the process; elsewhere it does nothing."""
    if _passing is not None:
        _passing(name)


class Lives:
    """Starts and kills lives. Use it as a context manager: leaving it ends every process that is still there."""

    def __init__(self, *, lines: Iterable[Callable[..., Any]] = ()) -> None:
        """`lines`: functions of which every line, and the return, is a step: "function:12", "function:return"."""
        ours, theirs = multiprocessing.Pipe()
        self._pipe = ours
        self._count = 0
        self._ended: list[Ended] = []
        spawning = multiprocessing.get_context("spawn")
        # A daemon: it ends with this process. Spawned, so that it has neither our threads nor our files.
        self._nursery = spawning.Process(target=_nurse, args=(theirs, tuple(lines)), name="nursery", daemon=True)
        try:
            self._nursery.start()
        finally:
            theirs.close()

    def start(self, program: Program, *, step: str | None = None, nth: int = 1) -> int:
        """Starts a life and answers its number when it has begun. `step`, `nth`: where it kills itself, and at which
        passing.

        Raises pickle.PicklingError, AttributeError or TypeError for a program without a name in a module, RuntimeError
        for one that the nursery could not import, or if the nursery is gone.
        """
        self._count += 1
        self._send("start", (self._count, pickle.dumps(program), step, nth))
        try:
            while isinstance(answer := self._pipe.recv(), Ended):
                self._ended.append(answer)
        except (EOFError, OSError):
            raise self._lost() from None
        if answer is not None:
            raise RuntimeError(
                f"a program must be a function at the top of a module that can be imported anew, or a "
                f"functools.partial of one; this one cannot:\n{answer}"
            )
        return self._count

    def kill(self, life: int) -> None:
        """SIGKILL. One that has ended already stays as it ended."""
        self._send("kill", life)

    def wait(self, timeout: float) -> list[Ended]:
        """The lives that ended since the last call; waits up to `timeout` seconds for the first. Raises RuntimeError if
        the nursery is gone (it prints why)."""
        ended, self._ended = self._ended, []
        try:
            while self._pipe.poll(0 if ended else timeout):
                ended.append(self._pipe.recv())
        except (EOFError, OSError):
            if not ended:
                raise self._lost() from None
        return ended

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pipe.close()  # the nursery reads the end, kills what is left and goes
        if not self._gone(5):
            self._nursery.kill()
            self._gone(5)
        self._nursery.close()

    def _gone(self, seconds: float) -> bool:
        """Whether the nursery ends within this time. `join` would wait for a pipe that others may have inherited."""
        until = time.monotonic() + seconds
        while self._nursery.is_alive():
            if time.monotonic() > until:
                return False
            time.sleep(0.002)
        return True

    def _send(self, what: str, more: object) -> None:
        try:
            self._pipe.send((what, more))
        except (BrokenPipeError, ConnectionResetError):
            raise self._lost() from None

    def _lost(self) -> RuntimeError:
        self._gone(1)
        return RuntimeError(
            f"the process that starts the programs has ended with exit code {self._nursery.exitcode}: it printed why, "
            f"unless somebody killed it"
        )


# --- in the nursery ---


class _Child:
    """A life, seen from the nursery."""

    def __init__(self, life: int, process: int, report: int) -> None:
        self.life, self.process, self.report = life, process, report
        self.death = os.pidfd_open(process)
        self.silent = False
        self.unread = b""
        self.told: list[tuple[str, str]] = []

    def listen(self) -> bool:
        """Reads what it says; False at the end. A line that was cut by death is not taken."""
        data = os.read(self.report, 1 << 16)
        *lines, self.unread = (self.unread + data).split(b"\n")
        self.told += [json.loads(line) for line in lines]
        return bool(data)

    def bury(self) -> Ended:
        """Waits for its end. A process that it started may hold the other end of its report: that is not waited for."""
        _, status = os.waitpid(self.process, 0)
        os.close(self.death)
        os.set_blocking(self.report, False)
        try:
            while self.listen():
                pass
        except BlockingIOError:
            pass
        os.close(self.report)
        steps = tuple(text for what, text in self.told if what == "step")
        at = next((text for what, text in self.told if what == "at"), None)
        failure = next((text for what, text in self.told if what == "failed"), "")
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            return Ended(self.life, "killed", steps, at, "")
        if status == 0:
            return Ended(self.life, "done", steps, None, "")
        ending = os.waitstatus_to_exitcode(status)
        return Ended(self.life, "failed", steps, None, failure or f"its process ended with exit code {ending}")


def _nurse(pipe: Connection, lines: tuple[Callable[..., Any], ...]) -> None:
    """The nursery: does what it is told until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches it too; whoever made it ends it
    multiprocessing.current_process().daemon = False  # programs may have processes of their own
    importlib.import_module("tidelog.log")  # which every life would load for itself
    codes = {code: function.__name__ for function in lines for code in _codes(inspect.unwrap(function).__code__)}
    programs: dict[bytes, Program] = {}
    children: dict[int, _Child] = {}
    ears = selectors.DefaultSelector()
    ears.register(pipe, selectors.EVENT_READ)
    try:
        while True:
            heard = ears.select()
            for key, _ in heard:
                child = key.data
                if child is not None and key.fd == child.report and not child.listen():
                    ears.unregister(child.report)
                    child.silent = True
            for key, _ in heard:
                child = key.data
                if child is not None and key.fd == child.death:
                    ears.unregister(child.death)
                    if not child.silent:
                        ears.unregister(child.report)
                    del children[child.life]
                    pipe.send(child.bury())
            if not pipe.poll():
                continue
            what, more = pipe.recv()
            if what == "kill":
                if more in children:
                    os.kill(children[more].process, signal.SIGKILL)
                continue
            life, pickled, armed, nth = more
            try:
                if pickled not in programs:
                    programs[pickled] = pickle.loads(pickled)
            except Exception:
                pipe.send(traceback.format_exc())
                continue
            child = children[life] = _born(life, programs[pickled], armed, nth, codes)
            ears.register(child.report, selectors.EVENT_READ, child)
            ears.register(child.death, selectors.EVENT_READ, child)
            pipe.send(None)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass
    finally:
        for child in children.values():
            os.kill(child.process, signal.SIGKILL)
            os.waitpid(child.process, 0)


def _born(life: int, program: Program, armed: str | None, nth: int, codes: dict[CodeType, str]) -> _Child:
    reading, writing = os.pipe()
    sys.stdout.flush(), sys.stderr.flush()
    nursery = os.getpid()
    process = os.fork()
    if process == 0:
        os.close(reading)
        _live(program, _Passing(writing, armed, nth), codes, nursery)
    os.close(writing)
    return _Child(life, process, reading)


def _live(program: Program, passing: _Passing, codes: dict[CodeType, str], nursery: int) -> None:
    """A life. Does not return."""
    global _passing
    code = 1
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != nursery:
            os._exit(1)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _passing = passing
        if codes:
            looking = _tracer(codes)
            threading.settrace(looking)
            sys.settrace(looking)
        try:
            program()
        finally:
            sys.settrace(None)
            threading.settrace(None)
        code = 0
    except SystemExit as leaving:
        code = 0 if leaving.code in (None, 0) else 1
        if code:
            passing.say("failed", f"SystemExit: {leaving.code}")
    except BaseException:
        passing.say("failed", traceback.format_exc())
    finally:
        # No atexit handlers: those that are there were meant for the nursery.
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)


def _codes(code: CodeType) -> Iterator[CodeType]:
    """A function's code and that of the functions in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _tracer(codes: dict[CodeType, str]) -> Callable[[FrameType, str, Any], Any]:
    """What `sys.settrace` takes: every line of these codes is a step."""

    def line(frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            step(f"{codes[frame.f_code]}:{frame.f_lineno}")
        elif event == "return":
            step(f"{codes[frame.f_code]}:return")
        return line

    def call(frame: FrameType, event: str, argument: Any) -> Any:
        return line if frame.f_code in codes else None

    return call
