"""The data directory: what lies where, whose it is, and that one supervisor uses it.

Each part is private (0700). Only the directory itself may be passed through (0711) when root
owns it and the servers run as someone else.
"""

import contextlib
import hashlib
import os
import stat
import tempfile
from pathlib import Path

from analytics_collector.embedded.account import Account
from analytics_collector.embedded.binaries import EmbeddedError
from analytics_collector.embedded.lock import read_pid, try_lock, unlock, write_pid

# sun_path is 104 bytes with its end mark on macOS and 108 on Linux: one rule for both.
_MAX_SOCKET_PATH_BYTES = 103
_LONGEST_SOCKET_NAME = ".s.PGSQL.5432"


class DataDirInUse(EmbeddedError):
    """Another supervisor works in this data directory; stop it or choose another directory."""

    def __init__(self, path: Path, pid: int | None) -> None:
        super().__init__(
            f"the data directory {path} is in use by process {pid or '(unknown)'}: "
            "stop that one first, or choose another directory"
        )
        self.path = path
        self.pid = pid


class NotOurs(EmbeddedError):
    """A directory belongs to another user or is open to others; see the message."""

    def __init__(self, path: Path, owner: int, *, what: str = "belongs to") -> None:
        super().__init__(
            f"{path} {what} user id {owner}, and this is user id {os.geteuid()}: "
            "run as that user, or choose another directory"
        )
        self.path = path


class DataDir:
    """The places in one data directory. Making this object touches nothing."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path).absolute().resolve()
        self.sockets = self._socket_folder()
        self._lock_fd: int | None = None

    def log(self, name: str) -> Path:
        """Return the log file of a child."""
        return self.path / "log" / f"{name}.log"

    def lock(self, name: str) -> Path:
        """Return the lock file of a child."""
        return self.path / f"{name}.lock"

    def claim(self) -> None:
        """Make the directory if need be, and keep every other supervisor out of it."""
        self.create()
        path = self.lock("up")
        descriptor = try_lock(path)
        if descriptor is None:
            raise DataDirInUse(self.path, read_pid(path))
        write_pid(descriptor, os.getpid())
        self._lock_fd = descriptor

    def release(self) -> None:
        """Let others in again; harmless if it was not claimed."""
        if self._lock_fd is None:
            return
        if self.sockets.parent != self.path:
            with contextlib.suppress(OSError):  # sockets left by a kill keep it; it is used again
                self.sockets.rmdir()
        unlock(self._lock_fd)
        self._lock_fd = None

    def create(self) -> None:
        """Make the directory and the folder of the logs, if they are not there."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = self.path.stat()
        if status.st_uid != os.geteuid():
            raise NotOurs(self.path, status.st_uid)
        if os.geteuid() == 0 and not any(self.path.iterdir()):
            # Empty, so it becomes ours; a directory with other things in it stays as it is.
            self.path.chmod(0o711)
        private_folder(self.path / "log", None)

    def private(self, name: str, account: Account | None) -> Path:
        """Make a folder for one server only and return it."""
        return private_folder(self.path / name, account)

    def _socket_folder(self) -> Path:
        inside = self.path / "run"
        name = f"analytics-{hashlib.sha256(os.fsencode(self.path)).hexdigest()[:16]}"
        choices = (inside, Path(tempfile.gettempdir(), name), Path("/tmp", name))  # noqa: S108 - checked to be ours
        for folder in choices:
            longest = os.fsencode(folder / _LONGEST_SOCKET_NAME)
            # In the host of a DSN a comma begins another host, quoted or not.
            if len(longest) <= _MAX_SOCKET_PATH_BYTES and b"," not in longest:
                return folder
        return choices[-1]


def private_folder(path: Path, account: Account | None) -> Path:
    """Make a folder that only one account may use, and refuse one that is not so."""
    uid = os.geteuid() if account is None else account.uid
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        status = path.lstat()
    else:
        if account is not None:
            os.chown(path, account.uid, account.gid, follow_symlinks=False)
        return path
    # A kill between mkdir and chown leaves our own empty folder: finish it.
    if account is not None and stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid():
        os.chown(path, account.uid, account.gid, follow_symlinks=False)
        status = path.lstat()
    if status.st_uid != uid or not stat.S_ISDIR(status.st_mode):
        raise NotOurs(path, status.st_uid)
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise NotOurs(path, status.st_uid, what="is not private (chmod 700) or belongs to")
    return path
