"""Projects and keys in Postgres."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from analytics_collector.adapters.postgres.administration import Administration, ProjectAdmin
from analytics_collector.adapters.postgres.key_store import PostgresKeyStore
from analytics_collector.errors import Refusal
from analytics_collector.keys import Keys, digest, pepper_id
from analytics_collector.model import KeyUse

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
    return run(PostgresKeyStore(pool).find_key([digest(SECRET, key.encode())]))


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


def test_a_key_under_an_older_pepper_is_moved_and_listed_so(project, pool, run):
    """The operator sees under which secret each key is, and when an old one is out of use."""
    old = ProjectAdmin(pool, "the secret of last year")
    used = run(old.create_key(project, ["ingest"]))
    run(old.create_key(project, ["ingest"]))
    keys = Keys(PostgresKeyStore(pool), SECRET, previous=["the secret of last year"])

    async def use():
        found = await keys.find(used["key"].encode())
        await asyncio.gather(*keys._moves.values())  # what goes on in the background
        return found

    def peppers():
        return [entry["pepper"] for entry in run(old.list_keys(project))]

    last_year, this_year = pepper_id("the secret of last year"), pepper_id(SECRET)
    assert peppers() == [last_year, last_year]
    assert run(use()).key_id == used["key_id"]
    assert peppers() == [this_year, last_year]
    assert find(pool, run, used["key"]).pepper == this_year


def test_a_key_from_before_peppers_had_ids_gets_one_at_its_first_use(project, admin, pool, run):
    """An upgrade asks nothing of anybody."""
    made = run(admin.create_key(project, ["ingest"]))
    run(pool.execute("update api_keys set pepper = null where key_id = $1", made["key_id"]))
    keys = Keys(PostgresKeyStore(pool), SECRET)

    async def use():
        await keys.find(made["key"].encode())
        await asyncio.gather(*keys._moves.values())

    run(use())

    assert run(admin.find_key(made["key_id"]))["pepper"] == pepper_id(SECRET)


def test_what_several_servers_count_adds_up(project, admin, pool, run):
    """Servers that write the same keys at once neither lose a count nor wait for each other."""
    made = [run(admin.create_key(project, ["ingest"]))["key_id"] for _ in range(20)]
    today = datetime.now(UTC).date()
    store = PostgresKeyStore(pool)

    async def server(number):
        for turn in range(10):
            at = datetime(2026, 1, 1, number, turn, tzinfo=UTC)
            await store.add_usage([KeyUse(key_id, today, 1, 10, 2, at) for key_id in made])

    async def all_at_once():
        await asyncio.gather(*(server(number) for number in range(4)))

    run(all_at_once())

    for key_id in made:
        used = run(admin.key_usage(key_id, 1))
        assert used["usage_count"] == 40
        assert used["last_used_at"] == datetime(2026, 1, 1, 3, 9, tzinfo=UTC)
        assert used["days"] == [{"day": today, "requests": 40, "events": 400, "rejected": 80}]


def test_uses_older_than_400_days_go(project, admin, pool, run):
    """What is kept of a key does not grow for ever."""
    key_id = run(admin.create_key(project, ["ingest"]))["key_id"]
    store, now = PostgresKeyStore(pool), datetime.now(UTC)
    for days in (500, 300, 0):
        at = now - timedelta(days=days)
        run(store.add_usage([KeyUse(key_id, at.date(), 1, 0, 0, at)]))

    kept = run(pool.fetch("select day from key_usage where key_id = $1 order by day", key_id))

    assert [row["day"] for row in kept] == [(now - timedelta(days=n)).date() for n in (300, 0)]
    assert run(admin.find_key(key_id))["usage_count"] == 3


def test_two_who_rotate_a_key_at_once_make_one_successor(project, admin, pool, run):
    """The second hears that it was replaced, and by which."""
    key_id = run(admin.create_key(project, ["ingest"]))["key_id"]
    administration = Administration(pool, SECRET)

    async def rotate():
        try:
            async with administration.session() as own:
                return (await own.rotate_key(key_id))["key_id"]
        except Refusal as exc:
            return exc.code

    async def both():
        return await asyncio.gather(rotate(), rotate(), rotate())

    answers = run(both())

    assert sorted(str(answer) for answer in answers)[1:] == ["CONFLICT", "CONFLICT"]
    assert len(run(admin.list_keys(project))) == 2


def test_two_who_change_different_settings_at_once_both_succeed(project, admin, pool, run):
    """A change of one member does not undo another's."""
    project_id = run(admin.project_id(project))
    administration = Administration(pool, SECRET)

    async def change(patch):
        async with administration.session() as own:
            await own.change_project(project_id, None, patch)

    async def both():
        await asyncio.gather(
            *(change({"enrichment": {name: False}}) for name in ("geo", "screen", "userAgent")),
            change({"privacy": {"ip": "drop"}}),
        )

    run(both())

    settings = run(admin.find_project(project_id))["settings"]
    assert settings["privacy"] == {"ip": "drop"}
    assert settings["enrichment"] == {"geo": False, "screen": False, "userAgent": False}
