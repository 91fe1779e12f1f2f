"""Dead letters over HTTP. All need the scope `admin`, and answer in the envelope.

A key looks after the letters of its own project; one of the installation's own project may name
another with `projectId`.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from analytics_collector.errors import InvalidQuery, Refusal
from analytics_collector.http.auth import authorize, project_asked, within
from analytics_collector.http.envelope import enveloped, read_body, read_document, success, whole
from analytics_collector.ingest.payload import MAX_PAYLOAD_BYTES, facts_of
from analytics_collector.ingest.replay import MAX_AT_ONCE
from analytics_collector.model import ApiKey, KeptLetter, LetterFilter
from analytics_collector.wire import wire_row

DEFAULT_LISTED, MAX_LISTED = 100, 500
_FILTERS: Final = ("reason", "stage", "name", "from", "to")
_MAX_ID: Final = 2**63 - 1


async def list_letters(request: Request) -> Response:
    """GET /api/v1/dead-letters: a project's, the newest first, without their payloads."""
    key = await authorize(request, "admin")
    query = request.query_params
    limit = _limit(query.get("limit", str(DEFAULT_LISTED)), MAX_LISTED)
    wanted = _filter(query, project_asked(query.get("projectId", key.project_id), key))
    wanted = wanted._replace(behind=_read_cursor(query.get("cursor")))
    found = await _letters(request).newest(wanted, limit + 1)
    page = found[:limit]
    more = len(found) > limit
    return success(
        {
            "deadLetters": [_wire(letter) for letter in page],
            "nextCursor": _cursor(page[-1].letter_id) if more else None,
        }
    )


async def get_letter(request: Request) -> Response:
    """GET /api/v1/dead-letters/{letter_id}: one, with its payload."""
    key = await authorize(request, "admin")
    return success(_wire(await _find(request, key)))


async def edit_letter(request: Request) -> Response:
    """PATCH /api/v1/dead-letters/{letter_id}: give it another payload, for a replay."""
    key = await authorize(request, "admin")
    letter_id = _letter_id(request)
    document = _read_exactly(await read_body(request, 2 * MAX_PAYLOAD_BYTES))
    if document.keys() != {"payload"} or not isinstance(document["payload"], dict):
        raise InvalidQuery("payload", "must be there, alone, and an event: a JSON object")
    payload = json.dumps(document["payload"], separators=(",", ":"))
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise InvalidQuery("payload", f"may have at most {MAX_PAYLOAD_BYTES} bytes as JSON")
    name, message_id = facts_of(document["payload"])
    edited = await _letters(request).edit(letter_id, within(key), payload, name, message_id)
    letter = await _find(request, key)
    if not edited:
        raise Refusal("CONFLICT", "What a consumer could not apply is stored, and stays as it is.")
    return success(_wire(letter))


async def delete_letter(request: Request) -> Response:
    """DELETE /api/v1/dead-letters/{letter_id}: remove it for good."""
    key = await authorize(request, "admin")
    letter_id = _letter_id(request)
    if not await _letters(request).remove(letter_id, within(key)):
        raise _not_found()
    return success({"letterId": letter_id})


async def replay_letters(request: Request) -> Response:
    """POST /api/v1/dead-letters/replay: send some through once more, the oldest first."""
    key = await authorize(request, "admin")
    document = await read_document(request)
    unknown = document.keys() - {"ids", "filter", "dryRun", "limit", "cursor", "projectId"}
    if unknown:
        raise InvalidQuery(min(unknown), "is not known here")
    if ("ids" in document) == ("filter" in document):
        raise InvalidQuery("filter", "must be there (`{}` is all), or `ids`, but not both")
    dry_run = document.get("dryRun", False)
    if not isinstance(dry_run, bool):
        raise InvalidQuery("dryRun", "must be true or false")
    limit = _limit(whole(document.get("limit", MAX_AT_ONCE)), MAX_AT_ONCE)
    project_id = project_asked(whole(document.get("projectId", key.project_id)), key)
    if "ids" in document:
        wanted = LetterFilter(project_id, ids=_ids(document["ids"]))
    else:
        wanted = _filter_document(document["filter"], project_id)
    wanted = wanted._replace(behind=_read_cursor(document.get("cursor")))
    replayer = request.app.state.services.replayer
    verdicts, last = await replayer.replay(wanted, limit, dry_run=dry_run)
    return success(
        {
            "dryRun": dry_run,
            "verdicts": [wire_row(verdict._asdict()) for verdict in verdicts],
            "nextCursor": None if last is None else _cursor(last),
        }
    )


_PATH = "/api/v1/dead-letters"

