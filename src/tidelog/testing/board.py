"""What follows from a history alone: which offset holds which value, what became of each send, who owned what when?

Floor 8: may import testing.history and numpy. Thread rule: a `Board` belongs to one thread.

The detectors of anomalies share these tables. Everything is computed by sorting whole columns, so that a million
operations take seconds. Where two rows of a table must not be compared (other partition, other group), a number that is
part of the sort key keeps them apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidelog.testing.history import Flag, History, Kind, Status

__all__ = ["Board", "Finding", "Ints", "Mask", "runs"]

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class Finding:
    """One anomaly: its name, the rows that prove it, and what is wrong in a sentence."""

    name: str
    rows: tuple[int, ...]
    about: str


def runs(*columns: NDArray[Any]) -> Ints:
    """A number for each stretch of equal rows in sorted columns: 0, 0, 1, 2, 2 ..."""
    if not columns[0].size:
        return np.zeros(0, np.int64)
    fresh = np.zeros(columns[0].size, bool)
    for column in columns:
        fresh[1:] |= column[1:] != column[:-1]
    return np.cumsum(fresh)


@dataclass
class Board:
    """A history and its tables."""

    history: History
    cuts: tuple[int, ...] = ()
    """When the power was cut, monotonic ns, beside the CUT rows."""

    def __post_init__(self) -> None:
        rows = self.rows = self.history.rows
        self.kind = rows["kind"]
        self.begin: Ints = rows["begin"].astype(np.int64)
        # What never ended goes on for ever.
        self.end: Ints = np.where(rows["end"] > 0, rows["end"], NEVER)
        self.status: Ints = rows["status"].astype(np.int64)
        self.ok: Mask = self.status == Status.OK
        self.clean: Mask = (rows["flags"] & Flag.DIRTY) == 0
        self.offset: Ints = rows["offset"]
        self.client: Ints = rows["client"].astype(np.int64)
        self.op: Ints = self.client << 32 | rows["op"]
        place = rows["channel"].astype(np.int64) << 32 | (rows["partition"].astype(np.int64) + 1)
        self.place: Ints = np.unique(place, return_inverse=True)[1].reshape(-1).astype(np.int64)
        self.places = int(self.place.max()) + 1 if rows.size else 0
        self.sends = np.flatnonzero(self.kind == Kind.SEND)
        self.polls = np.flatnonzero(self.kind == Kind.POLL)
        self._transactions()
        self._values()
        self._entries()
        self._commits_within()

    def of(self, *kinds: Kind) -> Ints:
        """The numbers of the rows of these kinds."""
        return np.flatnonzero(np.isin(self.kind, kinds))

    # --- transactions ---

    def _transactions(self) -> None:
        """By transaction: its row (-1: none), and what became of it as far as its owner was told."""
        rows = self.rows
        self.txn: Ints = rows["txn"].astype(np.int64)
        count = len(self.history.txns)
        ends = self.of(Kind.TXN)
        self.txn_row = np.full(count, -1, np.int64)
        self.txn_row[self.txn[ends]] = ends
        self.txn_status = np.full(count, Status.INFO, np.int64)
        self.txn_status[self.txn[ends]] = self.status[ends]

    def _commits_within(self) -> None:
        """Offsets that were committed in a transaction hold from its commit on. Of one whose owner was not told, what
        it sent says what became of it: whoever read some of it saw it committed, and where nothing of it is there at
        the end, it was not."""
        count = len(self.history.txns)
        self.txn_fate = self.txn_status.copy()
        """By transaction: what became of it, as far as the whole history says."""
        self.txn_seen = np.full(count, -1, np.int64)
        """By transaction: the row of the first reader who got something of it; -1: nobody."""
        mine = self.acked[(self.txn[self.acked] > 0) & ~self.repeated[self.acked]]
        txn, seen = self.txn[mine], self.entry_seen[self.entry[mine]]
        order = np.argsort(np.where(seen >= 0, self.end[seen], NEVER), kind="stable")[
            ::-1
        ]  # the earliest is stored last
        order = order[seen[order] >= 0]
        self.txn_seen[txn[order]] = seen[order]
        final = self.final[self.place[mine]]
        open_ = (final < 0) | (self.trimmed | self.cut_away)[self.entry[mine]]
        judged = np.bincount(txn, minlength=count) - np.bincount(txn[open_], minlength=count)
        sent = np.bincount(self.txn[self.sends], minlength=count)
        unknown = self.txn_status == Status.INFO
        self.txn_fate[unknown & (self.txn_seen >= 0)] = Status.OK
        self.txn_fate[unknown & (self.txn_seen < 0) & (sent > 0) & (judged == sent)] = Status.FAIL
        self.txn_fate[0] = Status.INFO
        commits = self.of(Kind.COMMIT)
        commits = commits[(self.txn[commits] > 0) & (self.status[commits] != Status.FAIL)]
        txn = self.txn[commits]
        asked = self.txn_row[txn]
        self.status[commits] = self.txn_fate[txn]
        self.ok[commits] = self.txn_fate[txn] == Status.OK
        told = asked >= 0
        self.begin[commits[told]] = self.begin[asked[told]]
        known = told & (self.txn_status[txn] == Status.OK)
        self.end[commits] = NEVER
        self.end[commits[known]] = self.end[asked[known]]
        read = ~known & (self.txn_seen[txn] >= 0)
        self.end[commits[read]] = self.end[self.txn_seen[txn[read]]]

    # --- values ---

    def _values(self) -> None:
        """`value`: a dense number of (channel, value) for sends and polls; what became of each."""
        rows = self.rows
        mixed = rows["value"].astype(np.uint64) ^ (rows["channel"].astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))
        self.value = np.full(rows.size, -1, np.int64)
        both = np.concatenate([self.sends, self.polls])
        known, dense = np.unique(mixed[both], return_inverse=True)
        self.value[both] = dense.reshape(-1)
        self.values = known.size
        # The outcome of a transaction decides for what was sent in it.
        status = self.status[self.sends].copy()
        txn = self.txn[self.sends]
        within = (txn > 0) & (status != Status.FAIL)
        status[within] = self.txn_status[txn[within]]
        # Of a message that was there before, the transaction that found it so says nothing when it is given up.
        repeated = (rows["flags"][self.sends] & Flag.DUPLICATE) > 0
        status[repeated & within & (status != Status.OK)] = Status.INFO
        self.repeated = np.zeros(rows.size, bool)
        """Sends whose receipt said that the message was there already."""
        self.repeated[self.sends[repeated]] = True
        self.outcome = np.full(rows.size, Status.INFO, np.int64)
        """Of each send row."""
        self.outcome[self.sends] = status
        rank = np.array([1, 2, 0])[status]  # of several sends of a value the best counts: OK, INFO, FAIL
        best = np.full(self.values, -1, np.int64)
        np.maximum.at(best, self.value[self.sends], rank)
        self.fate = np.array([Status.FAIL, Status.INFO, Status.OK, -1])[best]
        """Of each value; -1: nobody sent it."""
        self.send_of = np.full(self.values, -1, np.int64)
        """A send row of each value, the best one."""
        order = np.argsort(rank, kind="stable")
        self.send_of[self.value[self.sends[order]]] = self.sends[order]
        clean = self.polls[self.clean[self.polls]]
        self.seen_by = np.full(self.values, -1, np.int64)
        """The first poll row that read each value, dirty readers left out."""
        self.seen_by[self.value[clean[::-1]]] = clean[::-1]

    # --- the version order ---

    def _entries(self) -> None:
        """One entry for each (partition, offset) of which anybody was told, in order."""
        acked = self.sends[self.ok[self.sends] & (self.offset[self.sends] >= 0)]
        self.acked = acked
        told = np.concatenate([acked, self.polls])
        order = np.lexsort((self.offset[told], self.place[told]))
        told = told[order]
        number = runs(self.place[told], self.offset[told])
        self.entry = np.full(self.rows.size, -1, np.int64)
        """Of acked sends and polls: the number of their entry."""
        self.entry[told] = number
        first = np.flatnonzero(np.diff(number, prepend=-1))
        self.entry_row = told[first]
        """A row that tells of each entry."""
        self.entry_place = self.place[self.entry_row]
        self.entry_offset = self.offset[self.entry_row]
        self.entry_value = self.value[self.entry_row]
        self.told = told
        clean = self.polls[self.clean[self.polls]][::-1]
        self.entry_seen = np.full(self.entry_row.size, -1, np.int64)
        """The first poll row that read each entry, dirty readers left out."""
        self.entry_seen[self.entry[clean]] = clean
        # What was acked there decides; else, of all sends of the value, the best.
        rank = np.array([1, 2, 0])[self.outcome[acked]]
        best = np.full(self.entry_row.size, -1, np.int64)
        np.maximum.at(best, self.entry[acked], rank)
        self.entry_fate = np.where(
            best >= 0, np.array([Status.FAIL, Status.INFO, Status.OK, -1])[best], self.fate[self.entry_value]
        )
        self.entry_send = np.full(self.entry_row.size, -1, np.int64)
        """The send row that stored each entry, -1 if none was acked there; of several the best one."""
        first = acked[~self.repeated[acked]]
        order = np.argsort(np.array([1, 2, 0])[self.outcome[first]], kind="stable")
        self.entry_send[self.entry[first[order]]] = first[order]
        seen = self.entry_seen >= 0
        self.visible = ((best >= 0) & (self.entry_fate == Status.OK)) | ((self.entry_fate != Status.FAIL) & seen)
        """Entries that every reader of committed messages must come by."""
        self.trimmed = np.zeros(self.entry_row.size, bool)
        for row in self.of(Kind.TRIM):
            self.trimmed |= (self.entry_place == self.place[row]) & (self.entry_offset < self.offset[row])
        self.cut_away = np.zeros(self.entry_row.size, bool)
        """Entries that a power cut was allowed to take; set by whoever judges cuts."""
        self.polled_to = np.full(self.places, -1, np.int64)
        """The highest offset that a reader of committed messages got, by partition."""
        np.maximum.at(self.polled_to, self.place[clean], self.offset[clean])
        self.final = np.full(self.places, -1, np.int64)
        """The row of the last complete reading, by partition; -1: there was none."""
        finals = self.of(Kind.FINAL)
        self.final[self.place[finals]] = finals  # rows are in the order of their beginning

    def must_be_there(self) -> Mask:
        """Entries that nothing excuses from being read."""
        wanted: Mask = self.visible & ~self.trimmed & ~self.cut_away
        return wanted

    def entries_between(self, wanted: Mask) -> Ints:
        """A running count of the wanted entries, so that a difference is the number between two entries."""
        return np.concatenate([[0], np.cumsum(wanted)])

    # --- groups ---

    @cached_property
    def group(self) -> Ints:
        """The number of each row's group, -1: none."""
        names = self.groups
        numbers = [names.index(client.group) if client.group is not None else -1 for client in self.history.clients]
        return np.array(numbers, np.int64)[self.client] if numbers else np.zeros(0, np.int64)

    @cached_property
    def groups(self) -> list[str]:
        """The names of the groups."""
        return list(dict.fromkeys(client.group for client in self.history.clients if client.group is not None))

    @cached_property
    def share(self) -> Ints:
        """A number of (group, partition, era) for each row, -1 without a group. An era ends when somebody moves the
        group by hand (seek, reset) or the power is cut: what was committed before says nothing about what comes then.
        """
        pair = np.where(self.group >= 0, self.group * max(self.places, 1) + self.place, -1)
        cuts = [*self.cuts, *(int(self.begin[row]) for row in self.of(Kind.CUT))]
        moves = self.of(Kind.SEEK, Kind.RESET)
        moves = moves[self.ok[moves] & (pair[moves] >= 0)]
        era = np.zeros(self.rows.size, np.int64)
        for cut in cuts:
            era += self.begin >= cut
        for moved in np.unique(pair[moves]):
            times = np.sort(self.begin[moves[pair[moves] == moved]])
            mine = np.flatnonzero(pair == moved)
            era[mine] += np.searchsorted(times, self.begin[mine], "right")
        eras = int(era.max()) + 1 if era.size else 1
        return np.where(pair >= 0, pair * eras + era, -1)

    @cached_property
    def tenure(self) -> Ints:
        """A number for each row of a consumer and partition: it changes when the partition is assigned, given back,
        taken away or sought in. Between two rows of one tenure a consumer has nothing to lose."""
        breaking = (Kind.ASSIGN, Kind.REVOKE, Kind.LOST, Kind.SEEK, Kind.BACK, Kind.FINAL)
        rows = self.of(Kind.POLL, Kind.COMMIT, *breaking)
        order = np.lexsort((rows, self.op[rows], self.place[rows], self.client[rows]))
        rows = rows[order]
        client = self.client[rows]
        breaks = np.isin(self.kind[rows], breaking)
        number = np.full(self.rows.size, -1, np.int64)
        fresh = breaks.copy()
        fresh[1:] |= (client[1:] != client[:-1]) | (self.place[rows][1:] != self.place[rows][:-1])
        complete = np.isin(self.op[rows], self.op[self.of(Kind.FINAL)])  # begins at the log start again
        fresh[1:] |= complete[1:] & (self.op[rows][1:] != self.op[rows][:-1])
        number[rows] = np.cumsum(fresh)
        return number

    def sent_as(self, polls: Ints) -> Ints:
        """The send row of what each poll row got: the one that was acked there, else the best one of its value; -1:
        nobody sent it."""
        there = self.entry_send[self.entry[polls]]
        return np.where(there >= 0, there, self.send_of[self.value[polls]])

    def candidates(self, rows: NDArray[Any], limit: int = 16) -> Iterator[int]:
        """The first few of many rows, as plain numbers."""
        for row in rows[:limit]:
            yield int(row)

    def say(self, row: int) -> str:
        """Where a row stands: channel/partition, and offset if it has one."""
        place = self.history.place(self.rows[row])
        return f"offset {int(self.offset[row])} of {place}" if self.offset[row] >= 0 else place
