"""How fast does a consumer group share its work out, and what does sharing bring?

Timed: (a) a fourth member comes to an idle group of three on 12 partitions, until it holds its share; (b) a sixteenth
member comes to fifteen on 1,000 partitions, until the last of the sixteen processes has given and taken what the new
assignment says (each notes the monotonic time of its last on_assign or on_revoke); (c) messages handled per second by
two consumer processes on four partitions against one, when each message takes 50 us of computing; both members of the
pair run in turn on the same log. On disk. A machine with two CPUs runs sixteen processes one after the other, so (b) is
mostly their turns.
"""

from __future__ import annotations

import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from time import monotonic_ns, perf_counter_ns, sleep
from typing import Any

import tidelog
from benchmarks.child import Child, obey
from benchmarks.harness import Context, Figure

HANDLING_US = 50


class Member:
    """A consumer on a thread of its own, which notes when it was last given or lost a partition."""

    def __init__(self, log: tidelog.Log, channel: str, group: str) -> None:
        """Joins at once, from the thread."""
        self.changed_ns = 0
        self.held = 0
        self.stopping = False
        self.topic: Any = log[channel]
        self.group = group
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _note(self, sign: int, assigned: list[Any]) -> None:
        self.held += sign * len(assigned)
        self.changed_ns = monotonic_ns()

    def _run(self) -> None:
        with self.topic.consumer(
            group=self.group,
            on_assign=lambda assigned: self._note(1, assigned),
            on_revoke=lambda assigned: self._note(-1, assigned),
        ) as consumer:
            while not self.stopping:
                consumer.receive_many(100, timeout=0.5)

    def stop(self) -> None:
        """Leaves."""
        self.stopping = True
        self.thread.join()


class Worker:
    """The child's side: one member at a time."""

    def __init__(self, folder: Path) -> None:
        """Opens the log."""
        self.log = tidelog.open(folder / "bench.log")
        self.member: Member | None = None

    def join(self, partitions: int, turn: int) -> int:
        """Comes to the group of this turn; answers when it began, in monotonic nanoseconds."""
        began = monotonic_ns()
        self.member = Member(self.log, f"of-{partitions}", f"turn-{turn}")
        return began

    def changed(self) -> int:
        """When it was last given or lost something, and how much it holds, in one number."""
        assert self.member is not None
        return self.member.changed_ns * 10_000 + self.member.held

    def leave(self) -> int:
        """Leaves the group."""
        assert self.member is not None
        self.member.stop()
        self.member = None
        return 0

    def work(self, count: int, turn: int) -> int:
        """Handles messages until the group is through `count` of them; answers how many it had."""
        handled = 0
        topic: Any = self.log["of-4"]
        with topic.consumer(group=f"work-{turn}") as consumer:
            print("joined", flush=True)
            sys.stdin.readline()
            while batch := consumer.receive_many(50, timeout=1.0):
                for _ in batch:
                    until = perf_counter_ns() + HANDLING_US * 1000
                    while perf_counter_ns() < until:
                        pass
                handled += len(batch)
        return handled


def held(answer: str) -> tuple[int, int]:
    """(when, how much) of `Worker.changed`."""
    return divmod(int(answer), 10_000)


def settle(children: list[Child], partitions: int) -> int:
    """Waits until every partition is held and nobody has more than its share; answers when the last one changed."""
    least, most = partitions // len(children), -(-partitions // len(children))
    until = monotonic_ns() + 30_000_000_000
    while monotonic_ns() < until:
        answers = [held(child.ask("changed")) for child in children]
        if sum(much for _, much in answers) == partitions and all(least <= much <= most for _, much in answers):
            return max(when for when, _ in answers)
        sleep(0.02)
    raise RuntimeError(f"{len(children)} members did not share {partitions} partitions out within 30 s")


def join_ms(children: list[Child], partitions: int, turn: int) -> float:
    """Milliseconds that the last of the children takes to come to the others' group."""
    *others, last = children
    for child in others:
        child.ask("join", partitions, turn)
    settle(others, partitions)
    sleep(0.2)
    began = int(last.ask("join", partitions, turn))
    elapsed = (settle(children, partitions) - began) / 1e6
    for child in children:
        child.ask("leave")
    return elapsed


def handled_per_second(children: list[Child], topic: tidelog.Topic[bytes], count: int, turn: int) -> float:
    """Messages per second of these children together."""
    topic.trim(2**62)
    for number in range(4):
        topic.send_many([b"x" * 100] * (count // 4), partition=number)
    for child in children:
        child.tell("work", count, turn)
        child.expect("joined")
    start = monotonic_ns()
    for child in children:
        child.tell("go")
    total = sum(int(child.answer()) for child in children)
    elapsed = (monotonic_ns() - start) / 1e9 - 1.0  # the last receive waits a second to see that nothing is left
    if total != count:
        raise RuntimeError(f"{total} messages were handled of {count}")
    return total / elapsed


def run(ctx: Context) -> list[Figure]:
    """Joining, sharing out, and working."""
    with ctx.directory() as folder, tidelog.open(folder / "bench.log") as log, ExitStack() as stack:
        for partitions in (4, 12, 1000):
            log.topic(f"of-{partitions}", partitions=partitions, segment_bytes=1 << 20)
        children = [stack.enter_context(Child("benchmarks.groups", folder)) for _ in range(ctx.size(16, 4))]
        joins = [join_ms(children[:4], 12, turn) for turn in range(ctx.pairs)]
        ctx.say(f"joins: {joins}")
        shares = [join_ms(children, 1000, 1000 + turn) for turn in range(ctx.pairs)]
        ctx.say(f"rebalances: {shares}")
        topic: Any = log["of-4"]
        count = ctx.size(20_000, 400)
        one, two = [], []
        for turn in range(ctx.size(5, 1)):
            one.append(handled_per_second(children[:1], topic, count, 2 * turn))
            two.append(handled_per_second(children[:2], topic, count, 2 * turn + 1))
    return [
        Figure(
            name="group_join",
            title="joining an idle group of 3",
            unit="ms",
            measured=joins,
            reach=20.0,
            judged="value",
            place="disk",
        ),
        Figure(
            name="group_rebalance",
            title="rebalance of 1,000 partitions when a 16th member comes",
            unit="ms",
            measured=shares,
            reach=50.0,
            judged="value",
            place="disk",
        ),
        Figure(
            name="group_two",
            title="two consumer processes, 50 us of computing a message",
            unit="messages/s",
            measured=two,
            against="one process",
            baseline=one,
            sign=">=",
            reach=1.7,
            place="disk",
            table=True,
        ),
    ]


def main() -> None:
    """The child."""
    worker = Worker(Path(sys.argv[1]))
    obey({"join": worker.join, "changed": worker.changed, "leave": worker.leave, "work": worker.work})
    worker.log.close()


if __name__ == "__main__":
    main()
