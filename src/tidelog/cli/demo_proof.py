"""Was everything delivered, once, in order, and are the answers right? Held against the file, not against memory.

Floor 9: imports the log through its arguments, demo_facts, demo_answers, demo_state, demo_run. Thread rule: one thread.

Each proof is one sentence that is true or a count of what contradicts it. What the log holds is read from the log; what
the groups did is read from the journals that their subscribers kept; what should be is read from the file.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tidelog.cli.crew import KILLED_STATUS
from tidelog.cli.demo_answers import Answer, Table, answers_for, merge
from tidelog.cli.demo_facts import Facts, fingerprint
from tidelog.cli.demo_run import Plan, Seen
from tidelog.cli.demo_source import fields
from tidelog.cli.demo_state import States
from tidelog.cli.output import number

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tidelog.channel import Channel

SCAN_MESSAGES = 10_000


@dataclass(frozen=True, slots=True)
class Proof:
    """One claim and whether it held."""

    name: str
    claim: str
    held: bool
    detail: str = ""
    """For people: what contradicts it."""


@dataclass(slots=True)
class Outcome:
    """All proofs, the answers, and what reading the log back took."""

    proofs: list[Proof] = field(default_factory=list)
    answers: dict[str, Table] = field(default_factory=dict)
    """By group, as the subscribers have computed them."""
    read_seconds: float = 0.0
    read_messages: int = 0

    @property
    def held(self) -> bool:
        """Whether every proof held."""
        return all(proof.held for proof in self.proofs)


def prove(plan: Plan, facts: Facts, seen: Seen, channel: Channel[Any], advance: Callable[[int], None]) -> Outcome:
    """Hold everything against the file; `advance(rows)` is told how far it has come."""
    outcome = Outcome()
    outcome.proofs += _in_log(facts, channel, outcome, advance)
    for answer in answers_for(plan.source.flights):
        outcome.proofs += _in_group(plan, facts, answer, outcome)
    outcome.proofs.append(_committed(plan, channel))
    outcome.proofs.append(_killed(plan, seen, channel))
    return outcome


# --- what the log holds ---


def _in_log(facts: Facts, channel: Channel[Any], outcome: Outcome, advance: Callable[[int], None]) -> list[Proof]:
    import numpy as np

    by_partition: list[list[int]] = [[] for _ in range(channel.partitions)]
    altered = foreign = 0
    with channel.tail(start="earliest") as reader:
        while True:
            began = time.monotonic()
            batch = reader.receive_many(SCAN_MESSAGES, timeout=0)
            events = batch.values
            outcome.read_seconds += time.monotonic() - began
            if not len(batch):
                break
            outcome.read_messages += len(batch)
            for partition, key, event in zip(batch.partitions.tolist(), batch.keys, events, strict=True):
                row = event.row
                if not 0 <= row < facts.rows:
                    foreign += 1
                    continue
                by_partition[partition].append(row)
                if fingerprint(fields(event)) != facts.print_of(row) or key != _key(facts, row):
                    altered += 1
            advance(outcome.read_messages)
    parts = [np.array(rows, dtype=np.int64) for rows in by_partition]
    missing, repeated = _once(facts, parts)
    records = number(facts.rows)
    return [
        Proof(
            "log-complete",
            f"the log holds each of the {records} records once",
            not (missing or repeated or foreign),
            _complaints((missing, "missing"), (repeated, "more than once"), (foreign, "not from the file")),
        ),
        Proof(
            "log-equal",
            "every record in it equals its row in the file, cell by cell, and bears its key",
            not altered,
            _complaints((altered, "different")),
        ),
        _ordered("log-order", "the log keeps the order of every key, in one partition", facts, parts),
    ]


def _key(facts: Facts, row: int) -> bytes:
    return facts.keys[facts.key_of_row[row]].encode()


# --- what a group has done ---


def _in_group(plan: Plan, facts: Facts, answer: Answer, outcome: Outcome) -> list[Proof]:
    import numpy as np

    states = States(plan.states, answer.group)
    loaded = [states.load(partition) for partition in range(plan.partitions)]
    parts = [np.array(rows, dtype=np.int64) for _, rows in loaded]
    missing, repeated = _once(facts, parts)
    found = outcome.answers[answer.group] = merge(state.table for state, _ in loaded)
    source = plan.source
    rows = (cells for _, cells in source.rows())
    wanted = answer.direct(
        source.header(), rows, source.key_position(), lambda key: kafka_partition(key, plan.partitions)
    )
    wrong = sum(found.get(cell) != wanted.get(cell) for cell in found.keys() | wanted.keys())
    return [
        Proof(
            f"{answer.group}-once",
            f"in group {answer.group!r} each of the {number(facts.rows)} records took effect exactly once",
            not (missing or repeated),
            _complaints((missing, "never"), (repeated, "more than once")),
        ),
        _ordered(f"{answer.group}-order", f"group {answer.group!r} saw every key in order", facts, parts),
        Proof(
            f"{answer.group}-answer",
            f"{answer.question}: all {number(len(wanted))} cells equal a direct computation from the file",
            not wrong,
            _complaints((wrong, "cells different")),
        ),
    ]


def _once(facts: Facts, parts: list[NDArray[np.int64]]) -> tuple[int, int]:
    """(rows that are missing, rows that are there more than once)."""
    import numpy as np

    counts = np.bincount(np.concatenate(parts), minlength=facts.rows)
    return int((counts == 0).sum()), int((counts > 1).sum())


def _ordered(name: str, claim: str, facts: Facts, parts: list[NDArray[np.int64]]) -> Proof:
    """Whether rows of one key stand in the order of the file, and in one partition only."""
    import numpy as np

    keys = np.array(facts.key_of_row, dtype=np.int64)
    home = np.full(len(facts.keys), -1, dtype=np.int64)
    backwards = scattered = 0
    for partition, rows in enumerate(parts):
        key = keys[rows]
        by_key = np.argsort(key, kind="stable")  # stable: within a key the order of arrival stays
        same = np.diff(key[by_key]) == 0
        backwards += int((same & (np.diff(rows[by_key]) < 0)).sum())
        present = np.unique(key)
        scattered += int((home[present] >= 0).sum())
        home[present] = partition
    return Proof(
        name,
        claim + f" ({number(len(facts.keys))} keys)",
        not (backwards or scattered),
        _complaints((backwards, "steps backwards"), (scattered, "keys in several partitions")),
    )


# --- what happened on the way ---


def _committed(plan: Plan, channel: Channel[Any]) -> Proof:
    groups = {answer.group for answer in answers_for(plan.source.flights)}
    ends = {number: channel.bounds(number)[1] for number in range(channel.partitions)}
    offsets = {(row.group, row.partition): row.offset for row in channel.offsets()}
    behind = sum(end != 0 and offsets.get((group, part)) != end for group in groups for part, end in ends.items())
    return Proof(
        "committed",
        "both groups have committed the end of every partition",
        not behind,
        _complaints((behind, "partitions behind")),
    )


def _killed(plan: Plan, seen: Seen, channel: Channel[Any]) -> Proof:
    kill = seen.kill
    claim = "one subscriber died of SIGKILL midway, and its successor began at the committed offsets"
    end = sum(channel.bounds(number)[1] for number in range(channel.partitions))
    if kill.status != KILLED_STATUS:
        return Proof("killed", claim, False, f"it had ended with status {kill.status} before")
    if sum(kill.committed.values()) >= end:
        return Proof("killed", claim, False, "it had finished its work before; use more records or a lower --rate")
    if kill.resumed != kill.committed:
        return Proof("killed", claim, False, f"began at {kill.resumed}, committed was {kill.committed}")
    return Proof("killed", claim, True)


def _complaints(*counted: tuple[int, str]) -> str:
    return ", ".join(f"{number(count)} {what}" for count, what in counted if count)


def kafka_partition(key: bytes, partitions: int) -> int:
    """The partition of a key by Kafka's rule, in plain Python: not the code that sent the records."""
    mask = 0xFFFFFFFF
    value = 0x9747B28C ^ len(key)
    whole = len(key) & ~3
    for at in range(0, whole, 4):
        word = int.from_bytes(key[at : at + 4], "little") * 0x5BD1E995 & mask
        word = (word ^ word >> 24) * 0x5BD1E995 & mask
        value = (value * 0x5BD1E995 & mask) ^ word
    if len(key) > whole:
        value = (value ^ int.from_bytes(key[whole:], "little")) * 0x5BD1E995 & mask
    value = (value ^ value >> 13) * 0x5BD1E995 & mask
    value ^= value >> 15
    return (value & 0x7FFFFFFF) % partitions
