"""Does going on in a log that is there leave alone what stands in it already?

Faulting written pages in for writing makes the disk write all of them again, and a first `send` take as long as the log
is large. What a process has faulted in of a file is the Rss of its map in /proc/self/smaps.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import tidelog

MIB = 1 << 20


def resident(path: Path) -> int:
    """Bytes of a file that this process has faulted in through all of its maps."""
    total, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            inside = line.endswith(f" {path.resolve()}")
        elif inside and line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024
    return total


@pytest.mark.parametrize("ack", ["written", "synced"])
def test_a_first_send_touches_only_the_end(tmp_path: Path, ack: str) -> None:
    where = tmp_path / "again.log"
    with tidelog.open(where) as log:
        log.topic("values", partitions=1).send_many([bytes(1000) * 64] * 1024)
    [segment] = where.glob("values-0/*.log")
    assert segment.stat().st_size > 60 * MIB
    with tidelog.open(where) as log, log.producer(ack=ack) as producer:
        topic = log.topic("values", partitions=1)
        assert producer.send(topic, b"one more").offset == 1024
        # The first is what populating ahead may take; the other end of the file is 60 MiB away.
        assert resident(segment) < 16 * MIB
        assert topic.read([0, 1024]).values == [bytes(1000) * 64, b"one more"]
