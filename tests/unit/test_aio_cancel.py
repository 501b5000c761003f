"""May every call of a coroutine be cancelled at every await, and nothing is lost and nothing comes twice?

The oracle is a list: what was sent for certain, what may have been sent (its send was cancelled), what was received.
Cancellations fall after a drawn number of turns of the loop or a drawn time; calls on threads are held up by drawn
times, so that a cancellation meets them before, during and after their work.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter, deque
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.unit.loops import LOOPS, run
from tidelog import aio
from tidelog.aio import worker
from tidelog.errors import Timeout

PARTITIONS = 3

# Turns of the loop, or seconds, until a call is cancelled; None: never.
moments = st.one_of(st.none(), st.integers(0, 4), st.integers(0, 12), st.floats(0.0, 0.004))
waits = st.sampled_from([0.0, 0.001, 0.01])
steps = st.one_of(
    st.tuples(st.just("send"), st.sampled_from([10, 10, 10, 3000, 80_000]), moments),
    st.tuples(st.just("many"), st.integers(1, 30), moments),
    st.tuples(st.just("receive"), st.integers(0, 1), waits, moments),
    st.tuples(st.just("receive"), st.integers(0, 1), waits, st.integers(0, 3)),
    st.tuples(st.just("batch"), st.integers(0, 1), st.sampled_from([1, 5, 100]), waits, moments),
    st.tuples(st.just("commit"), st.integers(0, 1), st.sampled_from([None, "synced"]), moments),
    st.tuples(st.just("lag"), st.integers(0, 1), moments),
    st.tuples(st.just("join"), moments),
    st.tuples(st.just("leave")),
)


@dataclass
class Journal:
    """What happened, as the program saw it."""

    sent: list[bytes] = field(default_factory=list)
    uncertain: list[bytes] = field(default_factory=list)
    received: list[Any] = field(default_factory=list)
    cancelled: Counter[str] = field(default_factory=Counter)

    def check(self) -> None:
        """Raise AssertionError for the first thing that may not be."""
        got = Counter(message.value for message in self.received)
        assert not {value for value, times in got.items() if times > 1}, "something came twice"
        assert not set(self.sent) - set(got), "something was lost"
        assert set(got) <= {*self.sent, *self.uncertain}, "something came from nowhere"
        places = [(message.partition, message.offset) for message in self.received]
        assert len(set(places)) == len(places)


async def outcome(call: Coroutine[Any, Any, Any], moment: float | None, journal: Journal, name: str) -> Any:
    """What a call answers; None if it was cancelled at `moment`."""
    task = asyncio.ensure_future(call)
    if isinstance(moment, int):
        for _ in range(moment):
            await asyncio.sleep(0)
    elif moment is not None:
        await asyncio.sleep(moment)
    if moment is not None:
        task.cancel()
    try:
        return await task
    except asyncio.CancelledError:
        journal.cancelled[name] += 1
        return None
    except Timeout:
        return None


async def play(script: list[tuple[Any, ...]], journal: Journal) -> None:
    """Two consumers of one group (the second one comes and goes), and sends beside them."""
    async with aio.open("memory:", segment_bytes=1 << 20) as log:
        topic = await log.topic("t", partitions=PARTITIONS)
        sends: list[asyncio.Task[None]] = []
        number = 0

        async def send(values: list[bytes], moment: float | None, many: bool) -> None:
            call = topic.send_many(values) if many else topic.send(values[0], key=values[0][:3])
            receipt = await outcome(call, moment, journal, "send")
            (journal.uncertain if receipt is None else journal.sent).extend(values)

        async with topic.consumer("g") as first, AsyncExitStack() as second:
            members = [first]

            async def receive(which: int, count: int, wait: float, moment: float | None) -> None:
                consumer = members[which % len(members)]
                if count:
                    call: Any = consumer.receive_many(count, timeout=wait)
                else:
                    call = consumer.receive(timeout=wait)
                got = await outcome(call, moment, journal, "receive")
                if got is not None:
                    journal.received.extend(got if count else [got])

            for step in script:
                if step[0] == "send":
                    number += 1
                    value = b"%05d" % number + bytes(step[1])
                    sends.append(asyncio.create_task(send([value], step[2], False)))
                elif step[0] == "many":
                    values = [b"%05d/%d" % (number + 1, place) for place in range(step[1])]
                    number += 1
                    sends.append(asyncio.create_task(send(values, step[2], True)))
                elif step[0] == "receive":
                    await receive(step[1], 0, step[2], step[3])
                elif step[0] == "batch":
                    await receive(step[1], step[2], step[3], step[4])
                elif step[0] == "commit":
                    call = members[step[1] % len(members)].commit(level=step[2])
                    await outcome(call, step[3], journal, "commit")
                elif step[0] == "lag":
                    await outcome(members[step[1] % len(members)].lag(), step[2], journal, "lag")
                elif step[0] == "join" and len(members) == 1:
                    entering = second.enter_async_context(topic.consumer("g"))
                    joined = await outcome(entering, step[1], journal, "join")
                    if joined is not None:
                        members.append(joined)
                elif step[0] == "leave" and len(members) == 2:
                    members.pop()
                    await second.aclose()
            await asyncio.gather(*sends)
            if len(members) == 2:
                members.pop()
                await second.aclose()
            # A send that was cancelled after it had begun may still be on its way on the thread.
            while log._threads.sends.pending(topic._sending):
                await asyncio.sleep(0.001)
            async with asyncio.timeout(60):
                while len(first.assignment) < PARTITIONS or await first.lag():
                    journal.received.extend(await first.receive_many(1000, timeout=0.05))


@pytest.fixture(scope="module")
def delays() -> Any:
    """Seconds by which calls on threads are held up, before and after: a queue that examples fill."""
    waiting: deque[float] = deque()
    lock = threading.Lock()
    make = worker._Call.make

    def pause() -> None:
        with lock:
            seconds = waiting.popleft() if waiting else 0.0
        if seconds:
            time.sleep(seconds)

    def slow(self: worker._Call) -> None:
        pause()
        make(self)
        pause()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker._Call, "make", slow)
        yield waiting


@pytest.mark.parametrize("loop", LOOPS)
def test_nothing_is_lost_and_nothing_comes_twice(delays: deque[float], loop: str) -> None:
    seen: Counter[str] = Counter()

    # Never shrunk: a shorter script meets other moments, and takes minutes to find.
    @settings(max_examples=100, phases=[Phase.explicit, Phase.reuse, Phase.generate])
    @given(
        script=st.lists(steps, min_size=20, max_size=60),
        held_up=st.lists(st.sampled_from([0.0, 0.0, 0.0005, 0.002]), max_size=60),
    )
    def examples(script: list[tuple[Any, ...]], held_up: list[float]) -> None:
        journal = Journal()
        delays.clear()
        delays.extend(held_up)
        run(lambda: play(script, journal), loop)
        journal.check()
        seen.update(journal.cancelled)
        seen["received"] += len(journal.received)

    examples()
    # It would prove little if the cancellations came too early or too late.
    assert all(seen[name] >= 10 for name in ("send", "receive", "commit", "lag", "join")), seen
    assert seen["received"] > 500, seen


@pytest.mark.parametrize("loop", LOOPS)
def test_a_storm_of_cancelled_receives(loop: str) -> None:
    """Message after message meets a receive that is being cancelled at that very moment."""

    async def main() -> None:
        async with aio.open("memory:") as log:
            topic = await log.topic("t", partitions=1)
            received: list[int] = []
            cancelled = 0
            async with topic.consumer("g") as consumer:
                for number in range(1500):
                    task = asyncio.create_task(consumer.receive())
                    for _ in range(number % 4):
                        await asyncio.sleep(0)
                    await topic.send(b"%d" % number)
                    if number % 3 == 0:
                        await asyncio.sleep(number % 5 * 0.0001)
                    task.cancel()
                    try:
                        received.append(int((await task).value))
                    except asyncio.CancelledError:
                        cancelled += 1
                while len(received) < 1500:
                    received.append(int((await consumer.receive(20)).value))
            assert received == list(range(1500))
            assert cancelled > 100

    run(main, loop)
