"""Limits over a real socket: of events, and of addresses without a valid key."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest

from analytics_collector.ingest.refusals import PER_SECOND
from analytics_collector.keys import generate_key


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


# Requests


def test_many_keys_of_a_project_are_no_way_round_its_limit_of_requests(new_site):
    """Refused before the body is read, with the limit that refused; other projects go on."""
    site = new_site(rate_limit_project_requests_per_minute=4)
    other = site.new_key(["ingest"], "other")
    keys = [site.new_key(["ingest"]) for _ in range(6)]

    answers = [site.post(event(), key=key) for key in keys]

    assert statuses(answers) == [202] * 4 + [429] * 2
    assert answers[0].headers["x-ratelimit-limit"] == "10000"
    assert answers[-1].headers["x-ratelimit-limit"] == "4"
    assert int(answers[-1].headers["retry-after"]) in range(1, 16)
    assert site.post(event(), key=other).status_code == 202


def test_a_project_may_have_a_limit_of_requests_of_its_own(new_site):
    """As its settings say, where the environment knows of none; a dry run counts like the rest."""
    site = new_site()
    settle(site, requestsPerMinute=2)
    first, second = (site.new_key(["ingest"]) for _ in range(2))

    assert statuses(site.post(event(), key=key) for key in (first, second)) == [202, 202]
    dry_run = site.ask(
        "POST",
        "/api/v1/events/validate",
        json={"batch": [event()]},
        headers={"x-api-key": first},
    )
    assert dry_run.status_code == 429
    assert site.post(event(), key=second).status_code == 429


# Events


def test_a_batch_over_the_limit_of_events_is_refused_as_a_whole(new_site):
    """429 with the state of the limit that refused; nothing of it is stored (ANS-17)."""
    site = new_site(rate_limit_events_per_minute=60)
    site.post(*[event() for _ in range(50)])

    answer = site.post(*[event("late") for _ in range(20)])

    assert answer.status_code == 429
    assert answer.json()["code"] == "RATE_LIMITED"
    assert int(answer.headers["retry-after"]) == answer.json()["retryAfter"] in range(8, 11)
    assert answer.headers["x-ratelimit-limit"] == "60"
    assert int(answer.headers["x-ratelimit-remaining"]) in range(10, 13)
    assert len(answer.headers.get_list("x-ratelimit-limit")) == 1
    assert "late" not in site.names()


def test_a_flood_is_refused_one_by_one(new_site):
    """Who goes on sending beyond a limit waits for each answer, and nobody else does (RES-16)."""
    site = new_site(rate_limit_events_per_minute=60)
    site.post(*[event() for _ in range(60)])
    other = site.new_key(["ingest"], "other")
    count = 20

    started = time.monotonic()
    with ThreadPoolExecutor(count) as pool:
        refused = [pool.submit(site.post, *[event("late")] * 30) for _ in range(count)]
        taken = site.post(event(), key=other)
    seconds = time.monotonic() - started

    assert statuses(answer.result() for answer in refused) == [429] * count
    assert seconds >= (count - 1) / PER_SECOND
    assert taken.status_code == 202


def test_a_batch_that_has_to_wait_is_refused_unchecked(new_site):
    """All its events count then, since to look at them would cost as much as to store them."""
    site = new_site(rate_limit_events_per_minute=60)
    site.post(*[event() for _ in range(50)])

    refused = site.post(*[event()] * 5, *[{"type": "no such type"}] * 40)
    taken = site.post(*[event()] * 5, {"type": "no such type"})

    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) in range(33, 37)
    assert taken.status_code == 202
    assert taken.json()["eventCount"] == 5


def test_a_batch_larger_than_the_limit_itself_is_told_to_come_in_parts(new_site):
    """413, after which a client halves the batch, rather than a 429 that would never end."""
    site = new_site(rate_limit_events_per_minute=60)

    answer = site.post(*[event() for _ in range(61)])

    assert (answer.status_code, answer.json()["code"]) == (413, "BATCH_TOO_LARGE")
    assert "60 events a minute" in answer.json()["error"]


def test_a_project_has_its_own_limits_and_leaves_the_others_theirs(new_site):
    """Both requests and events, as its settings say."""
    site = new_site()
    other = site.new_key(["ingest"], "other")
    settle(site, requestsPerMinutePerKey=7, eventsPerMinute=10)
    mine = site.new_key(["ingest"])

    first = site.post(event(), key=mine)
    too_many = site.post(*[event() for _ in range(10)], key=mine)

    assert first.headers["x-ratelimit-limit"] == "7"
    assert too_many.headers["x-ratelimit-limit"] == "10"
    assert site.post(*[event() for _ in range(10)], key=other).status_code == 202


def test_many_keys_of_a_project_are_no_way_round_its_limit(new_site):
    """Keys cost nothing, so the project is what counts (SEC-21)."""
    site = new_site(rate_limit_events_per_minute=40)
    keys = [site.new_key(["ingest"]) for _ in range(6)]

    answers = [site.post(*[event() for _ in range(10)], key=key) for key in keys]

    assert statuses(answers) == [202] * 4 + [429] * 2


def test_two_servers_hold_the_limit_of_a_project_together(new_site):
    """Whichever server a client talks to, within 5 % (SEC-21)."""
    limit = 600
    site = new_site(rate_limit_events_per_minute=limit)
    second = site.beside(rate_limit_events_per_minute=limit)
    began = time.monotonic()

    answers = [
        site.post(*[event() for _ in range(10)], port=port)
        for _ in range(50)
        for port in (site.port, second)
    ]

    stored = 10 * statuses(answers).count(202)
    refilled = (time.monotonic() - began) * limit / 60
    assert 0.95 * limit - 10 <= stored <= 1.05 * limit + refilled


# Addresses, where no key is asked or none is valid


def test_an_address_may_ask_so_often_without_a_key(new_site):
    """Documents, wrong addresses and all else that asks for no key."""
    site = new_site(rate_limit_address_requests_per_minute=5)

    answers = [site.ask("GET", "/nowhere") for _ in range(7)]

    assert statuses(answers) == [404] * 5 + [429] * 2
    assert answers[-1].json()["code"] == "RATE_LIMITED"
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert answers[-1].headers["x-request-id"] == answers[-1].json()["requestId"]


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/health", "/metrics", "/js/sdk.js"])
def test_who_watches_the_collector_or_loads_the_script_is_never_turned_away(new_site, path):
    """Orchestrators, Prometheus, and the visitors of an office come from one address, and often."""
    site = new_site(rate_limit_address_requests_per_minute=2)

    assert statuses(site.ask("GET", path) for _ in range(6)) == [200] * 6


def test_keys_can_not_be_guessed_faster_than_the_address_may_ask(new_site):
    """After so many wrong keys not even a look is taken at the next (SEC-21)."""
    site = new_site(rate_limit_address_requests_per_minute=5)

    answers = [site.post(event(), key=generate_key()) for _ in range(8)]

    assert statuses(answers) == [401] * 5 + [429] * 3


def test_a_good_key_goes_on_behind_an_address_that_sends_bad_ones(new_site):
    """Behind one NAT there may be a hundred clients, one of them with a key that was revoked."""
    site = new_site(rate_limit_address_requests_per_minute=5)
    assert site.post(event()).status_code == 202
    for _ in range(8):
        site.post(event(), key=generate_key())

    assert statuses(site.post(event()) for _ in range(10)) == [202] * 10
    assert site.ask("GET", "/nowhere").status_code == 429


def test_good_keys_cost_an_address_nothing(new_site):
    """However many clients it hides."""
    site = new_site(rate_limit_address_requests_per_minute=5)
    keys = [site.new_key(["ingest"]) for _ in range(12)]

    assert statuses(site.post(event(), key=key) for key in keys) == [202] * 12


def test_a_hundred_clients_with_one_key_may_start_at_once(new_site):
    """Nobody knows the key yet, and none of them is refused for it."""
    site = new_site(rate_limit_address_requests_per_minute=5, commit_timeout_s=10.0)

    with ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(lambda _: site.post(event()), range(100)))

    assert statuses(answers) == [202] * 100


def test_a_client_that_never_sends_its_body_keeps_nobody_waiting(new_site, dial):
    """The key has been looked at before the body, and that is all that others wait for."""
    site = new_site()
    wire = dial(site.port)
    wire.send(
        b"POST /api/v1/events HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"
        b"Content-Length: 1000\r\nx-api-key: " + site.keys["ingest"].encode() + b"\r\n\r\n"
    )

    assert statuses(site.post(event()) for _ in range(5)) == [202] * 5


def test_a_key_that_was_revoked_is_a_strangers(new_site, eventually):
    """It was known to be good, and is counted all the same from when it is refused (SEC-21)."""
    site = new_site(rate_limit_address_requests_per_minute=3)
    assert site.post(event()).status_code == 202
    site.sql("update api_keys set revoked_at = now()")

    eventually(lambda: site.post(event()).status_code == 401)

    assert statuses(site.post(event()) for _ in range(5)) == [401] * 3 + [429] * 2


@pytest.mark.parametrize("forwarded", ["203.0.113.{}", "203.0.113.{}, 10.0.0.{}"])
def test_a_forwarded_address_is_not_believed_from_a_stranger(new_site, forwarded):
    """Another address in X-Forwarded-For with each request changes nothing (SEC-20, SEC-21)."""
    site = new_site(rate_limit_address_requests_per_minute=5)

    answers = [
        site.ask("GET", "/nowhere", headers={"X-Forwarded-For": forwarded.format(n, n)})
        for n in range(7)
    ]

    assert statuses(answers) == [404] * 5 + [429] * 2


def test_behind_a_proxy_each_client_is_counted_by_itself(new_site):
    """And only by what the proxy has seen, not by what the client claims (SEC-20)."""
    site = new_site(rate_limit_address_requests_per_minute=5, trusted_proxies=1)

    def ask(forwarded: str) -> int:
        return site.ask("GET", "/nowhere", headers={"X-Forwarded-For": forwarded}).status_code

    first = [ask(f"6.6.6.{n}, 203.0.113.1") for n in range(7)]

    assert first == [404] * 5 + [429] * 2
    assert ask("203.0.113.2") == 404
