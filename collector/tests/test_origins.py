"""Origins of web pages: which may be listed, and which page a list lets in."""

from __future__ import annotations

import pytest

from analytics_collector.errors import InvalidQuery
from analytics_collector.origins import MAX_ORIGINS, allows, read_origins


def test_a_key_without_a_list_may_be_used_from_everywhere():
    """No list is no limit; an empty list lets no web page in."""
    assert allows(None, b"https://anything.example")
    assert allows(None, b"null")
    assert not allows((), b"https://anything.example")


@pytest.mark.parametrize(
    ("origin", "is_allowed"),
    [
        (b"https://shop.example.org", True),
        (b"https://SHOP.example.org", True),
        (b"http://shop.example.org", False),
        (b"https://shop.example.org:8443", False),
        (b"https://shop.example.org.evil.net", False),
        (b"https://evil-shop.example.org", False),
        (b"https://example.org", False),
        (b"null", False),
        (b"", False),
        (b"\xff\xfe", False),
        (b"https://a.pages.example.com", True),
        (b"https://a.b.pages.example.com", True),
        (b"https://pages.example.com", False),
        (b"https://.pages.example.com", False),
        (b"https://evil.net/.pages.example.com", False),
        (b"https://evil.net:1@a.pages.example.com", False),
        (b"https://evil.net?.pages.example.com", False),
        (b"https://evil.net#.pages.example.com", False),
        (b"https://evilpages.example.com", False),
        (b"https://a.pages.example.com:8443", False),
        (b"http://a.pages.example.com", False),
    ],
)
def test_only_listed_pages_may_use_a_key(origin, is_allowed):
    """The whole origin counts: scheme, host and port; a star is any subdomain, and nothing else."""
    allowed = ("https://shop.example.org", "https://*.pages.example.com")

    assert allows(allowed, origin) is is_allowed


def test_origins_are_kept_as_browsers_send_them():
    """Capitals, a closing slash and the port that the scheme implies don't matter; nor repeats."""
    given = [
        "HTTPS://Shop.Example.org/",
        "https://shop.example.org:443",
        "http://localhost:3000",
        "http://[::1]:3000",
        "http://a.example:80",
        "https://*.example.org",
        "capacitor://localhost",
    ]

    assert read_origins(given) == [
        "https://shop.example.org",
        "http://localhost:3000",
        "http://[::1]:3000",
        "http://a.example",
        "https://*.example.org",
        "capacitor://localhost",
    ]
    assert read_origins(None) is None
    assert read_origins([]) == []


@pytest.mark.parametrize(
    "entry",
    [
        "*",
        "null",
        "",
        "shop.example.org",
        "https://",
        "https://*",
        "https://*.",
        "https://a.*.example.org",
        "https://*a.example.org",
        "https://*.*.example.org",
        "https://shop.example.org/path",
        "https://user@shop.example.org",
        "https://shop.example.org?x",
        "https://shop.example.org:port",
        "https://shöp.example.org",
        "https://shop.example.org\n",
        "https://a..example.org",
        "https://" + "a" * 300,
        5,
        None,
        ["https://a.example"],
    ],
)
def test_what_is_no_origin_is_refused(entry):
    """A list that would not work, or let in more than it says, is not taken."""
    with pytest.raises(InvalidQuery):
        read_origins([entry])


@pytest.mark.parametrize("value", ["https://a.example", {}, 5, ["https://a.example"] * 51])
def test_what_is_no_list_or_too_long_a_one_is_refused(value):
    """At most fifty, so that a look at it stays cheap."""
    assert MAX_ORIGINS == 50
    with pytest.raises(InvalidQuery):
        read_origins(value)
