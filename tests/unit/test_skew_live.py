"""Are the keys that are sampled while messages are appended the hottest ones, with shares as exact as is said?

The oracle is a Counter over every key that was sent. Samples are random and their seed is not known, so a bound that is
said to hold for 997 of 1,000 keys is tested at five standard errors, or over many keys at once.
"""

from __future__ import annotations

import logging
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from itertools import accumulate, pairwise
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tidelog
from tests.unit.commands import Commands
from tidelog import Log, skew_watch
from tidelog._native import SAMPLED_EVERY
from tidelog.native import partition
from tidelog.skew import HotKey, PartitionShare, Skew, SkewEvent
from tidelog.skew_watch import WARN_SHARE

ROUND = 10_000
VALUES = [b"x"] * ROUND


def zipf(dice: random.Random) -> list[bytes]:
    weights = list(accumulate(1 / (rank + 1) for rank in range(5000)))
    return [b"key %d" % rank for rank in dice.choices(range(5000), cum_weights=weights, k=ROUND)]


def uniform(dice: random.Random) -> list[bytes]:
    return [b"key %d" % dice.randrange(50_000) for _ in range(ROUND)]


def one_hot(dice: random.Random) -> list[bytes]:
    return [b"tea" if dice.random() < 0.3 else b"key %d" % dice.randrange(50_000) for _ in range(ROUND)]


def send(channel: Any, draw: Callable[[random.Random], list[bytes]], rounds: int, seed: int = 1) -> Counter[bytes]:
    dice, sent = random.Random(seed), Counter[bytes]()
    for _ in range(rounds):
        keys = draw(dice)
        channel.send_many(VALUES, keys=keys)
        sent.update(keys)
    return sent


def far(share: float, samples: int, hot: HotKey) -> float:
    """Five standard errors and what the counters may be off by."""
    counters = hot.error - 3 * sqrt(max(hot.share * (1 - hot.share), 0.0) / samples)
    return counters + 5 * sqrt(share * (1 - share) / samples)


# --- against exact counts ---


@pytest.mark.parametrize("draw", [zipf, uniform, one_hot])
def test_shares_are_as_exact_as_is_said(tide: Log, draw: Callable[[random.Random], list[bytes]]) -> None:
    topic = tide.topic("events", partitions=4)
    sent = send(topic, draw, 50)
    total = sent.total()
    skew = topic.skew(hottest=20, live=True)
    assert not skew.exact
    assert skew.samples is not None
    assert skew.samples == pytest.approx(total / SAMPLED_EVERY, rel=0.1)
    assert skew.since is not None
    for hot in skew.hottest:
        assert hot.key is not None
        share = sent[hot.key] / total
        assert abs(hot.share - share) <= far(share, skew.samples, hot), hot
        assert hot.partition == int(partition([hot.key], 4)[0])
        assert hot.messages == round(hot.share * total)
        assert hot.error < 0.03
    listed = [hot.key for hot in skew.hottest]
    assert listed == [hot.key for hot in sorted(skew.hottest, key=lambda hot: -hot.share)]
    # Whoever has more than twice what counters may be off by is listed; the hottest one first when it is far ahead.
    for key, count in sent.most_common(3):
        assert (key in listed) or count / total < 2 / 128 + 5 / sqrt(skew.samples)
    if draw is one_hot:
        assert listed[0] == b"tea"
    if draw is uniform:
        assert all(hot.share < 0.01 for hot in skew.hottest)


def test_nearly_every_key_is_within_its_error(tide: Log) -> None:
    outside = total = 0
    for trial in range(40):
        topic = tide.topic(f"events{trial}", partitions=2)
        sent = send(topic, zipf, 6, seed=trial)
        skew = topic.skew(hottest=10, live=True)
        for hot in skew.hottest:
            total += 1
            assert hot.key is not None
            outside += abs(hot.share - sent[hot.key] / sent.total()) > hot.error
    assert total >= 100
    assert outside <= 0.003 * total + 8, f"{outside} of {total}"


