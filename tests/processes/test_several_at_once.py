"""Has every message its output once, in order, when a service that handles several at once in a transaction is killed
again and again, at any instant?"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tidelog

MESSAGES, KEYS, KILLS = 3000, 17, 25

SERVICE = """
import random, sys, time, tidelog
app = tidelog.App("billing", sys.argv[1], level="written")
work = app.queue("work", int)
@app.on(work, sends="bills", delivery="exactly-once", concurrency="key")
def bill(number: int) -> int:
    if random.random() < 0.2:
        time.sleep(random.random() / 500)
    return number
app.run()
"""


@pytest.mark.timeout(180)
def test_kills(tmp_path: Path) -> None:
    seed = int.from_bytes(os.urandom(4), "big")
    print(f"seed {seed}")
    dice, store = random.Random(seed), tmp_path / "shop.log"
    with tidelog.open(store) as log:
        work, bills = log.queue("work", int, partitions=3), log.queue("bills", int, partitions=1)
        work.send_many(list(range(MESSAGES)), keys=[f"{number % KEYS}" for number in range(MESSAGES)])
        kills = 0
        deadline = time.monotonic() + 120
        while sum(max(row.offset, 0) for row in work.offsets()) < MESSAGES:
            assert time.monotonic() < deadline, "it does not get on"
            with subprocess.Popen([sys.executable, "-c", SERVICE, str(store)]) as process:
                if kills < KILLS:
                    before = sum(max(row.offset, 0) for row in work.offsets())
                    wanted = before + dice.randrange(1, 2 * MESSAGES // KILLS)
                    while sum(max(row.offset, 0) for row in work.offsets()) < min(wanted, MESSAGES):
                        assert process.poll() is None and time.monotonic() < deadline
                        time.sleep(0.001)
                    time.sleep(dice.random() / 100)
                    process.kill()
                    kills += 1
                else:
                    while sum(max(row.offset, 0) for row in work.offsets()) < MESSAGES:
                        assert process.poll() is None and time.monotonic() < deadline
                        time.sleep(0.01)
                    process.terminate()
                    assert process.wait(30) == 0
        assert kills >= 5
        found = [message.value for message in bills.scan()]
        assert sorted(found) == list(range(MESSAGES))
        for key in range(KEYS):
            of_key = [number for number in found if number % KEYS == key]
            assert of_key == sorted(of_key), f"the order of key {key} was lost"
