"""Which store do the tests of namespaces begin with?"""

from __future__ import annotations

from pathlib import Path

import pytest

from tidelog.log import open as open_log


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with two partitions and 100 messages in each."""
    path = tmp_path / "x.log"
    with open_log(path, segment_bytes=1 << 20) as log:
        orders = log.queue("orders", partitions=2)
        for partition in range(2):
            orders.send_many([b"%d" % number for number in range(100)], partition=partition)
    return path
