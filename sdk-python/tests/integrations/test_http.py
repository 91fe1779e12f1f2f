"""What the web integrations share: requests as strangers send them, and how they end."""

import asyncio
import random
from dataclasses import fields
from uuid import UUID

import pytest

from analytics_sdk import ConfigError
from analytics_sdk.context import current
from analytics_sdk.integrations._http import (
    HEADERS,
    MAX_TEXT_CHARS,
    Body,
    Exchange,
    GivenOptions,
    Options,
    address_of,
    checked_options,
    headers_of,
    locale_of,
    name_of,
    quoted,
    request_id_of,
    scope_of,
    split_settings,
    template_of,
    trace_id_of,
)

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"


def scope(headers=None, *, scheme="http", path="/a", query="", ip="192.0.2.1", **options):
    return scope_of(
        checked_options(options), headers or {}, scheme=scheme, path=path, query=query, ip=ip
    )


# What a request says


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


# Names


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


def test_names_are_bounded_whatever_strangers_send():
    """A name for each path or method that a scanner tries would bury the others."""
    assert name_of("GET", None) == "GET (no route)"
    assert name_of("GET", "/a") == "GET /a"
    assert name_of("GET", "/\n\x00a") == "GET /  a"
    assert len(name_of("GET", "/" + "x" * 500)) == 255


# How it ends


class Recorder:
    """A stand-in for a client at the only seam an exchange knows: `track()`."""

    def __init__(self):
        self.calls = []

    def track(self, name, properties, *, context):
        self.calls.append((name, properties, context, current.get()))
        return True


@pytest.fixture
def recorder():
    return Recorder()


def exchange(recorder, method="GET", request=None, **options):
    checked = checked_options({"client": recorder, **options})
    return Exchange(checked, request, method, scope())


@pytest.mark.parametrize(
    ("status_code", "options", "status"),
    [
        (200, {}, "SUCCESS"),
        (302, {}, "SUCCESS"),
        (404, {}, "SUCCESS"),
        (499, {}, "SUCCESS"),
        (500, {}, "FAILURE"),
        (503, {}, "FAILURE"),
        (404, {"failure_from_status": 400}, "FAILURE"),
        (404, {"failure_from_status": 405}, "SUCCESS"),
        (None, {}, "FAILURE"),
    ],
)
def test_the_status_code_decides(recorder, status_code, options, status):
    """What the server broke is a failure; what the client got wrong is not, unless one says so."""
    request = exchange(recorder, route=lambda _: "/orders/{id}", **options)
    request.status_code = status_code
    request.finish()

    [(name, properties, context, inside)] = recorder.calls
    assert name == "GET /orders/{id}"
    assert properties.pop("durationMs") >= 0
    code = {} if status_code is None else {"statusCode": status_code}
    assert properties == {"route": "/orders/{id}", "method": "GET", "status": status, **code}
    assert context == {"category": "USER_ACTION"}
    assert inside is request.scope
    assert current.get() is None


@pytest.mark.parametrize(
    ("error", "code"), [(KeyError("secret"), {"statusCode": 500}), (asyncio.CancelledError(), {})]
)
def test_what_is_raised_is_a_failure_and_goes_on(recorder, error, code):
    """Of a cancelled request nobody gets an answer, so it has no code."""
    request = exchange(recorder)
    with pytest.raises(type(error)), request:
        raise error

    [(_, properties, _, _)] = recorder.calls
    del properties["durationMs"]
    assert properties == {
        "method": "GET",
        "status": "FAILURE",
        "errorType": type(error).__name__,
        **code,
    }


def test_an_error_that_became_an_answer_is_named_only_if_that_is_a_failure(recorder):
    """A 404 that was raised is an answer like any other."""
    for status_code in (404, 500):
        request = exchange(recorder)
        request.error_type, request.status_code = "Oops", status_code
        request.finish()

    assert [call[1].get("errorType") for call in recorder.calls] == [None, "Oops"]


def test_an_exchange_ends_once(recorder):
    """However many signs of its end there are."""
    request = exchange(recorder)
    request.finish()
    request.finish()
    with pytest.raises(KeyError), request:
        raise KeyError

    assert len(recorder.calls) == 1


def test_without_operations_there_is_only_the_scope(recorder):
    """For those who track by hand."""
    request = exchange(recorder, operations=False)
    with request:
        assert current.get() is request.scope
    request.finish()

    assert recorder.calls == []


@pytest.mark.parametrize("method", ["get", "X" * 300, "PROPFIND\n", ""])
def test_methods_that_nobody_knows_share_a_name(recorder, method):
    """They are a stranger's to choose."""
    request = exchange(recorder, method)
    request.finish()

    assert recorder.calls[0][0] == "OTHER (no route)"


