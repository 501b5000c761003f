"""Which lives does a Python process lead that a log must survive? `python lives.py NAME STORE [ROUNDS [SEED]]`

Each function is a program of its own, run by test_lifecycle.py in a fresh interpreter. It ends with exit code 0 when
everything was as promised and says what was not otherwise; a watchdog prints all stacks and ends it when it hangs.
Messages that were acked are written to `STORE.acked` by those that do not live to tell. Imports tidelog.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import multiprocessing
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy  # noqa: F401  (loaded before anything is interrupted: it cannot be loaded twice)

import tidelog

WATCHDOG_SECONDS = 100

PAUSE_SECONDS = 0.0002
"""What a thread that sends beside takes between two handfuls: it is always about to send, without filling the disk."""


def number_of(value: bytes) -> int:
    """Values are numbers as text."""
    return int(value)


def expect(condition: object, what: str) -> None:
    """End the program with a sentence when something is not as promised."""
    if not condition:
        print(what, file=sys.stderr)
        faulthandler.dump_traceback()
        os._exit(1)


def holds(log: tidelog.Log, name: str, acked: dict[int, tuple[int, int]], maybe: set[int]) -> None:
    """What was acked is there once, where its receipt said; what nobody knows of is there once at most; every offset
    from the first to the last has a message."""
    found: dict[int, tuple[int, int]] = {}
    due: Counter[int] = Counter()
    for message in log[name].scan():
        value, partition, offset = number_of(message.value), message.partition, message.offset
        expect(value not in found, f"{value} stands at {found.get(value)} and at {partition, offset}")
        expect(offset == due[partition], f"partition {partition} goes on at {offset}, not at {due[partition]}")
        due[partition] = offset + 1
        found[value] = (partition, offset)
    for value, place in acked.items():
        expect(found.get(value) == place, f"{value} was acked at {place} and is at {found.get(value)}")
    strange = set(found) - set(acked) - maybe
    expect(not strange, f"nobody sent {sorted(strange)[:5]}")


class Interrupts:
    """Raises KeyboardInterrupt at a random moment of what stands in `armed`, as Ctrl-C does."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.open = False
        self.count = 0
        signal.signal(signal.SIGALRM, self._ring)

    def _ring(self, *_: object) -> None:
        if self.open:
            self.open = False
            self.count += 1
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def armed(self, most_seconds: float) -> Iterator[None]:
        """What is inside may be interrupted once."""
        self.open = True
        signal.setitimer(signal.ITIMER_REAL, self.random.uniform(1e-6, most_seconds))
        try:
            yield
        finally:
            self.open = False


def at_its_ease(send: Callable[[], None], stop: threading.Event) -> threading.Thread:
    """A thread that sends until `stop`, ten times in a row and then a moment later."""

    def work() -> None:
        while not stop.is_set():
            for _ in range(10):
                send()
            time.sleep(PAUSE_SECONDS)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def interrupted_sends(store: Path, rounds: int, seed: int) -> None:
    """KeyboardInterrupt in the middle of send, send_many and flush, with another thread that sends too. After each, no
    lock is held by the call that is gone: both partitions take messages at once, from the same handles."""
    acked: dict[int, tuple[int, int]] = {}
    maybe: set[int] = set()
    stop = threading.Event()
    with tidelog.open(store, lock_timeout=5, segment_bytes=1 << 20) as log:
        orders = log.queue("orders", partitions=2)
        other: dict[int, tuple[int, int]] = {}
        beside = iter(range(10_000_000, 10**9))

        def send_beside() -> None:
            number = next(beside)
            receipt = orders.send(b"%d" % number)
            other[number] = (receipt.partition, receipt.offset)

        thread = at_its_ease(send_beside, stop)
        bell = Interrupts(seed)
        number = 0

        def next_values() -> list[int]:
            nonlocal number
            number += 20
            maybe.update(range(number - 20, number))
            return list(range(number - 20, number))

        lingering = log.producer(linger=0.001)
        while bell.count < rounds:
            values = next_values()
            how = bell.random.randrange(4)
            if how == 2:
                # Starts the producer's clock: Thread.start is Python's own, and leaves locks held when interrupted.
                first = values.pop(0)
                acked[first] = lingering.send(orders, b"%d" % first).result()
            try:
                with bell.armed(0.001):
                    while True:
                        if how == 0:
                            receipt = orders.send(b"%d" % values[0])
                            acked[values[0]] = (receipt.partition, receipt.offset)
                            values = values[1:]
                        elif how == 1:
                            receipt = orders.send_many([b"%d" % value for value in values])
                            places = zip(receipt.partitions.tolist(), receipt.offsets.tolist(), strict=True)
                            acked.update(zip(values, places, strict=True))
                            values = []
                        elif how == 2:
                            receipts = [lingering.send(orders, b"%d" % value) for value in values]
                            sent, values = values, []
                            for value, one in zip(sent, receipts, strict=True):
                                acked[value] = one.result()
                        else:
                            with log.producer(ack="synced") as producer:
                                sent, values = values, []
                                for value in sent:
                                    acked[value] = producer.send(orders, b"%d" % value).result()
                        if not values:
                            values = next_values()
            except KeyboardInterrupt:
                pass
            for partition, value in enumerate(next_values()[:2]):
                place = orders.send(b"%d" % value, partition=partition)
                acked[value] = (place.partition, place.offset)
        with contextlib.suppress(KeyboardInterrupt):  # of a batch that was interrupted, and that nobody asked for
            lingering.close()
        stop.set()
        thread.join()
    with tidelog.open(store) as log:
        holds(log, "orders", {**acked, **other}, maybe)


