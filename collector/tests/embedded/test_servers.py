"""The servers as a client of them sees them: where they listen, and what they keep."""

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from analytics_collector.embedded import EmbeddedError, embedded_servers
from analytics_collector.embedded.process import ChildFailed


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_data_survives_a_restart(data_dir, sql, valkey_command):
    """What both servers took is there after an orderly stop and a new start."""
    with embedded_servers(data_dir) as (dsn, url):
        sql(dsn, "CREATE TABLE t (x int); INSERT INTO t VALUES (7)")
        assert valkey_command(url, "SET k v") == b"+OK\r\n"

    with embedded_servers(data_dir) as (dsn, url):
        assert sql(dsn, "SELECT x FROM t") == "7"
        assert valkey_command(url, "GET k") == b"$1\r\nv\r\n"


def test_nothing_of_the_safety_is_turned_off(data_dir, sql, valkey_command):
    """An acknowledged event is on disk, and nobody is let in by the network."""
    names = ("fsync", "synchronous_commit", "full_page_writes", "data_checksums")
    with embedded_servers(data_dir) as (dsn, url):
        settings = {name: sql(dsn, f"SHOW {name}") for name in (*names, "listen_addresses")}
        version = sql(dsn, "SHOW server_version")
        answer = valkey_command(url, "CONFIG GET append* save port maxmemory-policy")

    assert settings == {**dict.fromkeys(names, "on"), "listen_addresses": ""}
    assert version.startswith("18.")
    words = answer.decode().split("\r\n")[2::2]
    found = dict(zip(words[::2], words[1::2], strict=False))
    wanted = {"appendonly": "yes", "appendfsync": "everysec", "save": "", "port": "0"}
    assert found.items() >= {**wanted, "maxmemory-policy": "noeviction"}.items()


def test_every_part_is_private_and_nothing_above_is_opened(new_dir):
    """Another user gets at most through the data directory itself."""
    new_dir.parent.chmod(0o700)
    with embedded_servers(new_dir):
        modes = {path.name: _mode(path) for path in new_dir.iterdir() if path.is_dir()}

    assert modes == dict.fromkeys(("log", "postgres", "run", "valkey"), 0o700)
    assert _mode(new_dir) == (0o711 if os.geteuid() == 0 else 0o700)
    assert _mode(new_dir.parent) == 0o700


def test_a_directory_that_is_not_empty_keeps_its_mode(data_dir):
    """`--data-dir /root` must not open /root."""
    data_dir.chmod(0o700)
    with embedded_servers(data_dir):
        pass

    assert _mode(data_dir) == 0o700


def test_a_long_path_gets_its_sockets_elsewhere(data_dir, sql, valkey_command):
    """A socket path has 107 bytes; a data directory may have more."""
    with embedded_servers(data_dir.rename(data_dir.with_name("long" * 30))) as (dsn, url):
        assert sql(dsn, "SELECT current_database()") == "analytics"
        assert valkey_command(url, "PING") == b"+PONG\r\n"
        sockets = Path(url.removeprefix("unix://")).parent
        assert _mode(sockets) == 0o700

    assert not sockets.exists()


@pytest.mark.parametrize("name", ["with, comma", 'with "quotes" % and ü ?&#'])
def test_odd_letters_in_the_path_do_no_harm(name, data_dir, sql, valkey_command):
    """The path is quoted in the DSN, in the URL and in the settings of the server."""
    with embedded_servers(data_dir.rename(data_dir.with_name(name))) as (dsn, url):
        assert sql(dsn, "SELECT 1") == "1"
        assert valkey_command(url, "PING") == b"+PONG\r\n"


def test_two_data_directories_live_side_by_side(data_dir, made_dir, sql):
    """Each has its own servers and its own data."""
    with (
        embedded_servers(data_dir) as (one, url_one),
        embedded_servers(made_dir) as (two, url_two),
    ):
        sql(one, "CREATE TABLE only_here ()")
        assert sql(two, "SELECT count(*) FROM pg_tables WHERE tablename = 'only_here'") == "0"
        assert url_one != url_two


def test_a_pid_file_of_a_stranger_does_not_stop_the_start(data_dir, stranger, sql):
    """After a reboot the old number may be anybody's, in a container it mostly is."""
    (data_dir / "postgres" / "postmaster.pid").write_text(f"{stranger}\n{data_dir}/postgres\n")
    with embedded_servers(data_dir) as (dsn, _):
        assert sql(dsn, "SELECT 1") == "1"


@pytest.fixture
def stranger(data_dir):
    """The pid of a process of the user whom the server has, but no server."""
    user = (data_dir / "postgres").stat().st_uid if os.geteuid() == 0 else None
    with subprocess.Popen(["sleep", "100"], user=user) as process:
        yield process.pid
        process.kill()


def test_a_large_log_is_put_aside_at_the_start(data_dir):
    """The log is bounded: one old part, and the present one."""
    log = data_dir / "log" / "postgres.log"
    with log.open("ab") as file:
        file.truncate(11 * 1024 * 1024)
    with embedded_servers(data_dir):
        pass

    assert log.stat().st_size < 100_000
    assert log.with_name("postgres.log.1").stat().st_size == 11 * 1024 * 1024


def test_a_server_that_cannot_start_says_why(data_dir):
    """The error carries the end of the server's own log."""
    (data_dir / "postgres" / "PG_VERSION").write_text("12\n")

    with pytest.raises(ChildFailed, match="initialized by PostgreSQL version 12"):
        embedded_servers(data_dir).__enter__()


def test_servers_start_from_the_main_thread_only(data_dir):
    """The parent-death signal would come with the end of any other thread."""
    errors: list[BaseException] = []

    def start() -> None:
        try:
            embedded_servers(data_dir).__enter__()
        except EmbeddedError as exc:
            errors.append(exc)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()

    assert "main thread" in str(errors[0])


def test_the_wheels_are_not_imported():
    """Their modules have side effects; they carry programs only."""
    code = """
import sys
from analytics_collector.embedded.binaries import find_postgres_bin, find_valkey_server
print(find_postgres_bin(), find_valkey_server())
sys.exit(any(name.startswith(("pixeltable", "valkey")) for name in sys.modules))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
