"""The event store on a real Postgres: once, in order, all or nothing, and honest about failures."""

from __future__ import annotations

import asyncio
import json
from itertools import permutations
from uuid import uuid4

import asyncpg
import pytest

from analytics_collector.adapters.migrate import migrate
from analytics_collector.adapters.postgres.pool import connect_pool
from analytics_collector.adapters.postgres.store import PostgresEventStore
from analytics_collector.errors import StoreUnavailable
from analytics_collector.interfaces import RowsRefused


@pytest.fixture
def store(pool):
    """Return the store under test."""
    return PostgresEventStore(pool)


@pytest.fixture
def names(pool, run, project_id):
    """Return the names of the project's events in the order of the store."""

    def read():
        query = "select name from events where project_id = $1 order by seq"
        return [record["name"] for record in run(pool.fetch(query, project_id))]

    return read


@pytest.fixture
def commits(pool, run):
    """Return how many commits the log has."""
    return lambda: run(pool.fetchval("select count(*) from commits"))


@pytest.fixture
def traits(pool, run, project_id):
    """Return the present traits of a user."""

    def read(user_id):
        query = "select traits from users where project_id = $1 and user_id = $2"
        return json.loads(run(pool.fetchval(query, project_id, user_id)))

    return read


def test_duplicates_are_told_by_their_position(store, row, names, run):
    """What was there stays as it was: first write wins."""
    first, second = row(name="first"), row(name="second")
    assert run(store.append([first, second])) == []

    again = [row(name="new"), second._replace(name="changed"), row(name="newer"), first]

    assert run(store.append(again)) == [1, 3]
    assert names() == ["first", "second", "new", "newer"]


def test_the_same_id_in_two_projects_is_two_events(store, row, pool, run):
    """No tenant can suppress the event of another."""
    mine = row()
    insert = "insert into projects (name) values ($1) returning project_id"
    yours = mine._replace(project_id=run(pool.fetchval(insert, uuid4().hex)))

    assert run(store.append([mine, yours])) == []
    assert run(store.append([yours])) == [0]


def test_events_are_numbered_in_the_order_of_the_rows(store, row, names, run):
    """Within a group and from group to group the sequence only rises (TIM-15)."""
    expected = []
    for group in range(4):
        rows = [row(name=f"{group}-{n}") for n in range(50)]
        run(store.append(rows))
        expected += [made.name for made in rows]

    assert names() == expected


def test_a_commit_is_logged_with_its_transaction(store, row, pool, run):
    """Followers find the very transaction that stored the events, and how many there were."""
    rows = [row(), row()]
    run(store.append(rows))

    ids = [made.message_id for made in rows]
    query = """
        select commits.xid::text, events.xmin::text, event_count
        from events join commits using (commit_id) where message_id = any($1::uuid[])
    """
    records = run(pool.fetch(query, ids))
    assert len(records) == 2
    assert {record["event_count"] for record in records} == {2}
    assert all(int(r["xid"]) % 2**32 == int(r["xmin"]) for r in records)


def test_a_group_of_duplicates_leaves_nothing_in_the_log(store, row, commits, run):
    """A retry of what is stored gives consumers nothing to do."""
    rows = [row(), row(type="identify", userId="u", traits={"a": 1})]
    run(store.append(rows))
    before = commits()

    assert run(store.append(rows)) == [0, 1]
    assert commits() == before


def identify(row, at, user_id="u", **traits):
    return row(
        type="identify", userId=user_id, timestamp=f"2026-01-01T00:00:{at:02}Z", traits=traits
    )


@pytest.mark.parametrize("order", list(permutations([1, 2, 3])))
def test_the_later_word_wins_for_each_trait_in_whatever_order_they_arrive(
    store, row, traits, run, order
):
    """A phone that was offline does not take back what was said since."""
    said = {1: {"plan": "free", "city": "Rome"}, 2: {"plan": "pro"}, 3: {"city": "Oslo"}}
    for at in order:
        run(store.append([identify(row, at, **said[at])]))

    assert traits("u") == {"plan": "pro", "city": "Oslo"}


