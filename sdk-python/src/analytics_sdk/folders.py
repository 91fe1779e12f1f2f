"""Where spools lie: a folder for each project, made safely, and what a look from outside shows."""

from __future__ import annotations

import errno
import os
import re
import stat
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from time import time
from typing import Final

import orjson

from analytics_sdk.segment import Segment, event_times

# A time, a process and a number, so that by name the files of a process stand in order.
NAME: Final = re.compile(r"\d{13}-\d+-[0-9a-f]{8}-\d{6,10}\.seg")
DAMAGED: Final = ".damaged"
ABOUT: Final = "about.json"
SHOWN_KEY_CHARS: Final = 12


class SpoolUnusableError(OSError):
    """The folder is not safe to keep events in."""


def home(spool_dir: Path | None) -> Path:
    """Return the directory that has a folder for each project."""
    if spool_dir is not None:
        # A directory that does not exist any more has no absolute path.
        with suppress(FileNotFoundError):
            return spool_dir.absolute()
        return spool_dir
    # Here, for it takes as long to import as the rest of the SDK, and few programs need it.
    import platformdirs  # noqa: PLC0415

    try:
        return platformdirs.user_data_path("analytics-sdk", appauthor=False) / "spool"
    except RuntimeError:
        # A user without a name and $HOME, as in some containers; older releases return this path.
        return Path("~/.local/share/analytics-sdk/spool")


def folder_name(api_key: str) -> str:
    """Return the name of a project's folder: the key decides where events may go, the URL not."""
    # Here, for it takes long to import, and the spool of a client is made once.
    from hashlib import sha256  # noqa: PLC0415

    return sha256(api_key.encode()).hexdigest()[:16]


def about(api_key: str, api_url: str) -> dict[str, str]:
    """Return what a folder says of itself to people."""
    return {"api_url": api_url, "api_key": api_key[:SHOWN_KEY_CHARS]}


def make_folder(parent: Path, name: str, notice: dict[str, str]) -> Path:
    """Return the folder of a project, made if need be. Raises OSError if it is not safe."""
    if parent.parts[:1] == ("~",):
        message = "there is no home directory: set ANALYTICS_SPOOL_DIR (spool_dir) or HOME"
        raise SpoolUnusableError(errno.ENOENT, message)
    folder = parent / name
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    mode = parent.stat().st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        raise SpoolUnusableError(errno.EACCES, f"everybody may write to {parent}")
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise SpoolUnusableError(errno.ENOTDIR, f"{folder} is no directory")
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise SpoolUnusableError(errno.EACCES, f"{folder} must be yours alone (chmod 700)")
    if not (folder / ABOUT).exists():
        # In one step, for a full disk or a kill would leave half of it for good.
        new = folder / f"{ABOUT}.{os.getpid()}"
        fd = os.open(new, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(orjson.dumps(notice))
        with suppress(FileNotFoundError):  # another client of ours was faster
            new.rename(folder / ABOUT)
    return folder


@dataclass(frozen=True, slots=True)
class FolderStatus:
    """What waits in the folder of one project."""

    path: Path
    key_prefix: str
    """The first 12 characters of the API key."""
    api_url: str
    """Where the events were to go when the folder was made."""
    events: int
    bytes: int
    segments: int
    held_segments: int
    """Segments that belong to living processes."""
    oldest_at: datetime | None

    def is_ours(self, api_key: str) -> bool:
        """Tell whether the events belong to the project of *api_key*."""
        return self.path.name == folder_name(api_key)


def folders(parent: Path) -> list[FolderStatus]:
    """Return the folders in *parent*, by name; raises OSError if it can't be read."""
    if not parent.exists():
        return []
    found = [path for path in sorted(parent.iterdir()) if (path / ABOUT).is_file()]
    return [_status(path) for path in found]


def _notice(path: Path) -> dict[str, str]:
    with suppress(orjson.JSONDecodeError):
        notice = orjson.loads((path / ABOUT).read_bytes())
        if isinstance(notice, dict):
            return {name: str(value) for name, value in notice.items()}
    return {}


def _status(path: Path) -> FolderStatus:
    notice = _notice(path)
    times: list[int] = []
    size_bytes = segments = held = 0
    for file in sorted(path.iterdir()):
        if not NAME.fullmatch(file.name):
            continue
        segments += 1
        # Another process may deliver and delete it while we look.
        with suppress(FileNotFoundError):
            size_bytes += file.stat().st_size
            held += _is_held(file)
            times += event_times(file)
    oldest_at = datetime.fromtimestamp(min(times), timezone.utc) if times else None
    return FolderStatus(
        path,
        notice.get("api_key", ""),
        notice.get("api_url", ""),
        len(times),
        size_bytes,
        segments,
        held,
        oldest_at,
    )


def _is_held(file: Path) -> bool:
    segment = Segment.adopt(file)
    if segment is not None:
        segment.close()
    return segment is None and file.exists()


def purge(path: Path, *, older_than_s: float = 0) -> int:
    """
    Delete what waits in the folder *path*, but for what living processes have there.

    With *older_than_s* only segments whose newest event is that old, in seconds. Returns how many
    events were deleted. Raises OSError.
    """
    latest = time() - older_than_s
    deleted = 0
    for file in sorted(path.iterdir()):
        if file.suffix == DAMAGED and file.stat().st_mtime <= latest:
            file.unlink()
        segment = Segment.adopt(file) if NAME.fullmatch(file.name) else None
        if segment is None:
            continue
        times = event_times(file)
        if all(taken_at <= latest for taken_at in times):
            segment.remove()
            deleted += len(times)
        else:
            segment.close()
    return deleted
