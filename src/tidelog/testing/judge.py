"""Does a history keep the promises, and if not, what is the shortest story that shows it?

Floor 8: may import the testing modules of histories and anomalies, and numpy. Thread rule: pure functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from tidelog.testing import anomalies_group as in_group
from tidelog.testing import anomalies_log as in_log
from tidelog.testing import anomalies_txn as in_txn
from tidelog.testing.board import Board, Finding
from tidelog.testing.history import History
from tidelog.testing.stories import AnomalyFound, Story

__all__ = ["ANOMALIES", "check"]

ANOMALIES = (
    "phantom",
    "inconsistent-offsets",
    "zombie",
    "G1a",
    "G1c",
    "torn-txn",
    "precommitted-read",
    "false-duplicate",
    "cut-loss",
    "lost-write",
    "unseen",
    "duplicate",
    "int-nonmonotonic-send",
    "nonmonotonic-send",
    "key-order",
    "partition-order",
    "int-nonmonotonic-poll",
    "nonmonotonic-poll",
    "group-regress",
    "redelivered",
    "double-owner",
    "int-poll-skip",
    "poll-skip",
    "group-skip",
)
"""Every name that `check` may give, the most telling first: of stories of one length the first kind is told."""

MODES = ("at-least-once", "at-most-once", "exactly-once", "manual")

Duplicates = Literal["at-least-once", "at-most-once", "exactly-once", "manual", "recorded"]


def check(
    history: History,
    *,
    order: Literal["per-key", "partition"] | None = "per-key",
    loss: int = 0,
    duplicates: Duplicates | Mapping[str, str] = "at-least-once",
    cuts: Iterable[int] = (),
    idempotent: bool | None = None,
) -> None:
    """Raise AnomalyFound (an AssertionError) unless the history keeps what was promised; its text is the shortest story
    that shows an anomaly: who sent what, who saw it, in order.

    `order`: "per-key": messages of one key stand, and are handed over, in the order in which they were sent;
    "partition": all messages of a partition are; None: neither is looked at. `loss`: so many acked messages may be
    missing. `duplicates`: how often a group may be given a message: "at-least-once" (again after a failure, and none is
    left out), "at-most-once", "exactly-once" (what was handed over in a transaction that was given up does not count);
    a mapping by group; "recorded": as each group's consumers were opened. `cuts`: moments (monotonic ns) at which the
    power was cut: what was acked as written before that may be missing from the end of a partition. `idempotent`: a
    value that was sent once may stand in the log once only (default: with "exactly-once").

    Raises ValueError for options that do not exist, TypeError for what is no History.
    """
    if not isinstance(history, History):
        raise TypeError(
            f"{type(history).__name__} is no history: give History.parse(text), recorder.history() or load(directory)"
        )
    if order not in ("per-key", "partition", None):
        raise ValueError(f"order={order!r} does not exist: 'per-key', 'partition' or None")
    board = Board(history, tuple(cuts))
    modes = _modes(board, duplicates)
    once = duplicates == "exactly-once" if idempotent is None else idempotent
    detectors: list[Callable[[], in_log.Found]] = [
        lambda: in_log.cut_loss(board),  # first: what a cut may take is missed by nobody
        lambda: in_log.lost(board),
        lambda: in_log.inconsistent_offsets(board),
        lambda: in_log.duplicate(board, once),
        lambda: in_log.false_duplicate(board),
        lambda: in_log.failed_but_there(board),
        lambda: in_log.phantom(board),
        lambda: in_log.polls_in_order(board),
        lambda: in_log.nonmonotonic_send(board),
        lambda: in_txn.precommitted_read(board),
        lambda: in_txn.torn_txn(board),
        lambda: in_txn.cycles(board),
        lambda: in_group.group_regress(board),
        lambda: in_group.redelivered(board, modes),
        lambda: in_group.group_skip(board, modes),
        lambda: in_group.double_owner(board),
        lambda: in_group.zombie_producer(board),
    ]
    if order == "per-key":
        detectors += [lambda: in_log.key_places(board), lambda: in_log.key_order(board)]
    elif order == "partition":
        detectors.append(lambda: in_log.partition_order(board))
    findings: list[Finding] = []
    missing = 0
    for detector in detectors:
        count, found = detector()
        findings += found
        missing += count if found and found[0].name in ("lost-write", "unseen", "cut-loss") else 0
    if missing <= loss:
        findings = [one for one in findings if one.name not in ("lost-write", "unseen", "cut-loss")]
    if findings:
        raise AnomalyFound(_shortest(history, findings), _tally(findings))


def _modes(board: Board, duplicates: str | Mapping[str, str]) -> dict[str, str]:
    """The delivery rule of each group."""
    if isinstance(duplicates, str) and duplicates not in (*MODES, "recorded"):
        raise ValueError(f"duplicates={duplicates!r} does not exist: use one of {', '.join(MODES)}, 'recorded'")
    modes: dict[str, str] = {}
    for client in board.history.clients:
        if client.group is not None:
            rule = duplicates if isinstance(duplicates, str) else duplicates.get(client.group, "at-least-once")
            modes[client.group] = client.mode if rule == "recorded" else rule
    return modes


def _tally(findings: list[Finding]) -> dict[str, int]:
    return {name: count for name in ANOMALIES if (count := sum(one.name == name for one in findings))}


def _shortest(history: History, findings: list[Finding]) -> Story:
    stories = (Story.of(history, one.name, one.rows, one.about) for one in findings)
    return min(stories, key=lambda story: (len(story.lines), ANOMALIES.index(story.name), story.rows))
