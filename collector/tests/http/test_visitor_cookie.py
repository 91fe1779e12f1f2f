"""A visitor whom the browser forgets is remembered in a cookie, if project and key ask for it."""

from __future__ import annotations

from http.cookies import SimpleCookie
from uuid import uuid4

import pytest

from analytics_collector.http.visitor_cookie import NAME

PAGE = "https://shop.example.org"


def event(**members):
    return {"type": "track", "name": "e", "messageId": str(uuid4()), **members}


@pytest.fixture(scope="module")
def new_key(site):
    """Make a key of a project that remembers visitors."""
    site.new_key(["ingest"], "remembers")
    site.sql(
        """update projects set settings = '{"browser": {"anonymousIdCookie": true}}'
        where name = 'remembers'"""
    )

    def make(*origins, project="remembers"):
        key = site.new_key(["ingest"], project)
        site.sql(
            "update api_keys set allowed_origins = $1"
            " where key_id = (select max(key_id) from api_keys)",
            list(origins) or None,
        )
        return key

    return make


@pytest.fixture(scope="module")
def key(new_key):
    return new_key(PAGE)


@pytest.fixture
def visit(site, key):
    """Send events as a page does, with the visitor's cookie if there is one."""

    def send(*events, cookie=None, key=key, origin=PAGE, port=None, **headers):
        if cookie is not None:
            headers["cookie"] = f"theme=dark; {NAME}={cookie}"
        answer = site.post(*events, key=key, origin=origin, port=port, **headers)
        assert answer.status_code == 202
        return answer

    return send


def cookie_of(answer):
    found = SimpleCookie(answer.headers.get("set-cookie", ""))
    return found[NAME].value if NAME in found else None


def stored_id(site, sent):
    (record,) = site.sql(
        "select anonymous_id from events where message_id = $1::uuid", sent["messageId"]
    )
    return record["anonymous_id"]


def test_a_page_that_forgot_its_visitor_is_told_who_it_was(site, visit):
    """ANS-23: what it sent meanwhile is that visitor's, too."""
    first = visit(event(anonymousId="a-1"))
    forgot = event()
    answer = visit(forgot, cookie=cookie_of(first))

    assert first.json()["anonymousId"] == answer.json()["anonymousId"] == "a-1"
    assert cookie_of(answer) == "a-1"
    assert stored_id(site, forgot) == "a-1"


def test_a_new_visitor_gets_an_id_that_stays_when_the_batch_comes_again(site, visit):
    """The answer may have been lost: the next one must not tell of somebody else."""
    sent, other = event(), event()
    answers = [visit(sent), visit(sent), visit(other)]
    told = [answer.json()["anonymousId"] for answer in answers]

    assert told[0] == told[1] == stored_id(site, sent) != told[2]
    assert [cookie_of(answer) for answer in answers] == told


def test_what_the_page_says_goes_before_the_cookie(site, visit):
    """After a logout it names another visitor, who is remembered from then on."""
    nobody, named = event(), event(anonymousId="new")
    answer = visit(nobody, named, event(anonymousId="third"), cookie="old")

    assert (answer.json()["anonymousId"], cookie_of(answer)) == ("new", "new")
    assert (stored_id(site, nobody), stored_id(site, named)) == ("new", "new")


def test_an_event_that_names_a_user_stays_as_it_is(site, visit):
    """Several users may share a browser; who is meant has been said."""
    sent = event(userId="u-1")
    visit(sent, cookie="a-1")

    assert stored_id(site, sent) is None


@pytest.mark.parametrize("bad", ["a;b", "a\r\nSet-Cookie: x=y", "ü", "a b", 'a"b', "x,y", "%41"])
def test_an_id_that_no_cookie_can_hold_is_used_and_not_remembered(site, visit, bad):
    """Nor does it smuggle anything into the headers."""
    sent = event(anonymousId=bad)
    answer = visit(sent, cookie="old")

    assert answer.json()["anonymousId"] == stored_id(site, sent) == bad
    assert "set-cookie" not in answer.headers
    assert "x=y" not in str(answer.headers)


@pytest.mark.parametrize("cookie", ["", "a b", "%00", "x" * 256])
def test_a_cookie_that_holds_no_id_is_none(visit, cookie):
    """It has been made up: an event never gets what it could not have named itself."""
    assert len(visit(event(), cookie=cookie).json()["anonymousId"]) == 36


def test_the_cookie_is_the_servers_own_and_lasts(visit):
    """ANS-24: no script reads it, no other site's page brings it along."""
    parts = visit(event(anonymousId="a-1")).headers["set-cookie"].split("; ")

    assert parts == [f"{NAME}=a-1", "Path=/", "Max-Age=34560000", "HttpOnly", "SameSite=Lax"]


@pytest.mark.parametrize(
    ("proxies", "proto", "is_secure"),
    [(0, "https", False), (1, "https", True), (1, "http", False), (2, "https, http", True)],
)
def test_behind_a_proxy_that_encrypts_the_cookie_is_secure(
    site, key, visit, proxies, proto, is_secure
):
    """By the word of a proxy that is trusted, and of nobody else."""
    port = site.variant(trusted_proxies=proxies)
    answer = visit(event(anonymousId="a-1"), port=port, x_forwarded_proto=proto)

    assert ("Secure" in answer.headers["set-cookie"].split("; ")) == is_secure


@pytest.mark.parametrize("case", ["off", "any origin", "star", "no page", "objects"])
def test_nobody_is_remembered_who_should_not_be(site, new_key, key, case):
    """ANS-25: the project, the key and the browser all have a say."""
    keys = {
        "off": lambda: new_key(PAGE, project="mine"),
        "any origin": new_key,
        "star": lambda: new_key("https://*.example.org"),
    }
    used = keys.get(case, lambda: key)()
    headers = {"origin": PAGE, "cookie": f"{NAME}=a-1"}
    if case == "no page":
        del headers["origin"]
    if case == "objects":
        headers["sec_gpc"] = "1"
    sent = event()
    answer = site.post(sent, key=used, **headers)

    assert answer.status_code == 202
    assert "anonymousId" not in answer.json()
    assert "set-cookie" not in answer.headers
    assert stored_id(site, sent) is None


def test_only_a_page_that_the_key_names_reads_an_answer_to_its_cookies(site, new_key, key):
    """ANS-22: and any page reads why it was refused, or it would come again and again."""

    def credentials(**headers):
        answer = site.post(event(), origin=PAGE, **headers)
        return answer.status_code, answer.headers.get("access-control-allow-credentials")

    assert credentials(key=key) == (202, "true")
    assert credentials(key=new_key(PAGE, project="mine")) == (202, "true")
    assert credentials(key=new_key()) == (202, None)
    assert credentials(key=new_key("https://*.example.org")) == (202, None)
    assert credentials(key="no key") == (401, "true")
    assert credentials(key=new_key("https://other.example")) == (403, "true")
