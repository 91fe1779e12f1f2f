"""`analytics-collector tail` on real servers: through restarts, filters, and on a terminal."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.client import Sender
from harness.collector import COMMAND, Collector, Serve
from harness.processes import Program
from harness.waiting import wait_for


@pytest.fixture(scope="module")
def serve(collector: Collector) -> Iterator[Serve]:
    """A server that none of the tests stops."""
    with collector.serve() as serve:
        yield serve


@pytest.fixture
def tail(collector: Collector, tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Start `tail` on a server; it listens when this returns."""
    started: list[Program] = []

    def start(url: str, *words: str, key: str | None = None) -> Program:
        environment = {
            "ANALYTICS_API_URL": url,
            "ANALYTICS_API_KEY": key or collector.database.new_key("read"),
            "PYTHONUNBUFFERED": "1",
        }
        name = f"tail{len(started)}"
        program = Program([*COMMAND, "tail", *words], tmp_path, name, environment)
        program.start()
        started.append(program)
        return program

    yield start
    for program in started:
        program.end()


def _send(collector: Collector, serve: Serve, *names: str, **members: Any) -> None:
    events = [{"type": "track", "name": name, "userId": "u-1", **members} for name in names]
    with Sender(serve.url, collector.database.new_key("ingest")) as sender:
        assert sender.send(events).status == 202


def _heard(program: Program) -> list[str]:
    whole = [line for line in program.out.splitlines(keepends=True) if line.endswith("\n")]
    return [json.loads(line)["name"] for line in whole]


def _wait_until_heard(collector: Collector, serve: Serve, program: Program) -> None:
    """Send until the first event comes: from then on it listens."""

    def comes() -> bool:
        _send(collector, serve, "is anybody there?")
        return bool(program.out)

    wait_for(comes, program.log)


def _without_calls(names: list[str]) -> list[str]:
    return [name for name in names if name != "is anybody there?"]


def test_a_restart_of_the_server_loses_no_event(
    collector: Collector, serve: Serve, tail: Callable[..., Program], tmp_path: Path
) -> None:
    """It ends the streams at once, and they are taken up again where they were."""
    names = [f"n{number}" for number in range(30)]
    with collector.serve(shutdown_timeout_s=30) as listened_to:
        program = tail(listened_to.url, "--json")
        _wait_until_heard(collector, serve, program)
        _send(collector, serve, *names[:10])
        wait_for(lambda: names[9] in _heard(program), program.log)
        asked_at = time.monotonic()
        code = listened_to.stop()
        took_s = time.monotonic() - asked_at
        _send(collector, serve, *names[10:20])
        listened_to.start()
        listened_to.wait_ready()
        _send(collector, serve, *names[20:])
        wait_for(lambda: names[-1] in _heard(program), program.log)

    assert (code, took_s < 10) == (0, True)
    assert _without_calls(_heard(program)) == names
    assert "This server stops" in program.log


def test_it_ends_well_when_it_is_told_to(
    collector: Collector, serve: Serve, tail: Callable[..., Program]
) -> None:
    """Ctrl-C is how one leaves: exit code 0, and nothing about it on the screen."""
    program = tail(serve.url, "--json")
    _wait_until_heard(collector, serve, program)

    assert (program.stop(signal.SIGINT), program.log) == (0, "")


def test_it_goes_on_behind_an_event(
    collector: Collector, serve: Serve, tail: Callable[..., Program]
) -> None:
    """The ids that --json prints are what --since takes."""
    program = tail(serve.url, "--json")
    _wait_until_heard(collector, serve, program)
    _send(collector, serve, "first", "second", "third")
    wait_for(lambda: "third" in _heard(program))
    ids = {json.loads(line)["name"]: json.loads(line)["id"] for line in program.out.splitlines()}

    again = tail(serve.url, "--json", "--since", ids["first"], "--name", "third")
    wait_for(lambda: _heard(again) == ["third"], again.log)


def test_an_event_cannot_command_the_terminal(
    collector: Collector, serve: Serve, tail: Callable[..., Program]
) -> None:
    """What a stranger puts into an event is shown, and not obeyed."""
    program = tail(serve.url, "--user", "u-\u202e")
    wait_for(lambda: _escapes(collector, serve, program), program.log)

    assert "u-\\u202e" in program.out
    assert '{"a": "\\u001b[2J", "b\\u0007": "é"}' in program.out
    assert not set(program.out) & set("\x1b\x07\x9b\u202e")


def _escapes(collector: Collector, serve: Serve, program: Program) -> bool:
    _send(collector, serve, "a name", userId="u-\u202e", properties={"a": "\x1b[2J", "b\x07": "é"})
    return "a name" in program.out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--key", "ak_live_wrong"], "not a valid key"),
        (["--type", "click"], "type: must be one of"),
        (["--since", "yesterday"], "is not an id of this stream"),
        (["--url", "http://127.0.0.1:1"], "refused"),
    ],
)
def test_what_cannot_work_is_told_at_once(
    serve: Serve, tail: Callable[..., Program], words: list[str], told: str
) -> None:
    """Exit code 1 and the reason; it does not try for ever."""
    program = tail(serve.url, *words)

    assert program.wait(20) == 1
    assert told in program.log
