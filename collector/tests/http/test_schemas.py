"""Event schemas over HTTP, and what they do to events at the door."""

from __future__ import annotations

import base64
import json
import socket
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import uuid4

import pytest

from analytics_collector.background import CountWriter
from analytics_collector.ingest.plans import Plans

SPEC = Path(__file__).parents[3] / "spec"
BATCHES = json.loads((SPEC / "vectors" / "batch.json").read_text(encoding="utf-8"))["cases"]
ORDER = {"orderId": "string", "itemCount": "number", "coupon": "string?"}
SECRET_TEXT = "hunter2 bob@example.com"


class Plan:
    """A project of its own, with the keys to its schemas."""

    def __init__(self, site: Any) -> None:
        self.site = site
        self.name = f"p{uuid4().hex}"
        self.key = site.new_key(["ingest", "read", "admin"], self.name)

    def ask(self, method: str, path: str = "", **kwargs: Any) -> Any:
        """Ask about schemas, and return the answer."""
        headers = {"x-api-key": kwargs.pop("key", self.key)}
        return self.site.ask(method, f"/api/v1/schemas{path}", headers=headers, **kwargs)

    def put(self, name: str, schema: Any, **members: Any) -> Any:
        """Register *schema*, and return what the collector says of it."""
        answer = self.ask("PUT", f"/{name}", json={"schema": schema, **members})
        assert answer.status_code in (200, 201), answer.text
        return answer.json()["data"]

    def holds(self, name: str, schema: Any, **members: Any) -> None:
        """Register *schema*, and wait until the door goes by it."""
        version = self.put(name, schema, **members)["version"]
        (plans,) = (job for job in self.site.services.jobs if isinstance(job, Plans))
        self.site.run(plans.refresh())
        plan = plans.get(self.project_id) or self.site.run(plans.load(self.project_id))
        assert plan.checks[name].version == version

    @property
    def project_id(self) -> int:
        query = "select project_id from projects where name = $1"
        found: int = self.site.sql(query, self.name)[0][0]
        return found

    def send(self, *events: Any) -> Any:
        return self.site.post(*events, key=self.key)

    def dry_run(self, *events: Any) -> Any:
        headers = {"x-api-key": self.key}
        path = "/api/v1/events/validate"
        return self.site.ask("POST", path, json={"batch": events}, headers=headers)

    def report(self) -> dict[str, Any]:
        """Return the report with all that was counted up to now."""
        for job in self.site.services.jobs:
            if isinstance(job, CountWriter):
                self.site.run(job.flush())
        found: dict[str, Any] = self.ask("GET", "-report").json()["data"]
        return found

    def mode(self, mode: str) -> None:
        """Set the mode of the project, and give it a key that knows of it."""
        settings = json.dumps({"schemas": {"mode": mode}})
        self.site.sql("update projects set settings = $2 where name = $1", self.name, settings)
        self.key = self.site.new_key(["ingest", "read", "admin"], self.name)

    def stored(self) -> list[str]:
        query = "select events.name from events join projects using (project_id)"
        rows = self.site.sql(f"{query} where projects.name = $1 order by seq", self.name)
        return [row["name"] for row in rows]


@pytest.fixture
def plan(site: Any) -> Plan:
    """Return a project without schemas."""
    return Plan(site)


def track(name: str, **properties: Any) -> dict[str, Any]:
    return {"type": "track", "name": name, "properties": properties}


def codes(answer: Any) -> list[tuple[int, str]]:
    return [(each["index"], each["code"]) for each in answer.json()["rejected"]]


# Registering


def test_what_was_registered_is_read_as_it_was_written(plan):
    """The document comes back as it was given, in the order of its members."""
    plan.put("order", ORDER)

    found = plan.ask("GET", "/order").json()

    assert (found["success"], found["error"]) == (True, None)
    data = found["data"]
    assert list(data["schema"].items()) == list(ORDER.items())
    assert (data["name"], data["version"], data["mode"]) == ("order", 1, None)
    assert [version["version"] for version in data["versions"]] == [1]
    assert data["changedAt"].endswith("Z")


