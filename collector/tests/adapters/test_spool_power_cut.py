"""A power cut: what the disk itself has is all there is, and what was acknowledged is in it.

A file system in a file that is mounted shows it: what the kernel has not written through is not in
the file, so a copy of the file, taken at once, is the disk as it was when the power went.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from analytics_collector.adapters.spool.sqlite import SqliteSpool

EVENTS = 100
WRITER = """
    import asyncio, os, sys
    from pathlib import Path
    sys.path.insert(0, {here!r})
    from test_spool import NAME, ROOMY, SqliteSpool, event

    async def main():
        spool = SqliteSpool(Path({folder!r}), NAME, ROOMY)
        await spool.open()
        for number in range(1_000_000):
            await spool.append([event(str(number))])
            os.write(1, b"%d\\n" % number)

    asyncio.run(main())
"""


def mount(image: Path, folder: Path, *options: str) -> bool:
    """Mount the file system in *image*; tell whether that is allowed here."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-o", ",".join(("loop", *options)), str(image), str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture
def disk(tmp_path):
    """A disk of its own, mounted, and a function that cuts its power and mounts what is left."""
    # Where root finds it, and others need not.
    make = shutil.which("mkfs.ext4", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if os.geteuid() != 0 or make is None or shutil.which("mount") is None:
        pytest.skip("needs root, mount and mkfs.ext4")
    image, copy = tmp_path / "disk", tmp_path / "copy"
    folder, after = tmp_path / "mounted", tmp_path / "after"
    with image.open("wb") as file:
        file.truncate(2**26)
    subprocess.run([make, "-q", str(image)], check=True, capture_output=True)
    # The kernel would write through by itself every five seconds.
    if not mount(image, folder, "commit=600"):
        pytest.skip("needs root that may mount")

    def cut():
        shutil.copyfile(image, copy)
        assert mount(copy, after)
        return after

    yield folder, cut
    for each in (folder, after):
        subprocess.run(["umount", "-l", str(each)], capture_output=True, check=False)


def test_what_was_acknowledged_survives_a_power_cut(disk, run):
    """Killed in the middle of its writes, on a disk that never got what it was not told to sync."""
    folder, cut = disk
    program = WRITER.format(here=str(Path(__file__).parent), folder=str(folder / "spool"))
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE
    ) as writer:
        lines = [writer.stdout.readline() for _ in range(EVENTS)]
        writer.kill()
        lines += writer.stdout.readlines()
    acknowledged = [int(line) for line in lines if line.endswith(b"\n")]
    left = cut()

    async def drained() -> list[int]:
        spool = SqliteSpool(left / "spool", "events-test", 10_000_000)
        await spool.open()
        assert not spool.is_empty
        numbers = []
        while found := await spool.oldest(1_000, 1_000_000):
            numbers += [int(row.name) for row in found.rows]
            await spool.remove(found.until, [])
        await spool.close()
        return numbers

    numbers = run(drained())
    assert len(acknowledged) >= EVENTS
    assert numbers[: len(acknowledged)] == acknowledged
    assert len(numbers) <= len(acknowledged) + 1
