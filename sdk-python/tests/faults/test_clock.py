"""A wall clock that jumps: waits and time limits go by another clock, which does not."""

import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

# Only the wall clock is moved.
FAKETIME = {"FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
PROGRAM = """
clock = os.environ["FAKETIME_TIMESTAMP_FILE"]
start = time.time()

def jump(offset):
    with open(clock, "w") as file:
        file.write(offset)
    # A clock that can't be moved would let everything pass.
    moved = abs(time.time() - start)
    assert moved > 1_000, moved

client = analytics.Client(flush_interval_s=0.5)
client.track("before")
{act}
client.track("after")
began = time.monotonic()
while client.stats().delivered < 2:
    threading.Event().wait(0.05)
    assert time.monotonic() - began < 40, client.stats()
print(client.stats().delivered, client.stats().expired)
"""


@pytest.fixture
def clock(tmp_path):
    """The settings under which a program has a clock that it can move."""
    found = importlib.util.find_spec("libfaketime")
    folders = found.submodule_search_locations if found else []
    libraries = [path for folder in folders for path in Path(folder).rglob("libfaketime.so.1")]
    if not libraries:
        pytest.skip("libfaketime is not installed")
    moment = tmp_path / "clock"
    settings = {
        **FAKETIME,
        "LD_PRELOAD": str(libraries[0]),
        "FAKETIME_TIMESTAMP_FILE": str(moment),
    }
    moment.write_text("+100000")
    told = subprocess.check_output(
        [sys.executable, "-c", "import time; print(time.time())"], env={**os.environ, **settings}
    )
    if float(told) < time.time() + 90_000:
        pytest.skip("libfaketime was built for another machine")
    moment.write_text("+0")
    return settings


JUMPS = {"an hour ahead": "+3600", "a day back": "-86400"}


@pytest.mark.parametrize("jump", JUMPS)
def test_an_event_does_not_wait_for_the_wall_clock(run_program, collector, clock, jump):
    """The interval is over when it is over; only the events' time stamps follow the clock."""
    program = run_program(PROGRAM.format(act=f'jump("{JUMPS[jump]}")'), timeout_s=60, **clock)

    assert program.stdout.split() == ["2", "0"], program.stderr
    before, after = collector.stored
    differing = {name for name in before | after if before.get(name) != after.get(name)}
    assert differing == {"name", "messageId", "timestamp"}


@pytest.mark.parametrize("jump", JUMPS)
def test_a_pause_is_as_long_as_the_collector_asked_for(run_program, collector, reply, clock, jump):
    """Neither cut short by a clock that jumps ahead, nor made longer by one that jumps back."""
    collector.script(reply.status(429, Retry_After="1"))
    act = f"""
client.flush(0.2)
while client.stats().requests < 1:
    client.flush(0.1)
jump("{JUMPS[jump]}")
"""
    program = run_program(PROGRAM.format(act=act), timeout_s=60, **clock)

    assert program.stdout.split() == ["2", "0"], program.stderr
    first, second = collector.requests[:2]
    assert 1 <= second.at - first.at < 30
