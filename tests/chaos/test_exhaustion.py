"""Bombs, floods and want of memory, processor or descriptors: 503 at worst, and over when it is."""

from __future__ import annotations

import gzip
import json
import resource
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from statistics import median

import pytest

from harness.client import INGEST_PATH, NO_ANSWER, Mint, Sender
from harness.collector import Collector, Serve
from harness.corpus import gzip_bomb
from harness.limits import control_group
from harness.processes import peak_rss_bytes
from harness.raw_http import connect
from harness.waiting import pause, wait_for

MIB = 1024 * 1024
SAMPLES = 30
# Beside the same requests without bombs, whose senders take some of two processors (seen: 3 to 20
# times); without the caps it is hundreds of times. The least of a few stretches counts.
MAX_MEDIAN_RATIO = 12.0
MAX_ALWAYS_S = 0.06
PIECES = 2
MAX_GROWTH_BYTES = 10 * MIB
HEADERS = {"Content-Type": "application/json", "Content-Encoding": "gzip"}

BOMBS = {
    "one-of-256-MB": lambda: gzip_bomb(256),
    "40000-members": lambda: gzip.compress(b"") * 40_000,
}


@contextmanager
def _repeating(times: int, action: Callable[[], object]) -> Iterator[Counter[object]]:
    """Do *action* again and again, *times* at once, and count what it returns."""
    outcomes: Counter[object] = Counter()
    done = threading.Event()

    def run() -> None:
        while not done.is_set():
            outcomes[action()] += 1

    with ThreadPoolExecutor(times) as threads:
        futures = [threads.submit(run) for _ in range(times)]
        try:
            yield outcomes
        finally:
            done.set()
    for future in futures:
        future.result()


def _median_s(sender: Sender, mint: Mint) -> float:
    times = []
    for _ in range(SAMPLES):
        started = time.monotonic()
        assert sender.send(mint.events(2)).status == 202
        times.append(time.monotonic() - started)
    return median(times)


@pytest.mark.long
@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_a_bomb_on_four_connections_holds_up_no_other_project(
    collector: Collector, bomb: Callable[[], bytes]
) -> None:
    """It is refused where it stops making sense; time and memory of the others stay theirs."""
    body = bomb()[: MIB - 1]
    key, other = (collector.database.new_key("ingest") for _ in range(2))
    mint = Mint(1)
    with collector.serve() as serve, Sender(serve.url, other) as sender:
        _warm_up(serve, key)

        def explode() -> int:
            with Sender(serve.url, key) as attacker:
                return attacker.request("POST", INGEST_PATH, body, HEADERS).status

        _median_s(sender, mint)
        before_bytes = peak_rss_bytes(serve.pid)
        idle_s = []
        beside_s = []
        outcomes: Counter[object] = Counter()
        for _ in range(PIECES):
            idle_s.append(_median_s(sender, mint))
            with _repeating(4, explode) as answers:
                beside_s.append(_median_s(sender, mint))
            outcomes += answers
        grown_bytes = peak_rss_bytes(serve.pid) - before_bytes
        faults = serve.faults
    ratio = min(beside / idle for beside, idle in zip(beside_s, idle_s, strict=True))
    print(f"{idle_s=}, {beside_s=}, {ratio:.1f} times, +{grown_bytes / MIB:.1f} MiB, {outcomes}")

    assert set(outcomes) <= {400, 413}
    assert ratio < MAX_MEDIAN_RATIO or min(beside_s) < MAX_ALWAYS_S
    assert grown_bytes < MAX_GROWTH_BYTES
    assert faults == []


def _warm_up(serve: Serve, key: str) -> None:
    """Let it have had several at once of the largest good bodies, packed as bombs are."""
    bodies = [gzip.compress(_full_batch(Mint(number)), 1) for number in range(12)]

    def send(body: bytes) -> int:
        with Sender(serve.url, key) as sender:
            return sender.request("POST", INGEST_PATH, body, HEADERS).status

    with ThreadPoolExecutor(6) as threads:
        assert set(threads.map(send, bodies)) == {202}


