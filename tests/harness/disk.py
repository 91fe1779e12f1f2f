"""Disks of a test's own: one to be filled to its last byte, and one to lose its power."""

from __future__ import annotations

import os
import shutil
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


class PowerCutDisk:
    """A file system in a file: what the kernel has not written through is not in that file.

    So a copy of it is the disk as it was when the power went.
    """

    def __init__(self, home: Path) -> None:
        self._image, self._copy = home / "disk", home / "copy"
        self.folder, self._after = home / "mounted", home / "after"

    def cut_power(self) -> None:
        """Keep what the disk itself has now; whoever writes to it should stand still."""
        # Unlike Python, `cp` leaves out what was never written.
        subprocess.run(["cp", str(self._image), str(self._copy)], check=True)

    @contextmanager
    def after_the_cut(self) -> Iterator[Path]:
        """Give what was left, mounted as after the next start."""
        assert _mount(self._copy, self._after)
        try:
            yield self._after
        finally:
            _unmount(self._after)

    def make(self, size_bytes: int) -> None:
        """Mount it, empty; skips where that is not possible."""
        # Where root finds it, and others need not.
        program = shutil.which("mkfs.ext4", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
        if os.geteuid() != 0 or program is None or shutil.which("mount") is None:
            pytest.skip("needs root, mount and mkfs.ext4")
        with self._image.open("wb") as file:
            file.truncate(size_bytes)
        subprocess.run([program, "-q", str(self._image)], check=True, capture_output=True)
        # The kernel would write through by itself every five seconds.
        if not _mount(self._image, self.folder, "commit=600"):
            pytest.skip("needs root that may mount")

    def remove(self) -> None:
        """Unmount it; harmless if it is not mounted."""
        _unmount(self.folder)


def _mount(image: Path, folder: Path, *options: str) -> bool:
    folder.mkdir(exist_ok=True)
    command = ["mount", "-o", ",".join(("loop", *options)), str(image), str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _unmount(folder: Path) -> None:
    if folder.is_mount():
        subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=True)


@contextmanager
def power_cut_disk(size_bytes: int) -> Iterator[PowerCutDisk]:
    """Give an empty disk whose power can be cut; skips where nothing can be mounted."""
    home = Path(tempfile.mkdtemp(prefix="analytics-power-"))
    home.chmod(0o711)
    disk = PowerCutDisk(home)
    try:
        disk.make(size_bytes)
        yield disk
    finally:
        disk.remove()
        shutil.rmtree(home)
