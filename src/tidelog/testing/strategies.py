"""Which messages, and which orders of events, should a property-based test try?

Floor 8: may import log, testing.recorder, testing.recording, testing.history, testing.typed and hypothesis. Thread
rule: Hypothesis runs a test in one thread.

    from hypothesis import given
    from tidelog.testing import check, strategies as tst

    @given(tst.interleavings(producers=2, consumers=3, kills=1))
    def test_semantics(run):
        check(run.history)

An interleaving is a list of steps of producers and of consumers of one group, in one thread: sends, receives, commits,
closes, handlers that fail, and consumers that die. It is played in a log in memory when its history is asked for. Give
`play` a log and a channel of your own to try them there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from hypothesis import strategies as st

from tidelog.channel import Queue
from tidelog.consumer import Delivery
from tidelog.log import open as open_log
from tidelog.testing.history import History
from tidelog.testing.recorder import Recorder
from tidelog.testing.recording import Receiving, Sending, read_to_the_end
from tidelog.testing.typed import of_type

__all__ = ["Interleaving", "Step", "headers", "interleavings", "keys", "messages", "of_type", "values"]


def keys(*, none: bool = True) -> st.SearchStrategy[Any]:
    """Keys: few that come often and many that are rare, of every type that is taken. `none`: no key too."""
    some = st.one_of(
        st.sampled_from(["tea", "oil", b"tea", b"", 0, 7]),
        st.integers(-(1 << 63), (1 << 63) - 1),
        st.text(max_size=12),
        st.binary(max_size=12),
    )
    return st.one_of(st.none(), some) if none else some


def values(max_bytes: int = 2000) -> st.SearchStrategy[bytes]:
    """Values as bytes: empty, short, and as long as `max_bytes`."""
    return st.one_of(
        st.binary(max_size=min(40, max_bytes)),
        st.integers(0, max_bytes).map(lambda length: b"\0" * length),
        st.builds(lambda seed, length: seed * length, st.binary(min_size=1, max_size=1), st.integers(1, max_bytes)),
    )


def headers() -> st.SearchStrategy[list[tuple[str, bytes]]]:
    """Headers as pairs: none, several, and names that come twice."""
    names = st.one_of(st.sampled_from(["src", "n", "trace"]), st.text(min_size=1, max_size=8))
    return st.lists(st.tuples(names, st.binary(max_size=12)), max_size=4)


def messages(value: st.SearchStrategy[Any] | None = None) -> st.SearchStrategy[dict[str, Any]]:
    """Keywords of `send`: value (bytes, unless a strategy is given), key, headers."""
    return st.fixed_dictionaries({"value": values() if value is None else value, "key": keys(), "headers": headers()})


class Step(NamedTuple):
    """One step: who does what, and how often or with which key."""

    what: str
    """send, receive, commit, close, fail, kill"""
    who: int
    many: int = 1
    key: int | None = None


@dataclass(frozen=True)
class Interleaving:
    """Steps in an order, and for whom."""

    steps: tuple[Step, ...]
    producers: int
    consumers: int
    partitions: int
    delivery: Delivery

    @cached_property
    def history(self) -> History:
        """What happens when the steps are played in a log in memory."""
        with open_log("memory:") as log:
            return self.play(log.queue("interleaved", partitions=self.partitions))

    def play(self, queue: Queue[bytes], step: Callable[[Step], None] | None = None) -> History:
        """Plays the steps on an empty queue, then receives what is left and reads everything. `step` is called before
        each one. Answers the history."""
        recorder = Recorder(process="")
        senders = [Sending(recorder, queue, name=f"p{number}") for number in range(self.producers)]
        receivers: dict[int, Receiving] = {}

        def receiver(number: int) -> Receiving:
            if number not in receivers:
                made = Receiving(recorder, queue.consumer, name=f"c{number}", delivery=self.delivery)
                receivers[number] = made.__enter__()
            return receivers[number]

        try:
            for one in self.steps:
                if step is not None:
                    step(one)
                if one.what == "send":
                    self._send(senders[one.who], one)
                elif one.what == "receive":
                    receiver(one.who).receive_many(one.many, timeout=0)
                elif one.what == "commit" and self.delivery == "manual":
                    receiver(one.who).commit()
                elif one.who in receivers and one.what in ("close", "fail", "kill"):
                    leaving = receivers.pop(one.who)
                    if one.what == "close":
                        leaving.__exit__(None, None, None)
                    else:  # whoever fails or dies commits nothing more
                        leaving.close()
        finally:
            for left in receivers.values():
                left.close()
        with Receiving(recorder, queue.consumer, name="last", delivery=self.delivery, stop="end") as rest:
            while len(rest.receive_many(1000, timeout=0)):
                pass
            if self.delivery == "manual":
                rest.commit()
        read_to_the_end(recorder, queue)
        return recorder.history()

    def _send(self, sender: Sending, one: Step) -> None:
        key = None if one.key is None else b"%d" % one.key
        if one.many == 1:
            sender.send(b"x", key=key)
        else:
            sender.send_many([b"x"] * one.many, keys=None if key is None else [key] * one.many)


@st.composite
def interleavings(
    draw: st.DrawFn,
    *,
    producers: int = 2,
    consumers: int = 2,
    kills: int = 1,
    partitions: int = 3,
    delivery: Delivery = "at-least-once",
    most_steps: int = 30,
) -> Interleaving:
    """Interleavings of so many producers and consumers of one group, with at most `kills` deaths."""
    who = st.integers(0, max(consumers - 1, 0))
    sends = st.builds(
        Step,
        st.just("send"),
        st.integers(0, producers - 1),
        st.integers(1, 5),
        st.none() | st.integers(0, 4),
    )
    choices: list[st.SearchStrategy[Step]] = [sends]
    if consumers:
        receives = st.builds(Step, st.just("receive"), who, st.integers(1, 8))
        choices += [receives, receives, st.builds(Step, st.sampled_from(["close", "fail"]), who)]
        if delivery == "manual":
            choices.append(st.builds(Step, st.just("commit"), who))
    steps: list[Step] = draw(st.lists(st.one_of(choices), max_size=most_steps))
    if consumers:
        for _ in range(draw(st.integers(0, kills))):
            steps.insert(draw(st.integers(0, len(steps))), Step("kill", draw(who)))
    return Interleaving(tuple(steps), producers, consumers, partitions, delivery)
