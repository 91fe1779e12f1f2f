"""The folder of one project, which any number of processes share: opened late, and measured."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from math import inf
from pathlib import Path
from time import monotonic
from typing import Final

from analytics_sdk.folders import SpoolUnusableError, about, folder_name, make_folder

# How often a folder that is full or out of order is looked at again.
LOOK_AGAIN_S: Final = 1.0


class Place:
    """Where the segments of a project lie. Its methods raise OSError."""

    def __init__(self, *, api_key: str, api_url: str, directory: Path) -> None:
        self._about = about(api_key, api_url)
        self._name = folder_name(api_key)
        self._directory = directory
        self._folder: Path | None = None
        self._failed_at = -inf
        self._failure = ""

    @property
    def exists(self) -> bool:
        """Tell whether there may be something in it."""
        return self._folder is not None or (self._directory / self._name).exists()

    def open(self) -> Path:
        """Return the folder, made and found safe."""
        if self._folder is None:
            if monotonic() - self._failed_at < LOOK_AGAIN_S:
                raise SpoolUnusableError(errno.EACCES, self._failure)
            try:
                folder = make_folder(self._directory, self._name, self._about)
            except OSError as error:
                self._failed_at, self._failure = monotonic(), str(error)
                raise
            self._folder = folder
        return self._folder

    def forget(self) -> None:
        """Open it afresh the next time, for somebody deleted it."""
        self._folder = None

    def used_bytes(self) -> int:
        """Add up what all processes have in it."""
        with os.scandir(self.open()) as entries:
            return sum(_size(entry) for entry in entries)

    def sync(self) -> None:
        """Wait until the names in it are on the disk itself, if it was opened at all."""
        if self._folder is None:
            return
        fd = os.open(self._folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _size(entry: os.DirEntry[str]) -> int:
    # Another process may delete it while we look.
    with suppress(OSError):
        return entry.stat(follow_symlinks=False).st_size
    return 0
