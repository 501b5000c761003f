"""What becomes of what a process in another namespace had in hand when it is killed, stopped or copied?

It is in the middle of a send, a commit or a transaction, a member of a group, or a named producer. Killed, it is taken
over from within 100 ms; stopped, it keeps what it has, and finds it again when it goes on. Needs root, as
test_namespaces.py does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import builds
from tests.processes.namespaces import HOLD, PID, USER, child_of, inside, process, taken_over
from tidelog.errors import Locked, Timeout
from tidelog.log import Log
from tidelog.log import open as open_log

TAKE_OVER_SECONDS = 0.1
LOOK_SECONDS = 0.1
"""How often a reader looks whether the transaction that it waits behind is still anybody's."""
TRIES = 3
"""A machine that is busy may be late once; one that is late every time has lost the promise."""

BEGIN = """
import sys, time, tidelog
log = tidelog.open(sys.argv[1])
orders = log.queue("orders", partitions=2)
"""
COMMIT = (
    BEGIN
    + """
consumer = orders.consumer(delivery="manual")
consumer.receive(timeout=10)
print("ready", flush=True)
while True:
    consumer.commit()
    consumer.seek("earliest")
    consumer.receive_many(5, timeout=1)
    consumer.commit(level="written")
"""
)
MEMBER = (
    BEGIN
    + """
consumer = log.topic("events", partitions=4).consumer(group="audit")
print("ready", flush=True)
while True:
    consumer.receive_many(10, timeout=0.02)
    if len(consumer.assignment) == 2:
        print("two", flush=True)
        break
while True:
    consumer.receive_many(10, timeout=0.02)
"""
)
TRANSACTION = (
    BEGIN
    + """
producer = log.producer(name="till")
consumer = orders.consumer()
tx = log.transaction(producer, consumer)
tx.__enter__()
consumer.receive_many(5, timeout=10)
tx.send(log.topic("bills", partitions=1), b"not decided")
print("ready", flush=True)
time.sleep(float(sys.argv[2]))
tx.commit()
print("committed", flush=True)
time.sleep(60)
"""
)
NAMED = (
    BEGIN
    + """
producer = log.producer(name="till")
bills = log.topic("bills", partitions=1)
producer.send(bills, b"0")
print("ready", flush=True)
number = 0
try:
    while True:
        number += 1
        producer.send(bills, b"%d" % number)
        time.sleep(0.001)
except tidelog.Fenced:
    print("fenced", flush=True)
"""
)


def timed(began: float) -> float:
    """Seconds since then."""
    return time.monotonic() - began


def within(seconds: list[float], what: str, promised: float = TAKE_OVER_SECONDS) -> None:
    """At least one of several tries was as quick as promised."""
    print(what, [round(1000 * s, 1) for s in seconds])
    assert min(seconds) < promised, f"{what}: {', '.join(f'{one * 1000:.0f} ms' for one in seconds)}"


def kill(holder: subprocess.Popen[str]) -> None:
    """The process in the namespace, by its number out here."""
    os.kill(inside(holder), signal.SIGKILL)
    holder.wait()


