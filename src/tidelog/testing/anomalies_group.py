"""Which promises to a group does a history break: nothing left out, nothing twice, one owner, never back?

Floor 8: may import testing.board, testing.anomalies_log, testing.history and numpy. Thread rule: pure functions.

"Share" is a group's claim on one partition within one era (see `Board.share`); seeking and resetting begin a new era.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tidelog.testing.anomalies_log import Found
from tidelog.testing.board import Board, Finding, Ints, runs
from tidelog.testing.history import Flag, Kind, Status, label

__all__ = ["double_owner", "group_regress", "group_skip", "redelivered", "zombie_producer"]


def _commits(board: Board) -> Ints:
    rows = board.of(Kind.COMMIT)
    return rows[board.ok[rows] & (board.share[rows] >= 0) & (board.offset[rows] >= 0)]


def _committed_before(board: Board, rows: Ints) -> tuple[Ints, Ints]:
    """For each row: the highest offset its share had committed before the row began (-1: none), and that commit."""
    commits = _commits(board)
    best, proof = np.full(rows.size, -1, np.int64), np.full(rows.size, -1, np.int64)
    if not commits.size or not rows.size:
        return best, proof
    # Commits by the moment they were done and questions by the moment they began, in one order, share by share.
    both = np.concatenate([commits, rows])
    times = np.concatenate([board.end[commits], board.begin[rows]])
    asks = np.concatenate([np.zeros(commits.size, np.int64), np.ones(rows.size, np.int64)])
    share = board.share[both]
    order = np.lexsort((-asks, times, share))  # at the same moment the question comes first
    number = runs(share[order])
    value = np.where(asks[order] == 0, board.offset[both][order], -1)
    most = int(value.max()) + 2
    high = np.maximum.accumulate(value + number * most)
    where = np.flatnonzero(asks[order] == 1)
    reached = high[where] - number[where] * most
    # Which commit it was: the last place at which the maximum rose.
    rose = np.maximum.accumulate(np.where(np.diff(high, prepend=-1) > 0, np.arange(high.size), 0))
    at = order[where] - commits.size
    best[at] = reached
    proof[at] = np.where(reached >= 0, both[order[rose[where]]], -1)
    return best, proof


def group_regress(board: Board) -> Found:
    """A commit, or the place where a new owner begins, lies before what the group had committed already."""
    rows = board.of(Kind.COMMIT, Kind.ASSIGN)
    rows = rows[board.ok[rows] & (board.share[rows] >= 0) & (board.offset[rows] >= 0)]
    best, proof = _committed_before(board, rows)
    wrong = best > board.offset[rows]
    findings = []
    for at in board.candidates(np.flatnonzero(wrong)):
        row, earlier = int(rows[at]), int(proof[at])
        group = board.groups[int(board.group[row])]
        place = board.history.place(board.rows[row])
        what = "was committed" if board.kind[row] == Kind.COMMIT else "is where its next owner began"
        name, proof_of = _with_output(board, earlier, "group-regress")
        findings.append(
            Finding(
                name,
                (*proof_of, row),
                f"the group {group} had committed {int(best[at])} of {place}, then {int(board.offset[row])} {what}",
            )
        )
    return int(wrong.sum()), findings


def _with_output(board: Board, commit: int, name: str) -> tuple[str, tuple[int, ...]]:
    """What is wrong when this commit does not hold, and what proves it: of a transaction whose messages can be read, it
    is torn."""
    txn = int(board.txn[commit])
    seen = int(board.txn_seen[txn]) if txn else -1
    if seen < 0:
        return name, (commit, int(board.txn_row[txn])) if txn and board.txn_row[txn] >= 0 else (commit,)
    end = int(board.txn_row[txn])
    sent = int(board.sent_as(np.array([seen]))[0])
    return "torn-txn", (sent, commit, seen) if end < 0 else (sent, commit, end, seen)


def redelivered(board: Board, modes: Mapping[str, str]) -> Found:
    """A message handed over again though that was excluded: the group had committed past it, or its owner had given the
    partition back in good order after it; with at-most-once and exactly-once: in any case."""
    polls = board.polls[board.share[board.polls] >= 0]
    best, proof = _committed_before(board, polls)
    past = best > board.offset[polls]
    findings = []
    for at in board.candidates(np.flatnonzero(past)):
        row, commit = int(polls[at]), int(proof[at])
        name, proof_of = _with_output(board, commit, "redelivered")
        findings.append(
            Finding(
                name,
                (*proof_of, row),
                f"{_what(board, row)} was handed over after {_group(board, row)} had committed {int(best[at])}",
            )
        )
    order = np.lexsort((polls, board.offset[polls], board.share[polls]))
    rows = polls[order]
    first, second = rows[:-1], rows[1:]
    again = (board.share[first] == board.share[second]) & (board.offset[first] == board.offset[second])
    # What was handed over in a transaction counts when that was committed, and then for whoever asks afterwards.
    of, after = board.txn[first], board.txn[second]
    counts = (of == 0) | (board.txn_fate[of] == Status.OK)
    ended = np.where(of > 0, board.end[board.txn_row[of]], board.end[first])
    again &= counts & (
        (of == 0) | (board.begin[second] >= ended) | ((after > 0) & (board.txn_fate[after] == Status.OK))
    )
    again &= (board.tenure[first] != board.tenure[second]) | ~_may_repeat(board, modes)[board.group[first]]
    once = ~_may_repeat(board, modes)
    never = np.flatnonzero(again & once[board.group[first]])
    for at in board.candidates(never):
        a, b = int(first[at]), int(second[at])
        mode = modes[_group(board, a)]
        findings.append(
            Finding(
                "redelivered", (a, b), f"{_what(board, a)} was handed over twice to {_group(board, a)}, which is {mode}"
            )
        )
    # At least once: a clean hand-over in between says that the message was handled and committed.
    given = _given_back(board)
    kind = given[board.tenure[first]]
    clean = again & ~once[board.group[first]] & (kind >= 0)
    clean &= board.end[kind] <= board.begin[second]
    for at in board.candidates(np.flatnonzero(clean)):
        a, b, back = int(first[at]), int(second[at]), int(kind[at])
        findings.append(
            Finding(
                "redelivered",
                (a, back, b),
                f"{_what(board, a)} was handed over again although its first owner had given the partition back in "
                f"good order",
            )
        )
    return int(past.sum() + never.size + clean.sum()), findings


def _may_repeat(board: Board, modes: Mapping[str, str]) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """By group: whether a message may come again after a failure."""
    return np.array([modes[name] in ("at-least-once", "manual") for name in board.groups], bool)


def _given_back(board: Board) -> Ints:
    """By tenure: the row in which its owner gave the partition back in good order; -1: it did not. Only at-least-once
    commits what was handed over by itself."""
    given = np.full(int(board.tenure.max(initial=0)) + 2, -1, np.int64)
    keeps = np.array([client.mode == "at-least-once" for client in board.history.clients], bool)
    rows = board.of(Kind.REVOKE)
    rows = rows[board.ok[rows] & keeps[board.client[rows]]]
    # The tenure that a revocation ends is the one before its own, of the same client and partition.
    polls = board.of(Kind.POLL, Kind.COMMIT, Kind.ASSIGN)
    both = np.concatenate([polls, rows])
    order = np.lexsort((both, board.op[both], board.place[both], board.client[both]))
    both = both[order]
    at = np.flatnonzero(board.kind[both] == Kind.REVOKE)
    at = at[at > 0]
    before = both[at - 1]
    mine = (board.client[before] == board.client[both[at]]) & (board.place[before] == board.place[both[at]])
    mine &= board.kind[before] != Kind.REVOKE
    given[board.tenure[before[mine]]] = both[at[mine]]
    return given


def _what(board: Board, row: int) -> str:
    return f"{label(int(board.rows['value'][row]))} at {board.say(row)}"


def _group(board: Board, row: int) -> str:
    return board.groups[int(board.group[row])]


def group_skip(board: Board, modes: Mapping[str, str]) -> Found:
    """The group committed past a message that none of its members was given, or a new owner began behind everything
    that anybody may have committed. Counted from where the group began."""
    rows = board.of(Kind.COMMIT)
    failed = board.status[rows] == Status.FAIL
    given_up = rows[failed & (board.txn[rows] > 0) & (board.share[rows] >= 0) & (board.offset[rows] >= 0)]
    commits = rows[~failed & (board.share[rows] >= 0) & (board.offset[rows] >= 0)]
    findings: list[Finding] = []
    total = 0
    polls = board.polls[board.share[board.polls] >= 0]
    assigns = board.of(Kind.ASSIGN)
    assigns = assigns[board.ok[assigns] & (board.share[assigns] >= 0) & (board.offset[assigns] >= 0)]
    there = board.must_be_there()
    committed, owned, polled, dropped = (_by_share(board, rows) for rows in (commits, assigns, polls, given_up))
    # Members of every era count: a message that was handled before a seek was handled. What was handed over in a
    # transaction that was given up was not.
    kept = polls[(board.txn[polls] == 0) | (board.txn_fate[board.txn[polls]] != Status.FAIL)]
    handled = np.unique(board.group[kept] * there.size + board.entry[kept])
    none = np.zeros(0, np.int64)
    for share in sorted({*committed, *owned}):
        mine, begun, own = (rows.get(share, none) for rows in (committed, owned, polled))
        some = int(mine[0] if mine.size else begun[0])
        group, place = int(board.group[some]), int(board.place[some])
        if modes[board.groups[group]] == "at-most-once":
            continue
        first, end = np.searchsorted(board.entry_place, [place, place + 1])
        offsets, needed = board.entry_offset[first:end], there[first:end]
        count, more = _begun_behind(
            board, mine, begun, dropped.get(share, none), offsets, np.where(needed, np.arange(first, end), -1)
        )
        total += count
        findings += more
        mine = mine[board.ok[mine]]
        starts = np.concatenate([own, begun])
        if not mine.size or not starts.size:
            continue
        upto = int(board.offset[mine].max())
        wanted = needed & (offsets >= int(board.offset[starts].min())) & (offsets < upto)
        asked = np.flatnonzero(wanted) + first
        left = asked[~np.isin(group * there.size + asked, handled, assume_unique=True)]
        total += int(left.size)
        for entry in board.candidates(left):
            row = int(board.entry_row[entry])
            commit = int(mine[board.offset[mine] > board.offset[row]][0])
            findings.append(
                Finding(
                    "group-skip",
                    (row, commit),
                    f"{board.groups[group]} committed {int(board.offset[commit])}, and {_what(board, row)} was handed "
                    f"over to none of its members",
                )
            )
    return total, findings


def _by_share(board: Board, rows: Ints) -> dict[int, Ints]:
    """Rows by their share, in the order of their beginning."""
    if not rows.size:
        return {}
    rows = rows[np.lexsort((rows, board.share[rows]))]
    names, where = np.unique(board.share[rows], return_index=True)
    return dict(zip(names.tolist(), np.split(rows, where[1:]), strict=True))


def _begun_behind(
    board: Board, commits: Ints, assigns: Ints, given_up: Ints, offsets: Ints, entries: Ints
) -> tuple[int, list[Finding]]:
    """Owners of one share that began behind every commit that was made, or may have been made, until then. Commits are
    written down before they are made, so that none is unknown. The first owner begins where it likes. `offsets`,
    `entries`: of the partition; -1 where nobody has to come by."""
    findings: list[Finding] = []
    if assigns.size < 2:
        return 0, findings
    first = int(board.offset[assigns[0]])
    order = np.argsort(board.begin[commits], kind="stable")
    commits = commits[order]
    highest = np.maximum.accumulate(np.concatenate([[first], board.offset[commits]]))
    reached = highest[np.searchsorted(board.begin[commits], board.end[assigns], "right")]
    wrong = assigns[board.offset[assigns] > reached]
    reached = reached[board.offset[assigns] > reached]
    total = 0
    for row, upto in zip(wrong, reached, strict=True):
        low, high = np.searchsorted(offsets, [upto, board.offset[row]])
        left = entries[low:high]
        left = left[left >= 0]
        if not left.size:
            continue
        total += 1
        missed = int(board.entry_row[left[0]])
        wanted = given_up[(board.offset[given_up] == board.offset[row]) & (board.begin[given_up] < board.end[row])]
        if wanted.size:
            findings.append(_half_given_up(board, int(wanted[-1]), int(row)))
            continue
        findings.append(
            Finding(
                "group-skip",
                (missed, int(row)),
                f"{_group(board, int(row))} had committed {int(upto)}, the next owner began at {int(board.offset[row])}"
                f", and {_what(board, missed)} lies between",
            )
        )
    return total, findings[:16]


def _half_given_up(board: Board, commit: int, row: int) -> Finding:
    """An owner began where a transaction would have left the group, and that was given up."""
    txn = int(board.txn[commit])
    asked = int(board.txn_row[txn])
    proof = [commit, row] if asked < 0 else [commit, asked, row]
    if board.txn_status[txn] == Status.INFO:  # that nothing of it is there says so
        sends = board.sends[board.txn[board.sends] == txn]
        proof = [int(sends[0]), *proof, int(board.final[board.place[sends[0]]])]
    return Finding(
        "torn-txn",
        tuple(proof),
        f"{board.history.txns[txn]} was given up, and the next owner in {_group(board, row)} began at "
        f"{int(board.offset[row])}, where it would have left it",
    )


def double_owner(board: Board) -> Found:
    """Two live owners: between two successful calls of one tenure another member of the group got messages of the same
    partition, or committed them."""
    rows = board.of(Kind.POLL, Kind.COMMIT)
    rows = rows[board.ok[rows] & (board.group[rows] >= 0)]
    pair = board.group * max(board.places, 1) + board.place
    findings: list[Finding] = []
    total = 0
    if not rows.size:
        return 0, findings
    order = np.lexsort((rows, pair[rows]))
    rows = rows[order]
    _, where = np.unique(pair[rows], return_index=True)
    for part in np.split(rows, where[1:]):
        count, found = _overlaps(board, part)
        total += count
        findings += found
    return total, findings


def _overlaps(board: Board, rows: Ints) -> tuple[int, list[Finding]]:
    """Calls within another member's tenure, in one partition of one group; rows are in the order of their beginning."""
    tenure = board.tenure[rows]
    names, dense = np.unique(tenure, return_inverse=True)
    dense = dense.reshape(-1)
    start = np.full(names.size, np.iinfo(np.int64).max)
    finish = np.full(names.size, -1, np.int64)
    np.minimum.at(start, dense, board.end[rows])
    np.maximum.at(finish, dense, board.begin[rows])
    first = np.full(names.size, -1, np.int64)
    first[dense[::-1]] = np.arange(rows.size)[::-1]
    owner = board.client[rows[first]]
    by_start = np.argsort(start, kind="stable")
    # Of the tenures that had begun by then, the two that last longest, of different members.
    best: list[tuple[int, int]] = []
    longest, second = -1, -1
    for number in by_start:
        if longest < 0 or finish[number] > finish[longest]:
            if longest >= 0 and owner[longest] != owner[number]:
                second = longest
            longest = int(number)
        elif owner[number] != owner[longest] and (second < 0 or finish[number] > finish[second]):
            second = int(number)
        best.append((longest, second))
    table = np.array(best, np.int64)
    at = np.searchsorted(start[by_start], board.begin[rows], "right") - 1
    count = 0
    findings: list[Finding] = []
    for choice in (0, 1):
        other = np.where(at >= 0, table[np.maximum(at, 0), choice], -1)
        wrong = (other >= 0) & (owner[other] != board.client[rows]) & (finish[other] >= board.end[rows])
        count += int(wrong.sum())
        for position in board.candidates(np.flatnonzero(wrong)):
            row = int(rows[position])
            others = rows[dense == other[position]]
            before = others[board.end[others] <= board.begin[row]]
            after = others[board.begin[others] >= board.end[row]]
            if not before.size or not after.size:
                continue
            name = board.history.clients[int(board.client[before[0]])]
            findings.append(
                Finding(
                    "double-owner",
                    (int(before[-1]), row, int(after[0])),
                    f"{board.history.clients[int(board.client[row])]} had {board.history.place(board.rows[row])} while "
                    f"{name} owned it",
                )
            )
    return count, findings


