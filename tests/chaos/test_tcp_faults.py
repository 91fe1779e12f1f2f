"""A network that cuts requests and swallows answers, between a client and the collector."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from harness.checker import check
from harness.client import NO_ANSWER, Load, Mint, Sender
from harness.collector import Collector, Serve
from harness.proxy import ACK_LOST, PASS, Fault, FaultProxy
from harness.waiting import pause, wait_for


@pytest.fixture
def serve(collector: Collector) -> Iterator[Serve]:
    """A running collector."""
    with collector.serve() as serve:
        yield serve


@pytest.fixture
def proxy(serve: Serve) -> Iterator[FaultProxy]:
    """The network in front of it."""
    with FaultProxy(serve.url) as proxy:
        yield proxy


def test_a_batch_whose_answer_was_lost_is_a_duplicate_when_it_comes_again(
    collector: Collector, proxy: FaultProxy
) -> None:
    """It was committed before the answer; the retry is told so, and stores nothing."""
    events = Mint(1).events(7)
    with Sender(proxy.url, collector.database.new_key("ingest")) as sender:
        proxy.fault = ACK_LOST
        with pytest.raises(NO_ANSWER):
            sender.send(events)
        assert collector.database.event_count() == 7
        proxy.fault = PASS
        answer = sender.send(events)

    assert (answer.status, answer.json["eventCount"], answer.json["duplicates"]) == (202, 7, 7)
    assert collector.database.event_count() == 7


def test_a_request_that_breaks_off_stores_nothing(
    collector: Collector, serve: Serve, proxy: FaultProxy
) -> None:
    """Wherever it breaks: half a batch is none, and the whole one is stored once when it comes."""
    mint = Mint(2)
    with Sender(proxy.url, collector.database.new_key("ingest")) as sender:
        for number, after_bytes in enumerate((0, 10, 150, 400, 900), start=1):
            events = mint.events(10)
            proxy.fault = Fault("request_cut", after_bytes)
            with pytest.raises(NO_ANSWER):
                sender.send(events)
            assert collector.database.event_count() == 10 * (number - 1)
            sender.close()
            proxy.fault = PASS
            answer = sender.send(events)
            assert (answer.status, answer.json["duplicates"]) == (202, 0)
            assert collector.database.event_count() == 10 * number
            sender.close()  # the next fault is for a new connection

    assert proxy.faults_done == 5
    assert serve.faults == []


def test_over_a_bad_network_everything_arrives_once_and_in_order(
    collector: Collector, serve: Serve, proxy: FaultProxy, chaos_s: float, seed: int
) -> None:
    """Each connection has a fault at random, also in the middle of an answer."""
    proxy.dice = random.Random(seed)
    with Load(proxy.url, collector.database.new_key("ingest"), seed=seed) as load:
        pause(chaos_s / 4)
        wait_for(lambda: proxy.faults_done > 30, "there were faults")
    findings = check(load.ledgers, collector.database.stored())
    print(f"{findings}; {proxy.faults_done} faults, {load.unanswered} unanswered")

    assert findings.is_clean, findings
    assert findings.acknowledged == findings.stored > 0
    assert serve.faults == []
