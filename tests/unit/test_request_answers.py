"""Whom may an answer go to, and whom never?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tidelog
from tests.unit.asking import Ask, Quote
from tests.unit.stores import opened

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
