"""Do questions survive the death of who asks and who answers?"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import tidelog
from tests.unit.asking import LONG, Ask, Quote, double, reply_channels, responder
from tidelog import envelope
from tidelog.patterns import mailboxes

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
