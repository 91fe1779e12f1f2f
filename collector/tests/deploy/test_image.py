"""The image: built from hash-pinned locks, run by nobody on a read-only disk.

No container engine is needed: the steps that build our package are replayed, and the server is run
in a mount namespace of its own where nothing but /data and /tmp can be written.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import tomllib

from harness.client import Sender
from harness.collector import COMMAND, Collector
from harness.database import Database
from harness.processes import Program
from harness.waiting import wait_for


@pytest.fixture(scope="module")
def dockerfile(deploy: Path) -> list[tuple[str, str]]:
    """The instructions, each with its arguments on one line."""
    text = (deploy / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines]


def _arguments(dockerfile: list[tuple[str, str]], instruction: str) -> list[str]:
    return [words for name, words in dockerfile if name == instruction]


def test_what_is_copied_is_there_and_not_ignored(dockerfile, deploy, repository):
    """Every source exists, and the build is given it and nothing else of the repository."""
    sources = {
        source
        for words in _arguments(dockerfile, "COPY")
        if not words.startswith("--from")
        for source in words.split()[:-1]
    }
    given = (deploy / "Dockerfile.dockerignore").read_text().splitlines()

    assert all((repository / source).exists() for source in sources)
    assert given[0] == "*"
    assert {line[1:] for line in given if line.startswith("!")} == sources


def test_it_runs_as_nobody_in_particular(dockerfile):
    """By number, so that an orchestrator can see that it is not root; and no shell is needed."""
    (user,) = _arguments(dockerfile, "USER")
    (entrypoint,) = _arguments(dockerfile, "ENTRYPOINT")

    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user)
    assert json.loads(entrypoint) == ["analytics-collector"]
    (healthcheck,) = _arguments(dockerfile, "HEALTHCHECK")
    assert json.loads(healthcheck.partition("CMD ")[2])[0] == "python"


def test_what_is_installed_is_pinned_by_hash(dockerfile, repository):
    """Everything from a registry comes out of a lock, as a wheel, and the lock is complete."""
    for words in _arguments(dockerfile, "RUN"):
        if " install " in words and "pip" in words:
            pinned = "--require-hashes --only-binary :all:" in words
            assert pinned or "--no-deps --no-index" in words
    lock = (repository / "requirements/collector.txt").read_text()
    pinned_names = set(re.findall(r"^([\w.-]+)==\S+.*\\\n +--hash=sha256:", lock, re.M))
    declared = tomllib.loads((repository / "collector/pyproject.toml").read_text())["project"]
    wanted = [*declared["dependencies"], *declared["optional-dependencies"]["otel"]]

    assert {re.split(r"[\[<>=;]", name)[0].strip() for name in wanted} <= pinned_names
    assert "pixeltable" not in lock


def test_no_image_is_the_latest_whatever_that_is(dockerfile):
    """The base has a version."""
    (base,) = [words for words in _arguments(dockerfile, "ARG") if words.startswith("PYTHON=")]

    assert re.fullmatch(r"PYTHON=3\.\d+\S*-slim-\w+", base)


@pytest.fixture(scope="module")
def built(dockerfile, repository, tmp_path_factory) -> Path:
    """A folder with our package as the image has it; what it needs is that of the tests."""
    home = tmp_path_factory.mktemp("image")
    source = home / "src"
    for words in _arguments(dockerfile, "COPY"):
        if not words.startswith("--from"):
            *sources, target = words.split()
            for name in sources:
                _copy(repository / name, source / target, as_folder=target.endswith("/"))
    wheels = home / "wheels"
    (build,) = [words for words in _arguments(dockerfile, "RUN") if "pip wheel" in words]
    command = build.replace("/build/bin/python", sys.executable).replace("/wheels", str(wheels))
    subprocess.run(
        [*shlex.split(command), "--no-index", "-q"], cwd=source, check=True, capture_output=True
    )
    (wheel,) = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(home / "site")
    return home


def _copy(source: Path, target: Path, *, as_folder: bool) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    elif source.parent.parts[-2:] != ("collector", "deploy"):
        destination = target / source.name if as_folder else target
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, destination)


def test_the_package_in_the_image_is_whole(built, repository):
    """All that the source has: the specification, the SQL, the data files."""
    package = repository / "collector/src/analytics_collector"
    there = {str(path.relative_to(built / "site")) for path in (built / "site").rglob("*")}
    wanted = {
        str(path.relative_to(package.parent))
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }

    assert wanted <= there


@pytest.fixture
def database(servers: tuple[str, str]) -> Iterator[Database]:
    """A database of the test's own."""
    database = Database.create(servers[0])
    yield database
    database.drop(servers[0])


