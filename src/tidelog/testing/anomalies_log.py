"""Which promises about the log itself does a history break: what is in it, where, in which order?

Floor 8: may import testing.board, testing.history and numpy. Thread rule: pure functions.

Each detector takes a `Board` and answers (how many, a few findings). Definitions that are not obvious stand in the
docstrings; the names are those of Jepsen's Kafka workload where it has one.
"""

from __future__ import annotations

import numpy as np

from tidelog.testing.board import Board, Finding, Ints, Mask, runs
from tidelog.testing.history import Flag, Kind, Status, label

__all__ = [
    "Found",
    "cut_loss",
    "duplicate",
    "failed_but_there",
    "false_duplicate",
    "inconsistent_offsets",
    "key_order",
    "key_places",
    "lost",
    "nonmonotonic_send",
    "partition_order",
    "phantom",
    "polls_in_order",
]

Found = tuple[int, list[Finding]]


def lost(board: Board) -> Found:
    """lost-write: an acked message below the highest offset that was read, and nobody read it. unseen: an acked message
    past it, and a complete reading that began after the ack did not see it."""
    acked = board.acked
    entry = board.entry[acked]
    missing = (board.entry_seen[entry] < 0) & board.must_be_there()[entry]
    # Of a transaction of which something was read, what is missing is torn, not lost.
    missing &= board.repeated[acked] | (board.txn_seen[board.txn[acked]] < 0)
    place = board.place[acked]
    below = missing & (board.offset[acked] < board.polled_to[place])
    final = board.final[place]
    after = (final >= 0) & (board.begin[final] >= board.end[acked])
    unseen = missing & ~below & after
    findings = []
    polls = board.polls[board.clean[board.polls]]
    for row in board.candidates(acked[below]):
        past = polls[(board.place[polls] == board.place[row]) & (board.offset[polls] > board.offset[row])]
        findings.append(
            Finding(
                "lost-write",
                (row, int(past[0])),
                f"{_what(board, row)} was acked and nobody read it, {_past(board, past[0])}",
            )
        )
    for row in board.candidates(acked[unseen]):
        reading = int(board.final[board.place[row]])
        findings.append(
            Finding("unseen", (row, reading), f"{_what(board, row)} was acked, and is not there at the end")
        )
    return int(below.sum() + unseen.sum()), findings


def _what(board: Board, row: int) -> str:
    return f"{label(int(board.rows['value'][row]))} at {board.say(row)}"


def _past(board: Board, row: int) -> str:
    return f"though offset {int(board.offset[row])} behind it was read"


def inconsistent_offsets(board: Board) -> Found:
    """One offset of one partition with two values."""
    told = board.told
    number = board.entry[told]
    differs = np.flatnonzero((number[1:] == number[:-1]) & (board.value[told][1:] != board.value[told][:-1])) + 1
    findings = []
    for at in board.candidates(differs):
        rows = (int(told[at - 1]), int(told[at]))
        values = " and ".join(label(int(board.rows["value"][row])) for row in rows)
        findings.append(Finding("inconsistent-offsets", rows, f"{board.say(rows[0])} holds {values}"))
    return int(differs.size), findings


def duplicate(board: Board, idempotent: bool) -> Found:
    """One value at two offsets, where a send is made once only: idempotent producers, transactions, or when the caller
    says so of all (`idempotent`)."""
    strict = np.zeros(board.values, bool)
    flags, txn = board.rows["flags"][board.sends], board.rows["txn"][board.sends]
    strict[board.value[board.sends[((flags & Flag.IDEMPOTENT) > 0) | (txn > 0)]]] = True
    if idempotent:
        sent = np.bincount(board.value[board.sends], minlength=board.values)
        strict |= sent == 1
    held = np.flatnonzero(board.visible & strict[board.entry_value])
    held = held[np.argsort(board.entry_value[held], kind="stable")]
    value = board.entry_value[held]
    twice = np.flatnonzero(value[1:] == value[:-1]) + 1
    findings = []
    for at in board.candidates(twice):
        first, second = int(board.entry_row[held[at - 1]]), int(board.entry_row[held[at]])
        send = int(board.send_of[value[at]])
        findings.append(
            Finding(
                "duplicate",
                (send, first, second),
                f"{label(int(board.rows['value'][first]))} was sent once and stands at {board.say(first)} and at "
                f"{board.say(second)}",
            )
        )
    return int(twice.size), findings


