"""A service that copies messages from one channel to another in transactions, until the input is copied; for
test_transaction_processes.py, which kills it.

`python copy_service.py LOG NAME LEVEL [once]`: NAME is its producer's; of several that run none has another's.
"""

from __future__ import annotations

import random
import sys

import tidelog


def main(path: str, name: str, level: str) -> None:
    """Copies each message to the partition it came from, some at a time, now and then with an abort of its own."""
    chance = random.Random()
    with tidelog.open(path) as log:
        source, target = log.topic("in", str), log.topic("out", str)
        with log.producer(name=name) as producer, source.consumer("copy") as consumer:
            print("ready", flush=True)
            while True:
                try:
                    with log.transaction(producer, consumer, level=level) as tx:  # type: ignore[arg-type]
                        batch = consumer.receive_many(chance.randint(1, 30), timeout=0.2)
                        for message in batch:
                            tx.send(target, f"copy of {message.value}", partition=message.partition)
                        if chance.random() < 0.1:
                            raise LookupError
                except LookupError:
                    pass
                except tidelog.Fenced:
                    if producer._named is not None and producer._named.fenced:
                        raise


if __name__ == "__main__":
    main(*sys.argv[1:4])
