"""How do questions end when something goes away before the answer?"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import tidelog
from tests.unit.asking import LONG, Ask, Quote, double, reply_channels, responder
from tidelog._native import Sender

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