def test_more_connections_than_descriptors_are_survived(collector: Collector) -> None:
    """A thousand clients of a process that may have 256 files: refused, and fine when they left."""
    mint = Mint(2)
    with (
        collector.serve() as serve,
        Sender(serve.url, collector.database.new_key("ingest")) as sender,
    ):
        assert sender.send(mint.events(1)).status == 202
        resource.prlimit(serve.pid, resource.RLIMIT_NOFILE, (256, 256))
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard < 1_200:
            pytest.skip("needs root to open a thousand files")
        with _many_files(hard), ExitStack() as idle:
            for _ in range(1_000):
                idle.enter_context(connect(serve.url))
            during = sender.send(mint.events(1)).status
            pause(0.3)
        is_alive = serve.is_running
        wait_for(lambda: _status(serve, sender, mint) == 202, "it takes events again")

    assert is_alive
    assert during == 202  # who is connected is served


@contextmanager
def _many_files(hard: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], 1_200), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def _status(serve: Serve, sender: Sender, mint: Mint) -> int:
    assert serve.is_running, serve.log
    sender.close()  # a new connection has to be possible
    try:
        return sender.send(mint.events(1)).status
    except NO_ANSWER:
        return 0


def _full_batch(mint: Mint) -> bytes:
    events = [{**event, "properties": {"text": "x" * 1_700}} for event in mint.events(500)]
    body = json.dumps({"batch": events}).encode()
    assert 0.8 * MIB < len(body) < MIB
    return body


def test_with_little_memory_large_batches_are_refused_and_not_the_end(
    collector: Collector,
) -> None:
    """64 batches of a megabyte at once in 256 MB: 202 or 503, and the kernel ends nobody."""
    with collector.serve() as serve, control_group(serve.pid, "memory", limit_in_bytes=256 * MIB):
        key = collector.database.new_key("ingest")
        bodies = [_full_batch(Mint(number)) for number in range(64)]
        gate = threading.Barrier(64)

        def send(body: bytes) -> int:
            gate.wait()
            with Sender(serve.url, key, 60) as sender:
                return sender.request(
                    "POST", INGEST_PATH, body, {"Content-Type": HEADERS["Content-Type"]}
                ).status

        with ThreadPoolExecutor(64) as threads:
            statuses = Counter(threads.map(send, bodies))
        is_alive = serve.is_running
        with Sender(serve.url, key) as sender:
            after = sender.send(Mint(99).events(1)).status
        faults = serve.faults
    print(statuses)

    assert is_alive
    assert set(statuses) <= {202, 503}
    assert after == 202
    assert collector.database.event_count() == 500 * statuses[202] + 1
    assert faults == []


def test_with_little_processor_everybody_is_answered(collector: Collector) -> None:
    """A fifth of one processor and more than it can do: slower or refused, never left waiting."""
    with (
        collector.serve() as serve,
        control_group(serve.pid, "cpu", cfs_quota_us=20_000, cfs_period_us=100_000),
    ):
        key = collector.database.new_key("ingest")
        slowest = [0.0]
        numbers = iter(range(10**6))

        def send() -> int:
            events = Mint(next(numbers)).events(100)
            started = time.monotonic()
            with Sender(serve.url, key, 15) as sender:
                status = sender.send(events).status
            slowest[0] = max(slowest[0], time.monotonic() - started)
            return status

        with _repeating(16, send) as outcomes:
            pause(2.5)
        faults = serve.faults
    print(f"{outcomes}, slowest {slowest[0]:.2f} s")

    assert set(outcomes) <= {202, 429, 503}
    assert outcomes[202] > 0
    assert slowest[0] < 10
    assert collector.database.event_count() == 100 * outcomes[202]
    assert faults == []
