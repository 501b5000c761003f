"""Does every question get its answers, whoever dies, whoever lies, and however many ask at once?"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import tidelog
from tests.unit.stores import opened
from tidelog import envelope
from tidelog._native import Sender
from tidelog.patterns import mailboxes

LONG = 30.0
"""Seconds after which something hangs; no test waits for it when all is well."""


class Ask(msgspec.Struct):
    """A question."""

    number: int


class Quote(msgspec.Struct):
    """An answer."""

    price: int


class Refusal(msgspec.Struct):
    """Another answer."""

    why: str


@pytest.fixture
def log() -> Iterator[tidelog.Log]:
    with tidelog.open("memory:") as opened:
        yield opened


@contextlib.contextmanager
def responder(consumer: Any, handle: Callable[[Any], Any]) -> Iterator[threading.Thread]:
    """Handles the messages of a consumer on a thread."""

    def run() -> None:
        with contextlib.suppress(tidelog.Closed):
            for message in consumer:
                handle(message)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield thread
    finally:
        consumer.close()
        thread.join(LONG)
        assert not thread.is_alive()


def double(message: Any) -> None:
    message.reply(Quote(message.value.number * 2))


def reply_channels(log: tidelog.Log) -> list[str]:
    return [name for name in log if name.startswith("reply.")]


# --- questions and answers ---


def test_one_question_one_answer(log: tidelog.Log) -> None:
    quotes = log.queue("quotes", Ask, reply=Quote)
    with responder(quotes.consumer(), double):
        answer = quotes.ask_one(Ask(21), timeout=LONG)
    assert answer.value == Quote(42)
    assert answer.channel == reply_channels(log)[0]
    (question,) = quotes.scan()
    assert answer.correlation_id == question.id == question.correlation_id
    assert question.reply_to == answer.channel
    assert answer.headers["content-type"] == b"application/json"
    assert answer.kind == "document"


@pytest.mark.parametrize("answers", [0, 1, 3])
def test_any_number_of_answers_until_the_time_is_over(log: tidelog.Log, answers: int) -> None:
    quotes = log.queue("quotes", Ask, reply=Quote)

    def several(message: Any) -> None:
        for i in range(answers):
            message.reply(Quote(i))

    with responder(quotes.consumer(), several):
        began = time.monotonic()
        with quotes.ask(Ask(1), timeout=0.4) as replies:
            assert [message.value.price for message in replies] == list(range(answers))
        assert time.monotonic() - began >= 0.4
        assert replies.closed
        assert list(replies) == []


def test_a_limit_ends_the_replies_at_once_and_what_is_beyond_it_is_late(log: tidelog.Log) -> None:
    quotes = log.queue("quotes", Ask, reply=Quote)

    def five(message: Any) -> None:
        for i in range(5):
            message.reply(Quote(i))

    with responder(quotes.consumer(), five):
        replies = quotes.ask(Ask(1), timeout=LONG, limit=3)
        assert [message.value.price for message in replies] == [0, 1, 2]
        while quotes.ask_one(Ask(2), timeout=LONG).value.price != 0:
            pass
        # The two of the first question that came too late stood before the answer to the second.
        assert replies.late == 2


def test_another_threads_reading_keeps_to_the_limit_too(log: tidelog.Log) -> None:
    quotes = log.queue("quotes", Ask, partitions=1, reply=Quote)
    first = quotes.ask(Ask(1), timeout=LONG, limit=3)
    second = quotes.ask(Ask(2), timeout=LONG, limit=1)
    with quotes.consumer(stop="end") as consumer:
        for message in consumer:
            for _ in range(5 if message.value.number == 1 else 1):
                double(message)
    assert [message.value for message in second] == [Quote(4)]
    assert first.late == 2
    assert [message.value for message in first] == [Quote(2)] * 3


def test_every_group_of_a_topic_answers(log: tidelog.Log) -> None:
    prices = log.topic("prices", Ask, reply=Quote)
    with contextlib.ExitStack() as stack:
        for number in range(3):
            handle = lambda message, number=number: message.reply(Quote(number))  # noqa: E731
            stack.enter_context(responder(prices.consumer(f"shop-{number}"), handle))
        with prices.ask(Ask(1), timeout=LONG, limit=3) as replies:
            assert sorted(message.value.price for message in replies) == [0, 1, 2]


def test_no_answer_in_time(log: tidelog.Log) -> None:
    quotes = log.queue("quotes", Ask, reply=Quote)
    with pytest.raises(tidelog.Timeout, match=r"no answer to the question .* within 0\.05 s: is a responder running"):
        quotes.ask_one(Ask(1), timeout=0.05)
    assert list(quotes.ask(Ask(1), timeout=0)) == []
    assert [message.value for message in quotes.scan()] == [Ask(1), Ask(1)], "the questions stay in the channel"


def test_late_answers_are_dropped_and_counted(log: tidelog.Log) -> None:
    quotes = log.queue("quotes", Ask, partitions=1, reply=Quote)
    for number in range(3):
        with pytest.raises(tidelog.Timeout):
            quotes.ask_one(Ask(number), timeout=0.01)
    with responder(quotes.consumer(), double):
        replies = quotes.ask(Ask(50), timeout=LONG, limit=1)
        assert [message.value.price for message in replies] == [100]
        assert replies.late == 3


def test_an_answer_that_was_there_before_anybody_looked(log: tidelog.Log) -> None:
    quotes = log.queue("quotes", Ask, reply=Quote)
    replies = quotes.ask(Ask(4), timeout=0.2)
    with quotes.consumer(stop="end") as consumer:
        for message in consumer:
            double(message)
    time.sleep(0.3)
    assert [message.value.price for message in replies] == [8], "it came in time, and was looked for late"


def test_replies_that_nobody_reads_are_forgotten(log: tidelog.Log) -> None:
    quotes = log.queue("quotes", Ask, reply=Quote)
    for number in range(50):
        quotes.ask(Ask(number))
    own = log._mailboxes.own()
    assert len(own._slots) == 0
    kept = quotes.ask(Ask(1))
    assert len(own._slots) == 1
    kept.close()
    kept.close()
    assert len(own._slots) == 0


def test_questions_with_keys_headers_and_ids(log: tidelog.Log) -> None:
    quotes = log.queue("quotes", Ask, reply=Quote)
    with responder(quotes.consumer(), double):
        answer = quotes.ask_one(Ask(1), timeout=LONG, key="tea", headers={"src": "web"}, id="question-7")
    (question,) = quotes.scan()
    assert (question.key, question.headers["src"], question.id) == (b"tea", b"web", "question-7")
    assert answer.correlation_id == "question-7"
    with quotes.ask(Ask(1), id="same"), pytest.raises(ValueError, match="'same' waits for answers already"):
        quotes.ask(Ask(2), id="same")


def test_an_answers_headers(log: tidelog.Log) -> None:
    quotes = log.queue("quotes", Ask, reply=Quote)

    def handle(message: Any) -> None:
        message.reply(Quote(1), headers={"shop": "north", "correlation-id": "forged"})

    with responder(quotes.consumer(), handle):
        answer = quotes.ask_one(Ask(1), timeout=LONG, headers={"traceparent": "00-aa-bb-01", "tracestate": "x=1"})
    assert answer.headers["shop"] == b"north"
    assert answer.headers["traceparent"] == b"00-aa-bb-01"
    assert answer.headers["tracestate"] == b"x=1"
    assert answer.correlation_id != "forged"


def test_questions_asked_while_a_message_is_handled_belong_to_its_trace(log: tidelog.Log) -> None:
    orders = log.queue("orders", partitions=1)
    quotes = log.queue("quotes", Ask, reply=Quote)
    orders.send(b"", headers={"traceparent": "00-aa-bb-01"})
    (order,) = orders.scan()
    token = envelope.current.set(order)
    try:
        quotes.ask(Ask(1)).close()
    finally:
        envelope.current.reset(token)
    quotes.ask(Ask(2)).close()
    traces = {message.value.number: message.headers.get("traceparent") for message in quotes.scan()}
    assert traces == {1: b"00-aa-bb-01", 2: None}


# --- what answers are ---


def test_an_error_is_an_answer_whose_value_raises(log: tidelog.Log) -> None:
    class OutOfStock(Exception):
        pass

    quotes = log.queue("quotes", Ask, reply=Quote)
    answers: list[Callable[[Any], Any]] = [
        lambda message: message.reply(error=OutOfStock("only 3 left")),
        lambda message: message.reply(Quote(7), error=OutOfStock("take the old price")),
        lambda message: message.reply(error="closed on sundays"),
        lambda message: message.reply(error=OutOfStock("x" * 100_000 + "\udc80")),
        lambda message: message.reply(error=OutOfStock()),
    ]
    found = []
    with responder(quotes.consumer(), lambda message: answers[message.value.number](message)):
        for number in range(len(answers)):
            answer = quotes.ask_one(Ask(number), timeout=LONG)
            with pytest.raises(tidelog.ReplyError) as caught:
                answer.value  # noqa: B018
            found.append(caught.value)
    assert [(error.kind, error.value) for error in found] == [
        ("OutOfStock", None),
        ("OutOfStock", Quote(7)),
        ("Error", None),
        ("OutOfStock", None),
        ("OutOfStock", None),
    ]
    assert found[0].text == "only 3 left"
    assert str(found[0]) == "the responder answered OutOfStock: only 3 left"
    assert found[2].text == "closed on sundays"
    assert 1_000 < len(found[3].text) < 10_000
    assert str(found[4]) == "the responder answered OutOfStock"
    assert not found[0].retriable and isinstance(found[0], tidelog.Error)


def test_answers_of_several_types(log: tidelog.Log) -> None:
    quotes = log.queue("quotes", Ask, reply=Quote | Refusal)

    def handle(message: Any) -> None:
        message.reply(Quote(1) if message.value.number else Refusal("no"))

    with responder(quotes.consumer(), handle):
        assert quotes.ask_one(Ask(1), timeout=LONG).value == Quote(1)
        answer = quotes.ask_one(Ask(0), timeout=LONG)
    assert answer.value == Refusal("no")
    assert answer.headers["type"] == b"Refusal"


def test_one_reply_channel_for_questions_of_all_types(log: tidelog.Log) -> None:
    rows = np.dtype([("sym", "S4"), ("px", "f8")])
    one = log.queue("one", Ask, reply=Quote)
    two = log.queue("two", bytes, reply=str)
    three = log.queue("three", str, reply=rows)
    with (
        responder(one.consumer(), double),
        responder(two.consumer(), lambda message: message.reply(message.value.decode().upper())),
        responder(three.consumer(), lambda message: message.reply(np.array((b"tea", 2.5), rows)[()])),
    ):
        assert one.ask_one(Ask(2), timeout=LONG).value == Quote(4)
        assert two.ask_one(b"x", timeout=LONG).value == "X"
        assert three.ask_one("x", timeout=LONG).value.tolist() == (b"tea", 2.5)
    assert len(reply_channels(log)) == 1


def test_an_answer_of_another_type_than_promised(log: tidelog.Log) -> None:
    quotes = log.queue("quotes", Ask, partitions=1, reply=Quote)
    with responder(log["quotes"].consumer(), lambda message: message.reply(b"{}")):
        answer = quotes.ask_one(Ask(1), timeout=LONG)
    assert answer.raw == b"{}"
    with pytest.raises(tidelog.DecodeError, match="price"):
        answer.value  # noqa: B018


def test_large_answers(log: tidelog.Log) -> None:
    quotes = log.queue("quotes", bytes, reply=bytes)
    large = os.urandom(10 << 20)
    with responder(quotes.consumer(), lambda message: message.reply(large)):
        for _ in range(2):
            assert quotes.ask_one(b"", timeout=LONG).value == large


def test_the_reply_channel_does_not_grow_for_ever(log: tidelog.Log) -> None:
    quotes = log.queue("quotes", bytes, partitions=1, reply=bytes)
    block = bytes(1 << 20)
    with responder(quotes.consumer(), lambda message: message.reply(block)):
        for _ in range(16):
            quotes.ask_one(b"", timeout=LONG)
        channel = log[reply_channels(log)[0]]
        log.engine.store.housekeep()  # type: ignore[attr-defined]
        assert channel.bounds(0)[0] > 0, "what was consumed is removed"
        assert channel.describe(0)["bytes"] < 8 << 20


# --- arguments ---


def test_what_asking_refuses(log: tidelog.Log) -> None:
    plain = log.queue("plain", Ask)
    with pytest.raises(TypeError, match="opened without reply="):
        plain.ask_one(Ask(1), timeout=1)
    quotes = log.queue("quotes", Ask, reply=Quote)
    for name in ("message-id", "correlation-id", "reply-to"):
        with pytest.raises(ValueError, match=f"the header '{name}' is the question's own"):
            quotes.ask(Ask(1), headers={name: "x"})
    with pytest.raises(ValueError, match="limit=0"):
        quotes.ask(Ask(1), limit=0)
    with pytest.raises(TypeError, match="limit is an int"):
        quotes.ask(Ask(1), limit=1.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="timeout"):
        quotes.ask(Ask(1), timeout="1")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="too short"):
        quotes.ask(Ask(1), timeout=-1)
    with pytest.raises(TypeError, match="id is a str"):
        quotes.ask(Ask(1), id=7)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="has the character '/'"):
        quotes.ask(Ask(1), durable="a/b")
    with pytest.raises(ValueError, match="kept for reply channels without a name"):
        quotes.ask(Ask(1), durable=envelope.new_id())
    with pytest.raises(ValueError):
        quotes.ask(Ask(1), durable="")
    with pytest.raises(tidelog.SchemaMismatch):
        quotes.ask_one("what", timeout=1)  # type: ignore[arg-type]
    assert quotes.bounds(0) == (0, 0)
    assert not log._mailboxes.own()._slots, "what was not sent is not waited for"


def test_reopening_compares_how_answers_are_written(log: tidelog.Log) -> None:
    log.queue("quotes", Ask, reply=Quote)
    assert log.queue("quotes", Ask, reply=Refusal).reply is not None, "the schema may differ, as for messages"
    with pytest.raises(tidelog.SchemaMismatch, match=r"its answers are 'json' \(Quote\), not 'raw' \(bytes\)"):
        log.queue("quotes", Ask, reply=bytes)
    stored = log["quotes"].reply
    assert stored is not None and (stored.name, stored.type_name, stored.encode) == ("json", "Quote", None)
    assert log.queue("other", Ask).reply is None
    assert log.engine.definition("quotes").reply is not None


# --- whom to answer ---


def asked(log: tidelog.Log, headers: Any, **options: Any) -> Any:
    """A question with these headers, received."""
    quotes = log.queue("quotes", Ask, partitions=1, reply=Quote)
    quotes.send(Ask(1), headers=headers, **options)
    return list(quotes.scan())[-1]


def test_a_message_that_asks_for_no_answer(log: tidelog.Log) -> None:
    message = asked(log, None)
    with pytest.raises(ValueError, match="asks for no answer: it has no header 'reply-to'"):
        message.reply(Quote(1))


@pytest.mark.parametrize(
    "name",
    ["nowhere", "../../etc", "a/b", "", "x" * 300, "__consumer_offsets", "reply.gone", b"\xff\xfe", ".", "a\0b", "é"],
)
def test_an_answer_to_a_channel_that_is_not_there(log: tidelog.Log, name: Any) -> None:
    message = asked(log, {"reply-to": name})
    before = sorted(log)
    with pytest.raises(tidelog.ChannelNotFound, match="go on with the next message|skip the question"):
        message.reply(Quote(1))
    assert sorted(log) == before, "a question makes nobody create a channel"


def test_an_answer_to_a_channel_that_must_not_have_it(log: tidelog.Log) -> None:
    commands = log.queue("payments", partitions=1)
    others = log.topic("names", str, partitions=1)
    with pytest.raises(tidelog.SchemaMismatch, match="carries commands, and an answer is none"):
        asked(log, {"reply-to": "payments"}).reply(Quote(1))
    with pytest.raises(tidelog.SchemaMismatch, match="holds str and not Quote"):
        asked(log, {"reply-to": "names"}).reply(Quote(1))
    with pytest.raises(tidelog.SchemaMismatch, match="the channel it was asked on"):
        asked(log, {"reply-to": "quotes"}).reply(Quote(1))
    assert commands.bounds(0) == others.bounds(0) == (0, 0)


def test_an_answer_never_goes_to_what_belongs_to_the_store(log: tidelog.Log, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox = log.topic("inbox")
    there = log.engine.definition("inbox")
    monkeypatch.setattr(type(log.engine), "definition", lambda self, name: there)
    with pytest.raises(tidelog.ChannelNotFound, match="reserved for the broker's own state"):
        asked(log, {"reply-to": "__consumer_offsets"}).reply(Quote(1))
    assert all(inbox.bounds(number) == (0, 0) for number in range(4))


@pytest.mark.parametrize("kind", ["queue", "topic"])
@pytest.mark.parametrize("type_", [None, Quote])
def test_an_answer_to_a_channel_of_ones_own(log: tidelog.Log, kind: str, type_: Any) -> None:
    make = log.queue if kind == "queue" else log.topic
    inbox = make("inbox", type_, carries="document")
    message = asked(log, {"reply-to": "inbox"}, id="q1")
    receipt = message.reply(Quote(5))
    (answer,) = inbox.scan()
    assert answer.raw == b'{"price":5}'
    assert answer.correlation_id == "q1"
    assert (receipt.partition, receipt.offset) == (answer.partition, answer.offset)


def test_springs_headers(log: tidelog.Log) -> None:
    inbox = log.topic("spring.replies", partitions=8)
    correlation = bytes(range(240, 256))  # a binary UUID, which is no text
    message = asked(
        log,
        [
            ("kafka_replyTopic", b"spring.replies"),
            ("kafka_replyPartition", b"\x00\x00\x00\x05"),
            ("kafka_correlationId", correlation),
        ],
    )
    message.reply(Quote(1))
    (answer,) = inbox.scan()
    assert answer.partition == 5
    assert answer.headers["kafka_correlationId"] == correlation
    assert "correlation-id" not in answer.headers
    asked(log, {"kafka_replyTopic": "spring.replies", "kafka_correlationId": b"c"}, id="both").reply(Quote(2))
    second = next(answer for answer in inbox.scan() if answer.value == b'{"price":2}')
    assert second.headers["kafka_correlationId"] == b"c"
    assert second.correlation_id == "both"


def test_messages_of_inner_readers_cannot_be_answered(tmp_path: Path) -> None:
    with opened(tmp_path / "l") as store:
        store.sender().send(b"x", headers={"reply-to": "ch"})
        message = store.drained().receive(0)
        with pytest.raises(tidelog.NotSupported, match="cannot be answered"):
            message.reply(b"y")


@pytest.mark.parametrize("number", [b"", b"\x00", b"\x00\x00\x00\x00\x01", b"5", b"\xff\xff\xff\xff"])
def test_a_wrong_partition_in_springs_header(log: tidelog.Log, number: bytes) -> None:
    inbox = log.topic("spring.replies", partitions=2)
    message = asked(log, {"kafka_replyTopic": "spring.replies", "kafka_replyPartition": number})
    with pytest.raises(tidelog.DecodeError, match="not 4 bytes"):
        message.reply(Quote(1))
    message = asked(log, {"kafka_replyTopic": "spring.replies", "kafka_replyPartition": b"\0\0\0\2"})
    with pytest.raises(ValueError, match="in partition 2 of 'spring.replies', which has 2"):
        message.reply(Quote(1))
    assert inbox.bounds(0) == inbox.bounds(1) == (0, 0)


def test_answers_of_a_wrong_type_are_not_sent(log: tidelog.Log) -> None:
    log.topic("inbox")
    message = asked(log, {"reply-to": "inbox"})
    with pytest.raises(tidelog.SchemaMismatch, match="expected Quote, got str"):
        message.reply("hello")
    with pytest.raises(TypeError, match="error= is an exception or a str, not int"):
        message.reply(error=3)
    untyped = log.queue("untyped")
    untyped.send(b"", headers={"reply-to": "inbox"})
    (question,) = untyped.scan()
    with pytest.raises(tidelog.SchemaMismatch, match="answers here are bytes, not Quote"):
        question.reply(Quote(1))
    question.reply(b"yes")
    question.reply()
    assert [message.value for message in log["inbox"].scan(partition=None)].count(b"yes") == 1


def test_a_message_outlives_its_log(tmp_path: Path) -> None:
    with tidelog.open(tmp_path / "l") as log:
        log.topic("inbox")
        message = asked(log, {"reply-to": "inbox"})
    with pytest.raises(tidelog.Closed):
        message.reply(Quote(1))


def test_answering_follows_a_channel_that_is_made_again(log: tidelog.Log) -> None:
    message = asked(log, {"reply-to": "inbox"})
    for partitions in (1, 3):
        inbox = log.topic("inbox", partitions=partitions)
        message.reply(Quote(1))
        assert len(list(inbox.scan())) == 1
        inbox.configure(partitions=partitions + 1)
        message.reply(Quote(1))
        assert len(list(inbox.scan())) == 2
        log.drop("inbox")
        with pytest.raises(tidelog.ChannelNotFound, match="nobody waits for the answer"):
            message.reply(Quote(1))


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


# --- endings ---


def test_closing_the_log_wakes_every_asker(tmp_path: Path) -> None:
    log = tidelog.open(tmp_path / "l")
    quotes = log.queue("quotes", Ask, reply=Quote)
    ended: list[Any] = []

    def ask(number: int) -> None:
        try:
            ended.append(list(quotes.ask(Ask(number))))
        except tidelog.Error as error:
            ended.append(type(error))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    while log._mailboxes._own is None or len(log._mailboxes._own._asleep) < 5:
        time.sleep(0.01)
    log.close()
    for thread in threads:
        thread.join(LONG)
        assert not thread.is_alive()
    assert ended == [tidelog.Closed] * 6
    with pytest.raises(tidelog.Closed):
        quotes.ask_one(Ask(1), timeout=1)
    with tidelog.open(tmp_path / "l") as again:
        assert list(again) == ["quotes"], "the reply channel went with its log"


def test_event_loops_are_told(log: tidelog.Log) -> None:
    quotes = log.queue("quotes", Ask, partitions=1, reply=Quote)
    own = log._mailboxes.own()
    told: list[int] = []
    replies = quotes.ask(Ask(1), timeout=LONG)
    replies._slot.notify = lambda: told.append(len(replies._slot.inbox))
    own.poll()
    assert told == []
    with quotes.consumer(stop="end") as consumer:
        for message in consumer:
            double(message)
    own.poll()
    assert told == [1] and not own.led
    log.close()
    assert told == [1, 1]
    with pytest.raises(tidelog.Closed):
        own.poll()


def test_an_interrupted_asker_leaves_the_others_waiting(log: tidelog.Log) -> None:
    quotes = log.queue("quotes", Ask, reply=Quote)
    kept: list[Any] = []
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(quotes.ask_one(Ask(1), timeout=LONG).value))

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with responder(quotes.consumer(), kept.append):
            for follow in (False, True):
                if follow:  # the other one leads, this one sleeps
                    thread.start()
                    while log._mailboxes.own()._leader is None:
                        time.sleep(0.01)
                signal.setitimer(signal.ITIMER_REAL, 0.2)
                with pytest.raises(KeyboardInterrupt):
                    quotes.ask_one(Ask(2), timeout=LONG)
            while len(kept) < 3:
                time.sleep(0.01)
            for message in kept:
                double(message)
            thread.join(LONG)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert found == [Quote(2)]
    own = log._mailboxes.own()
    assert (own._slots, own._asleep, own._leader) == ({}, {}, None)


def test_a_reply_channel_that_was_dropped_while_answers_were_awaited(log: tidelog.Log) -> None:
    quotes = log.queue("quotes", Ask, partitions=1, reply=Quote)
    ended: list[Any] = []

    def ask() -> None:
        try:
            quotes.ask_one(Ask(1), timeout=LONG)
        except tidelog.Error as error:
            ended.append(error)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    while log._mailboxes._own is None or len(log._mailboxes._own._asleep) < 2:
        time.sleep(0.01)
    (name,) = reply_channels(log)
    log.drop(name)
    for thread in threads:
        thread.join(LONG)
        assert not thread.is_alive()
    assert [type(error) for error in ended] == [tidelog.ChannelNotFound] * 3
    assert "was dropped while answers were awaited" in str(ended[0])
    for question in quotes.scan():
        with pytest.raises(tidelog.ChannelNotFound, match="nobody waits for the answer"):
            double(question)


def test_a_reply_channel_that_was_dropped_in_between_is_made_again(log: tidelog.Log) -> None:
    quotes = log.queue("quotes", Ask, reply=Quote)
    with responder(quotes.consumer(), double):
        assert quotes.ask_one(Ask(1), timeout=LONG).value == Quote(2)
        (first,) = reply_channels(log)
        log.drop(first)
        assert quotes.ask_one(Ask(2), timeout=LONG).value == Quote(4)
        (second,) = reply_channels(log)
    assert first != second


def test_a_reply_channel_with_bytes_that_cannot_be_unpacked(log: tidelog.Log, tmp_path: Path) -> None:
    """Whoever writes such bytes there spoils the channel; the next question takes another one."""
    quotes = log.queue("quotes", Ask, partitions=1, reply=Quote)
    replies = quotes.ask(Ask(1), timeout=LONG)
    (name,) = reply_channels(log)
    sender = Sender()
    opened = log[name].opened()
    sender._attach(
        log.engine.store,  # type: ignore[attr-defined]
        opened.partitions,  # type: ignore[arg-type]
        opened.shared,
        synced=False,
        partitioner=None,
        compress=lambda data: b"no lz4 at all",
        codec_id=3,
    )
    sender.send(b"x")
    with pytest.raises(tidelog.DecodeError):
        next(replies)
    with pytest.raises(tidelog.DecodeError, match="answers that were awaited are lost with it, ask again"):
        next(replies)
    assert reply_channels(log) == []
    with responder(quotes.consumer(start="latest"), lambda message: message.reply_to == name or double(message)):
        assert quotes.ask_one(Ask(2), timeout=LONG).value == Quote(4)
    assert name not in log


def test_a_trimmed_reply_channel(log: tidelog.Log) -> None:
    quotes = log.queue("quotes", Ask, partitions=1, reply=Quote)
    replies = quotes.ask(Ask(1), timeout=LONG, limit=1)
    with quotes.consumer(stop="end") as consumer:
        for message in consumer:
            double(message)
            double(message)
    (name,) = reply_channels(log)
    log[name].trim(1)
    assert [message.value for message in replies] == [Quote(2)]


def test_replies_in_a_forked_child() -> None:
    code = """
