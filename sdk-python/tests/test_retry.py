import json
from datetime import datetime, timezone
from pathlib import Path

import pytest

from analytics_sdk import retry

VECTORS = json.loads(
    (Path(__file__).parents[2] / "spec/vectors/delivery.json").read_text(encoding="utf-8")
)


def decision_for(given):
    now = datetime.fromisoformat(given.get("now", "2026-11-20T10:00:00Z").replace("Z", "+00:00"))
    return retry.decide(
        retry.Answer(given["status"], given.get("body", "").encode(), given.get("retryAfter")),
        events=given["events"],
        attempt=given["attempt"],
        jitter=given["jitter"],
        now=now,
    )


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["name"])
def test_spec_vector(case):
    """The decision is the one that the spec's vector asks for."""
    decision = decision_for(case["given"])

    match case["expect"]:
        case {"action": "deliver", "duplicates": duplicates, "rejected": rejected}:
            verdicts = tuple(retry.Verdict(**verdict) for verdict in rejected)
            assert decision == retry.Delivered(duplicates, verdicts)
        case {"action": "reject", "rejected": rejected}:
            assert decision == retry.Reject(tuple(retry.Verdict(**entry) for entry in rejected))
        case {"action": "split", "reason": reason}:
            assert decision == retry.Split(reason)
        case {"action": "again", "reason": reason, "delayS": delay_s, "floorS": floor_s}:
            assert decision == retry.Again(reason, delay_s, floor_s)
        case _:
            pytest.fail("the vector expects an action that nobody knows")


def test_every_reason_has_words():
    """Whatever keeps events waiting can be told to the user."""
    reasons = {case["expect"].get("reason") for case in VECTORS["cases"]} - {None}

    assert reasons == set(retry.MESSAGES)


def test_a_date_without_a_zone_is_utc():
    """RFC 9110 dates are GMT; one that leaves it out is not taken for local time."""
    now = datetime(2026, 11, 20, 10, tzinfo=timezone.utc)

    assert retry.retry_after_s("Fri, 20 Nov 2026 10:00:05 -0000", now) == 5


@pytest.mark.parametrize("body", [b"\xff", b"[" * 5000, b'{"a":' * 5000, b"\x00", b"null"])
def test_no_answer_of_the_collector_raises(body):
    """A hostile answer is a malformed one."""
    answer = retry.Answer(202, body)

    assert isinstance(
        retry.decide(answer, events=1, attempt=1, now=datetime.now(timezone.utc)), retry.Again
    )
