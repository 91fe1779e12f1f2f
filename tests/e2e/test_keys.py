"""Keys in a real installation: several servers, changed secrets, and what is left lying about."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from redis import Redis

from harness.collector import Collector, Serve, run_command
from harness.database import SECRET, Database
from harness.waiting import wait_for

REVOKED_WITHIN_S = 5.0
# What the clocks of this test and a busy machine add.
NOISE_S = 0.5
NEW_SECRET = "the secret of next year"


def send(server: Serve, key: str) -> int:
    """Send one event and return the status."""
    event = {"type": "track", "name": "e", "messageId": str(uuid4()), "userId": "u-1"}
    headers = {"x-api-key": key}
    url = f"{server.url}/api/v1/events"
    # Without the certificates for https, which take longer to load than any answer.
    return httpx.post(url, json={"batch": [event]}, headers=headers, verify=False).status_code


def administer(server: Serve, key: str, method: str, path: str, document: Any = None) -> Any:
    """Return what the administration answers."""
    url, headers = f"{server.url}/api/v1/admin/{path}", {"x-api-key": key}
    answer = httpx.request(method, url, json=document, headers=headers, verify=False)
    assert answer.status_code in (200, 201), answer.text
    return answer.json()["data"]


@pytest.fixture
def installation(servers: tuple[str, str], tmp_path: Path) -> Iterator[Collector]:
    """A collector on a database of the test's own."""
    postgres_url, valkey_url = servers
    database = Database.create(postgres_url)
    yield Collector(database, f"{valkey_url}?db=2", tmp_path / "one")
    database.drop(postgres_url)


@pytest.fixture
def second(installation: Collector, servers: tuple[str, str], tmp_path: Path) -> Collector:
    """The same installation on another machine, as far as its logs go."""
    return Collector(installation.database, f"{servers[1]}?db=2", tmp_path / "two")


def test_a_key_that_one_server_revokes_is_refused_by_all_within_five_seconds(
    installation: Collector, second: Collector
) -> None:
    """However many servers there are, and however busy the key is at each (SEC-04)."""
    key = installation.database.new_key("ingest")
    admin_key = installation.database.new_key("admin")
    with installation.serve() as one, second.serve() as two:
        listed = administer(one, admin_key, "GET", "keys")["keys"]
        (key_id,) = [entry["keyId"] for entry in listed if entry["scopes"] == ["ingest"]]
        assert [send(server, key) for server in (one, two)] == [202, 202]

        administer(one, admin_key, "DELETE", f"keys/{key_id}")

        for server in (two, one):
            wait_for(
                lambda server=server: send(server, key) == 401,  # type: ignore[misc]
                "the key is refused",
                REVOKED_WITHIN_S + NOISE_S,
            )


def test_what_several_servers_counted_is_there_after_they_stopped(
    installation: Collector, second: Collector
) -> None:
    """An ordinary stop loses no statistics, and nobody overwrites another's."""
    key = installation.database.new_key("ingest")
    with installation.serve() as one, second.serve() as two:
        for _ in range(5):
            assert [send(server, key) for server in (one, two)] == [202, 202]
        one.stop()
        two.stop()

    rows = installation.database.fetch("select requests, events, rejected from key_usage")
    assert [tuple(row) for row in rows] == [(10, 10, 0)]
    assert installation.database.value("select max(usage_count) from api_keys") == 10


def test_a_secret_is_changed_without_refusing_a_key(installation: Collector) -> None:
    """What is used meanwhile works on; what is not is out of use with the old secret (SEC-08)."""
    used = installation.database.new_key("ingest")
    unused = installation.database.new_key("ingest")
    peppers = "select count(distinct pepper) from api_keys"
    with installation.serve() as server:
        assert send(server, used) == 202
    with installation.serve(secret=NEW_SECRET, secret_previous=SECRET) as server:
        assert send(server, used) == 202
        wait_for(lambda: installation.database.value(peppers) == 2, "it is moved")
        assert server.faults == []
    with installation.serve(secret=NEW_SECRET) as server:
        assert send(server, used) == 202
        assert send(server, unused) == 401


def _everything_in_postgres(database: Database) -> str:
    tables = database.fetch("select tablename from pg_tables where schemaname = 'public'")
    rows = [
        row[0]
        for table in tables
        for row in database.fetch(f"select row_to_json(t)::text from {table[0]} t")
    ]
    assert len(rows) > 5
    return "\n".join(rows)


