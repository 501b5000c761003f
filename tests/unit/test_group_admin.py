"""Does `log.groups` tell the truth about groups, and does a reset store exactly what was asked for?

Offsets, lags and places are compared with lists kept here; other processes are real ones. Imports the public API, and
the compiled Membership where a group must be seen half way through a rebalance."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import tidelog
from tests.unit.group_kit import DAY, consuming, filled, read
from tidelog import ChannelNotFound, Log
from tidelog._native import Membership

# --- looking ---


def test_groups_are_a_mapping(tide: Log) -> None:
    topic = filled(tide)
    assert (list(tide.groups), len(tide.groups), tide.groups.describe()) == ([], 0, [])
    read(topic, "billing", 1)
    read(topic, "audit", 1)
    assert list(tide.groups) == ["audit", "billing"]
    assert "audit" in tide.groups
    assert "nope" not in tide.groups
    assert 7 not in tide.groups  # type: ignore[comparison-overlap]
    assert tide.groups.get("nope") is None
    assert [group.name for group in tide.groups.describe()] == ["audit", "billing"]
    for name in ("nope", ""):
        with pytest.raises(ChannelNotFound, match="there is no group"):
            tide.groups[name]


def test_lag_in_messages_and_in_seconds(tide: Log) -> None:
    topic = filled(tide)
    with topic.consumer("audit", delivery="manual") as consumer:
        consumer.commit(consumer.receive_many(1, timeout=1))  # that there is a group
    for number in range(3):
        tide.groups.reset("audit", 10, partition=number)
    group = tide.groups["audit"]
    assert (group.state, group.members) == ("empty", ())
    assert [row[:3] for row in group.offsets] == [("prices", number, 10) for number in range(3)]
    assert [(row.log_start, row.log_end, row.lag) for row in group.offsets] == [(0, 30, 20)] * 3
    assert group.lag == 60
    for row in group.offsets:  # offset 10 of partition p is message 30 + p
        oldest = DAY + timedelta(minutes=30 + row.partition)
        assert row.lag_seconds == pytest.approx((datetime.now(UTC) - oldest).total_seconds(), abs=5)
        assert (row.member, row.owner_pid) == (None, 0)
        assert row.committed_at is not None
        assert abs((row.committed_at - datetime.now(UTC)).total_seconds()) < 60
    assert group.lag_seconds == max(row.lag_seconds or 0 for row in group.offsets)
    tide.groups.reset("audit", "latest")
    group = tide.groups["audit"]
    assert (group.lag, group.lag_seconds) == (0, 0.0)
    topic.send(b"from the future", partition=0, timestamp=datetime.now(UTC) + timedelta(hours=1))
    group = tide.groups["audit"]
    assert (group.lag, group.lag_seconds) == (1, 0.0)


def test_a_group_that_committed_nothing_is_behind_everything(tide: Log) -> None:
    topic = filled(tide)
    with topic.consumer("audit", delivery="manual") as consumer:
        consumer.receive(timeout=1)
    topic.trim(4, partition=1)
    group = tide.groups["audit"]
    assert [row.committed for row in group.offsets] == [None] * 3
    assert [row.lag for row in group.offsets] == [30, 26, 30]
    tide.groups.reset("audit", "earliest")
    topic.trim(9, partition=1)  # past what is committed
    assert [row.lag for row in tide.groups["audit"].offsets] == [30, 21, 30]


def test_partitions_that_nobody_has_had_are_behind_too(tmp_path: Path) -> None:
    with tidelog.open(tmp_path / "shop.log") as log:
        topic = filled(log)
        read(topic, "audit", 1)
        (first,) = [row.partition for row in log.groups["audit"].offsets if row.committed is not None]
        expected = [(number, 1, 29) if number == first else (number, None, 30) for number in range(3)]
        assert [(row.partition, row.committed, row.lag) for row in log.groups["audit"].offsets] == expected
    with tidelog.open(tmp_path / "shop.log") as log:  # leases that committed nothing ended with the last process
        assert [(row.partition, row.committed, row.lag) for row in log.groups["audit"].offsets] == expected
        log["prices"].configure(partitions=4)
        log["prices"].send_many([b"x"] * 5, partition=3)
        assert [row[:3] for row in log.groups["audit"].offsets][3] == ("prices", 3, None)
        assert log.groups["audit"].lag == sum(row.lag for row in log.offsets()) == 29 + 30 + 30 + 5
        with log["prices"].consumer("audit", stop="end") as consumer:  # type: ignore[attr-defined]
            assert len(list(consumer)) == 29 + 30 + 30 + 5


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_the_oldest_message_is_found_inside_a_batch(tide: Log, compression: str) -> None:
    topic = tide.topic("packed", partitions=1, compression=compression)
    topic.send_many([b"x"] * 50, timestamp=[DAY + timedelta(hours=hour) for hour in range(50)])
    tide.groups.reset("audit", 20, channel="packed")
    (row,) = tide.groups["audit"].offsets
    expected = (datetime.now(UTC) - (DAY + timedelta(hours=20))).total_seconds()
    assert row.lag_seconds == pytest.approx(expected, abs=5)


def test_damage_does_not_hide_a_group(tmp_path: Path) -> None:
    with tidelog.open(tmp_path / "shop.log") as log:
        topic = log.topic("prices", partitions=1)
        for _ in range(10):
            topic.send(b"something to find" * 10)
        log.groups.reset("audit", "earliest", channel="prices")
    file = next((tmp_path / "shop.log" / "prices-0").glob("*.log"))
    found = file.read_bytes()
    at = found.index(b"something")
    file.write_bytes(found[:at] + b"anything!" + found[at + 9 :])
    with tidelog.open(tmp_path / "shop.log") as log:
        (row,) = log.groups["audit"].offsets
        assert (row.lag, row.lag_seconds) == (10, None)
        assert log.groups["audit"].lag_seconds == 0.0


# --- members ---


def test_members_of_one_process(tide: Log) -> None:
    topic = filled(tide)
    with topic.consumer("audit", member="first") as first:
        first.receive(timeout=5)
        with topic.consumer("audit") as second:
            while len(second.assignment) == 0 or len(first.assignment) + len(second.assignment) != 3:
                first.receive_many(1, timeout=0.05)
                second.receive_many(1, timeout=0.05)
            group = tide.groups["audit"]
            assert group.state == "stable"
            assert [(one.name, one.pid, one.away, one.channels) for one in group.members] == [
                ("first", os.getpid(), False, ("prices",)),
                (None, os.getpid(), False, ("prices",)),
            ]
            assert [sorted(one.partitions) for one in group.members] == [
                sorted(first.assignment),
                sorted(second.assignment),
            ]
            owners = {one.id: one for one in group.members}
            for row in group.offsets:
                assert row.member is not None
                assert (row.channel, row.partition) in owners[row.member].partitions
                assert row.owner_pid == os.getpid()
        while len(first.assignment) != 3:
            first.receive_many(1, timeout=0.05)
        assert [len(one.partitions) for one in tide.groups["audit"].members] == [3]
    assert tide.groups["audit"].state in ("empty", "stable")  # a name waits to come back


def test_a_group_between_two_assignments_is_rebalancing(tide: Log) -> None:
    topic = filled(tide)
    read(topic, "audit", 1)
    engine = tide.engine
    membership = Membership(
        engine.store,  # type: ignore[attr-defined]
        "audit",
        channels=[engine.definition("prices").local_id],
        name=None,
        strategy="sticky",
        max_processing=None,
        away=1.0,
    )
    try:
        group = tide.groups["audit"]
        assert group.state == "rebalancing"
        assert [one.id for one in group.members] == [membership.id]
    finally:
        membership.leave()
    assert tide.groups["audit"].state == "empty"


def test_a_member_of_another_process_until_it_dies(tmp_path: Path) -> None:
    store = tmp_path / "shop.log"
    with tidelog.open(store) as log:
        filled(log)
        with consuming(store, "prices", "audit") as process:
            group = log.groups["audit"]
            (member,) = group.members
            assert (group.state, member.pid, member.away) == ("stable", process.pid, False)
            assert [row.owner_pid for row in group.offsets] == [process.pid] * 3
            process.kill()
            process.wait()
            group = log.groups["audit"]  # nobody is left who would sweep the table
            assert (group.state, group.members) == ("empty", ())


def test_a_named_member_that_dies_is_away(tmp_path: Path) -> None:
    store = tmp_path / "shop.log"
    with tidelog.open(store) as log:
        filled(log)
        with consuming(store, "prices", "audit", "teller") as process:
            process.kill()
            process.wait()
            (member,) = log.groups["audit"].members
            assert (member.name, member.away) == ("teller", True)


# --- delete ---


def test_a_deleted_group_is_gone(tide: Log) -> None:
    topic = filled(tide)
    read(topic, "audit", 10)
    read(topic, "billing", 10)
    tide.groups.delete("audit")
    assert list(tide.groups) == ["billing"]
    assert [row.group for row in tide.offsets()] == ["billing"] * 3
    with pytest.raises(ChannelNotFound, match="there is no group"):
        tide.groups.delete("audit")
    read(topic, "audit", 1)  # and comes anew
    assert sum(row.committed is not None for row in tide.groups["audit"].offsets) == 1


def test_a_deleted_group_does_not_come_back(tmp_path: Path) -> None:
    """Neither by opening again nor after a power cut, which leaves what the checkpoint holds."""
    store = tmp_path / "shop.log"
    for kill in ("", "os.kill(os.getpid(), signal.SIGKILL)"):
        code = f"""