def test_another_schema_is_the_next_version_and_the_same_is_not(plan):
    """Versions never change; order, and which of the forms it is, change no meaning."""
    same = {"coupon": "string?", "itemCount": "number", "orderId": "string"}
    spelled = {
        "required": ["orderId", "itemCount"],
        "type": "object",
        "properties": {
            "orderId": {"type": "string"},
            "itemCount": {"type": "number"},
            "coupon": {"type": "string"},
        },
    }

    first = plan.ask("PUT", "/order", json={"schema": ORDER})
    again = plan.ask("PUT", "/order", json={"schema": spelled})
    other = plan.ask("PUT", "/order", json={"schema": {"orderId": "string"}})

    assert (first.status_code, first.json()["data"]["isNew"]) == (201, True)
    assert (again.status_code, again.json()["data"]["version"]) == (200, 1)
    assert (other.status_code, other.json()["data"]["version"]) == (201, 2)
    assert plan.put("other", ORDER)["version"] == plan.put("other", same)["version"]
    assert plan.ask("GET", "/order?version=1").json()["data"]["schema"] == ORDER
    assert plan.ask("GET", "/order?version=3").status_code == 404


def test_a_schema_that_is_removed_keeps_its_versions(plan):
    """What comes back later is the next version, never another one of the same number."""
    plan.put("order", ORDER, mode="reject")

    removed = plan.ask("DELETE", "/order")

    assert removed.json()["data"] == {"name": "order", "version": 1, "removed": True}
    assert plan.ask("GET", "/order").status_code == 404
    assert plan.ask("DELETE", "/order").status_code == 404
    assert plan.ask("GET", "/order?version=1").json()["data"]["schema"] == ORDER
    back = plan.put("order", {"orderId": "string"})
    assert (back["version"], back["mode"]) == (2, None)


def test_all_schemas_are_listed_by_name(plan):
    """With what each is now, and its versions."""
    plan.put("b", {"x": "string"})
    plan.put("a", {"x": "string"}, mode="off")
    plan.put("a", {"x": "number"})

    schemas = plan.ask("GET").json()["data"]["schemas"]

    assert [(each["name"], each["version"], each["mode"]) for each in schemas] == [
        ("a", 2, "off"),
        ("b", 1, None),
    ]
    assert [version["version"] for version in schemas[0]["versions"]] == [1, 2]


def test_a_mode_stays_until_another_is_set(plan):
    """Null gives it back to the project's settings."""
    assert plan.put("order", ORDER, mode="reject")["mode"] == "reject"
    assert plan.put("order", {"a": "string"})["mode"] == "reject"
    assert plan.put("order", {"a": "string"}, mode=None)["mode"] is None


@pytest.mark.parametrize(
    "name", ["Order/Placed", "a b%", "日本", "$identify", "..x", "q?x#y", "report"]
)
def test_any_event_name_can_have_a_schema(plan, name):
    """In the address it is encoded like everything there."""
    path = "/" + "".join(f"%{byte:02X}" for byte in name.encode())

    assert plan.ask("PUT", path, json={"schema": ORDER}).json()["data"]["name"] == name
    assert plan.ask("GET", path).json()["data"]["schema"] == ORDER


@pytest.mark.parametrize(
    ("method", "path", "needs"),
    [
        ("GET", "", "read"),
        ("GET", "-report", "read"),
        ("GET", "/order", "read"),
        ("PUT", "/order", "admin"),
        ("DELETE", "/order", "admin"),
    ],
)
def test_reading_needs_the_scope_read_and_writing_admin(site, plan, method, path, needs):
    """Any other key is refused, and so is none."""
    others = [scope for scope in ("ingest", "read", "admin") if scope != needs]
    refused = plan.ask(method, path, key=site.new_key(others, plan.name))
    stranger = plan.ask(method, path, key="ak_live_nobody")

    assert refused.status_code == 403
    assert refused.json()["error"]["code"] == "INSUFFICIENT_SCOPE"
    assert stranger.json()["error"]["code"] == "AUTH_FAILED"
    allowed = plan.ask(method, path, key=site.new_key([needs], plan.name))
    assert allowed.status_code != 403


