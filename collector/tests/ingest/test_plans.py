"""Event schemas at hand, whatever the store does, and what becomes of a project that is slow."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime
from uuid import uuid4

import orjson
import pytest

from analytics_collector.adapters.postgres.schemas import PostgresSchemas
from analytics_collector.background import CountWriter
from analytics_collector.errors import StoreUnavailable
from analytics_collector.ingest import decode, schemas
from analytics_collector.ingest.plans import Plans
from analytics_collector.ingest.schemas import SchemaChecks
from analytics_collector.ingest.validate import validate
from analytics_collector.interfaces import SchemaFinding
from analytics_collector.model import ApiKey
from analytics_collector.schemas.explain import Explainer
from analytics_collector.schemas.plan import EventCheck, Plan
from analytics_collector.schemas.report import MAX_WAITING_A_PROJECT, SchemaReport

NOW = datetime(2026, 11, 20, 10, tzinfo=UTC)


class Door:
    """A store that counts how often it is asked, and can be away."""

    def __init__(self, store):
        self._store = store
        self.loads = 0
        self.is_away = False

    async def load_plan(self, project_id):
        self.loads += 1
        await asyncio.sleep(0)
        if self.is_away:
            raise StoreUnavailable("away")
        return await self._store.load_plan(project_id)

    async def plan_revisions(self, project_ids):
        if self.is_away:
            raise StoreUnavailable("away")
        return await self._store.plan_revisions(project_ids)

    async def add_findings(self, findings):
        if self.is_away:
            raise StoreUnavailable("away")
        await self._store.add_findings(findings)


@pytest.fixture
def store(pool):
    """Return the store itself."""
    return PostgresSchemas(pool)


@pytest.fixture
def door(store):
    """Return the store as the door sees it."""
    return Door(store)


@pytest.fixture
def put(store, project, run):
    """Register a schema for the project."""

    async def put(name, schema, mode):
        async with store.session() as registry:
            await registry.put(project.id, name, schema, mode, sets_mode=True)

    return lambda name, schema, mode=None: run(put(name, schema, mode))


def batch_of(project, *events):
    """Return the batch as it comes from validation."""
    raw = decode.parse(orjson.dumps({"batch": events}))
    return validate(raw, project.id, NOW)


def key_of(project):
    return ApiKey(1, project.id, frozenset({"ingest"}), None)


def track(name, **properties):
    return {"type": "track", "name": name, "properties": properties}


def test_the_first_batch_loads_and_no_other_one_does(project, put, door, run):
    """Those that come at the same time wait for the same."""
    put("order", {"a": "string"}, "reject")
    checks = SchemaChecks(Plans(door), SchemaReport())
    batch = batch_of(project, track("order"))

    async def send():
        await asyncio.gather(*[checks.check(batch, key_of(project)) for _ in range(20)])
        return await checks.check(batch, key_of(project))

    assert [each.code for each in run(send()).rejected] == ["SCHEMA_VIOLATION"]
    assert door.loads == 1


def test_a_client_that_leaves_does_not_stop_the_others(project, put, door, run):
    """What several wait for is not the first one's."""
    put("order", {"a": "string"})
    plans = Plans(door)

    async def load():
        first = asyncio.create_task(plans.load(project.id))
        second = asyncio.create_task(plans.load(project.id))
        await asyncio.sleep(0)
        first.cancel()
        return await second

    assert set(run(load()).checks) == {"order"}


def test_without_the_store_events_are_taken_unchecked_until_it_is_back(project, put, door, run):
    """A plan must not cost an event, and nothing is asked while events wait."""
    put("order", {"a": "string"}, "reject")
    plans = Plans(door)
    checks = SchemaChecks(plans, SchemaReport())
    batch = batch_of(project, track("order"))
    door.is_away = True

    assert run(checks.check(batch, key_of(project))) is batch
    assert run(checks.check(batch, key_of(project))) is batch
    assert door.loads == 1
    door.is_away = False
    run(plans.refresh())
    assert run(checks.check(batch, key_of(project))).rows == []


def test_what_did_not_change_is_not_compiled_again(project, put, door, run):
    """A thousand schemas of which one was changed are one to compile."""
    put("a", {"x": "string"})
    put("b", {"x": "string"})
    plans = Plans(door)
    before = run(plans.load(project.id))

    run(plans.refresh())
    assert plans.get(project.id) is before
    put("b", {"x": "number"}, "reject")
    run(plans.refresh())

    after = plans.get(project.id)
    assert after.checks["a"] is before.checks["a"]
    assert after.checks["b"].explainer is not before.checks["b"].explainer
    assert (after.checks["b"].version, after.checks["b"].mode) == (2, "reject")


