"""Where does a reset put a group, and when is it refused?"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import tidelog
from tests.unit.group_kit import DAY, consuming, filled, read
from tidelog import ChannelNotFound, Locked, Log, OffsetOutOfRange
from tidelog.group import Group, Reset, Shift

# --- reset ---


def places(group: Group) -> list[int | None]:
    return [row.committed for row in group.offsets]


def test_every_place(tide: Log) -> None:
    topic = filled(tide)
    topic.trim(3, partition=2)
    reset = tide.groups.reset
    reset("audit", "earliest", channel="prices")
    assert places(tide.groups["audit"]) == [0, 0, 3]
    assert reset("audit", "latest") == [
        Reset("prices", 0, 0, 30),
        Reset("prices", 1, 0, 30),
        Reset("prices", 2, 3, 30),
    ]
    assert places(tide.groups["audit"]) == [30, 30, 30]
    reset("audit", DAY + timedelta(minutes=30))  # message 30 is offset 10 of partition 0
    assert places(tide.groups["audit"]) == [10, 10, 10]
    reset("audit", DAY + timedelta(minutes=31))
    assert places(tide.groups["audit"]) == [11, 10, 10]
    reset("audit", datetime.now(UTC) - (DAY + timedelta(minutes=44.5)))
    assert places(tide.groups["audit"]) == [15, 15, 15]
    reset("audit", timedelta(0))
    assert places(tide.groups["audit"]) == [30, 30, 30]
    assert reset("audit", 7, channel="prices", partition=1) == [Reset("prices", 1, 30, 7)]
    assert places(tide.groups["audit"]) == [30, 7, 30]
    reset("audit", Shift(-5))
    assert places(tide.groups["audit"]) == [25, 2, 25]
    reset("audit", Shift(3))
    assert places(tide.groups["audit"]) == [28, 5, 28]
    reset("audit", Shift(-1000))
    assert places(tide.groups["audit"]) == [0, 0, 3]
    reset("audit", Shift(1000), partition=0)
    assert places(tide.groups["audit"]) == [30, 0, 3]


def test_a_dry_run_changes_nothing(tide: Log) -> None:
    topic = filled(tide)
    read(topic, "audit", 10)
    before = tide.groups["audit"]
    planned = tide.groups.reset("audit", "latest", dry_run=True)
    assert [row.after for row in planned] == [30, 30, 30]
    assert [row.before for row in planned] == places(before)
    assert places(tide.groups["audit"]) == places(before)
    with topic.consumer("audit") as consumer:
        consumer.receive(timeout=5)
        with pytest.raises(Locked):  # it says what a reset would do, that it cannot too
            tide.groups.reset("audit", "latest", dry_run=True)


def test_a_consumer_goes_on_where_it_was_reset_to(tide: Log) -> None:
    topic = filled(tide, partitions=1)
    read(topic, "audit", 50)
    tide.groups.reset("audit", Shift(-20))
    with topic.consumer("audit") as consumer:
        assert consumer.receive(timeout=5).value == b"30"


def test_a_reset_is_on_disk(tmp_path: Path) -> None:
    store = tmp_path / "shop.log"
    code = """
import os, signal, sys, tidelog
log = tidelog.open(sys.argv[1], flush_interval=3600)
log.topic("prices", partitions=1).send_many([b"x"] * 50)
log.sync()
log.groups.reset("audit", 21, channel="prices")
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code, str(store)], check=False)
    (store / "shared").unlink()  # as after a power cut
    with tidelog.open(store) as log:
        assert places(log.groups["audit"]) == [21]


