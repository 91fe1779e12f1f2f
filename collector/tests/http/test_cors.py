"""Web pages: which may send events with a key, and that none may read anything else."""

from __future__ import annotations

from uuid import uuid4

import httpx
import pytest

from analytics_collector.http.routes import routes

PAGE = "https://shop.example.org"
EVENTS = "/api/v1/events"


def event():
    return {"type": "track", "name": "e", "messageId": str(uuid4())}


def preflight(site, path, origin=PAGE, method="POST", headers="content-type,x-api-key"):
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": headers,
    }
    return site.ask("OPTIONS", path, headers=asked)


def listed(answer, header):
    return {part.strip().lower() for part in answer.headers[header].split(",")}


@pytest.fixture(scope="module")
def limited(site):
    """A key for two origins only."""
    made = site.ask(
        "POST",
        "/api/v1/admin/keys",
        headers={"x-api-key": site.keys["admin"]},
        json={"scopes": ["ingest"], "allowedOrigins": [PAGE, "https://*.example.com"]},
    )
    return made.json()["data"]["key"]


@pytest.mark.parametrize("origin", [PAGE, "https://anybody.example", "null"])
def test_a_preflight_is_answered_for_any_origin_and_believed_for_two_hours(site, origin):
    """It carries no key, so it can't know better; 7,200 s is what browsers remember at most."""
    answer = preflight(site, EVENTS, origin)

    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == origin
    assert answer.headers["access-control-max-age"] == "7200"
    assert listed(answer, "access-control-allow-methods") == {"post"}
    assert {"content-type", "content-encoding", "x-api-key", "x-request-id"} <= listed(
        answer, "access-control-allow-headers"
    )
    assert "origin" in listed(answer, "vary")
    assert answer.headers["access-control-allow-credentials"] == "true"


@pytest.mark.parametrize("origin", [PAGE, "https://www.example.com", "https://a.b.example.com"])
def test_a_page_that_the_key_allows_sends_events_and_reads_the_answer(site, limited, origin):
    """202, and the headers that a well-behaved client goes by can be read."""
    answer = site.post(event(), key=limited, origin=origin)

    assert answer.status_code == 202
    assert answer.headers["access-control-allow-origin"] == origin
    assert "origin" in listed(answer, "vary")
    assert listed(answer, "access-control-expose-headers") == {
        "retry-after",
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "x-ratelimit-reset",
        "x-request-id",
    }


def test_a_key_without_origins_may_be_used_by_any_page(site):
    """Until somebody says otherwise."""
    assert site.post(event(), origin="https://anybody.example").status_code == 202


@pytest.mark.parametrize(
    "origin",
    ["https://evil.net", "https://shop.example.org.evil.net", "https://example.com", "null"],
)
def test_a_page_that_the_key_does_not_allow_is_refused_and_can_read_why(site, limited, origin):
    """403 ORIGIN_NOT_ALLOWED, and nothing is stored."""
    before = len(site.names())

    answer = site.post(event(), key=limited, origin=origin)

    assert (answer.status_code, answer.json()["code"]) == (403, "ORIGIN_NOT_ALLOWED")
    assert answer.headers["access-control-allow-origin"] == origin
    assert len(site.names()) == before


def test_a_second_origin_does_not_smuggle_the_first(site, limited):
    """Every `Origin` of a request counts."""
    for origins in ([PAGE, "https://evil.net"], ["https://evil.net", PAGE]):
        headers = [("x-api-key", limited), *(("Origin", origin) for origin in origins)]
        answer = httpx.post(
            f"http://127.0.0.1:{site.port}{EVENTS}", headers=headers, json={"batch": [event()]}
        )
        assert answer.status_code == 403


def test_a_server_sends_no_origin_and_needs_none(site, limited):
    """The list is about web pages; the answer to a server has no word on them."""
    answer = site.post(event(), key=limited)

    assert answer.status_code == 202
    assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_a_page_can_read_how_long_to_wait(site):
    """A refusal, too, is readable: a page that can't see Retry-After would come back at once."""
    answer = site.post(event(), key="no key at all", origin=PAGE)

    assert answer.status_code == 401
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert "retry-after" in listed(answer, "access-control-expose-headers")


def test_a_page_can_read_that_the_fault_is_ours(site):
    """Else it would look like a broken network, and nobody would know when to come again."""
    port = site.variant(pipeline=None)
    answer = site.post(event(), port=port, origin=PAGE)

    assert (answer.status_code, answer.json()["code"]) == (503, "INTERNAL_ERROR")
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert "retry-after" in listed(answer, "access-control-expose-headers")
    assert "origin" in listed(answer, "vary")


def test_a_page_can_read_that_its_address_sends_too_much(new_site):
    """That is answered before anybody looks at where the request goes."""
    limited = new_site(rate_limit_address_requests_per_minute=1)
    answers = [limited.post(event(), key=None, origin=PAGE) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [401, 429]
    assert answers[1].headers["access-control-allow-origin"] == PAGE
    assert "retry-after" in listed(answers[1], "access-control-expose-headers")


def test_the_origins_of_a_key_hold_wherever_it_is_used(site):
    """A key for one site reads nothing for another, whatever it may do."""
    made = site.ask(
        "POST",
        "/api/v1/admin/keys",
        headers={"x-api-key": site.keys["admin"]},
        json={"scopes": ["read"], "allowedOrigins": [PAGE]},
    ).json()["data"]["key"]

    def ask(**headers):
        return site.ask("GET", "/api/v1/workflows", headers={"x-api-key": made, **headers})

    assert ask(Origin="https://evil.net").json()["code"] == "ORIGIN_NOT_ALLOWED"
    assert ask(Origin=PAGE).status_code == ask().status_code == 200


# What takes events from web pages; nothing else may be wrapped.
INGEST = {EVENTS}
# The browser SDK itself, which holds nothing of anybody's.
PUBLIC = {"/js/sdk.js"}
OTHERS = sorted({route.path for route in routes()} - INGEST - PUBLIC)


def test_what_takes_events_is_all_that_web_pages_may_use():
    """A new address is closed to foreign pages until it is listed here on purpose."""
    wrapped = {route.path for route in routes() if "OPTIONS" in (route.methods or ())}

    assert wrapped == INGEST


@pytest.mark.parametrize("path", OTHERS)
def test_no_foreign_page_reads_answers(site, path):
    """Neither a preflight nor an answer lets a page of another origin in."""
    filled = path.replace("{user_id:path}", "u").replace("{", "").replace("}", "")

    for method in ("GET", "POST", "PATCH", "DELETE"):
        answer = preflight(site, filled, method=method)
        assert answer.status_code in (404, 405)
        assert not [name for name in answer.headers if name.startswith("access-control-")]
    answer = site.ask("GET", filled, headers={"Origin": PAGE})
    assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_options_without_a_question_is_no_method(site):
    """What is no preflight is refused as before."""
    for headers in ({}, {"Origin": PAGE}, {"Access-Control-Request-Method": "POST"}):
        answer = site.ask("OPTIONS", EVENTS, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (405, "METHOD_NOT_ALLOWED")
        assert answer.headers["allow"] == "POST"
