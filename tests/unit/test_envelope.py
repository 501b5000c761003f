"""Are ids unique and in the order of time, and do headers carry what they should?"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
import uuid

import pytest

import tidelog
from tidelog import envelope

TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_an_id_is_a_uuid_of_version_7_and_of_now() -> None:
    before = time.time_ns() // 1_000_000
    made = envelope.new_id()
    after = time.time_ns() // 1_000_000
    parsed = uuid.UUID(made)
    assert str(parsed) == made
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    assert before <= parsed.int >> 80 <= after
    assert re.fullmatch(r"[0-9a-f-]{36}", made)


def test_ids_sort_by_time() -> None:
    ids = []
    for _ in range(200):
        ids.append(envelope.new_id())
        deadline = time.time_ns() + 1000  # two steps of what an id can tell apart
        while time.time_ns() < deadline:
            pass
    assert ids == sorted(ids)


def test_ids_of_many_threads_are_unique() -> None:
    found: list[str] = []

    def make() -> None:
        found.extend([envelope.new_id() for _ in range(5_000)])

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == len(found) == 20_000


def test_ids_of_a_forked_child_are_its_own() -> None:
    code = """
import os, sys
from tidelog.envelope import new_id
new_id()
read, write = os.pipe()
if os.fork() == 0:
    os.write(write, "\\n".join(new_id() for _ in range(500)).encode())
    os._exit(0)
mine = {new_id() for _ in range(500)}
os.wait()
theirs = set(os.read(read, 65536).decode().split())
assert len(mine) == len(theirs) == 500 and not mine & theirs
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def received(channel: tidelog.Queue[bytes]) -> list[tidelog.Message[bytes]]:
    with channel.consumer(stop="end") as consumer:
        return list(consumer)


def test_what_a_message_says_about_itself() -> None:
    with tidelog.open("memory:") as log:
        orders = log.queue("orders", partitions=1)
        orders.send(b"plain")
        orders.send(b"full", id="web-1", headers={"message-kind": "event", "attempt": "3", "correlation-id": "c"})
        orders.send(b"spring", headers={"kafka_replyTopic": b"answers"})
        orders.send(b"both", headers={"kafka_replyTopic": b"answers", "reply-to": "mine"})
        orders.send(b"odd", headers={"message-kind": "poem"})
        plain, full, spring, both, odd = received(orders)
    assert (plain.id, plain.kind, plain.attempt) == ("orders-0-0", "command", 1)
    assert (plain.correlation_id, plain.reply_to) == (None, None)
    assert len(plain.headers) == 0, "headers are written only where they are needed"
    assert (full.id, full.kind, full.attempt, full.correlation_id) == ("web-1", "event", 3, "c")
    assert (spring.reply_to, both.reply_to) == ("answers", "mine")
    assert odd.kind == "command", "there are three kinds"


@pytest.mark.parametrize(
    ("written", "read"),
    [("1", 1), ("17", 17), ("0", 1), ("-3", 1), ("", 1), ("two", 1), ("1.5", 1), ("9" * 40, 1), ("٣", 1), (b"\xff", 1)],
)
def test_attempts_that_strangers_write(written: str | bytes, read: int) -> None:
    with tidelog.open("memory:") as log:
        orders = log.queue("orders", partitions=1)
        orders.send(b"", headers={"attempt": written})
        assert received(orders)[0].attempt == read


def test_own_headers_stand_against_the_callers() -> None:
    own = [("correlation-id", "a")]
    assert envelope.enclose(own, None, None) == own
    merged = envelope.enclose(own, {"correlation-id": "b", "x": "1"}, None)
    assert merged == [("correlation-id", "a"), ("x", "1")]
    assert envelope.enclose(own, [("x", "1"), ("x", "2")], None) == [*own, ("x", "1"), ("x", "2")]
    assert own == [("correlation-id", "a")], "the argument is left as it was"


def test_a_trace_is_passed_on_and_never_made() -> None:
    with tidelog.open("memory:") as log:
        orders = log.queue("orders", partitions=1)
        orders.send(b"", headers={"traceparent": TRACE, "tracestate": b"k=v"})
        orders.send(b"")
        traced, untraced = received(orders)
    assert envelope.enclose([], None, untraced) == []
    assert envelope.enclose([], None, traced) == [("traceparent", TRACE), ("tracestate", b"k=v")]
    given = {"traceparent": b"another"}
    assert envelope.enclose([], given, traced) == [("traceparent", b"another")]


def test_the_current_message_is_each_threads_own() -> None:
    with tidelog.open("memory:") as log:
        orders = log.queue("orders", partitions=1)
        orders.send(b"")
        message = received(orders)[0]
    token = envelope.current.set(message)
    seen: list[object] = []
    thread = threading.Thread(target=lambda: seen.append(envelope.current.get()))
    thread.start()
    thread.join()
    assert envelope.current.get() is message
    envelope.current.reset(token)
    assert seen == [None] and envelope.current.get() is None


def test_importing_it_costs_nothing() -> None:
    code = (
        "import sys; import tidelog.envelope; assert 'tidelog._native' not in sys.modules and 'uuid' not in sys.modules"
    )
    environment = dict(os.environ)
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env=environment)
