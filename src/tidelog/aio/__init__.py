"""Which names has `tidelog.aio`: the log for asyncio?

    async with tidelog.aio.open("shop.log") as log:
        orders = await log.queue("orders", str)
        await orders.send("three teas", key="tea")
        async with orders.consumer(stop="end") as received:
            async for message in received:
                print(message.value)

Floor 8: re-exports only. The same names as in `tidelog`, awaitable; messages, batches and errors are the same classes.
No call has a thread of its own and nothing is polled: one thread waits for all consumers of a process, and an event
loop is never blocked by a lock, a file or the disk. So there is no `busy_poll`, and what takes a file or a lock without
a coroutine of its own (`log.groups`) goes through `log.call`.
"""

from __future__ import annotations

from tidelog.aio.channel import Channel, Queue, Topic
from tidelog.aio.consumer import Consumer
from tidelog.aio.log import Log, open
from tidelog.aio.opening import Opening
from tidelog.aio.producer import Producer
from tidelog.aio.receipt import Receipt
from tidelog.aio.replies import Replies

__all__ = ["Channel", "Consumer", "Log", "Opening", "Producer", "Queue", "Receipt", "Replies", "Topic", "open"]
