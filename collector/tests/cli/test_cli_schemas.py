"""Event schemas from the command line: a folder and what is registered."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from click.testing import CliRunner

from analytics_collector.cli import main
from analytics_collector.schemas.compiled import compiled
from analytics_sdk import codegen

ORDER = {"orderId": "string", "itemCount": "number", "coupon": "string?"}


@pytest.fixture
def command(pool, postgres_dsn, run):
    """Run a command on the database of the module, and return what it prints for a machine."""
    name = run(pool.fetchval("select current_database()"))
    environment = {"ANALYTICS_DATABASE_URL": postgres_dsn.replace("/analytics?", f"/{name}?")}

    def run_command(*arguments, code=0):
        arguments = ("schemas", *map(str, arguments))
        result = CliRunner().invoke(main, [*arguments, "--json"], env=environment)
        assert result.exit_code == code, result.output
        return json.loads(result.stdout) if result.stdout else result.output

    return run_command


@pytest.fixture
def shop(new_project, pool, run):
    """Return a new project, and what names it on the command line."""
    project = new_project()
    query = "select name from projects where project_id = $1"
    return project, ("--project", run(pool.fetchval(query, project.id)))


def write(folder, **schemas):
    folder.mkdir(exist_ok=True)
    for name, schema in schemas.items():
        (folder / f"{name}.json").write_text(json.dumps(schema))
    return folder


def test_a_push_registers_what_is_new_and_what_changed(command, shop, tmp_path):
    """And says so; a second one has nothing to do."""
    _, project = shop
    folder = write(tmp_path / "plan", a=ORDER, b={"x": "string"})

    first = command("push", folder, *project)
    second = command("push", folder, *project)
    write(folder, b={"x": "number"})
    third = command("push", folder, *project)

    assert first == {"added": ["a", "b"], "changed": [], "removed": []}
    assert second == {"added": [], "changed": [], "removed": []}
    assert third == {"added": [], "changed": ["b"], "removed": []}


def test_a_diff_tells_what_a_push_would_change_and_fails_if_it_would(command, shop, tmp_path):
    """For a pipeline to stop at; it changes nothing itself."""
    _, project = shop
    folder = write(tmp_path / "plan", a=ORDER)

    assert command("diff", folder, *project, code=1)["added"] == ["a"]
    assert command("diff", folder, *project, code=1)["added"] == ["a"]
    command("push", folder, *project)
    assert not any(command("diff", folder, *project).values())
    (folder / "a.json").rename(folder / "b.json")
    command("push", folder, *project)
    assert not any(command("diff", folder, *project).values())
    assert command("diff", folder, "--prune", *project, code=1)["removed"] == ["a"]
    assert command("push", folder, "--prune", *project)["removed"] == ["a"]
    assert not any(command("diff", folder, "--prune", *project).values())


def test_a_push_is_all_or_nothing(command, shop, tmp_path):
    """One file that can't be registered, and the plan stays as it was."""
    _, project = shop
    folder = write(tmp_path / "plan", a=ORDER, b={"type": "text"})

    assert "b.json: schema.type" in command("push", folder, *project, code=1)
    assert command("pull", tmp_path / "pulled", *project) == {"written": []}


def test_a_push_sets_the_mode_only_if_it_is_asked_to(command, shop, tmp_path, pool, run):
    """So that files can be pushed every day, and the mode be somebody's decision."""
    project, arguments = shop
    folder = write(tmp_path / "plan", a=ORDER)

    def mode():
        query = "select mode from event_schemas where project_id = $1"
        return run(pool.fetchval(query, project.id))

    command("push", folder, "--mode", "reject", *arguments)
    assert mode() == "reject"
    write(folder, a={"x": "string"})
    command("push", folder, *arguments)
    assert mode() == "reject"
    command("push", folder, "--mode", "project", *arguments)
    assert mode() is None


def test_what_is_pulled_is_what_was_pushed_and_code_is_generated_from_it(command, shop, tmp_path):
    """Every name has its file, and the SDK reads the same folder."""
    _, project = shop
    folder = write(tmp_path / "plan", order=ORDER)
    write(folder, **{"Order%2FPlaced": ORDER, "$identify": {"plan": "string"}})
    command("push", folder, *project)

    written = command("pull", tmp_path / "pulled", *project)["written"]

    assert sorted(written) == ["$identify.json", "Order%2FPlaced.json", "order.json"]
    for file in folder.glob("*.json"):
        assert json.loads((tmp_path / "pulled" / file.name).read_text()) == json.loads(
            file.read_text()
        )
    assert not any(command("diff", tmp_path / "pulled", "--prune", *project).values())
    schemas = codegen.load(tmp_path / "pulled")
    assert set(schemas) == {"order", "Order/Placed"}
    code = codegen.generate(schemas, "plan")
    compile(code, "events.py", "exec")
    assert "def order(" in code
    assert "coupon: str" in code


def test_what_is_inferred_can_be_pushed_and_the_events_fit_it(command, shop, tmp_path, run):
    """From events of the last days only; files that are there stay as they were corrected."""
    project, arguments = shop
    now = datetime.now(UTC).isoformat()
    events = [
        {
            "id": uuid4().hex,
            "ts": now,
            "event": "order/placed",
            "properties": {"orderId": uuid4().hex, "total": n / 2, "currency": "EUR"},
        }
        for n in range(60)
    ]
    old = {"ts": "2020-01-01T00:00:00Z", "event": "old", "properties": {"a": 1}}
    run(project.add(*events, old, {"ts": now, "event": "kept", "properties": {"a": 1}}))
    folder = write(tmp_path / "plan", kept={"a": "number?"})

    written = command("infer", folder, "--days", "2", *arguments)["written"]
    command("push", folder, "--mode", "reject", *arguments)

    assert written == ["order%2Fplaced.json"]
    schema = json.loads((folder / written[0]).read_text())
    assert schema == {
        "type": "object",
        "properties": {
            "orderId": {"type": "string"},
            "total": {"type": "number"},
            "currency": {"type": "string", "enum": ["EUR"]},
        },
        "required": schema["required"],
    }
    assert set(schema["required"]) == {"orderId", "total", "currency"}
    assert all(compiled(schema).is_valid(event["properties"]) for event in events)
    assert json.loads((folder / "kept.json").read_text()) == {"a": "number?"}


def test_a_project_that_is_not_there_is_told(command, tmp_path):
    """With its name."""
    folder = write(tmp_path / "plan", a=ORDER)

    assert "nobody" in command("push", folder, "--project", "nobody", code=1)
