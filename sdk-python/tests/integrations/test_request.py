"""What strangers send with a request, and what events say of it."""

from uuid import UUID

import pytest

from analytics_sdk.integrations._options import checked_options
from analytics_sdk.integrations._request import (
    MAX_TEXT_CHARS,
    address_of,
    headers_of,
    locale_of,
    quoted,
    request_id_of,
    scope_of,
    template_of,
    trace_id_of,
)

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"


def scope(headers=None, *, scheme="http", path="/a", query="", ip="192.0.2.1", **options):
    return scope_of(
        checked_options(options), headers or {}, scheme=scheme, path=path, query=query, ip=ip
    )


@pytest.mark.parametrize(
    ("header", "trace"),
    [
        (f"00-{TRACE}-{SPAN}-01", TRACE),
        (f" 00-{TRACE}-{SPAN}-00 ", TRACE),
        (f"cc-{TRACE}-{SPAN}-01-what-comes-later", TRACE),
        (f"01-{TRACE}-{SPAN}-01", TRACE),
        (f"00-{TRACE}-{SPAN}-01-more", None),
        (f"00-{TRACE}-{SPAN}-01-", None),
        (f"01-{TRACE}-{SPAN}-01more", None),
        (f"ff-{TRACE}-{SPAN}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE.upper()}-{SPAN}-01", None),
        (f"00-{TRACE[1:]}-{SPAN}-01", None),
        (f"00-{TRACE}-{SPAN}-1", None),
        (f"00-{TRACE}-{SPAN}", None),
        (f"00-{TRACE}-{SPAN}-01,00-{TRACE}-{SPAN}-01", None),
        (f"00-{TRACE}-{SPAN}-01\n", None),
        ("", None),
    ],
)
def test_the_trace_id_is_taken_as_w3c_has_it(header, trace):
    """A version of the future may say more; what is not valid is as good as absent."""
    assert trace_id_of(header) == trace


@pytest.mark.parametrize("given", ["a", "req-1", "A.b_c:d-9", "x" * 128])
def test_a_request_keeps_the_id_it_came_with(given):
    """So that the events of one request can be found in all services."""
    assert request_id_of(given) == given


@pytest.mark.parametrize("given", ["", "x" * 129, "a b", "a\n", "ä", "<script>", "a;b"])
def test_a_request_without_a_good_id_gets_one(given):
    """Each its own."""
    first, second = request_id_of(given), request_id_of(given)

    assert UUID(first).version == UUID(second).version == 4
    assert first != second


def test_the_browser_ids_come_from_headers_first():
    """A page's own call says exactly who it is; the cookie is the fallback, one by one."""
    cookie = "analytics_anonymous_id=c-anon; analytics_session_id=c-session"
    found = scope({"x-analytics-anonymous-id": "h-anon", "cookie": cookie})

    assert (found.anonymous_id, found.session_id) == ("h-anon", "c-session")


@pytest.mark.parametrize(
    ("cookie", "anonymous_id"),
    [
        ("a=b; analytics_anonymous_id=x; c=d", "x"),
        ("analytics_anonymous_id=x", "x"),
        (' analytics_anonymous_id="x y" ', "x y"),
        ("analytics_anonymous_id=%C3%A4%3B", "ä;"),
        ("analytics_anonymous_id=first; analytics_anonymous_id=second", "first"),
        ("my_analytics_anonymous_id=x", None),
        ("a=analytics_anonymous_id=x", None),
        ("analytics_anonymous_id=", None),
        ("analytics_anonymous_id=%00", None),
        (f"analytics_anonymous_id={'x' * 255}", "x" * 255),
        (f"analytics_anonymous_id={'x' * 256}", None),
        ("analytics_anonymous_id", None),
        (";;;analytics_;=;", None),
    ],
)
def test_the_anonymous_id_is_found_among_the_cookies(cookie, anonymous_id):
    """And nothing that only looks like it."""
    assert scope({"cookie": cookie}).anonymous_id == anonymous_id


@pytest.mark.parametrize("bad", ["", "x" * 256, "a\x00b", "a\x7fb", "a\ud800"])
def test_a_header_that_is_no_id_is_ignored(bad):
    """The cookie holds then."""
    found = scope({"x-analytics-session-id": bad, "cookie": "analytics_session_id=s"})

    assert found.session_id == "s"


def test_queries_stay_out_unless_they_are_wanted():
    """They are where tokens and addresses hide."""
    headers = {"host": "shop.test", "referer": "https://mail.test/read?token=SECRET#SECRET"}
    shy = scope(headers, path="/reset", query="token=SECRET")
    open_ = scope(headers, path="/reset", query="token=SECRET", capture_query=True)

    assert shy.context["page"] == {
        "path": "/reset",
        "url": "http://shop.test/reset",
        "referrer": "https://mail.test/read",
    }
    assert open_.context["page"] == {
        "path": "/reset",
        "url": "http://shop.test/reset?token=SECRET",
        "search": "?token=SECRET",
        "referrer": "https://mail.test/read?token=SECRET#SECRET",
    }


