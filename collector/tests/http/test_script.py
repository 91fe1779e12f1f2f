"""The browser SDK, served."""

from __future__ import annotations

import gzip
from importlib.resources import files
from typing import Any

import httpx
import pytest

SCRIPT = files("analytics_collector.http").joinpath("sdk.js").read_bytes()


@pytest.fixture
def load(site: Any) -> Any:
    """Ask for the script as a browser does that takes no encoding but those it is given."""

    def ask(method: str = "GET", accept_encoding: str = "identity", **headers: str) -> Any:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return site.ask(method, "/js/sdk.js", headers={"accept-encoding": accept_encoding, **sent})

    return ask


def test_a_page_gets_the_script_from_where_its_events_go(load: Any) -> None:
    """As a script: a browser that may not guess runs nothing else."""
    answer = load()

    assert answer.status_code == 200
    assert answer.content == SCRIPT
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "content-encoding" not in answer.headers


def test_pages_of_all_origins_may_load_it(load: Any) -> None:
    """With `integrity`, which wants CORS, and from pages that are isolated from other origins."""
    answer = load(origin="https://shop.example")

    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"


@pytest.mark.parametrize("accepted", ["gzip", "br;q=1.0, GZIP;q=0.8, *;q=0.1", "deflate , gzip"])
def test_it_is_compressed_for_those_who_take_that(load: Any, accepted: str) -> None:
    """To what the SDK promises to weigh, near enough."""
    answer = load(accept_encoding=accepted)

    assert answer.headers["content-encoding"] == "gzip"
    assert int(answer.headers["content-length"]) == len(gzip.compress(SCRIPT, 9, mtime=0))
    assert answer.content == SCRIPT  # the client has inflated it


@pytest.mark.parametrize("accepted", ["", "br", "gzip;q=0", "gzip; q=0.0, br", "notgzip"])
def test_it_is_as_it_is_for_all_others(load: Any, accepted: str) -> None:
    """`q=0` says no."""
    answer = load(accept_encoding=accepted)

    assert "content-encoding" not in answer.headers
    assert answer.content == SCRIPT


@pytest.mark.parametrize("accepted", ["identity", "gzip"])
def test_who_has_it_is_not_sent_it_again(load: Any, accepted: str) -> None:
    """After a day a browser asks whether there is a new one, and hears that there is none."""
    first = load(accept_encoding=accepted)
    tag = first.headers["etag"]
    again = [
        load(accept_encoding=accepted, if_none_match=known)
        for known in (tag, f"W/{tag}", f'"another", {tag}', "*")
    ]

    assert "max-age=86400" in first.headers["cache-control"]
    assert [(answer.status_code, answer.content) for answer in again] == [(304, b"")] * 4
    for name in ("etag", "cache-control", "vary", "access-control-allow-origin"):
        assert {answer.headers[name] for answer in again} == {first.headers[name]}


def test_a_cache_does_not_take_one_encoding_for_the_other(load: Any) -> None:
    """They are different bytes, so each has a tag of its own, and both say what it hangs on."""
    plain, packed = load(), load(accept_encoding="gzip")

    assert not plain.headers["etag"].startswith("W/")
    assert plain.headers["etag"] != packed.headers["etag"]
    assert plain.headers["vary"] == packed.headers["vary"] == "Accept-Encoding"
    assert load(if_none_match=packed.headers["etag"]).status_code == 200
    assert load(if_none_match='"another"').content == SCRIPT


def test_its_head_is_that_of_the_whole(load: Any) -> None:
    """As proxies and monitors ask."""
    head, whole = load("HEAD"), load()

    assert head.content == b""
    for name in ("content-length", "content-type", "etag", "cache-control"):
        assert head.headers[name] == whole.headers[name]


def test_nothing_else_is_asked_of_it(site: Any) -> None:
    """It is read, and nothing beside it is."""
    refused: httpx.Response = site.ask("POST", "/js/sdk.js")

    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
    assert site.ask("GET", "/js/script.py").status_code == 404
