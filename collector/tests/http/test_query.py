"""Funnels and workflows over HTTP, and what every question has in common."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from analytics_collector.adapters.postgres.reader import PostgresReader
from analytics_collector.errors import StoreUnavailable

NOON = datetime(2025, 3, 3, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/users/u1/events"),
        ("POST", "/analytics/funnel"),
        ("GET", "/workflows"),
        ("POST", "/workflows"),
        ("GET", "/workflows/wf_1"),
        ("DELETE", "/workflows/wf_1"),
    ],
)
def test_an_answer_needs_a_key_that_may_read(api, method, path):
    """No key or a wrong one is 401, a key for events only 403, before all else."""
    api.assert_refused(api.ask(method, path, key=None), 401, "AUTH_FAILED")
    api.assert_refused(api.ask(method, path, key="wrong"), 401, "AUTH_FAILED")
    api.assert_refused(api.ask(method, path, key="ingest"), 403, "INSUFFICIENT_SCOPE")


def test_a_saved_workflow_is_evaluated_over_the_time_up_to_now(api):
    """The answer of the issue: whole percentages, positions from 1, the id and the time window."""
    now = datetime.now(UTC)
    for n in range(8):
        api.store("signup", f"u{n}", now - timedelta(hours=3))
        api.store("signup", f"old{n}", now - timedelta(days=8))
    for n in range(7):
        api.store("invite", f"u{n}", now - timedelta(hours=2))
    created = api.ask("POST", "/workflows", json={"name": "Growth", "steps": ["signup", "invite"]})
    workflow_id = created.json()["workflowId"]

    question = {"workflowId": workflow_id, "timeWindow": "7d"}
    answer = api.ask("POST", "/analytics/funnel", json=question)

    assert answer.status_code == 200
    body = answer.json()
    assert (body["workflowId"], body["timeWindow"]) == (workflow_id, "7d")
    assert (body["totalUsers"], body["overallConversion"]) == (8, 88)
    assert body["overallConversionExact"] == 0.875
    assert [step["position"] for step in body["steps"]] == [1, 2]
    assert [step["eventName"] for step in body["steps"]] == ["signup", "invite"]
    assert [step["userCount"] for step in body["steps"]] == [8, 7]
    assert [step["dropOff"] for step in body["steps"]] == [0, 13]


def test_the_window_of_a_workflow_is_its_own(api):
    """A workflow of one hour does not count what took two."""
    for name, at in (("a", NOON), ("b", NOON + timedelta(hours=2))):
        api.store(name, "u1", at)
    counts = []
    for window_s in (3_600, 7_200):
        draft = {"name": f"{window_s}", "steps": ["a", "b"], "windowSeconds": window_s}
        workflow_id = api.ask("POST", "/workflows", json=draft).json()["workflowId"]
        body = api.ask("POST", "/analytics/funnel", json={"workflowId": workflow_id}).json()
        counts.append([step["userCount"] for step in body["steps"]])
        assert body["windowSeconds"] == window_s

    assert counts == [[1, 0], [1, 1]]


def test_steps_can_be_evaluated_without_being_saved(api):
    """The ad hoc form has no workflow id."""
    api.store("a", "u1", NOON, properties='{"plan": "pro"}')
    step = {"event": "a", "where": [{"property": "plan", "op": "eq", "value": "pro"}]}

    body = api.ask("POST", "/analytics/funnel", json={"steps": [step, "b"]}).json()

    assert (body["workflowId"], body["totalUsers"], body["overallConversion"]) == (None, 1, 0)


def test_a_workflow_can_be_saved_listed_read_and_deleted(api):
    """What was saved comes back as it was sent."""
    steps = ["a", {"event": "b", "where": [{"property": "x", "op": "gt", "value": 1.5}]}]
    created = api.ask("POST", "/workflows", json={"name": "W", "steps": steps})
    workflow = created.json()

    assert created.status_code == 201
    assert workflow.keys() == {"workflowId", "name", "steps", "windowSeconds", "createdAt"}
    assert (workflow["name"], workflow["steps"]) == ("W", steps)
    assert workflow["windowSeconds"] == 604_800
    assert workflow["createdAt"].endswith("Z")
    assert api.ask("GET", "/workflows").json() == {"workflows": [workflow]}
    one = f"/workflows/{workflow['workflowId']}"
    assert api.ask("GET", one).json() == workflow
    assert api.ask("DELETE", one).status_code == 204
    api.assert_refused(api.ask("GET", one), 404, "NOT_FOUND")
    api.assert_refused(api.ask("DELETE", one), 404, "NOT_FOUND")


def test_a_name_stands_for_one_workflow_of_a_project(new_api):
    """Twice in a project is a conflict; in another project it is none."""
    mine, theirs = new_api(), new_api()
    draft = {"name": "W", "steps": ["a", "b"]}

    assert mine.ask("POST", "/workflows", json=draft).status_code == 201
    mine.assert_refused(mine.ask("POST", "/workflows", json=draft), 409, "CONFLICT", "name")
    assert theirs.ask("POST", "/workflows", json=draft).status_code == 201


def test_a_workflow_of_another_project_does_not_exist(new_api):
    """Neither read, evaluated nor deleted: 404, as if it had never been there."""
    mine, theirs = new_api(), new_api()
    draft = {"name": "W", "steps": ["a", "b"]}
    workflow_id = theirs.ask("POST", "/workflows", json=draft).json()["workflowId"]

    mine.assert_refused(mine.ask("GET", f"/workflows/{workflow_id}"), 404, "NOT_FOUND")
    mine.assert_refused(mine.ask("DELETE", f"/workflows/{workflow_id}"), 404, "NOT_FOUND")
    question = {"workflowId": workflow_id}
    mine.assert_refused(mine.ask("POST", "/analytics/funnel", json=question), 404, "NOT_FOUND")
    assert mine.ask("GET", "/workflows").json() == {"workflows": []}
    assert theirs.ask("GET", f"/workflows/{workflow_id}").status_code == 200


def test_a_workflow_id_that_postgres_cannot_hold_is_not_found(api):
    """A NUL in the URL is 404, not a failure."""
    api.assert_refused(api.ask("GET", "/workflows/a%00"), 404, "NOT_FOUND")
    api.assert_refused(api.ask("DELETE", "/workflows/a%00"), 404, "NOT_FOUND")


@pytest.mark.parametrize("path", ["/analytics/funnel", "/workflows"])
def test_a_body_must_be_json_of_a_bounded_size(api, path):
    """Neither garbage, deep nesting nor a flood is a failure of ours."""
    for content in (b"", b"{", b"\xff", b"[" * 60_000, b'{"a": NaN}'):
        api.assert_refused(api.ask("POST", path, content=content), 400, "INVALID_QUERY", "body")
    api.assert_refused(api.ask("POST", path, content=b" " * 65_537), 413, "BODY_TOO_LARGE")


def test_every_mistake_of_a_question_is_in_the_answer(api):
    """The first one in `field`, all of them in `mistakes`."""
    answer = api.ask("POST", "/analytics/funnel", json={"steps": ["a"], "timezone": "?"})

    api.assert_refused(answer, 400, "INVALID_QUERY", "steps")
    assert [found["field"] for found in answer.json()["mistakes"]] == ["steps", "timezone"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/users/u1/events", None),
        ("GET", "/workflows", None),
        ("GET", "/workflows/wf_1", None),
        ("DELETE", "/workflows/wf_1", None),
        ("POST", "/workflows", {"name": "W", "steps": ["a", "b"]}),
        ("POST", "/analytics/funnel", {"steps": ["a", "b"]}),
    ],
)
def test_a_postgres_that_is_gone_is_503(new_api, run, postgres_dsn, method, path, body):
    """The client is told to ask again, whatever asyncpg raises."""

    async def closed_pool():
        gone = await asyncpg.create_pool(postgres_dsn, min_size=0, max_size=1)
        await gone.close()
        return gone

    api = new_api(PostgresReader(run(closed_pool())))

    answer = api.ask(method, path, json=body) if body else api.ask(method, path)

    api.assert_refused(answer, 503, "STORE_UNAVAILABLE")
    assert answer.headers["retry-after"] == "1"


def test_the_questions_of_one_project_leave_half_of_the_connections_to_others(api, pool, run):
    """Long ones, as many as it likes: the others are answered meanwhile."""
    reader = PostgresReader(pool, timeout_s=20)

    async def ask_while_locked():
        # One of the four connections has the lock, and one project's questions all wait for it.
        async with pool.acquire() as other, other.transaction():
            await other.execute("lock table events in access exclusive mode")
            waiting = [
                asyncio.create_task(reader.user_events(api.project_id, "u1", 1)) for _ in range(6)
            ]
            async with asyncio.timeout(10):
                while pool.get_size() - pool.get_idle_size() < 3:
                    await asyncio.sleep(0.01)
                workflows = await reader.list_workflows(api.project_id + 1)
        return workflows, await asyncio.gather(*waiting)

    assert run(ask_while_locked()) == ([], [([], False)] * 6)


def test_a_question_that_takes_too_long_is_503_and_leaves_the_pool_usable(api, pool, run):
    """A lock that is never given up stands for a query that would run for ever."""
    reader = PostgresReader(pool, timeout_s=0.05)

    async def ask_while_locked():
        async with pool.acquire() as other, other.transaction():
            await other.execute("lock table events in access exclusive mode")
            with pytest.raises(StoreUnavailable) as caught:
                await reader.user_events(api.project_id, "u1", 1)
            assert "shorter range" in caught.value.advice
        return await PostgresReader(pool).user_events(api.project_id, "u1", 1)

    assert run(ask_while_locked()) == ([], False)
