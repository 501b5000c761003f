"""Do create, drop, ls, info, offsets and trim do what they say, and say it in every format?"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.unit.commands import Commands
from tidelog.log import open as open_log
from tidelog.skew import HotKey, PartitionShare, Skew


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Commands:
    return Commands(capsys, monkeypatch)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Orders: 2 partitions; tea 6 times, milk 3 times, one without a key; group `billing` has read four of tea's."""
    path = tmp_path / "shop.log"
    with open_log(path) as log:
        orders = log.topic("orders", str, partitions=2)
        orders.send_many([f"tea {number}" for number in range(6)], keys=["tea"] * 6)
        orders.send_many(["milk"] * 3, keys=["milk"] * 3)
        orders.send("plain", partition=0)
        with orders.consumer("billing", delivery="manual") as consumer:
            seen = [message for message in consumer.receive_many(100, timeout=5) if message.key == b"tea"]
            consumer.commit(seen[3])
    return path


# --- create ---


def test_create_makes_what_was_asked_for(run: Commands, tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    words = "--kind queue --type json --partitions 3 --retention 7d --compression lz4 --max-message 1MiB --segment 1MiB"
    ran = run.good("create", path, "orders", *words.split())
    assert ran.out == "" and "created queue orders (json, 3 partitions)" in ran.err
    with open_log(path, create=False) as log:
        orders = log["orders"]
        assert (orders.kind, orders.codec.name, orders.partitions, orders.compression) == ("queue", "json", 3, "lz4")
        assert orders.retention == (7 * 86_400_000, -1, False)
        assert orders.max_message_bytes == 1 << 20
        assert orders.carries == "command"


@pytest.mark.parametrize(("type_", "codec"), [("bytes", "raw"), ("text", "utf-8"), ("msgpack", "msgpack")])
def test_create_types(run: Commands, tmp_path: Path, type_: str, codec: str) -> None:
    run.good("create", tmp_path / "a.log", "a", "--type", type_)
    with open_log(tmp_path / "a.log") as log:
        assert (log["a"].kind, log["a"].codec.name, log["a"].partitions) == ("topic", codec, 4)


def test_create_refuses_what_exists(run: Commands, store: Path) -> None:
    ran = run("create", store, "orders")
    assert ran.code == 1 and "a topic of utf-8 with 2 partitions" in ran.err and "tidelog drop" in ran.err


def test_a_wrong_name_leaves_no_store_behind(run: Commands, tmp_path: Path) -> None:
    ran = run("create", tmp_path / "a.log", "two words")
    assert ran.code == 2 and "two words" in ran.err
    assert not (tmp_path / "a.log").exists()


@pytest.mark.parametrize(
    "words", [["--partitions", "0"], ["--retention", "soon"], ["--segment", "1KiB"], ["--max-message", "1GiB"]]
)
def test_create_refuses_what_is_out_of_range(run: Commands, tmp_path: Path, words: list[str]) -> None:
    ran = run("create", tmp_path / "a.log", "a", *words)
    assert ran.code == 2 and ran.err.count("\n") == 1


# --- ls ---


def test_ls_as_json_and_tsv(run: Commands, store: Path) -> None:
    run.good("create", store, "empty", "--kind", "queue", "--retention", "consumed")
    empty, orders = run.good("ls", store, "--format", "json").json
    assert (empty["channel"], empty["kind"], empty["keeps"], empty["newest"]) == (
        "empty",
        "queue",
        "until consumed",
        None,
    )
    assert (orders["channel"], orders["type"], orders["partitions"]) == ("orders", "str", 2)
    assert orders["bytes"] > 0 and orders["error"] is None
    assert datetime.now(UTC) - datetime.fromisoformat(orders["newest"]) < timedelta(minutes=5)
    head, first, second = run.good("ls", store, "--format", "tsv").rows
    assert head[:3] == ["channel", "kind", "type"]
    assert (first[0], second[0], second[4]) == ("empty", "orders", "2")


def test_ls_on_a_pipe_is_plain_text(run: Commands, store: Path) -> None:
    ran = run.good("ls", store)
    assert "\x1b" not in ran.out
    assert ran.out.splitlines()[0].split()[0] == "channel" and "orders" in ran.out


def test_ls_of_an_empty_store(run: Commands, tmp_path: Path) -> None:
    with open_log(tmp_path / "a.log"):
        pass
    ran = run.good("ls", tmp_path / "a.log")
    assert ran.out == "" and "tidelog create" in ran.err
    assert run.good("ls", tmp_path / "a.log", "--format", "json").json == []


def test_ls_names_a_channel_that_cannot_be_opened(run: Commands, store: Path) -> None:
    (store / "channels" / "broken.json").write_text("{")
    ran = run("ls", store, "--format", "tsv")
    assert ran.code == 4 and "broken.json" in ran.err
    assert [row[0] for row in ran.rows[1:]] == ["broken", "orders"]


# --- info ---


def test_info_counts_and_shows_the_hottest(run: Commands, store: Path) -> None:
    found = run.good("info", store, "orders", "--format", "json").json
    assert found["messages"] == 10
    assert [(hot["key"], hot["messages"]) for hot in found["hottest"]] == [("tea", 6), ("milk", 3), (None, 1)]
    assert sum(part["messages"] for part in found["partitions"]) == 10
    assert sum(part["share"] for part in found["partitions"]) == pytest.approx(1)
    assert "bar" not in found["partitions"][0]
    text = run.good("info", store, "orders").out
    assert text.startswith("orders  topic of str (utf-8), 2 partitions, keeps everything")
    assert "hottest keys  tea 60.0 %  milk 30.0 %" in text and "█" in text


def test_info_quick_reads_nothing(run: Commands, store: Path) -> None:
    found = run.good("info", store, "orders", "--quick", "--format", "json").json
    assert "hottest" not in found and found["partitions"][0]["messages"] is None
    assert sum(part["share"] for part in found["partitions"]) == pytest.approx(1)
    assert "messages" not in run.good("info", store, "orders", "--quick").out.splitlines()[1].split()[:4]


def test_info_of_nothing(run: Commands, store: Path) -> None:
    assert run("info", store, "nope").code == 3
    run.good("create", store, "empty")
    assert "no messages" in run.good("info", store, "empty").out
    assert run("info", store, "empty", "--keys", "0").code == 2


def skew(counts: list[int], *hottest: tuple[bytes | None, int, int]) -> Skew:
    total = sum(counts)
    shares = tuple(PartitionShare(n, count, count, count / total, count / total) for n, count in enumerate(counts))
    return Skew(
        shares, tuple(HotKey(key, part, count, count / total) for key, part, count in hottest), total, total, True
    )


def test_advice_fits_the_cause() -> None:
    assert list(skew([10, 11, 9], (b"a", 0, 2)).advice) == []
    alone = " ".join(list(skew([90, 5, 5], (b"a", 0, 85), (b"b", 0, 5)).advice))
    assert "key 'a' alone" in alone and "fills partition 0" in alone
    together = " ".join(list(skew([60, 10, 30], (b"a", 0, 25), (b"b", 0, 25), (b"c", 1, 5)).advice))
    assert "several hot keys meet in partition 0 (a, b)" in together
    keyless = " ".join(list(skew([90, 5, 5], (None, 0, 90)).advice))
    assert "without a key is 90.0 %" in keyless
    assert "partition 0 has 90.0 %" in " ".join(list(skew([90, 5, 5], (b"a", 0, 2)).advice))
    assert list(skew([100], (b"a", 0, 100)).advice) == []


# --- offsets ---


def test_offsets_in_every_format(run: Commands, store: Path) -> None:
    rows = run.good("offsets", store, "--format", "json").json
    committed = {row["partition"]: row for row in rows}
    with open_log(store) as log:
        home = next(message for message in log["orders"].scan() if message.key == b"tea").partition
        ends = {number: log["orders"].bounds(number)[1] for number in range(2)}
    read = committed[home]
    assert (read["group"], read["channel"], read["committed"]) == ("billing", "orders", 4)
    assert (read["log_end"], read["lag"], read["owner_pid"]) == (ends[home], ends[home] - 4, None)
    head, *lines = run.good("offsets", store, "orders", "--format", "tsv").rows
    assert head[:4] == ["group", "channel", "partition", "committed"]
    assert ["billing", "orders", str(home), "4"] in [line[:4] for line in lines]
    assert "billing" in run.good("offsets", store, "-g", "billing").out


def test_offsets_shows_who_is_reading(run: Commands, store: Path) -> None:
    import os

    with open_log(store) as log, log.topic("orders", str).consumer("billing"):
        rows = run.good("offsets", store, "--format", "json").json
    assert {row["owner_pid"] for row in rows} == {os.getpid()}


def test_offsets_of_nobody(run: Commands, store: Path) -> None:
    ran = run("offsets", store, "-g", "nobody")
    assert ran.code == 3 and "nobody" in ran.err
    assert run("offsets", store, "nope").code == 3
    run.good("create", store, "unread")
    assert run.good("offsets", store, "unread").out == ""


# --- trim ---


def test_trim_by_offset_and_time(run: Commands, store: Path) -> None:
    ran = run.good("trim", store, "orders", "--before", 2, "-p", 0, "--yes", "--format", "json")
    assert [(row["partition"], row["old_start"], row["new_start"]) for row in ran.json] == [(0, 0, 2)]
    time.sleep(0.002)
    run.good("trim", store, "orders", "--before", f"@{datetime.now(UTC).isoformat()}", "--yes")
    with open_log(store) as log:
        assert list(log["orders"].scan()) == []


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["--before", "2", "--yes"], 2, "which partition"),
        (["--before", "2", "-p", "7", "--yes"], 3, "no partition 7"),
        (["--before", "end", "--yes"], 2, "neither an offset nor a time"),
        (["--yes"], 2, "--before"),
        (["--before", "2", "-p", "0"], 2, "add --yes"),
    ],
)
def test_trim_refuses(run: Commands, store: Path, words: list[str], code: int, text: str) -> None:
    ran = run("trim", store, "orders", *words)
    assert ran.code == code and text in ran.err
    assert (
        sum(part["messages"] for part in run.good("info", store, "orders", "--format", "json").json["partitions"]) == 10
    )


# --- drop ---


def test_drop_asks_first(run: Commands, store: Path) -> None:
    ran = run("drop", store, "orders")
    assert ran.code == 2 and "nothing was removed" in ran.err and "--yes" in ran.err
    assert "removed the topic orders" in run.good("drop", store, "orders", "--yes").err
    with open_log(store) as log:
        assert list(log) == [] and log.offsets() == []
    assert run("drop", store, "orders", "--yes").code == 3


def test_what_cannot_be_read_can_be_dropped(run: Commands, store: Path) -> None:
    (store / "channels" / "broken.json").write_text("{")
    assert "cannot be opened" in run.good("drop", store, "broken", "--yes").err
    assert not (store / "channels" / "broken.json").exists()


# --- who changes what ---


def test_looking_changes_nothing(run: Commands, store: Path) -> None:
    def state() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in sorted(store.rglob("*")) if path.is_file()}

    before = state()
    for words in (["ls", store], ["info", store, "orders"], ["offsets", store], ["check", store]):
        run.good(*words)
        assert state() == before, words[0]
