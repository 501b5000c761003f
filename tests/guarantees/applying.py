"""What does the application do that the tests of guarantees kill, stop and start again?

One handler for the channel of an `Actor`: it writes each value to a file, the story, and what it returns, the value
once more, goes to the channel RESULTS. "bad" cannot be handled and goes to the channel DEAD.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import tidelog
from tests.guarantees.transacting import RESULTS
from tidelog.app import App
from tidelog.channel import Channel
from tidelog.transaction import Transaction

DEAD = "dead"


def start(
    log: tidelog.Log,
    delivery: Any,
    level: Any,
    story: str,
    *,
    dies: str = "",
    at: str = "",
    seconds: float = 0.0,
    max_processing: float | None = None,
    application: str = "billing",
    to: str = RESULTS,
) -> App:
    """Run it in threads of this process. `dies`: the process is killed in the "handler" of the value `at`, or after the
    "send" of what came of it. `seconds`: a value takes so long. `to`: another
    channel for what the function returns."""
    app = App(application, log=log, level=level)
    orders, results = log.topic("orders", str), log.topic(to, str, partitions=1)

    @app.on(orders, sends=results, dead_letter=DEAD, delivery=delivery, max_processing=max_processing)
    def bill(value: str) -> str:
        with open(story, "ab", buffering=0) as file:
            file.write(f"{value}\n".encode())
        if dies == "handler" and value == at:
            os.kill(os.getpid(), signal.SIGKILL)
        if value == "bad":
            raise ValueError("it cannot be handled")
        time.sleep(seconds)
        return value

    if dies == "send":
        _die_after_sending(at)
    app.start()
    return app


def _die_after_sending(at: str) -> None:
    owners: list[Any] = [Channel, Transaction]
    for owner in owners:

        def sent(self: Any, *words: Any, _send: Any = owner.send, **options: Any) -> Any:
            receipt = _send(self, *words, **options)
            if at in words:
                os.kill(os.getpid(), signal.SIGKILL)
            return receipt

        owner.send = sent