@pytest.mark.parametrize("keys", [2, 16, 64])
def test_keys_in_turn_do_not_fool_it(tide: Log, keys: int) -> None:
    """With a fixed distance between samples one key would be met again and again."""
    topic = tide.topic("events", partitions=4)
    in_turn = [b"key %d" % (n % keys) for n in range(ROUND - ROUND % keys)]
    for _ in range(30):
        topic.send_many(VALUES[: len(in_turn)], keys=in_turn)
    skew = topic.skew(hottest=100, live=True)
    assert skew.samples is not None
    assert len(skew.hottest) == keys if keys <= 16 else len(skew.hottest) >= 40  # sets of 8: some have more than 8
    for hot in skew.hottest:
        assert abs(hot.share - 1 / keys) <= far(1 / keys, skew.samples, hot), hot


# --- every way to send ---


def test_single_messages_are_sampled(tide: Log) -> None:
    topic = tide.topic("events", partitions=3)
    for n in range(20_000):
        topic.send(b"v", key="tea" if n % 2 else b"key %d" % n)
    skew = topic.skew(live=True)
    assert skew.samples == pytest.approx(20_000 / SAMPLED_EVERY, rel=0.3)
    assert skew.hottest[0].key == b"tea"
    assert 0.3 < skew.hottest[0].share < 0.7
    assert skew.messages == 20_000
    assert sum(share.messages for share in skew.partitions) == 20_000


def test_messages_without_a_key(tide: Log) -> None:
    topic = tide.topic("events", partitions=3)
    for _ in range(10):
        topic.send_many(VALUES)
    for n in range(10_000):
        topic.send(b"v", headers={"a": "b"} if n % 2 else None)
    (hot,) = topic.skew(live=True).hottest
    assert (hot.key, hot.share, hot.partition) == (None, 1.0, -1)


def test_rows_and_compressed_batches(tide: Log) -> None:
    dtype = np.dtype([("name", "S6"), ("n", "i8")])
    rows = np.zeros(ROUND, dtype)
    rows["name"] = [b"tea" if n % 2 else b"k%d" % (n % 1000) for n in range(ROUND)]
    plain, packed = tide.topic("rows", dtype, partitions=3), tide.topic("packed", partitions=3, compression="gzip")
    for _ in range(5):
        plain.send_many(rows, keys="name")
        plain.send_many(rows, keys=rows["name"].tolist())  # through entries
        packed.send_many(VALUES, keys=rows["name"].tolist())
    for topic in plain, packed:
        skew = topic.skew(live=True)
        assert skew.samples == pytest.approx(skew.messages / SAMPLED_EVERY, rel=0.3)
        assert skew.hottest[0].key == b"tea", "without the zeros that fill the field"
        assert 0.4 < skew.hottest[0].share < 0.6


def test_producers_with_linger(tide: Log) -> None:
    topic = tide.topic("events", partitions=3)
    with tide.producer(linger=0.01) as producer:
        for _ in range(20_000):
            producer.send(topic, b"v", key=b"tea")
    skew = topic.skew(live=True)
    assert skew.samples == pytest.approx(20_000 / SAMPLED_EVERY, rel=0.3)


def test_long_keys_are_told_apart(tide: Log) -> None:
    topic = tide.topic("events", partitions=3)
    long = [b"a" * 40 + b"%d" % (n % 2) for n in range(ROUND)]
    for _ in range(3):
        topic.send_many(VALUES, keys=long)
    hottest = topic.skew(live=True).hottest
    assert [hot.key for hot in hottest] == [b"a" * 32] * 2


# --- processes ---

_SENDER = """
import sys, tidelog
with tidelog.open(sys.argv[1]) as log:
    topic = log.topic("events", partitions=4)
    for _ in range(10):
        topic.send_many([b"x"] * 10_000, keys=[sys.argv[2].encode()] * 10_000)
"""


