"""Lock files that the kernel releases with the last process that holds them.

A flock(2) belongs to the open file, so a child that inherits the descriptor holds the lock too.
Process ids in the files are for messages; only the lock says who is alive.
"""

import os
import sys
from pathlib import Path

if sys.platform != "win32":
    import fcntl


def try_lock(path: Path) -> int | None:
    """Take the lock file and return its descriptor, or None if another process has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def unlock(descriptor: int) -> None:
    """Give the lock up, also for a fork that inherited it, and close the file."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def read_pid(path: Path) -> int | None:
    """Return the process id on the first line of a file, if there is one."""
    try:
        return int(path.read_text().split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return None


def write_pid(descriptor: int, pid: int) -> None:
    """Make the process id the content of an open file."""
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{pid}\n".encode(), 0)
