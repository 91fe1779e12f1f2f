"""The allowance of a key."""

from __future__ import annotations

import pytest

from analytics_collector.ingest.limit import RateLimiter


def test_a_key_may_spend_its_minute_at_once_and_no_more():
    """After a pause a burst is welcome, as long as the limit is kept."""
    limiter = RateLimiter(60)

    passed = [limiter.take(1, now=0.0).retry_after_s == 0 for _ in range(61)]

    assert passed == [True] * 60 + [False]


@pytest.mark.parametrize("limit", [1, 7, 60, 1000, 120_000])
def test_who_waits_as_long_as_told_may_pass(limit):
    """Retry-After is no guess: the very next request is taken."""
    limiter = RateLimiter(limit)
    while not (refused := limiter.take(1, now=100.0)).retry_after_s:
        pass

    assert refused.retry_after_s >= 1
    assert limiter.take(1, now=100.0 + refused.retry_after_s).retry_after_s == 0


def test_who_comes_too_early_is_not_punished():
    """A refused request takes nothing, so trying again does not push the moment away."""
    limiter = RateLimiter(60)
    for _ in range(60):
        limiter.take(1, now=0.0)

    for tenth in range(10):
        assert limiter.take(1, now=tenth / 10).retry_after_s == 1
    assert limiter.take(1, now=1.0).retry_after_s == 0


def test_one_key_does_not_spend_what_is_anothers():
    """A flood with one key leaves the others as they were."""
    limiter = RateLimiter(2)
    for _ in range(100):
        limiter.take(1, now=0.0)

    assert limiter.take(2, now=0.0).remaining == 1


def test_the_allowance_says_what_is_left_and_when_it_is_whole_again():
    """A client can read from each answer how fast it may go on."""
    limiter = RateLimiter(60)

    first = limiter.take(1, now=0.0)
    second = limiter.take(1, now=0.0)
    later = limiter.take(1, now=600.0)

    assert (first.limit, first.remaining, first.reset_s) == (60, 59, 1)
    assert (second.remaining, second.reset_s) == (58, 2)
    assert (later.remaining, later.reset_s) == (59, 1)  # never more than the limit
