"""POST /api/v1/events over a real socket: who may, how much, what is answered, what is stored."""

from __future__ import annotations

import gzip
import io
import json
import logging
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import jsonschema_rs
import pytest

from analytics_collector import metrics
from analytics_collector._limits import MAX_BODY_BYTES
from analytics_collector.http.body import InFlight
from analytics_collector.ingest.limit import RateLimiter
from analytics_collector.ingest.pipeline import Pipeline
from analytics_collector.ingest.write import GroupWriter
from analytics_collector.interfaces import RowsRefused
from analytics_collector.keys import generate_key
from analytics_collector.logs import JsonFormatter
from analytics_collector.model import EventRow
from harness.waiting import wait_for

SPEC = Path(__file__).parents[3] / "spec"
SCHEMAS = {
    f"{path.name}": json.loads(path.read_text()) for path in (SPEC / "schema").glob("*.json")
}
REGISTRY = jsonschema_rs.Registry([(schema["$id"], schema) for schema in SCHEMAS.values()])
ANSWER, ERROR = (
    jsonschema_rs.Draft202012Validator(SCHEMAS[name], registry=REGISTRY)
    for name in ("answer.json", "error.json")
)
STATUS = {
    code: entry["status"]
    for code, entry in json.loads((SPEC / "errors.json").read_text())["request"].items()
}


def event(name: str = "e", **members):
    return {"type": "track", "name": name, "messageId": str(uuid4()), **members}


def assert_refused(answer, code):
    """Check that *answer* is the refusal *code*, exactly in the form of the specification."""
    body = answer.json()
    assert (answer.status_code, body["code"]) == (STATUS[code], code)
    ERROR.validate(body)
    assert answer.headers["content-type"] == "application/json"
    assert body["requestId"] == answer.headers["x-request-id"]
    if answer.status_code in (429, 503):
        assert int(answer.headers["retry-after"]) == body["retryAfter"] >= 1
    assert "Traceback" not in answer.text


# What is answered


def test_a_batch_that_was_stored_is_answered_in_the_form_of_the_specification(site):
    """202, what was counted, and the allowance of the key (ANS-2, ANS-11)."""
    answer = site.post(event("stored-1"), event("stored-2"))

    assert answer.status_code == 202
    ANSWER.validate(answer.json())
    assert answer.json()["eventCount"] == 2
    assert answer.json()["duplicates"] == 0
    assert answer.json()["rejected"] == []
    limit, remaining, reset = (
        int(answer.headers[f"x-ratelimit-{name}"]) for name in ("limit", "remaining", "reset")
    )
    assert 0 < remaining < limit
    assert reset >= 1
    assert site.names()[-2:] == ["stored-1", "stored-2"]


def test_good_events_of_a_batch_are_stored_and_bad_ones_listed(site):
    """One bad event costs no other; the answer says which, why, and where (ANS-3)."""
    known = event("known")
    site.post(known)
    bad = {"type": "track", "messageId": "my id", "name": 7}

    answer = site.post(event("good-1"), bad, known, event("good-2"))

    assert answer.status_code == 202
    body = answer.json()
    ANSWER.validate(body)
    assert (body["eventCount"], body["duplicates"]) == (3, 1)
    assert [(r["index"], r["messageId"]) for r in body["rejected"]] == [(1, "my id")]
    assert {"code", "message", "field"} <= set(body["rejected"][0])
    assert site.names()[-2:] == ["good-1", "good-2"]


def test_a_batch_of_nothing_but_bad_events_is_refused_with_a_reason_for_each(site):
    """400 with the list, and the allowance all the same."""
    answer = site.post(1, {"type": "x"})

    assert_refused(answer, "ALL_EVENTS_REJECTED")
    assert [r["code"] for r in answer.json()["rejected"]] == ["INVALID_EVENT", "INVALID_TYPE"]
    assert "x-ratelimit-remaining" in answer.headers


class Particular:
    """An event store that takes everything but events named `poison`."""

    async def append(self, rows: Sequence[EventRow]) -> list[int]:
        if any(row.name == "poison" for row in rows):
            raise RowsRefused("poison")
        return []