def false_duplicate(board: Board) -> Found:
    """A receipt said that the message was there already, and nobody had sent it before, or it named another place than
    that of the first one."""
    rows = board.acked[board.repeated[board.acked]]
    if not rows.size:
        return 0, []
    # Sends of each value by their beginning: was there one that began before this one's answer?
    began = np.full(board.values, np.iinfo(np.int64).max)
    others = np.bincount(board.value[board.sends], minlength=board.values)
    np.minimum.at(began, board.value[board.sends], board.begin[board.sends])
    fresh = board.sends[~board.repeated[board.sends] & (board.status[board.sends] != Status.FAIL)]
    stored = np.bincount(board.value[fresh], minlength=board.values)
    alone = (others[board.value[rows]] == 1) | (began[board.value[rows]] >= board.begin[rows])
    alone &= stored[board.value[rows]] == 0
    # Where each value was read first.
    read = np.flatnonzero(board.entry_seen >= 0)[::-1]
    where = np.full(board.values, -1, np.int64)
    where[board.entry_value[read]] = read
    at = where[board.value[rows]]
    elsewhere = ~alone & (at >= 0) & (at != board.entry[rows]) & ~board.trimmed[board.entry[rows]]
    elsewhere &= (board.entry_seen[board.entry[rows]] < 0) | (board.entry_place[at] == board.place[rows])
    findings = []
    for number in board.candidates(np.flatnonzero(alone)):
        row = int(rows[number])
        findings.append(
            Finding(
                "false-duplicate", (row,), f"the receipt said that {_what(board, row)} was there, and nobody sent it"
            )
        )
    for number in board.candidates(np.flatnonzero(elsewhere)):
        row, seen = int(rows[number]), int(board.entry_seen[at[number]])
        findings.append(
            Finding(
                "false-duplicate",
                (row, seen),
                f"the receipt said that {_what(board, row)} was there, and it stands at {board.say(seen)}",
            )
        )
    return int((alone | elsewhere).sum()), findings


def failed_but_there(board: Board) -> Found:
    """G1a: a reader of committed messages got a value whose send failed, or whose transaction was aborted. zombie: its
    send was refused because a newer epoch had taken over."""
    polls = board.polls[board.clean[board.polls]]
    wrong = polls[board.entry_fate[board.entry[polls]] == Status.FAIL]
    findings = []
    for row in board.candidates(wrong):
        send = int(board.sent_as(np.array([row]))[0])
        txn = int(board.txn[send])
        aborted = txn > 0 and board.status[send] != Status.FAIL
        end = int(board.txn_row[txn]) if aborted else send
        fenced = bool(board.rows["flags"][end] & Flag.FENCED)
        proof = (send, end, row) if aborted else (send, row)
        why = "was fenced" if fenced else "is of an aborted transaction" if aborted else "failed"
        if aborted and fenced:
            why = "is of a transaction that was fenced"
        findings.append(
            Finding("zombie" if fenced else "G1a", proof, f"the send of {_what(board, row)} {why}, and it was read")
        )
    return int(wrong.size), findings


def phantom(board: Board) -> Found:
    """Somebody read what nobody sent, from a channel whose senders were recorded."""
    senders = np.unique(board.rows["channel"][board.sends])
    polls = board.polls
    wrong = polls[(board.fate[board.value[polls]] == -1) & np.isin(board.rows["channel"][polls], senders)]
    return int(wrong.size), [
        Finding("phantom", (row,), f"nobody sent {_what(board, row)}") for row in board.candidates(wrong)
    ]


def polls_in_order(board: Board) -> Found:
    """Two readings of one consumer that follow one another, without seek, assignment or loss of the partition in
    between: nonmonotonic-poll goes back, poll-skip leaves out a message that is there; int- if inside one call."""
    polls = board.polls
    tenure = board.tenure[polls]
    order = np.lexsort((polls, board.op[polls], tenure))
    polls, tenure = polls[order], tenure[order]
    first, second = polls[:-1], polls[1:]
    same = tenure[1:] == tenure[:-1]
    txn = board.txn
    inside = (board.op[first] == board.op[second]) | ((txn[first] == txn[second]) & (txn[first] > 0))
    back = same & (board.offset[second] <= board.offset[first])
    count = board.entries_between(board.must_be_there())
    between = count[board.entry[second]] - count[np.minimum(board.entry[first] + 1, count.size - 1)]
    skip = same & ~back & (between > 0)
    findings = []
    for at in board.candidates(np.flatnonzero(back)):
        a, b = int(first[at]), int(second[at])
        name = "int-nonmonotonic-poll" if inside[at] else "nonmonotonic-poll"
        findings.append(Finding(name, (a, b), f"after {board.say(a)} came offset {int(board.offset[b])}"))
    for at in board.candidates(np.flatnonzero(skip)):
        a, b = int(first[at]), int(second[at])
        name = "int-poll-skip" if inside[at] else "poll-skip"
        missed = np.flatnonzero(board.must_be_there()[board.entry[a] + 1 : board.entry[b]])
        proof = int(board.entry_row[board.entry[a] + 1 + missed[0]])
        findings.append(
            Finding(
                name,
                (proof, a, b),
                f"after offset {int(board.offset[a])} came {int(board.offset[b])}, and {board.say(proof)} is there",
            )
        )
    return int(back.sum() + skip.sum()), findings


