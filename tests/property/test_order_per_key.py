"""Does every key keep its order end to end, retries and rebalances included?

Real applications on one log in memory, several members of one group. Handlers fail at random, some messages for good;
members join and leave at random while messages are sent. The oracle is the order of sending. Of one key, whichever
member had it, a message is finished (handled, or given up into the dead-letter channel) only after the one before it
was, and no two are out at the same time. Nothing that was finished is handled again: whoever gives a partition
back does first what stands before finished messages, retries too, which are due soon here.
"""

from __future__ import annotations

import random
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

import tidelog
from tidelog.app import App, Failure, Retry
from tidelog.message import Message

WAIT_SECONDS = 60.0
ATTEMPTS = 3


@dataclass
class Story:
    """What the handlers of all members have done."""

    fails: dict[int, int]
    """By message: how many times its handler fails, whoever runs it."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    finals: dict[bytes | None, list[int]] = field(default_factory=lambda: defaultdict(list))
    out: dict[bytes | None, str] = field(default_factory=dict)
    overlaps: list[str] = field(default_factory=list)
    by: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def begin(self, who: str, message: Message[int]) -> None:
        with self.lock:
            if message.key is not None and message.key in self.out:
                self.overlaps.append(f"{message.key!r}: {message.value} at {who}, while {self.out[message.key]}")
            self.out[message.key] = f"{message.value} at {who}"

    def end(self, who: str, message: Message[int]) -> None:
        with self.lock:
            self.out.pop(message.key, None)
            left = self.fails[message.value] = self.fails.get(message.value, 0) - 1
            if left >= 0:
                raise RuntimeError(f"{message.value} fails at {who}")
            self.finals[message.key].append(message.value)
            self.by[who] += 1

    def gave_up(self, failure: Failure) -> None:
        if failure.then == "dead-letter":
            with self.lock:
                self.finals[failure.message.key].append(failure.message.value)


def member(
    name: str, log: tidelog.Log, channel: Any, story: Story, concurrency: Any, first: float, chance: random.Random
) -> App:
    """One more member of the group. `first`: seconds before the first retry."""
    app = App(name, log=log)

    @app.on(
        channel,
        concurrency=concurrency,
        retries=Retry(attempts=ATTEMPTS, first=first, factor=1.5, jitter=1),
        dead_letter="orders.dead",
    )
    def handle(message: Message[int]) -> None:
        story.begin(name, message)
        if chance.random() < 0.3:
            time.sleep(chance.random() * 0.003)
        story.end(name, message)

    app.on_error(story.gave_up)
    return app


@settings(max_examples=20)
@given(
    keys=st.lists(st.integers(0, 6), min_size=20, max_size=150),
    fails=st.just({}) | st.dictionaries(st.integers(0, 149), st.integers(1, ATTEMPTS + 1), max_size=30),
    moves=st.lists(st.tuples(st.sampled_from(["join", "leave"]), st.integers(0, 20)), min_size=1, max_size=8),
    concurrency=st.sampled_from(["key", "key", 1]),
    partitions=st.integers(2, 6),
    first=st.sampled_from([0.001, 0.05]),
    seed=st.integers(0, 1 << 30),
)
def test_order_per_key(
    keys: list[int],
    fails: dict[int, int],
    moves: list[tuple[str, int]],
    concurrency: Any,
    partitions: int,
    first: float,
    seed: int,
) -> None:
    chance = random.Random(seed)
    story = Story(dict(fails))
    with tidelog.open("memory:") as log:
        channel = log.queue("orders", int, partitions=partitions)
        sender = threading.Thread(target=send_slowly, args=(channel, keys, seed))
        running = [member("member 0", log, channel, story, concurrency, first, chance)]
        running[0].start()
        sender.start()
        try:
            for number, (what, pause_ms) in enumerate(moves, 1):
                time.sleep(pause_ms / 1000)
                if what == "join" or len(running) == 1:
                    running.append(member(f"member {number}", log, channel, story, concurrency, first, chance))
                    running[-1].start()
                else:
                    running.pop(chance.randrange(len(running))).stop()
            sender.join()
            deadline = time.monotonic() + WAIT_SECONDS
            while sum(max(row.offset, 0) for row in channel.offsets()) < len(keys):
                assert not [app.failure for app in running if app.failure is not None]
                assert time.monotonic() < deadline, f"not everything is committed: {channel.offsets()}"
                time.sleep(0.002)
        finally:
            sender.join()
            for app in running:
                app.stop()
        dead = sorted(int(message.raw) for message in log["orders.dead"].scan())
    assert not story.overlaps, "\n".join(story.overlaps)
    expected: dict[bytes, list[int]] = defaultdict(list)
    for number, key in enumerate(keys):
        expected[f"key {key}".encode()].append(number)
    assert dict(story.finals) == dict(expected), "in order, all of them, and none twice"
    assert set(dead) <= {number for number, times in fails.items() if times >= ATTEMPTS}


def send_slowly(channel: Any, keys: list[int], seed: int) -> None:
    """While members come and go."""
    chance = random.Random(seed)
    for number, key in enumerate(keys):
        channel.send(number, key=f"key {key}")
        if chance.random() < 0.1:
            time.sleep(0.001)