ROUTES: Final = [
    Route(path, enveloped(endpoint), methods=[method], name=endpoint.__name__)
    for method, path, endpoint in [
        ("GET", _PATH, list_letters),
        ("POST", _PATH + "/replay", replay_letters),
        ("GET", _PATH + "/{letter_id}", get_letter),
        ("PATCH", _PATH + "/{letter_id}", edit_letter),
        ("DELETE", _PATH + "/{letter_id}", delete_letter),
    ]
]


def _letters(request: Request) -> Any:
    return request.app.state.services.dead_letters


async def _find(request: Request, key: ApiKey) -> KeptLetter:
    wanted = LetterFilter(within(key), ids=(_letter_id(request),))
    found: list[KeptLetter] = await _letters(request).newest(wanted, 1, with_payload=True)
    if not found:
        raise _not_found()
    return found[0]


def _not_found() -> Refusal:
    return Refusal("NOT_FOUND", "There is no dead letter of that id.")


def _letter_id(request: Request) -> int:
    text = request.path_params["letter_id"]
    if not re.fullmatch("[0-9]{1,18}", text):
        raise _not_found()
    return int(text)


def _filter_document(value: Any, project_id: int) -> LetterFilter:
    if not isinstance(value, dict):
        raise InvalidQuery("filter", "must be a JSON object")
    for name in value.keys() - set(_FILTERS):
        raise InvalidQuery(f"filter.{name}", f"is not known here; known are {', '.join(_FILTERS)}")
    return _filter(value, project_id)


def _filter(values: Mapping[str, Any], project_id: int) -> LetterFilter:
    return LetterFilter(
        project_id,
        _text(values, "reason"),
        _text(values, "stage"),
        _text(values, "name"),
        _time(values, "from"),
        _time(values, "to"),
    )


def _text(values: Mapping[str, Any], name: str) -> str | None:
    value = values.get(name)
    if value is None or (isinstance(value, str) and "\0" not in value and _is_unicode(value)):
        return value
    raise InvalidQuery(name, "must be a text")


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _time(values: Mapping[str, Any], name: str) -> datetime | None:
    value = values.get(name)
    if value is None:
        return None
    try:
        # The plus of an offset, where it was not written as %2B.
        time = datetime.fromisoformat(value.replace(" ", "+") if "T" in value else value)
        if time.tzinfo is not None and 1 < time.year < 9999:
            return time
    except (AttributeError, TypeError, ValueError):
        pass  # told below, as that the offset is missing
    raise InvalidQuery(name, "must be a time with its offset: 2027-01-31T12:00:00Z")


def _limit(value: Any, most: int) -> int:
    if isinstance(value, str) and re.fullmatch("[0-9]{1,4}", value):
        value = int(value)
    if type(value) is not int or not 1 <= value <= most:
        raise InvalidQuery("limit", f"must be a whole number from 1 to {most}")
    return value


def _ids(value: Any) -> tuple[int, ...]:
    value = [whole(entry) for entry in value] if isinstance(value, list) else value
    if (
        not isinstance(value, list)
        or not 1 <= len(value) <= MAX_AT_ONCE
        or any(type(letter_id) is not int or not 0 < letter_id <= _MAX_ID for letter_id in value)
    ):
        raise InvalidQuery("ids", f"must be a list of 1 to {MAX_AT_ONCE} ids of dead letters")
    return tuple(value)


def _cursor(letter_id: int) -> str:
    return base64.urlsafe_b64encode(b"1:%d" % letter_id).decode().rstrip("=")


def _read_cursor(value: Any) -> int | None:
    if value is None:
        return None
    try:
        text = base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))
    except (TypeError, ValueError):
        text = b""
    found = re.fullmatch(rb"1:([0-9]{1,18})", text)
    if found is None:
        raise InvalidQuery("cursor", "must be the nextCursor of an answer")
    return int(found[1])


def _read_exactly(body: bytes) -> dict[str, Any]:
    """Return the document with every number as it stands there, however long."""
    try:
        document = json.loads(body, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError) as exc:
        raise InvalidQuery("body", "is not JSON, or nested too deeply") from exc
    if not isinstance(document, dict):
        raise InvalidQuery("body", "must be a JSON object")
    return document


def _finite(digits: str) -> float:
    number = float(digits)
    return number if math.isfinite(number) else _refuse(digits)


def _refuse(text: str) -> float:
    raise ValueError(f"{text} is no number")


def _wire(letter: KeptLetter) -> dict[str, Any]:
    content = wire_row(letter._asdict())
    payload = content.pop("payload")
    if payload is not None:
        # As it stands: a parser would change what it can't hold.
        content["payload"] = orjson.Fragment(payload)
    return content