def nonmonotonic_send(board: Board) -> Found:
    """The acked messages of one producer to one partition stand in another order than it sent them; int- if they are of
    one call or transaction. Holes between them are no matter."""
    acked = board.acked[~board.repeated[board.acked]]
    order = np.lexsort((acked, board.op[acked], board.place[acked], board.client[acked]))
    rows = acked[order]
    first, second = rows[:-1], rows[1:]
    same = (board.client[first] == board.client[second]) & (board.place[first] == board.place[second])
    # A repetition of the same value may well be told of the first one's offset.
    wrong = same & (board.offset[second] <= board.offset[first]) & (board.value[first] != board.value[second])
    txn = board.txn
    inside = (board.op[first] == board.op[second]) | ((txn[first] == txn[second]) & (txn[first] > 0))
    findings = []
    for at in board.candidates(np.flatnonzero(wrong)):
        a, b = int(first[at]), int(second[at])
        name = "int-nonmonotonic-send" if inside[at] else "nonmonotonic-send"
        findings.append(Finding(name, (a, b), f"{_what(board, b)} was sent after {_what(board, a)}"))
    return int(wrong.sum()), findings


def key_places(board: Board) -> Found:
    """key-order: a key in two partitions of a channel, though nobody chose them and their number stayed."""
    rows = board.acked
    grown = np.unique(board.rows["channel"][board.of(Kind.GROW)])
    chosen = (board.rows["flags"][rows] & Flag.EXPLICIT) > 0
    rows = rows[(board.rows["key"][rows] >= 0) & ~chosen & ~np.isin(board.rows["channel"][rows], grown)]
    rows = rows[np.lexsort((rows, board.rows["key"][rows], board.rows["channel"][rows]))]
    first, second = rows[:-1], rows[1:]
    wrong = (
        (board.rows["channel"][first] == board.rows["channel"][second])
        & (board.rows["key"][first] == board.rows["key"][second])
        & (board.place[first] != board.place[second])
    )
    findings = []
    for at in board.candidates(np.flatnonzero(wrong)):
        a, b = int(first[at]), int(second[at])
        key = label(int(board.rows["key"][a]))
        places = " and ".join(sorted(board.history.place(board.rows[row]) for row in (a, b)))
        findings.append(Finding("key-order", (a, b), f"messages of the key {key} are in {places}"))
    return int(wrong.sum()), findings


def key_order(board: Board) -> Found:
    """key-order: a message acked before another one of its key was sent stands behind it, or a group was first given a
    later message of a key and then an earlier one."""
    return _in_time(board, "key-order", board.rows["key"].astype(np.int64))


def partition_order(board: Board) -> Found:
    """partition-order: the same for all messages of a partition."""
    return _in_time(board, "partition-order", np.zeros(board.rows.size, np.int64))


def _in_time(board: Board, name: str, key: Ints) -> Found:
    acked = board.acked[(key[board.acked] >= 0) & ~board.repeated[board.acked]]
    late, sent_after = _late(board.place[acked], key[acked], board.offset[acked], board.begin[acked], board.end[acked])
    findings = []
    for at, other in list(zip(late, sent_after, strict=True))[:16]:
        a, b = int(acked[other]), int(acked[at])
        findings.append(
            Finding(
                name, (a, b), f"{_what(board, a)} was acked before {_what(board, b)} was sent, and stands behind it"
            )
        )
    # First deliveries, of the shares of a group that nobody moved by hand.
    polls = board.polls[board.share[board.polls] >= 0]
    send = board.sent_as(polls)
    polls, send = polls[send >= 0], send[send >= 0]
    polls, send = polls[key[send] >= 0], send[key[send] >= 0]
    order = np.lexsort((board.begin[polls], board.offset[polls], board.share[polls]))
    polls, send = polls[order], send[order]
    number = runs(board.share[polls], board.offset[polls])
    first = np.flatnonzero(np.diff(number, prepend=-1))
    polls, send = polls[first], send[first]
    early, later = _late(board.share[polls], key[send], board.offset[polls], board.begin[polls], board.end[polls])
    for at, other in list(zip(early, later, strict=True))[:16]:
        a, b = int(polls[other]), int(polls[at])
        findings.append(
            Finding(name, (a, b), f"{_what(board, a)} was handed over before {_what(board, b)}, which stands before it")
        )
    return len(late) + len(early), findings


