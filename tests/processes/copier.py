"""A named producer that copies a numbered source into a channel and resumes where its name has come to.

`python -m tests.processes.copier STORE MESSAGES HOW`; HOW: direct, linger, many. Killed at any moment and started again
it must leave every number exactly once, in order per key. Imports tidelog.
"""

from __future__ import annotations

import sys

import tidelog

KEYS = 16


def main(store: str, count: int, how: str) -> None:
    with tidelog.open(store, lock_timeout=10) as log:
        numbers = log.topic("numbers", int, partitions=4)
        with log.producer(name="copier", linger=0.002 if how == "linger" else 0) as producer:
            # Each partition is behind the number that its last message holds; where there is none, at the beginning.
            done = [-1] * 4
            for position in producer.last(numbers):
                if position is not None:
                    (message,) = numbers.read([position.offset], partition=position.partition)
                    done[position.partition] = message.value
            print("resumes", *done, flush=True)
            for number in range(min(done) + 1, count):
                key = str(number % KEYS)
                partition = tidelog.native.partition([key], 4)[0]
                if number <= done[partition]:
                    continue
                if how == "many":
                    producer.send_many(numbers, [number], keys=[key])
                else:
                    producer.send(numbers, number, key=key)
                if number % 50 == 0:
                    print("at", number, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
