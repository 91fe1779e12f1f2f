"""One limit for several processes: each has its own `Leases`, and a real Valkey is between them."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest

from analytics_collector import metrics
from analytics_collector.adapters.redis.client import connect
from analytics_collector.adapters.redis.tokens import RedisTokenStore
from analytics_collector.ingest.buckets import Bucket
from analytics_collector.ingest.leases import PATIENCE_S, Leases
from analytics_collector.interfaces import Lease, TokensUnavailable
from harness.servers import OwnServers, own_servers


@pytest.fixture(scope="module")
def own() -> Iterator[OwnServers]:
    """Servers that a test may stop."""
    with own_servers() as servers:
        yield servers


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for Redis however busy this machine is: a guess would be right, but not exact."""
    monkeypatch.setattr("analytics_collector.ingest.leases.PATIENCE_S", 30.0)


@asynccontextmanager
async def processes(redis_url: str, count: int):
    """Give the leases of *count* processes on one Redis."""
    redis = [connect(redis_url) for _ in range(count)]
    leases = [Leases(RedisTokenStore(client)) for client in redis]
    for lease in leases:
        lease.start()
    try:
        yield leases
    finally:
        for lease, client in zip(leases, redis, strict=True):
            await lease.stop()
            await client.aclose()


async def spend(leases: Leases, bucket: Bucket, cost: int = 1) -> bool:
    """Take what a request costs, as the limiter does; return whether it may pass."""
    return leases.take_from_slice(bucket, cost) or await leases.take([(bucket, cost)]) is None


