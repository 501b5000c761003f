"""Does an idle consumer cost next to nothing?"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import asyncio, sys, time
from tidelog import aio

path, kind, count, most_ms = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])

def bare_ms():
    '''What it costs here and now to wake up ten times a second and do nothing, in ms for ten seconds.'''
    before = time.thread_time()
    for _ in range(20):
        time.sleep(0.1)
    return (time.thread_time() - before) * 5000

async def main():
    async with aio.open(path) as log:
        topic = await log.topic("t", partitions=4)
        consumers = [topic.tail() if kind == "tail" else topic.consumer("g") for _ in range(count)]
        tasks = [asyncio.create_task(consumer.receive()) for consumer in consumers]
        while not all(consumer.assignment for consumer in consumers):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)
        for _ in range(6):
            before = time.process_time()
            await asyncio.sleep(2.5)
            cost_ms = (time.process_time() - before) * 4000
            allowed_ms = max(most_ms, 2 * bare_ms())
            if cost_ms <= allowed_ms:
                break
        assert not any(task.done() for task in tasks)
        print(cost_ms, allowed_ms)
        for consumer in consumers:
            await consumer.close()
        await asyncio.gather(*tasks, return_exceptions=True)
asyncio.run(main())
"""


@pytest.mark.parametrize(("kind", "consumers", "most_ms"), [("tail", 1, 5), ("group", 1, 5), ("tail", 100, 20)])
def test_cpu_time_of_idle_consumers(tmp_path: Path, kind: str, consumers: int, most_ms: int) -> None:
    """In ms for ten seconds. Where others take the caches away, a bare wake-up is dear too: twice that is allowed."""
    command = [sys.executable, "-c", CODE, str(tmp_path / "log"), kind, str(consumers), str(most_ms)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    cost_ms, allowed_ms = map(float, done.stdout.split())
    assert cost_ms <= allowed_ms
