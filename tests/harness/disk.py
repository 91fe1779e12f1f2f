"""A small disk of a test's own, that can be filled to its last byte and emptied again."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_CHUNK_BYTES = 64 * 1024


class SmallDisk:
    """A file system in memory with a limit, mounted in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """Leave no room."""
        try:
            with self._ballast.open("ab", buffering=0) as ballast:
                for size_bytes in (_CHUNK_BYTES, 512, 1):
                    self._write_all(ballast.fileno(), size_bytes)
        except OSError:
            return  # full before the file had a name, or at its end

    def give_room(self) -> None:
        """Take back what `fill` has taken."""
        self._ballast.unlink(missing_ok=True)

    def _write_all(self, descriptor: int, size_bytes: int) -> None:
        try:
            while os.write(descriptor, b"x" * size_bytes):
                pass
        except OSError:
            return


@contextmanager
def small_disk(size_bytes: int) -> Iterator[SmallDisk]:
    """Give an empty disk of *size_bytes*; skips where nothing can be mounted."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    # Not under pytest's own folder, whose long name leaves no room for a socket's.
    folder = Path(tempfile.mkdtemp(prefix="analytics-disk-"))
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes},mode=0711", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        folder.rmdir()
        pytest.skip("needs root that may mount")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=True)
        folder.rmdir()
