"""Do options and URLs mean one thing each, and does every mistake get an answer that helps?"""

from __future__ import annotations

import dataclasses
import math
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidelog import config as c


@pytest.mark.parametrize(
    ("value", "ms"),
    [
        (0, 0), (1, 1000), (1.5, 1500), (0.007, 7), (0.0011, 2), (1e-9, 1), (1e-12, 1),
        (timedelta(days=7), 604_800_000), (timedelta(microseconds=1), 1), (True, None), ("1", None), (None, None),
    ],
)  # fmt: skip
def test_durations(value: Any, ms: int | None) -> None:
    if ms is None:
        with pytest.raises(TypeError, match="wait is a number of seconds or a timedelta"):
            c.duration_ms(value, "wait")
    else:
        assert c.duration_ms(value, "wait") == ms


@pytest.mark.parametrize("value", [-1, -0.5, math.inf, math.nan, 1e12, 10**30, timedelta(days=-1), timedelta.max])
def test_durations_out_of_range(value: Any) -> None:
    with pytest.raises(ValueError, match="too (long|short)"):
        c.duration_ms(value, "wait")


def test_a_small_duration_is_not_none() -> None:
    with pytest.raises(ValueError, match=r"wait=0 is too short: at least 0\.001 seconds"):
        c.duration_ms(0, "wait", least_ms=1)


def test_store_options() -> None:
    default = c.StoreOptions()
    assert (default.flush_interval_ms, default.lock_timeout_ms, default.segment_bytes) == (1000, 30_000, 1 << 30)
    assert default == c.StoreOptions.of()
    given_options = c.StoreOptions.of(flush_interval=0.25, lock_timeout=timedelta(minutes=1), segment_bytes=1 << 20)
    assert given_options == c.StoreOptions(flush_interval_ms=250, lock_timeout_ms=60_000, segment_bytes=1 << 20)
    with pytest.raises(dataclasses.FrozenInstanceError):
        default.flush_interval_ms = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    "wrong",
    [{"segment_bytes": 100}, {"segment_bytes": 1 << 31}, {"flush_interval": 0}, {"lock_timeout": -1}],
)
def test_store_options_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        c.StoreOptions.of(**wrong)
    with pytest.raises(TypeError, match="segment_bytes is an int"):
        c.StoreOptions(segment_bytes=1e9)  # type: ignore[arg-type]


def test_retention() -> None:
    assert c.parse_retention(None) == (-1, -1, False)
    assert c.parse_retention("consumed") == (-1, -1, True)
    assert c.parse_retention(timedelta(days=7)) == (604_800_000, -1, False)
    assert c.parse_retention(10**9) == (-1, 10**9, False)
    for wrong in (True, 1.5, "7d", b"consumed"):
        with pytest.raises(TypeError, match="give a timedelta for an age, an int for bytes"):
            c.parse_retention(wrong)  # type: ignore[arg-type]
    for out_of_range in (0, -1, 1 << 63, timedelta(0)):
        with pytest.raises(ValueError, match="retention"):
            c.parse_retention(out_of_range)


def test_channel_options() -> None:
    queue, topic = c.ChannelOptions.of("queue"), c.ChannelOptions.of("topic", partitions=12, compression="lz4")
    assert (queue.carries, queue.partitions, queue.max_message_bytes) == ("command", None, 16 << 20)
    assert (queue.compression, queue.codec, queue.retention_ms) == ("none", None, -1)
    assert (topic.carries, topic.partitions, topic.compression) == ("event", 12, "lz4")
    assert c.ChannelOptions.of("topic", compression="uncompressed").compression == "none"
    kept = c.ChannelOptions.of("topic", retention=timedelta(hours=1), carries="document", max_message_bytes=256 << 20)
    assert (kept.retention_ms, kept.carries, kept.max_message_bytes) == (3_600_000, "document", 256 << 20)


@pytest.mark.parametrize(
    ("wrong", "because"),
    [
        ({"partitions": 0}, "partitions=0 is outside 1"),
        ({"partitions": 100_001}, "partitions"),
        ({"carries": "thing"}, "use one of document, command, event"),
        ({"max_message_bytes": (256 << 20) + 1}, "max_message_bytes"),
        ({"max_message_bytes": 0}, "max_message_bytes"),
        ({"compression": "lzma"}, "use one of none, gzip"),
        ({"segment_bytes": 1}, "segment_bytes"),
    ],
)
def test_channel_options_out_of_range(wrong: dict[str, Any], because: str) -> None:
    with pytest.raises(ValueError, match=because):
        c.ChannelOptions.of("queue", **wrong)


@pytest.mark.parametrize("wrong", [True, 1.0, "4"])
def test_channel_options_of_wrong_types(wrong: Any) -> None:
    with pytest.raises(TypeError, match="partitions is an int"):
        c.ChannelOptions.of("queue", partitions=wrong)


# --- URLs ---


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("shop.log", "shop.log"),
        ("/var/lib/shop.log", "/var/lib/shop.log"),
        ("what?is#this%20", "what?is#this%20"),
        ("odd:name", "odd:name"),
        ("./memory:", "./memory:"),
        (Path("a") / "b", "a/b"),
        (Path("memory:"), "memory:"),
        ("tidelog:///var/shop.log", "/var/shop.log"),
        ("tidelog:///var/my%20shop%23%3F", "/var/my shop#?"),
    ],
)
def test_paths(url: str | os.PathLike[str], path: str) -> None:
    assert c.parse_url(url, {}) == c.Target(engine="embedded", path=path)


