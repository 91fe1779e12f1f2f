"""The events of a user over HTTP."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

NOON = datetime(2025, 3, 3, 12, tzinfo=UTC)


def test_the_events_of_a_user_come_newest_first(api, pool, run):
    """By time, then by the order in which they were stored; each with all its members."""
    later = api.store("b", "u1", NOON + timedelta(seconds=1))
    first = api.store(
        "a", "u1", NOON, properties='{"n": 1e2, "t": "ä\\"", "big": 123456789012345678901}'
    )
    second = api.store(
        "$identify",
        "u1",
        NOON,
        type="identify",
        anonymous_id="d1",
        session_id="s1",
        group_id="g1",
        client_timestamp=NOON - timedelta(days=1),
        traits='{"plan": "pro"}',
        context='{"ip": "::1"}',
    )
    api.store("a", "u2", NOON)

    # Moved away and back, the first one lies behind the second on disk and in the index.
    for user_id in ("elsewhere", "u1"):
        run(pool.execute("update events set user_id = $2 where message_id = $1", first, user_id))

    body = api.ask("GET", "/users/u1/events").json()

    assert (body["userId"], body["count"]) == ("u1", 3)
    assert [event["messageId"] for event in body["events"]] == [later, second, first]
    assert body["events"][1] == {
        "messageId": second,
        "type": "identify",
        "name": "$identify",
        "userId": "u1",
        "anonymousId": "d1",
        "sessionId": "s1",
        "groupId": "g1",
        "previousId": None,
        "timestamp": "2025-03-03T12:00:00.000Z",
        "clientTimestamp": "2025-03-02T12:00:00.000Z",
        "receivedAt": "2025-03-03T12:00:00.000Z",
        "properties": {},
        "traits": {"plan": "pro"},
        "context": {"ip": "::1"},
        "extra": None,
        "enrichment": None,
    }
    assert body["events"][2]["properties"] == {"n": 100, "t": 'ä"', "big": 123456789012345678901}


def test_the_limit_takes_the_newest(api):
    """A limit cuts off what is older."""
    for second in range(3):
        api.store(f"e{second}", "u1", NOON + timedelta(seconds=second))

    body = api.ask("GET", "/users/u1/events?limit=2").json()

    assert [event["name"] for event in body["events"]] == ["e2", "e1"]


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "ten", "", "1.5", "99999999999", "%D9%A3"])
def test_a_limit_out_of_range_is_told(api, limit):
    """1 to 1,000 in plain digits, nothing is guessed."""
    api.assert_refused(
        api.ask("GET", f"/users/u1/events?limit={limit}"), 400, "INVALID_QUERY", "limit"
    )


def test_an_unknown_user_has_no_events(api):
    """Nobody has been seen under that id yet, which is an answer."""
    answer = api.ask("GET", "/users/nobody/events")

    assert answer.status_code == 200
    assert answer.json() == {
        "userId": "nobody",
        "count": 0,
        "truncated": False,
        "events": [],
    }


@pytest.mark.parametrize(
    ("user_id", "path"),
    [
        ("a/b", "a/b"),
        ("a/b", "a%2Fb"),
        ("x/events", "x/events"),
        ("a?b#c%", "a%3Fb%23c%25"),
        ("ключ ", "%D0%BA%D0%BB%D1%8E%D1%87%20"),
        ("' or 1=1 --", "'%20or%201=1%20--"),
    ],
)
def test_a_user_id_may_hold_any_character(api, user_id, path):
    """Ids are the customer's, so slashes and percent signs reach the query as they are."""
    api.store("a", user_id, NOON)
    api.store("a", "somebody else", NOON)

    body = api.ask("GET", f"/users/{path}/events").json()

    assert (body["userId"], body["count"]) == (user_id, 1)


@pytest.mark.parametrize("path", ["/users//events", "/users/a%00/events"])
def test_a_user_id_that_cannot_be_is_told(api, path):
    """Nobody is called nothing, or has a NUL in the name."""
    api.assert_refused(api.ask("GET", path), 400, "INVALID_QUERY", "userId")


def test_events_of_another_project_are_not_shown(new_api):
    """The same user id elsewhere is somebody else."""
    mine, theirs = new_api(), new_api()
    theirs.store("a", "u1", NOON)

    assert mine.ask("GET", "/users/u1/events").json()["count"] == 0


def test_an_answer_holds_so_many_bytes_and_says_that_there_was_more(api):
    """Whoever does not read its answers can't fill the memory of the server with them."""
    large = {"properties": '{"text": "%s"}' % ("x" * 90_000)}
    ids = [api.store("a", "hoarder", NOON + timedelta(seconds=n), **large) for n in range(60)]

    body = api.ask("GET", "/users/hoarder/events").json()
    held = [event["messageId"] for event in body["events"]]
    assert body["truncated"]
    assert held == ids[::-1][: len(held)]
    assert 40 <= body["count"] == len(held) <= 4_194_304 // 90_000
    less = api.ask("GET", "/users/hoarder/events?limit=40").json()
    assert (less["truncated"], less["count"]) == (False, 40)