def test_projects_do_not_see_each_others_schemas(site, plan):
    """Neither those who read them, nor the events of the other."""
    other = Plan(site)
    plan.holds("order", ORDER, mode="reject")

    assert other.ask("GET", "/order").status_code == 404
    assert other.ask("DELETE", "/order").status_code == 404
    assert other.ask("GET").json()["data"]["schemas"] == []
    assert other.send(track("order")).status_code == 202
    assert plan.send(track("order")).status_code == 400
    assert other.report() == {"violations": [], "unplanned": []}


# Refused


def _fan_out(levels: int) -> dict[str, Any]:
    """Return a schema of a few lines that asks for 2^levels checks."""
    parts = {f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(levels)}
    return {"$ref": "#/$defs/a0", "$defs": {**parts, f"a{levels}": {"type": "object"}}}


def _nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(levels):
        schema = {"properties": {"a": schema}}
    return schema


HOSTILE = {
    "catastrophic in other engines": {"properties": {"a": {"pattern": "(?=(a+)+)b"}}},
    "a huge repetition": {"properties": {"a": {"pattern": "(a{1000}){1000}"}}},
    "a back reference": {"properties": {"a": {"pattern": "(a)\\1"}}},
    "too large": {"description": "x" * 70_000},
    "too deep": _nested(40),
    "far too deep": _nested(120),
    "a remote reference": {"$ref": "http://127.0.0.1:9/schema.json"},
    "a remote reference where nobody looks": {"$defs": {"a": {"$ref": "http://127.0.0.1:9/x"}}},
    "a file": {"properties": {"a": {"$ref": "file:///etc/passwd"}}},
    "its own base": {"properties": {"a": {"$id": "http://127.0.0.1:9/", "$ref": "x"}}},
    "a dynamic reference": {"$dynamicRef": "#x"},
    "a reference to itself": {"$ref": "#"},
    "a reference to itself below": {"properties": {"a": {"items": {"$ref": "#"}}}},
    "a reference to nothing": {"$ref": "#/$defs/x"},
    "a fan of references": _fan_out(30),
    "a chain of references": {
        "$ref": "#/$defs/a0",
        "$defs": {f"a{n}": {"$ref": f"#/$defs/a{n + 1}"} for n in range(500)} | {"a500": {}},
    },
    "many alternatives for each item": {"items": {"anyOf": [{"minimum": n} for n in range(400)]}},
    "many divisions": {"additionalProperties": {"anyOf": [{"multipleOf": 1e-300}] * 20}},
    "many patterns for one text": {"properties": {"a": {"allOf": [{"pattern": "a"}] * 5}}},
    "many patterns": {"properties": {f"a{n}": {"pattern": "a"} for n in range(51)}},
    "another dialect": {"$schema": "http://json-schema.org/draft-07/schema#"},
    "no schema": {"type": "text"},
    "no schema of a member": {"properties": {"a": 5}},
    "a list": [],
    "nothing": None,
    "a NUL": {"properties": {"a\u0000": {"type": "string"}}},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_schema_is_refused(plan, name):
    """At once, with a sentence that says where it is wrong; nothing of it is kept."""
    began = monotonic()

    answer = plan.ask("PUT", "/order", json={"schema": HOSTILE[name]})

    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "INVALID_QUERY"), answer.text
    assert error["field"].startswith("schema")
    assert len(error["message"]) < 500
    assert monotonic() - began < 2
    assert plan.ask("GET", "/order").status_code == 404