def test_an_event_that_the_store_refuses_is_listed_and_the_others_are_stored(site, host):
    """What slips past every check costs neither its neighbours nor an endless retry (EVT-10)."""

    async def start() -> GroupWriter:
        writer = GroupWriter(Particular())
        writer.start()
        return writer

    writer = host.run(start())
    port = site.variant(pipeline=Pipeline(RateLimiter(100), writer))

    some = site.post(event("a"), event("poison"), event("b"), port=port)
    none = site.post(event("poison"), port=port)
    host.run(writer.stop())

    assert (some.status_code, some.json()["eventCount"]) == (202, 2)
    assert [(r["index"], r["code"]) for r in some.json()["rejected"]] == [(1, "INTERNAL_INVALID")]
    assert_refused(none, "ALL_EVENTS_REJECTED")


def test_a_hundred_copies_of_a_batch_at_once_are_one(site):
    """However a retry races with itself: a row each, and every copy but one is told."""
    batch = [event(f"copy-{n}") for n in range(5)]
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: site.post(*batch), range(100)))

    assert {answer.status_code for answer in answers} == {202}
    assert {answer.json()["eventCount"] for answer in answers} == {5}
    assert sum(answer.json()["duplicates"] for answer in answers) == 99 * 5
    assert [name for name in site.names() if name.startswith("copy")] == [
        f"copy-{n}" for n in range(5)
    ]


@pytest.mark.parametrize("days", [34, 36])
def test_an_event_that_comes_again_after_weeks_is_a_duplicate(site, days):
    """For 35 days that is a promise (TIM-13); today the ids are kept as long as the events."""
    sent = event("first")
    assert site.post(sent).json()["duplicates"] == 0
    site.sql(
        "update events set received_at = received_at - make_interval(days => $1) "
        "where message_id = $2::uuid",
        days,
        sent["messageId"],
    )

    again = site.post(sent).json()

    assert (again["eventCount"], again["duplicates"]) == (1, 1)


def test_the_events_of_two_projects_never_meet(site):
    """The same id from another project is another event, under its own project (TIM-14)."""
    other = site.new_key(["ingest"], "other")
    shared = event("shared", projectId=1, project_id=1)

    answers = [site.post(shared), site.post(shared, key=other)]

    assert [answer.json()["duplicates"] for answer in answers] == [0, 0]
    projects = site.sql("select project_id from events where name = 'shared' order by 1")
    assert len({record["project_id"] for record in projects}) == 2


def test_events_are_numbered_in_the_order_in_which_they_were_sent(site):
    """In a batch by the list, then by the answers (TIM-15)."""
    expected = []
    for batch in range(5):
        names = [f"order-{batch}-{n}" for n in range(10)]
        site.post(*map(event, names))
        expected += names

    assert [name for name in site.names() if name.startswith("order")] == expected


@pytest.fixture
def held_commits(site, eventually):
    """Keep Postgres from committing in a block; call what it gives to see a commit wait."""
    blocked = "select 1 from pg_locks where not granted and relation = 'events'::regclass"

    @contextmanager
    def hold():
        connection = site.run(site.connect())
        site.run(connection.execute("begin; lock table events in share mode"))
        try:
            yield lambda: eventually(lambda: site.sql(blocked))
        finally:
            site.run(connection.close())

    return hold


def test_nobody_is_answered_before_the_commit(site, held_commits):
    """202 means committed: while Postgres can't commit there is no answer (ANS-1)."""
    with ThreadPoolExecutor(1) as pool:
        with held_commits() as wait_for_one:
            answering = pool.submit(site.post, event("waited"))
            wait_for_one()

            assert not answering.done()

        assert answering.result(10).status_code == 202
        assert "waited" in site.names()


# In which order it is checked


@pytest.mark.parametrize(
    "key",
    [None, "", "wrong", "ak_live_" + "0" * 49, "' or 1=1 --", "k" * 15_000, b"\xc3\xa9\xff"],
    ids=["none", "empty", "wrong", "checksum", "sql", "long", "non-ascii"],
)
def test_without_a_valid_key_nothing_is_said_but_that(site, key):
    """401 whatever else is wrong, without allowance and without a hint (BAT-1, BAT-4)."""
    headers = {"content-type": "text/plain", "content-encoding": "br"}
    if key is not None:
        headers["x-api-key"] = key

    answer = site.ask("POST", "/api/v1/events", content=b"\xff{", headers=headers)

    assert_refused(answer, "AUTH_FAILED")
    assert "x-ratelimit-limit" not in answer.headers


def test_two_keys_are_no_key(site):
    """Which of two readers takes which of two headers is a game that we don't play."""
    key = site.keys["ingest"]

    answer = site.ask(
        "POST", "/api/v1/events", json={"batch": [event()]}, headers=[("x-api-key", key)] * 2
    )

    assert_refused(answer, "AUTH_FAILED")


