"""What do the processes of a run do whose messages take effect once: transactions, copies, and repetitions by id?

Each work is a function of a Life (worker.py), which ends when the phase says so. What tidelog may raise while others
are killed, stopped and fenced is expected here too. Values are 8 bytes of a number that nobody else uses, and a copy
has the value of its original, so that each may be in a channel once.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from tests.history.scoreboard import Count, Phase
from tidelog.errors import Fenced, Full, Locked, NoSpace, Timeout
from tidelog.testing.recording import Receiving, Sending
from tidelog.testing.recording_txn import Naming, Transacting

if TYPE_CHECKING:
    from tests.history.worker import Life

KEYS = 300
NAMES = ("till-0", "till-1")
"""Producers that two processes open in turns, so that each fences the other."""
SHORT_SECONDS = 0.15
LAG_MAX = 30_000
REMEMBERED = 200


class Oops(Exception):
    """What a handler raises."""


def fresh_mark() -> int:
    """A number from which a life counts its values."""
    return random.Random().getrandbits(31) << 28


def identify(value: bytes) -> int:
    """The number at the head of each value."""
    return int.from_bytes(value[:8], "big")


def value_of(mark: int) -> bytes:
    """The value with a number."""
    return mark.to_bytes(8, "big") + b"." * (mark % 40)


def key_of(mark: int) -> bytes | None:
    """Its key: the same whoever sends it."""
    return None if mark % 5 == 0 else b"%d" % (mark % KEYS)


def transact(
    life: Life, naming: Naming, body: Callable[[Transacting], None], *received: Receiving, **options: Any
) -> bool:
    """One transaction; whether it was committed. A full disk and a handler that fails give it up, and so does running
    out of time; other fences are raised."""
    options = {"timeout": SHORT_SECONDS if life.random.random() < 0.1 else 60.0, **options}
    committed = False
    try:
        with Transacting(life.recorder, life.log, naming, *received, **options) as tx:
            body(tx)
        committed = tx.transaction.state == "committed"
        life.count(Count.COMMITTED if committed else Count.ABORTED)
        life.did()
    except Oops:
        life.count(Count.ABORTED)
    except (NoSpace, Locked, Full):
        life.count(Count.NO_SPACE)
        time.sleep(0.02)
    return committed


def stumble(life: Life, tx: Transacting) -> None:
    """Now and then the handler fails, gives up, or takes longer than it may."""
    chance = life.random.random()
    if chance < 0.02:
        raise Oops
    if chance < 0.04:
        tx.abort()
    elif chance < 0.042:
        time.sleep(SHORT_SECONDS * 1.2)


def sender(life: Life, name: str, naming: Naming | None = None) -> Sending:
    """What sends to a channel, as a named producer or as nobody."""
    producer, facts = (None, None) if naming is None else (naming.producer, naming.facts)
    return Sending(life.recorder, life.channel(name), producer=producer, name=name, identify=identify, facts=facts)


def rest(life: Life, sent: int, began: float) -> None:
    """Waits while receivers are behind, or when it has sent more than its pace."""
    while life.board.phase is Phase.RUN and (
        life.board.rows[:, Count.LAG].max() > LAG_MAX or sent > life.pace * (time.monotonic() - began + 0.1)
    ):
        time.sleep(0.005)


def move(life: Life) -> None:
    """Transactions over several partitions, as one of two producers that another process opens too; in between sends
    without a transaction. What was given up is sent again, much of it with the same ids."""
    choose, mark = life.random, fresh_mark()
    sent, began = 0, time.monotonic()
    while life.board.phase is Phase.RUN:
        naming = life.patiently(partial(Naming, life.recorder, life.log, choose.choice(NAMES)))
        moves = sender(life, "moves", naming)
        again: list[int] = []
        life.reopening = False
        try:
            for _ in range(choose.randint(20, 400)):
                if life.board.phase is not Phase.RUN or life.reopening:
                    break
                if life.forking:
                    channel = life.channel("moves")
                    life.fork([partial(naming.producer.send, channel, b"forked")])
                if choose.random() < 0.25:
                    mark += 1
                    _alone(life, moves, mark)
                marks = again[:10]
                for _ in range(choose.randint(0 if marks else 1, 5)):
                    mark += 1
                    marks.append(mark)
                level = "synced" if choose.random() < 0.1 else "written"
                done = transact(life, naming, partial(_moved, life, moves, marks), level=level)
                again = again[10:] if done else again[10:] + marks
                sent += len(marks)
                rest(life, sent, began)
            naming.producer.close()
        except Fenced:
            life.count(Count.ZOMBIES)


def _alone(life: Life, moves: Sending, mark: int) -> None:
    try:
        moves.send(value_of(mark), key=key_of(mark))
        life.did()
    except NoSpace:
        life.count(Count.NO_SPACE)


def _moved(life: Life, moves: Sending, marks: list[int], tx: Transacting) -> None:
    """The body of a transaction: values with odd numbers have an id."""
    odd = [mark for mark in marks if mark % 2]
    if len(odd) > 2 and life.random.random() < 0.5:
        values, keys = [value_of(mark) for mark in odd], [key_of(mark) for mark in odd]
        tx.send_many(moves, values, keys=keys, ids=[str(mark) for mark in odd])
        life.did()
        marks = [mark for mark in marks if not mark % 2]
    for mark in marks:
        tx.send(moves, value_of(mark), key=key_of(mark), id=str(mark) if mark % 2 else None)
        life.did()
    stumble(life, tx)


def copy(life: Life) -> None:
    """Copies what it receives in transactions, together with its offsets; each copy has the value of its original. A
    note in another channel belongs to many of the transactions."""
    while True:
        life.reopening = False
        naming = life.patiently(partial(Naming, life.recorder, life.log, life.role.name))
        copied, notes = (sender(life, name, naming) for name in ("copied", "notes"))
        try:
            channels = [life.channel(name) for name in life.role.channels]
            with naming.producer, life.patiently(partial(life.open, channels)) as received:
                life.count(Count.OPENED)
                enough = _copying(life, naming, received, copied, notes)
            if enough:
                life.board.rows[life.slot, Count.LAG] = 0
                return
        except Fenced:
            life.count(Count.ZOMBIES)


def _copying(life: Life, naming: Naming, received: Receiving, copied: Sending, notes: Sending) -> bool:
    """Some transactions of one consumer; True once there is nothing left to copy at the end of the run."""
    choose, mark, empty = life.random, fresh_mark(), 0
    with_ids = choose.random() < 0.5
    got = 0

    def body(tx: Transacting) -> None:
        nonlocal mark, got
        got = 0
        wanted = choose.choice((1, 3, 10, 40))
        batch: Any = []
        if choose.random() < 0.5:
            batch = list(received.receive_many(wanted, timeout=0.05))
        else:
            try:
                for _ in range(wanted):
                    batch.append(received.receive(timeout=0.0 if batch else 0.05))
            except Timeout:
                pass
        got = len(batch)
        life.did(got)
        if not batch:
            return
        if got > 3 and choose.random() < 0.5:
            ids = [str(identify(one.value)) for one in batch] if with_ids else None
            tx.send_many(copied, [one.value for one in batch], keys=[one.key for one in batch], ids=ids)
            life.did()
        else:
            for one in batch:
                tx.send(copied, one.value, key=one.key, id=str(identify(one.value)) if with_ids else None)
                life.did()
        if choose.random() < 0.5:
            mark += 1
            tx.send(notes, value_of(mark))
            life.did()
        if life.role.slow and choose.random() < 0.002:
            time.sleep(life.role.slow)
        stumble(life, tx)

    for _ in range(choose.randint(50, 1000)):
        if life.reopening:
            break
        if life.forking:
            life.fork(
                [lambda: received.consumer.receive(timeout=0), lambda: naming.producer.last(life.channel("notes"))]
            )
        level = "synced" if choose.random() < 0.1 else "written"
        transact(life, naming, body, received, level=level)
        if got and choose.random() < 0.1:
            life.board.rows[life.slot, Count.LAG] = received.consumer.lag
        empty = 0 if got else empty + 1
        if life.board.phase >= Phase.PASS_ON and empty > 6 and received.consumer.lag == 0:
            return True
    return False


def resend(life: Life) -> None:
    """Sends with ids, and sends again whenever in doubt: after an error, after a life that ended within a send, and for
    no reason at all."""
    choose, mark = life.random, fresh_mark()
    moves = sender(life, "moves")
    pending = life.board.rows[life.slot]
    recent: list[int] = [int(pending[Count.PENDING])] if pending[Count.PENDING] else []
    sent, began = 0, time.monotonic()

    def again(mark: int) -> None:
        receipt = moves.send(value_of(mark), key=key_of(mark), id=str(mark))
        pending[Count.REPEATED] += receipt.duplicate
        life.did()

    if recent:
        life.patiently(partial(again, recent[0]))
    while life.board.phase is Phase.RUN:
        if life.forking:
            life.fork([lambda: life.channel("moves").send(b"forked", id="forked")])
        if choose.random() < 0.2:
            marks = [mark + 1 + number for number in range(choose.randint(2, 20))]
            mark = marks[-1]
            marks.append(choose.choice(marks))
            marks += choose.sample(recent, min(len(recent), 3))
            values, keys = [value_of(one) for one in marks], [key_of(one) for one in marks]
            ids = [str(one) for one in marks]
            receipt = life.patiently(partial(moves.send_many, values, keys=keys, ids=ids))
            pending[Count.REPEATED] += int(receipt.duplicates.sum())
            life.did()
            recent += marks
        else:
            mark += 1
            pending[Count.PENDING] = mark
            life.patiently(partial(again, mark))
            recent.append(mark)
        if choose.random() < 0.2:
            life.patiently(partial(again, choose.choice(recent)))
        del recent[:-REMEMBERED]
        sent += 1
        rest(life, sent, began)


WORKS: dict[str, Callable[[Life], None]] = {"move": move, "copy": copy, "resend": resend}