def test_who_has_members_is_not_reset(tmp_path: Path) -> None:
    store = tmp_path / "shop.log"
    with tidelog.open(store) as log:
        topic = filled(log)
        with topic.consumer("audit") as consumer:
            consumer.receive(timeout=5)
            for call in (lambda: log.groups.reset("audit", "earliest"), lambda: log.groups.delete("audit")):
                with pytest.raises(Locked, match="close its consumers") as caught:
                    call()
                assert str(os.getpid()) in caught.value.holder
        with consuming(store, "prices", "audit") as process:
            with pytest.raises(Locked) as caught:
                log.groups.reset("audit", "latest")
            assert str(process.pid) in caught.value.holder
            process.kill()
            process.wait()
            log.groups.reset("audit", "latest")  # its leases are nobody's
            assert places(log.groups["audit"]) == [30, 30, 30]
            with topic.consumer("audit") as consumer:
                topic.send(b"new", partition=1)
                assert consumer.receive(timeout=5).value == b"new"


def test_a_named_member_that_is_away_is_said_to_be(tide: Log) -> None:
    topic = filled(tide)
    with topic.consumer("audit", member="teller", member_timeout=1.0) as consumer:
        consumer.receive(timeout=5)
        with pytest.raises(Locked, match="close its consumers"):
            tide.groups.reset("audit", "earliest")
    for call in (lambda: tide.groups.reset("audit", "earliest"), lambda: tide.groups.delete("audit")):
        with pytest.raises(Locked, match="'teller' of the group 'audit' is away.*member_timeout") as caught:
            call()
        assert "close its consumers" not in str(caught.value) and caught.value.holder == "member 'teller'"
    deadline = time.monotonic() + 20
    while tide.groups["audit"].members:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    tide.groups.reset("audit", "earliest")
    assert places(tide.groups["audit"]) == [0, 0, 0]


def test_what_cannot_be_meant(tide: Log) -> None:
    filled(tide)
    tide.queue("orders", partitions=2).send(b"x")
    reset = tide.groups.reset
    with pytest.raises(ChannelNotFound, match="has read nothing"):
        reset("audit", "earliest")
    with pytest.raises(ChannelNotFound):
        reset("audit", "earliest", channel="nope")
    reset("audit", "earliest", channel="prices")
    for wrong, kind in (
        ("soon", ValueError),
        (7.5, TypeError),
        (True, TypeError),
        (None, TypeError),
        (Shift("7"), TypeError),  # type: ignore[arg-type]
        (datetime(2026, 1, 1), ValueError),
    ):
        with pytest.raises(kind):
            reset("audit", wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="of which partition"):
        reset("audit", 5)
    for offset in (-1, 31):
        with pytest.raises(OffsetOutOfRange, match=r"outside 0 \.\. 30"):
            reset("audit", offset, partition=0)
    with pytest.raises(ValueError, match="has no partition 3"):
        reset("audit", 5, partition=3)
    with pytest.raises(TypeError):
        reset("audit", 5, partition=True)
    with pytest.raises(ValueError, match="whose only group"):
        reset("audit", "latest", channel="orders")
    with pytest.raises(ValueError, match="no name of a group"):
        reset("", "latest", channel="prices")
    assert places(tide.groups["audit"]) == [0, 0, 0]
    assert [row.after for row in reset("orders", "latest", channel="orders")] == [
        bounds[1] for bounds in map(tide["orders"].bounds, range(2))
    ]


def test_several_channels(tide: Log) -> None:
    filled(tide, "a", partitions=1, count=10)
    filled(tide, "b", partitions=2, count=10)
    for name in ("a", "b"):
        tide.groups.reset("audit", "earliest", channel=name)
    assert [row[:2] for row in tide.groups.reset("audit", "latest")] == [("a", 0), ("b", 0), ("b", 1)]
    with pytest.raises(ValueError, match="of which channel"):
        tide.groups.reset("audit", 3, partition=0)
    tide.groups.reset("audit", 3, channel="a")
    assert places(tide.groups["audit"]) == [3, 5, 5]


def test_partitions_that_came_later_are_reset_too(tide: Log) -> None:
    topic = filled(tide, partitions=1, count=10)
    read(topic, "audit", 5)
    topic.configure(partitions=3)
    topic.send(b"new", partition=2)
    assert [row[1:] for row in tide.groups.reset("audit", "latest")] == [(0, 5, 10), (1, None, 0), (2, None, 1)]