def is_stopped(pid: int) -> bool:
    """Whether SIGSTOP has taken hold."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def stop(pid: int) -> None:
    """Stop a process, and return when it stands still."""
    os.kill(pid, signal.SIGSTOP)
    while not is_stopped(pid):
        time.sleep(0.001)


@contextlib.contextmanager
def in_a_send(log: Log, store: Path, wrapper: tuple[str, ...]) -> Iterator[int]:
    """A process of a namespace that has stopped itself with partition 0 locked and its message half sent; its number
    out here. Killed at the end, if it lives."""
    definition = log["orders"].opened().definition
    program = builds.program(Path(__file__).with_name("stopped_owner.c"), builds.TEST)
    started = subprocess.Popen(
        # Not as the first process of its namespace, which cannot stop itself.
        [*wrapper, "sh", "-c", '"$@"; :', "sh", str(program), str(store), str(definition.partitions[0]), definition.id],
        env={**os.environ, "TL_STOP": "append.copied:1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    with started:
        try:
            until = time.monotonic() + 20
            while time.monotonic() < until:
                with contextlib.suppress(FileNotFoundError):  # of one that has just become another
                    shell = inside(started)
                    owner = child_of(shell)
                    if started.pid not in (shell, owner) and owner != shell and is_stopped(owner):
                        break
                time.sleep(0.005)
            else:
                pytest.fail("it did not stop itself in the middle of its send")
            yield owner
        finally:
            started.kill()


@pytest.mark.parametrize("wrapper", [PID, USER], ids=["pid", "user"])
def test_killed_inside_send(store: Path, wrapper: tuple[str, ...]) -> None:
    """With the lock held: the next sender has it at once, in the place of the message that was never sent."""
    seconds = []
    with open_log(store, lock_timeout=5) as log:
        orders = log.queue("orders")
        for round_ in range(TRIES):
            with in_a_send(log, store, wrapper) as owner:
                os.kill(owner, signal.SIGKILL)
                began = time.monotonic()
                receipt = orders.send(b"after", partition=0)
                seconds.append(timed(began))
                assert receipt.offset == 100 + round_
        assert [message.value for message in orders.scan(partition=0)][100:] == [b"after"] * TRIES
    within(seconds, "the lock of a dead sender")


@pytest.mark.parametrize("wrapper", [PID, USER], ids=["pid", "user"])
def test_stopped_inside_send(store: Path, wrapper: tuple[str, ...]) -> None:
    """Its lock is not stolen, others wait for it or go to the other partition; then both messages are in."""
    with open_log(store, lock_timeout=0.4) as log:
        orders = log.queue("orders")
        with in_a_send(log, store, wrapper) as owner:
            with pytest.raises(Locked):
                orders.send(b"robbed", partition=0)
            assert orders.send(b"elsewhere", partition=1).offset == 100
            assert len(list(orders.scan(partition=0))) == 100, "what is half sent is not seen"
            os.kill(owner, signal.SIGCONT)
            until = time.monotonic() + 10
            while orders.bounds(0)[1] == 100 and time.monotonic() < until:
                time.sleep(0.005)
            orders.send(b"after", partition=0)
        assert [message.value for message in orders.scan(partition=0)][100:] == [b"stopped", b"after"]


@pytest.mark.parametrize("wrapper", [PID, USER], ids=["pid", "user"])
def test_killed_inside_commit(store: Path, wrapper: tuple[str, ...]) -> None:
    """Wherever in its commits it dies, its partitions are free at once and the group stands at an offset it stored."""
    seconds = []
    with open_log(store, lock_timeout=1) as log:
        for round_ in range(TRIES + 1):
            with process(COMMIT, store, wrapper) as holder:
                time.sleep(0.003 * round_)
                kill(holder)
                began = time.monotonic()
                taken_over(log, 2)
                seconds.append(timed(began))
        stored = {row.offset for row in log["orders"].offsets() if row.offset is not None}
        assert stored and all(0 <= offset <= 100 for offset in stored)
    within(seconds, "the partitions of a dead consumer")


@pytest.mark.parametrize("wrapper", [PID, USER], ids=["pid", "user"])
def test_a_member_of_a_group_is_killed(store: Path, wrapper: tuple[str, ...]) -> None:
    """The living member out here has all of its partitions within 100 ms, without asking for anything but messages."""
    seconds = []
    with open_log(store, lock_timeout=1) as log, log.topic("events", partitions=4).consumer(group="audit") as mine:
        for _ in range(TRIES):
            with process(MEMBER, store, wrapper) as holder:
                until = time.monotonic() + 10
                while len(mine.assignment) != 2 and time.monotonic() < until:
                    mine.receive_many(10, timeout=0.01)
                assert holder.stdout is not None and holder.stdout.readline() == "two\n"
                kill(holder)
                began = time.monotonic()
                while len(mine.assignment) < 4 and timed(began) < 5:
                    mine.receive_many(10, timeout=0.01)
                seconds.append(timed(began))
                assert len(mine.assignment) == 4
    within(seconds, "the partitions of a dead member")


def test_a_consumer_that_stops_at_the_end_comes_right_after_a_death(store: Path) -> None:
    """It reads what the dead one had as well: a member that lives no more has no share in a new plan."""
    with open_log(store, lock_timeout=1) as log:
        for _ in range(12):
            with process(MEMBER.replace('group="audit"', 'group="audit", delivery="manual"'), store) as holder:
                log["events"].send_many([b"x"] * 40, partition=0)
                log["events"].send_many([b"x"] * 40, partition=3)
                kill(holder)
                with log["events"].consumer(group="audit", stop="end", delivery="manual") as consumer:
                    assert {message.partition for message in consumer} == {0, 3}


@pytest.mark.parametrize("wrapper", [PID, USER], ids=["pid", "user"])
def test_killed_with_an_open_transaction(store: Path, wrapper: tuple[str, ...]) -> None:
    """It is aborted at once: whoever waits behind its first message goes on, and what it had received comes again."""
    seconds = []
    with open_log(store, lock_timeout=1) as log:
        bills = log.topic("bills", partitions=1)
        for round_ in range(TRIES):
            with process(TRANSACTION, store, wrapper, "60") as holder, bills.tail() as tail:
                bills.send(b"behind it %d" % round_)
                with pytest.raises(Timeout):
                    tail.receive(timeout=0.05)
                kill(holder)
                began = time.monotonic()
                assert tail.receive(timeout=5).value == b"behind it %d" % round_
                seconds.append(timed(began))
        assert [message.value for message in bills.scan()] == [b"behind it %d" % number for number in range(TRIES)]
        with log["orders"].consumer(delivery="manual") as consumer:
            while len(consumer.assignment) < 2:
                consumer.receive_many(1, timeout=0.01)
            assert set(consumer.committed.values()) <= {None, 0}, "a transaction that was aborted has committed nothing"
    within(seconds, "a transaction whose process is dead", LOOK_SECONDS + TAKE_OVER_SECONDS)


def test_stopped_with_an_open_transaction(store: Path) -> None:
    """Nobody ends it while its process lives and its time is not up; it commits when it goes on."""
    with process(TRANSACTION, store, PID, "0.3") as holder, open_log(store, lock_timeout=1) as log:
        living = inside(holder)
        stop(living)
        bills = log.topic("bills")
        with bills.tail(start="earliest") as tail:
            bills.send(b"behind it")
            with pytest.raises(Timeout):
                tail.receive(timeout=1)
            os.kill(living, signal.SIGCONT)
            assert holder.stdout is not None and holder.stdout.readline() == "committed\n"
            assert [tail.receive(timeout=5).value for _ in range(2)] == [b"not decided", b"behind it"]


@pytest.mark.parametrize("wrapper", [PID, USER], ids=["pid", "user"])
def test_a_named_producer_is_killed(store: Path, wrapper: tuple[str, ...]) -> None:
    """The next one of its name knows at once how far it came, and goes on behind it."""
    seconds = []
    with open_log(store, lock_timeout=1) as log:
        for round_ in range(TRIES):
            with process(NAMED, store, wrapper) as holder:
                time.sleep(0.005 * round_)
                kill(holder)
                began = time.monotonic()
                with log.producer(name="till") as producer:
                    (last,) = producer.last(log["bills"])
                    receipt = producer.send(log["bills"], b"after")
                seconds.append(timed(began))
                assert last is not None and receipt.offset == last.offset + 1
        values = [message.value for message in log["bills"].scan()]
    runs = b" ".join(values).split(b" after")
    assert runs.pop() == b"" and len(runs) == TRIES
    for run in runs:
        assert run.split() == [b"%d" % number for number in range(len(run.split()))]
    within(seconds, "the name of a dead producer")


def test_a_named_producer_is_stopped(store: Path) -> None:
    """Whoever opens its name does not wait for it, and it adds nothing any more when it goes on."""
    with process(NAMED, store, PID) as holder, open_log(store, lock_timeout=5) as log:
        living = inside(holder)
        stop(living)
        with log.producer(name="till") as producer:
            receipt = producer.send(log.topic("bills"), b"after")
            os.kill(living, signal.SIGCONT)
            assert holder.stdout is not None and holder.stdout.readline() == "fenced\n"
            assert log["bills"].bounds(0)[1] == receipt.offset + 1


def copied(store: Path, copy: Path) -> None:
    """As `cp -a` copies a directory that others work in."""
    subprocess.run(["cp", "-a", str(store), str(copy)], check=True)


def test_a_copy_while_a_transaction_is_open(store: Path, tmp_path: Path) -> None:
    """In the copy nobody will ever decide it, so it is aborted there; here it is committed."""
    with process(TRANSACTION, store, PID, "0.5") as holder:
        copied(store, tmp_path / "copy")
        with open_log(tmp_path / "copy", lock_timeout=1) as other, other["bills"].tail(start="earliest") as tail:
            other["bills"].send(b"in the copy")
            assert tail.receive(timeout=5).value == b"in the copy"
        assert holder.stdout is not None and holder.stdout.readline() == "committed\n"
    with open_log(store) as log:
        assert [message.value for message in log["bills"].scan()] == [b"not decided"]


def test_a_copy_while_a_named_producer_sends(store: Path, tmp_path: Path) -> None:
    """The name is opened in the copy without fencing the producer here."""
    with process(NAMED, store, PID) as holder, open_log(store) as log:
        copied(store, tmp_path / "copy")
        with open_log(tmp_path / "copy", lock_timeout=1) as other, other.producer(name="till") as producer:
            producer.send(other["bills"], b"in the copy")
            assert list(other["bills"].scan())[-1].value == b"in the copy"
        end = log["bills"].bounds(0)[1]
        until = time.monotonic() + 5
        while log["bills"].bounds(0)[1] < end + 20 and time.monotonic() < until:
            time.sleep(0.005)
        assert log["bills"].bounds(0)[1] >= end + 20 and holder.poll() is None, "the producer here goes on"


def test_a_copy_while_a_group_has_members(store: Path, tmp_path: Path) -> None:
    """The members are the original's: in the copy their partitions are free, here they stay theirs."""
    with process(HOLD, store, PID) as holder:
        copied(store, tmp_path / "copy")
        with open_log(tmp_path / "copy", lock_timeout=1) as other:
            taken_over(other, 1)
        with open_log(store) as log:
            assert len(log.groups["orders"].members) == 1 and holder.poll() is None
            assert {row.owner_pid for row in log["orders"].offsets()} == {
                row.owner_pid for row in log["orders"].offsets() if row.owner_pid
            }


