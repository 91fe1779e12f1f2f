"""Projects and keys from the command line, on databases of one's own."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from click.testing import CliRunner

from analytics_collector.adapters.postgres.key_store import PostgresKeyStore
from analytics_collector.cli import main
from analytics_collector.keys import Keys, generate_key, pepper_id

SECRET = "a secret for the tests only"
OLD_SECRET = "the secret of last year"


class Command:
    """Runs commands as an operator does."""

    def __init__(self, database_url):
        self._environment = {
            "ANALYTICS_DATABASE_URL": database_url,
            "ANALYTICS_SECRET": SECRET,
            "ANALYTICS_SECRET_PREVIOUS": OLD_SECRET,
        }

    def __call__(self, *arguments, code=0, **kwargs):
        """Return what is printed."""
        environment = self._environment
        result = CliRunner().invoke(main, arguments, env=environment, **kwargs)
        assert result.exit_code == code, result.output
        return result.output

    def json(self, *arguments):
        """Return the value that is printed for a machine."""
        return json.loads(self(*arguments, "--json"))


@pytest.fixture
def command(pool, postgres_dsn, run):
    """Run commands on the database of the module."""
    name = run(pool.fetchval("select current_database()"))
    return Command(postgres_dsn.replace("/analytics?", f"/{name}?"))


@pytest.fixture
def project(command):
    """The name of a new project."""
    name = f"shop {uuid4().hex}"
    command("projects", "create", name)
    return name


@pytest.fixture
def new_key(command, project):
    """Make a key of the project."""

    def make(*options):
        return command.json("keys", "create", "--project", project, "--scope", "ingest", *options)

    return make


@pytest.fixture
def find(pool, run):
    """Ask as a server would."""
    return lambda key: run(Keys(PostgresKeyStore(pool), SECRET).find(key.encode()))


def test_a_key_can_be_limited_to_origins(command, project, new_key, find):
    """--allow-origin as often as needed; without it, any."""
    made = new_key("--allow-origin", "https://Shop.example.org", "--allow-origin", "https://*.a.eu")

    assert find(made["key"]).allowed_origins == ("https://shop.example.org", "https://*.a.eu")
    assert find(new_key()["key"]).allowed_origins is None
    options = ("--project", project, "--scope", "ingest", "--allow-origin", "shop")
    assert "--allow-origin" in command("keys", "create", *options, code=1)


def test_a_key_is_rotated_with_an_overlap(command, new_key, find):
    """The new one is printed once, and when the old one ends."""
    old = new_key("--name", "web")

    new = command.json("keys", "rotate", str(old["key_id"]), "--overlap-seconds", "60")

    assert find(new["key"]).project_id == find(old["key"]).project_id
    ends_at = datetime.fromisoformat(new["old_key_expires_at"])
    assert timedelta(seconds=50) < ends_at - datetime.now(UTC) <= timedelta(seconds=60)
    shown = command("keys", "show", str(old["key_id"]))
    assert f"replaced_by: {new['key_id']}" in shown
    assert new["key"][:13] not in shown
    printed = command("keys", "rotate", str(new["key_id"]))
    assert "key: ak_live_" in printed
    assert f"key {new['key_id']} is valid until" in printed
    assert "replaced" in command("keys", "rotate", str(old["key_id"]), code=1)


def test_a_key_is_let_expire_now_later_or_never(command, new_key, find):
    """Without a time it ends at once."""
    made = new_key("--expires-in-days", "1")
    key_id = str(made["key_id"])

    later = command.json("keys", "expire", key_id, "--in-days", "10")
    assert datetime.fromisoformat(later["expires_at"]) > datetime.now(UTC) + timedelta(days=9)
    assert command.json("keys", "expire", key_id, "--never")["expires_at"] is None
    assert find(made["key"]) is not None
    command("keys", "expire", key_id)
    assert find(made["key"]) is None
    command("keys", "expire", key_id, "--never", "--in-days", "1", code=2)
    command("keys", "expire", key_id, "--in-days", "nan", code=2)


def test_the_use_of_a_key_is_printed(command, new_key):
    """Totals first, then a line for each day."""
    key_id = str(new_key()["key_id"])

    used = command.json("keys", "usage", key_id, "--days", "7")
    assert used == {"key_id": int(key_id), "last_used_at": None, "usage_count": 0, "days": []}
    assert "usage_count: 0" in command("keys", "usage", key_id)


@pytest.mark.parametrize("how", ["argument", "stdin"])
def test_a_key_is_checked_without_a_database(how):
    """Scanners and people can tell a key of ours from a mistyped one, anywhere."""
    key = generate_key()
    wrong = key[:-1] + ("0" if key[-1] != "0" else "1")

    def check(candidate):
        given = (["-"], f"{candidate}\n") if how == "stdin" else ([candidate], None)
        result = CliRunner().invoke(main, ["keys", "check", *given[0]], input=given[1], env={})
        return result.exit_code, result.output

    assert check(key) == (0, "well formed\n")
    assert check(wrong)[0] == 1
    assert "not well formed" in check(wrong)[1]
    assert check("schlüssel")[0] == 1


def test_the_peppers_have_ids_that_tell_nothing(command, new_key):
    """`keys list` says which secret a key is under, `keys pepper` which that is now."""
    made = new_key()

    peppers = command.json("keys", "pepper")

    assert peppers == {"current": pepper_id(SECRET), "previous": [pepper_id(OLD_SECRET)]}
    assert command.json("keys", "show", str(made["key_id"]))["pepper"] == peppers["current"]
    assert f"pepper={peppers['current']}" in command("keys", "list")
    assert SECRET not in command("keys", "pepper") + command("keys", "list")


@pytest.mark.parametrize("verb", ["show", "usage", "rotate", "expire", "revoke"])
def test_a_key_that_is_not_there_is_said_so(command, verb):
    """Exit code 1 and a sentence."""
    assert "There is no key" in command("keys", verb, str(2**40), code=1)


def test_settings_of_a_project_are_set_one_by_one_or_as_json(command, project):
    """What is not named stays; null brings the default back."""
    command("projects", "set", project, "privacy.ip=drop", "limits.eventsPerMinute=600")
    command("projects", "set", project, '{"privacy": {"denyProperties": ["iban"]}}')

    changed = command.json("projects", "set", project, "limits.eventsPerMinute=null")

    expected = {"privacy": {"ip": "drop", "denyProperties": ["iban"]}, "limits": {}}
    assert changed["settings"] == expected
    assert command.json("projects", "show", project)["settings"] == expected
    assert '"denyProperties": ["iban"]' in command("projects", "show", project)


@pytest.mark.parametrize(
    ("setting", "code", "told"),
    [
        ("privacy.ip=guess", 1, "settings.privacy.ip"),
        ("privacy=drop", 2, "neither"),
        ("nonsense", 2, "neither"),
        ("[1]", 2, "JSON object"),
        ("unknown.member=1", 1, "settings"),
    ],
)
def test_a_wrong_setting_is_said_and_changes_nothing(command, project, setting, code, told):
    """The other settings of the same command are not set either."""
    assert told in command("projects", "set", project, "privacy.ip=drop", setting, code=code)
    assert command.json("projects", "show", project)["settings"] == {}


def test_a_project_that_is_not_there_is_said_so(command):
    """Exit code 1 and a sentence."""
    for arguments in (["show", "nobody"], ["set", "nobody", "privacy.ip=drop"]):
        assert "no project named 'nobody'" in command("projects", *arguments, code=1)
