"""The facts that are worked out of what a client said."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from analytics_collector.ingest.enrich.campaign import campaign
from analytics_collector.ingest.enrich.local_time import local_time
from analytics_collector.ingest.enrich.referrer import referrer
from analytics_collector.ingest.enrich.screen import screen
from analytics_collector.ingest.enrich.user_agent import user_agent

IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 "
    "(KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1"
)
CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/131.0.0.0 Safari/537.36"
)
TABLET = (
    "Mozilla/5.0 (Linux; Android 14; SM-X710) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/130.0.0.0 Safari/537.36"
)
GOOGLEBOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
GPTBOT = (
    "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2; "
    "+https://openai.com/gptbot)"
)
CUBOT = (
    "Mozilla/5.0 (Linux; Android 12; CUBOT X30) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/120.0.0.0 Mobile Safari/537.36"
)
TV = (
    "Mozilla/5.0 (SMART-TV; Linux; Tizen 7.0) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Version/7.0 TV Safari/537.36"
)


def read(text: str | None) -> Any:
    assert text is not None
    return json.loads(text)


def test_a_user_agent_tells_browser_system_and_device(seen):
    """The facts are names and versions, not the string again."""
    facts = read(user_agent(seen(userAgent=IPHONE)))

    assert facts == {
        "browser": {"name": "Mobile Safari", "version": "17.5"},
        "os": {"name": "iOS", "version": "17.5"},
        "device": {"brand": "Apple", "model": "iPhone"},
        "deviceType": "mobile",
        "bot": False,
    }


@pytest.mark.parametrize(
    ("value", "device_type"),
    [
        (IPHONE, "mobile"),
        (CUBOT, "mobile"),
        (CHROME, "desktop"),
        (TABLET, "tablet"),
        (TV, "tv"),
        (GOOGLEBOT, "bot"),
        (GPTBOT, "bot"),
        ("curl/8.5.0", "bot"),
        ("python-requests/2.32", "bot"),
        ("something else", "other"),
    ],
)
def test_the_kind_of_device_is_told(seen, value, device_type):
    """Programs are told from people, also those that no list of browsers knows."""
    facts = read(user_agent(seen(userAgent=value)))

    assert (facts["deviceType"], facts["bot"]) == (device_type, device_type == "bot")


def test_without_a_user_agent_nothing_is_said(seen):
    """A server's event has no browser."""
    assert user_agent(seen()) is None


@pytest.mark.parametrize(
    ("width", "height", "facts"),
    [
        (390, 844, {"size": "small", "orientation": "portrait"}),
        (844, 390, {"size": "small", "orientation": "landscape"}),
        (820, 1180, {"size": "medium", "orientation": "portrait"}),
        (1920, 1080, {"size": "large", "orientation": "landscape"}),
        (2560, 1440.5, {"size": "extraLarge", "orientation": "landscape"}),
        (600, 600, {"size": "medium", "orientation": "square"}),
    ],
)
def test_a_screen_has_a_size_and_an_orientation(seen, width, height, facts):
    """Turning a device does not change its size class."""
    assert read(screen(seen(screen={"width": width, "height": height}))) == facts


@pytest.mark.parametrize("size", [None, 0, -1, True])
def test_a_screen_without_a_size_says_nothing(seen, size):
    assert screen(seen(screen={"width": size, "height": 10})) is None


@pytest.mark.parametrize(
    ("zone", "at", "facts"),
    [
        ("Europe/Berlin", "2026-11-26T15:59:59", ("2026-11-26T16:59+01:00", "thursday", True)),
        ("Europe/Berlin", "2026-11-26T16:00:00", ("2026-11-26T17:00+01:00", "thursday", False)),
        ("Europe/Berlin", "2026-11-26T08:00:00", ("2026-11-26T09:00+01:00", "thursday", True)),
        ("Europe/Berlin", "2026-11-28T10:00:00", ("2026-11-28T11:00+01:00", "saturday", False)),
        ("Asia/Kolkata", "2026-11-26T20:00:00", ("2026-11-27T01:30+05:30", "friday", False)),
        ("America/New_York", "2026-07-01T13:00:00", ("2026-07-01T09:00-04:00", "wednesday", True)),
    ],
)
def test_local_time_is_that_of_the_users_zone(zone, at, facts):
    """Business hours are Monday to Friday, from nine until five."""
    found = read(local_time(zone, datetime.fromisoformat(at).replace(tzinfo=UTC)))

    assert (found["time"], found["weekday"], found["businessHours"]) == facts
    assert found["hour"] == int(found["time"][11:13])


