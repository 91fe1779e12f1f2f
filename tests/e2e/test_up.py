"""`analytics-collector up`: one command, whatever is killed, nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.client import NO_ANSWER, Mint, Sender
from harness.collector import COMMAND, Up, free_port, run_command
from harness.processes import Program, is_alive
from harness.waiting import wait_for

CHILDREN = ("analytics_collector serve", "analytics_collector worker", "valkey-server", "postgres")
REVOKED_WITHIN_S = 5.0
NOISE_S = 2.0

MakeUp = Callable[..., Up]


@pytest.fixture
def make_up(tmp_path: Path) -> Iterator[MakeUp]:
    """Return an `up`, not started; at the end none of them runs and nothing of them is left."""
    made: list[Up] = []

    def make(name: str = "data", **options: Any) -> Up:
        up = Up(tmp_path / name, tmp_path / f"{name}.logs{len(made)}", **options)
        made.append(up)
        return up

    yield make
    for up in made:
        up.end()
    wait_for(lambda: not any(up.left_behind() for up in made), "nothing is left behind")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """One that runs, for tests that leave it as able as they found it."""
    folder = tmp_path_factory.mktemp("up")
    with Up(folder / "data", folder) as up:
        yield up


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """One beside it, as people start it: on a port that they name, and without JSON."""
    folder = tmp_path_factory.mktemp("other")
    with Up(folder / "data", folder, port=free_port(), as_json=False) as up:
        yield up


def _status(up: Up, key: str | None = None) -> int:
    """Send two events; return what was answered, 0 for nothing."""
    try:
        with Sender(up.url, key or up.key) as sender:
            return sender.send(Mint(time.monotonic_ns()).events(2, "u-up")).status
    except NO_ANSWER:
        return 0


def _history(up: Up, user_id: str = "u-up") -> int:
    """Return how many events the collector knows of a user."""
    with Sender(up.url, up.key) as sender:
        answer = sender.get(f"/api/v1/users/{user_id}/events?limit=1000")
    assert answer.status == 200, answer
    count: int = answer.json["count"]
    return count


def test_it_tells_where_it_is_and_with_which_keys(running: Up) -> None:
    """One JSON object; the keys open what they should and nothing else."""
    said = running.said

    assert set(said) == {"url", "key", "admin_key", "pid"}
    assert said["pid"] == running.pid
    assert said["key"].startswith("ak_live_")
    assert _status(running) == 202
    assert _history(running) > 0
    assert _status(running, said["admin_key"]) == 403


def test_its_secrets_are_its_owners_alone(running: Up) -> None:
    """No other user may read the files that hold keys, or come in by the sockets."""
    for name in ("secret", "credentials.json"):
        assert stat.S_IMODE((running.data_dir / name).stat().st_mode) == 0o600
    assert running.key not in "".join(
        path.read_text() for path in (running.data_dir / "log").iterdir()
    )


def test_for_people_it_ends_with_url_and_key(other: Up) -> None:
    """The last two lines before it serves are what one copies; the port is the one asked for."""
    port = other.command[other.command.index("--port") + 1]
    *_, url, key = other.out.splitlines()
    with Sender(url.removeprefix("url: "), key.removeprefix("key: ")) as sender:
        status = sender.send(Mint(1).events(1)).status

    assert url == f"url: http://127.0.0.1:{port}"
    assert key.startswith("key: ak_live_")
    assert status == 202


def test_what_is_acknowledged_survives_a_restart_and_the_keys_stay(make_up: MakeUp) -> None:
    """Asked to stop it ends with 0 and leaves no process; meanwhile keys can be made and revoked.

    The next one has all the data, and knows of every key.
    """
    up = make_up()
    with up:
        first = up.said
        assert _status(up) == 202
        revoked = _keys(up.data_dir, "create", "--scope", "ingest")
        assert up.stop(signal.SIGINT, 60) == 0
        assert up.left_behind() == {}
    kept = _keys(up.data_dir, "create", "--scope", "ingest")
    _keys(up.data_dir, "revoke", str(revoked["key_id"]))
    assert up.left_behind() == {}
    with up:
        assert (up.said["key"], up.said["admin_key"]) == (first["key"], first["admin_key"])
        assert _history(up) == 2
        assert _status(up) == 202
        assert _status(up, kept["key"]) == 202
        assert _status(up, revoked["key"]) == 401
        assert up.stop(signal.SIGTERM, 60) == 0
        assert up.left_behind() == {}


def test_two_directories_live_side_by_side(running: Up, other: Up) -> None:
    """Each with its own port, data and keys."""
    assert _status(running) == 202
    before = _history(running)
    assert other.url != running.url
    assert _status(other) == 202
    assert _history(other) == 2
    assert _history(running) == before
    assert _status(other, running.key) == 401
    assert _status(running, other.key) == 401


def test_a_second_one_on_the_same_directory_is_refused(running: Up, make_up: MakeUp) -> None:
    """With the reason, who is there, and no harm to the first."""
    second = make_up()
    second.command[second.command.index("--data-dir") + 1] = str(running.data_dir)
    second.start()
    code = second.wait()

    assert code == 1
    assert str(running.pid) in second.log
    assert str(running.data_dir) in second.log
    assert "Traceback" not in second.log
    assert _status(running) == 202


def test_a_port_that_is_taken_is_told_and_nothing_is_left_behind(make_up: MakeUp) -> None:
    """Exit code 1, the port by its number, what to do, and no process."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        up = make_up(port=port)
        up.start()
        code = up.wait()

    assert code == 1
    assert str(port) in up.log
    assert "--port" in up.log
    assert "Traceback" not in up.log
    assert up.left_behind() == {}
    assert up.out == ""