def _everything_in_redis(url: str) -> str:
    with Redis.from_url(url, decode_responses=True, encoding_errors="replace") as redis:
        # Not DUMP, which may compress.
        read = {
            "string": redis.get,
            "hash": redis.hgetall,
            "list": lambda name: redis.lrange(name, 0, -1),
            "set": redis.smembers,
            "zset": lambda name: redis.zrange(name, 0, -1),
            "stream": redis.xrange,
        }
        found = [(name, read[redis.type(name)](name)) for name in redis.scan_iter(count=1000)]
    return repr(found)


def test_no_key_and_no_secret_is_left_lying_about(
    installation: Collector, servers: tuple[str, str], tmp_path: Path
) -> None:
    """Who gets at Postgres, Redis, the logs or the numbers gets at no key (SEC-02, SEC-05)."""
    admin_key = installation.database.new_key("admin")
    strange = "ak_live_" + "7" * 49
    with installation.serve(log_level="DEBUG") as server, installation.worker(log_level="DEBUG"):
        made = administer(server, admin_key, "POST", "keys", {"scopes": ["ingest", "read"]})
        rotated = administer(server, admin_key, "POST", f"keys/{made['keyId']}/rotate")
        keys = [admin_key, made["key"], rotated["key"], strange]
        assert [send(server, key) for key in keys] == [403, 202, 202, 401]
        # In the wrong places: twice, in the address, in a message to nobody.
        twice = [("x-api-key", made["key"]), ("x-api-key", rotated["key"])]
        url = f"{server.url}/api/v1/workflows"
        assert httpx.get(url, headers=twice).status_code == 401
        assert httpx.get(f"{url}?x-api-key={made['key']}").status_code == 401
        assert httpx.get(f"{server.url}/{made['key']}").status_code == 404
        wait_for(
            lambda: installation.database.value("select count(*) from key_usage") > 0, "it counts"
        )
        redis_url = f"{servers[1]}?db=2"
        wait_for(lambda: "u-1" in _everything_in_redis(redis_url), "the events are in Redis")
        numbers = httpx.get(f"{server.url}/metrics").text
    files = [path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file()]
    found = "\n".join(
        [
            _everything_in_postgres(installation.database),
            _everything_in_redis(redis_url),
            numbers,
            *files,
        ]
    )

    assert made["prefix"] in found
    for key in keys:
        assert key[:13] not in found
        assert key[-20:] not in found
    assert SECRET not in found
    assert json.dumps(SECRET)[1:-1] not in found


@pytest.mark.parametrize("given", [{}, {"ANALYTICS_SECRET": ""}], ids=["none", "empty"])
def test_without_a_secret_nothing_starts(
    installation: Collector, servers: tuple[str, str], given: dict[str, str]
) -> None:
    """There is no secret of ours to fall back to, which everybody would know (SEC-22)."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("ANALYTICS_")
    }
    environment |= {
        "ANALYTICS_DATABASE_URL": installation.database.url,
        "ANALYTICS_REDIS_URL": servers[1],
        **given,
    }
    done = run_command("serve", "--port", "0", environment=environment)

    assert done.returncode != 0
    assert "ANALYTICS_SECRET" in done.stderr
    assert '"Listening"' not in done.stderr


FORGED = "203.0.113.77"


def test_a_forged_address_is_believed_nowhere(installation: Collector, tmp_path: Path) -> None:
    """Who writes an address into a header is logged and stored by their own (SEC-20)."""
    key = installation.database.new_key("ingest")
    forged = {
        "x-forwarded-for": f"{FORGED}, {FORGED}",
        "forwarded": f"for={FORGED}",
        "x-real-ip": FORGED,
        "x-client-ip": FORGED,
        "true-client-ip": FORGED,
        # A browser's, for of those the network is kept.
        "origin": "https://shop.example",
        "user-agent": "Mozilla/5.0 (Windows NT 10.0; Win64; x64) Chrome/131.0.0.0 Safari/537.36",
    }
    event = {"type": "track", "name": "e", "messageId": str(uuid4()), "userId": "u-1"}
    with installation.serve(log_level="DEBUG") as server:
        url = f"{server.url}/api/v1/events"
        statuses = [
            httpx.post(
                url, json={"batch": batch}, headers={"x-api-key": used, **forged}, verify=False
            ).status_code
            for used, batch in ((key, [event]), (key, []), ("wrong", [event]))
        ]
    stored = _everything_in_postgres(installation.database)
    logs = "\n".join(path.read_text() for path in tmp_path.rglob("*.log"))

    assert statuses == [202, 400, 401]
    network = FORGED.rpartition(".")[0]
    assert network not in stored
    assert network not in logs
    assert "127.0.0.0" in stored  # the network that it came from
