"""Does lag count messages, also where a power cut left a gap of a billion offsets?

Imports the public API. The cut is made as recovery sees it: the words of the boot are gone, the files are as they were.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import tidelog

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
