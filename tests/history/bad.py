"""Which histories are wrong, what is wrong with each, and in how many lines is that told?

A case has the anomaly's name, the number of lines of its shortest story, options of `check`, and the history as text
(the format is at the head of tidelog/testing/history.py). Lines that have nothing to do with the matter are there on
purpose: the story must leave them out. Imports nothing of tidelog.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Case:
    """A bad history, and what must be found in it."""

    anomaly: str
    lines: int
    text: str
    options: dict[str, Any] = field(default_factory=dict)


ONCE = {"duplicates": "exactly-once"}
MOST = {"duplicates": "at-most-once"}

BAD = [
    # --- lost-write: acked, below what was read, and nobody read it ---
    Case("lost-write", 2, "p send q/0 1 -> 0\np send q/0 2 -> 1\nx poll q/0 1:2"),
    Case("lost-write", 2, "p send q/0 1 2 3 -> 0 1 2\np send q/0 4 -> 3\nx poll q/0 0:1 2:3\ny poll q/0 2:3"),
    Case("lost-write", 2, "p send q/0 1 -> 5\no send q/0 2 -> 6\nx final q/0 6:2"),
    Case("lost-write", 2, "p send q/0 1 -> 0\np send q/1 2 -> 0\np send q/0 3 -> 1\nx final q/0 1:3\nx final q/1 0:2"),
    # Trimming excuses what lies before it and nothing else.
    Case(
        "lost-write",
        2,
        "p send q/0 1 -> 0\np send q/0 2 -> 1\np send q/0 3 -> 2\np trim q/0 1\nx final q/0 2:3",
    ),
    # --- unseen: acked, at the end of the partition, and not there ---
    Case("unseen", 2, "p send q/0 1 -> 0\nx final q/0"),
    Case("unseen", 2, "p send q/0 1 -> 0\np send q/0 2 -> 1\nx final q/0 0:1"),
    Case("unseen", 2, "p send q/0 1 -> 0\np send t/0 2 -> 0\nx final q/0 0:1\nx final t/0"),
    Case("unseen", 2, "p send q/0 1 -> 0\np send q/0 2 -> fail\np send q/1 3 -> 0\nx final q/0 0:1, q/1"),
    # --- inconsistent-offsets: one offset, two values ---
    Case("inconsistent-offsets", 2, "p send q/0 1 -> 0\no send q/0 2 -> 0\nx poll q/0 0:1"),
    Case("inconsistent-offsets", 2, "p send q/0 1 2\nx poll q/0 0:1\ny poll q/0 0:2"),
    Case("inconsistent-offsets", 2, "p send q/0 1 2 3\nx poll q/0 0:1 1:2 2:3\nx final q/0 0:1 1:3"),
    Case("inconsistent-offsets", 2, "p send q/0 1 -> 7\no send q/0 2\nx poll q/0 7:2"),
    # --- duplicate: sent once, there twice ---
    Case("duplicate", 3, "p send q/0 1\nx poll q/0 0:1\ny poll q/0 1:1", ONCE),
    Case("duplicate", 2, "p send q/0 1\np send q/0 2 -> 1\nx final q/0 0:1 1:2 2:1", {"idempotent": True}),
    Case("duplicate", 2, "p send q/0 1 idempotent -> 0\nx final q/0 0:1 1:1"),
    Case("duplicate", 2, "p send q/0 1 idempotent -> 3\np send q/0 1 idempotent -> 5\nx final q/0 3:1 5:1"),
    Case("duplicate", 2, "p send q/0 1 2 txn=T -> 0 1\np txn T -> commit\nx final q/0 0:1 1:2 2:1"),
    # --- G1a: it failed, or was aborted, and was read ---
    Case("G1a", 2, "p send q/0 1 -> fail\nx poll q/0 0:1"),
    Case("G1a", 2, "p send q/0 1 -> 0\np send q/0 2 -> fail\np send q/0 3 -> 2\nx final q/0 0:1 1:2 2:3"),
    Case("G1a", 3, "p send q/0 1 txn=T -> 0\np txn T -> abort\nx poll q/0 0:1"),
    Case("G1a", 3, "p send q/0 1 2 txn=T -> 0 1\nx poll q/0 0:1 dirty\np txn T -> abort\nx poll q/0 1:2"),
    # --- precommitted-read: read before the commit ---
    Case("precommitted-read", 2, "p send q/0 1 txn=T -> 0\np poll q/0 0:1 txn=T\np txn T -> commit"),
    Case("precommitted-read", 3, "p send q/0 1 txn=T -> 0\nx poll q/0 0:1\np txn T -> commit"),
    Case("precommitted-read", 2, "p send q/0 1 2 txn=T -> 4 5\np txn U -> commit\np poll q/0 4:1 5:2 txn=T"),
    Case(
        "precommitted-read",
        3,
        "p send q/0 1 txn=T -> 0\np txn T -> commit\np send q/0 2 txn=U -> 2\nx poll q/0 0:1 2:2\np txn U -> commit",
    ),
    # --- poll-skip: what lies between was left out ---
    Case(
        "poll-skip",
        3,
        "p send q/0 1 -> 0\np send q/0 2 -> 1\np send q/0 3 -> 2\nx poll q/0 0:1\nx poll q/0 2:3\ny poll q/0 1:2",
    ),
    Case("poll-skip", 3, "p send q/0 1\no send q/0 2 3\ny poll q/0 0:1 4:2 9:3\nx poll q/0 0:1\nx poll q/0 9:3"),
    Case(
        "poll-skip",
        3,
        "p send q/0 1 2 3 -> 0 1 2\nc@g assign q/0 0\nc@g poll q/0 0:1\nc@g poll q/0 2:3\nx final q/0 0:1 1:2 2:3",
    ),
    # The assignment of another partition excuses nothing.
    Case(
        "poll-skip",
        3,
        "p send q/0 1 2 3 -> 0 1 2\nc@g poll q/0 0:1\nc@g assign q/1 0\nc@g poll q/0 2:3\ny final q/0 0:1 1:2 2:3",
    ),
    # --- nonmonotonic-poll: back to what was there before ---
    Case("nonmonotonic-poll", 2, "p send q/0 1 2 -> 0 1\nx poll q/0 0:1 1:2\nx poll q/0 0:1"),
    Case("nonmonotonic-poll", 2, "p send q/0 1 -> 0\nx poll q/0 0:1\ny poll q/0 0:1\nx poll q/0 0:1"),
    Case(
        "nonmonotonic-poll",
        2,
        "p send q/0 1 2 3 -> 0 1 2\nc@g assign q/0 0\nc@g poll q/0 0:1\nc@g poll q/0 1:2 2:3\nc@g poll q/0 1:2",
    ),
    Case("nonmonotonic-poll", 2, "p send q/0 1 2 -> 0 1\nx seek q/0 0\nx poll q/0 0:1 1:2\nx poll q/0 1:2"),
    # --- the same inside one call ---
    Case("int-poll-skip", 2, "p send q/0 1 2 3 -> 0 1 2\nx poll q/0 0:1 2:3\ny poll q/0 0:1 1:2 2:3"),
    Case("int-poll-skip", 2, "p send q/0 1 2 3\ny poll q/0 5:1 6:2 9:3\nx poll q/0 5:1 9:3"),
    Case(
        "int-poll-skip", 2, "p send q/0 1 2 3 -> 0 1 2\np send q/1 4 -> 0\nx poll q/1 0:4, q/0 0:1 2:3\ny poll q/0 1:2"
    ),
    Case("int-nonmonotonic-poll", 1, "p send q/0 1 2 -> 0 1\nx poll q/0 1:2 0:1"),
    Case("int-nonmonotonic-poll", 1, "p send q/0 1 2 -> 0 1\nx poll q/0 0:1 0:1"),
    Case("int-nonmonotonic-poll", 1, "p send q/0 1 2 3 -> 0 1 2\np send q/1 4 -> 0\nx poll q/0 0:1 2:3 1:2, q/1 0:4"),
    # --- nonmonotonic-send: one producer, the wrong way round ---
    Case("nonmonotonic-send", 2, "p send q/0 1 -> 1\np send q/0 2 -> 0\nx final q/0 0:2 1:1", {"order": None}),
    Case("nonmonotonic-send", 2, "p send q/0 1 -> 3\np send q/1 2 -> 0\np send q/0 3 -> 2"),
    Case("nonmonotonic-send", 2, "p send q/0 1 2 -> 4 5\no send q/0 3 -> 6\np send q/0 4 -> 3"),
    Case("int-nonmonotonic-send", 1, "p send q/0 1 2 -> 1 0"),
    Case("int-nonmonotonic-send", 1, "p send q/0 1 2 3 -> 0 2 1\nx final q/0 0:1 1:3 2:2"),
    Case("int-nonmonotonic-send", 2, "p send q/0 1 txn=T -> 1\np send q/0 2 txn=T -> 0\np txn T -> commit"),
    # --- torn-txn: a part of a transaction ---
    Case("torn-txn", 3, "p send q/0 1 txn=T -> 0\np send q/1 2 txn=T -> 0\np txn T -> commit\nx final q/0 0:1, q/1"),
    Case("torn-txn", 3, "p send q/0 1 2 txn=T -> 0 1\np txn T -> commit\nx final q/0 1:2"),
    # Nobody knows whether it was committed, but it must be one or the other.
    Case("torn-txn", 2, "p send q/0 1 txn=T -> 0\np send q/1 2 txn=T -> 0\nx final q/0 0:1, q/1"),
    Case(
        "torn-txn",
        3,
        "p send q/0 1 txn=T -> 0\np send q/1 2 txn=T -> 0\np txn T -> commit\no send q/1 3 -> 2\nx poll q/0 0:1\n"
        "y poll q/1 2:3",
    ),
    # --- group-regress: the committed offset goes down ---
    Case("group-regress", 2, "c@g commit q/0 5\nc@g commit q/0 3"),
    Case("group-regress", 2, "c@g commit q/0 5\nd@g commit q/1 1\nd@g assign q/0 4"),
    Case("group-regress", 2, "c@g commit q/0 2\nc@g commit q/0 7\nc@g revoke q/0\nd@g assign q/0 7\nd@g commit q/0 6"),
    Case("group-regress", 2, "a@g reset q/0 9\nc@g commit q/0 9\nc@h commit q/0 2\nd@g commit q/0 8"),
    # --- zombie: fenced, and in the log all the same ---
    Case("zombie", 2, "p send q/0 1 -> fenced\nx poll q/0 0:1"),
    Case("zombie", 2, "till#1 send q/0 1 -> 0\ntill#2 send q/0 2 -> 1\ntill#1 send q/0 3 -> 2"),
    Case("zombie", 3, "till#1 send q/0 1 -> 0\ntill#2 send q/1 2 -> 0\ntill#1 send q/0 3\nx poll q/0 0:1 1:3"),
    Case(
        "zombie",
        2,
        "till#1 send q/0 1 2 -> 0 1\ntill#3 send q/0 3 -> 2\ntill#1 send q/0 4 -> fenced\nx final q/0 0:1 1:2 2:3 3:4",
    ),
    # --- G1c: circles of reading from one another ---
    Case(
        "G1c",
        4,
        "a send q/0 1 txn=T -> 0\nb send q/1 2 txn=U -> 0\na poll q/1 0:2 txn=T\nb poll q/0 0:1 txn=U",
    ),
    Case(
        "G1c",
        6,
        "a send q/0 1 txn=T -> 0\nb send q/1 2 txn=U -> 0\nc send q/2 3 txn=V -> 0\nb poll q/0 0:1 txn=U\n"
        "c poll q/1 0:2 txn=V\na poll q/2 0:3 txn=T",
    ),
    Case(
        "G1c",
        4,
        "a send q/0 1 txn=T -> 0\nb send q/1 2 txn=U -> 0\nd send q/3 9 -> 0\nb poll q/0 0:1 txn=U\n"
        "a poll q/1 0:2 txn=T\nc poll q/0 0:1 txn=V\nc poll q/3 0:9 txn=V",
    ),
    # --- cut-loss: more than a power cut may take ---
    Case("cut-loss", 2, "p send q/0 1 synced -> 0\ndisk cut\nx final q/0"),
    Case("cut-loss", 3, "p send q/0 1 -> 0\np send q/0 2 -> 1\ndisk cut\nx final q/0 1:2"),
    Case(
        "cut-loss", 2, "p send q/0 1 -> 0\np send q/0 2 synced -> 1\ndisk cut\np send q/0 3 -> 9\nx final q/0 0:1 9:3"
    ),
    Case("cut-loss", 3, "p send q/0 1 2 3 -> 0 1 2\nx poll q/0 0:1 1:2\ndisk cut\nx final q/0 0:1 2:3"),
    # --- phantom: nobody sent it ---
    Case("phantom", 1, "p send q/0 1 -> 0\nx poll q/0 0:1 1:2"),
    Case("phantom", 1, "p send q/0 1\nx final q/0 0:9"),
    Case("phantom", 1, "p send q/0 1 -> 0\np send t/0 2 -> 0\nx poll t/0 0:1"),
    # --- key-order: the messages of a key ---
    Case("key-order", 2, "p send q/0 1 key=tea -> 0\np send q/1 2 key=tea -> 0"),
    Case("key-order", 2, "p send q/0 1 key=tea -> 1\no send q/0 2 key=tea -> 0\nx final q/0 0:2 1:1"),
    Case(
        "key-order",
        2,
        "p send q/0 1 key=tea -> 0\np send q/0 2 key=oil -> 1\np send q/0 3 key=tea -> 2\nc@g assign q/0 2\n"
        "c@g poll q/0 2:3\nc@g revoke q/0\nd@g assign q/0 0\nd@g poll q/0 0:1 1:2 2:3",
    ),
    Case("key-order", 1, "p send q/0 1 key=a -> 0, q/1 2 key=a -> 0"),
    # --- partition-order: all messages of a partition ---
    Case("partition-order", 2, "p send q/0 1 -> 1\no send q/0 2 -> 0\nx final q/0 0:2 1:1", {"order": "partition"}),
    Case(
        "partition-order",
        2,
        "[1-2] p send q/0 1 -> 4\n[1-5] o send q/0 2 -> 3\n[3-4] r send q/0 3 -> 2",
        {"order": "partition"},
    ),
    Case(
        "partition-order",
        2,
        "p send q/0 1 2 -> 0 1\nc@g assign q/0 1\nc@g poll q/0 1:2\nc@g revoke q/0\nd@g assign q/0 0\nd@g poll q/0 0:1",
        {"order": "partition"},
    ),
    # --- double-owner: two members at once ---
    Case("double-owner", 3, "p send q/0 1 2 3 -> 0 1 2\nc@g poll q/0 0:1\nd@g poll q/0 0:1\nc@g poll q/0 1:2"),
    Case("double-owner", 3, "p send q/0 1 2 3 -> 0 1 2\nc@g poll q/0 0:1\nd@g poll q/0 0:1 1:2\nc@g commit q/0 1"),
    Case(
        "double-owner",
        3,
        "p send q/0 1 2 3 4 -> 0 1 2 3\nc@g assign q/0 0\nc@g poll q/0 0:1\nd@g assign q/0 0\nd@g poll q/0 0:1\n"
        "c@g poll q/0 1:2\nd@g poll q/0 1:2\nd@g poll q/0 2:3",
    ),
    # --- redelivered: again, though that was excluded ---
    Case("redelivered", 2, "p send q/0 1 -> 0\nc@g poll q/0 0:1\nc@g commit q/0 1\nc dies\nd@g poll q/0 0:1"),
    Case("redelivered", 2, "p send q/0 1 -> 0\nc@g poll q/0 0:1\nc@g dies\nd@g assign q/0 0\nd@g poll q/0 0:1", MOST),
    Case("redelivered", 2, "p send q/0 1 2 -> 0 1\nc@g poll q/0 0:1 1:2\nd@g assign q/0\nd@g poll q/0 1:2", ONCE),
    Case(
        "redelivered",
        3,
        "p send q/0 1 2 -> 0 1\nc@g assign q/0 0\nc@g poll q/0 0:1\nc@g commit q/0 1\nc@g poll q/0 1:2\n"
        "c@g revoke q/0\nd@g assign q/0 1\nd@g poll q/0 1:2",
    ),
    # --- group-skip: committed, and given to nobody ---
    Case("group-skip", 2, "p send q/0 1 2 3 -> 0 1 2\nc@g assign q/0 0\nc@g poll q/0 0:1\nc@g commit q/0 2\nc dies"),
    Case(
        "group-skip",
        2,
        "p send q/0 1 2 3 -> 0 1 2\nc@g assign q/0 0\nc@g poll q/0 0:1\nc@g revoke q/0\nd@g assign q/0 2\n"
        "d@g poll q/0 2:3\nd@g commit q/0 3\nx final q/0 0:1 1:2 2:3",
    ),
    # Given to one member, which died before it asked for more; the next one begins behind it.
    Case(
        "group-skip",
        2,
        "p send q/0 1 2 3 -> 0 1 2\nc@g assign q/0 0\nc@g poll q/0 0:1\nc@g commit q/0 1\nc@g poll q/0 1:2\n"
        "c@g dies\nd@g assign q/0 2\nd@g poll q/0 2:3",
    ),
    Case("group-skip", 2, "p send q/0 1 2 -> 0 1\nc@g assign q/0 0\nc@g poll q/0 0:1 1:2\nc@g dies\nd@g assign q/0 2"),
    Case(
        "group-skip",
        2,
        "p send q/0 1\np send q/0 2 -> 1\nx final q/0 0:1 1:2\nc@g assign q/0 0\nc@g commit q/0 2",
        {"duplicates": "manual"},
    ),
    # --- transactions: all of it, or nothing ---
    # Its offsets are a part of it: the output is there, and the input comes again.
    Case(
        "torn-txn",
        5,
        "p send q/0 1 2 -> 0 1\nc@g assign q/0 0\nc@g poll q/0 0:1 txn=T\nc send r/0 1 txn=T -> 0\n"
        "c@g commit q/0 1 txn=T\nc txn T -> commit\nx poll r/0 0:1\nc@g dies\nd@g assign q/0 0",
    ),
    Case(
        "torn-txn",
        5,
        "p send q/0 1 2 -> 0 1\nc@g assign q/0 0\nc@g poll q/0 0:1 txn=T\nc send r/0 1 txn=T -> 0\n"
        "c@g commit q/0 1 txn=T\nc txn T\nc dies\nx poll r/0 0:1\nd@g assign q/0\nd@g poll q/0 0:1 txn=U",
    ),
    # And the other way round: nothing of the output is there, and the input does not come again.
    Case(
        "torn-txn",
        3,
        "p send q/0 1 2 -> 0 1\nc@g assign q/0 0\nc@g poll q/0 0:1 txn=T\nc send r/0 1 txn=T -> 0\n"
        "c@g commit q/0 1 txn=T\nc txn T -> abort\nd@g assign q/0 1\nd@g poll q/0 1:2\nx final q/0 0:1 1:2",
    ),
    Case(
        "torn-txn",
        5,
        "p send q/0 1 2 -> 0 1\nc@g assign q/0 0\nc@g poll q/0 0:1 txn=T\nc send r/0 1 txn=T -> 0\n"
        "c@g commit q/0 1 txn=T\nc txn T\nc dies\nd@g assign q/0 1\nd@g poll q/0 1:2\nx final q/0 0:1 1:2, r/0",
    ),
    # The same value was sent again after an abort: each attempt is judged by itself.
    Case(
        "torn-txn",
        3,
        "p send q/0 1 txn=T -> 0\np txn T -> abort\np send q/0 1 txn=U -> 2\np send r/0 2 txn=U -> 0\n"
        "p txn U -> commit\nx final q/0 2:1, r/0",
    ),
    Case("unseen", 2, "p send q/0 1 2 txn=T -> 0 1\np txn T -> commit\nx final q/0"),
    Case("lost-write", 2, "p send q/0 1 txn=T -> 0\np txn T -> commit\np send q/0 2 -> 2\nx poll q/0 2:2"),
    # --- aborted reads: given up, fenced, or never to be committed ---
    Case(
        "G1a",
        3,
        "p send q/0 1 txn=T -> 0\np txn T -> abort\np send q/0 1 txn=U -> 2\np txn U -> commit\nx poll q/0 0:1",
    ),
    Case("G1a", 3, "p send q/0 1 txn=T -> 0\np send r/0 2 txn=T -> 0\nx poll r/0 0:2\np txn T -> abort"),
    Case("G1a", 3, "a send q/0 1 txn=T -> 0\na txn T -> abort\nb poll q/0 0:1 txn=U\nb txn U -> commit"),
    Case("precommitted-read", 3, "p send q/0 1 txn=T -> 0\nx poll q/0 0:1\np txn T"),
    # --- the same inside one transaction ---
    Case(
        "int-poll-skip",
        3,
        "p send q/0 1 2 3 -> 0 1 2\nx poll q/0 0:1 txn=T\nx poll q/0 2:3 txn=T\nx txn T -> commit\n"
        "y final q/0 0:1 1:2 2:3",
    ),
    Case("int-nonmonotonic-poll", 2, "p send q/0 1 2 -> 0 1\nx poll q/0 0:1 1:2 txn=T\nx poll q/0 0:1 txn=T"),
    # Going back is right once it was given up, and then from where it began.
    Case(
        "nonmonotonic-poll",
        2,
        "p send q/0 1 2 -> 0 1\nc@g poll q/0 0:1 1:2 txn=T\nc txn T -> abort\nc@g poll q/0 0:1 txn=U",
    ),
    Case(
        "poll-skip",
        3,
        "p send q/0 1 2 3 -> 0 1 2\nc@g poll q/0 0:1 txn=T\nc txn T -> commit\nc@g poll q/0 2:3 txn=U\n"
        "y final q/0 0:1 1:2 2:3",
    ),
    # --- zombies that were opened, and commit ---
    Case("zombie", 2, "till#1 open\ntill#1 send q/0 1 -> 0\ntill#2 open\ntill#1 send q/0 2 -> 1"),
    Case("zombie", 3, "till#1 open\ntill#2 open\ntill#1 send q/0 2\nx poll q/0 0:2"),
    Case(
        "zombie",
        2,
        "till#1 open\ntill#1 send q/0 1 txn=T -> 0\ntill#2 open\ntill#1 txn T -> commit\nx final q/0 0:1",
    ),
    Case(
        "zombie",
        3,
        "till#1 send q/0 1 txn=T -> 0\ntill#2 open\ntill#1 txn T -> fenced\nx poll q/0 0:1\nx poll q/0 1:2\n"
        "till#2 send q/0 2 -> 1",
    ),
    Case(
        "zombie",
        2,
        "till#1 open\nc@g commit q/0 1 txn=T\ntill#2 open\ntill#1 txn T -> commit",
    ),
    # --- group-regress by transactions ---
    Case("group-regress", 3, "c@g commit q/0 5 txn=T\nc txn T -> commit\nd@g commit q/0 3"),
    Case("group-regress", 2, "c@g commit q/0 5\nd@g commit q/0 3 txn=T\nd txn T -> commit"),
    Case(
        "group-regress",
        3,
        "c@g commit q/0 2 txn=S\nc txn S -> abort\nc@g commit q/0 5 txn=T\nc txn T -> commit\nd@g assign q/0 2",
    ),
    # --- redelivered, though it was handled in a transaction that was committed ---
    Case(
        "redelivered",
        2,
        "p send q/0 1 -> 0\nc@g poll q/0 0:1 txn=T\nc txn T -> commit\nc@g back q/0\nc@g poll q/0 0:1 txn=U",
        ONCE,
    ),
    Case(
        "redelivered",
        3,
        "p send q/0 1 -> 0\nc@g poll q/0 0:1 txn=T\nc@g commit q/0 1 txn=T\nc txn T -> commit\nc dies\nd@g assign q/0\n"
        "d@g poll q/0 0:1 txn=U",
    ),
    # Handed over in a transaction that was given up alone, and committed past.
    Case(
        "group-skip",
        2,
        "p send q/0 1 2 -> 0 1\nc@g assign q/0 0\nc@g poll q/0 0:1 txn=T\nc txn T -> abort\nc@g back q/0\n"
        "c@g poll q/0 1:2 txn=U\nc@g commit q/0 2 txn=U\nc txn U -> commit\nx final q/0 0:1 1:2",
    ),
    # --- duplicates by id ---
    Case(
        "duplicate",
        2,
        "p send q/0 1 idempotent -> 0\np send q/0 2 -> 1\np send q/0 1 idempotent -> 2\nx final q/0 0:1 1:2 2:1",
    ),
    Case(
        "duplicate",
        2,
        "p send q/0 1 idempotent txn=T -> 0\np txn T -> commit\no send q/0 1 idempotent -> 2\nx final q/0 0:1 2:1",
    ),
    # --- false-duplicate: it was not there, or not there ---
    Case("false-duplicate", 1, "p send q/0 1 idempotent duplicate -> 0\np send q/0 2 -> 1\nx poll q/0 0:1"),
    Case("false-duplicate", 2, "p send q/0 1 idempotent\np send q/0 1 idempotent duplicate -> 7\nx final q/0 3:1"),
    Case(
        "false-duplicate",
        2,
        "p send q/0 1 idempotent -> 0\np send q/0 2 -> 1\np send q/0 1 idempotent duplicate -> 5\nx final q/0 0:1 1:2",
    ),
    Case(
        "false-duplicate",
        2,
        "p send q/0 1 idempotent\np send q/1 3 -> 0\no send q/1 1 idempotent duplicate -> 4\nx final q/0 0:1, q/1 0:3",
    ),
    # A repetition that was swallowed because of an attempt which was given up: nothing of it is there.
    Case(
        "unseen",
        2,
        "p send q/0 1 idempotent txn=T -> 0\np txn T -> abort\np send q/0 1 idempotent duplicate -> 0\nx final q/0",
    ),
]

GOOD = {
    "nothing at all": "",
    "sent and read": "p send q/0 1 2 -> 0 1\nx poll q/0 0:1\nx poll q/0 1:2\nx final q/0 0:1 1:2",
    "holes in the offsets": "p send q/0 1 -> 0\np send q/0 2 -> 7\nx poll q/0 0:1 7:2\nx final q/0 0:1 7:2",
    "unknown and there": "p send q/0 1\nx final q/0 0:1",
    "unknown and not there": "p send q/0 1\nx final q/0",
    "failed and not there": "p send q/0 1 -> fail\nx final q/0",
    "not read to the end": "p send q/0 1 2 3 -> 0 1 2\nx poll q/0 0:1",
    "read to the end before the ack": "[1-9] p send q/0 1 -> 0\n[2-3] x final q/0",
    # What Kafka's model allows: writes of two transactions that overlap (G0), and holes inside a send.
    "G0": "a send q/0 1 txn=T -> 0\nb send q/0 2 txn=U -> 1\na send q/0 3 txn=T -> 2\nb send q/1 4 txn=U -> 0\n"
    "a send q/1 5 txn=T -> 1\na txn T -> commit\nb txn U -> commit\nx final q/0 0:1 1:2 2:3, q/1 0:4 1:5",
    "int-send-skip": "[1-4] p send q/0 1 2 -> 0 2\n[2-3] o send q/0 3 -> 1\nx final q/0 0:1 1:3 2:2",
    "poll-skip after a rebalance": "p send q/0 1 2 3 -> 0 1 2\nc@g assign q/0 0\nc@g poll q/0 0:1\n"
    "c@g commit q/0 1\nc@g revoke q/0\nd@g assign q/0 1\n"
    "d@g poll q/0 1:2\nd@g commit q/0 2\nd@g revoke q/0\nc@g assign q/0 2\nc@g poll q/0 2:3",
    "nonmonotonic-poll after a death": "p send q/0 1 2 -> 0 1\nc@g assign q/0 0\nc@g poll q/0 0:1 1:2\nc@g dies\n"
    "d@g assign q/0 0\nd@g poll q/0 0:1 1:2",
    "nonmonotonic-poll after a seek": "p send q/0 1 2 -> 0 1\nx poll q/0 0:1 1:2\nx seek q/0 0\nx poll q/0 0:1",
    "poll-skip over what was aborted": "p send q/0 1 -> 0\np send q/0 2 txn=T -> 1\np txn T -> abort\n"
    "p send q/0 3 -> 3\nx poll q/0 0:1\ny poll q/0 0:1 1:2 dirty\nx poll q/0 3:3",
    "an aborted value read dirtily": "p send q/0 1 txn=T -> 0\np txn T -> abort\nx poll q/0 0:1 dirty",
    "a transaction of which nothing is there": "p send q/0 1 txn=T -> 0\np send q/1 2 txn=T -> 0\nx final q/0, q/1",
    "duplicates of a plain producer": "p send q/0 1\np send q/0 1 -> 1\nx final q/0 0:1 1:1",
    "a repetition, idempotent": "p send q/0 1 idempotent\np send q/0 1 idempotent -> 0\nx final q/0 0:1",
    "two producers at once": "[1-5] p send q/0 1 key=a -> 1\n[2-3] o send q/0 2 key=a -> 0\nx final q/0 0:2 1:1",
    "a key in two channels": "p send q/0 1 key=tea -> 0\np send t/1 2 key=tea -> 0",
    "a key where it was told to": "p send q/0 1 key=tea explicit -> 0\np send q/1 2 key=tea explicit -> 0",
    "a key after the channel grew": "p send q/0 1 key=tea -> 0\nadmin grow q\np send q/3 2 key=tea -> 0",
    "a value in two channels": "p send q/0 1 -> 0\nx poll q/0 0:1\nx send t/0 1 -> 0\ny poll t/0 0:1",
    "a reset": "p send q/0 1 -> 0\nc@g poll q/0 0:1\nc@g commit q/0 1\nadmin@g reset q/0 0\nc@g assign q/0 0\n"
    "c@g poll q/0 0:1\nc@g commit q/0 1",
    "a seek back": "p send q/0 1 2 -> 0 1\nc@g poll q/0 0:1 1:2\nc@g commit q/0 2\nc@g seek q/0 0\nc@g poll q/0 0:1\n"
    "c@g commit q/0 1",
    "a late commit that was fenced": "p send q/0 1 2 -> 0 1\nc@g poll q/0 0:1\nd@g assign q/0 0\nd@g poll q/0 0:1 1:2\n"
    "d@g commit q/0 2\nc@g commit q/0 1 -> fenced",
    "redelivered because nothing was committed": "p send q/0 1 -> 0\nc@g poll q/0 0:1\nc@g lost q/0\nd@g assign q/0 0\n"
    "d@g poll q/0 0:1",
    "groups are apart": "p send q/0 1 2 -> 0 1\nc@g poll q/0 0:1\nd@h poll q/0 0:1\nc@g poll q/0 1:2\n"
    "c@g commit q/0 2\nd@h commit q/0 1",
    "a commit of which nobody knows": "p send q/0 1 2 -> 0 1\nc@g assign q/0 0\nc@g poll q/0 0:1\n"
    "c@g commit q/0 1 ->\nc@g dies\nd@g assign q/0 1\nd@g poll q/0 1:2",
    "a group that begins late": "p send q/0 1 2 -> 0 1\nc@g assign q/0 1\nc@g poll q/0 1:2\nc@g commit q/0 2\n"
    "x final q/0 0:1 1:2",
    "a trimmed message": "p send q/0 1 2 -> 0 1\np trim q/0 1\nx final q/0 1:2",
    "a power cut takes the end": "p send q/0 1 2 3 -> 0 1 2\nx poll q/0 0:1 1:2 2:3\ndisk cut\np send q/0 4 -> 1000\n"
    "x final q/0 0:1 1000:4",
    "a power cut leaves what was synced": "p send q/0 1 synced -> 0\np send q/0 2 -> 1\ndisk cut\nx final q/0 0:1",
    "a group goes back with a power cut": "p send q/0 1 2 -> 0 1\nc@g poll q/0 0:1 1:2\nc@g commit q/0 2\ndisk cut\n"
    "d@g assign q/0 1\nd@g poll q/0 1:2\nd@g commit q/0 2\nx final q/0 0:1 1:2",
    "epochs one after the other": "till#1 send q/0 1 -> 0\ntill#2 send q/0 2 -> 1\ntill#1 send q/0 3 -> fenced\n"
    "x final q/0 0:1 1:2",
    "sent again after an abort": "p send q/0 1 txn=T -> 0\np txn T -> abort\np send q/0 1 txn=U -> 2\n"
    "p txn U -> commit\n"
    "y poll q/0 0:1 2:1 dirty\nx final q/0 2:1",
    "sent again after an abort of which nobody knows": "p send q/0 1 txn=T -> 0\np txn T\np dies\n"
    "o send q/0 1 txn=U -> 2\n"
    "o txn U -> commit\nx final q/0 2:1",
    "sent again after a sender died within": "p send q/0 1 txn=T\np txn T -> abort\no send q/0 1 txn=U -> 2\n"
    "o txn U -> commit\ny poll q/0 0:1 2:1 dirty\nx poll q/0 2:1\nx final q/0 2:1",
    "copied in a transaction": "p send q/0 1 2 -> 0 1\nc@g assign q/0 0\nc@g poll q/0 0:1 txn=T\n"
    "c send r/0 1 txn=T -> 0\n"
    "c@g commit q/0 1 txn=T\nc txn T -> commit\nc@g poll q/0 1:2 txn=U\nc send r/0 2 txn=U -> 2\nc txn U -> abort\n"
    "c@g back q/0\nc@g poll q/0 1:2 txn=V\nc send r/0 2 txn=V -> 4\nc@g commit q/0 2 txn=V\nc txn V -> commit\n"
    "x final r/0 0:1 4:2",
    "copied, and nobody was told": "p send q/0 1 -> 0\nc@g assign q/0 0\nc@g poll q/0 0:1 txn=T\n"
    "c send r/0 1 txn=T -> 0\n"
    "c@g commit q/0 1 txn=T\nc txn T\nc dies\nd@g assign q/0 1\nx final r/0 0:1",
    "not copied, and nobody was told": "p send q/0 1 -> 0\nc@g assign q/0 0\nc@g poll q/0 0:1 txn=T\n"
    "c send r/0 1 txn=T -> 0\nc@g commit q/0 1 txn=T\nc txn T\nc dies\nd@g assign q/0 0\nd@g poll q/0 0:1 txn=U\n"
    "d send r/0 1 txn=U -> 2\nd@g commit q/0 1 txn=U\nd txn U -> commit\nx final r/0 2:1",
    "a zombie that is fenced": "till#1 open\ntill#1 send q/0 1 txn=T -> 0\ntill#2 open\n"
    "till#1 send q/0 2 txn=T -> fenced\n"
    "till#1 txn T -> fenced\ntill#2 send q/0 3 -> 2\nx final q/0 2:3",
    "a zombie that commits nothing": "till#1 open\ntill#2 open\ntill#1 txn T -> commit",
    "committed while another one opens the name": "till#1 send q/0 1 txn=T -> 0\n[3-6] till#2 open\n"
    "[4-5] till#1 txn T -> commit\n"
    "x final q/0 0:1",
    "a repetition by id": "p send q/0 1 idempotent -> 0\np send q/0 2 key=a -> 1\n"
    "p send q/0 1 idempotent duplicate -> 0\n"
    "x final q/0 0:1 1:2",
    "a repetition by another life": "p send q/0 1 key=a idempotent\np send q/0 2 key=a -> 1\np dies\n"
    "o send q/0 1 key=a idempotent duplicate -> 0\nx final q/0 0:1 1:2",
    "a repetition found in a transaction that is given up": "p send q/0 1 idempotent -> 0\n"
    "o send q/0 1 idempotent duplicate txn=T -> 0\no send q/0 2 txn=T -> 1\no txn T -> abort\nx final q/0 0:1",
    "twice in one transaction": "p send q/0 1 idempotent txn=T -> 0\np send q/0 1 idempotent duplicate txn=T -> 0\n"
    "p txn T -> abort\nx final q/0",
    "reading from one another, in no circle": "a send q/0 1 txn=T -> 0\na txn T -> commit\nb poll q/0 0:1 txn=U\n"
    "b send q/1 2 txn=U -> 0\nb txn U -> commit\nc poll q/1 0:2 txn=V\nc txn V -> commit",
}