@pytest.mark.parametrize(
    "zone", ["", "Nowhere/Land", "../../etc/passwd", "Europe", "/etc/passwd", "a\0b", "x" * 300]
)
def test_what_names_no_zone_says_nothing(zone):
    """A client can neither reach other files by it nor break anything."""
    assert local_time(zone, datetime(2026, 11, 26, tzinfo=UTC)) is None


def test_the_end_of_the_calendar_has_no_local_time():
    assert local_time("Asia/Tokyo", datetime(9999, 12, 31, 23, 59, tzinfo=UTC)) is None


def test_a_campaign_is_read_from_the_url(seen):
    """UTM parameters and click ids, decoded, names in any case."""
    url = (
        "https://x.example/?UTM_Source=News+Letter&utm_medium=email&utm_campaign=a%26b&gclid=Cj0#f"
    )

    facts = read(campaign(seen(page={"url": url})))

    assert facts == {
        "source": "News Letter",
        "medium": "email",
        "name": "a&b",
        "clickIds": {"gclid": "Cj0"},
    }


@pytest.mark.parametrize(
    "page",
    [
        "https://x.example/?utm_source=a",
        {"search": "?utm_source=a"},
        {"search": "utm_source=a"},
        {"url": "https://x.example/", "search": "?utm_source=a"},
    ],
)
def test_a_campaign_is_found_wherever_the_page_says_it(seen, page):
    """The page may be its URL as text, and the query may stand apart."""
    assert read(campaign(seen(page=page))) == {"source": "a"}


def test_what_the_client_says_of_a_campaign_goes_first(seen):
    page = {"url": "https://x.example/?utm_source=url&utm_term=t"}

    facts = read(campaign(seen(page=page, campaign={"source": "said", "name": 7})))

    assert facts == {"source": "said", "term": "t"}


def test_without_a_campaign_nothing_is_said(seen):
    assert campaign(seen(page={"url": "https://x.example/?q=1"})) is None
    assert campaign(seen()) is None


@pytest.mark.parametrize(
    ("url", "kind", "name"),
    [
        ("https://www.google.co.uk/", "search", "Google"),
        ("https://google.com", "search", "Google"),
        ("https://duckduckgo.com/?q=a", "search", "DuckDuckGo"),
        ("https://mail.google.com/mail/u/0", "email", "Gmail"),
        ("https://gemini.google.com/app", "ai", "Gemini"),
        ("https://chatgpt.com/", "ai", "ChatGPT"),
        ("https://l.facebook.com/l.php", "social", "Facebook"),
        ("https://t.co/abc", "social", "X"),
        ("android-app://com.google.android.gm/", "email", "Gmail"),
        ("https://user@Blog.Example.org:8080/a", "referral", None),
        ("https://notgoogle.com/", "referral", None),
        ("https://google.example.org/", "referral", None),
        ("https://www.shop.example/a", "internal", None),
        ("https://help.shop.example/a", "internal", None),
        ("https://otherSHOP.example/a", "referral", None),
        ("", "direct", None),
        ("about:blank", "direct", None),
    ],
)
def test_a_referrer_has_a_kind(seen, url, kind, name):
    """Where a visitor came from, by a list of hosts."""
    facts = read(referrer(seen(page={"url": "https://shop.example/p", "referrer": url})))

    assert (facts["kind"], facts.get("name")) == (kind, name)


def test_an_event_without_a_page_has_no_referrer(seen):
    """A server's event did not come from anywhere, not even directly."""
    assert referrer(seen()) is None