def interrupted_receives(store: Path, rounds: int, seed: int) -> None:
    """KeyboardInterrupt in the middle of receiving and committing. Who leaves `with` by it has committed nothing that
    was not handled, so nothing is lost; who catches it inside goes on receiving with the same consumer."""
    handled: Counter[int] = Counter()
    sent = 0
    with tidelog.open(store, lock_timeout=5) as log:
        orders = log.queue("orders", partitions=2)
        bell = Interrupts(seed)

        def handle(messages: Iterable[Any]) -> None:
            for message in messages:
                handled[number_of(message.value)] += 1

        def until_interrupted(consumer: Any, commits: bool) -> None:
            with bell.armed(0.001):
                while True:
                    if bell.random.random() < 0.5:
                        handle(consumer.receive_many(5, timeout=0.001))
                    else:
                        try:
                            handle([consumer.receive(timeout=0.001)])
                        except tidelog.Timeout:
                            continue
                    if commits:
                        consumer.commit()

        while bell.count < rounds:
            orders.send_many([b"%d" % value for value in range(sent, sent + 20)])
            sent += 20
            how = bell.random.choice(("at-least-once", "manual", "goes on"))
            consumer = orders.consumer(delivery="at-least-once" if how == "at-least-once" else "manual")
            try:
                with consumer:
                    try:
                        until_interrupted(consumer, how == "manual")
                    except KeyboardInterrupt:
                        if how != "goes on":
                            raise
                        handle(consumer.receive_many(5, timeout=0))
                        expect(len(consumer.assignment) == 2, f"it has {consumer.assignment} after an interrupt")
            except KeyboardInterrupt:
                pass
            expect(consumer.closed, "leaving `with` did not close the consumer")
        with orders.consumer(stop="end") as rest:
            handle(rest)
    lost = [value for value in range(sent) if not handled[value]]
    expect(not lost, f"{len(lost)} messages were handed over to nobody: {lost[:5]}")


def many_signals(store: Path, rounds: int, _: int) -> None:
    """A signal a thousand times a second that only counts: calls go on as if nothing had been."""
    rang = 0

    def ring(*_: object) -> None:
        nonlocal rang
        rang += 1

    signal.signal(signal.SIGALRM, ring)
    with tidelog.open(store, flush_interval=0.05) as log:
        orders = log.queue("orders", partitions=2)
        with orders.consumer() as consumer:
            signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
            sent = got = 0
            while rang < rounds:
                orders.send_many([b"%d" % value for value in range(sent, sent + 50)])
                sent += 50
                while got < sent:
                    got += len(consumer.receive_many(100, timeout=30))
                orders.sync()
                try:
                    consumer.receive(timeout=0.01)
                    expect(False, "a message that nobody sent")
                except tidelog.Timeout:
                    pass
            signal.setitimer(signal.ITIMER_REAL, 0)


