"""Does the fixture `tide` give an open log, and does it fail tests that leave something open or damaged?"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

GOOD = """
def test_it(tide):
    orders = tide.queue("orders")
    orders.send(b"x")
    with orders.consumer(stop="end") as received:
        assert [message.value for message in received] == [b"x"]
"""
CLOSED = """
def test_it(tide):
    tide.queue("orders").send(b"x")
    tide.close()
"""
LEAK = """
def test_it(tide):
    global consumer
    consumer = tide.queue("orders").consumer()
"""
DAMAGE = """
def test_it(tide, tmp_path):
    orders = tide.queue("orders", partitions=1)
    orders.send_many([b"some text"] * 100)
    tide.close()
    (segment,) = (tmp_path / "tide.log" / "orders-0").glob("*.log")
    data = bytearray(segment.read_bytes())
    data[data.index(b"some text")] ^= 1
    segment.write_bytes(data)
"""


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        (GOOD, "1 passed"),
        (CLOSED, "1 passed"),
        (LEAK, "the test left open: <Consumer of orders"),
        (DAMAGE, "files of the log are damaged"),
    ],
)
def test_what_the_fixture_says(tmp_path: Path, text: str, outcome: str) -> None:
    (tmp_path / "test_it.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:tidelog"]
    command += ["-p", "tidelog.testing.plugin", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert outcome in done.stdout, done.stdout + done.stderr
    assert (done.returncode == 0) == ("passed" in outcome)


@pytest.mark.parametrize("name", ["strategies", "AppMachine", "LogModel"])
def test_what_needs_hypothesis_says_what_to_install(name: str) -> None:
    code = f"import sys; sys.modules['hypothesis'] = None\nfrom tidelog.testing import {name}"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    last = ran.stderr.splitlines()[-1]
    assert ran.returncode == 1
    assert last.startswith(f"ModuleNotFoundError: tidelog.testing.{name} needs the package hypothesis: install it")
    assert "pip install 'tidelog[testing]'" in last
