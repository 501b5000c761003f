"""Is a source copied exactly once by a named producer that is killed again and again, and by two with one name?

copier.py is the program: it asks its name how far it has come, and goes on behind that.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import pytest

from tidelog.log import open as open_log

COUNT = 20_000
ROOT = Path(__file__).parents[2]


def start(path: Path, how: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.processes.copier", str(path), str(COUNT), how],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def verify(path: Path) -> None:
    with open_log(path, lock_timeout=5) as log:
        numbers = log.topic("numbers", int, partitions=4)
        found: list[int] = []
        by_key: dict[bytes | None, list[int]] = defaultdict(list)
        for message in numbers.scan():
            found.append(message.value)
            by_key[message.key].append(message.value)
        doubled = len(found) - len(set(found))
        assert sorted(found) == list(range(COUNT)), f"{doubled} doubled, {COUNT - len(set(found))} lost"
        assert all(values == sorted(values) for values in by_key.values()) and len(by_key) == 16
        for partition in numbers.opened().partitions:
            damage: list[object] = []
            partition.check(lambda *finding, damage=damage: damage.append(finding))
            assert not damage


@pytest.mark.timeout(180)
@pytest.mark.parametrize("how", ["direct", "linger", "many"])
def test_a_killed_copier_copies_everything_once(tmp_path: Path, how: str) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    path, kills, resumed = tmp_path / "copy.log", 0, set()
    until = time.monotonic() + 100
    while True:
        copier = start(path, how)
        assert copier.stdout is not None and copier.stderr is not None
        resumed.add(copier.stdout.readline())
        if kills < 12:  # in the middle of what it does, now and then at its very beginning
            for _ in range(chance.choice([0, 1, 5, 20, 40])):
                copier.stdout.readline()
            time.sleep(chance.random() * 0.003)
            copier.send_signal(signal.SIGKILL)
        _, errors = copier.communicate(timeout=60)
        if copier.returncode == 0:
            break
        assert copier.returncode == -signal.SIGKILL, errors
        kills += 1
        assert time.monotonic() < until
    print(f"{kills} kills, resumed from {len(resumed)} places")
    assert kills >= 2 and len(resumed) >= 2
    verify(path)


@pytest.mark.timeout(120)
def test_two_copiers_of_one_name_copy_everything_once(tmp_path: Path) -> None:
    """The newer one fences the older one in the middle of what it does, and goes on behind it."""
    path = tmp_path / "copy.log"
    running = [start(path, "direct")]
    for _ in range(4):
        assert running[-1].stdout is not None
        running[-1].stdout.readline()
        time.sleep(0.03)
        running.append(start(path, "direct"))
    ended = [copier.communicate(timeout=60) for copier in running]
    assert running[-1].returncode == 0, ended[-1][1]
    for copier, (_, errors) in zip(running[:-1], ended[:-1], strict=True):
        assert copier.returncode == 0 or "Fenced" in errors, errors
    verify(path)