@pytest.mark.parametrize("way", ["$ref", "unused", "$schema", "$id"])
def test_nothing_is_fetched_for_a_schema(plan, way):
    """Whoever may register schemas can't make the collector call at addresses inside."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/schema.json"
        schema = {
            "$ref": {"$ref": address},
            "unused": {"$defs": {"a": {"properties": {"b": {"$ref": address}}}}},
            "$schema": {"$schema": address},
            "$id": {"$defs": {"a": {"$id": address, "$ref": "other.json"}}},
        }[way]

        answer = plan.ask("PUT", "/order", json={"schema": schema})

        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert answer.status_code == 400


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "schema"),
        ({"schema": {}, "mode": "strict"}, "mode"),
        ({"schema": {}, "mode": []}, "mode"),
        ({"schema": {}, "version": 3}, "version"),
    ],
)
def test_a_request_that_is_no_registration_is_refused(plan, body, field):
    """With the member at fault."""
    answer = plan.ask("PUT", "/order", json=body)

    assert answer.status_code == 400
    assert answer.json()["error"]["field"] == field


def test_a_name_that_no_event_can_have_is_refused(plan):
    """As events of that name would be."""
    assert plan.ask("PUT", "/" + "x" * 256, json={"schema": {}}).status_code == 400
    assert plan.ask("PUT", "/a%00b", json={"schema": {}}).status_code == 400


def test_a_body_that_is_too_large_is_not_read(plan):
    """However it is written."""
    answer = plan.ask("PUT", "/order", content=b" " * 300_000)

    assert answer.json()["error"]["code"] == "BODY_TOO_LARGE"


def test_a_project_has_at_most_a_thousand_schemas(plan):
    """One that is there can still be changed, and removing one makes room."""
    plan.put("order", {"a": "string"})
    plan.site.sql(
        "with made as (insert into event_schemas (project_id, name, version) "
        "select $1, 'e' || n, 1 from generate_series(1, 999) n returning name) "
        "insert into event_schema_versions select $1, name, 1, '{}', '', 2, 0 from made",
        plan.project_id,
    )

    assert plan.ask("PUT", "/more", json={"schema": {}}).json()["error"]["code"] == "CONFLICT"
    plan.put("order", {"a": "number"})
    plan.ask("DELETE", "/e1")
    plan.put("more", {})


# At the door


def test_in_mode_reject_the_answer_lists_all_that_is_missing_or_mistyped(plan):
    """By path, with what to change, never with the value; its neighbours are stored."""
    schema = {
        "properties": {
            "orderId": {"type": "string"},
            "total": {"type": "number", "minimum": 0},
            "items": {"items": {"properties": {"sku": {"type": "string"}}, "required": ["sku"]}},
            "currency": {"enum": ["EUR", "USD"]},
        },
        "required": ["orderId", "customer"],
        "additionalProperties": False,
    }
    plan.holds("order", schema, mode="reject")
    wrong = track(
        "order", total=-1, items=[{"sku": SECRET_TEXT}, {}, {"sku": 5}], currency=SECRET_TEXT, x=1
    )

    answer = plan.send({**wrong, "messageId": str(uuid4())}, track("else"))

    assert answer.status_code == 202
    (rejected,) = answer.json()["rejected"]
    assert (rejected["index"], rejected["code"]) == (0, "SCHEMA_VIOLATION")
    assert {each["path"]: each["message"] for each in rejected["violations"]} == {
        "properties.orderId": "is missing",
        "properties.customer": "is missing",
        "properties.total": "must be at least 0",
        "properties.items.1.sku": "is missing",
        "properties.items.2.sku": "must be of type string",
        "properties.currency": 'must be one of "EUR", "USD"',
        "properties.x": "is not in the schema",
    }
    assert rejected["field"] == rejected["violations"][0]["path"]
    assert SECRET_TEXT not in answer.text
    assert plan.stored() == ["else"]


def test_a_batch_of_which_nothing_fits_is_refused_as_one(plan):
    """With the verdicts, as for any other reason, and each with the id that the client gave."""
    plan.holds("order", ORDER, mode="reject")
    message_id = str(uuid4()).upper()

    answer = plan.send({**track("order"), "messageId": message_id}, track("order"))

    assert (answer.status_code, answer.json()["code"]) == (400, "ALL_EVENTS_REJECTED")
    assert codes(answer) == [(0, "SCHEMA_VIOLATION"), (1, "SCHEMA_VIOLATION")]
    assert [each["messageId"] for each in answer.json()["rejected"]] == [message_id, None]


def test_verdicts_of_all_kinds_stand_in_the_order_of_the_batch(plan):
    """Whether the specification or the schema refuses an event."""
    plan.holds("order", ORDER, mode="reject")

    answer = plan.send(track("order"), {"type": "track"}, track("else"), track("order"))

    assert codes(answer) == [
        (0, "SCHEMA_VIOLATION"),
        (1, "MISSING_NAME"),
        (3, "SCHEMA_VIOLATION"),
    ]


def test_an_answer_stays_small_whatever_is_wrong(plan):
    """A client reads 64 KiB of it: 500 verdicts with 200 violations in all."""
    plan.holds("o", {f"member{n}": "string" for n in range(50)}, mode="reject")

    answer = plan.send(*[track("o")] * 500)

    violations = [each["violations"] for each in answer.json()["rejected"]]
    assert len(violations) == 500
    assert max(map(len, violations)) == 20
    assert min(map(len, violations)) == 1
    assert sum(map(len, violations)) < 200 + 500


def test_in_mode_warn_an_event_is_stored_and_reported(plan):
    """Which is what a project does unless it says otherwise."""
    plan.holds("order", ORDER)

    answer = plan.send(track("order", orderId=5), track("order", orderId="a", itemCount=1))

    assert (answer.status_code, answer.json()["rejected"]) == (202, [])
    assert plan.stored() == ["order", "order"]
    (found,) = plan.report()["violations"]
    assert (found["name"], found["version"]) == ("order", 1)
    assert (found["eventCount"], found["rejectedCount"]) == (1, 0)
    assert found["firstSeenAt"] <= found["lastSeenAt"]
    assert found["samples"] == [
        {"path": "properties.itemCount", "code": "required", "count": 1},
        {"path": "properties.orderId", "code": "type", "count": 1},
    ]


@pytest.mark.parametrize(
    ("of_project", "of_schema", "status", "reported"),
    [
        ("off", None, 202, 0),
        ("warn", None, 202, 1),
        ("reject", None, 400, 1),
        ("off", "reject", 400, 1),
        ("reject", "off", 202, 0),
        ("reject", "warn", 202, 1),
        ("warn", "reject", 400, 1),
    ],
)
def test_the_mode_of_a_schema_goes_before_that_of_the_project(
    plan, of_project, of_schema, status, reported
):
    """Off looks at nothing, warn reports, reject refuses."""
    plan.mode(of_project)
    plan.holds("order", ORDER, mode=of_schema)

    assert plan.send(track("order")).status_code == status
    assert len(plan.report()["violations"]) == reported


@pytest.mark.parametrize(
    ("schema_of", "event", "path"),
    [
        ("e", {"type": "track", "name": "e"}, "properties.a"),
        ("e", {"type": "page", "name": "e"}, "properties.a"),
        ("e", {"type": "screen", "name": "e"}, "properties.a"),
        ("$page", {"type": "page", "name": "Home"}, "properties.a"),
        ("$page", {"type": "page"}, "properties.a"),
        ("$screen", {"type": "screen", "name": "Home"}, "properties.a"),
        ("$identify", {"type": "identify", "userId": "u"}, "traits.a"),
        ("$group", {"type": "group", "groupId": "g"}, "traits.a"),
        ("$page", {"type": "track", "name": "Home"}, None),
        ("$identify", {"type": "alias", "userId": "u", "previousId": "v"}, None),
        ("$alias", {"type": "alias", "userId": "u", "previousId": "v"}, None),
    ],
)
def test_a_schema_is_for_the_properties_or_traits_of_its_name(plan, schema_of, event, path):
    """Events other than track without a name, or a schema for it, go by their type."""
    plan.holds(schema_of, {"a": "string"}, mode="reject")

    answer = plan.send(event)

    if path is None:
        assert answer.status_code == 202
        return
    assert answer.json()["rejected"][0]["violations"] == [{"path": path, "message": "is missing"}]
    good = {**event, path.split(".")[0]: {"a": "x"}}
    assert plan.send(good).status_code == 202


def test_events_that_no_plan_knows_are_reported(plan):
    """Once there is a plan: without one there is nothing that they would not be in."""
    plan.send(track("early"))
    plan.holds("order", ORDER)

    plan.send(track("surprise"), track("surprise"), {"type": "page", "name": "Home"})

    unplanned = {each["name"]: each["eventCount"] for each in plan.report()["unplanned"]}
    assert unplanned == {"surprise": 2, "$page": 1}


def test_the_report_of_names_that_clients_make_up_is_bounded(plan):
    """A client that makes a name of every id can't fill the database."""
    plan.holds("order", ORDER)

    for start in range(0, 1500, 500):
        plan.send(*[track(f"e{n}") for n in range(start, start + 500)])
        plan.report()

    assert len(plan.report()["unplanned"]) == 1_000
    plan.send(track("e1"))
    counts = {each["name"]: each["eventCount"] for each in plan.report()["unplanned"]}
    assert counts["e1"] == 2


