"""What did the processes of a run do, in which order, and what were they told?

Floor 8: may import numpy and nothing of tidelog. Thread rule: a `History` is a value that nobody changes.

A history is a table with one row for each message sent, message received, commit and change of ownership, and a few
lists of names. Recorders write it while a program runs (testing/recorder.py), `History.parse` reads it from text, and
`check` judges it (testing/judge.py). The text has a line for each operation:

    p send orders/0 7 8 key=tea -> 0 1      values 7 and 8 went to partition 0 and were acked at offsets 0 and 1
    p send orders/0 9 -> fail               refused: 9 is not in the log. `fenced`: refused because of a newer epoch
    p send orders/0 9                       nobody knows: the sender died, or the answer was lost
    c@billing commit orders/0 1 ->          the same of anything but a send
    c@billing assign orders/0 0             c, a member of the group billing, owns the partition and begins at 0
    c@billing poll orders/0 0:7 1:8         one call handed over offset 0 with value 7 and offset 1 with value 8
    c@billing commit orders/0 2
    c@billing revoke orders/0               given back in good order; `lost`: taken away
    x final orders/0 0:7 1:8                everything that the partition holds at the end of the run
    p txn T -> commit                       also `abort`, `fenced`; sends, polls and commits belong to it by txn=T
    c@billing commit orders/0 2 txn=T       it holds when T was committed, and from then on
    c@billing back orders/0                 its transaction was given up: what it had been given comes again
    till#2 open                             epoch 2 of the producer till was opened
    c dies                                  killed; `close`: closed in good order
    admin@billing reset orders/0 0          the committed offset was set by hand; `seek` is a consumer's own move
    disk cut                                the power was cut

`[3-7]` before a line gives the times of its beginning and end; otherwise lines follow one another. `till#2` is epoch 2
of the producer till. `synced` behind a send: the ack said that it is on disk. `dirty` behind a poll: uncommitted
transactions are read too. `explicit` behind a send: the sender chose the partition. `idempotent`: sending it again must
not store it again, since it has an id, or the producer a name; `duplicate`: the receipt said that it was there already.
A transaction whose end was never asked for is an aborted one; one without an outcome was to be committed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ROW", "Client", "Flag", "History", "Kind", "Status", "label", "token"]

ROW = np.dtype(
    [
        ("begin", "<i8"),
        ("end", "<i8"),
        ("value", "<i8"),
        ("key", "<i8"),
        ("offset", "<i8"),
        ("op", "<u4"),
        ("client", "<u4"),
        ("txn", "<u4"),
        ("partition", "<i4"),
        ("channel", "<u2"),
        ("kind", "u1"),
        ("status", "u1"),
        ("flags", "<u2"),
        ("spare", "<u2"),
    ]
)
"""One row. begin, end: monotonic ns, end 0 if it never ended. value, key: tokens, -1 none. offset: -1 unknown. op: rows
of one call of one client share it, and it counts up. txn: 0 none."""

Rows = NDArray[Any]


class Kind(IntEnum):
    """What a row tells of."""

    SEND = 1
    POLL = 2
    COMMIT = 3
    ASSIGN = 4
    REVOKE = 5
    LOST = 6
    SEEK = 7
    RESET = 8
    TXN = 9
    TRIM = 10
    DEATH = 11
    CLOSE = 12
    CUT = 13
    FINAL = 14
    """A reader got to the end of a partition; its messages are POLL rows of the same operation."""
    GROW = 15
    BACK = 16
    """A consumer begins again where it had last committed."""
    OPEN = 17


class Status(IntEnum):
    """How it ended."""

    INFO = 0
    """Nobody knows: it may have happened."""
    OK = 1
    FAIL = 2
    """It did not happen (a transaction: it was aborted)."""


class Flag(IntFlag):
    """What else is to be said of a row."""

    SYNCED = 1
    DIRTY = 2
    FENCED = 4
    EXPLICIT = 8
    """The sender chose the partition, so the key did not."""
    IDEMPOTENT = 16
    """A repetition of this send must not store the message twice."""
    DUPLICATE = 32
    """The receipt said that the message was there before."""


VERBS = {
    kind.name.lower(): kind
    for kind in Kind
    if kind not in (Kind.DEATH, Kind.FINAL, Kind.POLL, Kind.SEND, Kind.TXN, Kind.CUT, Kind.GROW, Kind.CLOSE, Kind.OPEN)
}
OPTIONS = {
    "synced": Flag.SYNCED,
    "dirty": Flag.DIRTY,
    "explicit": Flag.EXPLICIT,
    "idempotent": Flag.IDEMPOTENT,
    "duplicate": Flag.DUPLICATE,
}

_TEXT = 1 << 61  # up to seven bytes, so that they can be read back
_HASH = 1 << 62


def token(value: int | bytes | str | None) -> int:
    """A number that stands for a value or a key: small numbers and short texts can be read back from it (`label`),
    anything else is a hash of 61 bits. None is -1."""
    if value is None:
        return -1
    if isinstance(value, int):
        if 0 <= value < _TEXT:
            return value
        value = str(value)
    data = value.encode() if isinstance(value, str) else bytes(value)
    if len(data) < 8:
        return _TEXT | len(data) << 56 | int.from_bytes(data, "big")
    return _HASH | int.from_bytes(blake2b(data, digest_size=8).digest(), "big") >> 3


def label(number: int) -> str:
    """What a token stands for, as text."""
    if number < 0:
        return "none"
    if number & _HASH:
        return f"x{number & ~_HASH:x}"
    if number & _TEXT:
        data = (number & (1 << 56) - 1).to_bytes(7, "big")[7 - (number >> 56 & 7) :]
        text = data.decode("latin-1")
        return text if text.isascii() and text.isprintable() and " " not in text and text else "0x" + data.hex()
    return str(number)


@dataclass(frozen=True, slots=True)
class Client:
    """One producer or consumer, used by one thread at a time."""

    name: str
    group: str | None = None
    mode: str = "at-least-once"
    """The delivery rule of a consumer."""
    producer: str | None = None
    """The name of a producer that outlives its processes."""
    epoch: int = 0

    def __str__(self) -> str:
        return f"{self.name}@{self.group}" if self.group is not None else self.name


@dataclass(slots=True)
class History:
    """What happened in a run; rows are in the order in which they began."""

    rows: Rows = field(default_factory=lambda: np.zeros(0, ROW))
    clients: list[Client] = field(default_factory=list)
    channels: list[str] = field(default_factory=list)
    txns: list[str] = field(default_factory=lambda: [""])
    """Names of transactions; number 0 is none."""

    def __len__(self) -> int:
        """Operations: calls that did something."""
        return int(np.unique(self.rows["client"].astype(np.int64) << 32 | self.rows["op"]).size)

    def counts(self) -> dict[str, int]:
        """Rows by kind."""
        found = np.bincount(self.rows["kind"], minlength=max(Kind) + 1)
        return {kind.name.lower(): int(found[kind]) for kind in Kind if found[kind]}

    # --- joining ---

    @classmethod
    def merged(cls, histories: Iterable[History]) -> History:
        """One history of what several processes recorded; their clocks must be the same (one host, one boot)."""
        result = cls()
        channels: dict[str, int] = {}
        parts: list[Rows] = []
        for history in histories:
            rows = history.rows.copy()
            rows["client"] += np.uint32(len(result.clients))
            rows["txn"][rows["txn"] > 0] += np.uint32(len(result.txns) - 1)
            names = [channels.setdefault(name, len(channels)) for name in history.channels]
            if names:
                rows["channel"] = np.array(names, dtype=np.uint16)[rows["channel"]]
            result.clients += history.clients
            result.txns += history.txns[1:]
            parts.append(rows)
        result.channels = list(channels)
        if parts:
            rows = np.concatenate(parts)
            result.rows = rows[np.argsort(rows["begin"], kind="stable")]
        return result

    # --- text ---

    @classmethod
    def parse(cls, text: str) -> History:
        """The history that a text tells (the format is at the head of tidelog/testing/history.py). Raises ValueError,
        naming the line."""
        return _Parser().history(text)

    def text(self, rows: Sequence[int] | NDArray[Any] | None = None) -> list[str]:
        """Rows (numbers; None: all) as lines that `parse` reads; rows of one call share a line."""
        chosen = range(len(self.rows)) if rows is None else sorted({int(row) for row in rows})
        calls: dict[tuple[int, int, int, int, int], list[int]] = {}
        for number in chosen:
            row = self.rows[number]
            apart = 0 if row["kind"] != Kind.SEND else int(row["status"]) * 8 + int(row["flags"])
            kind = int(Kind.POLL if row["kind"] == Kind.FINAL else row["kind"])
            key = -1 if row["kind"] != Kind.SEND else int(row["key"])
            calls.setdefault((int(row["client"]), int(row["op"]), kind, apart, key), []).append(number)
        return [self._line(members) for members in calls.values()]

    def place(self, row: Any) -> str:
        """channel/partition of a row."""
        partition = int(row["partition"])
        return f"{self.channels[row['channel']]}/{partition if partition >= 0 else '?'}"

    def _line(self, members: list[int]) -> str:
        rows = [self.rows[number] for number in members]
        row = rows[0]
        kind, status = Kind(row["kind"]), Status(row["status"])
        who = str(self.clients[row["client"]])
        words = [who, kind.name.lower()]
        flags = Flag(int(row["flags"]))
        options = [name for name, flag in OPTIONS.items() if flags & flag]
        if row["txn"] and kind is not Kind.TXN:
            options.append(f"txn={self.txns[row['txn']]}")
        if kind is Kind.SEND:
            by_place: dict[str, list[Any]] = {}
            for one in rows:
                by_place.setdefault(self.place(one), []).append(one)
            if row["key"] >= 0:
                options.insert(0, f"key={label(int(row['key']))}")
            parts = []
            for place, sent in by_place.items():
                values = " ".join(label(int(one["value"])) for one in sent)
                end = {Status.OK: " -> " + " ".join(str(int(one["offset"])) for one in sent), Status.INFO: ""}
                failed = " -> fenced" if flags & Flag.FENCED else " -> fail"
                parts.append(" ".join([place, values, *options]) + end.get(status, failed))
            return f"{who} send " + ", ".join(parts)
        if kind in (Kind.POLL, Kind.FINAL):
            final = any(one["kind"] == Kind.FINAL for one in rows)
            places: dict[str, list[str]] = {}
            for one in rows:
                pairs = places.setdefault(self.place(one), [])
                if one["kind"] == Kind.POLL:
                    pairs.append(f"{int(one['offset'])}:{label(int(one['value']))}")
            told = ", ".join(" ".join([place, *pairs]) for place, pairs in places.items())
            return " ".join([who, "final" if final else "poll", told, *options])
        if kind is Kind.TXN:
            words += [self.txns[row["txn"]]]
            failed = "fenced" if flags & Flag.FENCED else "abort"
            words += {Status.OK: ["->", "commit"], Status.FAIL: ["->", failed], Status.INFO: []}[status]
            return " ".join(words)
        if kind is Kind.DEATH:
            return f"{who} dies"
        if kind in (Kind.CLOSE, Kind.CUT, Kind.OPEN):
            return " ".join(words)
        words.append(self.place(row))
        if row["offset"] >= 0:
            words.append(str(int(row["offset"])))
        words += options
        if status is Status.INFO:
            words.append("->")
        if status is Status.FAIL:
            words += ["->", "fenced" if flags & Flag.FENCED else "fail"]
        return " ".join(words)


class _Parser:
    """Reads the text form."""

    def __init__(self) -> None:
        self.rows: list[tuple[Any, ...]] = []
        self.clients: dict[str, int] = {}
        self.known: list[Client] = []
        self.channels: dict[str, int] = {}
        self.txns: dict[str, int] = {"": 0}
        self.op = 0

    def history(self, text: str) -> History:
        for number, line in enumerate(text.splitlines(), 1):
            line = line.partition("//")[0].strip()
            if not line:
                continue
            try:
                self.line(line)
            except (ValueError, IndexError, KeyError) as error:
                raise ValueError(
                    f"line {number} of the history, {line!r}, cannot be read ({error}): a line is CLIENT VERB ..., as "
                    f"`p send orders/0 7 8 -> 0 1`; the head of tidelog/testing/history.py has them all"
                ) from error
        rows = np.array(self.rows, dtype=ROW) if self.rows else np.zeros(0, ROW)
        rows = rows[np.argsort(rows["begin"], kind="stable")]
        return History(rows, self.known, list(self.channels), list(self.txns))

    def line(self, line: str) -> None:
        self.op += 1
        begin, end = self.op * 1000, self.op * 1000 + 500
        if timed := re.match(r"\[(\d+)-(\d+)\]\s*", line):
            begin, end = int(timed[1]) * 1000, int(timed[2]) * 1000
            line = line[timed.end() :]
        if len(line.split()) < 2:
            raise ValueError("it says who, and not what was done")
        who, verb, *rest = line.split(None, 2)
        client = self.client(who)
        body, arrow, outcome = (rest[0] if rest else "").partition("->")
        outcome = outcome.strip()
        times = (begin, end)
        if verb == "send":
            for part in line.split(None, 2)[2].split(","):
                self.send(client, times, part)
        elif verb in ("poll", "final"):
            self.poll(client, times, body, verb == "final")
        elif verb == "txn":
            status = {"commit": Status.OK, "abort": Status.FAIL, "fenced": Status.FAIL, "": Status.INFO}[outcome]
            flags = Flag.FENCED if outcome == "fenced" else Flag(0)
            times = times if status is not Status.INFO else (times[0], 0)
            self.row(Kind.TXN, client, times, txn=self.txn(body.strip()), status=status, flags=flags)
        elif verb in ("dies", "close", "cut", "open"):
            kind = {"dies": Kind.DEATH, "close": Kind.CLOSE, "cut": Kind.CUT, "open": Kind.OPEN}[verb]
            self.row(kind, client, times)
        elif verb == "grow":
            self.row(Kind.GROW, client, times, channel=self.channel(body.strip()))
        elif verb in VERBS:
            words, _, flags, txn = self.options(body.split())
            channel, partition = self.place(words[0])
            offset = int(words[1]) if len(words) > 1 else -1
            status = (
                Status.FAIL if outcome in ("fail", "fenced") else Status.INFO if arrow and not outcome else Status.OK
            )
            flags |= Flag.FENCED if outcome == "fenced" else Flag(0)
            self.row(
                VERBS[verb],
                client,
                times,
                channel=channel,
                partition=partition,
                offset=offset,
                status=status,
                flags=flags,
                txn=txn,
            )
        else:
            raise ValueError(f"{verb!r} is no verb of a history")

    def send(self, client: int, times: tuple[int, int], part: str) -> None:
        body, arrow, outcome = part.partition("->")
        words, key, flags, txn = self.options(body.split())
        channel, partition = self.place(words[0])
        told = outcome.split()
        status = Status.INFO if not arrow else Status.FAIL if told in (["fail"], ["fenced"]) else Status.OK
        flags |= Flag.FENCED if told == ["fenced"] else Flag(0)
        offsets = [int(one) for one in told] if status is Status.OK else [-1] * (len(words) - 1)
        if len(offsets) != len(words) - 1:
            raise ValueError(f"{len(words) - 1} values, and {len(offsets)} offsets")
        for value, offset in zip(words[1:], offsets, strict=True):
            self.row(
                Kind.SEND,
                client,
                times if status is not Status.INFO else (times[0], 0),
                value=_value(value),
                key=token(key),
                offset=offset,
                channel=channel,
                partition=partition,
                status=status,
                flags=flags,
                txn=txn,
            )

    def poll(self, client: int, times: tuple[int, int], body: str, final: bool) -> None:
        for part in body.split(","):
            words, _, flags, txn = self.options(part.split())
            channel, partition = self.place(words[0])
            for pair in words[1:]:
                offset, value = pair.split(":")
                self.row(
                    Kind.POLL,
                    client,
                    times,
                    value=_value(value),
                    offset=int(offset),
                    channel=channel,
                    partition=partition,
                    flags=flags,
                    txn=txn,
                )
            if final:
                self.row(Kind.FINAL, client, times, channel=channel, partition=partition, flags=flags)

    def options(self, words: list[str]) -> tuple[list[str], str | None, Flag, int]:
        """(words that are no option, key, flags, transaction)."""
        kept, key, flags, txn = [], None, Flag(0), 0
        for word in words:
            name, equals, value = word.partition("=")
            if equals and name == "key":
                key = value
            elif equals and name == "txn":
                txn = self.txn(value)
            elif word in OPTIONS:
                flags |= OPTIONS[word]
            else:
                kept.append(word)
        return kept, key, flags, txn

    def client(self, who: str) -> int:
        if who not in self.clients:
            name, _, group = who.partition("@")
            producer, _, epoch = name.partition("#")
            self.clients[who] = len(self.clients)
            self.known.append(Client(name, group or None, producer=producer if epoch else None, epoch=int(epoch or 0)))
        return self.clients[who]

    def channel(self, name: str) -> int:
        return self.channels.setdefault(name, len(self.channels))

    def txn(self, name: str) -> int:
        return self.txns.setdefault(name, len(self.txns))

    def place(self, word: str) -> tuple[int, int]:
        name, _, partition = word.rpartition("/")
        return self.channel(name), -1 if partition == "?" else int(partition)

    def row(
        self,
        kind: Kind,
        client: int,
        times: tuple[int, int],
        *,
        value: int = -1,
        key: int = -1,
        offset: int = -1,
        channel: int = 0,
        partition: int = -1,
        status: Status = Status.OK,
        flags: int = 0,
        txn: int = 0,
    ) -> None:
        self.rows.append(
            (*times, value, key, offset, self.op, client, txn, partition, channel, kind, status, int(flags), 0)
        )


def _value(word: str) -> int:
    return int(word) if word.isdigit() else token(word)
