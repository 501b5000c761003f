"""Does a shift count messages, over every gap in the offsets?"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

import tidelog
from tidelog.group import Shift, shifted

# --- shifting over gaps ---


@given(st.data())
def test_shifting_counts_messages(data: st.DataObject) -> None:
    """Against a list of the offsets that have a message, with gaps anywhere, also before the end."""
    offsets = sorted(data.draw(st.sets(st.integers(0, 40) | st.integers(1 << 30, (1 << 30) + 20), max_size=30)))
    end = (offsets[-1] + 1 if offsets else 0) + data.draw(st.sampled_from([0, 1, 1 << 30]))
    start = data.draw(st.integers(0, min(end, 10)))
    at = data.draw(st.sampled_from([start, end, *[offset for offset in offsets if offset >= start]]))
    messages = data.draw(st.integers(-40, 40))

    def count_from(offset: int) -> int:
        return sum(offset <= one for one in offsets)

    there = [offset for offset in offsets if offset >= start]
    ahead = [offset for offset in there if offset >= at]
    wanted = there[max(len(there) - len(ahead) + messages, 0) :]
    found = shifted(count_from, start, end, at, messages)
    assert start <= found <= end
    assert [offset for offset in there if offset >= found] == wanted


def test_a_reset_over_the_gap_of_a_power_cut(tmp_path: Path) -> None:
    store = tmp_path / "shop.log"
    code = """
import os, signal, sys, tidelog
log = tidelog.open(sys.argv[1])
channel = log.topic("prices", partitions=1)
for i in range(40):
    channel.send(b"%d" % i)
log.sync()
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code, str(store)], check=False)
    (store / "shared").unlink()
    with tidelog.open(store) as log:
        topic = log["prices"]
        assert topic.bounds(0)[1] >= 1 << 30
        topic.send_many([b"after"] * 5)
        log.groups.reset("audit", "latest", channel="prices")
        for shift, expected in ((-3, b"after"), (-4, b"38"), (-10, b"28"), (11, b"39"), (1, b"after")):
            log.groups.reset("audit", Shift(shift))
            with topic.consumer("audit", delivery="manual") as consumer:  # type: ignore[attr-defined]
                assert consumer.receive(timeout=5).value == expected