def closing_beside(store: Path, rounds: int, seed: int) -> None:
    """Threads that send, receive, wait and scan while another one closes their consumer, their producer or the log."""
    acked: dict[int, tuple[int, int]] = {}
    maybe: set[int] = set()
    chance = random.Random(seed)
    numbers = iter(range(10**9))
    wrong: list[BaseException] = []

    def sending(orders: Any, producer: Any) -> None:
        while True:
            number = next(numbers)
            maybe.add(number)
            receipt = producer.send(orders, b"%d" % number) if producer else orders.send(b"%d" % number)
            place = receipt.result()
            acked[number] = (place.partition, place.offset)

    def receiving(consumer: Any) -> None:
        while True:
            with contextlib.suppress(tidelog.Timeout):
                consumer.receive(timeout=chance.choice((0, 0.01, 5)))
            consumer.receive_many(10, timeout=0.001)
            consumer.commit()

    def scanning(orders: Any) -> None:
        while True:
            for _ in orders.scan():
                pass

    def until_closed(work: Callable[..., None], *arguments: Any) -> None:
        try:
            work(*arguments)
        except tidelog.Closed:
            pass
        except BaseException as error:
            wrong.append(error)

    for _ in range(rounds):
        log = tidelog.open(store, segment_bytes=1 << 20)
        orders, events = log.queue("orders", partitions=2), log.topic("events", partitions=1)
        consumers = [orders.consumer(), events.consumer(group="a"), events.tail()]
        producer = log.producer(linger=0.002)
        work = [(sending, orders, None), (sending, orders, producer), (scanning, orders)]
        work += [(receiving, consumer) for consumer in consumers[:2]]
        threads = [threading.Thread(target=until_closed, args=one) for one in work]  # type: ignore[arg-type]
        threads.append(threading.Thread(target=until_closed, args=(consumers[2].receive,)))
        for thread in threads:
            thread.start()
        time.sleep(chance.uniform(0, 0.02))
        closing = [*consumers, producer]
        chance.shuffle(closing)
        for handle in closing[: chance.randrange(len(closing) + 1)]:
            handle.close()
        log.close()
        for thread in threads:
            thread.join(30)
            expect(not thread.is_alive(), "a thread is still inside a call of a log that was closed")
        expect(not wrong, f"not Closed, but {wrong[:1]!r}")
    with tidelog.open(store) as log:
        holds(log, "orders", acked, maybe)


def forks_everywhere(store: Path, rounds: int, _: int) -> None:
    """Forks while threads send, receive and wait. The child cannot use what it inherited, can open the log itself, and
    takes nothing from its parent when it ends, with all finalizers."""
    stop = threading.Event()
    sent: dict[int, tuple[int, int]] = {}
    gc.freeze()  # modules: no child has to look through them in search of garbage
    with tidelog.open(store, segment_bytes=1 << 20) as log:
        orders, events = log.queue("orders", partitions=2), log.topic("events", partitions=1)
        producer = log.producer(linger=0.001)
        consumer, tail = orders.consumer(), events.tail()

        numbers = iter(range(1_000_000, 10**9))

        def sending() -> None:
            number = next(numbers)
            text = b"%d" % number
            receipt = producer.send(orders, text) if number % 2 else orders.send(text)
            place = receipt.result()
            sent[number] = (place.partition, place.offset)

        def receiving() -> None:
            while not stop.is_set():
                consumer.receive_many(50, timeout=0.01)

        threads = [at_its_ease(sending, stop), threading.Thread(target=receiving)]
        threads[1].start()
        for round_ in range(rounds):
            child = os.fork()
            if child == 0:
                _child(store, round_, [lambda: orders.send(b"0"), lambda: tail.receive(timeout=0), log.offsets])
            _, status = os.waitpid(child, 0)
            expect(status == 0, f"the child ended with {os.waitstatus_to_exitcode(status)}")
        stop.set()
        for thread in threads:
            thread.join(30)
            expect(not thread.is_alive(), "a thread of the parent hangs")
        consumer.close()
        from_children = Counter(number_of(message.value) for message in log["children"].scan())
        expect(from_children == Counter(range(rounds)), f"children sent {len(from_children)} of {rounds} messages")
        holds(log, "orders", sent, set())