def sender(store: Path, key: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", _SENDER, str(store), key])


def test_processes_count_together_and_others_see_it(tmp_path: Path) -> None:
    store = tmp_path / "shop.log"
    with tidelog.open(store) as log:
        topic = log.topic("events", partitions=4)
        assert topic.skew(live=True).samples == 0
        running = [sender(store, "tea"), sender(store, "milk")]
        assert [process.wait() for process in running] == [0, 0]
        skew = topic.skew(live=True)  # this process has sent nothing
        assert skew.samples is not None
        assert skew.samples == pytest.approx(200_000 / SAMPLED_EVERY, rel=0.1)
        assert {hot.key for hot in skew.hottest} == {b"tea", b"milk"}
        for hot in skew.hottest:
            assert abs(hot.share - 0.5) <= far(0.5, skew.samples, hot)
    with tidelog.open(store) as log:  # within one boot they outlive everybody
        assert log["events"].skew(live=True).samples == skew.samples


def test_another_boot_begins_anew(tmp_path: Path) -> None:
    store = tmp_path / "shop.log"
    with tidelog.open(store) as log:
        log.topic("events", partitions=4).send_many(VALUES, keys=[b"tea"] * ROUND)
    file = store / "events-0" / "skew"
    boot = file.read_bytes()
    file.write_bytes(boot[:8] + b"another boot\0\0\0\0" + boot[24:])
    with tidelog.open(store) as log:
        topic = log["events"]
        assert topic.skew(live=True).samples == 0
        topic.send_many(VALUES, keys=[b"milk"] * ROUND)
        skew = topic.skew(live=True)
        assert [hot.key for hot in skew.hottest] == [b"milk"]
        assert skew.messages == 2 * ROUND


# --- what may stand in the way ---


def test_sending_does_not_need_the_file(tmp_path: Path) -> None:
    with tidelog.open(tmp_path / "shop.log") as log:
        topic = log.topic("events", partitions=2)
        topic.send(b"first", partition=0)
        (tmp_path / "shop.log" / "events-0" / "skew").mkdir()
        for _ in range(3):
            topic.send_many(VALUES, keys=[b"tea"] * ROUND)
        assert topic.skew().messages == 3 * ROUND + 1


def test_hostile_bytes_are_only_numbers(tmp_path: Path) -> None:
    dice = random.Random(7)
    with tidelog.open(tmp_path / "shop.log") as log:
        topic = log.topic("events", partitions=2)
        topic.send_many(VALUES, keys=[b"tea"] * ROUND)
        file = tmp_path / "shop.log" / "events-0" / "skew"
        size = file.stat().st_size
        for round_ in range(60):
            noise = b"\xff" * (size - 40) if round_ % 4 == 0 else dice.randbytes(size - 40)
            with file.open("r+b") as out:
                out.seek(40)
                out.write(noise)
            skew = topic.skew(live=True)
            assert all(0 <= hot.share <= 1 and -1 <= hot.partition < 2 for hot in skew.hottest)
            assert isinstance(skew.advice, tuple)
            topic.send_many(VALUES[:500], keys=[b"tea"] * 500)
        os.truncate(file, 0)
        topic.send_many(VALUES, keys=[b"tea"] * ROUND)
        topic.send_many(VALUES, keys=[b"tea"] * ROUND)
        assert topic.skew(live=True).samples == 0
        assert topic.skew().messages == 3 * ROUND + 60 * 500


# --- warnings ---


def test_a_hot_key_is_told_once(tide: Log, caplog: pytest.LogCaptureFixture) -> None:
    events: list[SkewEvent] = []
    topic = tide.topic("events", partitions=4)
    tide.on_skew(events.append)
    with caplog.at_level(logging.WARNING, "tidelog.skew"):
        send(topic, one_hot, 12)
    (event,) = events
    assert (event.channel, event.key, event.partitions) == ("events", b"tea", 4)
    assert event.partition == int(partition([b"tea"], 4)[0])
    assert event.samples >= 512
    assert event.share >= WARN_SHARE
    assert abs(event.share - 0.3) <= event.error * 2
    assert "tea" in str(event)
    assert [record.getMessage() for record in caplog.records] == [str(event)]


def test_each_key_is_told_once_a_minute(tide: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also a second one of the same sender that becomes hot within that minute."""
    monkeypatch.setattr(skew_watch, "LOOK_SECONDS", 0.0)
    events: list[SkewEvent] = []
    topic = tide.topic("events", partitions=4)
    tide.on_skew(events.append)

    def two(key: bytes) -> Callable[[random.Random], list[bytes]]:
        return lambda dice: [key if dice.random() < 0.7 else b"key %d" % dice.randrange(50_000) for _ in range(ROUND)]

    send(topic, two(b"tea"), 12)
    assert [event.key for event in events] == [b"tea"]
    send(topic, two(b"milk"), 40)
    assert [event.key for event in events] == [b"tea", b"milk"]
    monkeypatch.setattr(skew_watch, "QUIET_SECONDS", 0.0)
    send(topic, two(b"milk"), 12)
    assert {event.key for event in events[2:]} >= {b"milk"}


def test_a_sender_does_not_look_all_the_time(tide: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading what was sampled is more than sending costs: once a second is enough."""
    asked: list[float] = []
    hot = tide.engine.skew_watch.hot

    def noted(*arguments: Any) -> float:
        asked.append(time.monotonic())
        return hot(*arguments)

    monkeypatch.setattr(tide.engine.skew_watch, "hot", noted)
    topic = tide.topic("events", partitions=4)
    until = time.monotonic() + 2.5
    while time.monotonic() < until:
        topic.send_many(VALUES, keys=[b"tea"] * ROUND)
    assert 1 <= len(asked) <= 3
    assert all(later - earlier >= 0.99 for earlier, later in pairwise(asked))


def test_the_table_of_who_was_told_is_bounded(tide: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(skew_watch, "MOST_TOLD", 5)
    tide.on_skew(lambda event: None, threshold=0.01)
    for n in range(20):
        topic = tide.topic(f"events{n}", partitions=2)
        for _ in range(5):
            topic.send_many(VALUES, keys=[b"tea"] * ROUND)
    told = tide.engine.skew_watch._told
    assert [channel for channel, _key in told] == [f"events{n}" for n in range(15, 20)]


def test_thresholds(tide: Log, caplog: pytest.LogCaptureFixture) -> None:
    low: list[SkewEvent] = []
    high: list[SkewEvent] = []
    topic = tide.topic("events", partitions=4)
    tide.on_skew(high.append, threshold=0.6)
    tide.on_skew(low.append, threshold=0.1)

    def tenth(dice: random.Random) -> list[bytes]:
        return [b"tea" if dice.random() < 0.15 else b"key %d" % dice.randrange(50_000) for _ in range(ROUND)]

    with caplog.at_level(logging.WARNING, "tidelog.skew"):
        send(topic, tenth, 12)
    assert [event.key for event in low] == [b"tea"]
    assert high == []
    assert caplog.records == []
    even = tide.topic("even", partitions=4)
    send(even, uniform, 12)
    assert len(low) == 1


def test_one_partition_cannot_be_uneven(tide: Log) -> None:
    events: list[SkewEvent] = []
    tide.on_skew(events.append, threshold=0.01)
    topic = tide.topic("events", partitions=1)
    for _ in range(12):
        topic.send_many(VALUES, keys=[b"tea"] * ROUND)
    assert events == []


def test_a_listener_that_fails_does_not_fail_the_sender(tide: Log, caplog: pytest.LogCaptureFixture) -> None:
    topic = tide.topic("events", partitions=4)

    def fails(event: SkewEvent) -> None:
        topic.send(b"from the listener", key=event.key)
        raise RuntimeError("out of order")

    tide.on_skew(fails)
    sent = send(topic, one_hot, 12)
    assert sum(topic.bounds(number)[1] for number in range(4)) == sent.total() + 1
    assert any("out of order" in str(record.exc_info) for record in caplog.records)


def test_what_is_no_listener(tide: Log) -> None:
    with pytest.raises(TypeError, match="cannot be called"):
        tide.on_skew(7)  # type: ignore[arg-type]
    for threshold in (0.0, -1.0, 1.1, float("nan")):
        with pytest.raises(ValueError, match="is no share"):
            tide.on_skew(print, threshold=threshold)
    wrong: tuple[Any, ...] = ("0.5", True, None)
    for none in wrong:
        with pytest.raises(TypeError, match="is no share"):
            tide.on_skew(print, threshold=none)


# --- advice ---


def skew(counts: list[int], *hottest: tuple[bytes | None, int, float]) -> Skew:
    shares = tuple(
        PartitionShare(number, count, count, count / sum(counts), count / sum(counts))
        for number, count in enumerate(counts)
    )
    keys = tuple(HotKey(key, where, round(share * sum(counts)), share, 0.01) for key, where, share in hottest)
    return Skew(shares, keys, sum(counts), sum(counts), exact=False, samples=1000)


def test_advice() -> None:
    several = " ".join(skew([80, 10, 5, 5], (b"a", 0, 0.4), (b"b", 0, 0.3), (b"c", 1, 0.01)).advice)
    assert "2 keys carry 70.0 % of all messages: a (40.0 %), b (30.0 %)" in several
    assert "split" in several
    coming = " ".join(skew([25, 25, 25, 25], (b"a", 0, 0.5)).advice)
    assert "key 'a' alone is 50.0 %" in coming, "the log is even yet, what is sent now is not"
    assert skew([25, 25, 25, 25], (b"a", 0, 0.3)).advice == ()
    control = " ".join(skew([90, 10], (b"\x1b[31mred", 0, 0.9)).advice)
    assert "\x1b" not in control


# --- the command line ---


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Commands:
    return Commands(capsys, monkeypatch)


def test_info_is_live(run: Commands, tmp_path: Path) -> None:
    store = tmp_path / "shop.log"
    with tidelog.open(store) as log:
        sent = send(log.topic("events", partitions=4), one_hot, 8)
        text = run.good("info", store, "events").out  # while it is open
        found = run.good("info", store, "events", "--format", "json").json
    later = run.good("info", store, "events", "--format", "json").json  # by one who looks alone
    assert (later["samples"], later["hottest"]) == (found["samples"], found["hottest"])
    assert "samples" in text
    assert "±" in text or "+-" in text
    assert "key 'tea' alone is" in text
    assert found["messages"] == sent.total()
    assert found["samples"] >= 1000
    assert not found["hottest_exact"]
    assert found["hottest"][0]["key"] == "tea"
    assert found["hottest"][0]["error"] > 0
    exact = run.good("info", store, "events", "--exact", "--format", "json").json
    assert exact["samples"] is None
    assert exact["hottest_exact"]
    assert exact["hottest"][0]["messages"] == sent[b"tea"]
    assert run("info", store, "events", "--exact", "--quick").code == 2


def test_info_reads_where_samples_are_few(run: Commands, tmp_path: Path) -> None:
    store = tmp_path / "shop.log"
    with tidelog.open(store) as log:
        log.topic("events", partitions=4).send_many(VALUES, keys=[b"tea"] * ROUND)
    found = run.good("info", store, "events", "--format", "json").json
    assert found["samples"] is None
    assert found["hottest"][0]["messages"] == ROUND


_DIE = """
import os, signal, sys, tidelog
log = tidelog.open(sys.argv[1])
log.topic("events", partitions=2).send_many([b"x"] * 10_000, partition=1)
log.sync()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_partition_with_nothing_but_the_file_is_an_empty_one(run: Commands, tmp_path: Path) -> None:
    store = tmp_path / "shop.log"
    subprocess.run([sys.executable, "-c", _DIE, str(store)], check=False)
    assert [path.name for path in (store / "events-0").iterdir()] == ["skew"]
    run.good("check", store)
    (store / "shared").unlink()  # as after a power cut: everything is read again
    with tidelog.open(store) as log:
        topic = log["events"]
        assert [topic.bounds(number)[0] for number in range(2)] == [0, 0]
        assert topic.skew().messages == 10_000
        topic.send(b"first of its partition", partition=0)
        assert [message.value for message in topic.scan(partition=0)] == [b"first of its partition"]
    run.good("check", store)
    with tidelog.open(store) as log:
        log.drop("events")
    assert not (store / "events-0").exists()
