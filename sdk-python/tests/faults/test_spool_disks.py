"""Disks that are full, out of files, read-only or somebody else's: `track()` answers, and tells."""

import json
import os
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

KEY = "ak_live_test0SECRET"
FILLER = {"filler": "x" * 900}


class Disk:
    """A file system in memory, mounted in `folder`."""

    def __init__(self, folder):
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self, size_bytes):
        self._ballast.write_bytes(b"x" * size_bytes)

    def give_room(self):
        self._ballast.unlink()

    def make_read_only(self):
        subprocess.run(["mount", "-o", "remount,ro", str(self.folder)], check=True)


@pytest.fixture
def make_disk():
    """Mount small disks; skips where nothing can be mounted."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    folders = []

    def make(options):
        folder = Path(tempfile.mkdtemp(prefix="analytics-disk-"))
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        try:
            mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
        except FileNotFoundError:
            mounted = False
        if not mounted:
            folder.rmdir()
            pytest.skip("needs root that may mount")
        folders.append(folder)
        return Disk(folder)

    yield make
    for folder in folders:
        subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=True)
        folder.rmdir()


@pytest.fixture
def recovered(make_client, collector):
    """Return the names of what the next client finds in a folder, none of it damaged."""

    def recover(spool_dir):
        client = make_client(spool_dir=spool_dir)
        assert client.recover(20)
        assert client.stats().dropped == {}
        return collector.names

    return recover


def track_many(client, first, count):
    """Track so many; return the names of those that were taken, and the set of all answers."""
    answers = {f"{number}": client.track(f"{number}", FILLER) for number in range(first, count)}
    return [name for name, answer in answers.items() if answer], set(answers.values())


def test_a_full_disk_turns_events_away_until_there_is_room(
    make_disk, make_client, closed_port, recovered
):
    """What was taken before is whole, and the next client delivers exactly what was taken."""
    disk = make_disk("size=1m")
    disk.fill(800 * 1024)
    client = make_client(
        api_url=f"http://127.0.0.1:{closed_port}", spool_dir=disk.folder, durable=True
    )
    before, first_answers = track_many(client, 0, 300)
    disk.give_room()
    after, last_answers = track_many(client, 300, 400)
    refused = client.stats().refused
    client.shutdown(0)

    assert (first_answers, last_answers) == ({True, False}, {True})
    assert refused == {"spool_failed": 300 - len(before)}
    assert len(before) > 100
    assert recovered(disk.folder) == before + after


LIMITS = {
    # Then the file in use grows beyond its size.
    "no more files": """
        names = [f"{sys.argv[1]}/ballast-{number}" for number in range(9)]
        with contextlib.suppress(OSError):
            for name in names:
                open(name, "x").close()
        client = analytics.init(durable=True, spool_max_bytes=1_500_000)
        answers["without"] = client.track("without")
        for name in filter(os.path.exists, names):
            os.unlink(name)
        deadline = time.monotonic() + 20
        while not client.track("with") and time.monotonic() < deadline:
            threading.Event().wait(0.02)
        answers["with"] = True
    """,
    "no longer files": """
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
        client = analytics.init(durable=True)
    """,
}


@pytest.mark.parametrize(("limit", "at_least"), [("no more files", 1001), ("no longer files", 150)])
def test_where_files_are_limited_an_answer_is_true_or_false(
    make_disk, run_program, closed_port, recovered, limit, at_least
):
    """Nothing raises, and what was said True to is there, with several files or the one."""
    disk = make_disk("size=4m,nr_inodes=8")
    program = run_program(
        "import contextlib, json, resource\nanswers = {}"
        + textwrap.dedent(LIMITS[limit])
        + textwrap.dedent("""
            for number in range(1000):
                answers[f"{number}"] = client.track(f"{number}", {"filler": "x" * 900})
            print(json.dumps(answers), flush=True)
            os._exit(0)
        """),
        str(disk.folder),
        ANALYTICS_API_URL=f"http://127.0.0.1:{closed_port}",
        ANALYTICS_SPOOL_DIR=str(disk.folder),
    )
    answers = json.loads(program.stdout or "{}")
    taken = [name for name, answer in answers.items() if answer]

    assert "Traceback" not in program.stderr
    assert set(answers.values()) == {True, False}, program.stderr
    assert len(taken) >= at_least
    assert recovered(disk.folder) == taken


def test_only_the_writes_that_fail_are_turned_away(run_program, closed_port, tmp_path, recovered):
    """Each fiftieth finds no room, at once or after half of it was written."""
    program = run_program(
        """
        import errno, json
        writes = []

        def write(fd, data, call=os.write):
            if data[:4] == b"EVT1":
                writes.append(fd)
                if len(writes) % 50 == 0:
                    if len(writes) % 100:
                        raise OSError(errno.ENOSPC, "No space left on device")
                    data = data[: len(data) // 2]
            return call(fd, data)

        os.write = write
        client = analytics.init(durable=True)
        print(json.dumps([client.track(f"{number}") for number in range(1000)]), flush=True)
        os._exit(0)
        """,
        ANALYTICS_API_URL=f"http://127.0.0.1:{closed_port}",
    )
    answers = json.loads(program.stdout or "[]")
    refused = range(49, 1000, 50)

    assert [number for number, answer in enumerate(answers) if not answer] == [*refused]
    names = [f"{number}" for number in range(1000) if number not in refused]
    assert recovered(tmp_path / "spool") == names


# Where nothing can be written at all


def outage(client, collector, reply):
    """Track through an outage that moves events to disk; return whether they all arrived."""
    collector.always(reply.status(503))
    names = [f"{number}" for number in range(20)]
    assert all(client.track(name) for name in names)
    assert not client.flush(0.2)
    collector.always(reply.accept())
    return client.flush() and collector.names == names


def test_on_a_read_only_disk_delivery_goes_on_from_memory(
    make_disk, make_client, collector, reply, sdk_log
):
    """And it is told once a client, however often it is tried."""
    disk = make_disk("size=1m")
    disk.make_read_only()
    for clients in (1, 2):
        client = make_client(spool_dir=disk.folder / "spool")
        for _ in range(2):
            assert outage(client, collector, reply)
            collector.stored.clear()
        assert client.stats().dropped == {}
        assert sdk_log.reasons().count("spool_failed") == clients


@pytest.fixture
def run_as(collector):
    """Run a program as a user that owns nothing; skips where only we can run Python."""
    if os.geteuid() != 0:
        pytest.skip("needs root")

    def run(uid, source, folder, without=(), **environment):
        command = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
        command += [sys.executable, "-u", "-c"]
        settings = {"ANALYTICS_API_URL": collector.url, "ANALYTICS_API_KEY": KEY, **environment}
        settings = {**os.environ, **settings}
        for name in without:
            settings.pop(name, None)

        def execute(code):
            return subprocess.run(
                [*command, code],
                env=settings,
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )

        try:
            is_able = execute("import analytics_sdk").returncode == 0
        except FileNotFoundError:
            is_able = False
        if not is_able:
            pytest.skip("needs root, setpriv, and a Python that others may run")
        return execute(textwrap.dedent(source))

    return run


@pytest.fixture
def others_folder():
    """A folder that everybody may enter and write to, on an open way."""
    with tempfile.TemporaryDirectory(prefix="analytics-others-") as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


NOBODY, UNKNOWN = 65534, 54321
HOMES = ("HOME", "XDG_DATA_HOME", "ANALYTICS_SPOOL_DIR")


@pytest.mark.parametrize(
    ("uid", "without"),
    [(NOBODY, ()), (NOBODY, HOMES), (UNKNOWN, HOMES)],
    ids=["permission denied", "no $HOME", "no $HOME, and a user that has no name"],
)
def test_where_nothing_may_be_written_events_are_delivered_from_memory(
    run_as, others_folder, collector, uid, without
):
    """One line tells of it, and nothing is made in the working directory instead."""
    (others_folder / "ours").mkdir(mode=0o700)
    program = run_as(
        uid,
        """
        import analytics_sdk as analytics
        client = analytics.init(max_queue_size=10, flush_interval_s=3600)
        for _ in range(3):
            print(sum(client.track("x") for _ in range(30)), client.flush())
        """,
        others_folder,
        without,
        ANALYTICS_SPOOL_DIR=str(others_folder / "ours" / "spool"),
    )

    assert program.stdout.split("\n") == [*["10 True"] * 3, ""], program.stderr
    assert len(collector.names) == 30
    assert program.stderr.count("The spool can't be used") == 1
    assert "Traceback" not in program.stderr
    assert [path.name for path in others_folder.iterdir()] == ["ours"]
