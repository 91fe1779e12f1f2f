"""Processes that share a spool: each event is sent by one of them, whoever is killed."""

import os
import signal
import subprocess
import sys
from collections import Counter

import pytest

KEY = "ak_live_test0SECRET"
CONTAINER = ("unshare", "--pid", "--fork", "--kill-child=SIGKILL")
WRITER = """
import os
import threading
import analytics_sdk as analytics
client = analytics.init(durable=True)
number = 0
while True:
    if client.track("event", {"from": os.environ["WRITER"], "number": number}):
        os.write(1, f"{os.environ['WRITER']} {number}\\n".encode())
    number += 1
    threading.Event().wait(0.001)
"""


@pytest.fixture
def start(closed_port, spool_dir):
    """Start a program that shares the spool, perhaps in a container, and end it with the test."""
    programs = []

    def start_program(source, *container, **environment):
        settings = {"ANALYTICS_API_KEY": KEY, "ANALYTICS_SPOOL_DIR": str(spool_dir)}
        settings["ANALYTICS_API_URL"] = f"http://127.0.0.1:{closed_port}"
        program = subprocess.Popen(
            [*container, sys.executable, "-c", source],
            env={**os.environ, **settings, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        programs.append(program)
        return program

    yield start_program
    for program in programs:
        program.kill()
        program.wait()
        program.stdout.close()


@pytest.fixture
def container():
    """The command whose child is process 1 of its own world."""
    try:
        found = subprocess.run([*CONTAINER, "true"], capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("needs root and unshare")
    if os.geteuid() != 0 or found.returncode != 0:
        pytest.skip("needs root that may have a world of processes of its own")
    return CONTAINER


def kill(program):
    """Kill it at once, and return the lines that it wrote in whole."""
    program.kill()
    return [line for line in program.stdout.readlines() if line.endswith(b"\n")]


def told(collector):
    """Return the events that arrived, as the writers tell of them."""
    stored = [event["properties"] for event in collector.stored]
    return [f"{each['from']} {each['number']}\n".encode() for each in stored]


RECOVERER = """
import signal
import analytics_sdk as analytics
client = analytics.init()
client.recover(60)
signal.pause()
"""


def test_process_1_of_each_container_is_another_process(
    start, container, collector, spool_dir, eventually
):
    """The next one delivers what the dead one left, and the living one's when that is dead too."""
    alive = start(WRITER, *container, WRITER="alive")
    lines = [alive.stdout.readline() for _ in range(100)]
    dead = start(WRITER, *container, WRITER="dead")
    of_dead = {dead.stdout.readline() for _ in range(100)}
    of_dead.update(kill(dead))
    processes = {path.name.rpartition("-")[0] for path in spool_dir.glob("*/*.seg")}
    start(RECOVERER, *container, ANALYTICS_API_URL=collector.url)
    eventually(lambda: of_dead <= set(told(collector)))
    of_both = {*of_dead, *lines, *kill(alive)}

    assert [name.split("-")[1] for name in processes] == ["1", "1"]
    assert {line.split()[0] for line in told(collector)} == {b"dead"}

    start(RECOVERER, *container, ANALYTICS_API_URL=collector.url)
    eventually(lambda: of_both <= set(told(collector)))
    found = told(collector)
    assert len(found) == len(set(found)) <= len(of_both) + 2


def test_only_the_lot_in_hand_goes_again_when_a_recoverer_is_killed(
    start, make_client, collector, closed_port, reply, eventually
):
    """Two share what four have left; one dies with a lot sent that nobody answered."""
    for writer in range(4):
        client = make_client(api_url=f"http://127.0.0.1:{closed_port}", durable=True)
        for number in range(1200):
            assert client.track("event", {"from": writer, "number": number})
        client.shutdown(0)

    def store_and_say_nothing(handler, request):
        collector.stored.extend(request.events)
        reply.hang(handler, request)

    collector.script(reply.accept(), store_and_say_nothing)
    killed = start(RECOVERER, ANALYTICS_API_URL=collector.url)
    eventually(lambda: len(collector.requests) == 2)
    in_hand = Counter(collector.requests[1].ids)
    client = make_client()
    client.recover(0)
    reached = 3 * 1200 + len(collector.requests[0].ids) + len(in_hand)
    eventually(lambda: len(collector.stored) == reached)
    while_it_lived = Counter(event["messageId"] for event in collector.stored)
    killed.send_signal(signal.SIGKILL)
    killed.wait()

    assert client.recover(20)
    arrived = Counter(event["messageId"] for event in collector.stored)
    assert set(while_it_lived.values()) == {1}
    assert len(arrived) == 4 * 1200
    assert arrived - Counter(arrived.keys()) == in_hand