def test_a_key_in_the_address_is_no_key(site):
    """Addresses end up in logs and histories: a key there does not work (BAT-3)."""
    key = site.keys["ingest"]

    answer = site.ask("POST", f"/api/v1/events?x-api-key={key}", json={"batch": [event()]})

    assert_refused(answer, "AUTH_FAILED")


@pytest.mark.parametrize("scope", ["read", "admin"])
def test_a_key_for_something_else_may_not_write(site, scope):
    """403 before anything of the request is looked at; the message names the scope."""
    answer = site.post(event(), key=scope, content_type="text/plain")

    assert_refused(answer, "INSUFFICIENT_SCOPE")
    assert "ingest" in answer.json()["error"]


def test_a_key_for_writing_may_not_read(site):
    """What sits in every browser opens no report."""
    answer = site.ask("GET", "/api/v1/users/u/events", headers={"x-api-key": site.keys["ingest"]})

    assert_refused(answer, "INSUFFICIENT_SCOPE")


def test_too_many_requests_are_told_when_to_come_again(site):
    """429 with Retry-After comes before any look at the request (BAT-4, ANS-10)."""
    port = site.variant(pipeline=Pipeline(RateLimiter(2), site.services.writer))

    passed = [site.post(event(), port=port).status_code for _ in range(2)]
    answer = site.post(event("limited"), port=port, content_type="text/plain")

    assert passed == [202, 202]
    assert_refused(answer, "RATE_LIMITED")
    assert answer.headers["x-ratelimit-remaining"] == "0"
    assert "limited" not in site.names()


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"content-type": "text/plain", "content-encoding": "br"}, "UNSUPPORTED_CONTENT_TYPE"),
        ({"content-encoding": "br"}, "UNSUPPORTED_ENCODING"),
        ({"content-encoding": "gzip"}, "INVALID_ENCODING"),
        ({}, "INVALID_UTF8"),
    ],
)
def test_type_encoding_and_text_are_checked_in_that_order(site, headers, code):
    """Of several faults the one of the outermost layer is told (BAT-4)."""
    headers = {"content-type": "application/json", "x-api-key": site.keys["ingest"], **headers}

    answer = site.ask("POST", "/api/v1/events", content=b'{"batch": "\xff"', headers=headers)

    assert_refused(answer, code)
    assert "x-ratelimit-limit" in answer.headers


def head(site, scope: str | None = "ingest", **headers: object) -> bytes:
    """Return the head of a request, to which a test adds what it likes."""
    lines = ["POST /api/v1/events HTTP/1.1", "Host: h", "Content-Type: application/json"]
    lines += [f"x-api-key: {site.keys[scope]}"] if scope else []
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


@pytest.mark.parametrize(("scope", "status"), [(None, 401), ("read", 403)])
def test_a_stranger_is_answered_before_a_byte_of_the_body(site, dial, scope, status):
    """Nobody waits for, keeps or unpacks what a stranger sends (BAT-5)."""
    wire = dial(site.port)
    # Larger than what is read and dropped so that a client sees its answer.
    wire.send(head(site, scope, Content_Length=10 * MAX_BODY_BYTES, Content_Encoding="gzip"))

    answer = wire.rest()
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"connection: close" in answer.lower()


def test_a_body_that_says_it_is_too_large_is_refused_unread(site, dial):
    """413 by the declared length, before the body is there (BAT-4)."""
    wire = dial(site.port)
    wire.send(head(site, Content_Length=10 * MAX_BODY_BYTES))

    assert b"BODY_TOO_LARGE" in wire.rest()


def test_a_body_that_does_not_say_how_large_it_is_is_counted(site, dial):
    """A hundred chunked megabytes are over after a few (BAT-9)."""
    wire = dial(site.port)
    wire.send(head(site, Transfer_Encoding="chunked"))
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    sent = 0
    try:
        while sent < 100 * MAX_BODY_BYTES:
            wire.send(chunk)
            sent += 65536
    except OSError:
        pass

    assert sent < 32 * MAX_BODY_BYTES  # the rest are buffers of the system
    assert wire.rest().count(b"HTTP/1.1") <= 1


