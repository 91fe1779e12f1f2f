"""What no honest client sends: each file of the corpus, to a real server over a real socket."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import httpx
import pytest

import analytics_sdk
from analytics_collector._limits import MAX_BODY_BYTES
from analytics_collector.ingest.decode import inflate, parse
from harness.client import INGEST_PATH, Mint, Sender
from harness.collector import Collector, Serve
from harness.corpus import Case, gzip_bomb, load_cases
from harness.database import Database
from harness.processes import peak_rss_bytes
from harness.raw_http import RawAnswer, talk

CASES = load_cases()
MAX_SECONDS = 5.0
BOMB_MIB = 256
MAX_GROWTH_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True)
class Target:
    """A running server, and keys for it."""

    serve: Serve
    database: Database
    ingest_key: str
    read_key: str

    def send(self, case: Case) -> RawAnswer:
        """Send a case as it is meant."""
        return talk(self.serve.url, case.request(self.ingest_key, self.read_key))

    def takes_events(self) -> bool:
        """Return whether an honest client still gets what it came for."""
        with Sender(self.serve.url, self.ingest_key) as sender:
            return sender.send(Mint(1).events(2)).status == 202


@pytest.fixture(scope="module")
def target(collector: Collector) -> Iterator[Target]:
    """The one server that gets the whole corpus."""
    database = collector.database
    with collector.serve() as serve:
        yield Target(serve, database, database.new_key("ingest"), database.new_key("read"))


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES])
def test_a_bad_request_is_answered_as_the_manifest_says(target: Target, case: Case) -> None:
    """The right status, code and verdicts; nothing leaks; what was taken is stored exactly."""
    answer = target.send(case)

    assert _mistakes(case, answer) == []
    assert target.ingest_key.encode() not in answer.received
    assert b"Traceback" not in answer.received
    assert b'File "' not in answer.received
    assert answer.seconds < MAX_SECONDS
    for message_id, values in _wanted(case).items():
        stored = _read_back(target.database, message_id)
        assert _differences(stored, case.facts.get("stored_rows", 1), values) == []
    assert target.takes_events()


def test_bad_requests_leave_no_memory_behind(collector: Collector) -> None:
    """Beside what the largest good body takes, all of them twice cost (almost) nothing."""
    with _fresh_target(collector) as target:
        before = peak_rss_bytes(target.serve.pid)
        for _ in range(2):
            for case in CASES:
                target.send(case)

        assert peak_rss_bytes(target.serve.pid) - before < MAX_GROWTH_BYTES
        assert target.takes_events()
        assert target.serve.faults == []


def test_a_bomb_is_not_inflated(collector: Collector) -> None:
    """A quarter of a gigabyte in a few bytes: refused before it takes the memory."""
    bomb = gzip_bomb(BOMB_MIB)
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    with (
        _fresh_target(collector) as target,
        Sender(target.serve.url, target.ingest_key) as sender,
    ):
        before = peak_rss_bytes(target.serve.pid)
        answer = sender.request("POST", INGEST_PATH, bomb, headers)

        assert (answer.status, answer.json["code"]) == (413, "BODY_TOO_LARGE")
        assert peak_rss_bytes(target.serve.pid) - before < MAX_GROWTH_BYTES
        assert target.takes_events()


@contextmanager
def _fresh_target(collector: Collector) -> Iterator[Target]:
    """A server of which the peak is that of large but good bodies, plain and packed."""
    database = collector.database
    with collector.serve() as serve:
        target = Target(serve, database, database.new_key("ingest"), database.new_key("read"))
        events = [event | {"properties": {"text": "x" * 1_800}} for event in Mint(9).events(500)]
        body = json.dumps({"batch": events}).encode()
        assert len(body) > MAX_BODY_BYTES * 0.9
        with Sender(serve.url, target.ingest_key) as sender:
            for content, encoding in ((body, "identity"), (gzip.compress(body), "gzip")) * 2:
                headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
                assert sender.request("POST", INGEST_PATH, content, headers).status == 202
        yield target


def _mistakes(case: Case, answer: RawAnswer) -> list[str]:
    """Return in what the answer is not as expected."""
    expected = case.facts["expected_status"]
    verdicts = [(verdict["index"], verdict["code"]) for verdict in answer.body.get("rejected", [])]
    wanted = [(verdict["index"], verdict["code"]) for verdict in case.facts.get("rejected", [])]
    mistakes = []
    if not _is_expected(expected, answer):
        mistakes.append(f"status {answer.status}, not {expected}: {answer.received[:300]!r}")
    if answer.status is not None and answer.status >= 500 and answer.status != 503:
        mistakes.append(f"status {answer.status}")
    has_verdicts = expected in (202, "accepted_partial") or "rejected" in case.facts
    if has_verdicts and verdicts != wanted:
        mistakes.append(f"rejected {verdicts}, not {wanted}")
    if isinstance(expected, int) and expected >= 400 and not case.is_raw:
        code = case.facts["expected_code"]
        if answer.body.get("code") != code or not isinstance(answer.body.get("error"), str):
            mistakes.append(f"code {answer.body.get('code')}, not {code}")
    if answer.count > case.facts.get("max_responses", 1):
        mistakes.append(f"{answer.count} answers: a request was smuggled")
    return mistakes


def _is_expected(expected: int | str, answer: RawAnswer) -> bool:
    """Return whether the status is one of those that the manifest allows."""
    if expected == "accepted_partial":
        return answer.status == 202
    if isinstance(expected, int):
        return answer.status == expected
    allowed = expected.split("|")
    is_closed = answer.status is None or answer.status >= 400
    return str(answer.status) in allowed or "any" in allowed or ("close" in allowed and is_closed)


def _wanted(case: Case) -> dict[str, dict[str, Any]]:
    """Return what has to be stored of each event of a case: its id, and values of its members."""
    wanted: dict[str, dict[str, Any]] = dict(case.facts.get("stored_events", {}))
    if case.facts["expected_status"] in (202, "accepted_partial") and "mid" in case.facts:
        wanted[case.facts["mid"]] = case.facts.get("stored", {})
    return wanted


def _read_back(database: Database, message_id: str) -> list[dict[str, Any]]:
    """Return each stored event of this id, in the words of the manifest."""
    rows = database.fetch(
        "select name, project_id, user_id, properties, context from events where message_id = $1",
        message_id,
    )
    return [
        {"name": row["name"], "project": row["project_id"], "userId": row["user_id"]}
        | {
            f"{part}.{key}": value
            for part in ("properties", "context")
            for key, value in json.loads(row[part]).items()
        }
        for row in rows
    ]


def _differences(stored: list[dict[str, Any]], count: int, values: dict[str, Any]) -> list[str]:
    """Return in what the stored events are not what was sent; a type counts as well."""
    if len(stored) != count:
        return [f"{len(stored)} rows, not {count}"]
    return [
        f"{member} is {event.get(member)!r}, not {value!r}"
        for event in stored
        for member, value in values.items()
        if repr(event.get(member)) != repr(value)
    ]


class _Recording(httpx.HTTPTransport):
    """Sends what the SDK sends, and keeps the events as they are on the wire."""

    def __init__(self) -> None:
        super().__init__()
        self.properties: dict[str, Any] = {}

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Look into the body on its way."""
        body = request.read()
        if request.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        for event in _exactly(body)["batch"]:
            self.properties[event["userId"]] = event.get("properties", {})
        return super().handle_request(request)


