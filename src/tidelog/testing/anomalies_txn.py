"""Which promises of transactions does a history break: all or nothing, and nothing before its time?

Floor 8: may import testing.board, testing.anomalies_log, testing.history and numpy. Thread rule: pure functions.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from tidelog.testing.anomalies_log import Found
from tidelog.testing.board import Board, Finding
from tidelog.testing.history import Status, label

__all__ = ["cycles", "precommitted_read", "torn_txn"]


def precommitted_read(board: Board) -> Found:
    """A reader of committed messages got what a transaction had sent before that was committed: its own sends, or
    somebody else's before the commit was asked for."""
    polls = board.polls[board.clean[board.polls]]
    send = board.sent_as(polls)
    polls, send = polls[send >= 0], send[send >= 0]
    txn = board.txn[send]
    polls, send, txn = polls[txn > 0], send[txn > 0], txn[txn > 0]
    commit = board.txn_row[txn]
    own = board.txn[polls] == txn
    early = ~own & (commit >= 0) & (board.txn_status[txn] != Status.FAIL) & (board.end[polls] < board.begin[commit])
    findings = []
    for at in board.candidates(np.flatnonzero(own | early)):
        row, sent = int(polls[at]), int(send[at])
        name = board.history.txns[int(txn[at])]
        what = f"{label(int(board.rows['value'][row]))} at {board.say(row)}"
        if own[at]:
            findings.append(Finding("precommitted-read", (sent, row), f"the transaction {name} read its own {what}"))
        else:
            findings.append(
                Finding(
                    "precommitted-read", (sent, row, int(commit[at])), f"{what} was read before {name} was committed"
                )
            )
    return int((own | early).sum()), findings


def torn_txn(board: Board) -> Found:
    """Some values of a transaction can be read and others cannot, though the partition was read past them. (Its offsets
    out of step with its values: see anomalies_group.)"""
    sends = board.sends[(board.txn[board.sends] > 0) & ~board.repeated[board.sends]]
    txn = board.txn[sends]
    sends = sends[(board.status[sends] != Status.FAIL) & (board.txn_status[txn] != Status.FAIL)]
    txn = board.txn[sends]
    entry, place = board.entry[sends], board.place[sends]
    told = entry >= 0  # acked: known by its place; else by its value
    seen = board.seen_by[board.value[sends]]
    seen[told] = board.entry_seen[entry[told]]
    # Anybody who read a part of it is a witness, the first one above all.
    order = np.argsort(np.where(seen >= 0, seen, board.rows.size), kind="stable")[::-1]
    order = order[seen[order] >= 0]
    witness = np.full(len(board.history.txns), -1, np.int64)
    witness[txn[order]] = seen[order]
    last = np.zeros(len(board.history.txns), np.int64)
    np.maximum.at(last, txn, board.begin[sends])
    commit = board.txn_row[txn]
    done = np.where((commit >= 0) & (board.txn_status[txn] == Status.OK), board.end[commit], last[txn])
    final = board.final[place]
    read = (final >= 0) & (board.begin[final] >= done)
    read |= told & (board.offset[sends] < board.polled_to[place])
    read[told] &= ~(board.trimmed | board.cut_away)[entry[told]]
    missing = np.flatnonzero((seen < 0) & read & (witness[txn] >= 0))
    findings = []
    for at in board.candidates(missing):
        row, number = int(sends[at]), int(txn[at])
        first = int(witness[number])
        proof = (row, *((int(commit[at]),) if commit[at] >= 0 else ()), first)
        values = [label(int(board.rows["value"][one])) for one in (first, row)]
        findings.append(
            Finding(
                "torn-txn",
                proof,
                f"of {board.history.txns[number]} the value {values[0]} can be read and {values[1]} cannot",
            )
        )
    return int(missing.size), findings


def cycles(board: Board) -> Found:
    """G1c: transactions that have read from one another in a circle. An edge leads from who sent a value to who read
    it; edges between two writers are no matter."""
    polls = board.polls[board.txn[board.polls] > 0]
    send = board.sent_as(polls)
    polls, send = polls[send >= 0], send[send >= 0]
    writer, reader = board.txn[send], board.txn[polls]
    real = (writer > 0) & (writer != reader)
    polls, send, writer, reader = polls[real], send[real], writer[real], reader[real]
    while writer.size:  # what nobody leads to, or what leads nowhere, is in no circle
        stays = np.isin(writer, reader) & np.isin(reader, writer)
        if stays.all():
            break
        polls, send, writer, reader = polls[stays], send[stays], writer[stays], reader[stays]
    edges: dict[int, dict[int, tuple[int, int]]] = {}
    for poll, sent, source, target in zip(polls, send, writer, reader, strict=True):
        edges.setdefault(int(source), {}).setdefault(int(target), (int(sent), int(poll)))
    shortest: list[int] = []
    found = 0
    for start in edges:
        path = _circle(edges, start)
        if path:
            found += 1
            if not shortest or len(path) < len(shortest):
                shortest = path
    if not shortest:
        return 0, []
    rows: list[int] = []
    for source, target in zip(shortest, shortest[1:] + shortest[:1], strict=True):
        rows += edges[source][target]
    names = " -> ".join(board.history.txns[number] for number in [*shortest, shortest[0]])
    return found, [Finding("G1c", tuple(rows), f"each read what the one before it sent: {names}")]


def _circle(edges: dict[int, dict[int, tuple[int, int]]], start: int) -> list[int]:
    """The shortest way from a transaction back to itself."""
    came: dict[int, int] = {}
    queue = deque([start])
    while queue:
        node = queue.popleft()
        for following in edges.get(node, {}):
            if following == start:
                path = [node]
                while path[-1] != start:
                    path.append(came[path[-1]])
                return path[::-1]
            if following not in came:
                came[following] = node
                queue.append(following)
    return []
