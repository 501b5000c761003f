"""Does lag count messages that are still to be delivered, also where a power cut left a gap of a billion offsets?

Imports the public API. The cut is made as recovery sees it: the words of the boot are gone, the files are as they were.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import tidelog
from tidelog.log import Log

_DIE = """
import os, signal, sys, tidelog
log = tidelog.open(sys.argv[1])
channel = log.queue("orders", partitions=1)
for i in range(40):
    channel.send(b"%d" % i)
with channel.consumer(delivery="manual") as consumer:
    consumer.commit(consumer.receive_many(10, timeout=1)[:10])
log.sync()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_lag_leaves_gaps_out(tmp_path: Path) -> None:
    store = tmp_path / "shop.log"
    subprocess.run([sys.executable, "-c", _DIE, str(store)], check=False)
    (store / "shared").unlink()
    with tidelog.open(store) as log:
        channel = log.queue("orders")
        first, end = channel.bounds(0)
        assert (first, end >= 1 << 30) == (0, True)
        channel.send_many([b"after"] * 5)
        with channel.consumer(delivery="manual") as consumer:
            assert consumer.lag == 35
            assert len(consumer.receive_many(30, timeout=1)) == 30
            assert consumer.lag == 5
            assert [m.value for m in consumer.receive_many(30, timeout=1)] == [b"after"] * 5
            assert consumer.lag == 0
        assert [row.lag for row in log.offsets()] == [35]
        part = channel.opened().partitions[0]
        # From inside the gap too, however close to its end.
        assert [part.count_from(offset) for offset in (0, 39, 40, end - 3, end, end + 4)] == [45, 6, 5, 5, 5, 1]
    shutil.rmtree(store)


class _Failure(Exception):
    """What aborts a transaction."""


def test_lag_ends_where_the_consumer_has_to_stop(log: Log) -> None:
    """Of an open transaction a read-committed consumer is not given anything, and of an aborted one never; a
    read-uncommitted one is given everything. Each lag is what is still to be delivered, so it gets 0."""
    channel = log.topic("bills", str, partitions=1)
    producer, other = log.producer(name="till"), log.producer(name="another till")
    with (
        channel.consumer(group="clean") as clean,
        channel.consumer(group="dirty", isolation="read-uncommitted") as dirty,
    ):

        def lags() -> tuple[int, int]:
            return clean.lag, dirty.lag

        channel.send_many(["a", "b"])
        assert lags() == (2, 2)
        with log.transaction(producer) as tx:
            tx.send_many(channel, ["c", "d", "e"])
            channel.send("f")
            assert lags() == (2, 6)
        assert lags() == (6, 6)
        with suppress(_Failure), log.transaction(producer) as tx:
            tx.send_many(channel, ["never"] * 4)
            assert lags() == (6, 10)
            raise _Failure
        assert lags() == (6, 10)
        with log.transaction(other) as tx:
            tx.send(channel, "g")
            for consumer, expected in ((clean, "abcdef"), (dirty, [*"abcdef", *["never"] * 4, "g"])):
                assert [m.value for m in consumer.receive_many(3, timeout=10)] == list(expected)[:3]
                assert consumer.lag == len(expected) - 3
                rest: list[str] = []
                while lag := consumer.lag:
                    assert lag == len(expected) - 3 - len(rest)
                    rest += [m.value for m in consumer.receive_many(100, timeout=10)]
                assert rest == list(expected)[3:]
        assert lags() == (1, 0)
        assert clean.receive(timeout=10).value == "g"
        assert lags() == (0, 0)
    assert [row.lag for row in channel.offsets() if row.group == "clean"] == [0]