def test_url_options() -> None:
    target = c.parse_url("tidelog:///s?flush_interval=0.5&segment_bytes=1048576", {})
    assert target == c.Target(engine="embedded", path="/s", options={"flush_interval": 0.5, "segment_bytes": 1 << 20})
    assert c.StoreOptions.of(**target.options).flush_interval_ms == 500
    assert c.parse_url("memory:", {}) == c.Target(engine="memory")
    assert c.parse_url("memory:?lock_timeout=2", {}).options == {"lock_timeout": 2.0}


@pytest.mark.parametrize(
    ("url", "servers", "tls"),
    [
        ("kafka://h", ("h:9092",), False),
        ("kafka://h1:9092,h2:1/", ("h1:9092", "h2:1"), False),
        ("kafkas://h.example.org:9093", ("h.example.org:9093",), True),
        ("kafka://[::1]:9094,[::2]", ("[::1]:9094", "[::2]:9092"), False),
        ("kafka://127.0.0.1:09092", ("127.0.0.1:9092",), False),
    ],
)
def test_kafka(url: str, servers: tuple[str, ...], tls: bool) -> None:
    assert c.parse_url(url, {}) == c.Target(engine="kafka", servers=servers, tls=tls)


def test_kafka_options() -> None:
    options = c.parse_url("kafka://h?ack=synced&sasl=scram-sha-256&client_id=till%203", {}).options
    assert options == {"ack": "synced", "sasl": "scram-sha-256", "client_id": "till 3"}


def test_the_environment() -> None:
    assert c.parse_url(None, {"TIDELOG_URL": "kafka://h"}).servers == ("h:9092",)
    assert c.parse_url("a", {"TIDELOG_URL": "kafka://h"}).path == "a"
    for environ in ({}, {"TIDELOG_URL": ""}):
        with pytest.raises(ValueError, match="TIDELOG_URL is not set: give a path, tidelog:///"):
            c.parse_url(None, environ)


def test_the_environment_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDELOG_URL", "memory:")
    assert c.parse_url(None).engine == "memory"


@pytest.mark.parametrize(
    ("url", "because"),
    [
        ("", "names no store"),
        ("a\0b", "names no store"),
        ("http://h", "scheme 'http' is unknown: give a path"),
        ("Kafka://h", "scheme 'Kafka' is unknown"),
        ("tidelog://host/path", "three slashes"),
        ("tidelog:relative", "three slashes"),
        ("tidelog:/abs", "three slashes"),
        ("tidelog:///a#b", "%23"),
        ("tidelog:///a%00b", "no NUL"),
        ("tidelog:///a?flush=1", "'flush' is unknown: did you mean 'flush_interval'"),
        ("tidelog:///a?zzz=1", "'zzz' is unknown: there are flush_interval, lock_timeout"),
        ("tidelog:///a?segment_bytes=1&segment_bytes=2", "given twice"),
        ("tidelog:///a?segment_bytes=1GiB", "segment_bytes='1GiB' is wrong"),
        ("tidelog:///a?segment_bytes=1", "segment_bytes=1 is outside"),
        ("tidelog:///a?flush_interval=nan", "flush_interval=nan"),
        ("tidelog:///a?flush_interval", "name=value"),
        ("memory:x", "has no name"),
        ("memory://x", "has no name"),
        ("kafka:h:9092", "two slashes and a server"),
        ("kafka://", "two slashes and a server"),
        ("kafka://h1,,h2", "is no server"),
        ("kafka://::1", "is no server"),
        ("kafka://h:0", "'0' is no port"),
        ("kafka://h:99999", "is no port"),
        ("kafka://h:x", "is no port"),
        ("kafka://h:", "is no port"),
        ("kafka://h/topic", "nothing but options"),
        ("kafka://h?ack=all", "ack='all' is wrong: use one of written, synced"),
        ("kafka://h?segment_bytes=1", "unknown"),
    ],
)
def test_urls_that_mean_nothing(url: str, because: str) -> None:
    with pytest.raises(ValueError, match=because):
        c.parse_url(url, {})


def test_secrets_are_not_repeated() -> None:
    with pytest.raises(ValueError, match="kafka_config") as caught:
        c.parse_url("kafkas://me:hunter2@h:9093", {})
    assert "hunter2" not in str(caught.value)


def test_other_types() -> None:
    with pytest.raises(TypeError, match="a store is a str or a path, not int: give a path"):
        c.parse_url(3, {})  # type: ignore[arg-type]


@given(st.text(max_size=60), st.sampled_from(["", "tidelog://", "tidelog:///", "memory:", "kafka://", "kafkas://h?"]))
def test_any_text_is_a_target_or_a_value_error(text: str, prefix: str) -> None:
    try:
        target = c.parse_url(prefix + text, {})
    except ValueError:
        return
    assert target.engine in ("embedded", "memory", "kafka")
    assert (target.path is not None) == (target.engine == "embedded")
    assert bool(target.servers) == (target.engine == "kafka")
