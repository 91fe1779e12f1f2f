"""Clients send while the collector is killed and Postgres crashes, again and again."""

from __future__ import annotations

import random
import time
from signal import SIGCONT, SIGKILL, SIGQUIT, SIGSTOP

from harness.checker import check
from harness.client import Load
from harness.collector import Collector
from harness.servers import OwnServers
from harness.waiting import pause


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
