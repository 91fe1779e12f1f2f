"""The SDK and the collector with a bad line between them: everything is stored, once, in order."""

from __future__ import annotations

import contextlib
import random
import select
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import pytest

from analytics_sdk import Client
from harness.collector import Collector, Serve
from harness.proxy import ACK_LOST, PASS, Fault, FaultProxy
from harness.sdk import sdk_program
from harness.waiting import pause, wait_for

_POLL_S = 0.05
EVENTS = 20

# Every event that was taken is in the output, and at every instant the account adds up.
ACCOUNT = """
import os, sys, threading
from analytics_sdk import Client

who, stop, spool_dir = sys.argv[1:]
client = Client(durable=True, spool_dir=spool_dir, flush_interval_s=0.05)

def check():
    stats = client.stats()
    outcomes = stats.delivered + stats.queued + stats.spooled + stats.rejected + stats.expired
    assert stats.taken == outcomes + sum(stats.dropped.values()), stats
    return stats

number = 0
while not os.path.exists(stop):
    number += 1
    name = f"{who}-{number}"
    if client.track(name, {"text": "x" * 200}, user_id=who):
        print(name, flush=True)
    check()
    threading.Event().wait(0.002)
while not (client.flush(1) and check().spooled == 0):
    pass
stats = check()
assert stats.delivered == stats.taken, stats
"""


class Link:
    """A line to the collector that a test slows, freezes and breaks while it is in use."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        assert address.hostname is not None
        assert address.port is not None
        self.piece_bytes = 65_536
        self.pause_s = 0.0
        """After each piece."""
        self.is_black_hole = False
        """Whether connections are taken, and nothing is carried."""
        self._server = (address.hostname, address.port)
        self._open: set[socket.socket] = set()
        self._frozen: set[socket.socket] = set()
        self._closing = threading.Event()
        self._refusing = threading.Event()
        self._threads: list[threading.Thread] = []
        self._taker = threading.Thread()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._address: tuple[str, int] = self._listener.getsockname()
        self.url = f"http://127.0.0.1:{self._address[1]}"

    def __enter__(self) -> Self:
        self._take()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self.refuse()
        for thread in self._threads:
            thread.join()

    def refuse(self) -> None:
        """Take no more connections: whoever comes is told so at once."""
        self._refusing.set()
        self._taker.join()
        self._listener.close()

    def take_again(self) -> None:
        """Take connections after they were refused."""
        self._refusing.clear()
        self._listener = socket.create_server(self._address)
        self._take()

    def freeze(self) -> None:
        """Carry nothing any more on the connections of now; none of their ends hears of it."""
        self._frozen |= self._open

    def _take(self) -> None:
        self._listener.settimeout(_POLL_S)
        self._taker = threading.Thread(target=self._take_all)
        self._taker.start()

    def _take_all(self) -> None:
        while not self._refusing.is_set():
            with contextlib.suppress(TimeoutError):
                client, _ = self._listener.accept()
                thread = threading.Thread(target=self._carry, args=(client,))
                self._threads.append(thread)
                thread.start()

    def _carry(self, client: socket.socket) -> None:
        self._open.add(client)
        with client, contextlib.suppress(OSError), socket.create_connection(self._server) as server:
            while not self._closing.is_set():
                for source in select.select([client, server], [], [], _POLL_S)[0]:
                    data = source.recv(self.piece_bytes)
                    if self.is_black_hole or client in self._frozen:
                        self._closing.wait()
                        return
                    if not data:
                        return
                    (server if source is client else client).sendall(data)
                    self._closing.wait(self.pause_s)


@pytest.fixture
def serve(collector: Collector) -> Iterator[Serve]:
    """A running collector."""
    with collector.serve() as serve:
        yield serve


@pytest.fixture
def key(collector: Collector) -> str:
    """A key that may send."""
    return collector.database.new_key("ingest")


@pytest.fixture
def link(serve: Serve) -> Iterator[Link]:
    """A line to it."""
    with Link(serve.url) as link:
        yield link


@contextlib.contextmanager
def _client(key: str, url: str, folder: Path, timeout_s: float = 0.8) -> Iterator[Client]:
    client = Client(key, url, flush_interval_s=0.05, timeout_s=timeout_s, spool_dir=folder)
    try:
        yield client
    finally:
        client.shutdown(0.5)


def _track(client: Client, who: str) -> list[str]:
    names = [f"{who} {number:03}" for number in range(EVENTS)]
    assert all(client.track(name, {"text": "x" * 100}, user_id=who) for name in names)
    return names


def _stored(collector: Collector, user_id: str) -> list[str]:
    """Return the names of a user's events, in stored order."""
    rows = collector.database.fetch(
        "select name from events where user_id = $1 order by seq", user_id
    )
    return [row[0] for row in rows]


