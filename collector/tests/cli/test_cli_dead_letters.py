"""Dead letters from the command line, on databases of one's own."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from click.testing import CliRunner

from analytics_collector.adapters.postgres.dead_letters import PostgresDeadLetters
from analytics_collector.cli import main
from analytics_collector.model import DeadLetter

AT = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Command:
    """Runs `dlq` as an operator does, on the letters of a new project."""

    def __init__(self, database_url, project):
        self.project = project
        self._environment = {
            "ANALYTICS_DATABASE_URL": database_url,
            "ANALYTICS_SECRET": "a secret for the tests only",
        }

    def __call__(self, *arguments, code=0, **kwargs):
        """Return what is printed."""
        arguments = ["dlq", *map(str, arguments)]
        result = CliRunner().invoke(main, arguments, env=self._environment, **kwargs)
        assert result.exit_code == code, result.output
        return result.output

    def json(self, *arguments, code=0):
        """Return the value that is printed for a machine."""
        return json.loads(self(*arguments, "--json", code=code))

    def ids(self, *filters):
        found = self.json("list", "--project", self.project, *filters)["items"]
        return [letter["letter_id"] for letter in found]


@pytest.fixture
def command(pool, postgres_dsn, run):
    """Run commands on the database of the module."""
    name = run(pool.fetchval("select current_database()"))
    project = f"shop {uuid4().hex}"
    run(pool.execute("insert into projects (name) values ($1)", project))
    return Command(postgres_dsn.replace("/analytics?", f"/{name}?"), project)


@pytest.fixture
def add(pool, run, command):
    """Add letters to the project; return their ids in order."""

    def add(*events, stage="validate", is_whole=True):
        project_id = run(
            pool.fetchval("select project_id from projects where name = $1", command.project)
        )
        before = set(command.ids())
        letters = [
            DeadLetter(
                *(project_id, stage, "MISSING_NAME", None, event.get("name"), 1, None, AT, None),
                *(json.dumps(event), is_whole),
            )
            for event in events
        ]
        run(PostgresDeadLetters(pool).add(letters))
        return sorted(set(command.ids()) - before)

    return add


def event(name="good", **members):
    return {"type": "track", "name": name, "messageId": str(uuid4()), **members}


def stored(pool, run, *ids):
    query = "select name from events where message_id::text = any($1) order by seq"
    return [row["name"] for row in run(pool.fetch(query, ids))]


def test_letters_are_listed_and_shown(command, add):
    """The newest first; one with its payload."""
    first, second = add({"a": "\ud800"}, event("n"))

    assert command.ids() == [second, first]
    assert command.ids("--name", "n") == [second]
    assert command.ids("--stage", "store") == command.ids("--reason", "X") == []
    assert command.ids("--from", "2026-01-01", "--to", "2026-01-02") == [second, first]
    assert command.ids("--to", "2026-01-01") == []
    assert "reason=MISSING_NAME" in command("list", "--project", command.project)
    assert "MISSING_NAME" in command("show", first)
    assert command.json("show", second)["payload"]["name"] == "n"
    assert command("list", "--project", "no such", code=1)
    assert command("show", 2**40, code=1) == f"Error: There is no dead letter {2**40}.\n"


def test_a_letter_is_edited_tried_and_sent(command, add, pool, run):
    """A dry run changes nothing; what succeeds is gone."""
    bad = event("")
    [letter] = add(bad)
    assert command.json("replay", letter, "--dry-run", code=1)["items"][0]["outcome"] == "rejected"
    assert command.json("show", letter)["attempts"] == 0
    command("replay", letter, code=1)
    assert command.json("show", letter)["attempts"] == 1

    command("edit", letter, "--payload", "-", input=json.dumps({**bad, "name": "corrected"}))
    assert command.json("show", letter)["name"] == "corrected"
    assert command("replay", letter, "--dry-run").splitlines()[-1] == "would be: 1 stored"
    assert stored(pool, run, bad["messageId"]) == []
    assert command("replay", letter).splitlines()[-1] == "1 stored"
    assert stored(pool, run, bad["messageId"]) == ["corrected"]
    assert command.ids() == []


def test_a_filter_replays_all_that_it_lets_through_in_their_order(command, add, pool, run):
    """However many there are, and each once."""
    events = [event(f"e{number}") for number in range(510)]
    [*_, last] = add(*events)
    add(event("other"))
    command("replay", "--project", command.project, "--name", "e509")
    assert last not in command.ids("--limit", 1000)
    output = command("replay", "--project", command.project, "--stage", "validate")

    assert output.splitlines()[-1] == "510 stored"
    ids = [each["messageId"] for each in events]
    assert stored(pool, run, *ids) == ["e509", *(f"e{number}" for number in range(509))]


def test_what_a_consumer_could_not_apply_is_given_to_it_again(command, add, pool, run):
    """Its events are stored already; the effect is what was missing."""
    project_id = run(
        pool.fetchval("select project_id from projects where name = $1", command.project)
    )
    applied = {"projectId": project_id, "timestamp": "2026-01-01T00:00:00Z", "name": "n"}
    [letter] = add(applied, stage="consumer:daily_counts")
    [unknown] = add(applied, stage="consumer:gone")
    assert "stays as it is" in command(
        "edit", letter, "--payload", "-", input=json.dumps(event()), code=1
    )
    assert command("replay", letter, "--dry-run").splitlines()[-1] == "would be: 1 applied"
    assert command("replay", letter).splitlines()[-1] == "1 applied"
    assert command.json("replay", unknown, code=1)["items"][0]["code"] == "UnknownConsumer"

    count = "select event_count from daily_counts where project_id = $1"
    assert run(pool.fetchval(count, project_id)) == 1
    assert command.ids() == [unknown]


def test_letters_are_purged(command, add):
    """Those that are named, or all that a filter lets through."""
    first, second, third = add(event("a"), event("b"), event("b"))

    assert command("purge", first) == "1 removed\n"
    assert command.json("purge", "--project", command.project, "--name", "b") == {"removed": 2}
    assert command.ids() == []
    assert second < third


@pytest.mark.parametrize("name", ["purge", "replay"])
def test_nothing_happens_to_letters_that_were_not_named(command, add, name):
    """All of them must be said."""
    [letter] = add(event("good"))
    command(name, code=2)

    assert command.ids() == [letter]


@pytest.mark.parametrize("text", ["", "[1]", "no", '{"a": NaN}'])
def test_an_edit_that_is_no_event_is_refused(command, add, text):
    """The letter stays as it is."""
    [letter] = add(event())
    command("edit", letter, "--payload", "-", input=text, code=1)

    assert command.json("show", letter)["revision"] == 0
