"""A Redis that answers, and says no: a foreign value for the stream, no replicas, no memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from analytics_collector.adapters.redis.names import STREAM
from harness.client import Mint, Sender
from harness.collector import Collector
from harness.servers import OwnServers, valkey_command
from harness.waiting import wait_for

Command = Callable[..., bytes]


def _put_something_else(command: Command) -> None:
    command("SET", STREAM, "something-else")


def _take_it_away(command: Command) -> None:
    command("DEL", STREAM)


def _want_replicas(command: Command) -> None:
    command("CONFIG", "SET", "min-replicas-to-write", "1")


def _want_none(command: Command) -> None:
    command("CONFIG", "SET", "min-replicas-to-write", "0")


def _leave_no_memory(command: Command) -> None:
    command("CONFIG", "SET", "maxmemory", "1")  # what is there stays: its policy is noeviction


def _leave_all_memory(command: Command) -> None:
    command("CONFIG", "SET", "maxmemory", "0")


@pytest.mark.parametrize(
    ("harm", "heal"),
    [
        (_put_something_else, _take_it_away),
        (_want_replicas, _want_none),
        (_leave_no_memory, _leave_all_memory),
    ],
    ids=["wrong-type", "no-replicas", "out-of-memory"],
)
def test_it_is_told_and_waited_for_and_nothing_is_missing(
    collector: Collector,
    victims: OwnServers,
    harm: Callable[[Command], None],
    heal: Callable[[Command], None],
) -> None:
    """The worker says so, does not end, and goes on by itself; ingest never stops."""

    def command(*words: str) -> bytes:
        return valkey_command(victims.valkey.url, *words)

    database = collector.database
    mint = Mint(1)
    with (
        collector.serve() as serve,
        collector.worker() as worker,
        Sender(serve.url, database.new_key()) as sender,
    ):
        assert sender.send(mint.events(3)).status == 202
        database.wait_counted()
        pid = worker.pid
        harm(command)
        try:
            statuses = {sender.send(mint.events(3)).status for _ in range(5)}
            wait_for(lambda: worker.log.count("Interrupted") > 1, "the worker says so")
        finally:
            heal(command)
        database.wait_counted()
        is_same = worker.is_running and worker.pid == pid
        loudness = worker.log.count("Interrupted")
        faults = serve.faults

    assert statuses == {202}
    assert is_same
    assert loudness < 40  # it waits between its tries
    assert faults == []


def test_a_worker_on_a_redis_that_may_evict_the_stream_says_so(
    collector: Collector, victims: OwnServers
) -> None:
    """What `allkeys-lru` throws away nobody has seen: the operator reads it (RD-09)."""
    valkey_command(victims.valkey.url, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        with collector.worker() as worker:
            wait_for(lambda: "Redis may evict the stream" in worker.log, "the worker says so")
            (line,) = (line for line in worker.log.splitlines() if "may evict" in line)
    finally:
        valkey_command(victims.valkey.url, "CONFIG", "SET", "maxmemory-policy", "noeviction")

    assert '"warning"' in line
    assert "allkeys-lru" in line
