"""Do answers reach their askers when many ask at once?"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any

import pytest

import tidelog
from tests.unit.asking import LONG, Ask, Quote, double, responder

# --- many at once ---


@pytest.mark.parametrize("threads", [2, 16])
def test_many_threads_ask_at_once(log: tidelog.Log, threads: int) -> None:
    quotes = log.queue("quotes", Ask, reply=Quote)
    wrong: list[Any] = []

    def ask(first: int) -> None:
        try:
            for number in range(first, first + 100):
                # Without a time-out: a thread that nobody wakes must not find its answer once the time is over.
                if number % 3:
                    answer = quotes.ask_one(Ask(number))
                else:
                    with quotes.ask(Ask(number), limit=1) as replies:
                        (answer,) = replies
                if answer.value != Quote(number * 2):
                    wrong.append((number, answer.value))
        except BaseException as error:
            wrong.append(error)

    with responder(quotes.consumer(), double):
        running = [threading.Thread(target=ask, args=(1000 * i,)) for i in range(threads)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join(2 * LONG)
            assert not thread.is_alive()
    assert wrong == []
    own = log._mailboxes.own()
    assert (own._slots, own._asleep, own._leader, own.late) == ({}, {}, None, 0)


def test_answers_out_of_order_reach_their_askers(log: tidelog.Log) -> None:
    """Short waits beside long ones: whoever leads gives the lead away when it leaves, with or without an answer."""
    quotes = log.queue("quotes", Ask, partitions=1, reply=Quote)
    kept: list[Any] = []
    outcomes: dict[int, Any] = {}

    def ask(number: int, timeout: float | None) -> None:
        try:
            outcomes[number] = quotes.ask_one(Ask(number), timeout=timeout).value.price
        except tidelog.Timeout:
            outcomes[number] = None

    threads = [threading.Thread(target=ask, args=(i, 0.2 if i % 2 else None)) for i in range(12)]
    with responder(quotes.consumer(), kept.append):
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + LONG
        while (len(kept) < 12 or len(outcomes) < 6) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert outcomes == dict.fromkeys(range(1, 12, 2))
        for message in sorted(kept, key=lambda message: -message.value.number):
            double(message)
        for thread in threads:
            thread.join(LONG)
            assert not thread.is_alive()
    assert outcomes == {number: None if number % 2 else number * 2 for number in range(12)}


def test_whoever_reads_wakes_the_other_and_waits_on(log: tidelog.Log) -> None:
    quotes = log.queue("quotes", Ask, partitions=1, reply=Quote)
    found: dict[int, Any] = {}

    def ask(number: int) -> None:
        found[number] = quotes.ask_one(Ask(number)).value

    kept: list[Any] = []
    with responder(quotes.consumer(), kept.append):
        reading, sleeping = (threading.Thread(target=ask, args=(number,)) for number in (1, 2))
        reading.start()
        while log._mailboxes._own is None or not log._mailboxes._own.led:
            time.sleep(0.01)
        sleeping.start()
        while len(kept) < 2 or not log._mailboxes._own._asleep:
            time.sleep(0.01)
        double(kept[1])
        sleeping.join(LONG)
        assert found == {2: Quote(4)} and reading.is_alive()
        double(kept[0])
        reading.join(LONG)
    assert found == {1: Quote(2), 2: Quote(4)}


@pytest.mark.parametrize("ending", [None, KeyboardInterrupt])
def test_whoever_is_chosen_to_lead_and_leaves_chooses_another(log: tidelog.Log, ending: Any) -> None:
    """One is woken to lead at the very moment it leaves: the other must not sleep on with nobody reading."""
    quotes = log.queue("quotes", Ask, partitions=1, reply=Quote)
    leaving, staying = quotes.ask(Ask(1), timeout=0.2), quotes.ask(Ask(2), limit=1)
    own = log._mailboxes.own()
    found: list[Any] = []

    class Gate:
        """Sleeps until the time is over; just before, the one who leads goes."""

        def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
            if blocking:
                time.sleep(timeout)
                with own._lock:
                    own._leader = None
                    own._wake(leaving._slot)
                if ending is not None:
                    raise ending
            return False

        def release(self) -> None:
            pass

    own._leader = object()  # type: ignore[assignment]  # somebody else
    thread = threading.Thread(target=lambda: found.extend(staying))
    thread.start()
    while staying._slot not in own._asleep:
        time.sleep(0.01)
    leaving._slot.gate = Gate()  # type: ignore[assignment]
    with contextlib.nullcontext() if ending is None else pytest.raises(ending):
        assert list(leaving) == []
    with responder(quotes.consumer(), double):
        thread.join(LONG)
        assert not thread.is_alive()
    assert [message.value for message in found] == [Quote(4)]


def test_replies_belong_to_one_thread(log: tidelog.Log) -> None:
    quotes = log.queue("quotes", Ask, reply=Quote)
    first, second = quotes.ask(Ask(1), timeout=2.0), quotes.ask(Ask(2), timeout=2.0)
    errors: list[Any] = []

    def wait() -> None:
        try:
            list(second)
        except RuntimeError as error:
            errors.append(str(error))

    threads = [threading.Thread(target=lambda: list(first))] + [threading.Thread(target=wait) for _ in range(2)]
    for thread in threads:
        thread.start()
        time.sleep(0.1)
    for thread in threads:
        thread.join(LONG)
    assert errors == ["another thread waits for these answers: replies belong to one thread at a time"]