import os, signal, sys, tidelog
with tidelog.open(sys.argv[1], flush_interval=3600) as log:
    log.topic("prices", partitions=2).send(b"x")
    log.groups.reset("audit", "latest", channel="prices")
    log.groups.reset("billing", "latest", channel="prices")
    log.groups.delete("audit")
    {kill}
"""
        subprocess.run([sys.executable, "-c", code, str(store)], check=False)
        if kill:
            (store / "shared").unlink()
        with tidelog.open(store) as log:
            assert list(log.groups) == ["billing"]


def test_lag_follows_a_model(tide: Log) -> None:
    """Sends, commits, trims, resets at random; lag against lists."""
    dice = random.Random(5)
    topic = tide.topic("prices", partitions=2)
    ends, starts, committed = [0, 0], [0, 0], [0, 0]
    tide.groups.reset("audit", "earliest", channel="prices")
    for _ in range(60):
        number = dice.randrange(2)
        match dice.randrange(4):
            case 0 | 1:
                count = dice.randrange(20)
                topic.send_many([b"x"] * count, partition=number)
                ends[number] += count
            case 2:
                committed[number] = dice.randint(starts[number], ends[number])
                tide.groups.reset("audit", committed[number], channel="prices", partition=number)
            case 3:
                starts[number] = dice.randint(starts[number], ends[number])
                topic.trim(starts[number], partition=number)
        group = tide.groups["audit"]
        wanted = [ends[n] - max(committed[n], starts[n]) for n in range(2)]
        assert [row.lag for row in group.offsets] == wanted
        assert group.lag == sum(wanted)
