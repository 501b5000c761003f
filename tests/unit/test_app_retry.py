"""Are waits between attempts as long as the policy says, and are wrong policies refused?"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidelog.app import Retry
from tidelog.app.retry import retry_of


def test_backoff_grows_by_the_factor_and_stops_at_the_most() -> None:
    retry = Retry(attempts=9, first=0.5, factor=3, most=10, jitter=0)
    assert [retry.delay(attempt) for attempt in range(1, 6)] == [0.5, 1.5, 4.5, 10.0, 10.0]


def test_a_number_counts_the_retries_and_not_the_attempts() -> None:
    assert retry_of(0).attempts == 1
    assert retry_of(3) == Retry(attempts=4)
    policy = Retry(attempts=2)
    assert retry_of(policy) is policy


def test_timedeltas_are_seconds() -> None:
    retry = Retry(first=timedelta(milliseconds=250), most=timedelta(minutes=1))
    assert (retry.first, retry.most) == (0.25, 60.0)


@given(
    attempt=st.integers(1, 100_000),
    first=st.just(0.0) | st.floats(1e-6, 1000),
    factor=st.floats(1, 1000),
    most=st.floats(0, 10_000),
    jitter=st.floats(0, 1),
    chance=st.floats(0, 1),
)
def test_jitter_takes_off_at_most_its_share(
    attempt: int, first: float, factor: float, most: float, jitter: float, chance: float
) -> None:
    retry = Retry(attempts=5, first=first, factor=factor, most=most, jitter=jitter)
    # The oracle multiplies step by step, where the policy computes with powers.
    full = min(first, most)
    for _ in range(min(attempt - 1, 200)):
        full = min(full * factor, most)
        if full >= most:
            break
    if factor > 1.2 or attempt <= 200:  # else the oracle has not got to the end
        assert retry.full_delay(attempt) == pytest.approx(full, rel=1e-9)
    delay = retry.delay(attempt, chance)
    assert 0 <= delay <= most
    assert retry.full_delay(attempt) * (1 - jitter) - 1e-9 <= delay <= retry.full_delay(attempt)


def test_numbers_beyond_all_reason_are_no_errors() -> None:
    retry = Retry(first=5e-324, factor=1e300, most=1e4)
    assert [retry.full_delay(attempt) for attempt in (1, 2, 3, 10**9)] == [5e-324, 5e-324 * 1e300, 1e4, 1e4]
    assert Retry(first=1e-300, factor=10, most=5).full_delay(350) == 5


def test_the_die_is_thrown_anew_each_time_and_stays_in_bounds() -> None:
    retry = Retry(first=10, jitter=0.5)
    seen = {retry.delay(1) for _ in range(200)}
    assert len(seen) > 100
    assert 5 <= min(seen) < 6 and 9 < max(seen) <= 10


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"attempts": 0}, ValueError, "the first try counts too"),
        ({"attempts": 1.5}, TypeError, "give an int"),
        ({"attempts": True}, TypeError, "give an int"),
        ({"first": -1}, ValueError, "0 s or longer"),
        ({"first": float("nan")}, ValueError, "0 s or longer"),
        ({"most": "1m"}, TypeError, "seconds or a timedelta"),
        ({"factor": 0.5}, ValueError, "the least is 1"),
        ({"factor": float("inf")}, ValueError, "the least is 1"),
        ({"factor": "2"}, TypeError, "give a number"),
        ({"jitter": 1.5}, ValueError, "0 to 1"),
        ({"jitter": -0.1}, ValueError, "the least is 0"),
    ],
)
def test_what_is_refused(options: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        Retry(**options)


@pytest.mark.parametrize(
    ("retries", "error"), [(-1, ValueError), (True, TypeError), ("3", TypeError), (None, TypeError)]
)
def test_retries_that_are_refused(retries: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="retries="):
        retry_of(retries)
