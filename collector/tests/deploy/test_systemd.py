"""The units: what systemd understands, sealed off, and lines that really start something."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from harness.collector import COMMAND, Collector, answers
from harness.database import Database
from harness.processes import Program
from harness.waiting import wait_for

UNITS = ("analytics-collector.service", "analytics-collector-worker.service")
PROGRAM = "/opt/analytics-collector/bin/analytics-collector"


@pytest.fixture(params=UNITS)
def unit(request, deploy: Path) -> Path:
    """One unit."""
    path: Path = deploy / "systemd" / request.param
    return path


def _settings(unit: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", unit.read_text(), re.M):
        found.setdefault(name, []).append(value)
    return found


def test_systemd_understands_it(unit, tmp_path):
    """Its own judge finds nothing, where it is installed."""
    judge = shutil.which("systemd-analyze")
    text = unit.read_text().replace(PROGRAM, "/bin/true").replace("serve --migrate", "")
    (tmp_path / unit.name).write_text(text)
    if judge is not None:
        command = [judge, "verify", "--man=no", str(tmp_path / unit.name)]
        told = subprocess.run(command, capture_output=True, text=True, check=False)

        assert (told.returncode, told.stderr) == (0, "")
    assert re.match(r"(#[^\n]*\n)+\n\[Unit\]\n", text)


def test_it_is_sealed_off(unit):
    """No user that stays, no capability, nothing to write but its own folder."""
    settings = _settings(unit)

    for name in ("DynamicUser", "NoNewPrivileges", "PrivateTmp", "PrivateDevices", "ProtectHome"):
        assert settings[name] == ["yes"]
    assert settings["ProtectSystem"] == ["strict"]
    assert settings["CapabilityBoundingSet"] == [""]
    assert settings["Restart"] == ["always"]
    assert int(settings["TimeoutStopSec"][0]) > 20
    assert settings.get("StateDirectory") in (None, ["analytics-collector"])


def test_memory_that_can_be_written_is_never_run(deploy, tmp_path, servers):
    """MemoryDenyWriteExecute: nothing that we load makes code at run time."""
    database = Database.create(servers[0])
    # PR_SET_MDWE; a kernel before 6.3 does not know it.
    deny = "import ctypes, os, sys; ctypes.CDLL(None).prctl(65, 1, 0, 0, 0); "
    collector = Collector(database, f"{servers[1]}?db=3", tmp_path)
    serve = collector.serve()
    serve.command[:1] = [COMMAND[0], "-c", f"{deny}os.execv(sys.argv[1], sys.argv[1:])", COMMAND[0]]
    with serve:
        assert answers(serve.url, "/readyz")
    database.drop(servers[0])


def test_its_line_starts_a_server(deploy, tmp_path, servers):
    """ExecStart, with the secret in a file, on a database without any schema."""
    settings = _settings(deploy / "systemd" / UNITS[0])
    (line,) = settings["ExecStart"]
    assert "ANALYTICS_SECRET_FILE=%d/secret" in settings["Environment"]
    assert settings["LoadCredential"] == ["secret:/etc/analytics-collector/secret"]
    (tmp_path / "secret").write_text("a secret for the tests\n")
    database = Database.create(servers[0])
    database.execute("drop schema public cascade")
    database.execute("create schema public")
    example = (deploy / "systemd/environment.example").read_text()
    environment = dict(re.findall(r"^(\w+)=(.*)$", example, re.M)) | {
        "ANALYTICS_DATABASE_URL": database.url,
        "ANALYTICS_REDIS_URL": servers[1],
        "ANALYTICS_SECRET_FILE": str(tmp_path / "secret"),
        "ANALYTICS_DATA_DIR": str(tmp_path),
        "ANALYTICS_PORT": "0",
    }
    command = [*COMMAND, *shlex.split(line.removeprefix(PROGRAM))]
    with Program(command, tmp_path, "serve", environment) as serve:
        wait_for(lambda: '"Listening"' in serve.log and _is_ready(serve), serve.log)
        assert serve.stop() == 0
    database.drop(servers[0])


def _is_ready(serve: Program) -> bool:
    found = re.search(r'"Listening".*"port":(\d+)', serve.log)
    return found is not None and answers(f"http://127.0.0.1:{found[1]}", "/readyz")