def test_a_stored_schema_that_can_not_be_used_leaves_the_others(
    project, put, door, pool, run, caplog
):
    """It was registered by a version that saw it otherwise."""
    put("good", {"x": "string"}, "reject")
    put("bad", {"x": "string"})
    update = "update event_schema_versions set document = $2 where project_id = $1 and name = 'bad'"
    run(pool.execute(update, project.id, '{"type": "text"}'))

    with caplog.at_level(logging.ERROR):
        plan = run(Plans(door).load(project.id))

    assert set(plan.checks) == {"good"}
    assert "An event schema can't be used" in caplog.text


def _spin(_):
    """Take longer for one event than a whole batch may."""
    deadline = time.thread_time() + 1.2 * schemas.MAX_CHECK_S
    while time.thread_time() < deadline:
        pass
    return False


class Slow:
    """Plans with one of which each check takes long."""

    def get(self, project_id):
        return Plan(1, {"slow": EventCheck(1, "reject", _spin, Explainer({"required": ["a"]}))})


def test_a_project_whose_checks_are_slow_does_without_them_for_a_while(project, run):
    """One event of it may cost a tenth of a second; 500 do not."""
    checks = SchemaChecks(Slow(), SchemaReport())
    batch = batch_of(project, *[track("slow")] * 500)
    began = time.thread_time()

    first = run(checks.check(batch, key_of(project)))
    second = run(checks.check(batch, key_of(project)))

    assert (len(first.rejected), len(first.rows)) == (1, 499)
    assert second is batch
    assert time.thread_time() - began < 3 * schemas.MAX_CHECK_S


def finding(project_id, name, version=1, events=1, faults=None):
    return SchemaFinding(project_id, name, version, events, 0, NOW, NOW, faults or {})


def report_of(project, store, run):
    async def read():
        async with store.session() as registry:
            return await registry.report(project.id)

    return run(read())


def test_what_could_not_be_written_is_written_later(project, store, door, run):
    """And added up with what came in between."""
    report = SchemaReport()
    writer = CountWriter("report on schemas", report, door.add_findings)
    report.add(project.id, "order", 1, NOW)
    door.is_away = True
    run(writer.flush())
    report.add(project.id, "order", 1, NOW, rejected=1)
    door.is_away = False

    run(writer.flush())
    run(writer.flush())

    (found,) = report_of(project, store, run)["violations"]
    assert (found["event_count"], found["rejected_count"]) == (2, 1)


def test_what_waits_to_be_written_is_bounded(project):
    """One project can't use up the memory, or keep the others out of the report."""
    report = SchemaReport()
    for n in range(MAX_WAITING_A_PROJECT + 100):
        report.add(project.id, f"e{n}", 0, NOW)
    report.add(project.id + 1, "e", 0, NOW)

    findings = report.take()

    assert len(findings) == MAX_WAITING_A_PROJECT + 1
    assert report.take() == []


def test_two_processes_add_up_what_they_found(project, store, run):
    """At the same time, in whatever order: nothing is lost, and neither waits for ever."""
    faults = {("properties.a", "type"): 1, ("properties.b", "required"): 2}
    findings = [finding(project.id, f"e{n:03}", n % 2, 1, faults) for n in range(200)]

    async def both():
        await asyncio.gather(*[store.add_findings(findings) for _ in range(4)])

    run(both())

    report = report_of(project, store, run)
    assert {each["event_count"] for each in report["violations"]} == {4}
    assert len(report["violations"]) == len(report["unplanned"]) == 100
    assert report["violations"][0]["samples"] == [
        {"path": "properties.b", "code": "required", "count": 8},
        {"path": "properties.a", "code": "type", "count": 4},
    ]


def test_findings_of_long_ago_are_forgotten(project, store, pool, run):
    """With their faults, when something new is found in the project."""
    run(store.add_findings([finding(project.id, "old", faults={("a", "type"): 1})]))
    age = "update schema_findings set last_seen_at = now() - interval '31 days'"
    run(pool.execute(f"{age} where project_id = $1", project.id))

    run(
        store.add_findings(
            [finding(project.id, uuid4().hex)._replace(last_seen_at=datetime.now(UTC))]
        )
    )

    assert [each["name"] for each in report_of(project, store, run)["violations"]] != ["old"]
    query = "select count(*) from schema_faults where project_id = $1"
    assert run(pool.fetchval(query, project.id)) == 0


def test_a_plan_that_nobody_uses_is_forgotten(project, put, door, run):
    """It is loaded again when its project sends."""
    put("order", {"a": "string"})
    plans = Plans(door)
    run(plans.load(project.id))

    for _ in range(500):
        run(plans.refresh())

    assert plans.get(project.id) is None
