"""Does what is sent stand in the log byte for byte as the format says, whichever way it took there?

The oracle (tests/unit/raw_batches.py) writes record batches by the layout of the format. A lone message has ways of its
own: without anything, with headers, with an id, through a producer with a name; each puts its bytes together
differently, and shorter messages otherwise than longer ones. So lengths stand near every border that there is.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import tidelog
from tests.unit.raw_batches import BASE_MS, Headers, framed, record
from tidelog.log import Log

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Message:
    """What is given to send(); `id` None: none."""

    value: bytes
    key: bytes | None = None
    headers: Headers = ()
    id: str | None = None
    later_ms: int = 0

    def encoded(self, offset: int) -> bytes:
        """The batch that it becomes."""
        headers = list(self.headers)
        if self.id is not None:
            headers.append(("message-id", self.id.encode()))
        one = record(0, self.value, self.key, headers)
        return framed([one], base_offset=offset, epoch_of_leader=0, first_ms=BASE_MS + self.later_ms)


def around(*borders: int) -> st.SearchStrategy[int]:
    """Numbers near each of these."""
    return st.sampled_from(borders).flatmap(lambda border: st.integers(max(border - 3, 0), border + 3))


# One, two and three bytes of length; 16 to 256: copied without a call; 768 and 4,096: summed in pieces; 4,000: longer
# ones are put together otherwise; 65,536: taken out of the fast way.
LENGTHS = st.one_of(st.integers(0, 300), around(64, 256, 768, 3900, 4000, 4096, 8192, 65536))
SHORT = st.one_of(st.integers(0, 40), around(64, 128, 256))


@st.composite
def _bytes(draw: st.DrawFn, lengths: st.SearchStrategy[int]) -> bytes:
    """So many of them, different at every place of a message."""
    length, first = draw(lengths), draw(st.integers(0, 255))
    return bytes((first + 7 * place) & 0xFF for place in range(length))


NAMES = st.text(st.characters(codec="utf-8"), max_size=20).filter(lambda name: name != "message-id")
IDS = st.one_of(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=70), st.sampled_from(["i", "o-17", "é" * 90])
)
MESSAGES = st.builds(
    Message,
    value=_bytes(LENGTHS),
    key=st.none() | _bytes(SHORT),
    headers=st.lists(st.tuples(NAMES, st.none() | _bytes(SHORT)), max_size=3),
    id=st.none() | IDS,
    later_ms=st.integers(0, 3) | st.integers(-BASE_MS, 2**41),
)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    with tidelog.open(tmp_path / "shop.log", flush_interval=3600) as log:
        yield log


_numbers = itertools.count()


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(messages=st.lists(MESSAGES, min_size=1, max_size=12, unique_by=lambda message: message.id or object()))
@example(messages=[Message(b"v" * length, id=f"{length}") for length in range(3960, 4010)])  # near what fits two bytes
@example(messages=[Message(b"v" * length, id=f"{length}") for length in range(30, 70)])  # near what fits one
def test_a_lone_message(log: Log, messages: list[Message], tmp_path: Path) -> None:
    channel = log.topic(f"t{next(_numbers)}", partitions=1)
    for message in messages:
        channel.send(
            message.value,
            key=message.key,
            headers=list(message.headers) or None,
            id=message.id,
            timestamp=EPOCH + timedelta(milliseconds=BASE_MS + message.later_ms),
        )
    expected = b"".join(message.encoded(offset) for offset, message in enumerate(messages))
    file = tmp_path / "shop.log" / f"{channel.name}-0" / f"{0:020}.log"
    with file.open("rb") as opened:
        found = opened.read(len(expected) + 100)
    assert found[: len(expected)] == expected
    assert not any(found[len(expected) :])
    log.drop(channel.name)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(messages=st.lists(MESSAGES, min_size=2, max_size=30, unique_by=lambda message: message.id or object()))
def test_many_messages(log: Log, messages: list[Message], tmp_path: Path) -> None:
    channel = log.topic(f"t{next(_numbers)}", partitions=1)
    channel.send_many(
        [message.value for message in messages],
        keys=[message.key for message in messages],
        headers=[list(message.headers) or None for message in messages],
        ids=[message.id for message in messages],
        timestamp=[EPOCH + timedelta(milliseconds=BASE_MS + message.later_ms) for message in messages],
    )
    records = []
    for delta, message in enumerate(messages):
        headers = list(message.headers) + ([] if message.id is None else [("message-id", message.id.encode())])
        later_ms = message.later_ms - messages[0].later_ms
        records.append(record(delta, message.value, message.key, headers, later_ms))
    last_ms = max(message.later_ms for message in messages)
    expected = framed(records, epoch_of_leader=0, first_ms=BASE_MS + messages[0].later_ms, last_ms=BASE_MS + last_ms)
    file = tmp_path / "shop.log" / f"{channel.name}-0" / f"{0:020}.log"
    with file.open("rb") as opened:
        found = opened.read(len(expected) + 100)
    assert found[: len(expected)] == expected
    assert not any(found[len(expected) :])
    log.drop(channel.name)
