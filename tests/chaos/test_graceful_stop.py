"""SIGTERM under load: what was taken is answered, what is not taken is refused, then the end."""

from __future__ import annotations

import threading
import time
from signal import SIGTERM

from harness.client import NO_ANSWER, Event, Mint, Sender
from harness.collector import Collector
from harness.waiting import wait_for

CLIENTS = 100
SHUTDOWN_TIMEOUT_S = 5.0
EXIT_WITHIN_S = 10.0


def test_a_stop_under_load_loses_nothing_and_ends_in_time(collector: Collector, seed: int) -> None:
    """A hundred requests in flight: each 202, refused or cut; what was answered 202 is stored."""
    database = collector.database
    key = database.new_key("ingest")
    outcomes: list[tuple[int, list[Event]]] = []
    stopped = threading.Event()

    def send_until_the_end(url: str, number: int) -> None:
        mint = Mint(seed * 1000 + number)
        with Sender(url, key) as sender:
            while not stopped.is_set():
                events = mint.events(20, f"user-{number}")
                try:
                    status = sender.send(events).status
                except NO_ANSWER:
                    outcomes.append((0, events))
                    return
                outcomes.append((status, events))

    with collector.serve(shutdown_timeout_s=SHUTDOWN_TIMEOUT_S) as serve:
        threads = [
            threading.Thread(target=send_until_the_end, args=(serve.url, number))
            for number in range(CLIENTS)
        ]
        try:
            for thread in threads:
                thread.start()
            wait_for(lambda: len(outcomes) > 2 * CLIENTS, "all of them send")
            asked_at = time.monotonic()
            code = serve.stop(SIGTERM)
            took_s = time.monotonic() - asked_at
        finally:
            stopped.set()
            for thread in threads:
                thread.join()
        faults = serve.faults
    stored = {message_id for message_id, _ in database.stored()}
    acknowledged = {e["messageId"] for status, events in outcomes if status == 202 for e in events}
    print(f"{len(acknowledged)} acknowledged, {len(stored)} stored, stopped in {took_s:.2f} s")

    assert code == 0, faults
    assert took_s < EXIT_WITHIN_S
    assert {status for status, _ in outcomes} <= {0, 202, 503}
    assert acknowledged - stored == set(), "what was acknowledged is lost"
    assert stored - acknowledged == set(), "what was stored got no answer"
    assert faults == []
