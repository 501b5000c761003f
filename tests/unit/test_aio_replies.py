"""Do coroutines get the answers to their questions, beside threads that ask too?"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tests.unit.loops import LOOPS, all_of, give_up, run, until
from tidelog import aio
from tidelog.errors import ChannelNotFound, Closed, ReplyError, Timeout


@asynccontextmanager
async def answering(queue: aio.Queue[str], times: int = 1) -> AsyncIterator[None]:
    """A responder that answers in capitals, each question `times` times; "silent" never, "bad" with an error."""

    async def answer() -> None:
        async with queue.consumer() as questions:
            async for question in questions:
                if question.value == "bad":
                    await questions.reply(question, error=ValueError("no such word"))
                elif question.value != "silent":
                    for _ in range(times):
                        await questions.reply(question, question.value.upper())

    task = asyncio.create_task(answer())
    try:
        yield
    finally:
        await give_up(task)


@pytest.mark.parametrize("loop", LOOPS)
def test_questions_and_answers(tmp_path: Path, loop: str) -> None:
    async def main() -> None:
        async with aio.open(tmp_path / "log") as log:
            words = await log.queue("words", str, reply=str)
            assert words.reply is not None and words.reply.type_name == "str"
            async with answering(words):
                message = await words.ask_one("tea", timeout=20, id="q1")
                assert (message.value, message.correlation_id) == ("TEA", "q1")
                many = await all_of(*(words.ask_one(f"word {n}", timeout=20) for n in range(300)))
                assert [message.value for message in many] == [f"WORD {n}" for n in range(300)]
                error = await words.ask_one("bad", timeout=20)
                with pytest.raises(ReplyError, match="no such word"):
                    _ = error.value
                with pytest.raises(Timeout, match="responder"):
                    await words.ask_one("silent", timeout=0.05)
                async with words.ask("one", timeout=20, limit=1) as replies:
                    assert [message.value async for message in replies] == ["ONE"]
                    assert replies.closed
                replies = await words.ask("two", timeout=0.2)
                assert [message.value async for message in replies] == ["TWO"], "until the time is over"
                with pytest.raises(StopAsyncIteration):
                    await anext(replies)
            plain = await log.queue("plain")
            with pytest.raises(TypeError, match="reply="):
                await plain.ask_one(b"?")
            with pytest.raises(ValueError, match="limit"):
                await words.ask("x", limit=0)

    run(main, loop)


def test_late_answers_are_dropped_and_counted(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path / "log") as log:
            words = await log.queue("words", str, reply=str)
            async with answering(words, times=3):
                async with words.ask("tea", timeout=20, limit=3) as replies:
                    assert [message.value async for message in replies] == ["TEA"] * 3
                assert (await words.ask_one("one", timeout=20)).value == "ONE"
                async with words.ask("end", timeout=20, limit=3) as replies:
                    assert [message.value async for message in replies] == ["END"] * 3
                    assert replies.late == 2

    run(main)


@pytest.mark.parametrize("loop", LOOPS)
def test_threads_ask_beside_the_loop(tmp_path: Path, loop: str) -> None:
    """Whoever reads the mailbox hands out the others' answers; nobody waits for a reader that has gone."""

    async def main() -> None:
        async with aio.open(tmp_path / "log") as log:
            words = await log.queue("words", str, reply=str)
            answers: list[str] = []

            def ask(name: int) -> None:
                for number in range(60):
                    answers.append(words.sync_channel.ask_one(f"thread {name} {number}", timeout=30).value)

            async with answering(words):
                await words.ask_one("first", timeout=20)
                threads = [threading.Thread(target=ask, args=(name,)) for name in range(3)]
                for thread in threads:
                    thread.start()
                for number in range(60):
                    mine = await all_of(*(words.ask_one(f"task {number} {n}", timeout=30) for n in range(3)))
                    assert [message.value for message in mine] == [f"TASK {number} {n}" for n in range(3)]
                await until(lambda: not any(thread.is_alive() for thread in threads), 60)
            assert sorted(answers) == sorted(f"THREAD {name} {number}" for name in range(3) for number in range(60))

    run(main, loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_cancelled_wait_has_taken_no_answer(tmp_path: Path, loop: str) -> None:
    async def main() -> None:
        async with aio.open(tmp_path / "log") as log, AsyncExitStack() as stack:
            words = await log.queue("words", str, reply=str)
            replies = await stack.enter_async_context(words.ask("tea", timeout=60, limit=200))
            received = cancelled = 0
            while received < 200:
                if cancelled == 20:
                    await stack.enter_async_context(answering(words, times=200))
                task = asyncio.create_task(anext(replies))
                for _ in range(cancelled % 3):
                    await asyncio.sleep(0)
                if (cancelled + received) % 2:
                    await asyncio.sleep(0.0005)
                task.cancel()
                try:
                    assert (await task).value == "TEA"
                    received += 1
                except asyncio.CancelledError:
                    cancelled += 1
            assert cancelled >= 20
            with pytest.raises(StopAsyncIteration):
                await anext(replies)

    run(main, loop)


def test_cancelled_questions_leave_nothing_behind(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path / "log") as log:
            words = await log.queue("words", str, reply=str)
            async with answering(words):
                await words.ask_one("first", timeout=20)
                for turns in range(60):
                    task = asyncio.create_task(words.ask_one(f"{turns}", timeout=20))
                    for _ in range(turns % 5):
                        await asyncio.sleep(0)
                    await asyncio.sleep(0.0001 * (turns % 7))
                    await give_up(task)
                mailbox = words.sync_channel._exchange.mailboxes._own
                assert mailbox is not None and not mailbox._slots
                assert (await words.ask_one("last", timeout=20)).value == "LAST"

    run(main)


def test_replies_belong_to_one_task(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path / "log") as log:
            words = await log.queue("words", str, reply=str)
            async with words.ask("tea", timeout=20) as replies:
                task = asyncio.create_task(anext(replies))
                await asyncio.sleep(0.05)
                with pytest.raises(RuntimeError, match="another task"):
                    await anext(replies)
                await give_up(task)

    run(main)


def test_closing_or_dropping_ends_the_wait(tmp_path: Path) -> None:
    async def main() -> None:
        log = await aio.open(tmp_path / "log")
        words = await log.queue("words", str, reply=str)
        task = asyncio.create_task(words.ask_one("tea"))
        await until(lambda: words.sync_channel._exchange.mailboxes._own is not None)
        await asyncio.sleep(0.1)
        mailbox = words.sync_channel._exchange.mailboxes._own
        assert mailbox is not None
        await log.drop(mailbox.name)
        with pytest.raises(ChannelNotFound):
            await asyncio.wait_for(task, 20)
        task = asyncio.create_task(words.ask_one("tea"))
        await asyncio.sleep(0.1)
        await log.close()
        with pytest.raises(Closed):
            await asyncio.wait_for(task, 20)

    run(main)


def test_durable_answers_are_resumed(tmp_path: Path) -> None:
    questions = {"q1": "tea", "q2": "cup"}
    handled: list[tuple[str | None, str]] = []

    async def first() -> None:
        async with aio.open(tmp_path / "log") as log:
            words = await log.queue("words", str, reply=str)
            for id, word in questions.items():
                await (await words.ask(word, durable="till-3", id=id)).close()
            async with words.consumer(stop="end") as received:
                async for question in received:
                    await received.reply(question, question.value.upper())
            async with words.resume("till-3", timeout=20, limit=1) as replies:
                handled.extend([(message.correlation_id, message.value) async for message in replies])

    async def second() -> None:
        async with aio.open(tmp_path / "log") as log:
            words = await log.queue("words", str, reply=str)
            async with words.resume("till-3", timeout=20, limit=1) as replies:
                handled.extend([(message.correlation_id, message.value) async for message in replies])
            async with words.resume("till-3", timeout=0) as replies:
                assert [message async for message in replies] == []

    run(first)
    run(second)
    assert sorted(handled) == [(id, word.upper()) for id, word in questions.items()]