@pytest.mark.parametrize("child", CHILDREN)
def test_it_serves_again_after_one_of_its_children_was_killed(running: Up, child: str) -> None:
    """The child comes back under the same address, and every event is counted, once."""
    assert _status(running) == 202
    before = _history(running)
    killed = running.child(child)
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: running.child(child) not in (None, killed), f"there is a new {child}")
    wait_for(lambda: _status(running) == 202, "it takes events")

    assert _history(running) > before
    running.database.wait_counted()


def test_killed_it_takes_everything_along_and_the_next_one_has_the_data(make_up: MakeUp) -> None:
    """The kernel ends its children; the next one waits for them, and finds nothing in its way."""
    up = make_up()
    with up:
        assert _status(up) == 202
        below = up.left_behind()
        up.kill()
        up.start()
        up.wait_ready()
        assert not any(is_alive(pid) for pid in below)
        assert _history(up) == 2
        assert _status(up) == 202
        up.kill()
        wait_for(lambda: not up.left_behind(), "the children have gone")

    assert len(below) > 4


def test_a_signal_in_the_middle_of_the_start_ends_it_in_order(make_up: MakeUp) -> None:
    """Exit code 0, no process, nothing printed."""
    up = make_up()
    up.start()
    wait_for((up.data_dir / "log" / "postgres.log").exists, "it has begun")
    code = up.stop()

    assert code == 0
    assert up.left_behind() == {}
    assert up.out == ""


def _keys(data_dir: Path, *arguments: str) -> Any:
    done = run_command("keys", *arguments, "--data-dir", str(data_dir), "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_keys_are_made_listed_and_revoked_while_it_runs(running: Up) -> None:
    """A new key works at once; a revoked one is refused within five seconds."""
    made = _keys(running.data_dir, "create", "--scope", "ingest", "--name", "shop")
    assert _status(running, made["key"]) == 202
    listed = _keys(running.data_dir, "list")["items"]
    assert [key["name"] for key in listed if key["key_id"] == made["key_id"]] == ["shop"]
    assert made["key"] not in json.dumps(listed)

    _keys(running.data_dir, "revoke", str(made["key_id"]))
    wait_for(
        lambda: _status(running, made["key"]) == 401,
        "the key is refused",
        REVOKED_WITHIN_S + NOISE_S,
    )


def test_the_tail_of_one_that_runs_needs_nothing_but_its_directory(
    running: Up, tmp_path: Path
) -> None:
    """`tail --data-dir` finds the address and a key by itself."""
    words = ["tail", "--data-dir", str(running.data_dir), "--json"]
    with Program([*COMMAND, *words], tmp_path, "tail", {"PYTHONUNBUFFERED": "1"}) as tail:
        wait_for(lambda: _status(running) == 202 and '"userId": "u-up"' in tail.out, tail.log)


def test_commands_on_a_directory_without_data_say_so(tmp_path: Path) -> None:
    """A mistyped path makes nothing."""
    done = run_command("keys", "list", "--data-dir", str(tmp_path / "nowhere"), "--json")

    assert done.returncode == 1
    assert "nowhere" in done.stderr
    assert not (tmp_path / "nowhere").exists()