def test_the_report_holds_no_value(plan):
    """And no member name that could be one: a map whose keys are addresses, say."""
    schema = {
        "properties": {"by": {"additionalProperties": {"type": "number"}}, "a": {"const": 1}},
        "additionalProperties": False,
    }
    plan.holds("order", schema)

    plan.send(track("order", by={SECRET_TEXT: "x"}, a=SECRET_TEXT, tpyo=1, **{SECRET_TEXT: 1}))

    report = plan.report()
    assert SECRET_TEXT not in json.dumps(report)
    assert {each["path"] for each in report["violations"][0]["samples"]} == {
        "properties.by.*",
        "properties.a",
        "properties.tpyo",
        "properties.*",
    }
    kept = plan.site.sql("select * from schema_faults, schema_findings")
    assert not [row for row in kept if SECRET_TEXT in str(dict(row))]


def test_an_event_that_its_schema_refuses_costs_nothing_of_the_limits(plan):
    """The limit of events is for those that could be stored."""
    settings = json.dumps({"limits": {"eventsPerMinute": 3}, "schemas": {"mode": "reject"}})
    plan.site.sql("update projects set settings = $2 where name = $1", plan.name, settings)
    plan.key = plan.site.new_key(["ingest", "read", "admin"], plan.name)
    plan.holds("order", ORDER)

    for _ in range(5):
        assert plan.send(track("order")).status_code == 400

    assert plan.send(track("else"), track("else")).status_code == 202