def test_a_body_of_exactly_the_limit_is_taken(site):
    """The limit is what may be sent, in one piece, in chunks, or packed."""
    key = {"x-api-key": site.keys["ingest"], "content-type": "application/json"}
    text = json.dumps({"batch": [event("full")]}).encode().ljust(MAX_BODY_BYTES)

    plain = site.ask("POST", "/api/v1/events", content=text, headers=key)
    chunked = site.ask("POST", "/api/v1/events", content=iter([text]), headers=key)
    packed = site.ask(
        "POST",
        "/api/v1/events",
        content=gzip.compress(text),
        headers={**key, "content-encoding": "gzip"},
    )
    over = site.ask("POST", "/api/v1/events", content=text + b" ", headers=key)

    assert [a.status_code for a in (plain, chunked, packed)] == [202] * 3
    assert_refused(over, "BODY_TOO_LARGE")


def test_a_connection_survives_a_refusal(site, dial):
    """After a small request that was refused the next one on the same connection is read right."""
    wire = dial(site.port)
    body = json.dumps({"batch": [event("after-refusal")]}).encode()
    wire.send(head(site, "read", Content_Length=len(body)) + body)
    refused = wire.until(b"}")
    wire.send(head(site, Content_Length=len(body)) + body)

    assert refused.startswith(b"HTTP/1.1 403")
    assert b"202" in wire.until(b"}")


# What it costs, and what happens when something is away


def test_too_many_bytes_at_once_are_refused_and_given_back(site, dial):
    """Memory is bounded over all connections; who waits a second gets in again (BAT-22)."""
    port = site.variant(in_flight=InFlight(1600))
    wires = [dial(port), dial(port)]
    for number, wire in enumerate(wires):  # their bodies never come
        site.keys[f"holds-{number}"] = site.new_key(["ingest"], f"holds-{number}")
        wire.send(head(site, f"holds-{number}", Content_Length=600))

    wait_for(lambda: metrics.BYTES_IN_FLIGHT._value.get() == 1200, "both to be in flight")

    def send_much():
        return site.post(event(text="x" * 600), port=port)

    refused = send_much()
    small = site.post(event("small"), port=port)
    for wire in wires:
        wire.connection.close()

    assert_refused(refused, "OVERLOADED")
    assert small.status_code == 202
    wait_for(lambda: send_much().status_code == 202, "their bytes to be given back")


def test_one_project_leaves_half_of_the_bytes_to_the_others(site, dial, eventually):
    """However many large bodies it sends; when they are gone it has its half again (RES-16)."""
    in_flight = InFlight(2000)
    port = site.variant(in_flight=in_flight)
    neighbour = site.new_key(["ingest"], "neighbour")
    wire = dial(port)
    wire.send(head(site, Content_Length=900))  # its body never comes
    eventually(lambda: in_flight._bytes == 900)

    of_itself = site.post(event(text="x" * 600), port=port)
    of_another = site.post(event(text="x" * 600), port=port, key=neighbour)

    assert_refused(of_itself, "OVERLOADED")
    assert of_itself.headers["retry-after"] == "1"
    assert of_another.status_code == 202
    wire.connection.close()
    eventually(lambda: not in_flight._bytes)
    assert site.post(event(text="x" * 600), port=port).status_code == 202


def test_postgres_away_is_told_as_such_and_heals(site, eventually):
    """503 with Retry-After, for writers and readers, never 500; afterwards all is as before."""
    site.let_postgres_in(False)
    try:
        writing = [site.post(event("away")) for _ in range(3)]
        stranger = site.post(event("away"), key=generate_key())
        ready, healthy = site.ask("GET", "/readyz"), site.ask("GET", "/health")
        alive = site.ask("GET", "/livez")
    finally:
        site.let_postgres_in(True)

    for answer in [*writing, stranger]:
        assert_refused(answer, "STORE_UNAVAILABLE")
    assert (ready.status_code, healthy.status_code, alive.status_code) == (503, 503, 200)
    assert healthy.json()["dependencies"]["postgres"] == "unavailable"
    eventually(lambda: site.post(event("back")).status_code == 202)
    assert "away" not in site.names()


def test_redis_away_costs_no_event(site):
    """Events are safe in Postgres; health says `degraded`, and stays 200."""
    redis = type(site.services.redis).from_url("unix:///nonexistent/redis.sock")
    probes = type(site.services.probes)(site.services.pools[0], redis)
    port = site.variant(redis=redis, probes=probes)

    answer = site.post(event("no-redis"), port=port)
    healthy, ready = (site.ask("GET", path, port) for path in ("/health", "/readyz"))

    assert answer.status_code == 202
    assert (healthy.status_code, ready.status_code) == (200, 200)
    assert healthy.json()["status"] == "degraded"
    assert healthy.json()["dependencies"] == {"postgres": "ok", "redis": "unavailable"}


