"""An application that the tests of processes run, kill and stop: it writes what it handled to a file.

A value "N" is handled; "sleep:S" takes S seconds, "die" ends the process at once (once: a file says that it has done
so), "fail" raises. Used by test_app_processes.py and test_cli_run.py only.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from tidelog.app import App
from tidelog.message import Message

FOLDER = Path(os.environ["SERVICE_FOLDER"])
PAUSE_SECONDS = float(os.environ.get("SERVICE_PAUSE", "0"))
CONCURRENCY = os.environ.get("SERVICE_CONCURRENCY", "1")

app = App("service", FOLDER / "log", drain_timeout=float(os.environ.get("SERVICE_DRAIN", "10")))
work = app.queue("work", str, partitions=4)


def note(*words: object) -> None:
    """A line of the story, written in one piece."""
    with (FOLDER / "story").open("ab", buffering=0) as file:
        file.write((" ".join(map(str, (os.getpid(), *words))) + "\n").encode())


@app.on(work, concurrency=CONCURRENCY if CONCURRENCY == "key" else int(CONCURRENCY))
def handle(message: Message[str]) -> None:
    """Does what the value says."""
    value = message.value
    if value.startswith("sleep:"):
        note("begin", value)
        time.sleep(float(value.partition(":")[2]))
    if value == "die" and not (FOLDER / "died").exists():
        (FOLDER / "died").touch()
        os._exit(9)
    if value == "fail":
        raise ValueError("told to fail")
    time.sleep(PAUSE_SECONDS)
    note("done", message.partition, message.offset, value)


@app.after_start
def ready() -> None:
    """Tells the test."""
    note("ready")


@app.after_stop
def gone() -> None:
    """Tells the test."""
    note("stopped")


if __name__ == "__main__":
    app.run(workers=int(sys.argv[1]) if len(sys.argv) > 1 else 1)
