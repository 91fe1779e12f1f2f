"""What a 202 rests on, seen from the kernel: the log of Postgres is on the disk before it is said.

One strace watches both programs, so its lines are in the order of what happened.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from signal import SIGINT

import pytest

from harness.client import Mint, Sender
from harness.collector import Collector
from harness.processes import Program, offspring
from harness.servers import OwnServers
from harness.waiting import wait_for

CALLS = "read,recvfrom,recvmsg,write,writev,sendto,sendmsg,pwrite64,pwritev,fdatasync,fsync"
# A call that another process interrupts has two lines; it is done with the second of them.
LOG_IS_ON_DISK = re.compile(
    r"pwrite(64|v)\(\d+<[^>]*/pg_wal/.*\n.*fdatasync[^\n]* = 0\n", re.DOTALL
)
ANSWERED = re.compile(r'(write|writev|sendto|sendmsg)\(.*"HTTP/1\.1 202')


def test_the_log_is_on_the_disk_before_the_answer_is_sent(
    collector: Collector, victims: OwnServers, tmp_path: Path
) -> None:
    """A request comes, Postgres writes its log and syncs it, and only then does 202 go out."""
    mint = Mint(1)
    with (
        collector.serve() as serve,
        Sender(serve.url, collector.database.new_key()) as sender,
    ):
        assert sender.send(mint.events(1)).status == 202
        watched = [serve.pid, victims.postgres.pid, *offspring(victims.postgres.pid)]
        with _traced(watched, tmp_path) as trace:
            event = mint.event()
            status = sender.send([event]).status
            wait_for(lambda: ANSWERED.search(trace.read_text()), "the answer is in the trace")
        meanwhile = _between(event["messageId"], ANSWERED, trace.read_text())

    assert status == 202
    assert LOG_IS_ON_DISK.search(meanwhile), meanwhile


@contextmanager
def _traced(pids: Sequence[int], folder: Path) -> Iterator[Path]:
    """Watch the processes inside the block; skips where nobody may."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("needs strace (apt-get install strace)")
    trace = folder / "trace"
    command = [strace, "-f", "-y", "-s", "4096", "-e", f"trace={CALLS}", "-o", str(trace)]
    command += [part for pid in pids for part in ("-p", str(pid))]
    with Program(command, folder, "strace") as program:
        wait_for(lambda: _attached(program) >= len(pids) or not program.is_running, "it watches")
        if not program.is_running:
            pytest.skip(f"needs root that may trace: {program.log}")
        yield trace
        program.stop(SIGINT)


def _attached(program: Program) -> int:
    return len(re.findall(r"Process \d+ attached", program.log))


def _between(request: str, answer: re.Pattern[str], trace: str) -> str:
    """Return what was done from the first line that holds the request to the one that answers."""
    since = trace[trace.index(request) :]
    found = answer.search(since)
    assert found is not None
    return since[: found.start()]
