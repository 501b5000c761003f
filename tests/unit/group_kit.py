"""What do tests of group administration share: a channel with messages, a member in another process?"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import tidelog
from tidelog import Log

DAY = datetime(2026, 3, 4, tzinfo=UTC)

_CONSUMER = """
import sys, tidelog
log = tidelog.open(sys.argv[1])
name = {"member": sys.argv[4], "member_timeout": 60} if sys.argv[4] else {}
consumer = log[sys.argv[2]].consumer(sys.argv[3], **name)
consumer.receive_many(10, timeout=0.2)
print("ready", flush=True)
while sys.stdin.readline():
    consumer.receive_many(10, timeout=0.05)
    print("ready", flush=True)
"""


@contextmanager
def consuming(store: Path, channel: str, group: str, name: str = "") -> Iterator[subprocess.Popen[str]]:
    """Another process that is a member of a group, until it is killed or the block ends."""
    command = [sys.executable, "-c", _CONSUMER, str(store), channel, group, name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def filled(log: Log, name: str = "prices", partitions: int = 3, count: int = 90) -> tidelog.Topic[bytes]:
    """A topic with messages a minute apart."""
    topic = log.topic(name, partitions=partitions)
    for number in range(count):
        topic.send(b"%d" % number, partition=number % partitions, timestamp=DAY + timedelta(minutes=number))
    return topic


def read(topic: tidelog.Topic[bytes], group: str, count: int) -> None:
    """Let a group commit its first `count` messages."""
    with topic.consumer(group) as consumer:
        for _ in range(count):
            consumer.receive(timeout=5)
