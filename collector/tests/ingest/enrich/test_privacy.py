"""What is taken out before anything is stored."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta

import pytest

from analytics_collector.ingest.enrich.address import kept_address
from analytics_collector.ingest.enrich.scrub import Scrubber
from analytics_collector.ingest.enrich.urls import clean_page, clean_url

NOON = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("203.0.113.77", "203.0.113.0"),
        (" 203.0.113.77:4711 ", "203.0.113.0"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1::"),
        ("[2001:db8:1:2::1]:443", "2001:db8:1::"),
        ("::ffff:203.0.113.77", "203.0.113.0"),
        ("fe80::1%eth0", "fe80::"),
        ("unknown", None),
        ("203.0.113.77, 198.51.100.1", None),
        ("x" * 100_000, None),
    ],
)
def test_a_truncated_address_is_its_network(value, kept):
    """/24 and /48; what can't be shortened is not kept."""
    assert kept_address(value, "truncate", b"s", NOON) == kept


def test_full_keeps_and_drop_does_not():
    assert kept_address("203.0.113.77", "full", b"s", NOON) == "203.0.113.77"
    assert kept_address("203.0.113.77", "drop", b"s", NOON) is None


def test_a_hashed_address_is_the_same_for_a_day():
    """One can count visitors of a day, and not follow one to the next, nor to another secret."""
    today = kept_address("203.0.113.77", "hash", b"s", NOON)

    assert today == kept_address("203.0.113.77:80", "hash", b"s", NOON + timedelta(hours=11))
    assert today != kept_address("203.0.113.77", "hash", b"s", NOON + timedelta(days=1))
    assert today != kept_address("203.0.113.77", "hash", b"other", NOON)
    assert today != kept_address("203.0.113.78", "hash", b"s", NOON)
    assert "203" not in today.removeprefix("hmac:") or len(today) == len("hmac:") + 32


@pytest.mark.parametrize(
    ("url", "scrubbed", "campaign"),
    [
        ("https://x.example/a", "https://x.example/a", "https://x.example/a"),
        ("/a?q=shoes&page=2", "/a?q=shoes&page=2", "/a"),
        ("/a?token=abc&q=1", "/a?token=[scrubbed]&q=1", "/a"),
        ("/a?reset_token=abc", "/a?reset_token=[scrubbed]", "/a"),
        ("/a?accessToken=abc", "/a?accessToken=[scrubbed]", "/a"),
        ("/a?pass%77ord=abc", "/a?pass%77ord=[scrubbed]", "/a"),
        ("/a?mail=me%40x.example", "/a?mail=[scrubbed]", "/a"),
        ("/a?email=x", "/a?email=[scrubbed]", "/a"),
        ("/a?r=eyJhbGciOi.eyJzdWIi.c2ln", "/a?r=[scrubbed]", "/a"),
        ("/a?k=ak_live_0123456789abcdef", "/a?k=[scrubbed]", "/a"),
        ("/a?h=0123456789abcdef0123456789abcdef", "/a?h=[scrubbed]", "/a"),
        ("/reset?0123456789abcdef0123456789abcdef", "/reset?[scrubbed]", "/reset"),
        (
            "/a?o=7d8f0c1e-3b5a-4c6d-8e9f-0a1b2c3d4e5f",
            "/a?o=7d8f0c1e-3b5a-4c6d-8e9f-0a1b2c3d4e5f",
            "/a",
        ),
        (
            "/a?utm_source=n&gclid=Cj0KCQiA0123456789abcdef0123456789&sid=1",
            "/a?utm_source=n&gclid=Cj0KCQiA0123456789abcdef0123456789&sid=[scrubbed]",
            "/a?utm_source=n&gclid=Cj0KCQiA0123456789abcdef0123456789",
        ),
        ("https://me:pw@x.example/a", "https://x.example/a", "https://x.example/a"),
        ("/a#access_token=abc&x=1", "/a#access_token=[scrubbed]&x=1", "/a"),
        ("/a#/route?token=abc", "/a#/route?token=[scrubbed]", "/a#/route"),
        ("/a#top", "/a#top", "/a#top"),
        ("/monkey?keyboard=1&author=me", "/monkey?keyboard=1&author=me", "/monkey"),
    ],
)
def test_secrets_are_taken_out_of_urls(url, scrubbed, campaign):
    """By name and by look; campaign parameters stay in either mode."""
    assert clean_url(url, "scrub") == scrubbed
    assert clean_url(url, "campaign") == campaign


@pytest.mark.parametrize(
    "value",
    ["a" * 490, "a." * 245, "a@" * 245, "eyJ" * 163, "a" * 250 + "@" + "b." * 120 + "-"],
    ids=lambda value: value[:6],
)
def test_a_url_of_long_parameters_is_cleaned_in_no_time(value):
    """A few KB on the wire are a megabyte of those, and all requests wait meanwhile."""
    url = "https://x/?" + "&".join(f"p{number}={value}" for number in range(199))
    times = []
    for turn in range(3):
        started = time.process_time()
        clean_url(f"{url}&turn={turn}", "scrub")
        times.append(time.process_time() - started)

    assert min(times) < 0.1