def test_what_is_tracked_is_what_is_stored_and_what_is_answered(target: Target) -> None:
    """The properties of every good event of the corpus: the same JSON at each place (BAD-13)."""
    tracked = {f"bad-13-{number}": each for number, each in enumerate(_good_properties())}
    recording = _Recording()
    client = analytics_sdk.Client(target.ingest_key, target.serve.url, http_transport=recording)
    try:
        for user_id, properties in tracked.items():
            assert client.track("differential", properties, user_id=user_id)
        assert client.flush(20)
    finally:
        client.shutdown()
    rows = target.database.fetch(
        "select user_id, properties::text from events where name = 'differential'"
    )
    stored = {row["user_id"]: _exactly(row["properties"]) for row in rows}
    with Sender(target.serve.url, target.read_key) as reader:
        answered = {user_id: _answered(reader, user_id) for user_id in tracked}

    wanted = {user_id: _exactly(json.dumps(each)) for user_id, each in tracked.items()}
    assert len(wanted) > 30
    assert recording.properties == wanted
    assert stored == wanted
    assert answered == wanted


def _good_properties() -> list[dict[str, Any]]:
    """Return the properties of each event of the corpus that is taken.

    NUL and halves of pairs are U+FFFD, as the specification has them stored.
    """
    halves = dict.fromkeys(range(0xD800, 0xE000), "\ufffd")
    found = []
    for case in CASES:
        if case.is_raw or case.facts["expected_status"] not in (202, "accepted_partial"):
            continue
        body = inflate(case.content) if "Content-Encoding" in case.headers else case.content
        refused = {verdict["index"] for verdict in case.facts.get("rejected", [])}
        for index, event in enumerate(parse(body).events):
            if index not in refused and event.get("properties"):
                text = json.dumps(event["properties"], ensure_ascii=False)  # NUL stays escaped
                readable = text.replace("\\u0000", "\ufffd").translate(halves)
                found.append(json.loads(readable))
    return found


def _answered(reader: Sender, user_id: str) -> Any:
    answer = reader.get(f"/api/v1/users/{user_id}/events")
    assert answer.status == 200, answer
    (event,) = _exactly(answer.body)["events"]
    return event["properties"]


def _exactly(text: str | bytes) -> Any:
    """Return decoded JSON in which numbers are equal if, and only if, their values are."""
    return json.loads(text, parse_int=Decimal, parse_float=Decimal)