def _child(store: Path, number: int, handles: list[Callable[[], Any]]) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(30)  # the watchdog of faulthandler hangs in a forked child
    for use in handles:
        try:
            use()
            expect(False, "a handle of the parent works in the child")
        except tidelog.Forked:
            pass
    with tidelog.open(store) as mine:
        mine.queue("children").send(b"%d" % number)
    handles.clear()
    gc.collect()
    if number % 2:
        sys.exit(0)
    os._exit(0)


def _send_one(task: tuple[str, int]) -> int:
    """In a worker of a pool."""
    path, number = task
    with tidelog.open(path) as log:
        return log.queue("pool").send(b"%d" % number).offset


def pools(store: Path, rounds: int, _: int) -> None:
    """multiprocessing by fork, spawn and forkserver, while the parent has the log open."""
    with tidelog.open(store) as log:
        held = log.queue("pool", partitions=1)
        with held.consumer() as consumer:
            number = 0
            for method in ("fork", "spawn", "forkserver"):
                with multiprocessing.get_context(method).Pool(2) as pool:
                    offsets = pool.map(_send_one, [(str(store), number + one) for one in range(rounds)])
                    number += rounds
                    pool.close()
                    pool.join()
                expect(len(set(offsets)) == rounds, f"{method}: one offset was given out twice")
                got: list[int] = []
                while len(got) < rounds:
                    batch = consumer.receive_many(100, timeout=30)
                    expect(len(batch), f"{method}: {len(got)} of {rounds} messages came")
                    got += [number_of(message.value) for message in batch]
                expect(sorted(got) == list(range(number - rounds, number)), f"{method}: other messages came")


def one_handle(store: Path, rounds: int, _: int) -> None:
    """One channel and one producer in 16 threads."""
    acked: dict[int, tuple[int, int]] = {}
    with tidelog.open(store, segment_bytes=1 << 20) as log:
        orders = log.queue("orders", partitions=3)
        producer = log.producer(linger=0.001)

        def work(first: int) -> None:
            for number in range(first, first + rounds):
                if number % 3 == 0:
                    place: Any = producer.send(orders, b"%d" % number).result()
                elif number % 3 == 1:
                    place = orders.send(b"%d" % number, key=b"%d" % (number % 7)).result()
                else:
                    place = orders.send_many([b"%d" % number]).result()
                acked[number] = (place.partition, place.offset)

        threads = [threading.Thread(target=work, args=(number * rounds,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        expect(len(acked) == 16 * rounds, f"{len(acked)} of {16 * rounds} messages were acked")
        holds(log, "orders", acked, set())


def kept_after_close(store: Path, _: int, __: int) -> None:
    """Messages, batches and their columns outlive the log; iterators and receipts say Closed."""
    log = tidelog.open(store)
    orders = log.queue("orders", partitions=1)
    receipt = orders.send_many([b"%d" % number for number in range(100)])
    consumer = orders.consumer()
    batch = consumer.receive_many(50, timeout=5)
    message = consumer.receive(timeout=5)
    scan = orders.scan()
    next(scan)
    views = [memoryview(one) for one in batch.raws]
    log.close()
    log.trim = None  # type: ignore[attr-defined]  # a cycle that holds the log
    log.self = log  # type: ignore[attr-defined]
    del log, orders
    gc.collect()
    expect([number_of(value) for value in batch.values] == list(range(50)), "values changed")
    expect([bytes(view) for view in views] == [b"%d" % number for number in range(50)], "views changed")
    expect(message.value == b"50" and batch.offsets.tolist() == list(range(50)), "a message changed")
    expect(receipt.offsets.tolist() == list(range(100)), "a receipt changed")
    for use in (lambda: list(scan), lambda: consumer.receive(timeout=0), lambda: receipt.result(level="synced")):
        try:
            use()
            expect(False, "something works after close")
        except tidelog.Closed:
            pass


def main() -> int:
    """Run one of the programs."""
    name, store, *rest = sys.argv[1:]
    faulthandler.enable()
    if name == "forks_everywhere":  # a child could not end: the lock of faulthandler's watchdog is not freed by fork
        signal.alarm(WATCHDOG_SECONDS)
    else:
        faulthandler.dump_traceback_later(WATCHDOG_SECONDS, exit=True)
    globals()[name](Path(store), int(rest[0]) if rest else 1, int(rest[1]) if len(rest) > 1 else 1)
    faulthandler.cancel_dump_traceback_later()
    return 0


if __name__ == "__main__":
    sys.exit(main())
