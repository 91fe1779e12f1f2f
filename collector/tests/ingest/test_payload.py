"""What is kept of an event that was refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from analytics_collector.ingest import decode
from analytics_collector.ingest.payload import (
    MAX_FRAGMENT_BYTES,
    MAX_PAYLOAD_BYTES,
    fragment,
    scrubbed,
    written,
)
from analytics_collector.project_settings import Privacy

AT = datetime(2026, 1, 1, tzinfo=UTC)
ALL = Privacy(deny_properties=("ssn",), scrub=("email", "card", "token"))


def kept(event: Any, privacy: Privacy = ALL) -> Any:
    text, is_whole = written(event)
    assert is_whole
    cleaned = scrubbed(text, privacy, b"secret", AT)
    assert cleaned is not None
    return json.loads(cleaned)


def test_denied_members_and_patterns_are_taken_out_of_every_part():
    """Wherever a refused event has them, also in members that no specification knows."""
    personal = {"ssn": "1", "note": "write to a@b.example", "deep": [{"SSN": 2, "ok": 1}]}
    clean = {"note": "write to [email]", "deep": [{"ok": 1}]}
    event = {
        "properties": personal,
        "traits": [personal],
        "context": personal,
        "odd": personal,
        "ssn": "3",
    }

    assert kept(event) == {
        "properties": clean,
        "traits": [clean],
        "context": clean,
        "odd": clean,
    }


def test_identifiers_stay_as_they_are():
    """As in an event that is stored: they are what it is found by."""
    event = {"type": "track", "userId": "a@b.example", "messageId": "not-an-id", "name": ""}

    assert kept(event) == event


def test_an_identifier_of_a_wrong_kind_is_cleaned_like_anything():
    """Somebody's object under `userId` is no identifier."""
    assert kept({"userId": {"mail": "a@b.example", "ssn": 1}}) == {"userId": {"mail": "[email]"}}


@pytest.mark.parametrize(
    ("handling", "address"),
    [("full", "203.0.113.9"), ("truncate", "203.0.113.0"), ("drop", None)],
)
def test_addresses_are_handled_as_in_stored_events(handling, address):
    """By the project's own setting."""
    event = {"context": {"ip": "203.0.113.9", "page": "https://x.example/?token=abc&utm_source=a"}}
    context = kept(event, Privacy(ip=handling))["context"]

    assert context.get("ip") == address
    assert "abc" not in context["page"]
    assert "utm_source=a" in context["page"]


def test_what_is_no_event_is_cleaned_too():
    """A batch may hold anything."""
    assert kept(["a@b.example", {"ssn": 1}]) == ["[email]", {}]
    assert kept("a@b.example") == "[email]"
    assert kept(None) is None


@pytest.mark.parametrize("text", ['{"a":"\\ud800"}', '{"a":"\\u0000 \\ud800"}', '{"\\u0000":1}'])
def test_what_the_database_can_not_hold_is_kept_escaped(text):
    """NUL and lone surrogates come back as they were sent, so that a replay judges the same."""
    [event] = decode.parse(f'{{"batch":[{text}]}}'.encode()).events
    payload, is_whole = written(event)

    assert is_whole
    assert "\0" not in payload
    payload.encode()
    assert json.loads(scrubbed(payload, Privacy(), b"", AT) or "") == json.loads(text)


@pytest.mark.parametrize(
    "text",
    [
        '{"name":"n","properties":{"a":123456789012345678901234567890}}',
        '{"name":"n","properties":{"a":1e999}}',
        '{"name":"n","a":' + '"' + "x" * MAX_PAYLOAD_BYTES + '"}',
    ],
    ids=["integer", "float", "size"],
)
def test_what_can_not_be_kept_whole_is_kept_as_its_beginning(text):
    """It says so, and is no event that a replay could take for the one that was sent."""
    [event] = decode.parse(f'{{"batch":[{text}]}}'.encode()).events
    payload, is_whole = written(event)
    kept_text = json.loads(fragment(payload, Privacy()))

    assert not is_whole
    assert isinstance(kept_text, str)
    assert len(kept_text) <= MAX_FRAGMENT_BYTES


def test_a_lone_surrogate_beside_a_pattern_is_not_kept_whole():
    """Rather less than something personal: patterns are not found in what can't be read."""
    [event] = decode.parse(b'{"batch":[{"a":"\\ud800","mail":"a@b.example"}]}').events
    payload, _ = written(event)

    assert scrubbed(payload, ALL, b"", AT) is None
    assert "a@b.example" not in fragment(payload, Privacy())


def test_a_fragment_has_nothing_that_looks_personal():
    """Nothing is known of its form, so everything is looked for whatever the project asks."""
    text = (
        '{"ip":"203.0.113.9","v6":"2001:db8:85a3:8d3:1319:8a2e:370:7348","at":"10:20:30",'
        '"m":"a@b.example","u":"https://x.example/a?token=abc","c":"4111 1111 1111 1111"'
    )
    kept_text = json.loads(fragment(text, Privacy()))

    for personal in ("203.0.113.9", "2001:db8", "a@b.example", "abc", "4111"):
        assert personal not in kept_text
    assert kept_text.startswith('{"ip":"[ip]"')
    assert '"at":"10:20:30"' in kept_text


def test_of_a_body_with_denied_members_nothing_is_kept():
    """Where one begins and ends can't be told in what is no JSON."""
    assert fragment('{"ssn": "1', ALL) == '""'


def test_urls_in_properties_are_as_clean_as_in_an_event_that_is_stored():
    """A refused page event may carry the same secrets."""
    event = {"type": "page", "properties": {"url": "/?token=abc", "n": 1}}

    assert kept(event, Privacy())["properties"] == {"url": "/?token=[scrubbed]", "n": 1}
