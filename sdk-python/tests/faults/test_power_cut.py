"""A power cut: what the disk itself has is all there is.

A file system in a file that is mounted shows it: what the kernel has not written through is not in
the file, so a copy of the file, taken at once, is the disk as it was when the power went.
"""

import json
import os
import shutil
import subprocess
import sys
import time

import pytest

from analytics_sdk.segment import Segment

KEY = "ak_live_test0SECRET"
# The SDK promises about a second, and writing through takes its time.
LOST_AT_MOST_S = 1.5
WRITER = """
import os
import threading
import time
import analytics_sdk as analytics
client = analytics.init(durable={durable!r})
number = 0
while True:
    if client.track("event", {{"number": number}}):
        os.write(1, b"%d %f\\n" % (number, time.monotonic()))
    number += 1
    threading.Event().wait(0.001)
"""


def mount(image, folder, *options):
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


def acknowledged(durable, spool, url, seconds):
    """
    Track for so many seconds, then kill.

    Returns the numbers that `track()` said True to, each with its time, and the time of the kill.
    """
    environment = {"ANALYTICS_API_URL": url, "ANALYTICS_API_KEY": KEY}
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER.format(durable=durable)],
        env={**os.environ, **environment, "ANALYTICS_SPOOL_DIR": str(spool)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with writer:
        lines = [writer.stdout.readline()]
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            lines.append(writer.stdout.readline())
        killed_at = time.monotonic()
        writer.kill()
        lines += writer.stdout.readlines()
    whole = [line.split() for line in lines if line.endswith(b"\n")]
    return {int(number): float(at) for number, at in whole}, killed_at


def recovered(spool):
    """Return the numbers of the events in the segments, in order."""
    numbers = []
    for path in sorted(spool.glob("*/*.seg")):
        segment = Segment.adopt(path)
        while segment.read_at < segment.end:
            events = segment.read(1000, 2**20).events
            numbers += [json.loads(event)["properties"]["number"] for event in events]
        segment.close()
    return numbers


def test_with_fsync_a_power_cut_costs_nothing(disk, closed_port):
    """Each event is on the disk itself before `track()` returns."""
    folder, cut = disk
    taken, _ = acknowledged("fsync", folder / "spool", f"http://127.0.0.1:{closed_port}", 1)
    found = recovered(cut() / "spool")

    assert len(taken) > 10
    assert found[: len(taken)] == list(taken)


def test_without_fsync_it_costs_about_the_last_second(disk, closed_port):
    """What is older was written through in the background; what is left is whole and in order."""
    folder, cut = disk
    url = f"http://127.0.0.1:{closed_port}"
    taken, killed_at = acknowledged(True, folder / "spool", url, 1.5 * LOST_AT_MOST_S)
    found = recovered(cut() / "spool")

    assert found == list(range(len(found)))
    assert 0 < len(found) < len(taken)
    lost_s = [killed_at - at for number, at in taken.items() if number >= len(found)]
    assert max(lost_s) <= LOST_AT_MOST_S
