"""Does `log.groups` tell the truth about groups, and does a reset store exactly what was asked for?

Offsets, lags and places are compared with lists kept here; other processes are real ones. Imports the public API, and
the compiled Membership where a group must be seen half way through a rebalance.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tidelog
from tidelog import ChannelNotFound, Locked, Log, OffsetOutOfRange
from tidelog._native import Membership
from tidelog.group import Group, Reset, Shift, shifted

DAY = datetime(2026, 3, 4, tzinfo=UTC)

_CONSUMER = """
import sys, tidelog
log = tidelog.open(sys.argv[1])
name = {"member": sys.argv[4], "member_timeout": 60} if sys.argv[4] else {}
consumer = log[sys.argv[2]].consumer(sys.argv[3], **name)
consumer.receive_many(10, timeout=0.2)
print("ready", flush=True)
while sys.stdin.readline():
    consumer.receive_many(10, timeout=0.05)
    print("ready", flush=True)
"""


@contextmanager
def consuming(store: Path, channel: str, group: str, name: str = "") -> Iterator[subprocess.Popen[str]]:
    """Another process that is a member of a group, until it is killed or the block ends."""
    command = [sys.executable, "-c", _CONSUMER, str(store), channel, group, name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def filled(log: Log, name: str = "prices", partitions: int = 3, count: int = 90) -> tidelog.Topic[bytes]:
    """A topic with messages a minute apart."""
    topic = log.topic(name, partitions=partitions)
    for number in range(count):
        topic.send(b"%d" % number, partition=number % partitions, timestamp=DAY + timedelta(minutes=number))
    return topic


def read(topic: tidelog.Topic[bytes], group: str, count: int) -> None:
    """Let a group commit its first `count` messages."""
    with topic.consumer(group) as consumer:
        for _ in range(count):
            consumer.receive(timeout=5)


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


# --- shifting over gaps ---


@given(st.data())
def test_shifting_counts_messages(data: st.DataObject) -> None:
    """Against a list of the offsets that have a message, with gaps anywhere, also before the end."""
    offsets = sorted(data.draw(st.sets(st.integers(0, 40) | st.integers(1 << 30, (1 << 30) + 20), max_size=30)))
    end = (offsets[-1] + 1 if offsets else 0) + data.draw(st.sampled_from([0, 1, 1 << 30]))
    start = data.draw(st.integers(0, min(end, 10)))
    at = data.draw(st.sampled_from([start, end, *[offset for offset in offsets if offset >= start]]))
    messages = data.draw(st.integers(-40, 40))

    def count_from(offset: int) -> int:
        return sum(offset <= one for one in offsets)

    there = [offset for offset in offsets if offset >= start]
    ahead = [offset for offset in there if offset >= at]
    wanted = there[max(len(there) - len(ahead) + messages, 0) :]
    found = shifted(count_from, start, end, at, messages)
    assert start <= found <= end
    assert [offset for offset in there if offset >= found] == wanted


def test_a_reset_over_the_gap_of_a_power_cut(tmp_path: Path) -> None:
    store = tmp_path / "shop.log"
    code = """
import os, signal, sys, tidelog
log = tidelog.open(sys.argv[1])
channel = log.topic("prices", partitions=1)
for i in range(40):
    channel.send(b"%d" % i)
log.sync()
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code, str(store)], check=False)
    (store / "shared").unlink()
    with tidelog.open(store) as log:
        topic = log["prices"]
        assert topic.bounds(0)[1] >= 1 << 30
        topic.send_many([b"after"] * 5)
        log.groups.reset("audit", "latest", channel="prices")
        for shift, expected in ((-3, b"after"), (-4, b"38"), (-10, b"28"), (11, b"39"), (1, b"after")):
            log.groups.reset("audit", Shift(shift))
            with topic.consumer("audit", delivery="manual") as consumer:  # type: ignore[attr-defined]
                assert consumer.receive(timeout=5).value == expected


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
