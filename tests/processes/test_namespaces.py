"""Do processes in other PID and user namespaces, other boots, copies and damaged identities share a store safely?

A container is such a namespace: process ids mean nothing between two of them, and what is alive is known by kernel
locks alone. Needs root; without it the tests fail and say so, because a skip would prove nothing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.processes.namespaces import HOLD, PID, USER, inside, process, taken_over
from tidelog.errors import Corrupt, Error, Locked, StorageFailed, Timeout
from tidelog.log import open as open_log

TAKE_OVER_SECONDS = 1.0
SEND = """
import sys, time, tidelog
log = tidelog.open(sys.argv[1], segment_bytes=1 << 20)
orders = log.queue("orders", partitions=2)
number = 0
while True:
    orders.send_many([b"%d" % one for one in range(number, number + 50)], partition=0)
    number += 50
    if number == 1000:
        print("ready", flush=True)
"""


@pytest.mark.parametrize("wrapper", [PID, USER], ids=["pid", "user"])
@pytest.mark.parametrize("who", ["the process itself", "its namespace"])
def test_a_dead_holder_in_a_namespace_is_taken_over_from(store: Path, wrapper: tuple[str, ...], who: str) -> None:
    """Its partitions are free at once, although its number means nothing here."""
    with process(HOLD, store, wrapper) as holder, open_log(store, lock_timeout=1) as log:
        owners = {row.owner_pid for row in log["orders"].offsets()}
        assert owners and owners != {os.getpid()}
        os.kill(inside(holder) if who == "the process itself" else holder.pid, signal.SIGKILL)
        holder.wait()
        taken_over(log, TAKE_OVER_SECONDS)


@pytest.mark.parametrize("wrapper", [PID, USER], ids=["pid", "user"])
def test_a_dead_sender_in_a_namespace_holds_no_lock(store: Path, wrapper: tuple[str, ...]) -> None:
    """Killed again and again while it appends; whoever is next gets the lock within a second."""
    with open_log(store, lock_timeout=TAKE_OVER_SECONDS) as log:
        orders = log.queue("orders")
        for round_ in range(5):
            with process(SEND, store, wrapper) as sender:
                time.sleep(0.01 * round_)
                os.kill(inside(sender), signal.SIGKILL)
                sender.wait()
                receipt = orders.send(b"after %d" % round_, partition=0)
                assert orders.read([receipt.offset], 0).values == [b"after %d" % round_]
        offsets = [message.offset for message in orders.scan(partition=0)]
        assert offsets == sorted(set(offsets))


def test_two_namespaces_with_the_same_process_numbers(store: Path) -> None:
    """Both are process 1 to themselves. Neither is taken for the other, dead or alive."""
    with process(HOLD, store, PID) as first:
        second = subprocess.Popen(
            [*PID, sys.executable, "-c", HOLD, str(store)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        with second:
            try:
                with open_log(store) as log:
                    until = time.monotonic() + 10
                    while len(log.groups["orders"].members) < 2 and time.monotonic() < until:
                        time.sleep(0.02)
                    assert len(log.groups["orders"].members) == 2
                    log["orders"].send_many([b"x"] * 20, partition=0)
                    log["orders"].send_many([b"x"] * 20, partition=1)
                    os.kill(inside(first), signal.SIGKILL)
                    first.wait()
                    until = time.monotonic() + TAKE_OVER_SECONDS
                    while len(members := log.groups["orders"].members) > 1 and time.monotonic() < until:
                        time.sleep(0.01)
                    assert len(members) == 1, "the dead one is still a member, or the living one is none"
            finally:
                second.kill()


def test_a_stopped_holder_is_not_robbed(store: Path) -> None:
    """It keeps its partitions as long as it lives, whatever others ask for; once it goes on, it shares them."""
    with process(HOLD, store, PID) as holder, open_log(store) as log:
        living = inside(holder)
        os.kill(living, signal.SIGSTOP)
        try:
            with log["orders"].consumer() as consumer:
                until = time.monotonic() + 1.5
                while time.monotonic() < until:
                    with pytest.raises(Timeout):
                        consumer.receive(timeout=0.1)
                assert consumer.assignment == ()
                os.kill(living, signal.SIGCONT)
                until = time.monotonic() + 10
                while not consumer.assignment and time.monotonic() < until:
                    with contextlib.suppress(Timeout):
                        consumer.receive(timeout=0.1)
                assert len(consumer.assignment) == 1
        finally:
            os.kill(living, signal.SIGCONT)


def shaken(store: Path, position: int, data: bytes) -> None:
    """Overwrites bytes of `shared`, with nobody inside."""
    with (store / "shared").open("r+b") as file:
        file.seek(position)
        file.write(data)


def killed(store: Path) -> None:
    """Leaves the store as a killed process leaves it: never closed."""
    with process(HOLD, store) as holder:
        holder.kill()
        holder.wait()


@pytest.mark.parametrize(
    ("position", "data"),
    [(16, os.urandom(16)), (16, bytes(16)), (8, b"\xff\xff\xff\xff"), (0, b"no store"), (12, b"\x01\x02\x03\x04")],
    ids=["another boot", "no boot", "another version", "another file", "other lock words"],
)
def test_words_of_another_boot_are_not_believed(store: Path, position: int, data: bytes) -> None:
    """They are made anew from what is on disk: messages are there, the group stands where it stood, or before."""
    killed(store)
    shaken(store, position, data)
    with open_log(store) as log:
        orders = log.queue("orders")
        for partition in range(2):
            assert [message.value for message in orders.scan(partition=partition)][:100] == [
                b"%d" % number for number in range(100)
            ]
        orders.send(b"after", partition=0)
        taken_over(log, 5)


def test_other_lock_words_are_refused_while_somebody_is_inside(store: Path) -> None:
    """Another build of the library has the store open, whose locks are none to us."""
    with process(HOLD, store) as holder:
        shaken(store, 12, b"\x01\x02\x03\x04")
        with pytest.raises(Locked, match="lock words"):
            open_log(store, lock_timeout=0.3)
        assert holder.poll() is None


def test_a_copy_of_a_live_store_is_a_store_of_its_own(store: Path, tmp_path: Path) -> None:
    """It opens, or is refused with a typed error; what is sent to it is not in the original, nor the other way."""
    opened = 0
    for round_ in range(5):
        copy = tmp_path / f"copy-{round_}"
        with (
            process(SEND.replace("number += 50", "number += 50; time.sleep(0.002)"), store) as sender,
            open_log(store) as log,
        ):
            subprocess.run(["cp", "-a", str(store), str(copy)], check=True)
            try:
                with open_log(copy, lock_timeout=1) as other:
                    opened += 1
                    other.queue("orders").send(b"only in the copy", partition=1)
                    assert b"only in the copy" in [message.value for message in other["orders"].scan(partition=1)]
            except (Corrupt, StorageFailed, Locked) as error:
                assert str(error)
            assert sender.poll() is None, "the sender does not mind"
            log.queue("orders").send(b"only here", partition=1)
            assert b"only in the copy" not in [message.value for message in log["orders"].scan(partition=1)]
        shutil.rmtree(copy)
    assert opened, "no copy could be opened at all"


def test_a_store_that_was_moved(store: Path, tmp_path: Path) -> None:
    """Closed, it may go anywhere."""
    killed(store)
    moved = tmp_path / "elsewhere"
    store.rename(moved)
    with open_log(moved) as log:
        assert len(list(log["orders"].scan())) == 200
        log["orders"].send(b"after")


def test_another_user_is_refused(store: Path) -> None:
    """The files are private; the error is typed, and nothing is changed."""
    os.chmod(store.parent, 0o755)
    code = (
        "import os, sys, tidelog, tidelog.log, tidelog.storage.catalogue\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try:\n    tidelog.open(sys.argv[1])\n"
        "except (tidelog.Error, PermissionError) as error:\n    print('refused', type(error).__name__, error)"
    )
    # The interpreter and the package must be readable for anybody; what cannot even start proves nothing.
    done = subprocess.run(
        [sys.executable, "-c", code, str(store)], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stdout.startswith("refused"), done.stdout + done.stderr
    with open_log(store) as log:
        assert len(list(log["orders"].scan())) == 200


def test_a_lock_file_that_somebody_removed(store: Path) -> None:
    """Who is inside goes on. Nobody else is let in, since two locks of different files would not see one another. An
    empty file in its place makes everything as it was."""
    with open_log(store) as log:
        orders = log.queue("orders")
        (store / "store.lock").unlink()
        orders.send(b"inside", partition=0)
        code = "import sys, tidelog\ntidelog.open(sys.argv[1], lock_timeout=1)"
        beside = subprocess.run(
            [sys.executable, "-c", code, str(store)], capture_output=True, text=True, timeout=30, check=False
        )
        assert beside.returncode == 1
        assert "tidelog.errors." in beside.stderr
        orders.send(b"still inside", partition=0)
    with pytest.raises(Error):
        open_log(store)
    (store / "store.lock").touch()
    with open_log(store) as log:
        values = [message.value for message in log["orders"].scan(partition=0)][100:]
        assert values == [b"inside", b"still inside"]
        taken_over(log, 5)


def test_root_is_there() -> None:
    """Everything above needs it."""
    assert os.geteuid() == 0, "these tests make namespaces: run them as root"
