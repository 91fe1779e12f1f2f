"""The stage as a whole: what is stored of an event under the settings of its project."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics_collector.model import NO_SENDER, ApiKey, Sender
from analytics_collector.project_settings import read_project_settings

CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/131.0.0.0 Safari/537.36"
)
LONDON = "81.2.69.142"
CONTEXT = {
    "userAgent": CHROME,
    "ip": LONDON,
    "timezone": "Europe/London",
    "page": {
        "url": "https://shop.example/p?utm_source=news&token=abc",
        "referrer": "https://www.bing.com/",
    },
    "screen": {"width": 1920, "height": 1080},
}
STEPS = {
    "userAgent": "userAgent",
    "geo": "geo",
    "campaign": "campaign",
    "referrer": "referrer",
    "localTime": "localTime",
    "screen": "screen",
}


def test_all_facts_stand_in_one_object(store):
    """By default every step is on."""
    stored = store({"context": CONTEXT})

    assert set(stored.enrichment) == set(STEPS.values())
    assert stored.enrichment["geo"]["city"] == "London"
    assert stored.enrichment["localTime"]["time"] == "2026-11-26T12:00+00:00"


@pytest.mark.parametrize("setting", STEPS)
def test_each_step_can_be_switched_off(store, setting):
    """A project decides which facts it wants."""
    stored = store({"context": CONTEXT}, enrichment={setting: False})

    assert set(stored.enrichment) == set(STEPS.values()) - {STEPS[setting]}


def test_an_event_that_says_nothing_is_stored_as_it_came(store):
    """No facts, no enrichment."""
    assert store({"properties": {"a": 1}}).enrichment is None


def test_the_place_is_worked_out_before_the_address_is_shortened(store):
    """The default keeps the city and not the address."""
    stored = store({"context": {"ip": LONDON, "a": 1}})

    assert stored.context == {"ip": "81.2.69.0", "a": 1}
    assert stored.enrichment["geo"]["city"] == "London"


@pytest.mark.parametrize("handling", ["drop", "hash", "full"])
def test_the_address_is_handled_as_the_project_says(store, handling):
    stored = store({"context": {"ip": LONDON, "a": 1}}, privacy={"ip": handling})

    if handling == "drop":
        assert "ip" not in stored.context
    elif handling == "full":
        assert stored.context["ip"] == LONDON
    else:
        assert stored.context["ip"].startswith("hmac:")
    assert (LONDON in stored.row.context) == (handling == "full")


def test_an_address_has_another_hash_in_each_project(store):
    event = {"context": {"ip": LONDON}}
    mine = store(event, privacy={"ip": "hash"}, project_id=1)
    yours = store(event, privacy={"ip": "hash"}, project_id=2)

    assert mine.context["ip"] != yours.context["ip"]


def test_a_browser_that_says_nothing_is_known_by_its_connection(store):
    """The facts are the collector's: the client's context stays as it was sent."""
    stored = store({"context": {"a": 1}}, Sender(LONDON, CHROME))

    assert stored.context == {"a": 1}
    assert stored.enrichment["userAgent"]["browser"]["name"] == "Chrome"
    assert stored.enrichment["geo"]["city"] == "London"
    assert stored.enrichment["ip"] == "81.2.69.0"


def test_what_the_event_says_goes_before_the_connection(store):
    """Each of the two for itself."""
    stored = store({"context": {"ip": LONDON}}, Sender("2001:218::1", CHROME))

    assert stored.enrichment["geo"]["country"] == "GB"
    assert stored.enrichment["userAgent"]["browser"]["name"] == "Chrome"
    assert "ip" not in stored.enrichment


def test_a_dropped_address_of_the_connection_is_stored_nowhere(store):
    stored = store({}, Sender(LONDON, CHROME), privacy={"ip": "drop"})

    assert "ip" not in stored.enrichment
    assert "81.2.69" not in (stored.row.enrichment or "")


def test_secrets_in_urls_are_gone_and_the_campaign_is_not(store):
    """By default; the campaign is told also where the query is not kept."""
    stored = store({"context": CONTEXT})
    bare = store({"context": {"page": "https://x.example/?a=1&utm_source=s"}})

    assert "abc" not in stored.row.context + (stored.row.enrichment or "")
    assert stored.enrichment["campaign"] == {"source": "news"}
    assert bare.enrichment["campaign"] == {"source": "s"}


@pytest.mark.parametrize("kind", ["page", "track", "screen"])
def test_urls_that_a_page_sends_as_properties_are_as_clean_as_its_context(store, kind):
    """Page events have them there; who links a secret does not mean to have it stored."""
    properties = {
        "url": "https://jo:pw@shop.example/p?token=abc&q=1#access_token=abc",
        "referrer": "https://login.example/?code=abc&utm_source=s",
        "path": "/reset?key=abc",
        "search": "?token=abc&q=1",
        "title": "?token=abc",
        "deep": {"url": "?token=abc"},
    }
    event = {"type": kind, "properties": properties}

    clean = {
        "url": "https://shop.example/p?token=[scrubbed]&q=1#access_token=[scrubbed]",
        "referrer": "https://login.example/?code=[scrubbed]&utm_source=s",
        "path": "/reset?key=[scrubbed]",
        "search": "?token=[scrubbed]&q=1",
    }
    assert store(event).properties == properties | clean
    assert store(event, privacy={"urlQuery": "keep"}).properties == properties
    assert store(event, privacy={"urlQuery": "campaign"}).properties == properties | {
        "url": "https://shop.example/p",
        "referrer": "https://login.example/?utm_source=s",
        "path": "/reset",
        "search": "",
    }


@pytest.mark.parametrize("mode", ["scrub", "campaign"])
def test_what_somebody_searched_for_is_no_url(store, mode):
    """A shop asks what its visitors look for; nor is a number or an object a URL."""
    properties = {"search": "token=red shoes & more", "url": 7, "path": {"a": "?token=abc"}}

    stored = store({"properties": properties}, privacy={"urlQuery": mode})
    beside = store(
        {"properties": {"search": "q&a", "url": "/?token=a"}}, privacy={"urlQuery": mode}
    )

    assert stored.properties == properties
    assert beside.properties["search"] == "q&a"
    assert "token=a" not in beside.row.properties


def test_patterns_are_scrubbed_everywhere_but_in_identifiers(store):
    """Properties, traits, context, unknown members, and the facts that quote them."""
    event = {
        "type": "identify",
        "userId": "jo@x.example",
        "traits": {"email": "jo@x.example"},
        "properties": {"a": ["4111 1111 1111 1111"]},
        "context": {"page": {"url": "/?utm_term=jo%40x.example", "title": "jo@x.example"}},
        "more": {"key": "sk_live_0123456789abcdef"},
    }
    stored = store(event, privacy={"scrub": ["email", "card", "token"], "urlQuery": "keep"})

    assert stored.row.user_id == "jo@x.example"
    assert stored.traits == {"email": "[email]"}
    assert stored.properties == {"a": ["[card]"]}
    assert stored.context == {"page": {"url": "/?utm_term=[email]", "title": "[email]"}}
    assert stored.extra == {"more": {"key": "[token]"}}
    assert stored.enrichment["campaign"] == {"term": "[email]"}


def test_denied_members_are_stored_nowhere(store):
    """In properties, traits, context and the unknown."""
    event = {
        "properties": {"secret": 1, "a": {"secret": 1, "b": 2}},
        "context": {"device": {"secret": 1}, "campaign": {"term": "x"}},
        "more": {"secret": 1},
    }
    stored = store(event, privacy={"denyProperties": ["secret", "campaign"]})

    assert stored.properties == {"a": {"b": 2}}
    assert stored.context == {"device": {}}
    assert stored.extra == {"more": {}}
    assert stored.enrichment is None


def test_events_of_a_batch_do_not_share_what_they_should_not(enricher, make_batch):
    """Equal contexts are read once, and each event has its own time; others have their own."""
    times = ["2026-11-26T10:00:00Z", "2026-11-26T11:00:00Z", "2026-11-26T11:00:00Z"]
    zones = ["Europe/Berlin", "Europe/Berlin", "Asia/Tokyo"]
    batch = make_batch(
        *[
            {"timestamp": at, "context": {"timezone": zone}}
            for at, zone in zip(times, zones, strict=True)
        ]
    )
    rows = enricher.enrich(batch, ApiKey(1, 1, frozenset(), None), NO_SENDER).rows

    hours = [json.loads(row.enrichment)["localTime"]["hour"] for row in rows]
    assert hours == [11, 12, 20]


def test_changed_settings_hold_at_once(store):
    """A project that stops keeping addresses does not wait for a restart."""
    assert store({"context": {"ip": LONDON}}, privacy={"ip": "full"}).context == {"ip": LONDON}
    assert store({"context": {"ip": LONDON}}, privacy={"ip": "drop"}).context == {}


def test_an_escaped_nul_never_reaches_the_store(store):
    """Postgres refuses it, and one event would cost all others of its commit their time."""
    stored = store({"context": {"page": "/?utm_source=a%00b"}})

    assert stored.enrichment["campaign"] == {"source": "a\ufffdb"}


TEXT = st.one_of(
    st.text(max_size=30),
    st.sampled_from(["https://x.example/?a=%&=&&;#?=", "eyJabcdefghij.x.", "4111111111111111"]),
    st.sampled_from(
        ["a@b.example", "?utm_source=%00%ff", "https://[::1", "//@", "1.2.3.4", "::1%x", "Europe/"]
    ),
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), TEXT)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
CONTEXTS = st.dictionaries(
    st.sampled_from(["userAgent", "ip", "timezone", "page", "campaign", "screen", "x"]),
    TEXT
    | JSON
    | st.dictionaries(
        st.sampled_from(["url", "referrer", "search", "path", "source", "name", "width", "height"]),
        TEXT | JSON,
    ),
)
SETTINGS = st.fixed_dictionaries(
    {
        "privacy": st.fixed_dictionaries(
            {
                "ip": st.sampled_from(["full", "truncate", "hash", "drop"]),
                "urlQuery": st.sampled_from(["keep", "scrub", "campaign"]),
                "scrub": st.lists(st.sampled_from(["email", "card", "token"]), unique=True),
                "denyProperties": st.lists(
                    st.sampled_from(["x", "ip", "page", "screen", "url"]), unique=True
                ),
            }
        )
    }
)


@given(
    events=st.lists(
        st.fixed_dictionaries(
            {"context": CONTEXTS | st.none()},
            optional={
                "properties": st.dictionaries(TEXT, JSON),
                "traits": st.dictionaries(TEXT, JSON),
                "more": JSON,
                "timestamp": st.sampled_from(["9999-12-31T23:59:59Z", "2026-11-26T10:00:00Z"]),
            },
        ),
        min_size=1,
        max_size=4,
    ),
    settings=SETTINGS,
    sender=st.builds(Sender, st.none() | st.just(LONDON), st.none() | TEXT),
)
def test_no_event_breaks_the_stage_or_is_lost_in_it(
    enricher: Any,
    make_batch: Any,
    enrichment_form: Any,
    events: list[dict[str, Any]],
    settings: dict[str, Any],
    sender: Sender,
) -> None:
    """Whatever the specification lets through comes out, one row for each, as readable JSON."""
    batch = make_batch(*events)
    key = ApiKey(1, 1, frozenset(), None, settings=read_project_settings(settings))
    out = enricher.enrich(batch, key, sender)

    assert [row.message_id for row in out.rows] == [row.message_id for row in batch.rows]
    for row in out.rows:
        for text in (row.properties, row.traits, row.context, row.extra, row.enrichment):
            if text is not None:
                assert isinstance(orjson.loads(text), dict)
                assert "\\u0000" not in text
        if row.enrichment is not None:
            enrichment_form(orjson.loads(row.enrichment))
