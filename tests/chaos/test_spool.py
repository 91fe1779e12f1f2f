"""Postgres is away, the collector acknowledges from its spool: all comes home, once, in order."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGQUIT, SIGSTOP

import pytest

from harness.checker import check
from harness.client import Ledger, Load, Mint, Sender
from harness.collector import Collector, Serve, run_command
from harness.servers import OwnServers, valkey_command
from harness.waiting import pause, wait_for


@pytest.fixture(params=["disk", "redis"])
def spool(request: pytest.FixtureRequest, tmp_path: Path, victims: OwnServers) -> Iterator[str]:
    """The setting of each kind of spool; in Redis it is synced at once."""
    if request.param == "disk":
        yield str(tmp_path / "spool")
        return
    valkey_command(victims.valkey.url, "CONFIG", "SET", "appendfsync", "always")
    yield "redis"
    victims.valkey.start()
    valkey_command(victims.valkey.url, "CONFIG", "SET", "appendfsync", "everysec")


def _serve(collector: Collector, spool: str, **settings: object) -> Serve:
    defaults = {"ack": "spool", "spool": spool, "commit_timeout_s": 1}
    return collector.serve(**(defaults | settings))


def _comes_home(serve: Serve) -> None:
    """Wait until nothing is left in the spool."""

    def is_whole() -> bool:
        with Sender(serve.url, "") as sender:
            return bool(sender.get("/health").json["status"] == "ok")

    wait_for(is_whole, "all came home")


def test_without_postgres_events_are_acknowledged_and_come_home_in_order(
    collector: Collector, victims: OwnServers, spool: str
) -> None:
    """202 that says `spooled`, ready all the time, and `committed` again when all is home."""
    database = collector.database
    mint = Mint(1)
    sent = []
    with (
        _serve(collector, spool) as serve,
        Sender(serve.url, database.new_key()) as sender,
    ):
        first = sender.send(mint.events(2))
        victims.postgres.crash(SIGKILL)
        answers = []
        for _ in range(5):
            sent += (events := mint.events(3))
            answers.append(sender.send(events))
        health, ready = sender.get("/health"), sender.get("/readyz").status
        metrics = sender.get("/metrics").body.decode()
        victims.postgres.start()
        _comes_home(serve)
        last = sender.send(mint.events(1))
        faults = serve.faults
    stored = [message_id for message_id, _ in database.stored()]

    assert first.json["durability"] == last.json["durability"] == "committed"
    assert {answer.status for answer in answers} == {202}
    assert {answer.json["durability"] for answer in answers} == {"spooled"}
    assert (health.status, health.json["status"], ready) == (200, "degraded", 200)
    assert health.json["spool"]["events"] == 15
    assert "analytics_spooled_events_total 15.0" in metrics
    assert stored[2:-1] == [event["messageId"] for event in sent]
    assert faults == []


@pytest.mark.long
def test_nothing_acknowledged_is_lost_when_everything_is_killed_again_and_again(
    collector: Collector, victims: OwnServers, tmp_path: Path, chaos_s: float, seed: int
) -> None:
    """Two collectors on one spool: SIGKILL, SIGSTOP, and a Postgres that comes and goes."""
    dice = random.Random(seed)
    database = collector.database
    spool = str(tmp_path / "spool")
    harm = []
    with ExitStack() as stack:
        serves = [stack.enter_context(_serve(collector, spool, key_grace_s=60)) for _ in range(2)]
        keys = [database.new_key() for _ in serves]
        loads = [
            stack.enter_context(
                Load(serve.url, key, clients=2, seed=seed + number, users=f"user-{number}")
            )
            for number, (serve, key) in enumerate(zip(serves, keys, strict=True))
        ]
        wait_for(lambda: all(load.acknowledged for load in loads), "all send")
        ends_at = time.monotonic() + chaos_s / 2
        is_up = True
        acts = ["postgres", "kill", "stop", "kill"]
        while time.monotonic() < ends_at:
            pause(dice.uniform(0.1, 0.5))
            act = acts[len(harm) % len(acts)]
            harm.append(act)
            serve = dice.choice(serves)
            if act == "postgres":
                if is_up:
                    victims.postgres.crash(dice.choice((SIGQUIT, SIGKILL)))
                else:
                    victims.postgres.start()
                is_up = not is_up
            elif act == "stop":
                serve.send_signal(SIGSTOP)
                pause(dice.uniform(0.1, 0.6))
                serve.send_signal(SIGCONT)
            else:
                serve.kill()
                serve.start()
                serve.wait_ready()
        victims.postgres.start()
        for load in loads:
            load.stop()
        for serve in serves:
            _comes_home(serve)
    findings = check([ledger for load in loads for ledger in load.ledgers], database.stored())
    answers = [dict(load.answers) for load in loads]
    print(f"{findings}; {harm}, {answers}")

    assert findings.is_clean, f"{findings}; {harm}"
    assert findings.acknowledged > 100
    assert {status for answer in answers for status in answer} <= {202, 503}


def test_events_of_a_user_keep_their_order_from_one_process_to_another(
    collector: Collector, victims: OwnServers, tmp_path: Path
) -> None:
    """A client whose connection went from a dead process to a living one is not overtaken."""
    database = collector.database
    mint = Mint(3)
    spool = str(tmp_path / "spool")
    ledger = Ledger("u-1")
    durabilities = set()
    with ExitStack() as stack:
        serves = [stack.enter_context(_serve(collector, spool)) for _ in range(2)]
        key = database.new_key()
        senders = [stack.enter_context(Sender(serve.url, key)) for serve in serves]
        for number in range(40):
            if number == 10:
                victims.postgres.crash(SIGKILL)
            if number == 20:
                serves[0].kill()  # with what it has acknowledged in the spool
                victims.postgres.start()
            events = mint.events(2)
            answer = senders[number % 2 if number < 20 else 1].send(events)
            assert answer.status == 202, answer
            durabilities.add(answer.json["durability"])
            ledger.sent += [event["messageId"] for event in events]
        ledger.acknowledged = list(ledger.sent)
        _comes_home(serves[1])
    findings = check([ledger], database.stored())

    assert findings.is_clean, findings
    assert durabilities == {"committed", "spooled"}


def test_it_starts_without_postgres_and_knows_the_keys_of_before(
    collector: Collector, victims: OwnServers, tmp_path: Path
) -> None:
    """After a restart in an outage who was let in before is let in; a stranger is told 503."""
    database = collector.database
    key, unseen, revoked = (database.new_key() for _ in range(3))
    mint = Mint(4)
    with _serve(collector, str(tmp_path / "spool")) as serve:
        with Sender(serve.url, key) as sender, Sender(serve.url, revoked) as other:
            assert sender.send(mint.events(1)).status == 202
            assert other.send(mint.events(1)).status == 202
            database.execute("update api_keys set revoked_at = now() where key_id = 3")
            wait_for(lambda: other.send(mint.events(1)).status == 401, "it is revoked")
        victims.postgres.crash(SIGKILL)
        serve.kill()
        serve.start()
        serve.wait_ready()
        statuses = {}
        for name, value in (("known", key), ("unseen", unseen), ("revoked", revoked)):
            with Sender(serve.url, value) as sender:
                statuses[name] = sender.send(mint.events(2)).status
        listing = run_command("spool", "status", "--json", environment=serve.environment).stdout
        victims.postgres.start()
        _comes_home(serve)
        faults = serve.faults

    assert statuses == {"known": 202, "unseen": 503, "revoked": 503}
    assert '"events": 2' in listing
    assert database.event_count() >= 4
    assert faults == []


def test_a_full_spool_is_503_with_a_time_and_not_ready(
    collector: Collector, victims: OwnServers, spool: str
) -> None:
    """It is bounded; what was acknowledged before stays, and all of it comes home."""
    database = collector.database
    mint = Mint(5)
    with (
        _serve(collector, spool, spool_max_bytes=20_000) as serve,
        Sender(serve.url, database.new_key()) as sender,
    ):
        assert sender.send(mint.events(1)).status == 202
        victims.postgres.crash(SIGKILL)
        taken = 1
        while (answer := sender.send(mint.events(5))).status == 202:
            taken += 5
        health, ready = sender.get("/health"), sender.get("/readyz").status
        victims.postgres.start()
        _comes_home(serve)
        after = sender.send(mint.events(1)).status
        faults = serve.faults

    assert (answer.status, answer.json["code"]) == (503, "STORE_UNAVAILABLE")
    assert 1 <= int(answer.headers["retry-after"]) <= 300
    assert (ready, health.status) == (503, 503)
    assert health.json["spool"]["status"] == "full"
    assert health.json["spool"]["bytes"] <= 20_000
    assert after == 202
    # The batch that was refused may be in neither place.
    assert database.event_count() == taken + 1
    assert faults == []


@contextmanager
def _stopped(pids: list[int]) -> Iterator[None]:
    for pid in pids:
        os.kill(pid, SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, SIGCONT)


def test_a_postgres_that_hangs_holds_up_one_group_and_not_those_behind_it(
    collector: Collector, victims: OwnServers, tmp_path: Path
) -> None:
    """The first waits as long as a commit may take; the others go to the disk at once."""
    mint = Mint(6)
    with (
        _serve(collector, str(tmp_path / "spool")) as serve,
        Sender(serve.url, collector.database.new_key()) as sender,
    ):
        assert sender.send(mint.events(1)).status == 202
        pids = [
            row[0]
            for row in collector.database.fetch(
                "select pid from pg_stat_activity where application_name = 'analytics-collector'"
                " and datname = current_database()"
            )
        ]
        with _stopped([victims.postgres.pid, *pids]):
            statuses = [sender.send(mint.events(1)).status]
            started = time.monotonic()
            statuses += [sender.send(mint.events(1)).status for _ in range(20)]
            took_s = time.monotonic() - started
        _comes_home(serve)

    assert statuses == [202] * 21
    assert took_s < 5
    assert collector.database.event_count() == 22
