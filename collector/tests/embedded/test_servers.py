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


def _modes(root: Path) -> dict[str, int]:
    paths = (root / name for name in ("log", "postgres", "run", "valkey"))
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in paths}


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
    names = ("fsync", "synchronous_commit", "full_page_writes", "listen_addresses", "data_checksums")
    with embedded_servers(data_dir) as (dsn, url):
        query = "SELECT string_agg(current_setting(s), ',' ORDER BY n) FROM unnest(ARRAY[%s]) "
        query += "WITH ORDINALITY AS u (s, n)"
        settings = sql(dsn, query % ", ".join(f"'{name}'" for name in names))
        valkey_settings = valkey_command(url, "CONFIG GET append* save port maxmemory-policy")

    assert settings == "on,on,on,,on"
    flat = valkey_settings.decode().split("\r\n")[2::2]
    pairs = dict(zip(flat[::2], flat[1::2], strict=False))
    assert pairs["appendonly"] == "yes"
    assert pairs["appendfsync"] == "everysec"
    assert pairs["save"] == ""
    assert pairs["port"] == "0"
    assert pairs["maxmemory-policy"] == "noeviction"


def test_the_server_is_postgres_18(data_dir, sql):
    """The wheel carries an older one beside it, which is not ours."""
    with embedded_servers(data_dir) as (dsn, _):
        assert sql(dsn, "SHOW server_version").startswith("18.")


def test_every_part_of_the_data_directory_is_private(data_dir):
    """Another user gets at most through the directory itself."""
    with embedded_servers(data_dir):
        modes = _modes(data_dir)
        own = stat.S_IMODE(data_dir.stat().st_mode)

    assert set(modes.values()) == {0o700}
    assert own == (0o711 if os.geteuid() == 0 else 0o700)


def test_no_directory_above_is_opened(tmp_path):
    """A closed directory above the data stays closed."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with embedded_servers(closed / "data"):
        pass

    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


def test_a_directory_with_other_things_in_it_keeps_its_mode(data_dir):
    """`--data-dir /root` must not open /root."""
    data_dir.mkdir(mode=0o700)
    (data_dir / "letters").touch()
    with embedded_servers(data_dir):
        pass

    assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700


def test_a_long_path_gets_its_sockets_elsewhere(tmp_path, sql, valkey_command):
    """A socket path has 107 bytes; a data directory may have more, and odd letters."""
    data_dir = tmp_path / 'a, "b" % ü' / ("long" * 30)
    with embedded_servers(data_dir) as (dsn, url):
        assert sql(dsn, "SELECT current_database()") == "analytics"
        assert valkey_command(url, "PING") == b"+PONG\r\n"
        sockets = Path(url.removeprefix("unix://")).parent
        assert stat.S_IMODE(sockets.stat().st_mode) == 0o700

    assert not sockets.exists()


@pytest.mark.parametrize("name", ["with, comma", 'with "quotes"', "with % and ü ?&#"])
def test_odd_letters_in_the_path_do_no_harm(name, open_dir, sql, valkey_command):
    """The path is quoted in the DSN, in the URL and in the settings of the server."""
    with embedded_servers(open_dir / name) as (dsn, url):
        assert sql(dsn, "SELECT 1") == "1"
        assert valkey_command(url, "PING") == b"+PONG\r\n"


def test_two_data_directories_live_side_by_side(tmp_path, sql):
    """Each has its own servers and its own data."""
    with (
        embedded_servers(tmp_path / "one") as (one, url_one),
        embedded_servers(tmp_path / "two") as (two, url_two),
    ):
        sql(one, "CREATE TABLE only_here ()")
        assert sql(two, "SELECT count(*) FROM pg_tables WHERE tablename = 'only_here'") == "0"
        assert url_one != url_two


def test_a_half_made_cluster_is_made_again(data_dir, sql):
    """A kill in the middle of initdb leaves files that are nobody's database."""
    unfinished = data_dir / "postgres.unfinished"
    unfinished.mkdir(parents=True)
    (unfinished / "PG_VERSION").write_text("18\n")
    with embedded_servers(data_dir) as (dsn, _):
        assert sql(dsn, "SELECT 1") == "1"

    assert not unfinished.exists()


def test_a_pid_file_of_a_stranger_does_not_stop_the_start(data_dir, sql):
    """After a reboot the old number may be anybody's, in a container it mostly is."""
    with embedded_servers(data_dir):
        pass
    stranger = os.getpid() if os.geteuid() else 1
    (data_dir / "postgres" / "postmaster.pid").write_text(f"{stranger}\n{data_dir}/postgres\n")

    with embedded_servers(data_dir) as (dsn, _):
        assert sql(dsn, "SELECT 1") == "1"


def test_a_large_log_is_put_aside_at_the_start(data_dir):
    """The log is bounded: one old part, and the present one."""
    with embedded_servers(data_dir):
        pass
    log = data_dir / "log" / "postgres.log"
    with log.open("ab") as file:
        file.truncate(11 * 1024 * 1024)
    with embedded_servers(data_dir):
        pass

    assert log.stat().st_size < 100_000
    assert log.with_name("postgres.log.1").stat().st_size == 11 * 1024 * 1024


def test_a_server_that_cannot_start_says_why(data_dir):
    """The error carries the end of the server's own log."""
    with embedded_servers(data_dir):
        pass
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
