"""Does every question get its answers, whoever dies, whoever lies, and however many ask at once?"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tidelog
from tests.unit.asking import LONG, Ask, Quote, Refusal, double, reply_channels, responder
from tidelog import envelope

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
