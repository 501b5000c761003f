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
    somebody else's before the commit began."""
    polls = board.polls[board.clean[board.polls]]
    send = board.send_of[board.value[polls]]
    polls, send = polls[send >= 0], send[send >= 0]
    txn = board.rows["txn"][send]
    polls, send, txn = polls[txn > 0], send[txn > 0], txn[txn > 0]
    commit = board.txn_row[txn]
    own = board.rows["txn"][polls] == txn
    early = ~own & (commit >= 0) & (board.txn_status[txn] == Status.OK) & (board.end[polls] < board.begin[commit])
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
    """Some values of a transaction can be read and others cannot, though the partition was read past them."""
    sends = board.sends[board.rows["txn"][board.sends] > 0]
    sends = sends[board.rows["status"][sends] != Status.FAIL]
    findings = []
    total = 0
    for number in np.unique(board.rows["txn"][sends]):
        if board.txn_status[number] == Status.FAIL:
            continue
        mine = sends[board.rows["txn"][sends] == number]
        seen = board.seen_by[board.value[mine]]
        if not (seen >= 0).any() or (seen >= 0).all():
            continue
        commit = int(board.txn_row[number])
        place = board.place[mine]
        final = board.final[place]
        done = board.end[commit] if commit >= 0 else board.begin[mine].max()
        read = (final >= 0) & (board.begin[final] >= done)
        read |= (board.offset[mine] >= 0) & (board.offset[mine] < board.polled_to[place])
        gone = board.entry[mine] >= 0
        excused = np.zeros(mine.size, bool)
        excused[gone] = (board.trimmed | board.cut_away)[board.entry[mine[gone]]]
        missing = mine[(seen < 0) & read & ~excused]
        total += int(missing.size)
        witness = int(seen[seen >= 0].min())
        for row in board.candidates(missing):
            proof = (row, *((commit,) if commit >= 0 else ()), witness)
            findings.append(
                Finding(
                    "torn-txn",
                    proof,
                    f"of {board.history.txns[int(number)]} the value {label(int(board.rows['value'][witness]))} can be "
                    f"read and {label(int(board.rows['value'][row]))} cannot",
                )
            )
    return total, findings


def cycles(board: Board) -> Found:
    """G1c: transactions that have read from one another in a circle. An edge leads from who sent a value to who read
    it; edges between two writers are no matter."""
    polls = board.polls[board.rows["txn"][board.polls] > 0]
    send = board.send_of[board.value[polls]]
    polls, send = polls[send >= 0], send[send >= 0]
    edges: dict[int, dict[int, tuple[int, int]]] = {}
    for row, sent in zip(polls, send, strict=True):
        writer, reader = int(board.rows["txn"][sent]), int(board.rows["txn"][row])
        if writer and writer != reader:
            edges.setdefault(writer, {}).setdefault(reader, (int(sent), int(row)))
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
    for writer, reader in zip(shortest, shortest[1:] + shortest[:1], strict=True):
        rows += edges[writer][reader]
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