def test_a_healthy_collector_says_so(site):
    """All three questions of an orchestrator are answered without a key."""
    answers = [site.ask("GET", path) for path in ("/livez", "/readyz", "/health")]

    assert [(a.status_code, a.json()["status"]) for a in answers] == [(200, "ok")] * 3


@pytest.fixture
def log_text():
    """Return what the server has logged since, from DEBUG up, as it would be written."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    # The client of the tests logs, too.
    handler.addFilter(lambda record: not record.name.startswith("http"))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield stream.getvalue
    root.removeHandler(handler)
    root.setLevel(level)


class Broken:
    """A pipeline with a fault of ours."""

    def admit(self, key: object) -> object:
        raise ZeroDivisionError("inside")


def test_a_fault_of_ours_is_a_503_without_its_inside(site, log_text):
    """The client may come again and learns nothing of our program; the log has it (ANS-14)."""
    port = site.variant(pipeline=Broken())

    answer = site.post(event(), port=port)

    assert_refused(answer, "INTERNAL_ERROR")
    assert "ZeroDivision" not in answer.text
    assert "ZeroDivisionError" in log_text()


@pytest.mark.parametrize("sent", [0, 1, 500])
def test_a_client_that_leaves_in_the_middle_stores_nothing(site, dial, log_text, eventually, sent):
    """Half a body is no batch, and its end is no fault of ours."""
    wire = dial(site.port)
    body = json.dumps({"batch": [event("half") for _ in range(10)]}).encode()
    wire.send(head(site, Content_Length=len(body)) + body[:sent])
    wire.connection.close()

    eventually(lambda: not site.services.in_flight._bytes)
    assert site.post(event("whole")).status_code == 202
    assert "half" not in site.names()
    assert "Traceback" not in log_text()


def test_a_client_that_leaves_before_its_answer_is_stored_once(
    site, dial, held_commits, eventually
):
    """It can't know, so it will send the same again; that is a duplicate."""
    batch = [event("left")]
    body = json.dumps({"batch": batch}).encode()
    wire = dial(site.port)
    with held_commits() as wait_for_one:
        wire.send(head(site, Content_Length=len(body)) + body)
        wait_for_one()
        wire.connection.close()

    eventually(lambda: "left" in site.names())
    assert site.post(*batch).json()["duplicates"] == 1


# What goes with every answer


def test_a_request_id_that_is_harmless_comes_back(site):
    """Whoever traces a request finds it under its own id (ANS-12)."""
    answers = [
        site.post(event(), x_request_id="Trace-1:a.b_c"),
        site.post(event(), key=None, x_request_id="Trace-1:a.b_c"),
    ]

    assert [answer.headers["x-request-id"] for answer in answers] == ["Trace-1:a.b_c"] * 2
    assert answers[1].json()["requestId"] == "Trace-1:a.b_c"


@pytest.mark.parametrize("given", ["", "a b", "<script>", "x" * 129, '{"a":1}'])
def test_any_other_request_id_is_replaced(site, given):
    """What a client says about itself does not get into logs and pages as it likes (ANS-12)."""
    answer = site.post(event(), x_request_id=given)

    assert re.fullmatch(r"[A-Za-z0-9._:-]{1,128}", answer.headers["x-request-id"])
    assert answer.headers["x-request-id"] != given


def test_no_two_requests_get_the_same_id(site):
    """An id of ours names one request."""
    ids = {site.ask("GET", "/livez").headers["x-request-id"] for _ in range(20)}

    assert len(ids) == 20


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/", "NOT_FOUND"),
        ("GET", "/docs", "NOT_FOUND"),
        ("POST", "/api/v1/events/", "NOT_FOUND"),
        ("POST", "/api/v1/Events", "NOT_FOUND"),
        ("POST", "//api/v1/events", "NOT_FOUND"),
        ("GET", "/api/v1/events", "METHOD_NOT_ALLOWED"),
        ("PUT", "/api/v1/events", "METHOD_NOT_ALLOWED"),
        ("POST", "/health", "METHOD_NOT_ALLOWED"),
        ("PATCH", "/api/v1/workflows", "METHOD_NOT_ALLOWED"),
    ],
)
def test_a_wrong_address_or_method_is_told_in_json(site, method, path, code):
    """A client that went astray reads the same form of refusal as any other (BAT-19)."""
    answer = site.ask(method, path)

    assert_refused(answer, code)
    if code == "METHOD_NOT_ALLOWED":
        assert answer.headers["allow"]