def test_a_change_is_seen_by_another_process_within_five_seconds(site, plan, eventually):
    """Without anything that has to reach it: it looks."""
    other = site.beside()

    def status() -> int:
        found: int = site.post(track("order"), key=plan.key, port=other).status_code
        return found

    assert status() == 202
    plan.put("order", ORDER, mode="reject")
    eventually(lambda: status() == 400, 5)
    plan.ask("DELETE", "/order")
    eventually(lambda: status() == 202, 5)


def test_while_postgres_is_away_the_door_goes_by_what_it_knows(site, plan):
    """It asks for nothing while an event waits."""
    plan.holds("order", ORDER, mode="reject")
    with site.without_postgres(plan.key):
        answer = plan.send(track("order"))

    assert codes(answer) == [(0, "SCHEMA_VIOLATION")]


# The dry run


@pytest.mark.parametrize("case", BATCHES, ids=lambda case: case["name"])
def test_a_dry_run_says_what_sending_would(site, plan, case):
    """Status, code and every verdict, for each case of the specification; nothing is stored."""
    plan.holds("order", ORDER, mode="reject")
    given = case["given"]
    body = given["body"].encode() if "body" in given else base64.b64decode(given["bodyBase64"])
    headers = {"x-api-key": plan.key, "content-type": given.get("contentType", "application/json")}
    headers |= {"content-encoding": given["contentEncoding"]} if "contentEncoding" in given else {}
    headers = {name: value for name, value in headers.items() if value is not None}

    dry = site.ask("POST", "/api/v1/events/validate", content=body, headers=headers)
    before = plan.stored()
    sent = site.ask("POST", "/api/v1/events", content=body, headers=headers)

    assert before == []
    assert dry.status_code == (200 if sent.status_code == 202 else sent.status_code)
    assert dry.json().get("code") == sent.json().get("code") == case["expect"]["code"]
    assert dry.json().get("eventCount") == sent.json().get("eventCount")
    assert dry.json().get("rejected") == sent.json().get("rejected")