def test_a_request_without_a_host_has_no_url():
    """HTTP/1.0 needs none."""
    assert scope().context["page"] == {"path": "/a"}


def test_forwarded_headers_mean_nothing_by_default():
    """Anybody can send them."""
    forwarded = {
        "host": "shop.test",
        "x-forwarded-for": "203.0.113.9",
        "x-forwarded-host": "evil.test",
        "x-forwarded-proto": "https",
    }
    context = scope(forwarded).context

    assert context["ip"] == "192.0.2.1"
    assert context["page"]["url"] == "http://shop.test/a"


@pytest.mark.parametrize(
    ("trusted", "header", "ip"),
    [
        (True, "203.0.113.9", "203.0.113.9"),
        (True, "6.6.6.6, 203.0.113.9", "203.0.113.9"),
        (2, "6.6.6.6, 203.0.113.9, 198.51.100.1", "203.0.113.9"),
        (3, "203.0.113.9", "203.0.113.9"),
        (True, "203.0.113.9:4711", "203.0.113.9"),
        (True, "[2001:db8::1]:4711", "2001:db8::1"),
        (True, "2001:DB8::1", "2001:db8::1"),
        (True, "[fe80::1%<script>]:1", "fe80::1"),
        (True, "unknown", "192.0.2.1"),
        (True, "<script>", "192.0.2.1"),
        (True, "", "192.0.2.1"),
        (True, ",", "192.0.2.1"),
    ],
)
def test_the_address_is_what_the_trusted_proxy_saw(trusted, header, ip):
    """What stands before its entry, a stranger may have written."""
    headers = {"x-forwarded-for": header}

    assert scope(headers, trust_forwarded=trusted).context["ip"] == ip


@pytest.mark.parametrize("text", ["1.2.3", "1%\n", "1.2.3.4.5", "x", "]:", ":", "[", ""])
def test_what_is_no_address_is_none(text):
    """Whatever it is."""
    assert address_of(text) is None


def test_the_url_is_what_the_trusted_proxy_saw():
    """It takes TLS away, and often the host."""
    headers = {
        "host": "internal:8000",
        "x-forwarded-host": "shop.test",
        "x-forwarded-proto": "https",
    }
    page = scope(headers, trust_forwarded=True).context["page"]
    odd = {**headers, "x-forwarded-proto": "javascript"}

    assert page["url"] == "https://shop.test/a"
    assert scope(odd, trust_forwarded=True).context["page"]["url"] == "http://shop.test/a"


def test_the_address_can_be_left_out():
    """Where the law is strict."""
    assert "ip" not in scope(capture_ip=False).context


@pytest.mark.parametrize(
    ("header", "locale"),
    [
        ("de-DE,de;q=0.9,en;q=0.8", "de-DE"),
        ("en", "en"),
        (" zh-Hant-TW;q=0.5", "zh-Hant-TW"),
        ("*", None),
        ("", None),
        ("<b>", None),
    ],
)
def test_the_locale_is_the_first_language(header, locale):
    """As browsers sort them."""
    assert locale_of(header) == locale


def test_a_stranger_does_not_choose_how_large_an_event_is():
    """Servers let 8 KiB and more into a header."""
    long = "x" * 50_000
    context = scope(
        {"user-agent": long, "referer": long, "host": long, "accept-language": long},
        path=f"/{long}",
        query=long,
        capture_query=True,
    ).context
    texts = [context["userAgent"], *context["page"].values()]

    assert {len(text) for text in texts} == {MAX_TEXT_CHARS}
    assert len(context["locale"]) <= 8


def test_headers_are_read_from_an_environ():
    """The names are the only difference."""
    environ = {"HTTP_USER_AGENT": "curl", "HTTP_X_REQUEST_ID": "r", "HTTP_OTHER": "?", "A": 1}

    assert headers_of(environ) == {"user-agent": "curl", "x-request-id": "r"}


@pytest.mark.parametrize(
    ("path", "encoded"),
    [("/a b/ä", "/a%20b/%C3%A4"), (b"/\xff", "/%FF"), ("/a:@~", "/a:@~"), ("/\ud800", "/%3F")],
)
def test_paths_are_encoded_as_browsers_do(path, encoded):
    """So that pages seen by the browser and by the server are the same pages."""
    assert quoted(path) == encoded


@pytest.mark.parametrize(
    ("rule", "template"),
    [
        ("/orders/<int:id>", "/orders/{id}"),
        ("/orders/<id>/<path:rest>", "/orders/{id}/{rest}"),
        ("/<regex('[a-z]+'):name>", "/{name}"),
        ("/plain/", "/plain/"),
        (r"^articles/(?P<year>[0-9]{4})/$", "articles/{year}/"),
        (r"api/^v1/(?P<pk>\d+)$", "api/v1/{pk}"),
        (r"^((?P<a>x)|y)$", r"({a}|y)"),
    ],
)
def test_rules_of_all_frameworks_look_alike(rule, template):
    """One notation in all funnels."""
    assert template_of(rule) == template