HOSTILE_BODIES = [
    b'{"batch": [{"type": "track", "name": "%s", "userId": 7}]}' % b"secret-name",
    b'{"batch": [{"type": "track", "properties": {"pass": "secret-value"}}]}',
    b'{"batch": "secret-value"',
    b'{"batch": []}',
    b"\xffsecret-value",
    b"[" * 100_000,
]


def test_no_log_line_has_a_key_or_the_content_of_an_event(site, log_text):
    """Not even at DEBUG, and not while everything goes wrong (ANS-14)."""
    unknown = generate_key()
    answers = [site.ask("POST", f"/api/v1/events?x-api-key={unknown}", content=b"secret-value")]
    for body in HOSTILE_BODIES:
        for key in (site.keys["ingest"], site.keys["read"], unknown, unknown[:-1]):
            headers = {"x-api-key": key, "content-type": "application/json"}
            answers.append(site.ask("POST", "/api/v1/events", content=body, headers=headers))
    answers.append(site.ask("POST", "/metrics", headers={"x-api-key": unknown}))

    assert {answer.status_code for answer in answers} == {400, 401, 403, 405}
    written = log_text() + "".join(answer.text for answer in answers)
    for secret in (*site.keys.values(), unknown, unknown[8:40], "secret-value", "secret-name"):
        assert secret not in written


def test_nothing_is_stored_of_a_request_that_is_refused(site):
    """A refusal of the whole means the whole (ANS-9)."""
    key = {"x-api-key": site.keys["ingest"], "content-type": "application/json"}
    good = json.dumps(event("refused")).encode()
    bodies = [
        b'{"batch": [' + good + b"]} more",
        b'{"batch": [' + good + b'], "x": NaN}',
        b'{"batch": [' + b",".join([good] * 501) + b"]}",
        b'{"batch": [' + good + b"]}\xff",
    ]
    answers = [site.ask("POST", "/api/v1/events", content=b, headers=key) for b in bodies]

    assert [a.status_code for a in answers] == [400, 400, 413, 400]
    assert "refused" not in site.names()


def test_the_numbers_have_few_labels_and_none_from_clients(site):
    """A client can neither fill the monitoring with names nor read a key there."""
    for n in range(20):
        site.post(event(f"metric-name-{n}"), {"type": f"metric-type-{n}"})
        site.ask("GET", f"/metric-path-{n}")

    text = site.ask("GET", "/metrics").text

    assert "metric-" not in text
    assert not [key for key in site.keys.values() if key[:12] in text]
    labels = set(re.findall(r'(\w+)="([^"]*)"', text))
    known = {"outcome", "code", "status", "le", "consumer", "limit", "reason", "stage", "job_name"}
    assert {name for name, _ in labels} <= known
    assert {value for name, value in labels if name == "outcome"} <= {
        "accepted",
        "duplicate",
        "rejected",
        "stored",  # of what came out of the spool
        "refused",
    }


def test_every_event_is_counted_with_its_outcome(site):
    """Received = accepted + duplicate + rejected, in the numbers as in the answer."""

    def count() -> dict[str, float]:
        text = site.ask("GET", "/metrics").text
        found = re.findall(r'analytics_events_total{outcome="(\w+)"} (\S+)', text)
        return {outcome: float(number) for outcome, number in found}

    known = event()
    site.post(known)
    before = count()
    site.post(event(), event(), known, 1, 2, 3)

    grown = {outcome: number - before[outcome] for outcome, number in count().items()}
    assert grown == {"accepted": 2, "duplicate": 1, "rejected": 3}


def test_the_history_of_a_user_is_found_whatever_the_id_is_made_of(site):
    """Slashes and line breaks are allowed in an identifier."""
    user = "a/b\nc"
    assert site.post(event("odd", userId=user)).status_code == 202
    headers = {"x-api-key": site.keys["read"]}
    answer = site.ask("GET", f"/api/v1/users/{quote(user, safe='')}/events", headers=headers)

    assert [found["name"] for found in answer.json()["events"]] == ["odd"]
