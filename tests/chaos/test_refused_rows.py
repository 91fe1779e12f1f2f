"""An event that passes every check of ours, and that Postgres will not have."""

from __future__ import annotations

import sys

from harness.client import Mint, Sender
from harness.collector import Collector

# Everything as it is, but NUL stays in the values of events, which Postgres does not store.
CARELESS = """
from analytics_collector.cli import main
from analytics_collector.ingest import validate
validate._UNREADABLE = {}
main()
"""


def test_an_event_that_only_postgres_refuses_costs_no_other(collector: Collector) -> None:
    """It is told by its place, those around it are stored in order, and the next ones as ever."""
    mint = Mint(1)
    database = collector.database
    batch = [mint.event(properties={"text": text}) for text in ("good", "b\0d", "good")]
    server = collector.serve()
    server.command[:3] = [sys.executable, "-c", CARELESS]
    with server as serve, Sender(serve.url, database.new_key()) as sender:
        answer = sender.send(batch)
        again = sender.send(batch)
        after = sender.send(mint.events(2))
        faults = serve.faults

    assert answer.status == 202
    rejected = [(each["index"], each["code"]) for each in answer.json["rejected"]]
    assert rejected == [(1, "INTERNAL_INVALID")]
    assert (again.status, again.json["duplicates"]) == (202, 2)
    assert after.status == 202
    stored = [message_id for message_id, _ in database.stored()]
    assert stored[:2] == [batch[0]["messageId"], batch[2]["messageId"]]
    assert len(stored) == 4
    # Told once for each time that it was sent: nothing tries it again and again.
    assert len(faults) == 2
    assert all("Row refused by the store" in fault for fault in faults)
