"""The live tail while what it follows goes away and comes back."""

from __future__ import annotations

import json
import signal
import urllib.request
from pathlib import Path

from harness.client import Sender
from harness.collector import COMMAND, Collector
from harness.processes import Program
from harness.servers import OwnServers, valkey_command
from harness.waiting import wait_for


def test_the_tail_goes_on_without_redis_and_after_a_flush(
    collector: Collector, victims: OwnServers, tmp_path: Path
) -> None:
    """Each committed event once and in order: Redis away, back, and emptied; Postgres restarted."""
    database = collector.database
    sent: list[str] = []
    environment = {"ANALYTICS_API_KEY": database.new_key("read"), "PYTHONUNBUFFERED": "1"}
    with (
        collector.serve() as serve,
        collector.worker(),
        Sender(serve.url, database.new_key("ingest")) as sender,
    ):

        def send(count: int) -> None:
            for _ in range(count):
                name = f"n{len(sent)}"
                event = {"type": "track", "name": name, "userId": "u-1"}
                wait_for(lambda event=event: sender.send([event]).status == 202)  # type: ignore[misc]
                sent.append(name)

        tail = Program(
            [*COMMAND, "tail", "--url", serve.url, "--json"], tmp_path, "tail", environment
        )
        with tail:
            wait_for(lambda: _listeners(serve.url) == 1, "it listens")
            send(20)
            _wait_heard(tail, sent)
            victims.valkey.crash()
            send(20)
            _wait_heard(tail, sent)
            victims.valkey.start()
            send(20)
            _wait_heard(tail, sent)
            valkey_command(victims.valkey.url, "FLUSHALL")
            send(20)
            _wait_heard(tail, sent)
            victims.postgres.crash(signal.SIGQUIT)
            victims.postgres.start()
            send(20)
            _wait_heard(tail, sent)


def _listeners(url: str) -> float:
    text = urllib.request.urlopen(f"{url}/metrics").read().decode()
    (line,) = [line for line in text.splitlines() if line.startswith("analytics_live_listeners ")]
    return float(line.split()[1])


def _wait_heard(tail: Program, sent: list[str]) -> None:
    def heard() -> list[str]:
        return [json.loads(line)["name"] for line in tail.out.splitlines()]

    wait_for(lambda: len(heard()) >= len(sent), tail.log)
    assert heard() == sent
