"""Who dies with whom, and that the next start works whatever was killed."""

import os
import pwd
import signal
import subprocess
from pathlib import Path

import pytest

from analytics_collector.embedded.account import Account, become, closed_directory
from analytics_collector.embedded.binaries import find_postgres_bin
from analytics_collector.embedded.process import tie_to_parent


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def test_up_stops_everything_when_it_is_asked_to(start_up, data_dir, processes):
    """Exit code 0, nothing left, and Postgres wrote its last checkpoint."""
    up = start_up(data_dir)
    below = up.pids
    code = up.stop(signal.SIGTERM)

    assert code == 0
    assert not any(processes.is_alive(pid) for pid in below)
    assert (data_dir / "log/postgres.log").read_text().endswith("database system is shut down\n")


def test_a_signal_in_the_middle_of_the_start_ends_it_in_order(
    start_up, new_dir, processes, eventually
):
    """Not only after the start is the exit code 0 and nothing left."""
    up = start_up(new_dir, wait=False)
    eventually((new_dir / "postgres.unfinished" / "PG_VERSION").exists)
    below = up.pids

    assert up.stop(signal.SIGINT) == 0
    assert up.answer == {}
    assert not any(processes.is_alive(pid) for pid in below)


def test_nothing_outlives_a_killed_up(start_up, data_dir, processes, eventually):
    """The kernel tells every child; Postgres shuts down in order even then."""
    up = start_up(data_dir)
    below = up.kill()
    eventually(lambda: not any(processes.is_alive(pid) for pid in below))

    assert len(below) > 5
    assert (data_dir / "log/postgres.log").read_text().endswith("database system is shut down\n")


def test_a_child_whose_parent_died_before_the_tie_does_not_stay():
    """The parent-death signal is for a death to come; for one that was, the child must look."""
    missed = tie_to_parent(os.getpid() + 1, signal.SIGTERM)

    assert subprocess.run(["true"], preexec_fn=missed, check=False).returncode == 1


def test_a_child_of_another_user_whose_parent_died_before_the_tie_does_not_stay(as_root):
    """The same through setpriv: here a shell between us and it is the wrong parent."""
    nobody = pwd.getpwnam("nobody")
    account = Account("nobody", nobody.pw_uid, nobody.pw_gid)
    command = [*become(account, signal.SIGTERM), "echo", "stayed"]
    right = subprocess.run(command, capture_output=True, check=False)
    wrong = ["sh", "-c", '"$@"; true', "sh", *command]

    assert right.stdout == b"stayed\n"
    assert subprocess.run(wrong, capture_output=True, check=True).stdout == b""


def test_the_next_start_after_a_kill_works_at_once(start_up, data_dir, sql, valkey_command):
    """It waits for the servers that still shut down, and starts its own."""
    first = start_up(data_dir)
    sql(first.dsn, "CREATE TABLE t (x int); INSERT INTO t VALUES (7)")
    old = {first.child("postgres"), first.child("valkey-server")}
    first.kill()
    second = start_up(data_dir)

    assert sql(second.dsn, "SELECT x FROM t") == "7"
    assert valkey_command(second.url, "PING") == b"+PONG\r\n"
    assert not old & second.pids


def test_a_postmaster_still_shutting_down_is_waited_for(start_up, data_dir, processes, sql):
    """Never two on the same files, and never attached to."""
    first = start_up(data_dir)
    postmaster = first.child("postgres")
    os.kill(postmaster, signal.SIGSTOP)
    first.kill()
    assert processes.is_alive(postmaster)
    os.posix_spawn("/bin/sh", ["sh", "-c", f"sleep 0.5; kill -CONT {postmaster}"], os.environ)
    second = start_up(data_dir)

    assert not processes.is_alive(postmaster)
    assert sql(second.dsn, "SELECT 1") == "1"
    os.wait()


@pytest.mark.parametrize("name", ["postgres", "valkey-server", "sleep"])
def test_a_killed_child_comes_back(name, start_up, data_dir, eventually, sql, valkey_command):
    """Any of them, without harm to the others."""
    up = start_up(data_dir)
    sql(up.dsn, "CREATE TABLE t (x int); INSERT INTO t VALUES (7)")
    before = {child: up.child(child) for child in ("postgres", "valkey-server", "sleep")}
    _kill(before[name])
    eventually(lambda: up.child(name) not in (None, before[name]))
    eventually(lambda: _answers(sql, up.dsn))

    assert sql(up.dsn, "SELECT x FROM t") == "7"
    eventually(lambda: _pongs(valkey_command, up.url))
    assert all(up.child(other) == pid for other, pid in before.items() if other != name)


