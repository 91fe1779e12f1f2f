"""From a request to what stands in the database."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import pytest

CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/131.0.0.0 Safari/537.36"
)


@pytest.fixture
def stored(site):
    """Send one event, and return what is stored of it."""

    def send(event: dict[str, Any], key: str = "ingest", **headers: str) -> dict[str, Any]:
        message_id = str(uuid4())
        event = {"type": "track", "name": "e", "messageId": message_id, **event}
        assert site.post(event, key=key, **headers).status_code == 202
        query = (
            "select session_id, context::text, enrichment::text from events where message_id = $1"
        )
        (record,) = site.sql(query, message_id)
        return {
            "sessionId": record["session_id"],
            "context": json.loads(record["context"]),
            "enrichment": json.loads(record["enrichment"] or "null"),
        }

    return send


def test_a_browser_is_known_by_its_request(stored):
    """The program that asks, and the network it asks from, shortened."""
    found = stored({}, origin="https://shop.example", user_agent=CHROME)

    assert found["enrichment"]["userAgent"]["browser"]["name"] == "Chrome"
    assert found["enrichment"]["ip"] == "127.0.0.0"
    assert found["context"] == {}


def test_a_server_is_not_taken_for_the_user(stored):
    """Its address and program say nothing of whoever did something."""
    assert stored({}, user_agent=CHROME)["enrichment"] is None


def test_events_of_one_visit_share_a_session(stored, enrichment_form):
    """Also in different requests; and one can tell who attached it."""
    visitor = str(uuid4())
    first, second = stored({"anonymousId": visitor}), stored({"anonymousId": visitor})
    own = stored({"anonymousId": visitor, "sessionId": "mine"})

    assert first["sessionId"] == second["sessionId"]
    assert first["enrichment"]["session"]["source"] == "server"
    enrichment_form(first["enrichment"])
    assert (own["sessionId"], own["enrichment"]) == ("mine", None)


def test_a_project_decides_for_itself(site, stored):
    """What it switches off is not worked out, what it denies is not stored."""
    key = site.new_key(["ingest"], project="private")
    settings = {
        "enrichment": {"session": False, "userAgent": False},
        "privacy": {"ip": "drop", "scrub": ["email"]},
    }
    site.sql("update projects set settings = $1 where name = 'private'", json.dumps(settings))
    context = {"ip": "203.0.113.7", "userAgent": CHROME, "page": {"title": "jo@x.example"}}
    found = stored({"anonymousId": "x", "context": context}, key=key)

    assert found["sessionId"] is None
    assert found["context"] == {"userAgent": CHROME, "page": {"title": "[email]"}}
    assert found["enrichment"] == {"referrer": {"kind": "direct"}}
