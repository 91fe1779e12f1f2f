"""Projects and keys in Postgres."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from analytics_collector.adapters.postgres.keys import PostgresKeyStore, ProjectAdmin
from analytics_collector.errors import Refusal
from analytics_collector.keys import digest

SECRET = "a secret of the server, not in it"


@pytest.fixture
def admin(pool):
    """Return the administration of a database."""
    return ProjectAdmin(pool, SECRET)


@pytest.fixture
def project(admin, run):
    """Return the name of a new project."""
    return run(admin.create_project(uuid4().hex))["name"]


def find(pool, run, key):
    return run(PostgresKeyStore(pool).find_key(digest(SECRET, key.encode())))


def test_the_database_holds_neither_the_key_nor_the_secret(admin, project, pool, run):
    """A dump of the database opens nothing: it has a MAC and twelve characters."""
    key = run(admin.create_key(project, ["ingest"], "web"))["key"]

    dump = "\n".join(
        record[0]
        for table in ("projects", "api_keys")
        for record in run(pool.fetch(f"select row_to_json(t)::text from {table} t"))
    )

    assert key[:12] in dump
    assert key[:13] not in dump
    assert key[12:24] not in dump
    assert SECRET not in dump
    assert digest(SECRET, key.encode()).hex() in dump


def test_a_key_opens_its_own_project_with_its_scopes(admin, project, pool, run):
    """What was asked for is what is given, no more."""
    made = run(admin.create_key(project, ["read", "ingest", "read"]))

    found = find(pool, run, made["key"])
    assert found is not None
    assert found.key_id == made["key_id"]
    assert found.scopes == {"ingest", "read"}
    assert run(admin.ensure_project(project)) == found.project_id


def test_a_revoked_or_expired_key_is_not_found(admin, project, pool, run):
    """The end of a key is the end, and the time of its first revocation stays."""
    revoked = run(admin.create_key(project, ["ingest"]))
    past = datetime.now(UTC) - timedelta(seconds=1)
    expired = run(admin.create_key(project, ["ingest"], expires_at=past))

    first = run(admin.revoke_key(revoked["key_id"]))

    assert find(pool, run, revoked["key"]) is None
    assert find(pool, run, expired["key"]) is None
    assert run(admin.revoke_key(revoked["key_id"])) == first


def test_a_list_of_keys_shows_no_secret(admin, project, run):
    """Who may list keys can't use them."""
    key = run(admin.create_key(project, ["admin"], "ci"))["key"]

    listed = run(admin.list_keys(project))

    assert [(entry["name"], entry["prefix"]) for entry in listed] == [("ci", key[:12])]
    assert "digest" not in listed[0]
    assert key not in str(listed)


def test_what_is_not_there_or_there_already_is_said(admin, project, run):
    """Mistakes at the command line get a sentence, not a traceback."""
    for action, code in [
        (admin.create_project(project), "CONFLICT"),
        (admin.create_key("no such project", ["ingest"]), "NOT_FOUND"),
        (admin.revoke_key(2**40), "NOT_FOUND"),
    ]:
        with pytest.raises(Refusal) as caught:
            run(action)
        assert caught.value.code == code
