"""Does every strategy give each partition to one subscriber, evenly, and does sticky move as few as possible?

The oracles here try every assignment there is, so they share nothing with the code but the question.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidelog.groups.assignment import STRATEGIES, Member, Part, assign


def members_of(*channels: Sequence[int], names: Sequence[str | None] = ()) -> list[Member]:
    given = list(names) or [None] * len(channels)
    return [
        Member(index + 10, name, frozenset(wanted))
        for index, (wanted, name) in enumerate(zip(channels, given, strict=True))
    ]


def parts_of(**counts: int) -> list[Part]:
    """parts_of(t0=2, t1=1): partitions of channel 0, then of channel 1."""
    return [(int(name[1:]), number) for name, count in sorted(counts.items()) for number in range(count)]


def every_assignment(members: Sequence[Member], partitions: Sequence[Part]) -> Iterator[dict[Part, int]]:
    """All there are."""
    served = [part for part in partitions if any(part[0] in member.channels for member in members)]
    choices = [[member.index for member in members if part[0] in member.channels] for part in served]
    for chosen in itertools.product(*choices):
        yield dict(zip(served, chosen, strict=True))


def unevenness(members: Sequence[Member], found: Mapping[Part, int]) -> int:
    """Sum of squares of the counts: smallest exactly when the counts are as even as they can be."""
    counts = Counter(found.values())
    return sum(counts[member.index] ** 2 for member in members)


def moved(previous: Mapping[Part, int], found: Mapping[Part, int]) -> int:
    return sum(previous.get(part) != index for part, index in found.items())


@st.composite
def groups(draw: st.DrawFn, *, equal: bool) -> tuple[list[Member], list[Part], dict[Part, int]]:
    """Members, partitions and any previous assignment, members that left and nonsense included; few enough to try all
    assignments."""
    channels = draw(st.integers(1, 3))
    count = draw(st.integers(1, 4))
    subscriptions = st.frozensets(st.integers(0, channels - 1), min_size=1)
    if equal:
        one = draw(subscriptions)
        wanted = [one] * count
    else:
        wanted = [draw(subscriptions) for _ in range(count)]
    names = [draw(st.none() | st.sampled_from("abc")) for _ in range(count)]
    indexes = draw(st.permutations(range(10, 10 + count)))
    members = [Member(*row) for row in zip(indexes, names, wanted, strict=True)]
    partitions = [
        (channel, number)
        for channel in range(channels)
        for number in range(draw(st.integers(0, 4 if channels == 1 else 3)))
    ][:6]
    previous = {}
    for part in partitions:
        had = draw(st.none() | st.integers(9, 10 + count))
        if had is not None:
            previous[part] = had
    return members, partitions, previous


@pytest.mark.parametrize("strategy", STRATEGIES)
@given(group=groups(equal=False))
def test_each_partition_goes_to_one_subscriber(
    strategy: str, group: tuple[list[Member], list[Part], dict[Part, int]]
) -> None:
    members, partitions, previous = group
    found = assign(strategy, members, partitions, previous)
    channels = {member.index: member.channels for member in members}
    assert set(found) == {part for part in partitions if any(part[0] in wanted for wanted in channels.values())}
    assert all(part[0] in channels[index] for part, index in found.items())
    assert found == assign(strategy, members, partitions, previous), "pure"


@given(group=groups(equal=True))
def test_sticky_moves_the_fewest_that_even_counts_allow(
    group: tuple[list[Member], list[Part], dict[Part, int]],
) -> None:
    members, partitions, previous = group
    found = assign("sticky", members, partitions, previous)
    counts = Counter({member.index: 0 for member in members})
    counts.update(found.values())
    assert max(counts.values()) - min(counts.values()) <= 1
    fewest = min(
        moved(previous, other)
        for other in every_assignment(members, partitions)
        if unevenness(members, other) == unevenness(members, found)
    )
    assert moved(previous, found) == fewest
    assert assign("sticky", members, partitions, found) == found, "what is even stays"


@given(group=groups(equal=False))
def test_sticky_is_as_even_as_subscriptions_permit(group: tuple[list[Member], list[Part], dict[Part, int]]) -> None:
    members, partitions, previous = group
    found = assign("sticky", members, partitions, previous)
    assert unevenness(members, found) == min(unevenness(members, o) for o in every_assignment(members, partitions))
    for one, other in itertools.combinations(members, 2):
        if one.channels == other.channels:
            counts = Counter(found.values())
            assert abs(counts[one.index] - counts[other.index]) <= 1
    assert assign("sticky", members, partitions, found) == found, "what is even stays"


def test_sticky_through_a_long_life() -> None:
    """Members come and go; at each step no more moves than the change makes necessary."""
    random.seed(8)
    partitions = parts_of(t0=37, t1=64, t2=1)
    members = members_of([0, 1, 2])
    previous: dict[Part, int] = {}
    serial = 100
    for _ in range(300):
        if len(members) > 1 and random.random() < 0.5:
            members.pop(random.randrange(len(members)))
        else:
            members.append(Member(serial, None, frozenset([0, 1, 2])))
            serial += 1
        found = assign("sticky", members, partitions, previous)
        kept = Counter(previous.get(part) for part in partitions)
        each, extra = divmod(len(partitions), len(members))
        over = sorted((kept[member.index] for member in members), reverse=True)
        must = sum(max(0, count - each - (place < extra)) for place, count in enumerate(over))
        must += sum(previous.get(part) not in {member.index for member in members} for part in partitions)
        assert moved(previous, found) == must
        previous = found


# --- Kafka's two ---


def test_range_is_kafkas() -> None:
    """The examples of the documentation of Kafka's RangeAssignor."""
    both = members_of([0, 1], [0, 1])
    assert assign("range", both, parts_of(t0=3, t1=3), {}) == {
        (0, 0): 10,
        (0, 1): 10,
        (0, 2): 11,
        (1, 0): 10,
        (1, 1): 10,
        (1, 2): 11,
    }
    assert Counter(assign("range", members_of([0], [0], [0], [0]), parts_of(t0=2), {}).values()) == {10: 1, 11: 1}
    ten = assign("range", members_of([0], [0], [0]), parts_of(t0=10), {})
    assert [ten[0, number] for number in range(10)] == [10] * 4 + [11] * 3 + [12] * 3


