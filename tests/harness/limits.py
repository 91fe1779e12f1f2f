"""Less memory and less processor for one process, from the outside."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from harness.waiting import wait_for

_ROOT = Path("/sys/fs/cgroup")


@contextmanager
def control_group(pid: int, controller: str, **limits: int) -> Iterator[Path]:
    """Put a process into a group with *limits*, files of cgroup v1; skips where that can't be."""
    folder = _ROOT / controller / f"analytics-test-{uuid4().hex}"
    if os.geteuid() != 0:
        pytest.skip("needs root")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("needs root that may make control groups (v1)")
    try:
        for name, limit in limits.items():
            (folder / f"{controller}.{name}").write_text(str(limit))
        (folder / "cgroup.procs").write_text(str(pid))
        yield folder
    finally:
        # Processes that live go back to where they came from; a group with any can't be removed.
        for member in (folder / "cgroup.procs").read_text().split():
            (_ROOT / controller / "cgroup.procs").write_text(member)
        wait_for(lambda: _is_removed(folder), "the control group is empty")


def _is_removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError:
        return False
    return True
