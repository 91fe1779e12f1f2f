"""The plain schemas, run over the cases that every implementation runs."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CASES = json.loads((ROOT / "spec/vectors/event.json").read_text(encoding="utf-8"))["cases"]
CODES = json.loads((ROOT / "spec/errors.json").read_text(encoding="utf-8"))["event"]


@pytest.fixture(scope="module")
def spec(agree: ModuleType) -> Any:
    """Return the specification of this checkout, read once."""
    return agree.Spec(ROOT)


@pytest.fixture(scope="module")
def validator(spec: Any) -> Any:
    """Return schema/event.json, compiled."""
    return spec.validator("event.json")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_schema_gives_the_verdict_of_the_vector(
    agree: ModuleType, spec: Any, validator: Any, case: dict[str, Any]
) -> None:
    """What the schema can say it says as the vector does; the rest it leaves to the collector."""
    expected = case["expect"].get("code") if case["by"] == "schema" else None

    assert agree.verdict(spec, validator, agree.event_of(case["given"])) == expected


# The store's own refusal cannot be brought about by an event.
# What a store refuses, or a project's own schemas, no vector can show.
@pytest.mark.parametrize("code", sorted(CODES.keys() - {"INTERNAL_INVALID", "SCHEMA_VIOLATION"}))
def test_every_event_code_has_a_vector(code: str) -> None:
    """A refusal that no case shows is one that nobody has seen."""
    assert code in {case["expect"].get("code") for case in CASES}


ANSWER = {
    "status": "accepted",
    "eventCount": 2,
    "queuedId": "batch_1",
    "processingAt": "2026-11-20T10:00:31.204Z",
    "duplicates": 1,
    "rejected": [
        {
            "index": 1,
            "messageId": "01935a2e-7c1b-7d10-a3a4-5b0c6f1c9d11",
            "code": "MISSING_NAME",
            "message": "`name` must be ...",
            "field": "name",
        }
    ],
}
ERROR = {"error": "Too many.", "code": "RATE_LIMITED", "requestId": "4f0c", "retryAfter": 3}


def test_answers_of_the_chapter_are_valid(spec: Any) -> None:
    """What chapter 4 shows is what the schemas describe; members may be added."""
    assert spec.validator("answer.json").is_valid({**ANSWER, "durability": "committed"})
    assert spec.validator("error.json").is_valid({**ERROR, "hint": "x"})
    assert spec.validator("error.json").is_valid({"error": "Late.", "code": "REQUEST_TIMEOUT"})


@pytest.mark.parametrize(
    ("schema", "answer"),
    [
        ("answer.json", {**ANSWER, "eventCount": "2"}),
        ("answer.json", {**ANSWER, "status": "ok"}),
        ("answer.json", {**ANSWER, "rejected": [{"index": 1}]}),
        ("error.json", {**ERROR, "code": "TEAPOT"}),
        ("error.json", {**ERROR, "requestId": "a b"}),
        ("error.json", {"error": "e", "code": "AUTH_FAILED"}),
        ("error.json", {"error": "e", "code": "OVERLOADED", "requestId": "r"}),
        ("error.json", {"error": "e", "code": "ALL_EVENTS_REJECTED", "requestId": "r"}),
    ],
)
def test_answers_that_lack_something_are_not_valid(
    spec: Any, schema: str, answer: dict[str, Any]
) -> None:
    """A 429 or 503 says when to come back, a refusal of all events says why for each."""
    assert not spec.validator(schema).is_valid(answer)