async def flood(leases: Leases, bucket: Bucket, requests: int) -> int:
    """Send *requests*, eight at a time; return how many passed."""
    passed = 0

    async def client() -> None:
        nonlocal passed
        for _ in range(requests // 8):
            may_pass = await spend(leases, bucket)
            passed += may_pass
            await asyncio.sleep(0)

    await asyncio.gather(*(client() for _ in range(8)))
    return passed


def buckets(count: int, limit: int) -> list[Bucket]:
    """Return what *count* processes hold of one bucket that no other test uses."""
    name = uuid4().hex
    return [Bucket(name, limit, time.monotonic()) for _ in range(count)]


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("count", [2, 4])
def test_processes_that_flood_together_hold_one_limit(servers, count):
    """Within 5 %, although each decides without asking (SEC-21)."""
    limit = 6_000

    async def run() -> tuple[int, float]:
        async with processes(servers[1], count) as leases:
            began = time.monotonic()
            passed = await asyncio.gather(
                *(
                    flood(lease, bucket, 2 * limit)
                    for lease, bucket in zip(leases, buckets(count, limit), strict=True)
                )
            )
            return sum(passed), time.monotonic() - began

    passed, took_s = asyncio.run(run())
    may_pass = limit + took_s * limit / 60

    assert 0.95 * limit <= passed <= 1.05 * may_pass


@pytest.mark.usefixtures("patient")
def test_a_limit_of_a_few_is_exact_over_processes(servers):
    """Nobody takes ahead what is counted in ones: of five requests at two doors five pass."""

    async def run() -> list[bool]:
        async with processes(servers[1], 2) as leases:
            both = buckets(2, 5)
            return [await spend(leases[n % 2], both[n % 2]) for n in range(8)]

    assert asyncio.run(run()) == [True] * 5 + [False] * 3


def test_the_hot_path_makes_no_round_trip():
    """A thousand requests cost Redis a few calls, none of which anybody waits for."""
    calls = []

    class Counting:
        """A store with plenty."""

        async def lease(self, requests):
            calls.append(requests)
            return [Lease(request.wanted, 1e6) for request in requests]

    async def run() -> list[bool]:
        leases = Leases(Counting())
        leases.start()
        bucket = Bucket("b", 100_000, time.monotonic())
        await spend(leases, bucket)
        return [leases.take_from_slice(bucket, 1) for _ in range(999)]

    assert all(asyncio.run(run()))
    assert len(calls) <= 3


def test_what_lies_unused_goes_back(servers):
    """A process that was busy once does not keep what others could use."""

    async def run() -> tuple[float, float]:
        clock = [100.0]
        redis = connect(servers[1])
        leases = Leases(RedisTokenStore(redis), clock=lambda: clock[0])
        leases.start()
        bucket = Bucket(uuid4().hex, 60_000, clock[0])
        await spend(leases, bucket)
        held = bucket.slice
        clock[0] += 6.0
        async with asyncio.timeout(10):
            while bucket.left < 59_999:
                await asyncio.sleep(0.01)
        kept = bucket.slice
        await leases.stop()
        await redis.aclose()
        return held, kept

    held, kept = asyncio.run(run())

    assert 600 <= held < 700  # Redis has a clock of its own, and fills up meanwhile
    assert kept == 0


def test_what_lies_unused_goes_back_while_others_are_busy():
    """That somebody asks for another bucket again and again keeps nothing here."""
    back = {}

    class Noting:
        """A store with plenty, which notes what it gets back."""

        async def lease(self, requests):
            back.update({request.name: request.back for request in requests if request.back})
            return [Lease(request.wanted, 1e6) for request in requests]

    async def run() -> None:
        clock = [100.0]
        leases = Leases(Noting(), clock=lambda: clock[0])
        leases.start()
        unused, busy = (Bucket(name, 60_000, clock[0]) for name in ("unused", "busy"))
        await spend(leases, unused)
        for _ in range(60):
            clock[0] += 0.1
            await spend(leases, busy, 600)
            await asyncio.sleep(0)
        assert unused.at_most(clock[0]) >= 60_000
        leases._task.cancel()

    asyncio.run(run())

    assert back == {"unused": 600}


@pytest.mark.parametrize(("limit", "there", "may_pass"), [(600, 4, True), (6_000_000, 1, False)])
def test_one_who_needs_more_than_the_slice_asks_once(limit, there, may_pass):
    """Only for the rest; and a no of Redis is a no, however fast the bucket fills up."""
    asked = []

    class Scarce:
        """A store that has so much, and grants it as the real one does."""

        async def lease(self, requests):
            asked.extend(request for request in requests if request.least)
            await asyncio.sleep(0.001)
            return [
                Lease(min(there, request.wanted) if there >= request.least else 0, there)
                for request in requests
            ]

    before = metrics.LOCAL_LIMITS._value.get()

    async def run() -> bool:
        leases = Leases(Scarce())
        leases.start()
        bucket = Bucket("b", limit, time.monotonic())
        bucket.slice = 3.0
        passed = await spend(leases, bucket, 5)
        leases._task.cancel()
        return passed

    assert asyncio.run(run()) is may_pass
    assert [request.least for request in asked] == [2]
    assert metrics.LOCAL_LIMITS._value.get() == before


@pytest.mark.usefixtures("patient")
def test_a_batch_is_granted_as_a_whole_or_not_at_all(servers):
    """Two processes don't sit on halves of what either of them needs."""

    async def run() -> list[bool]:
        async with processes(servers[1], 2) as leases:
            first, second = buckets(2, 60)
            await spend(leases[0], first, 35)
            return [
                await spend(leases[1], second, 30),
                await spend(leases[0], first, 25),
            ]

    assert asyncio.run(run()) == [False, True]


# Redis away


class Faulty:
    """A store that fails or hangs while a test wants it to."""

    def __init__(self) -> None:
        self.behave: Callable[[], Awaitable[None]] = self.well
        self.owed = 0.0

    async def well(self) -> None:
        pass

    async def fail(self) -> None:
        raise TokensUnavailable("ConnectionError")

    async def hang(self) -> None:
        await asyncio.sleep(1.0)
        raise TokensUnavailable("TimeoutError")

    async def lease(self, requests):
        await self.behave()
        self.owed += sum(request.owed for request in requests)
        return [Lease(min(request.wanted, 1000), 1000.0) for request in requests]


@pytest.mark.parametrize("fault", ["fail", "hang"])
def test_while_redis_is_away_a_whole_limit_is_kept_alone(fault):
    """Nobody is refused for it, nobody waits for it long, and the limit still holds (RD-05)."""
    store = Faulty()
    store.behave = getattr(store, fault)
    before = metrics.LOCAL_LIMITS._value.get()

    async def run() -> tuple[list[bool], float]:
        leases = Leases(store)
        leases.start()
        bucket = Bucket("b", 60, time.monotonic())
        began = time.monotonic()
        passed = [await spend(leases, bucket) for _ in range(70)]
        took_s = time.monotonic() - began
        await leases.stop()
        return passed, took_s

    passed, took_s = asyncio.run(run())

    assert passed[:60] == [True] * 60
    assert passed.count(True) <= 60 + took_s
    assert took_s < PATIENCE_S + 0.5  # one wait for all of them, not one each
    assert metrics.LOCAL_LIMITS._value.get() - before >= 60


def test_what_was_spent_alone_is_told_when_redis_is_back():
    """An outage of Redis is not a second limit for who knows of it."""
    store = Faulty()

    async def run() -> None:
        leases = Leases(store)
        leases.start()
        bucket = Bucket("b", 60, time.monotonic())
        await spend(leases, bucket)
        store.behave = store.fail
        bucket.slice = 0.0
        for _ in range(20):
            assert await spend(leases, bucket)
        store.behave = store.well
        async with asyncio.timeout(10):
            while not leases.shared:
                await asyncio.sleep(0.01)
        await spend(leases, bucket)
        await leases.stop()

    asyncio.run(run())

    assert store.owed == pytest.approx(20, abs=1)


def test_a_redis_that_stops_hangs_and_returns_is_followed(own):
    """Local at once, shared again by itself, never a refusal that is wrong (RD-05, RD-06)."""

    async def until(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.01)

    async def run() -> None:
        async with processes(own.valkey.url, 1) as [leases]:
            [bucket] = buckets(1, 600)
            assert await spend(leases, bucket)
            os.kill(own.valkey.pid, signal.SIGSTOP)
            try:
                slowest_s = 0.0
                for _ in range(300):
                    began = time.monotonic()
                    assert await spend(leases, bucket)
                    slowest_s = max(slowest_s, time.monotonic() - began)
                assert slowest_s < 1.0
                assert not leases.shared
            finally:
                os.kill(own.valkey.pid, signal.SIGCONT)
            await until(lambda: leases.shared)
            passed = sum([await spend(leases, bucket) for _ in range(400)])
            assert 250 <= passed <= 350

    asyncio.run(run())
