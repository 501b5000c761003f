"""How does a test get a process in a namespace of its own, in a state it has asked for, and a store for both?

Imports tidelog. A container is such a namespace: process ids mean nothing between two of them.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tidelog.errors import Timeout
from tidelog.log import Log

PID = ("unshare", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc")
USER = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child=SIGKILL")

HOLD = """
import sys, time, tidelog
log = tidelog.open(sys.argv[1])
orders = log.queue("orders", partitions=2)
consumer = orders.consumer()
consumer.receive(timeout=10)
print("ready", flush=True)
while True:
    consumer.receive_many(10, timeout=0.05)
"""


@contextlib.contextmanager
def process(code: str, store: Path, wrapper: tuple[str, ...] = (), *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Python code in a process of its own (or a namespace), that has said that it is ready; killed at the end."""
    started = subprocess.Popen(
        [*wrapper, sys.executable, "-c", code, str(store), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with started:
        try:
            assert started.stdout is not None and started.stderr is not None
            if started.stdout.readline().strip() != "ready":
                pytest.fail(f"{' '.join(wrapper) or 'the process'}: {started.stderr.read()[-2000:]}", pytrace=False)
            yield started
        finally:
            started.kill()


def child_of(pid: int) -> int:
    """The first child of a process, by its number out here; itself if it has none."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if children else pid


def inside(outer: subprocess.Popen[str]) -> int:
    """The process that `unshare` has started, by its number out here."""
    return child_of(outer.pid)


def taken_over(log: Log, within: float) -> None:
    """All partitions come to a new consumer, with messages, within so many seconds."""
    began = time.monotonic()
    with log["orders"].consumer() as consumer:
        while len(consumer.assignment) < 2:
            with contextlib.suppress(Timeout):
                consumer.receive(timeout=0.02)
            assert time.monotonic() - began < within, f"only {consumer.assignment} after {within} s"
