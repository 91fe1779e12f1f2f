"""The interface, published; and what all answers have."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import httpx
import pytest

SPEC = files("analytics_collector").joinpath("_spec/openapi.json")


@pytest.fixture
def browser(site: Any) -> Any:
    with httpx.Client(base_url=f"http://127.0.0.1:{site.port}") as client:
        yield client


def test_the_interface_is_published_as_the_specification_has_it(browser: httpx.Client) -> None:
    """So that generators and testers can work from a running collector."""
    answer = browser.get("/openapi.json")

    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == json.loads(SPEC.read_bytes())


def test_the_page_gets_all_it_needs_from_us(browser: httpx.Client) -> None:
    """No other host is named in it, and its policy lets no script in that is not a file of ours."""
    page = browser.get("/api-docs")
    sources = [part.split('"')[0] for part in page.text.replace("href=", "src=").split('src="')[1:]]
    answers = [browser.get(source) for source in sources]

    assert page.headers["content-type"].startswith("text/html")
    assert len(sources) == 3
    assert all(source.startswith("/api-docs/") for source in sources)
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert "unsafe-inline" not in page.headers["content-security-policy"].split("style-src")[0]
    assert "<script>" not in page.text
    assert b"3.1" in answers[1].content  # the release of Swagger UI reads OpenAPI 3.1


@pytest.mark.parametrize("name", ["LICENSE", "..%2f__init__.py", "swagger-editor.js", "%00"])
def test_nothing_else_of_the_package_is_published(browser: httpx.Client, name: str) -> None:
    """Whatever the path looks like."""
    assert browser.get(f"/api-docs/{name}").status_code == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/livez"),
        ("GET", "/metrics"),
        ("GET", "/nowhere"),
        ("POST", "/livez"),
        ("POST", "/api/v1/events"),
        ("GET", "/api/v1/workflows"),
        ("GET", "/openapi.json"),
        ("GET", "/api-docs"),
    ],
)
def test_every_answer_keeps_a_browser_careful(
    browser: httpx.Client, method: str, path: str
) -> None:
    """It can't be framed, sniffed into something else, or kept; and it names no server."""
    headers = browser.request(method, path).headers

    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["cache-control"] == "no-store"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert "server" not in headers
    assert "strict-transport-security" not in headers


def test_the_answer_to_a_fault_of_ours_has_them_too(site: Any) -> None:
    """And tells nothing of where it happened."""
    port = site.variant(probes=None)
    answer = httpx.get(f"http://127.0.0.1:{port}/readyz", headers={"x-request-id": "r-1"})

    assert (answer.status_code, answer.json()["code"]) == (503, "INTERNAL_ERROR")
    assert answer.headers["x-request-id"] == answer.json()["requestId"] == "r-1"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "Error" not in answer.json()["error"] and "line" not in answer.text