def test_a_block_that_spans_pieces_holds_between_them(recorder):
    """And nothing of it shows outside."""
    request = exchange(recorder)

    def pieces():
        from analytics_sdk import context

        with context(user_id="inner"):
            yield current.get().user_id
            yield current.get().user_id
        yield current.get().user_id

    body = Body(request, pieces())
    seen = []
    for piece in body:
        assert current.get() is None
        seen.append(piece)

    assert seen == ["inner", "inner", None]
    assert recorder.calls[0][3] is request.scope


def test_what_close_raises_goes_on_and_is_a_failure(recorder):
    """It is the host's own."""

    class Pieces(list):
        def close(self):
            raise OSError

    body = Body(exchange(recorder), Pieces())
    with pytest.raises(OSError):
        body.close()

    assert recorder.calls[0][1]["errorType"] == "OSError"


# Hooks and options


def test_a_hook_that_fails_costs_the_request_nothing(recorder, sdk_log):
    """It counts as None, and the log says which and where."""

    def fail(request):
        raise ZeroDivisionError("SECRET")

    request = exchange(recorder, user_id=fail, route=fail)
    options = checked_options({"ignore": fail})
    request.finish()

    assert request.scope.user_id() is None
    assert recorder.calls[0][0] == "GET (no route)"
    assert options.ignores("/", object()) is False
    assert sorted(sdk_log.reasons()) == ["ignore_failed", "route_failed", "user_id_failed"]
    assert "SECRET" not in str([vars(record) for record in sdk_log.records])


@pytest.mark.parametrize("answer", [["a"], 5, b"/a", object()])
def test_a_route_that_is_no_text_is_none(recorder, answer):
    """Nothing else can be a name."""
    exchange(recorder, route=lambda _: answer).finish()

    assert recorder.calls[0][0] == "GET (no route)"


@pytest.mark.parametrize(
    ("path", "is_ignored"),
    [
        ("/health", True),
        ("/health/live", True),
        ("/healthy", False),
        ("/static/a.css", True),
        ("/static", True),
        ("/", False),
    ],
)
def test_prefixes_are_ignored_by_whole_segments(path, is_ignored):
    """/health is not /healthy."""
    options = checked_options({"ignore": ["/health", "/static/"]})

    assert options.ignores(path, None) is is_ignored


def test_by_default_nothing_is_ignored():
    """What is noise, the project knows."""
    assert checked_options({}).ignores("/health", None) is False


def test_every_wrong_option_is_named_at_once():
    """At the start, in words that say what would be right."""

    async def hook(request):
        return None

    wrong = {
        "client": "ak_live_x",
        "operations": 1,
        "category": "CLICK",
        "user_id": hook,
        "route": "/a",
        "ignore": "/health",
        "failure_from_status": 200,
        "capture_ip": None,
        "capture_query": "yes",
        "trust_forwarded": -1,
        "user": None,
    }
    with pytest.raises(ConfigError) as caught:
        checked_options(wrong)

    assert len(caught.value.mistakes) == len(wrong)
    assert all(name in " ".join(caught.value.mistakes) for name in wrong)


@pytest.mark.parametrize("ignore", [["health"], [1], 5, None])
def test_what_can_not_be_ignored_is_refused(ignore):
    """A prefix begins with a slash."""
    with pytest.raises(ConfigError, match="ignore must be"):
        checked_options({"ignore": ignore})


def test_the_options_that_are_told_are_those_that_are_taken():
    """What an editor completes is what works."""
    taken = {field.name for field in fields(Options) if field.init}

    assert taken == set(GivenOptions.__annotations__)


def test_settings_of_a_framework_are_told_apart():
    """One dict for the client and for the integration."""
    settings = {"api_key": "k", "batch_size": 5, "capture_ip": False, "oops": 1}

    assert split_settings(settings) == (
        {"api_key": "k", "batch_size": 5},
        {"capture_ip": False, "oops": 1},
    )


@pytest.mark.parametrize("settings", [None, [], "k", {"client": object(), "api_key": "k"}])
def test_settings_that_can_not_be_meant_are_refused(settings):
    """A client is made, or given."""
    with pytest.raises(ConfigError):
        split_settings(settings)


def test_no_request_is_too_odd(make_client, arrived):
    """Whatever bytes a server lets through: an event, as the spec has it."""
    client = make_client()
    options = checked_options({"client": client, "trust_forwarded": True, "capture_query": True})
    dice = random.Random(7)
    alphabet = [*map(chr, range(256)), "analytics_session_id=", "%", "00-", ", ", ";", '"', "https"]

    def noise():
        return "".join(dice.choices(alphabet, k=dice.randrange(60)))

    for _ in range(500):
        headers = {name: noise() for name in HEADERS if dice.random() < 0.8}
        odd = scope_of(
            options, headers, scheme=noise(), path=quoted(noise()), query=noise(), ip=noise()
        )
        request = Exchange(options, None, noise(), odd)
        request.finish()

    assert len(arrived(client)) == 500
    assert client.stats().refused == {}