def zombie_producer(board: Board) -> Found:
    """zombie: a producer's older epoch appended, or committed a transaction, after a newer one had been opened or was
    at work, and it holds."""
    clients = board.history.clients
    names = list(dict.fromkeys(client.producer for client in clients if client.producer is not None))
    if not names:
        return 0, []
    number = np.array([-1 if client.producer is None else names.index(client.producer) for client in clients], np.int64)
    epochs = np.array([client.epoch for client in clients], np.int64)[board.client]
    name = number[board.client]
    fenced = (board.rows["flags"] & Flag.FENCED) > 0
    there = board.ok.copy()  # of sends: what is in the log, also if its sender does not know
    sends = board.sends
    entry = board.entry[sends]
    there[sends] |= np.where(entry >= 0, board.entry_seen[entry], board.seen_by[board.value[sends]]) >= 0
    # A transaction in which nothing was done is committed by nobody.
    used = np.zeros(len(board.history.txns), bool)
    used[board.txn[board.of(Kind.SEND, Kind.COMMIT)]] = True
    rows = board.of(Kind.SEND, Kind.TXN, Kind.OPEN)
    rows = rows[(name[rows] >= 0) & ((board.kind[rows] != Kind.TXN) | used[board.txn[rows]])]
    findings: list[Finding] = []
    total = 0
    for each in range(len(names)):
        mine = rows[name[rows] == each]
        proofs = mine[board.ok[mine] & ~fenced[mine]]
        proofs = proofs[np.argsort(board.end[proofs], kind="stable")]
        if not proofs.size:
            continue
        newest = np.maximum.accumulate(epochs[proofs])
        rose = np.maximum.accumulate(np.where(np.diff(newest, prepend=-1) > 0, np.arange(newest.size), 0))
        judged = mine[there[mine] & ~fenced[mine] & ~board.repeated[mine] & (board.kind[mine] != Kind.OPEN)]
        at = np.searchsorted(board.end[proofs], board.begin[judged], "right") - 1
        wrong = (at >= 0) & (newest[at] > epochs[judged])
        total += int(wrong.sum())
        for row, upto in zip(judged[wrong][:16], at[wrong][:16], strict=True):
            first = int(proofs[rose[upto]])
            proof = [first, int(row)]
            what = f"sent {_what(board, int(row))}"
            if board.kind[row] == Kind.TXN:
                what = f"committed {board.history.txns[int(board.txn[row])]}"
            elif not board.ok[row]:
                proof.append(
                    int(
                        board.entry_seen[board.entry[row]] if board.entry[row] >= 0 else board.seen_by[board.value[row]]
                    )
                )
            findings.append(
                Finding(
                    "zombie",
                    tuple(proof),
                    f"epoch {int(epochs[row])} of {names[each]} {what} after epoch {int(epochs[first])} was at work, "
                    f"and it holds",
                )
            )
    return total, findings[:16]
