"""What test_kills.py runs in processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from pathlib import Path

from tidelog.testing import step


def count_to(path: str, end: int, pause: float = 0.001) -> None:
    """Appends 1, 2, 3, ... to a file, going on where it stopped: each line is written as a whole."""
    with open(path, "ab") as file:
        for number in range(len(Path(path).read_bytes().splitlines()) + 1, end + 1):
            step("before")
            os.write(file.fileno(), b"%d\n" % number)
            step("after")
            time.sleep(pause)


def count_twice(path: str, end: int) -> None:
    """The same, but what it did and how far it is are written one after the other: a kill in between repeats."""
    done = Path(path + ".done")
    for number in range(int(done.read_text() or 0) + 1 if done.exists() else 1, end + 1):
        with open(path, "ab") as file:
            file.write(b"%d\n" % number)
        note(done, number)


def note(done: Path, number: int) -> None:
    fresh = done.with_suffix(".fresh")
    fresh.write_text(str(number))
    fresh.rename(done)


def steps_of_two_threads() -> None:
    thread = threading.Thread(target=step, args=("in a thread",))
    step("first")
    thread.start()
    thread.join()
    step("last")


def traced(path: str) -> int:
    total = 0
    for number in range(3):
        total += inner(number)
    Path(path).write_text(str(total))
    return total


def inner(number: int) -> int:
    return number + 1


def fails() -> None:
    raise LookupError("there is no such thing")


def leaves(code: int) -> None:
    sys.exit(code)


def ends_at_once() -> None:
    os._exit(3)


def dies_of(number: int) -> None:
    os.kill(os.getpid(), number)
    signal.pause()


def sleeps(seconds: float = 60.0) -> None:
    step("asleep")
    time.sleep(seconds)


def with_a_child_that_stays(path: str) -> None:
    """Its child holds everything that it inherited."""
    child = multiprocessing.get_context("fork").Process(target=sleeps, args=(30.0,))
    child.start()
    Path(path).write_text(str(child.pid))
    step("there is a child")
    time.sleep(60)


def says_where(path: str) -> None:
    Path(path).write_text(f"{os.getcwd()} {os.environ.get('KILL_TEST_WORD')} {os.getppid()}")
