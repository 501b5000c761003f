"""How may an interpreter end while a log and its handles are open? `python tests/processes/endings.py NAME STORE`

Each function is a program of its own, run by test_lifecycle.py in a fresh interpreter. Imports tidelog.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tidelog

WATCHDOG_SECONDS = 60


def _open_handles(store: Path) -> tuple[Any, ...]:
    log = tidelog.open(store)
    orders = log.queue("orders", partitions=1)
    receipt = orders.send(b"0")
    consumer = orders.consumer()
    iterator = iter(consumer)
    next(iterator)
    tail = log.topic("events").tail()

    def waiting() -> None:
        with contextlib.suppress(tidelog.Closed):
            tail.receive()

    threading.Thread(target=waiting, daemon=True).start()
    producer = log.producer(linger=0.02)
    lingering = producer.send(orders, b"1")
    time.sleep(0.01)
    return log, orders, receipt, consumer, iterator, tail, producer, lingering


def ends_by_itself(store: Path) -> None:
    """Falls off the end of the program; what lingers is sent."""
    globals()["kept"] = _open_handles(store)


def ends_by_exit(store: Path) -> None:
    """sys.exit in the middle of everything."""
    globals()["kept"] = _open_handles(store)
    sys.exit(0)


def ends_in_a_cycle(store: Path) -> None:
    """Handles in garbage that is collected while the interpreter ends."""

    class Holder:
        def __init__(self) -> None:
            self.me = self
            self.handles = _open_handles(store)

        def __del__(self) -> None:
            with contextlib.suppress(tidelog.Closed):
                self.handles[1].send(b"2")

    Holder()


def ends_with_a_generator(store: Path) -> None:
    """A generator that is in the middle of `with consumer`."""

    def handled() -> Iterator[Any]:
        with tidelog.open(store) as log, log.queue("orders", partitions=1).consumer() as consumer:
            log["orders"].send_many([b"0", b"1"])
            yield from consumer

    globals()["kept"] = handled()
    next(globals()["kept"])


def ends_by_error(store: Path) -> None:
    """An exception that nobody catches; exit code 1."""
    globals()["kept"] = _open_handles(store)
    sys.excepthook = lambda *_: None
    raise ZeroDivisionError


def ends_at_once(store: Path) -> None:
    """os._exit: nothing of Python runs any more."""
    _open_handles(store)
    os._exit(0)


def ends_by_signal(store: Path) -> None:
    """SIGTERM, which Python does not handle."""
    _open_handles(store)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(30)


def main() -> None:
    """Run one of the programs."""
    name, store = sys.argv[1:]
    faulthandler.enable()
    faulthandler.dump_traceback_later(WATCHDOG_SECONDS, exit=True)
    globals()[name](Path(store))


if __name__ == "__main__":
    main()
