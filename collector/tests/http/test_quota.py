"""What a project may store in a month, over a real socket."""

from __future__ import annotations

import json
from uuid import uuid4


def event(name: str = "e", **members):
    return {"type": "track", "name": name, "messageId": str(uuid4()), **members}


def settle(site, project: str = "mine", **limits: int) -> None:
    """Let the project have these limits; a new key is looked up with them at once."""
    site.sql(
        "update projects set settings = $1::jsonb where name = $2",
        json.dumps({"limits": limits}),
        project,
    )


def statuses(answers) -> list[int]:
    return [answer.status_code for answer in answers]


def test_a_project_that_used_up_its_month_is_told_so(new_site):
    """402 without Retry-After: it is not for the client to try again soon (ANS-17)."""
    site = new_site()
    settle(site, monthlyEvents=5)
    key = site.new_key(["ingest"])
    repeated = event()

    passed = [site.post(repeated, key=key) for _ in range(8)]  # stored once
    passed += [site.post(event(), key=key) for _ in range(4)]
    answer = site.post(event("late"), key=key)

    assert statuses(passed) == [202] * 12
    assert (answer.status_code, answer.json()["code"]) == (402, "QUOTA_EXCEEDED")
    assert "retry-after" not in answer.headers
    assert "x-ratelimit-limit" in answer.headers
    assert "late" not in site.names()


def test_the_quota_is_written_down_and_holds_after_a_restart(new_site, eventually):
    """What was stored counts for every process, at its first request already."""
    site = new_site(monthly_events=5)
    site.post(*[event() for _ in range(7)])

    eventually(lambda: site.sql("select 1 from monthly_usage where event_count = 7"))
    second = site.beside(monthly_events=5)

    assert site.post(event(), port=second).status_code == 402


def test_another_process_hears_of_it(new_site, eventually):
    """Two servers share one quota, give or take a second."""
    site = new_site(monthly_events=5)
    second = site.beside(monthly_events=5)
    assert site.post(event(), port=second).status_code == 202

    site.post(*[event() for _ in range(6)])

    eventually(lambda: site.post(event(), port=second).status_code == 402)


def test_without_redis_the_quota_holds_all_the_same(new_site, eventually):
    """Redis is only the quicker way to know (RD-05)."""
    site = new_site(monthly_events=5, redis_url="unix:///nowhere/at.all")

    site.post(*[event() for _ in range(6)])

    eventually(lambda: site.post(event()).status_code == 402)
