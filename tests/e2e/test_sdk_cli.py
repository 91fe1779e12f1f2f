"""The SDK's command line on a real collector: what it says is what is stored."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from analytics_collector.keys import generate_key
from harness.collector import Collector, Serve, free_port

COMMAND = (sys.executable, "-W", "error", "-m", "analytics_sdk")

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def serve(collector: Collector) -> Iterator[Serve]:
    """The collector to which all tests of the module send."""
    with collector.serve() as serve:
        yield serve


@pytest.fixture
def run(serve: Serve, collector: Collector, tmp_path: Path) -> Run:
    """Run a command and return what it prints with --json, unless the key is another one."""
    usual = {
        "ANALYTICS_API_URL": serve.url,
        "ANALYTICS_API_KEY": collector.database.new_key("ingest"),
        "ANALYTICS_SPOOL_DIR": str(tmp_path / "spool"),
    }

    def run(*words: str, **variables: str) -> Any:
        done = subprocess.run(
            [*COMMAND, *words, "--json"],
            env={**os.environ, **usual, **variables},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stderr == ""
        return json.loads(done.stdout)

    return run


def _checks(document: Any) -> dict[str, str]:
    return {check["name"]: check["status"] for check in document["checks"]}


def _count(collector: Collector) -> int:
    count: int = collector.database.value("select count(*) from events")
    return count


def test_what_the_command_says_is_delivered_is_stored(collector: Collector, run: Run) -> None:
    """Under the id that it prints."""
    words = ("--property", "amount=42.5", "--property", "plan=pro", "--user-id", "u-cli")
    document = run("track", "paid", *words)
    rows = collector.database.fetch(
        "select message_id::text, properties from events where user_id = 'u-cli'"
    )

    assert document["status"] == "delivered"
    assert [(row[0], json.loads(row[1])) for row in rows] == [
        (document["messageId"], {"amount": 42.5, "plan": "pro"})
    ]


def test_the_same_message_id_is_told_as_a_duplicate(run: Run) -> None:
    """A script that runs twice stores once, and can know it."""
    message_id = "0193b5f0-0000-7000-8000-00000000c11a"
    first = run("track", "paid", "--message-id", message_id)
    second = run("track", "paid", "--message-id", message_id)

    assert (first["status"], first["duplicate"]) == ("delivered", False)
    assert (second["status"], second["duplicate"]) == ("delivered", True)


def test_what_was_kept_on_disk_is_stored_by_a_flush(collector: Collector, run: Run) -> None:
    """Once, and with the user who did it."""
    nowhere = f"http://127.0.0.1:{free_port()}"
    kept = run("track", "late", "--user-id", "u-late-cli", "--timeout", "0.2", "--api-url", nowhere)
    flushed = run("spool", "flush")
    stored = collector.database.value("select count(*) from events where user_id = 'u-late-cli'")

    assert kept["status"] == "spooled"
    assert (flushed["status"], flushed["delivered"]) == ("ok", 1)
    assert stored == 1


def test_the_doctor_finds_all_well_and_stores_nothing(collector: Collector, run: Run) -> None:
    """A key with the scope `ingest` is all that it takes."""
    before = _count(collector)
    document = run("doctor")

    assert document["status"] == "ok"
    assert _checks(document)["access"] == _checks(document)["clock"] == "ok"
    assert _count(collector) == before


@pytest.mark.parametrize("scope", ["read", "admin"])
def test_the_doctor_tells_a_key_without_the_scope(
    collector: Collector, run: Run, scope: str
) -> None:
    """The key is good, but for something else."""
    document = run("doctor", ANALYTICS_API_KEY=collector.database.new_key(scope))
    (access,) = [check for check in document["checks"] if check["name"] == "access"]

    assert document["status"] == access["status"] == "failed"
    assert access["facts"]["code"] == "INSUFFICIENT_SCOPE"


def test_the_doctor_tells_a_key_that_the_collector_does_not_know(run: Run) -> None:
    """Though it has the form of one."""
    document = run("doctor", ANALYTICS_API_KEY=generate_key())
    (access,) = [check for check in document["checks"] if check["name"] == "access"]

    assert _checks(document)["key"] == "ok"
    assert access["facts"]["code"] == "AUTH_FAILED"
