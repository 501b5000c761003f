"""Does a blocked consumer cost next to nothing, and is it woken by what it waits for all the same?"""

from __future__ import annotations

import asyncio
import signal
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import tidelog
from tidelog import aio

CODE = """
import resource, sys, threading, time
import tidelog

def usage():
    found = resource.getrusage(resource.RUSAGE_SELF)
    return (found.ru_utime + found.ru_stime) * 1000, found.ru_nvcsw

def bare_ms():
    '''What ten times as many wake-ups as are allowed cost here and now, in ms for ten seconds.'''
    before = time.thread_time()
    for _ in range(20):
        time.sleep(0.05)
    return (time.thread_time() - before) * 10000

def measure(consumer):
    while not consumer.assignment:
        time.sleep(0.01)
    time.sleep(0.5)
    cpu, switches = usage()
    time.sleep(5)
    after, more = usage()
    print((after - cpu) * 2, (more - switches) / 5, bare_ms())
    consumer._cancel()

with tidelog.open(sys.argv[1]) as log:
    topic = log.topic("t", partitions=4)
    consumer = topic.consumer("g") if sys.argv[2] == "group" else topic.tail()
    measuring = threading.Thread(target=measure, args=(consumer,))
    measuring.start()
    try:
        consumer.receive()
    except tidelog.Closed:
        pass
    measuring.join()
"""


@pytest.mark.parametrize("kind", ["tail", "group"])
def test_cost_of_a_blocked_consumer(tmp_path: Path, kind: str) -> None:
    """In ms for ten seconds, and in wake-ups of all threads of the process for each second."""
    command = [sys.executable, "-c", CODE, str(tmp_path / "log"), kind]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    cost_ms, wakes, bare_ms = map(float, done.stdout.split())
    assert wakes <= 6
    assert cost_ms <= max(5, bare_ms)


class Interrupted(Exception):
    """Raised by the handler below."""


def test_a_signal_ends_the_sleep_at_once(tmp_path: Path) -> None:
    def handler(number: int, frame: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGUSR1, handler)
    late = []
    try:
        with tidelog.open(tmp_path / "log") as log, log.topic("t").consumer("g") as consumer:
            for _ in range(5):
                sent: list[float] = []

                def send(sent: list[float] = sent) -> None:
                    time.sleep(0.15)
                    sent.append(time.monotonic())
                    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

                thread = threading.Thread(target=send)
                thread.start()
                with pytest.raises(Interrupted):
                    consumer.receive(timeout=10)
                late.append(time.monotonic() - sent[0])
                thread.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert sorted(late)[2] < 0.03


def test_a_waiter_hears_of_the_turns_of_all_its_groups(tmp_path: Path) -> None:
    """Members of several groups wait in one thread, and a partition comes free in one of them after the other."""
    late = []

    async def take_over(log: aio.Log, topic: aio.Topic[bytes], group: str) -> None:
        first = topic.consumer(group, start="earliest")
        await first.receive()
        waiting = topic.consumer(group, start="earliest")
        task = asyncio.create_task(waiting.receive())
        await asyncio.sleep(0.12)
        assert not task.done()
        before = time.monotonic()
        await first.close()
        await asyncio.wait_for(task, 10)
        late.append(time.monotonic() - before)
        await waiting.close()

    async def main() -> None:
        async with aio.open(tmp_path / "log") as log:
            topic = await log.topic("t")
            await topic.send(b"x")
            idle = [topic.consumer(f"idle-{n}", start="latest") for n in range(6)]
            tasks = [asyncio.create_task(consumer.receive()) for consumer in idle]
            for n in range(9):
                await take_over(log, topic, f"busy-{n}")
            for task in tasks:
                task.cancel()
            for consumer in idle:
                await consumer.close()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(main())
    assert statistics.median(late) < 0.03
