"""A process with one consumer of a group, for test_group_processes.py.

It is run as `python -m tests.processes.group_member PATH`, and writes one line for each thing that happens, in one
system call each, so that a kill leaves whole lines: `+ NS PARTITIONS`, `- NS PARTITIONS` (assigned, revoked), `h NS
PARTITION OFFSET` (began to handle), `d NS PARTITION OFFSET` (done), `f NS PARTITION` (Fenced), `e NS` (ended). NS is
the monotonic clock, which all processes share. SIGINT ends it.
"""

from __future__ import annotations

import argparse
import os
import time
from contextlib import suppress

import tidelog
from tidelog.errors import Fenced, Timeout


def tell(kind: str, *words: object) -> None:
    """One line on stdout."""
    os.write(1, (" ".join(map(str, (kind, time.monotonic_ns(), *words))) + "\n").encode())


def main() -> None:
    """Receive until somebody makes an end of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("path")
    parser.add_argument("--member")
    parser.add_argument("--delivery", default="at-least-once")
    parser.add_argument("--handle", type=float, default=0.0, help="seconds that handling a message takes")
    parser.add_argument("--max-processing", type=float)
    parser.add_argument("--seconds", type=float, default=600.0)
    options = parser.parse_args()
    end = time.monotonic() + options.seconds
    with (
        tidelog.open(options.path) as log,
        log.queue("orders").consumer(
            delivery=options.delivery,
            member=options.member,
            max_processing=options.max_processing,
            on_assign=lambda new: tell("+", *(part.partition for part in new)),
            on_revoke=lambda old: tell("-", *(part.partition for part in old)),
        ) as consumer,
    ):
        message = None
        while time.monotonic() < end:
            try:
                message = consumer.receive(timeout=0.2)
                tell("h", message.partition, message.offset)
                if options.handle:
                    time.sleep(options.handle)
                if options.delivery == "manual":
                    consumer.commit(message)
                tell("d", message.partition, message.offset)
            except Fenced:
                tell("f", "" if message is None else message.partition)
            except Timeout:
                pass
    tell("e")


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