def test_several_identifies_of_a_group_are_merged_in_their_order(store, row, traits, run):
    """By their time, and those of one time as they were sent; users apart."""
    run(
        store.append(
            [
                identify(row, 9, plan="pro"),
                identify(row, 9, plan="team"),
                identify(row, 5, plan="free", city="Rome"),
                identify(row, 1, user_id="other", plan="none"),
                row(type="identify", userId="without traits"),
            ]
        )
    )

    assert traits("u") == {"plan": "team", "city": "Rome"}
    assert traits("other") == {"plan": "none"}
    assert traits("without traits") == {}


@pytest.mark.parametrize(
    "first",
    [{"bio": "a" * 66_000}, {f"trait-{n}": "" for n in range(1200)}],
    ids=["a trait that packs well", "many small ones"],
)
def test_a_user_with_too_many_traits_gets_no_new_ones(store, row, traits, run, first):
    """However well they pack: each identify writes all of them anew, in the commit of others."""
    run(store.append([identify(row, 1, **first)]))
    run(store.append([identify(row, 2, plan="pro")]))

    assert traits("u") == first


def test_a_duplicate_identify_is_not_merged_again(store, row, traits, run):
    """A late retry, even one that was changed, does not alter a user."""
    first = identify(row, 1, plan="free")
    run(store.append([first]))
    run(store.append([identify(row, 2, plan="pro")]))

    changed = first._replace(traits='{"plan": "forged"}', timestamp=identify(row, 9).timestamp)
    assert run(store.append([row(), changed])) == [1]

    assert traits("u") == {"plan": "pro"}


@pytest.mark.parametrize("kind", ["track", "identify"])
def test_two_stores_with_the_same_ids_in_opposite_order_do_not_fail(
    postgres_dsn, pool, row, run, kind
):
    """Clients that retry at two servers at once get no error, and one row each."""

    async def race() -> None:
        database = await pool.fetchval("select current_database()")
        two = await asyncpg.create_pool(
            postgres_dsn,
            database=database,
            min_size=2,
            max_size=2,
            # After this time the server looks for deadlocks; the usual second would be long here.
            server_settings={"deadlock_timeout": "10ms"},
        )
        stores = [PostgresEventStore(two), PostgresEventStore(two)]
        for _ in range(100):
            rows = [row(type=kind, userId=f"u{n % 3}", traits={"n": n}) for n in range(20)]
            one, other = await asyncio.gather(stores[0].append(rows), stores[1].append(rows[::-1]))
            twice = {rows[n].message_id for n in one} & {rows[::-1][n].message_id for n in other}
            assert not twice
            assert len(one) + len(other) == len(rows)
        await two.close()

    run(race())


@pytest.mark.parametrize(
    "members",
    [
        {"name": "nul \0"},
        {"user_id": "half a pair \ud800"},
        {"properties": '{"nul": "\\u0000"}'},
        {"properties": '{"half": "\\ud800"}'},
        {"properties": '{"n": 1' + "0" * 140_000 + "}"},
        {"context": "{not json"},
        {"message_id": "no uuid"},
        {"name": None},
    ],
    ids=["nul", "surrogate", "nul in json", "surrogate in json", "digits", "no json", "id", "null"],
)
def test_a_row_that_can_never_be_stored_is_refused_as_such(store, row, names, run, members):
    """What slips past the checks is no outage, or it would be sent for ever."""
    poison = row()._replace(**members)

    with pytest.raises(RowsRefused):
        run(store.append([row(name="good"), poison]))
    assert names() == []
    assert run(store.append([row(name="good")])) == []


class Fragile:
    """A store on a pool like the server's, in a database to which anything may be done."""

    def __init__(self, pool: asyncpg.Pool, operator: asyncpg.Connection) -> None:
        self.store = PostgresEventStore(pool)
        self.pool = pool
        self.operator = operator

    async def names(self) -> list[str]:
        records = await self.operator.fetch("select name from events order by seq")
        return [record["name"] for record in records]

    async def kill_all(self) -> None:
        await self.operator.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where datname = current_database() and pid <> pg_backend_pid()"
        )

    async def lock(self) -> None:
        await self.operator.execute("begin; lock table events in access exclusive mode")

    async def unlock(self) -> None:
        await self.operator.execute("rollback")