def test_all_urls_of_a_page_are_cleaned():
    """Also the query that stands apart, and the page that is only its URL."""
    page = {"url": "/a?key=1", "referrer": "/b?key=1", "search": "key=1", "title": "?key=1"}

    assert clean_page(page, "scrub") == {
        "url": "/a?key=[scrubbed]",
        "referrer": "/b?key=[scrubbed]",
        "search": "key=[scrubbed]",
        "title": "?key=1",
    }
    assert clean_page("/a?key=1", "scrub") == "/a?key=[scrubbed]"
    assert clean_page(page, "keep") is page


@pytest.mark.parametrize(
    "url",
    [
        "/?" + "a&" * 50_000,
        "/?a=" + "eyJ" * 33_000,
        "/?a=" + "x" * 50_000 + "@" * 50_000,
        "/?" + "%40" * 33_000,
        "/#" + "?a=" * 33_000,
    ],
)
def test_no_url_takes_long(url):
    """A client can't keep the collector busy with one event."""
    started = time.process_time()
    clean_url(url, "scrub")

    assert time.process_time() - started < 0.25


def scrub(value: object, *kinds: str, deny: tuple[str, ...] = ()) -> object:
    return json.loads(Scrubber(deny, kinds).clean(json.dumps(value, separators=(",", ":"))))


@pytest.mark.parametrize(
    ("kind", "text", "scrubbed"),
    [
        ("email", "write to Jo.Doe+x@mail.example.org, please", "write to [email], please"),
        ("email", "/a?b=me%40x.example", "/a?b=[email]"),
        ("email", "5 @ 3", "5 @ 3"),
        ("card", "card 4111 1111 1111 1111 ok", "card [card] ok"),
        ("card", "5500-0000-0000-0004", "[card]"),
        ("card", "378282246310005", "[card]"),
        ("card", "4111 1111 1111 1112", "4111 1111 1111 1112"),
        ("card", "1764158400000", "1764158400000"),
        ("card", "0.4111111111111111", "0.4111111111111111"),
        ("token", "Authorization: Bearer abcdef0123456789", "Authorization: [token]"),
        ("token", "eyJhbGciOiJI.eyJzdWIiOiIx.SflKxwRJ x", "[token] x"),
        ("token", "key=ak_live_0123456789abcdef", "key=[token]"),
        ("token", "sk_live_0123456789abcdef", "[token]"),
        ("token", "the bearer of bad news", "the bearer of bad news"),
    ],
)
def test_patterns_are_replaced_by_the_name_of_their_kind(kind, text, scrubbed):
    """Only what the project asks for, in the middle of any text, at any depth."""
    assert scrub({"a": [{"b": text}]}, kind) == {"a": [{"b": scrubbed}]}
    assert scrub({"a": text}, *({"email", "card", "token"} - {kind})) == {"a": text}


def test_card_numbers_that_are_numbers_are_scrubbed_too():
    assert scrub({"a": 4111111111111111, "b": 4111111111111112}, "card") == {
        "a": "[card]",
        "b": 4111111111111112,
    }


def test_names_of_members_are_scrubbed_without_losing_one():
    """Two addresses as names stay two members."""
    assert scrub({"a@x.example": 1, "b@x.example": 2, "c": 3}, "email") == {
        "[email]": 1,
        "[email] 2": 2,
        "c": 3,
    }


def test_denied_members_go_wherever_they_stand():
    """In any case of letters, at any depth, with all below them."""
    value = {"Password": "x", "a": [{"password": {"b": 1}, "c": 1}], "pass": 1, 'q"ß': 2}

    assert scrub(value, deny=("password", 'Q"SS')) == {"a": [{"c": 1}], "pass": 1}


def test_what_holds_nothing_is_not_touched():
    """The same text comes back, so nearly all events cost next to nothing."""
    text = '{"a":1.50,"b":"12 monkeys"}'

    assert Scrubber(("password",), ("email", "card", "token")).clean(text) is text


@pytest.mark.parametrize(
    "text",
    [
        "a" * 100_000 + "@",
        "a@" * 50_000,
        "4" * 100_000,
        "4 " * 50_000,
        "eyJ" * 33_000,
        "%40" * 33_000,
        "a@" + "b." * 50_000,
        "bearer" + " " * 100_000,
    ],
)
def test_no_text_takes_long(text):
    """A client can't keep the collector busy with one event."""
    started = time.process_time()
    scrub({"a": text}, "email", "card", "token")

    assert time.process_time() - started < 0.5


def test_of_endless_parameters_the_first_are_kept():
    """What is not looked at is not stored."""
    url = "/?" + "&".join(["a=1"] * 1_000 + ["token=abc"])

    assert clean_url(url, "scrub") == "/?" + "&".join(["a=1"] * 200)