@pytest.mark.parametrize("code", [HOLD, NAMED, TRANSACTION], ids=["consumer", "producer", "transaction"])
def test_the_lock_file_is_removed_beside(store: Path, code: str) -> None:
    """By somebody who should not: whoever is inside goes on, nobody comes in, and after the last one has died an empty
    file makes it a store again that has everything."""
    with process(code, store, PID, "60") as holder:
        (store / "store.lock").unlink()
        beside = subprocess.run(
            [sys.executable, "-c", BEGIN, str(store)], capture_output=True, text=True, timeout=30, check=False
        )
        assert beside.returncode == 1 and "store.lock is missing" in beside.stderr
        assert holder.poll() is None
        kill(holder)
    (store / "store.lock").touch()
    with open_log(store, lock_timeout=1) as log:
        assert [message.value for message in log["orders"].scan()] == [b"%d" % n for n in range(100)] * 2
        taken_over(log, 2)
        if "bills" in log:
            log["bills"].send(b"after")
            assert b"not decided" not in [message.value for message in log["bills"].scan()]
        with log.producer(name="till") as producer:
            producer.send(log.topic("bills"), b"after", partition=0)


@pytest.mark.parametrize(
    ("position", "data"),
    [(16, bytes(range(16))), (8, b"\xff\xff\xff\xff"), (12, b"\x07\x00\x00\x00")],
    ids=["boot", "version", "ABI tag"],
)
def test_a_newcomer_with_another_mind_does_not_make_anew_what_others_use(
    store: Path, position: int, data: bytes
) -> None:
    """What stands in `shared` is not what the newcomer would write, but somebody lives in it: he is refused, and the
    one inside loses nothing."""
    with process(NAMED, store, PID) as holder:
        shared = (store / "shared").open("r+b", buffering=0)
        before = os.pread(shared.fileno(), len(data), position)
        os.pwrite(shared.fileno(), data, position)
        with pytest.raises(Locked):
            open_log(store, lock_timeout=0.3)
        assert os.pread(shared.fileno(), len(data), position) == data
        os.pwrite(shared.fileno(), before, position)
        shared.close()
        assert holder.poll() is None
        with open_log(store, lock_timeout=1) as log:
            end = log["bills"].bounds(0)[1]
            until = time.monotonic() + 5
            while log["bills"].bounds(0)[1] < end + 5 and time.monotonic() < until:
                time.sleep(0.005)
            values = [message.value for message in log["bills"].scan()]
            assert len(values) >= end + 5 and values == [b"%d" % number for number in range(len(values))]