@pytest.fixture
def fragile(empty_database, connection, run):
    """Return a store that waits half a second for its database."""
    run(migrate(empty_database))
    pool = run(connect_pool(empty_database, min_size=1, max_size=2, timeout_s=0.5))
    yield Fragile(pool, connection)
    pool.terminate()


def test_a_killed_backend_is_an_outage_that_heals(fragile, row, run):
    """Whatever asyncpg makes of it, it is StoreUnavailable, and the next one succeeds."""

    async def scenario() -> list[object]:
        outcomes: list[object] = []
        for n in range(30):
            appending = asyncio.create_task(fragile.store.append([row(name=f"e{n}")]))
            await fragile.kill_all()
            outcomes += await asyncio.gather(appending, return_exceptions=True)
        return outcomes

    outcomes = run(scenario())

    assert {type(outcome) for outcome in outcomes} <= {list, StoreUnavailable}
    last = row(name="last")
    for _ in range(3):  # each of the two connections may have died unnoticed
        try:
            run(fragile.store.append([last]))
            break
        except StoreUnavailable:
            continue
    stored = run(fragile.names())
    assert stored[-1] == "last"
    assert len(set(stored)) == len(stored)
    assert {f"e{n}" for n, outcome in enumerate(outcomes) if outcome == []} <= set(stored)


@pytest.mark.parametrize("kind", ["track", "identify"])
def test_a_locked_table_is_an_outage_in_time_and_heals(fragile, row, run, kind):
    """A store that hangs is told 503 while its client still listens, and recovers alone."""
    waiting = row(type=kind, name="later", userId="u")

    async def attempt() -> None:
        async with asyncio.timeout(5):
            await fragile.store.append([waiting])

    run(fragile.lock())
    for _ in range(3):  # one more than there are connections: none is lost to a failure
        with pytest.raises(StoreUnavailable):
            run(attempt())
    run(fragile.unlock())

    assert run(fragile.store.append([waiting])) == []
    assert run(fragile.names()) == ["later"]


def test_a_backend_killed_in_the_middle_stores_nothing(fragile, row, run):
    """Either the whole group is committed or none of it."""

    async def kill_the_waiting() -> object:
        await fragile.lock()
        rows = [row() for _ in range(3)]
        appending = asyncio.gather(fragile.store.append(rows), return_exceptions=True)
        query = "select 1 from pg_locks where not granted and relation = 'events'::regclass"
        while not await fragile.operator.fetchval(query):
            await asyncio.sleep(0)
        await fragile.kill_all()
        await fragile.unlock()
        return (await appending)[0]

    assert isinstance(run(kill_the_waiting()), StoreUnavailable)
    assert run(fragile.names()) == []


def test_a_database_that_only_reads_is_an_outage(fragile, row, run):
    """A primary that became a replica makes events wait, and is never a fault."""

    async def switch(value: str) -> None:
        database = await fragile.operator.fetchval("select current_database()")
        await fragile.operator.execute(
            f"alter database {database} set default_transaction_read_only = {value}"
        )
        await fragile.pool.expire_connections()

    run(fragile.operator.execute("set default_transaction_read_only = off"))
    run(switch("on"))
    with pytest.raises(StoreUnavailable):
        run(fragile.store.append([row()]))

    run(switch("off"))
    assert run(fragile.store.append([row()])) == []


def test_a_server_that_lets_nobody_in_is_an_outage(fragile, row, pool, run):
    """While it has no connection for us events wait; after that nothing is left of it."""

    async def let_in(anybody: bool) -> None:
        database = await fragile.operator.fetchval("select current_database()")
        await pool.execute(f"alter database {database} with allow_connections {anybody}")

    run(let_in(False))
    run(fragile.kill_all())
    outcomes = [run(outcome(fragile.store.append([row()]))) for _ in range(3)]
    run(let_in(True))

    assert outcomes == [StoreUnavailable] * 3
    assert run(fragile.store.append([row(name="after")])) == []


async def outcome(attempt):
    return type((await asyncio.gather(attempt, return_exceptions=True))[0])
