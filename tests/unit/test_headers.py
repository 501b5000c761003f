"""Are headers an ordered mapping that keeps everything a message can carry?"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.stores import opened
from tidelog import _native as n

PAIRS = st.lists(st.tuples(st.text(max_size=300), st.one_of(st.none(), st.binary(max_size=300))), max_size=10)


def test_the_last_one_wins_and_all_keeps_every_one() -> None:
    headers = n.Headers([("a", b"1"), ("b", "zwei"), ("a", b"3"), ("c", None)])
    assert dict(headers) == {"a": b"3", "b": b"zwei", "c": b""}
    assert list(headers) == ["a", "b", "c"]
    assert headers.all == [("a", b"1"), ("b", b"zwei"), ("a", b"3"), ("c", None)]
    assert len(headers) == 3
    assert "a" in headers and "x" not in headers
    assert headers.get("x") is None and headers.get("x", b"d") == b"d"
    assert list(headers.keys()) == ["a", "b", "c"] and list(headers.values()) == [b"3", b"zwei", b""]
    assert isinstance(headers, Mapping)
    with pytest.raises(KeyError):
        headers["x"]
    match headers:
        case {"b": value}:
            assert value == b"zwei"
        case _:
            pytest.fail("headers match mapping patterns")


def test_they_are_values() -> None:
    headers = n.Headers([("a", b"1"), ("a", b"2")])
    assert headers == {"a": b"2"} and headers != {"a": b"1"}
    assert headers == n.Headers(headers.all) and headers != n.Headers([("a", b"2")])
    assert pickle.loads(pickle.dumps(headers)) == headers == copy.copy(headers)
    assert repr(headers) == "Headers([('a', b'1'), ('a', b'2')])"
    assert n.Headers() == {} and n.Headers({"x": "y"}).all == [("x", b"y")]
    headers.all.clear()
    assert len(headers) == 1
    with pytest.raises(TypeError):
        hash(headers)


@pytest.mark.parametrize("pairs", [[(1, b"")], [("a", 1)], [("a", 1.5)], [("a", ["x"])], 3])
def test_other_names_and_values_are_refused(pairs: Any) -> None:
    with pytest.raises(TypeError):
        n.Headers(pairs)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(PAIRS, min_size=1, max_size=5))
def test_what_is_sent_arrives(tmp_path: Path, many: list[list[tuple[str, bytes | None]]]) -> None:
    many = [
        [(name.encode(errors="surrogateescape").decode(), value) for name, value in pairs if _utf8(name)]
        for pairs in many
    ]
    with opened(tmp_path / "s") as log:
        start = log.parts[0].bounds()[1]
        sender = log.sender()
        for pairs in many:
            sender.send(b"", headers=pairs)
        sender.send_many([b""] * len(many), headers=many)
        reader = log.reader()
        reader._seek(0, start)
        got = []
        while len(got) < 2 * len(many):
            got += [message.headers.all for message in reader.receive_many(100, 5.0)]
        assert got == many + many


def _utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def test_names_that_are_not_utf8_pass_through(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as log:
        log.sender().send(b"", headers=[("caf\udce9", "caf\udce9")])
        message = log.reader().receive(5.0)
        assert message.headers.all == [("caf\udce9", b"caf\xe9")]


def test_an_id_travels_as_a_header(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as log:
        sender = log.sender()
        sender.send(
            b"1",
            id="web-77",
            headers={"src": "web", "correlation-id": "c1", "reply-to": "r", "message-kind": "document"},
        )
        sender.send(b"2")
        first, second = log.reader().receive_many(10, 5.0)
        assert first.headers == {
            "src": b"web",
            "correlation-id": b"c1",
            "reply-to": b"r",
            "message-kind": b"document",
            "message-id": b"web-77",
        }
        assert (first.id, first.correlation_id, first.reply_to, first.kind) == ("web-77", "c1", "r", "document")
        assert (second.id, second.correlation_id, second.reply_to, second.kind) == ("ch-0-1", None, None, "event")
        with pytest.raises(TypeError, match="str"):
            sender.send(b"", id=7)  # type: ignore[arg-type]
