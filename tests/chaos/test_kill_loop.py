"""Clients send while the collector is killed and Postgres crashes, again and again."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGQUIT, SIGSTOP

import pytest

from harness.checker import check
from harness.client import Load
from harness.collector import Collector, Serve
from harness.processes import offspring
from harness.proxy import FaultProxy
from harness.sdk import sdk_program
from harness.servers import OwnServers
from harness.waiting import pause, wait_for

BUSY = "while True: pass"
TRACK = """
import sys, time
from analytics_sdk import Client

def p99_s(durations):
    return sorted(durations)[len(durations) * 99 // 100]

client = Client(flush_interval_s=0.05)
best_s = 60.0
for _ in range(3):
    durations = []
    for number in range(200):
        began = time.perf_counter()
        client.track("busy", {"number": number}, user_id="sdk")
        durations.append(time.perf_counter() - began)
        time.sleep(0.001)
    best_s = min(best_s, p99_s(durations))
print(best_s, flush=True)
client.shutdown(60)
"""


def test_nothing_that_was_acknowledged_is_lost_doubled_or_out_of_order(
    collector: Collector, victims: OwnServers, chaos_s: float, seed: int
) -> None:
    """Every 0.2 to 1.2 s the collector is killed or stands still; Postgres crashes now and then."""
    dice = random.Random(seed)
    database = collector.database
    rounds = kills = crashes = pauses = 0
    with collector.serve(commit_timeout_s=2) as serve:
        with Load(serve.url, database.new_key(), seed=seed) as load:
            ends_at = time.monotonic() + chaos_s
            # On a slow machine a few rounds take all the time; each kind of harm is done anyway.
            while time.monotonic() < ends_at or not (kills and crashes and pauses):
                pause(dice.uniform(0.2, 1.2))
                rounds += 1
                if rounds % 3 == 1:
                    victims.postgres.crash(dice.choice((SIGQUIT, SIGKILL)))
                    crashes += 1
                    pause(dice.uniform(0, 0.3))
                    victims.postgres.start()
                    pause(dice.uniform(0, 0.3))
                if rounds % 4 == 2:
                    serve.send_signal(SIGSTOP)
                    pause(dice.uniform(0.3, 0.8))
                    serve.send_signal(SIGCONT)
                    pauses += 1
                    continue
                if serve.is_running:
                    serve.kill()
                    kills += 1
                serve.start()
                serve.wait_ready()
        findings = check(load.ledgers, database.stored())
    harm = f"{kills} kills, {crashes} crashes, {pauses} pauses"
    trouble = f"{harm}, {load.unanswered} unanswered, {load.answers}"
    print(f"{findings}; {trouble}")

    assert findings.is_clean, f"{findings}; {trouble}"
    assert kills > 0
    assert crashes > 0
    assert pauses > 0
    assert load.unanswered > 0, "the kills hit nobody"
    assert findings.acknowledged > 100
    assert set(load.answers) <= {202, 503}, trouble


@pytest.mark.long
def test_nothing_is_lost_when_a_bad_line_is_between_the_clients_and_what_is_killed(
    collector: Collector, victims: OwnServers, chaos_s: float, seed: int
) -> None:
    """Three in ten connections break, in the request, in the answer or before it."""
    dice = random.Random(seed)
    database = collector.database
    with collector.serve(commit_timeout_s=2) as serve, FaultProxy(serve.url) as line:
        line.dice, line.share_of_faults = random.Random(seed), 0.3
        with Load(line.url, database.new_key(), seed=seed, keep_alive=False) as load:
            _kill_and_crash(serve, victims, chaos_s / 8, dice)
        findings = check(load.ledgers, database.stored())
    trouble = f"{line.faults_done} faults, {load.unanswered} unanswered, {load.answers}"
    print(f"{findings}; {trouble}")

    assert findings.is_clean, f"{findings}; {trouble}"
    assert line.faults_done > 5
    assert findings.acknowledged > 20
    assert set(load.answers) <= {202, 503}, trouble


def _kill_and_crash(serve: Serve, victims: OwnServers, seconds: float, dice: random.Random) -> None:
    """Kill the collector and Postgres in turns; at the end both run."""
    ends_at = time.monotonic() + seconds
    rounds = 0
    while time.monotonic() < ends_at or rounds < 2:
        pause(dice.uniform(0.2, 0.8))
        rounds += 1
        if rounds % 2:
            serve.kill()
            serve.start()
        else:
            victims.postgres.crash(dice.choice((SIGQUIT, SIGKILL)))
            victims.postgres.start()
        serve.wait_ready()


def test_one_of_two_processes_may_be_killed_at_any_time(
    collector: Collector, chaos_s: float, seed: int
) -> None:
    """What it had acknowledged is there, the other goes on, and soon there are two again."""
    dice = random.Random(seed)
    database = collector.database
    kills = 0
    with collector.serve(workers=2) as serve:
        with Load(serve.url, database.new_key("ingest"), seed=seed) as load:
            ends_at = time.monotonic() + chaos_s / 8
            while time.monotonic() < ends_at or not kills:
                pause(dice.uniform(0.1, 0.4))
                first, second = _wait_for_two(serve)
                victim, survivor = dice.choice(((first, second), (second, first)))
                before = load.acknowledged
                os.kill(victim, SIGKILL)
                kills += 1
                wait_for(lambda seen=before: load.acknowledged > seen + 20, "the other serves on")
                assert survivor in offspring(serve.pid)
        findings = check(load.ledgers, database.stored())
        code = serve.stop()
    print(f"{findings}; {kills} kills, {load.unanswered} unanswered, {load.answers}")

    assert findings.is_clean, findings
    assert set(load.answers) <= {202, 503}
    assert code == 0


def _wait_for_two(serve: Serve) -> list[int]:
    wait_for(lambda: len(offspring(serve.pid)) == 2, "two processes serve")
    return list(offspring(serve.pid))


@pytest.mark.long
def test_a_machine_without_a_free_processor_keeps_every_promise(
    collector: Collector, victims: OwnServers, tmp_path: Path, chaos_s: float, seed: int
) -> None:
    """Nothing is lost in the kills, and `track()` still takes less than 5 ms of its program."""
    database = collector.database
    key = database.new_key()
    with collector.serve(commit_timeout_s=2) as serve, _busy_processes(2):
        with (
            Load(serve.url, key, clients=2, seed=seed) as load,
            sdk_program(TRACK, serve.url, key, tmp_path) as program,
        ):
            _kill_and_crash(serve, victims, chaos_s / 16, random.Random(seed))
            code = program.wait(90)
        stored = database.stored()
        findings = check(load.ledgers, [row for row in stored if row[1] != "sdk"])
    best_s = float(program.out)
    print(f"{findings}; p99 of track() {best_s * 1000:.2f} ms")

    assert findings.is_clean, findings
    assert code == 0, program.log
    assert best_s < 0.005
    assert len(stored) - findings.stored == 600


@contextmanager
def _busy_processes(count: int) -> Iterator[None]:
    """Let so many processes want a processor all the time."""
    processes = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()