def _late(share: Ints, key: Ints, offset: Ints, begin: Ints, end: Ints) -> tuple[list[int], list[int]]:
    """Rows that began after a row of the same share and key with a higher offset had ended: their places in the
    columns, and those of the other rows."""
    if not share.size:
        return [], []
    order = np.lexsort((offset, key, share))
    number = runs(share[order], key[order])
    # The least end among the later rows of the same stretch. Times become ranks, so that stretches can be moved apart.
    ranks = np.unique(np.concatenate([begin[order], end[order]]), return_inverse=True)[1].reshape(-1)
    most = int(ranks.max()) + 1
    apart = ranks[order.size :] + number * most
    least = np.minimum.accumulate(apart[::-1])[::-1]
    starts = ranks[: order.size] + number * most
    wrong = np.flatnonzero(least[1:] < starts[:-1])
    late, others = [], []
    for at in wrong[:64]:
        stretch = np.flatnonzero(number == number[at])
        behind = stretch[stretch > at]
        earlier = behind[apart[behind] < starts[at]]
        if earlier.size:
            late.append(int(order[at]))
            others.append(int(order[earlier[0]]))
    return late + [int(order[at]) for at in wrong[64:]], others + [int(order[at]) for at in wrong[64:]]


def cut_loss(board: Board) -> Found:
    """cut-loss: a power cut took a message that was acked as synced, or one from the middle: a message behind it, acked
    before the cut too, is still there. Whatever it may take, it takes from the end."""
    cuts = sorted([*board.cuts, *(int(board.begin[row]) for row in board.of(Kind.CUT))])
    findings: list[Finding] = []
    if not cuts:
        return 0, findings
    rows = board.acked
    cut = np.searchsorted(np.array(cuts), board.end[rows])  # the first one after the ack
    final = board.final[board.place[rows]]
    judged = (cut < len(cuts)) & (final >= 0)
    rows, cut, final = rows[judged], cut[judged], final[judged]
    moment = np.array(cuts)[cut]
    alive = np.zeros(board.values, bool)
    complete = np.isin(board.op[board.polls], board.op[board.final[board.final >= 0]])
    alive[board.value[board.polls[complete]]] = True
    judged = (board.begin[final] >= moment) & (board.fate[board.value[rows]] == Status.OK)
    judged &= ~board.trimmed[board.entry[rows]]
    rows, cut = rows[judged], cut[judged]
    gone = ~alive[board.value[rows]]
    share = board.place[rows] * (len(cuts) + 1) + cut
    highest = np.full(int(share.max()) + 1 if share.size else 1, -1, np.int64)  # survivor, by partition and cut
    np.maximum.at(highest, share[~gone], board.offset[rows[~gone]])
    synced = (board.rows["flags"][rows] & Flag.SYNCED) > 0
    middle = gone & (board.offset[rows] < highest[share])
    wrong: Mask = (gone & synced) | middle
    board.cut_away[board.entry[rows[gone & ~wrong]]] = True
    cut_rows = board.of(Kind.CUT)
    for at in board.candidates(np.flatnonzero(wrong)):
        row = int(rows[at])
        told = [int(one) for one in cut_rows if board.begin[one] == cuts[cut[at]]]
        if synced[at]:
            findings.append(
                Finding("cut-loss", (row, *told), f"{_what(board, row)} was acked as synced, and the power cut took it")
            )
            continue
        behind = rows[~gone & (share == share[at]) & (board.offset[rows] > board.offset[row])]
        after = complete & (board.value[board.polls] == board.value[behind[0]])
        seen = int(board.polls[after][0])
        findings.append(
            Finding(
                "cut-loss",
                (row, *told, seen),
                f"the power cut took {_what(board, row)} and left {_what(board, seen)} behind it",
            )
        )
    board.cut_away[board.entry[rows[wrong]]] = True  # told of already
    return int(wrong.sum()), findings