def test_a_dry_run_tells_what_schemas_of_any_mode_have_against_events(plan):
    """Those that only warn, and those that are off, so that one can see before it counts."""
    plan.holds("warned", ORDER)
    plan.holds("off", ORDER, mode="off")
    plan.holds("refused", ORDER, mode="reject")
    events = [track("warned"), track("off", orderId=1), track("refused"), track("new")]

    answer = plan.dry_run(*events)

    found = answer.json()
    assert (answer.status_code, found["status"], found["eventCount"]) == (200, "valid", 3)
    assert codes(answer) == [(2, "SCHEMA_VIOLATION")]
    assert [(each["index"], each["mode"], each["version"]) for each in found["schemas"]] == [
        (0, "warn", 1),
        (1, "off", 1),
        (2, "reject", 1),
    ]
    assert found["schemas"][1]["violations"] == [
        {"path": "properties.itemCount", "message": "is missing"},
        {"path": "properties.orderId", "message": "must be of type string"},
    ]
    assert found["unplanned"] == [{"index": 3, "messageId": None, "name": "new"}]
    assert plan.report() == {"violations": [], "unplanned": []}
    assert plan.stored() == []


def test_a_dry_run_lists_every_member_that_is_missing(plan):
    """Where the answer to a batch has room for a few."""
    plan.holds("order", {f"member{n}": "string" for n in range(300)}, mode="reject")

    answer = plan.dry_run(track("order"))

    assert answer.json()["code"] == "ALL_EVENTS_REJECTED"
    assert len(answer.json()["schemas"][0]["violations"]) == 300
    assert len(answer.json()["rejected"][0]["violations"]) == 20


def test_a_dry_run_needs_the_scope_of_sending(site, plan):
    """For it says what the project's schemas are."""
    path = "/api/v1/events/validate"
    headers = {"x-api-key": site.new_key(["read", "admin"], plan.name)}

    assert site.ask("POST", path, json={"batch": []}, headers=headers).status_code == 403
    assert site.ask("POST", path, json={"batch": []}).status_code == 401


def test_dry_runs_are_requests_to_the_limit_of_the_key(plan):
    """They cost the collector as much; but no event of them counts."""
    settings = json.dumps({"limits": {"requestsPerMinutePerKey": 2, "eventsPerMinute": 1}})
    plan.site.sql("update projects set settings = $2 where name = $1", plan.name, settings)
    plan.key = plan.site.new_key(["ingest"], plan.name)

    answers = [plan.dry_run(track("a"), track("b"), track("c")) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert int(answers[2].headers["Retry-After"]) >= 1