import os, tidelog
log = tidelog.open("memory:")
quotes = log.queue("quotes", bytes, reply=bytes)
replies = quotes.ask(b"x", timeout=0.1)
pid = os.fork()
if pid == 0:
    done = 1
    try:
        for call in (lambda: next(replies), lambda: quotes.ask_one(b"y", timeout=1), lambda: quotes.resume("n")):
            try:
                call()
            except tidelog.Forked:
                continue
            break
        else:
            replies.close()
            log.close()
            done = 0
    finally:
        os._exit(done)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert list(replies) == []
assert len([name for name in log if name.startswith("reply.")]) == 1
log.close()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=LONG * 2)


# --- several processes ---

RESPONDER = """
import sys, tidelog, msgspec
class Ask(msgspec.Struct): number: int
class Quote(msgspec.Struct): price: int
with tidelog.open(sys.argv[1]) as log:
    quotes = log.queue("quotes", Ask, reply=Quote)
    with quotes.consumer() as consumer:
        print("ready", flush=True)
        for message in consumer:
            print("got", message.value.number, flush=True)
            if sys.argv[2] == "hang":
                import time; time.sleep(600)
            try:
                message.reply(Quote(message.value.number * 2))
            except tidelog.ChannelNotFound:
                print("gone", flush=True)
"""

