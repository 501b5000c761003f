"""What do tests of consumers on an event loop share?"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tidelog import aio

DAY = datetime(2026, 3, 4, tzinfo=UTC)


class Failure(Exception):
    """What a handler raises."""


async def ten(log: aio.Log, name: str = "orders") -> aio.Queue[bytes]:
    """Ten messages, b"0" to b"9", a second apart, in one partition."""
    queue = await log.queue(name, partitions=1)
    for number in range(10):
        await queue.send(b"%d" % number, timestamp=DAY + timedelta(seconds=number))
    return queue
