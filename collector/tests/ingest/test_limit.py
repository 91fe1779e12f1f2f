"""What a key, a project, a user and an address may send, as one process alone sees it."""

from __future__ import annotations

import asyncio
import tracemalloc
from dataclasses import dataclass

import pytest

from analytics_collector.errors import Refusal
from analytics_collector.ingest.buckets import BucketMap
from analytics_collector.ingest.limit import MAX_BUCKETS, DefaultLimits, RateLimiter
from analytics_collector.model import ApiKey
from analytics_collector.project_settings import Limits, ProjectSettings


@dataclass
class Clock:
    """Time that passes when a test says so."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Sender:
    """A limiter and those who send; no Redis, so every bucket is its own."""

    clock: Clock
    limiter: RateLimiter

    def request(self, key_id=1, project_id=1, **limits):
        key = ApiKey(key_id, project_id, frozenset(), None, None, ProjectSettings(Limits(**limits)))
        return asyncio.run(self.limiter.admit(key))

    def events(self, *users, project_id=1, **limits):
        """Send an event of each user; return None, or the refusal."""
        key = ApiKey(1, project_id, frozenset(), None, None, ProjectSettings(Limits(**limits)))
        try:
            asyncio.run(self.limiter.admit_events(key, [Row(user) for user in users]))
        except Refusal as exc:
            return exc
        return None


@dataclass
class Row:
    """What a limiter looks at in an event."""

    user_id: str | None
    anonymous_id: str | None = None


def new_sender(requests=60, requests_per_project=None, **defaults):
    clock = Clock()
    limits = DefaultLimits(requests, requests_per_project, **defaults)
    return Sender(clock, RateLimiter(defaults=limits, clock=clock))


# Requests


def test_a_key_may_spend_its_minute_at_once_and_no_more():
    """After a pause a burst is welcome, as long as the limit is kept."""
    sender = new_sender(60)

    passed = [sender.request().retry_after_s == 0 for _ in range(61)]

    assert passed == [True] * 60 + [False]


@pytest.mark.parametrize("limit", [1, 7, 60, 1000])
def test_who_waits_as_long_as_told_may_pass(limit):
    """Retry-After is no guess: the very next request is taken."""
    sender = new_sender(limit)
    while not (refused := sender.request()).retry_after_s:
        pass

    sender.clock.now += refused.retry_after_s

    assert refused.retry_after_s >= 1
    assert sender.request().retry_after_s == 0


def test_who_comes_too_early_is_not_punished():
    """A refused request takes nothing, so trying again does not push the moment away."""
    sender = new_sender(60)
    for _ in range(60):
        sender.request()

    for _ in range(9):
        sender.clock.now += 0.1
        assert sender.request().retry_after_s == 1
    sender.clock.now += 0.1
    assert sender.request().retry_after_s == 0


def test_one_key_does_not_spend_what_is_anothers():
    """A flood with one key leaves the others as they were."""
    sender = new_sender(2)
    for _ in range(100):
        sender.request(key_id=1)

    assert sender.request(key_id=2).remaining == 1


def test_the_allowance_says_what_is_left_and_when_it_is_whole_again():
    """A client can read from each answer how fast it may go on."""
    sender = new_sender(60)

    first = sender.request()
    second = sender.request()
    sender.clock.now += 600
    later = sender.request()

    assert (first.limit, first.remaining, first.reset_s) == (60, 59, 1)
    assert (second.remaining, second.reset_s) == (58, 2)
    assert (later.remaining, later.reset_s) == (59, 1)  # never more than the limit


def test_a_project_may_have_limits_of_its_own():
    """What a project sets wins over the environment, from the next request on."""
    sender = new_sender(60)

    assert sender.request().limit == 60
    assert sender.request(requests_per_minute_per_key=5).limit == 5
    assert sender.request(requests_per_minute_per_key=5).remaining == 3


def test_many_keys_of_a_project_share_its_requests():
    """Where a project has a limit of requests; then more keys are no way to more of them."""
    sender = new_sender(requests_per_project=3)
    for key_id in range(3):
        assert sender.request(key_id).retry_after_s == 0

    refused = sender.request(key_id=4)

    assert (refused.limit, refused.remaining, refused.retry_after_s) == (3, 0, 20)
    assert sender.request(key_id=5, project_id=2).retry_after_s == 0
    assert sender.request(key_id=4, requests_per_minute=1000).retry_after_s == 1


def test_a_project_has_no_limit_of_requests_unless_it_is_given_one():
    """Only its keys have, so that an installation that is upgraded takes what it took."""
    sender = new_sender(2)

    assert all(sender.request(key_id).retry_after_s == 0 for key_id in range(100))


def test_a_request_that_the_project_may_not_send_takes_nothing_of_its_key():
    """And the other way round: whichever limit refuses, both are as they were."""
    sender = new_sender(requests=3)
    limit = {"requests_per_minute": 4}
    of_project = [sender.request(key_id, **limit) for key_id in (1, 1, 2, 2)]
    for _ in range(9):
        assert sender.request(key_id=1, **limit).limit == 4  # the project's

    assert [allowance.remaining for allowance in of_project] == [2, 1, 2, 1]
    assert sender.request(key_id=1).retry_after_s == 0
    for _ in range(9):
        assert sender.request(key_id=1, requests_per_minute=6).limit == 3  # the key's
    assert sender.request(key_id=2).retry_after_s == 0


# Events


def test_events_are_counted_not_batches():
    """The limit of a project holds however its events are packed."""
    sender = new_sender(events=10)

    assert sender.events(*["u"] * 6) is None
    assert sender.events(*["u"] * 4) is None
    assert sender.events("u").code == "RATE_LIMITED"


def test_a_batch_for_which_there_is_no_room_is_refused_as_a_whole():
    """429, when it fits after all, and none of its events counts until then."""
    sender = new_sender(events=60)
    sender.events(*["u"] * 50)

    refusal = sender.events(*["u"] * 20)
    smaller = sender.events(*["u"] * 10)

    assert refusal.code == "RATE_LIMITED"
    assert refusal.headers == {
        "X-RateLimit-Limit": "60",
        "X-RateLimit-Remaining": "10",
        "X-RateLimit-Reset": "50",
        "Retry-After": "10",
    }
    assert smaller is None


def test_a_batch_that_can_never_pass_is_told_to_come_in_parts():
    """Waiting would not help where the limit itself is smaller, so it is not a 429."""
    sender = new_sender(events=60)

    refusal = sender.events(*["u"] * 61)

    assert refusal.code == "BATCH_TOO_LARGE"
    assert "60 events a minute" in refusal.message
    assert sender.events(*["u"] * 60) is None


def test_many_keys_of_a_project_share_its_events():
    """To make more keys is no way round the limit."""
    sender = new_sender(events=10)
    for _ in range(10):
        sender.events("u")

    assert sender.events("u").code == "RATE_LIMITED"
    assert sender.events("u", project_id=2) is None


def test_a_user_has_a_limit_where_there_is_one():
    """Counted is `userId`, else `anonymousId`; events of nobody have none."""
    sender = new_sender()
    for _ in range(3):
        sender.events("eve", events_per_minute_per_user=3)

    refusal = sender.events("eve", events_per_minute_per_user=3)

    assert refusal.code == "RATE_LIMITED"
    assert "this user" in refusal.message
    assert sender.events("adam", None, None, None, None, events_per_minute_per_user=3) is None
    assert sender.events("eve") is None  # a project without such a limit


def test_nothing_is_taken_from_the_others_when_one_user_is_over_the_limit():
    """All or nothing: a refused batch takes neither from the project nor from other users."""
    sender = new_sender(events=10)
    limit = {"events_per_minute_per_user": 3}
    sender.events("eve", "eve", "eve", **limit)

    refused = [sender.events("eve", "adam", **limit) for _ in range(10)]

    assert {refusal.code for refusal in refused} == {"RATE_LIMITED"}
    assert sender.events("adam", "adam", "adam", **limit) is None


# Memory


def test_ever_new_users_leave_memory_bounded():
    """Who invents a user, a key or an address for each request does not fill the process."""
    buckets = BucketMap(MAX_BUCKETS, str)
    tracemalloc.start()
    try:
        for number in range(2 * MAX_BUCKETS):
            buckets.get(number, 60, 0.0)
        held_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    for number in range(3 * MAX_BUCKETS):
        buckets.get(-number, 60, 0.0)

    assert len(buckets) <= 2 * MAX_BUCKETS
    assert held_bytes < 30_000_000


def test_who_keeps_sending_is_not_forgotten_among_many_others():
    """Strangers push out strangers, not the one who is being counted."""
    buckets = BucketMap(100, str)
    mine = buckets.get("mine", 60, 0.0)
    for number in range(10_000):
        buckets.get(number, 60, 0.0)
        if number % 50 == 0:
            assert buckets.get("mine", 60, 0.0) is mine
