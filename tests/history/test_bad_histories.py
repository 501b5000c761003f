"""Does the checker of histories see what is wrong, name it, and tell it in as few lines as can be?

The cases are in bad.py. The checker stands between every run of the history lane and a pass, so it is held to histories
whose fault is known.
"""

from __future__ import annotations

import time
from collections import Counter

import numpy as np
import pytest

from tests.history.bad import BAD, GOOD, Case
from tidelog.testing.history import ROW, Client, Flag, History, Kind, Status, label, token
from tidelog.testing.judge import ANOMALIES, check
from tidelog.testing.stories import AnomalyFound


@pytest.mark.parametrize("case", [pytest.param(case, id=f"{case.anomaly}-{number}") for number, case in enumerate(BAD)])
def test_bad_histories_are_flagged(case: Case) -> None:
    with pytest.raises(AnomalyFound) as caught:
        check(History.parse(case.text), **case.options)
    found = caught.value
    assert (found.name, len(found.story.lines)) == (case.anomaly, case.lines), f"\n{found}"
    assert found.anomalies[case.anomaly] >= 1
    assert str(found).startswith(f"{case.anomaly}: ")


@pytest.mark.parametrize("case", [pytest.param(case, id=f"{case.anomaly}-{number}") for number, case in enumerate(BAD)])
def test_a_story_is_a_part_of_the_history(case: Case) -> None:
    """Each of its lines tells of one call of the history, and nothing that is not in it."""
    history = History.parse(case.text)
    with pytest.raises(AnomalyFound) as caught:
        check(history, **case.options)
    story = caught.value.story
    assert list(story.times_ms) == sorted(story.times_ms)
    for line in story.lines:
        part, whole = History.parse(line), history
        for row in part.rows:
            client = part.clients[row["client"]]
            same = whole.rows[
                (whole.rows["kind"] == row["kind"])
                & (whole.rows["value"] == row["value"])
                & (whole.rows["offset"] == row["offset"])
                & (whole.rows["status"] == row["status"])
            ]
            assert client in [whole.clients[one["client"]] for one in same], line


@pytest.mark.parametrize("name", GOOD)
def test_good_histories_pass(name: str) -> None:
    check(History.parse(GOOD[name]))


def test_there_are_enough_bad_histories() -> None:
    counts = Counter(case.anomaly for case in BAD)
    assert len(BAD) >= 60
    assert set(counts) == set(ANOMALIES)
    assert min(counts.values()) >= 3, counts
    assert len({case.text for case in BAD}) == len(BAD)


@pytest.mark.parametrize("text", [*GOOD.values(), *(case.text for case in BAD)])
def test_text_and_back(text: str) -> None:
    history = History.parse(text)
    again = History.parse("\n".join(history.text()))
    for field in ("value", "key", "offset", "kind", "status", "flags", "partition"):
        assert sorted(again.rows[field].tolist()) == sorted(history.rows[field].tolist()), field


def test_what_cannot_be_read_is_said() -> None:
    for wrong in ("p", "p send q", "p send q/0 1 -> x", "p jump q/0", "p send q/0 1 2 -> 3", "c@g commit q"):
        with pytest.raises(ValueError, match="line 2 of the history"):
            History.parse(f"p send q/0 1 -> 0\n{wrong}")
    with pytest.raises(ValueError, match="2 values, and 1 offsets"):
        History.parse("p send q/0 1 2 -> 3")
    with pytest.raises(ValueError, match="not what was done"):
        History.parse("hello")
    with pytest.raises(TypeError, match="str is no history"):
        check("p send q/0 1 -> 0")  # type: ignore[arg-type]


def test_options_out_of_range() -> None:
    for options in ({"order": "any"}, {"duplicates": "twice"}):
        with pytest.raises(ValueError, match="does not exist"):
            check(History(), **options)  # type: ignore[arg-type]


def test_loss_that_is_allowed() -> None:
    history = History.parse("p send q/0 1 2 3 -> 0 1 2\nx final q/0 1:2")
    check(history, loss=2)
    with pytest.raises(AnomalyFound):
        check(history, loss=1)


def test_modes_by_group() -> None:
    history = History.parse("p send q/0 1 -> 0\nc@g poll q/0 0:1\nd@g assign q/0\nd@g poll q/0 0:1")
    check(history, duplicates={"g": "at-least-once"})
    with pytest.raises(AnomalyFound, match="redelivered"):
        check(history, duplicates={"g": "at-most-once"})


def test_tokens() -> None:
    assert [label(token(value)) for value in (7, b"tea", "oil", None)] == ["7", "tea", "oil", "none"]
    assert token(b"a long value of some kind") == token("a long value of some kind") != token(b"another long value")
    assert len({token(value) for value in (0, b"", b"\0", b"\0\0", "0", 1 << 62, "x" * 9)}) == 7
    assert label(token(b"\xff")) == "0xff"


def test_merging_keeps_what_each_process_said() -> None:
    first = History.parse("p send q/0 1 txn=T -> 0\np txn T -> commit")
    second = History.parse("c@g poll t/0 0:5\nc@g poll q/0 0:1 txn=U")
    merged = History.merged([first, second])
    assert sorted(merged.text()) == sorted([*first.text(), *second.text()])
    assert len(merged) == 4


MILLION = 1_000_000


def large_history() -> History:
    """A million operations: one partition for each of four producers, each read by two groups."""
    count = MILLION // 5
    rows = np.zeros(4 * 5 * (count // 4), ROW)
    share = count // 4
    at = 0
    for partition in range(4):
        offsets = np.arange(share)
        values = offsets * 4 + partition
        for part, kind in enumerate((Kind.SEND, Kind.POLL, Kind.POLL, Kind.COMMIT, Kind.COMMIT)):
            some = rows[at : at + share]
            at += share
            some["begin"] = offsets * 1000 + 100 * part + 1
            some["end"] = some["begin"] + 50
            some["client"] = partition if kind == Kind.SEND else 4 + partition * 2 + (part - 1) % 2
            some["op"] = offsets * 2 + (kind == Kind.COMMIT)
            some["offset"] = offsets + (kind == Kind.COMMIT)
            some["value"] = -1 if kind == Kind.COMMIT else values
            some["key"] = values % 1000 if kind == Kind.SEND else -1
            some["partition"] = partition
            some["kind"], some["status"] = kind, Status.OK
            some["flags"] = Flag.EXPLICIT if kind == Kind.SEND else 0
    clients = [Client(f"p{number}") for number in range(4)]
    clients += [Client(f"c{number}", group=f"g{number % 2}") for number in range(8)]
    return History(rows[np.argsort(rows["begin"], kind="stable")], clients, ["q"])


def test_a_million_operations_are_checked_in_seconds() -> None:
    """And one wrong row among them is found; the time is generous, since machines stall."""
    history = large_history()
    assert len(history) == MILLION
    began = time.monotonic()
    check(history)
    check(history, order="partition", duplicates="at-most-once")
    assert time.monotonic() - began < 60
    polls = np.flatnonzero(history.rows["kind"] == Kind.POLL)
    history.rows["offset"][polls[polls.size // 2]] += 1
    with pytest.raises(AnomalyFound, match="inconsistent-offsets"):
        check(history)
