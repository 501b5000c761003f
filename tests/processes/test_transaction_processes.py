"""Is every message copied once and in order, whenever the copying processes are killed?"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tidelog

SERVICE = Path(__file__).with_name("copy_service.py")
WORKERS = 3
MESSAGES = 6000
PARTITIONS = 4
KILLS = 25
WAIT_SECONDS = 120.0


def start(path: Path, number: int, level: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(SERVICE), str(path), f"copier {number}", level]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)


@pytest.mark.parametrize(("level", "seed"), [("written", 1), ("synced", 2)])
def test_every_message_is_copied_once_and_in_order(tmp_path: Path, level: str, seed: int) -> None:
    chance = random.Random(seed)
    path = tmp_path / "log"
    with tidelog.open(path) as log:
        source, target = (log.topic(name, str, partitions=PARTITIONS) for name in ("in", "out"))
        workers = [start(path, number, level) for number in range(WORKERS)]
        try:
            sent, kills, deadline = 0, 0, time.monotonic() + WAIT_SECONDS
            while sent < MESSAGES or kills < KILLS or sum(row.lag for row in source.offsets()) > 0:
                assert time.monotonic() < deadline, (sent, kills, [row.lag for row in source.offsets()])
                if sent < MESSAGES:
                    for number in range(sent, sent + 50):
                        source.send(str(number), partition=number % PARTITIONS)
                    sent += 50
                time.sleep(chance.random() * 0.02)
                if kills < KILLS and chance.random() < 0.3:
                    victim = chance.randrange(WORKERS)
                    assert workers[victim].poll() is None, "a worker ended by itself"
                    started = workers[victim].stdout
                    assert started is not None
                    started.readline()
                    time.sleep(chance.random() * 0.05)
                    workers[victim].kill()
                    workers[victim].communicate()
                    workers[victim] = start(path, victim, level)
                    kills += 1
        finally:
            for worker in workers:
                worker.kill()
                worker.communicate()
        for number in range(PARTITIONS):
            copies = [message.value for message in target.scan(partition=number)]
            assert copies == [f"copy of {value}" for value in range(number, sent, PARTITIONS)]
        aborted = sum(1 for _ in target.scan(isolation="read-uncommitted")) - sent
        assert aborted > 0, "no kill or abort was in the middle of a transaction"