def test_round_robin_is_kafkas() -> None:
    """The examples of the documentation of Kafka's RoundRobinAssignor."""
    both = members_of([0, 1], [0, 1])
    assert assign("round-robin", both, parts_of(t0=3, t1=3), {}) == {
        (0, 0): 10,
        (0, 1): 11,
        (0, 2): 10,
        (1, 0): 11,
        (1, 1): 10,
        (1, 2): 11,
    }
    three = members_of([0], [0, 1], [0, 1, 2])
    assert assign("round-robin", three, parts_of(t0=1, t1=2, t2=3), {}) == {
        (0, 0): 10,
        (1, 0): 11,
        (1, 1): 12,
        (2, 0): 12,
        (2, 1): 12,
        (2, 2): 12,
    }


def test_names_come_first_and_by_name() -> None:
    """As Kafka's MemberInfo orders them, so that a named member has the same partitions after everybody restarted."""
    named = members_of([0], [0], [0], names=["b", None, "a"])
    found = assign("range", named, parts_of(t0=3), {})
    assert [found[0, number] for number in range(3)] == [12, 10, 11]
    found = assign("round-robin", named, parts_of(t0=3), {})
    assert [found[0, number] for number in range(3)] == [12, 10, 11]


# --- the rest ---


def test_a_chain_evens_out_what_no_single_move_can() -> None:
    """a has both of channel 0 and may give one to b only, whose partition of channel 1 must go on to c."""
    members = members_of([0], [0, 1], [1])
    previous = {(0, 0): 10, (0, 1): 10, (1, 0): 11}
    found = assign("sticky", members, parts_of(t0=2, t1=1), previous)
    assert sorted(Counter(found.values()).values()) == [1, 1, 1]


def test_nobody_and_nothing() -> None:
    for strategy in STRATEGIES:
        assert assign(strategy, [], parts_of(t0=3), {}) == {}
        assert assign(strategy, members_of([0]), [], {}) == {}
        assert assign(strategy, members_of([1]), parts_of(t0=3), {(0, 0): 10}) == {}
    with pytest.raises(ValueError, match="sticky, range, round-robin"):
        assign("cooperative", members_of([0]), parts_of(t0=3), {})