def test_a_killed_postmaster_is_replaced_only_when_its_backends_are_gone(
    start_up, data_dir, processes, eventually, sql
):
    """Two postmasters on the same files would destroy them."""
    up = start_up(data_dir)
    postmaster = up.child("postgres")
    backends = set(processes.below(postmaster))
    straggler = min(backends)
    os.kill(straggler, signal.SIGSTOP)
    _kill(postmaster)
    eventually(lambda: not any(processes.is_alive(pid) for pid in backends - {straggler}))
    seen: list[int | None] = []
    eventually(lambda: seen.append(up.child("postgres")) or len(seen) == 30)
    os.kill(straggler, signal.SIGCONT)
    eventually(lambda: _answers(sql, up.dsn))

    assert set(seen) == {None}
    assert "pre-existing" not in (data_dir / "log/postgres.log").read_text()  # it did not even try
    assert not processes.is_alive(straggler)


def test_a_second_up_is_refused_and_told_who_is_there(start_up, data_dir, sql):
    """Clear words, the pid, and no harm to the first."""
    first = start_up(data_dir)
    second = start_up(data_dir)
    second.process.wait()

    assert second.answer["type"] == "DataDirInUse"
    assert str(first.process.pid) in second.answer["error"]
    assert sql(first.dsn, "SELECT 1") == "1"


def test_a_kill_in_the_middle_of_the_first_start_is_healed(start_up, new_dir, eventually, sql):
    """However far initdb came, the next start makes a whole cluster."""
    killed = start_up(new_dir, wait=False)
    eventually((new_dir / "postgres.unfinished/global/pg_control").exists)
    killed.kill()
    up = start_up(new_dir)

    assert killed.answer == {}
    assert sql(up.dsn, "SELECT current_database()") == "analytics"


def test_an_ordinary_user_can_do_the_same(ordinary_user, open_dir, start_up, processes, eventually):
    """No root, no setpriv for the servers: start, kill, start again, stop."""
    through, python = ordinary_user
    below = start_up(open_dir / "data", through=through, python=python).kill()
    second = start_up(open_dir / "data", through=through, python=python)
    owner = (open_dir / "data/postgres").stat().st_uid

    assert owner == open_dir.stat().st_uid
    eventually(lambda: not any(processes.is_alive(pid) for pid in below))
    assert second.stop() == 0


def test_servers_of_root_run_as_nobody_with_no_more_rights_than_needed(
    as_root, open_dir, made_dir, start_up
):
    """Only a closed directory on the way to the programs lends them the right to search."""
    nobody = pwd.getpwnam("nobody")
    account = Account("nobody", nobody.pw_uid, nobody.pw_gid)
    way_is_open = closed_directory(find_postgres_bin(), account) is None
    subprocess.run(["cp", "-a", str(made_dir), str(open_dir / "data")], check=True)
    up = start_up(open_dir / "data")

    for name in ("postgres", "valkey-server"):
        status = Path(f"/proc/{up.child(name)}/status").read_text()
        fields = dict(line.split(":\t", 1) for line in status.splitlines())
        assert fields["Uid"].split() == [str(nobody.pw_uid)] * 4
        assert fields["CapEff"] == f"{0 if way_is_open else 4:016x}"


def test_programs_below_a_closed_directory_are_no_obstacle_for_root(
    as_root, start_up, data_dir, tmp_path, sql
):
    """A virtual environment under /root works; its servers are lent the right to search."""
    programs = find_postgres_bin().parent
    closed = tmp_path / "closed"
    folder = closed / programs.parent.name
    folder.mkdir(parents=True)
    closed.chmod(0o700)
    (folder / "__init__.py").touch()
    libraries = programs.parents[1] / f"{folder.name}.libs"
    subprocess.run(["cp", "-r", str(programs), str(folder)], check=True)
    subprocess.run(["cp", "-r", str(libraries), str(closed)], check=True)
    up = start_up(data_dir, packages=closed)

    assert Path(f"/proc/{up.child('postgres')}/exe").readlink().is_relative_to(closed)
    assert sql(up.dsn, "SELECT 1") == "1"


def test_a_root_without_capabilities_is_told_which_directory_is_closed(as_root, start_up, tmp_path):
    """In a container root may be unable to lend the right to search."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    through = ["setpriv", "--bounding-set=-dac_read_search"]
    up = start_up(closed / "data", through=through)
    up.process.wait()

    assert up.answer["type"] == "NotReachable"
    first_closed = next(p for p in (*reversed(closed.parents), closed) if not p.stat().st_mode & 1)
    assert f"chmod o+x {first_closed}`" in up.answer["error"]


def _pongs(valkey_command, url: str) -> bool:
    try:
        return valkey_command(url, "PING") == b"+PONG\r\n"
    except OSError:  # it runs and does not listen yet
        return False


def _answers(sql, dsn: str) -> bool:
    try:
        return bool(sql(dsn, "SELECT 1") == "1")
    except subprocess.CalledProcessError:
        return False
