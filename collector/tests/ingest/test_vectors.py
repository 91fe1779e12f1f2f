"""The cases of `spec/vectors/event.json` and `batch.json`: what they ask for is what we do."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from analytics_collector.errors import Refusal
from analytics_collector.ingest import decode
from analytics_collector.ingest.limit import RateLimiter
from analytics_collector.ingest.pipeline import Pipeline
from analytics_collector.ingest.validate import validate
from analytics_collector.ingest.write import GroupWriter
from analytics_collector.model import ApiKey, EventRow

KEY = ApiKey(1, 1, frozenset({"ingest"}), None)
SPEC = Path(__file__).parents[3] / "spec"
EVENTS = json.loads((SPEC / "vectors" / "event.json").read_text(encoding="utf-8"))
BATCHES = json.loads((SPEC / "vectors" / "batch.json").read_text(encoding="utf-8"))
STATUS = {
    code: entry["status"]
    for code, entry in json.loads((SPEC / "errors.json").read_text())["request"].items()
}
COLUMNS = {
    "messageId": "message_id",
    "userId": "user_id",
    "anonymousId": "anonymous_id",
    "sessionId": "session_id",
    "groupId": "group_id",
    "previousId": "previous_id",
    "clientTimestamp": "client_timestamp",
    "timestampClamped": "timestamp_clamped",
}


@pytest.mark.parametrize("case", EVENTS["cases"], ids=lambda case: case["name"])
def test_an_event_gets_the_verdict_of_the_vector(case):
    """The event is stored as the specification says, or refused with its code."""
    given, expect = case["given"], case["expect"]
    received_at = datetime.fromisoformat(given.get("receivedAt", EVENTS["receivedAt"]))

    batch = validate(decode.parse(body_of(given)), 1, received_at)

    if expect["verdict"] == "rejected":
        assert [rejection.code for rejection in batch.rejected] == [expect["code"]]
        return
    assert batch.rejected == []
    found = {name: column(batch.rows[0], name) for name in expect.get("stored", {})}
    assert strict(found) == strict({n: wanted(n, v) for n, v in expect.get("stored", {}).items()})


@pytest.mark.parametrize("case", BATCHES["cases"], ids=lambda case: case["name"])
def test_a_body_gets_the_answer_of_the_vector(case, run):
    """The whole body is taken or refused as the specification says."""
    given, expect = case["given"], case["expect"]
    body = given["body"].encode() if "body" in given else base64.b64decode(given["bodyBase64"])

    status, code, rejected = run(answer(body, given))

    assert (status, code) == (expect["status"], expect["code"])
    assert rejected == expect.get("rejected", [])


class TakesEverything:
    """An event store in which nothing is a duplicate."""

    async def append(self, rows: Sequence[EventRow]) -> list[int]:
        return []


def _no_limit(size_bytes: int) -> None:
    """Stand for a share of the bytes in flight that is never too large."""


async def answer(body: bytes, given: dict[str, Any]) -> tuple[int, str | None, list[Any]]:
    writer = GroupWriter(TakesEverything())
    writer.start()
    try:
        decode.check_content_type(given.get("contentType", "application/json"))
        gzipped = decode.is_gzip(given.get("contentEncoding"))
        accepted = await Pipeline(RateLimiter(1), writer).accept(body, gzipped, KEY, _no_limit)
    except Refusal as exc:
        return STATUS[exc.code], exc.code, verdicts(exc.details.get("rejected", []))
    finally:
        await writer.stop()
    return 202, None, verdicts(accepted.rejected)


def verdicts(rejected: Any) -> list[dict[str, Any]]:
    return [{"index": r.index, "messageId": r.message_id, "code": r.code} for r in rejected]


def body_of(given: dict[str, Any]) -> bytes:
    if "eventJson" in given and "repeat" not in given:
        text = given["eventJson"]
    else:
        event = json.loads(given["eventJson"]) if "eventJson" in given else given["event"]
        text = json.dumps(with_repeat(event, given.get("repeat")))
    sent_at = f', "sentAt": {json.dumps(given["sentAt"])}' if "sentAt" in given else ""
    return f'{{"batch": [{text}]{sent_at}}}'.encode()


def with_repeat(event: Any, repeat: dict[str, Any] | None) -> Any:
    if repeat is None:
        return event
    event = json.loads(json.dumps(event))  # cases are shared; ours to change is a copy
    *way, last = repeat["member"]
    holder = event
    for step in way:
        holder = holder[step]
    holder[last] = repeat["text"] * repeat["times"]
    return event


def column(row: EventRow, name: str) -> Any:
    value = getattr(row, COLUMNS.get(name, name))
    if name in ("properties", "traits", "context", "extra") and value is not None:
        return json.loads(value)
    return value.astimezone(UTC) if isinstance(value, datetime) else value


def wanted(name: str, value: Any) -> Any:
    if name in ("timestamp", "clientTimestamp") and value is not None:
        return datetime.fromisoformat(value).astimezone(UTC)
    return value


def strict(value: Any) -> Any:
    """Return *value* such that true does not equal 1, as it does not in JSON."""
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, dict):
        return {key: strict(item) for key, item in value.items()}
    return [strict(item) for item in value] if isinstance(value, list) else value