def test_a_lost_answer_is_asked_for_again(
    collector: Collector, serve: Serve, key: str, tmp_path: Path
) -> None:
    """The events were committed; the retry is told so, and counts them as duplicates."""
    with FaultProxy(serve.url) as proxy, _client(key, proxy.url, tmp_path) as client:
        proxy.fault = ACK_LOST
        names = _track(client, "u-1")
        wait_for(lambda: collector.database.event_count() == EVENTS, "the events are committed")
        assert client.stats().delivered == 0
        proxy.fault = PASS
        assert client.flush(30)
        stats = client.stats()

    assert (stats.delivered, stats.duplicates) == (EVENTS, EVENTS)
    assert _stored(collector, "u-1") == names


def test_whatever_a_line_does_to_a_request_it_arrives_once(
    collector: Collector, serve: Serve, key: str, tmp_path: Path
) -> None:
    """Reset at once or in the middle, cut answers, thin and slow lines."""
    faults = {
        "reset at once": Fault("request_cut", 0),
        "reset after 150 bytes": Fault("request_cut", 150),
        "reset in the body": Fault("request_cut", 400),
        "cut answer": Fault("answer_cut", 40),
        "pieces": Fault(piece_bytes=64),
    }
    tracked = {}
    with FaultProxy(serve.url) as proxy:
        for who, fault in faults.items():
            with _client(key, proxy.url, tmp_path / who) as client:
                proxy.fault = fault
                tracked[who] = _track(client, who)
                wait_for(lambda client=client: client.stats().requests, "a request is on its way")
                client.flush(0.3)
                proxy.fault = PASS
                assert client.flush(30), client.stats()
        assert proxy.faults_done >= 4
    slow = {"400 bytes a second": (40, 0.1), "300 ms": (65_536, 0.3)}
    with Link(serve.url) as link:
        for who, (link.piece_bytes, link.pause_s) in slow.items():
            # Slow is no fault as long as the request is over in its time.
            with _client(key, link.url, tmp_path / who, timeout_s=30) as client:
                assert client.track("small", user_id=who)
                assert client.flush(60), client.stats()
                assert client.stats().requests == 1
                tracked[who] = ["small"]

    for who, names in tracked.items():
        assert _stored(collector, who) == names, who
    assert serve.faults == []


def test_a_connection_that_is_dead_and_does_not_say_so_is_given_up(
    collector: Collector, link: Link, key: str, tmp_path: Path
) -> None:
    """After the time limit of a request comes a new connection."""
    with _client(key, link.url, tmp_path) as client:
        names = _track(client, "u-1")
        assert client.flush(30)
        link.freeze()
        more = [f"later {number}" for number in range(5)]
        assert all(client.track(name, user_id="u-1") for name in more)
        began = time.monotonic()
        wait_for(lambda: client.flush(1), "a new connection")

    assert time.monotonic() - began > 0.7, "the connection was not frozen"
    assert _stored(collector, "u-1") == names + more


@pytest.mark.parametrize("outage", ["black hole", "refused"])
def test_after_an_outage_events_arrive_in_order(
    collector: Collector, link: Link, key: str, tmp_path: Path, outage: str
) -> None:
    """What waited, in memory or on disk, goes first."""
    with _client(key, link.url, tmp_path) as client:
        assert client.track("before", user_id="u-1")
        assert client.flush(30)
        if outage == "refused":
            link.refuse()
        link.is_black_hole = outage == "black hole"
        link.freeze()
        names = _track(client, "u-1")
        wait_for(lambda: client.stats().retries > 1, "the client tries again and again")
        more = [f"later {number}" for number in range(5)]
        assert all(client.track(name, user_id="u-1") for name in more)
        assert _stored(collector, "u-1") == ["before"]
        link.is_black_hole = False
        if outage == "refused":
            link.take_again()
        wait_for(lambda: client.flush(1), "the outage is over")
        stats = client.stats()

    assert _stored(collector, "u-1") == ["before", *names, *more]
    assert (stats.delivered, stats.queued, stats.spooled) == (EVENTS + 6, 0, 0)


@pytest.mark.long
def test_the_account_is_exact_through_faults_and_a_kill(
    collector: Collector, serve: Serve, key: str, tmp_path: Path, chaos_s: float, seed: int
) -> None:
    """Each event that track() took is stored once, also those of a process that was killed."""
    stop = tmp_path / "stop"
    with FaultProxy(serve.url) as proxy:
        proxy.dice = random.Random(seed)
        spool = str(tmp_path / "spool")
        first = sdk_program(ACCOUNT, proxy.url, key, tmp_path / "1", "first", str(stop), spool)
        second = sdk_program(ACCOUNT, proxy.url, key, tmp_path / "2", "second", str(stop), spool)
        with first:
            wait_for(lambda: proxy.faults_done > 5, "there were faults")
            first.kill()
        with second:
            pause(chaos_s / 8)
            wait_for(lambda: proxy.faults_done > 10, "there were more")
            stop.touch()
            # Faults go on; only the last word is said in peace.
            pause(1)
            proxy.dice = None
            assert second.wait(90) == 0, second.log

    for program, who in ((first, "first"), (second, "second")):
        # A killed process may have handed its last event over without having told of it.
        told = program.out.split()
        assert _stored(collector, who)[: len(told)] == told
        assert len(_stored(collector, who)) <= len(told) + 1
