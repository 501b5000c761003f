"""Does a worker make its calls in order, on one thread, and tell the right loop?"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from tests.unit.loops import LOOPS, all_of, run, until
from tidelog.aio.worker import Worker


@pytest.mark.parametrize("loop", LOOPS)
def test_calls_are_made_in_order_on_one_thread(loop: str) -> None:
    worker = Worker("tidelog-test")
    made: list[tuple[int, int]] = []

    def call(number: int) -> int:
        made.append((number, threading.get_ident()))
        if number == 13:
            raise LookupError("thirteen")
        return number * number

    async def main() -> None:
        futures = [worker.submit(call, number) for number in range(200)]
        outcomes = await asyncio.gather(*futures, return_exceptions=True)
        assert [outcome for number, outcome in enumerate(outcomes) if number != 13] == [
            number * number for number in range(200) if number != 13
        ]
        assert isinstance(outcomes[13], LookupError)

    run(main, loop)
    assert [number for number, _ in made] == list(range(200))
    assert len({thread for _, thread in made}) == 1
    assert threading.get_ident() not in {thread for _, thread in made}


def test_a_cancelled_call_is_made_unless_it_may_be_skipped() -> None:
    worker = Worker("tidelog-test")
    made: list[str] = []
    gate = threading.Event()

    async def main() -> None:
        first = worker.submit(gate.wait, 20, tag="t")
        kept = worker.submit(made.append, "kept", tag="t")
        skipped = worker.submit(made.append, "skipped", tag="t", skip=True)
        last = worker.submit(made.append, "last", tag="t")
        assert (worker.pending("t"), worker.pending("other")) == (4, 0)
        kept.cancel()
        skipped.cancel()
        gate.set()
        await last
        assert await first
        assert worker.pending("t") == 0

    run(main)
    assert made == ["kept", "last"]


def test_its_thread_ends_when_it_is_idle_and_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidelog.aio.worker.IDLE_SECONDS", 0.02)
    worker = Worker("tidelog-idle")

    def alive() -> bool:
        return any(thread.name == "tidelog-idle" for thread in threading.enumerate())

    async def main() -> None:
        for _ in range(3):
            assert await worker.submit(alive)
            await until(lambda: not alive())
        # Calls that come just when it ends are not forgotten.
        for number in range(100):
            assert await worker.submit(lambda: 7) == 7
            await asyncio.sleep(0.018 + number % 5 * 0.001)

    run(main)


def test_several_loops_share_it() -> None:
    worker = Worker("tidelog-test")
    results: dict[int, list[Any]] = {}

    def on_a_loop(name: int) -> None:
        async def main() -> None:
            results[name] = await all_of(*(worker.submit(lambda n=n: (name, n)) for n in range(200)))

        run(main, "uvloop" if name % 2 else "asyncio")

    threads = [threading.Thread(target=on_a_loop, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results == {name: [(name, number) for number in range(200)] for name in range(4)}


def test_a_loop_that_was_closed_meanwhile_does_no_harm() -> None:
    worker = Worker("tidelog-test")

    async def leave() -> None:
        worker.submit(time.sleep, 0.05)

    async def later() -> None:
        assert await worker.submit(lambda: 7) == 7

    run(leave)
    run(later)


def test_an_iteration_that_ends_is_no_riddle() -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="iteration"):
            await Worker("tidelog-test").submit(next, iter(()))

    run(main)
