"""What does a process do whose file-size limit (`ulimit -f`, RLIMIT_FSIZE) stands in the way of a file of the store?

CPython ignores SIGXFSZ, so system calls answer EFBIG: that is an error of its own process alone, which says what to do,
and passes when the limit is raised. Each test is a program of its own, since the limit is the process's.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tidelog.log import open as open_log

BEGIN = """
import errno, resource, sys, time, tidelog
path, limit = sys.argv[1], int(sys.argv[2])

def limited(to):
    resource.setrlimit(resource.RLIMIT_FSIZE, (to, resource.RLIM_INFINITY))

def refused(function):
    try:
        function()
    except tidelog.StorageFailed as error:
        assert error.errno == errno.EFBIG and "ulimit -f" in str(error), error
        return
    raise AssertionError("no error")
"""
FILL = (
    BEGIN
    + """
log = tidelog.open(path, segment_bytes=8 << 20, flush_interval=0.05)
orders, sent = log.queue("orders", partitions=2), 0
orders.send_many([b"before"] * 5, partition=1)
for cycle in range(3):
    limited(limit << cycle if limit else 0)

    def fill():
        global sent
        while True:
            orders.send(b"%d" % sent + b"." * 1000, partition=0)
            sent += 1

    refused(fill)
    refused(fill)
    for _ in range(3):
        time.sleep(0.06)  # the housekeeper meets the limit too
    assert [int(m.value.rstrip(b".")) for m in orders.scan(partition=0)] == list(range(sent)), "reads go on"
    with orders.consumer(delivery="manual") as consumer:
        consumer.commit(consumer.receive_many(10, timeout=5))  # commits go on
        try:
            consumer.commit(level="synced")  # or say that what syncs them cannot be written
        except tidelog.StorageFailed as error:
            assert error.errno == errno.EFBIG, error
    refused(lambda: log.producer(ack="synced").send(orders, b"." * 8_000_000, partition=0))
    assert sum(row.offset > 0 for row in log.offsets()) >= 1
    kept = sent // 2 if cycle == 2 else 0
    if kept and limit:
        orders.trim(kept, 0)
    elif kept:  # not even the record of it can be written
        refused(lambda: orders.trim(kept, 0))
    limited(resource.RLIM_INFINITY)
    orders.send(b"%d" % sent, partition=0)  # and so do sends, without anything being opened again
    sent += 1
    orders.trim(kept, 0)
    log.sync()
assert log["orders"].bounds(0)[1] == sent
log.close()
print(kept, sent)
"""
)
BESIDE = (
    BEGIN
    + """
log = tidelog.open(path, segment_bytes=8 << 20)
orders = log.queue("orders", partitions=2)
limited(limit)
def fill():
    while True:
        orders.send_many([b"." * 1000] * 20, partition=0)
refused(fill)
print("full", flush=True)
sys.stdin.readline()
orders.send(b"in the room that another one made", partition=0)
print("sent", flush=True)
log.close()
"""
)
MAKE = (
    BEGIN
    + """
limited(limit)
try:
    log = tidelog.open(path)
except tidelog.StorageFailed as error:
    assert error.errno == errno.EFBIG and "ulimit -f" in str(error), error
else:
    refused(lambda: log.queue("orders").send(b"x"))
    log.close()
limited(resource.RLIM_INFINITY)
with tidelog.open(path) as log:
    log.queue("orders", partitions=1).send(b"after")
    assert [message.value for message in log["orders"].scan()] == [b"after"]
print("made")
"""
)


def run(code: str, store: Path, limit: int) -> str:
    """What a program says that ended well."""
    done = subprocess.run(
        [sys.executable, "-c", code, str(store), str(limit)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout.strip()


def check(store: Path) -> list[bytes]:
    """Everything in partition 0, from a store without damage."""
    with open_log(store, lock_timeout=5) as log:
        for channel in log:
            for partition in log[channel].opened().partitions:
                found: list[object] = []
                partition.check(lambda *place, found=found: found.append(place))
                assert not found
        return [message.value for message in log["orders"].scan(partition=0)]


@pytest.mark.parametrize("limit", [0, 4096, 200_000, 1 << 20], ids=str)
def test_sends_are_refused_and_go_on_when_the_limit_is_raised(tmp_path: Path, limit: int) -> None:
    kept, sent = map(int, run(FILL, tmp_path / "x.log", limit).split())
    assert [int(value.rstrip(b".")) for value in check(tmp_path / "x.log")] == list(range(kept, sent))


@pytest.mark.parametrize("limit", [0, 200_000], ids=str)
def test_others_are_not_held_up_by_it(tmp_path: Path, limit: int) -> None:
    """The partition is nobody's victim: whoever has no such limit goes on, and makes room that the limited one uses."""
    store = tmp_path / "x.log"
    with open_log(store, segment_bytes=8 << 20, lock_timeout=5) as log:
        orders = log.queue("orders", partitions=2)
        orders.send(b"before", partition=0)
        limited = subprocess.Popen(
            [sys.executable, "-c", BESIDE, str(store), str(limit)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with limited:
            assert limited.stdout is not None
            said = limited.stdout.readline()
            if said != "full\n":
                pytest.fail(limited.communicate()[1])
            for _ in range(500):
                orders.send(b"." * 1000, partition=0)
            out, err = limited.communicate("\n", timeout=30)
            assert (out, err, limited.returncode) == ("sent\n", "", 0)
        orders.sync()
    values = check(store)
    assert values[-1] == b"in the room that another one made" and values.count(b"." * 1000) >= 500


@pytest.mark.parametrize("limit", [0, 1000, 4096, 20_000, 100_000, 600_000], ids=str)
def test_a_store_that_cannot_be_made_under_the_limit(tmp_path: Path, limit: int) -> None:
    """The error is typed, and what it left is made whole by whoever opens the store without the limit."""
    assert run(MAKE, tmp_path / "x.log", limit) == "made"
