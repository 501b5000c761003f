"""Do readers use the map of the writer in the same process, and one of their own where that is too short?"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import tidelog

LONGER = """
import sys, tidelog
with tidelog.open(sys.argv[1]) as log:
    topic = log.topic("v")
    topic.configure(max_message_bytes=16 << 20)
    topic.send(bytes(8 << 20))
"""


def maps_below(folder: Path) -> list[str]:
    """How the segments in a directory are mapped by this process: "rw-s" by a writer, "r--s" by readers."""
    lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    return sorted(line[1] for line in lines if line[-1].startswith(str(folder)) and line[-1].endswith(".log"))


def sizes(topic: Any) -> list[int]:
    return [len(message.value) for message in topic.scan()]


def test_one_map_for_both(tmp_path: Path) -> None:
    with tidelog.open(tmp_path / "x.log") as log:
        topic: Any = log.topic("v", partitions=1)
        topic.configure(segment_bytes=1 << 16, max_message_bytes=4096)
        topic.send(bytes(4000))
        assert sizes(topic) == [4000] and maps_below(tmp_path) == ["rw-s"]
        for _ in range(100):
            topic.send(bytes(4000))
        assert sizes(topic) == [4000] * 101


def test_readers_alone_map_to_read(tmp_path: Path) -> None:
    with tidelog.open(tmp_path / "x.log") as log:
        log.topic("v", partitions=1).send(bytes(4000))
    with tidelog.open(tmp_path / "x.log") as log:
        assert sizes(log.topic("v")) == [4000] and maps_below(tmp_path) == ["r--s"]


def test_a_batch_longer_than_the_writers_map(tmp_path: Path) -> None:
    with tidelog.open(tmp_path / "x.log") as log:
        topic: Any = log.topic("v", partitions=1)
        topic.configure(segment_bytes=1 << 16, max_message_bytes=4096)
        topic.send(bytes(4000))
        topic.trim(before=1)  # the segment that follows is empty, and mapped by the writer
        subprocess.run([sys.executable, "-c", LONGER, str(tmp_path / "x.log")], check=True)
        assert sizes(topic) == [8 << 20] and maps_below(tmp_path) == ["r--s", "rw-s"]
        log.topic("v").send(bytes(10))
        assert sizes(topic) == [8 << 20, 10]
