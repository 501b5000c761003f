"""Does the order of handing out keep to the keys, and does nothing that is unfinished get committed?

The lanes are held against a plain list: hypothesis chooses what comes in, what finishes, what fails and when.
"""

from __future__ import annotations

from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tidelog.app.lanes import Lane, Lanes


class Fake:
    """As much of a message as lanes look at."""

    def __init__(self, partition: int, offset: int, key: bytes | None) -> None:
        self.partition = partition
        self.offset = offset
        self.key = key

    def __repr__(self) -> str:
        return f"{self.partition}@{self.offset}:{self.key!r}"


KEYS = [None, b"a", b"b", b"c"]


class LanesAgainstLists(RuleBasedStateMachine):
    """Two partitions, offsets with gaps, a clock that is turned."""

    @initialize()
    def begin(self) -> None:
        self.lanes = Lanes()
        self.now = 0.0
        self.came: dict[int, list[Fake]] = {0: [], 1: []}
        self.finished: set[tuple[int, int]] = set()
        self.out: list[Lane] = []
        self.told: dict[int, int] = {}
        self.due: dict[tuple[int, int], float] = {}

    @rule(partition=st.integers(0, 1), gap=st.integers(1, 3), key=st.sampled_from(KEYS))
    def put(self, partition: int, gap: int, key: bytes | None) -> None:
        known = self.came[partition]
        fake = Fake(partition, (known[-1].offset if known else 0) + gap, key)
        known.append(fake)
        self.lanes.put(cast("Any", fake), fake, 10)

    def free(self) -> list[Fake]:
        """What the rule of order allows to be out now."""
        out = {(lane.message.partition, lane.message.offset) for lane in self.out}
        blocked: set[tuple[int, bytes]] = set()
        found = []
        for partition, known in self.came.items():
            for fake in known:
                place = (partition, fake.offset)
                if place in self.finished:
                    continue
                name = None if fake.key is None else (partition, fake.key)
                if name is not None and name in blocked:
                    continue
                if name is not None:
                    blocked.add(name)
                if place not in out and self.due.get(place, 0.0) <= self.now:
                    found.append(fake)
        return found

    @rule()
    def take(self) -> None:
        allowed = self.free()
        lane = self.lanes.take(self.now)
        if lane is None:
            assert not allowed, f"{allowed} could have gone"
        else:
            assert lane.message in allowed
            self.out.append(lane)

    @precondition(lambda self: self.out)
    @rule(data=st.data(), how=st.sampled_from(["done", "again", "back"]), wait=st.integers(0, 5))
    def settle(self, data: st.DataObject, how: str, wait: int) -> None:
        lane = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        place = (lane.message.partition, lane.message.offset)
        if how == "done":
            self.lanes.done(lane)
            self.finished.add(place)
        elif how == "again":
            self.lanes.again(lane, self.now + wait)
            self.due[place] = self.now + wait
        else:
            self.lanes.back(lane)

    @rule(seconds=st.integers(1, 4))
    def turn(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def marks(self) -> None:
        for partition, offset in self.lanes.marks():
            assert offset > self.told.get(partition, -1)
            self.told[partition] = offset
            for fake in self.came[partition]:
                assert ((partition, fake.offset) in self.finished) or fake.offset >= offset
        for partition, known in self.came.items():
            prefix = -1
            for fake in known:
                if (partition, fake.offset) not in self.finished:
                    break
                prefix = fake.offset + 1
            assert self.told.get(partition, -1) == prefix

    @rule(
        partition=st.integers(0, 1),
        work_off=st.booleans(),
        patience=st.integers(-1, 6),
        fails=st.lists(st.integers(0, 8), max_size=3),
    )
    def lose(self, partition: int, work_off: bool, patience: int, fails: list[int]) -> None:
        """The partition goes: what stands before a finished message is worked off, as far as no retry takes too long;
        then the rest is forgotten. `fails`: the waits of retries that are due while it is worked off."""
        until = self.now + patience
        out = {lane.message.offset for lane in self.out if lane.partition == partition}
        self.lanes.cut([partition], until)
        last = self.left(partition, out, until)
        if work_off:
            for lane in [lane for lane in self.out if lane.partition == partition]:
                self.out.remove(lane)
                self.finished.add((partition, lane.message.offset))
                self.lanes.done(lane)
            back = []
            while self.lanes.pending([partition]):
                lane = self.lanes.take(self.now)
                if lane is None:
                    due = self.lanes.next_due()
                    assert due is not None and self.now < due <= until, "what is pending can be taken in time"
                    self.now = due
                elif lane.partition != partition:
                    back.append(lane)
                elif fails:
                    wait = fails.pop()
                    place = (partition, lane.message.offset)
                    self.lanes.again(lane, self.now + wait)
                    self.due[place] = self.now + wait
                    last = self.left(partition, set(), until)
                else:
                    self.finished.add((partition, lane.message.offset))
                    self.lanes.done(lane)
            for lane in reversed(back):
                self.lanes.back(lane)
            ends = [fake.offset for fake in self.came[partition] if fake.offset <= last]
            self.marks()
            assert self.told.get(partition, -1) >= (ends[-1] + 1 if ends else -1), "everything that is finished is told"
        else:
            self.lanes.drop([partition])
            for lane in [lane for lane in self.out if lane.partition == partition]:
                self.out.remove(lane)
                self.finished.add((partition, lane.message.offset))
                self.lanes.done(lane)
        assert not self.lanes.out([partition]) and not self.lanes.pending([partition])
        self.marks()
        self.lanes.drop([partition])
        self.lanes.forget([partition])
        # The next owner hands out from the mark on; here it is us again, with new offsets.
        self.came[partition] = []
        self.finished = {place for place in self.finished if place[0] != partition}
        self.due = {place: due for place, due in self.due.items() if place[0] != partition}
        self.told.pop(partition, None)

    def left(self, partition: int, out: set[int], until: float) -> int:
        """What the lanes have left of a partition that goes is what has to be done; up to which offset that is."""
        finished = {offset for number, offset in self.finished if number == partition}
        unfinished = [fake.offset for fake in self.came[partition] if fake.offset not in finished]
        late = [offset for offset in unfinished if offset not in out and self.due.get((partition, offset), 0.0) > until]
        end = min(late, default=1 << 60)
        last = max((offset for offset in finished | out if offset < end), default=-1)
        found = [
            item[0].offset for lane in self.lanes._lanes.values() if lane.partition == partition for item in lane.items
        ]
        assert sorted(found) == [offset for offset in unfinished if offset <= last or offset in out]
        return last

    @invariant()
    def counts(self) -> None:
        open_ = {
            partition: [fake for fake in known if (partition, fake.offset) not in self.finished]
            for partition, known in self.came.items()
        }
        assert len(self.lanes) == sum(map(len, open_.values()))
        assert bool(self.lanes) == any(open_.values())
        assert self.lanes.running == len(self.out)
        for partition, known in self.came.items():
            first = open_[partition][0].offset if open_[partition] else None
            span = [] if first is None else [fake for fake in known if fake.offset >= first]
            assert self.lanes.span(partition) == (len(span), 10 * len(span))


TestLanesAgainstLists = LanesAgainstLists.TestCase
TestLanesAgainstLists.settings = settings(max_examples=60, stateful_step_count=60)


@given(st.lists(st.sampled_from(KEYS), max_size=40))
def test_without_failures_the_order_is_that_of_the_log(keys: list[bytes | None]) -> None:
    lanes = Lanes()
    fakes = [Fake(0, offset, key) for offset, key in enumerate(keys)]
    for fake in fakes:
        lanes.put(cast("Any", fake), fake)
    seen = []
    while (lane := lanes.take(0.0)) is not None:
        seen.append(lane.call()[1])
        lanes.done(lane)
    by_key = {key: [fake for fake in seen if fake.key == key] for key in set(keys)}
    assert sorted(seen, key=lambda fake: fake.offset) == fakes
    for key, mine in by_key.items():
        assert key is None or mine == [fake for fake in fakes if fake.key == key]


def test_what_is_out_of_a_lost_partition_can_still_be_finished() -> None:
    lanes = Lanes()
    for offset in range(3):
        lanes.put(cast("Any", Fake(0, offset, b"a")), None)
    lane = lanes.take(0.0)
    assert lane is not None
    lanes.drop([0])
    assert lanes.out([0]) and len(lanes) == 1
    lanes.done(lane)
    assert lanes.marks() == [(0, 1)] and not lanes.out([0]) and not lanes
    lanes.forget([0])
    lanes.put(cast("Any", Fake(0, 7, b"a")), None)
    again = lanes.take(0.0)
    assert again is not None and again.message.offset == 7
    lanes.forget([0])
    lanes.done(again)  # finished after its partition was forgotten: nobody is told
    assert lanes.marks() == []