ASKER = """
import sys, tidelog, msgspec
class Ask(msgspec.Struct): number: int
class Quote(msgspec.Struct): price: int
with tidelog.open(sys.argv[1]) as log:
    quotes = log.queue("quotes", Ask, reply=Quote)
    durable = sys.argv[2] or None
    asked = [quotes.ask(Ask(int(n)), durable=durable, id="q" + n) for n in sys.argv[3].split(",")]
    print("asked", flush=True)
    for replies in asked[: int(sys.argv[4])]:
        print("answer", next(replies).value.price, flush=True)
        if durable:
            replies._mailbox.settle(replies._slot)
    import time; time.sleep(600)
"""


class Child:
    """A process of a test, and the lines that it prints."""

    def __init__(self, code: str, *arguments: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, text=True
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(LONG)
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextlib.contextmanager
def child(code: str, *arguments: object) -> Iterator[Child]:
    """Kills it at the end."""
    started = Child(code, *arguments)
    try:
        yield started
    finally:
        started.kill()


def test_two_processes(tmp_path: Path) -> None:
    with tidelog.open(tmp_path / "l") as log:
        quotes = log.queue("quotes", Ask, reply=Quote)
        with child(RESPONDER, tmp_path / "l", "answer") as other:
            assert other.line() == "ready"
            for number in range(300):
                assert quotes.ask_one(Ask(number), timeout=LONG).value == Quote(2 * number)


def test_a_question_survives_the_death_of_its_responder(tmp_path: Path) -> None:
    with tidelog.open(tmp_path / "l") as log:
        quotes = log.queue("quotes", Ask, reply=Quote)
        replies = quotes.ask(Ask(5), timeout=LONG, limit=1)
        with child(RESPONDER, tmp_path / "l", "hang") as first:
            assert [first.line(), first.line()] == ["ready", "got 5"]
        with child(RESPONDER, tmp_path / "l", "answer") as second:
            assert [second.line(), second.line()] == ["ready", "got 5"]
            assert [message.value for message in replies] == [Quote(10)]


def test_an_asker_that_was_killed_resumes(tmp_path: Path) -> None:
    with tidelog.open(tmp_path / "l") as log:
        quotes = log.queue("quotes", Ask, partitions=1, reply=Quote)
        with child(ASKER, tmp_path / "l", "till-3", "1,2,3", 0) as asker:
            assert asker.line() == "asked"
            with pytest.raises(tidelog.Locked, match=r"'reply\.till-3' is in use by .*one process at a time"):
                quotes.resume("till-3", timeout=0)
        with quotes.consumer(stop="end") as consumer:
            for message in consumer:
                double(message)
        with quotes.resume("till-3", timeout=0) as replies:
            found = {message.correlation_id: message.value for message in replies}
        assert found == {"q1": Quote(2), "q2": Quote(4), "q3": Quote(6)}
        with quotes.resume("till-3", timeout=0) as replies:
            assert list(replies) == [], "they were handled"
    with tidelog.open(tmp_path / "l") as log:
        quotes = log.queue("quotes", Ask, reply=Quote)
        assert list(quotes.resume("till-3", timeout=0)) == []
        assert reply_channels(log) == ["reply.till-3"]


def test_what_was_handled_before_the_death_does_not_come_again(tmp_path: Path) -> None:
    with tidelog.open(tmp_path / "l") as log:
        quotes = log.queue("quotes", Ask, partitions=1, reply=Quote)
        with child(ASKER, tmp_path / "l", "till-3", "1,2,3", 1) as asker:
            assert asker.line() == "asked"
            with quotes.consumer(stop="end") as consumer:
                for message in consumer:
                    double(message)
            assert asker.line() == "answer 2"
            deadline = time.monotonic() + LONG
            while time.monotonic() < deadline:
                offsets = [row.offset for row in log["reply.till-3"].offsets()]
                if offsets == [1]:
                    break
                time.sleep(0.01)
        with quotes.resume("till-3", timeout=0) as replies:
            assert [message.correlation_id for message in replies] == ["q2", "q3"]


def test_orphans_of_dead_askers_are_swept(tmp_path: Path) -> None:
    with tidelog.open(tmp_path / "l") as log:
        quotes = log.queue("quotes", Ask, partitions=1, reply=Quote)
        with contextlib.ExitStack() as stack:
            dead = [stack.enter_context(child(ASKER, tmp_path / "l", "", str(n), 0)) for n in (1, 2)]
            kept = stack.enter_context(child(ASKER, tmp_path / "l", "", "3", 1))
            named = stack.enter_context(child(ASKER, tmp_path / "l", "shop", "4", 0))
            assert [asker.line() for asker in (*dead, kept, named)] == ["asked"] * 4
            for asker in (*dead, named):
                asker.process.kill()
                asker.process.wait(LONG)
            before = reply_channels(log)
            assert len(before) == 4
            replies = quotes.ask(Ask(9), timeout=LONG, limit=1)
            after = reply_channels(log)
            assert len(after) == 3 and "reply.shop" in after, "the living one's, the durable one, and mine"
            gone = 0
            with quotes.consumer(stop="end") as consumer:
                for message in consumer:
                    try:
                        double(message)
                    except tidelog.ChannelNotFound:
                        gone += 1
            assert gone == 2
            assert kept.line() == "answer 6"
            assert [message.value for message in replies] == [Quote(18)]


def test_a_reply_channel_that_nobody_held_yet_is_spared_for_a_while(
    log: tidelog.Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = f"reply.{envelope.new_id()}"
    log.queue(fresh, partitions=1, retention="consumed", carries="document")
    mine = log.queue("reply.mine", partitions=1, retention="consumed", carries="document")
    strange = f"reply.{envelope.new_id()}"
    log.queue(strange, partitions=2)
    assert mailboxes.drop_orphans(log.engine) == 0
    monkeypatch.setattr(mailboxes, "ORPHAN_AGE_S", -1.0)
    assert mailboxes.drop_orphans(log.engine) == 1
    assert sorted(log) == sorted([mine.name, strange])


# --- durable replies in one process ---


def test_durable_answers_wait_until_they_are_handled(tmp_path: Path) -> None:
    with tidelog.open(tmp_path / "l") as log:
        quotes = log.queue("quotes", Ask, partitions=1, reply=Quote)
        with responder(quotes.consumer(), double):
            assert quotes.ask_one(Ask(1), timeout=LONG, durable="till").value == Quote(2)
            with pytest.raises(RuntimeError), quotes.ask(Ask(2), timeout=LONG, durable="till") as replies:
                assert next(replies).value == Quote(4)
                raise RuntimeError
            with quotes.ask(Ask(3), timeout=LONG, durable="till") as replies:
                assert next(replies).value == Quote(6)
        with quotes.resume("till", timeout=0) as resumed:
            assert [message.value for message in resumed] == [Quote(4)]
    with tidelog.open(tmp_path / "l") as log:
        quotes = log.queue("quotes", Ask, reply=Quote)
        assert [message.value for message in quotes.resume("till", timeout=0)] == []


def test_an_answer_that_was_overtaken_is_not_lost(tmp_path: Path) -> None:
    with tidelog.open(tmp_path / "l") as log:
        quotes = log.queue("quotes", Ask, partitions=1, reply=Quote)
        first = quotes.ask(Ask(1), timeout=LONG, durable="till", limit=1)
        second = quotes.ask(Ask(2), timeout=LONG, durable="till", limit=1)
        with responder(quotes.consumer(), double):
            assert [message.value for message in second] == [Quote(4)]
        assert first._slot.inbox, "it was read, and not handled"
    with tidelog.open(tmp_path / "l") as log:
        quotes = log.queue("quotes", Ask, reply=Quote)
        assert Quote(2) in [message.value for message in quotes.resume("till", timeout=0)]


def test_a_resume_gets_what_comes_late(log: tidelog.Log) -> None:
    quotes = log.queue("quotes", Ask, partitions=1, reply=Quote)
    with pytest.raises(tidelog.Timeout):
        quotes.ask_one(Ask(1), timeout=0.01, durable="till", id="slow")
    kept = quotes.ask(Ask(2), timeout=LONG, durable="till", limit=1)
    with responder(quotes.consumer(), double):
        with quotes.resume("till", timeout=LONG, limit=1) as resumed:
            assert [(message.correlation_id, message.value) for message in resumed] == [("slow", Quote(2))]
            with pytest.raises(ValueError, match="being resumed already"), quotes.resume("till", timeout=0) as one:
                quotes.resume("till", timeout=0)
            assert one.id is None
        assert [message.value for message in kept] == [Quote(4)]
        assert kept.late == 0, "of durable replies nothing is dropped"


def test_a_durable_name_is_one_channels(log: tidelog.Log) -> None:
    one, two = log.queue("one", Ask, reply=Quote), log.queue("two", Ask, reply=Quote)
    one.ask(Ask(1), durable="till").close()
    with pytest.raises(ValueError, match="belongs to the questions on 'one'"):
        two.ask(Ask(1), durable="till")
    log.queue("reply.taken", Ask)
    with pytest.raises(tidelog.SchemaMismatch, match="no reply channel: choose another name"):
        one.ask(Ask(1), durable="taken")