# Everything becomes read-only but for the two places; then it is nobody, with no way back.
_SEALED = """
set -e
mount --make-rprivate /
{opened}
mount -t tmpfs -o size=16m,mode=0700,uid=$1,gid=$2 none "$3"
mount -t tmpfs -o size=16m,mode=1777 none "$4"
mount -o remount,bind,ro /
grep -v '^none ' /proc/self/mounts | while read -r _ target kind options _; do
    case "$kind$options" in ext4rw*|overlayrw*|xfsrw*|btrfsrw*)
        mount -o remount,bind,ro "$target" ;;
    esac
done
uid=$1 gid=$2 data=$3
shift 4
cd "$data"
exec setpriv --reuid "$uid" --regid "$gid" --clear-groups --no-new-privs \
    --bounding-set=-all --inh-caps=-all "$@"
"""


# A folder of root's keeps others out of what lies in it: it becomes one with nothing else.
_OPENED = """
mkdir -p "{stash}" && mount --bind "{path}" "{stash}"
mount -t tmpfs -o size=1m,mode=0755 none "{closed}"
mkdir -p "{path}" && mount --bind "{stash}" "{path}"
"""


def _opened(path: Path, stash: Path) -> str:
    """Return the steps that let others reach *path*, none if they do."""
    for parent in reversed(path.parents):
        if not parent.stat().st_mode & stat.S_IXOTH:
            return _OPENED.format(path=path, stash=stash, closed=parent)
    return ""


def test_it_serves_as_nobody_on_a_read_only_disk(built, database, servers, tmp_path, deploy):
    """SUP-11: nothing can be written but /data and /tmp, and it stores events all the same."""
    if os.geteuid() != 0:
        pytest.skip("needs root to seal a disk")
    nobody = pwd.getpwnam("nobody")
    home = Path(tempfile.mkdtemp(prefix="analytics-image-"))
    data, scratch = home / "data", home / "tmp"
    for folder in (home, data, scratch):
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)
    shutil.copytree(built / "site", home / "site")
    key = database.new_key("ingest")
    environment = {
        "ANALYTICS_DATABASE_URL": database.url,
        "ANALYTICS_REDIS_URL": servers[1],
        "ANALYTICS_SECRET": "a secret for the tests",
        "ANALYTICS_DATA_DIR": str(data),
        "ANALYTICS_ACK": "spool",
        "TMPDIR": str(scratch),
        "PYTHONPATH": str(home / "site"),
        "HOME": "/nonexistent",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    identity = [str(nobody.pw_uid), str(nobody.pw_gid), str(data), str(scratch)]
    sockets = Path(parse_qs(urlsplit(database.url).query)["host"][0])
    places = {Path(sys.base_prefix).resolve(), Path(sys.prefix).resolve(), sockets}
    steps = [_opened(path, home / f"stash{n}") for n, path in enumerate(places)]
    script = _SEALED.replace("{opened}", "".join(steps))
    command = ["unshare", "--mount", "sh", "-c", script, "sealed", *identity]
    serve = Program([*command, *COMMAND, "serve", "--port", "0"], tmp_path, "serve", environment)
    try:
        with serve:
            port = wait_for(lambda: _port(serve), "it listens")
            wait_for(lambda: _is_well(deploy, port), serve.log)
            status = _send(port, key)
            written = _try_to_write(serve.pid, home / "site")
            assert serve.stop() == 0
    finally:
        shutil.rmtree(home)

    assert status == 202, serve.log
    assert database.event_count() == 1
    assert not written


def _port(serve: Program) -> int:
    assert serve.is_running, serve.log
    for line in serve.log.splitlines(keepends=True):
        if line.endswith("\n") and '"Listening"' in line:
            port: int = json.loads(line)["port"]
            return port
    return 0


def _is_well(deploy: Path, port: int) -> bool:
    """Ask as the image's HEALTHCHECK does."""
    check = [sys.executable, str(deploy / "healthcheck.py"), str(port), "/livez"]
    return subprocess.run(check, capture_output=True, check=False).returncode == 0


def _send(port: int, key: str) -> int:
    with Sender(f"http://127.0.0.1:{port}", key) as sender:
        return sender.send([{"type": "track", "name": "e", "userId": "u"}]).status


def _try_to_write(pid: int, folder: Path) -> bool:
    """Return whether root itself could write in the disk as the server sees it."""
    place = f"/proc/{pid}/root{folder}/written"
    try:
        Path(place).write_text("x")
    except OSError:
        return False
    return True


def test_the_health_check_says_when_something_is_wrong(deploy):
    """Nobody there, and an address that is not: exit code 1 and a word."""
    check = [sys.executable, str(deploy / "healthcheck.py"), "1", "/livez"]
    done = subprocess.run(check, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "/livez" in done.stderr


def test_a_collector_that_runs_is_well(servers, tmp_path, deploy):
    """The health checks of compose.yaml, against a real server."""
    database = Database.create(servers[0])
    collector = Collector(database, f"{servers[1]}?db=2", tmp_path)
    with collector.serve() as serve:
        assert _is_well(deploy, serve.port)
        check = [sys.executable, str(deploy / "healthcheck.py"), str(serve.port), "/nowhere"]
        assert subprocess.run(check, capture_output=True, check=False).returncode == 1
    database.drop(servers[0])
