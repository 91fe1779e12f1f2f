"""What the tests of the embedded servers share: real servers, and an eye on their processes."""

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote

import pytest

import analytics_collector.embedded
from analytics_collector.embedded import embedded_servers
from analytics_collector.embedded.binaries import find_postgres_bin

_SCRIPT = Path(__file__).with_name("run_up.py")
_SOURCE = Path(analytics_collector.embedded.__file__).parents[2]

Eventually = Callable[[Callable[[], object]], None]


class Processes:
    """A look at the processes of this machine, by /proc."""

    def is_alive(self, pid: int) -> bool:
        """Whether the process runs; one that only waits to be reaped does not."""
        return self._status(pid)[0] not in ("", "Z")

    def below(self, pid: int) -> dict[int, str]:
        """Return the children of a process and theirs, with their names."""
        children = [other for other in self._all() if self._status(other)[1] == pid]
        found = {child: self._name(child) for child in children}
        for child in children:
            found |= self.below(child)
        return found

    def named(self, parent: int, name: str) -> int | None:
        """Return the living direct child of a process that has this name."""
        for pid, its_name in self.below(parent).items():
            if its_name == name and self._status(pid)[1] == parent and self.is_alive(pid):
                return pid
        return None

    def _all(self) -> list[int]:
        return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]

    def _status(self, pid: int) -> tuple[str, int]:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return "", 0
        return fields[0], int(fields[1])

    def _name(self, pid: int) -> str:
        try:
            return Path(f"/proc/{pid}/comm").read_text().strip()
        except (FileNotFoundError, ProcessLookupError):
            return ""


@pytest.fixture
def processes() -> Processes:
    """Look at processes; only Linux shows them this way."""
    if sys.platform != "linux":
        pytest.skip("reads /proc")
    return Processes()


class Up:
    """A running `run_up.py`: its process, its first line of output, its children."""

    def __init__(self, process: subprocess.Popen[str], processes: Processes) -> None:
        self.process = process
        self.processes = processes

    @cached_property
    def answer(self) -> dict[str, str]:
        """Return what it said when all was up, or why not; empty if it was killed before."""
        assert self.process.stdout is not None
        answer: dict[str, str] = json.loads(self.process.stdout.readline() or "{}")
        return answer

    @property
    def dsn(self) -> str:
        return self.answer["dsn"]

    @property
    def url(self) -> str:
        return self.answer["url"]

    @property
    def pids(self) -> set[int]:
        """Return every process below it."""
        return set(self.processes.below(self.process.pid))

    def child(self, name: str) -> int | None:
        return self.processes.named(self.process.pid, name)

    def kill(self) -> set[int]:
        """Kill it as the kernel would for want of memory; return what was below it."""
        below = self.pids
        self.process.kill()
        self.process.wait()
        return below

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to stop and return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout=60)


StartUp = Callable[..., Up]


@pytest.fixture
def start_up(processes: Processes, eventually: Eventually) -> Iterator[StartUp]:
    """Start `up` on a directory as often as wanted; at the end nothing of it may be left."""
    started: list[Up] = []

    def start(
        data_dir: Path,
        *,
        through: Sequence[str] = (),
        python: str = sys.executable,
        packages: Path | None = None,
        wait: bool = True,
    ) -> Up:
        # The other Python of `ordinary_user` does not know where our packages are.
        where = packages or find_postgres_bin().parents[2]
        environment = {**os.environ, "PYTHONPATH": f"{_SOURCE}{os.pathsep}{where}"}
        command = [*through, python, "-B", str(_SCRIPT), str(data_dir)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        up = Up(process, processes)
        started.append(up)
        if wait:
            assert up.answer
        return up

    yield start
    below = set[int]().union(*(up.pids for up in started))
    for up in started:
        if up.process.poll() is None:
            up.stop()
        assert up.process.stdout is not None
        up.process.stdout.close()
    eventually(lambda: not any(processes.is_alive(pid) for pid in below))


@pytest.fixture
def new_dir(tmp_path: Path) -> Path:
    """A directory that is not there yet; for root it is below one that only root may enter."""
    return tmp_path / "data"


@pytest.fixture(scope="session")
def made_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory that was used once, to be copied: a first start takes half a second."""
    folder = tmp_path_factory.mktemp("made") / "data"
    with embedded_servers(folder):
        pass
    return folder


@pytest.fixture
def data_dir(made_dir: Path, new_dir: Path) -> Path:
    """A data directory of the test's own that was used before."""
    subprocess.run(["cp", "-a", str(made_dir), str(new_dir)], check=True)
    return new_dir


@pytest.fixture
def open_dir() -> Iterator[Path]:
    """A new directory on an open way, so that another user may get to what lies in it."""
    folder = Path(tempfile.mkdtemp(prefix="emb-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def as_root() -> None:
    """Skip what only root can do."""
    if os.geteuid() != 0:
        pytest.skip("needs root")


@pytest.fixture
def ordinary_user(open_dir: Path) -> tuple[list[str], str]:
    """The command line that makes us an ordinary user, and a Python this user may run."""
    if os.geteuid() != 0:
        return [], sys.executable
    nobody = pwd.getpwnam("nobody")
    os.chown(open_dir, nobody.pw_uid, nobody.pw_gid)
    change = ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]
    check = "import sys; sys.exit(sys.version_info < (3, 11))"
    for python in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        command = ["sh", "-c", 'exec "$@" 2>/dev/null', "sh", *change, python, "-c", check]
        if subprocess.run(command, check=False).returncode == 0:
            return change, python
    pytest.skip("no Python >= 3.11 that the user nobody may run")


@pytest.fixture
def sql() -> Callable[[str, str], str]:
    """Run a statement with psql and return what it prints."""

    def run(dsn: str, statement: str) -> str:
        command = [str(find_postgres_bin() / "psql"), "-XAtq", "-v", "ON_ERROR_STOP=1"]
        command += ["-d", dsn, "-c", statement]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    return run


@pytest.fixture
def valkey_command() -> Callable[..., bytes]:
    """Send one command to the Valkey of a URL and return the raw answer."""

    def send(url: str, command: str) -> bytes:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(unquote(url.removeprefix("unix://")))
            connection.sendall(f"{command}\r\n".encode())
            return connection.recv(4096)

    return send
