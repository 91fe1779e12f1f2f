"""gevent and eventlet: threads that are none, and sockets and locks that are not Python's."""

import importlib.util
import json

import pytest

GEVENT = "from gevent import monkey; monkey.patch_all()"
GEVENT_WITH_REAL_THREADS = "from gevent import monkey; monkey.patch_all(thread=False)"
EVENTLET = "import eventlet; eventlet.monkey_patch()"
IMPORT = "import analytics_sdk as analytics"
# What is said first, what then, and what when there is a client already.
PROGRAMS = {
    "gevent": (GEVENT, IMPORT, ""),
    "gevent after the import": (IMPORT, GEVENT, ""),
    "gevent after the client": (IMPORT, "", GEVENT),
    "gevent with real threads": (GEVENT_WITH_REAL_THREADS, IMPORT, ""),
    "eventlet": (EVENTLET, IMPORT, ""),
    "eventlet after the client": (IMPORT, "", EVENTLET),
}
# `time.sleep` is the library's own after the patch, so this is how each waits without blocking.
PROGRAM = """
import json, threading, time
client = analytics.Client(flush_interval_s=5)
{late_patch}
# Whatever is imported on first use is, before anything is measured.
print(json.dumps(client.track("first") and client.flush(20)))

gaps, stop = [], []

def tick():
    while not stop:
        began = time.monotonic()
        time.sleep(0.005)
        gaps.append(time.monotonic() - began)

def longest_gap(act):
    del gaps[:], stop[:]
    ticker = threading.Thread(target=tick)
    ticker.start()
    time.sleep(0.05)
    outcome = act()
    time.sleep(0.05)
    stop.append(True)
    ticker.join()
    return outcome, max(gaps)

def act():
    taken = [client.track("more", {{"text": "x" * 500}}) for number in range(300)]
    # One batch is full, and the rest waits for the interval: nobody may be kept by that wait.
    time.sleep(0.2)
    return all(taken) and client.flush(20)

late_s = []
for _ in range(3):
    _, bare_s = longest_gap(lambda: time.sleep(0.2))
    delivered, live_s = longest_gap(act)
    late_s.append(live_s - bare_s)
    print(json.dumps(delivered))
print(json.dumps(late_s))
"""


@pytest.mark.parametrize("case", PROGRAMS)
def test_everything_is_delivered_and_nobody_is_blocked(run_script, collector, case):
    """Whenever the library patches: the loop is not kept for 50 ms."""
    library = case.split()[0]
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    first, second, late_patch = PROGRAMS[case]
    source = "\n".join((first, second, PROGRAM.format(late_patch=late_patch)))
    # A name, for looking it up takes a thread of another kind in each of the cases.
    url = f"http://localhost:{collector.port}"
    program = run_script(source, timeout_s=60, ANALYTICS_API_URL=url)

    answers = [json.loads(line) for line in program.stdout.splitlines()]
    assert answers, program.stderr
    *are_delivered, late_s = answers
    assert are_delivered == [True] * 4, program.stderr
    assert sorted(collector.names) == ["first", *["more"] * 900]
    assert len({event["messageId"] for event in collector.stored}) == 901
    # Best of three: a busy machine is late now and then, a blocked loop always.
    assert min(late_s) < 0.05
    assert "Traceback" not in program.stderr
