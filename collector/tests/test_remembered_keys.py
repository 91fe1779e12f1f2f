"""Keys while the store that knows them is away: for a while, and never one known to be revoked."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from analytics_collector.adapters.spool.sqlite import SqliteSpool
from analytics_collector.errors import StoreUnavailable
from analytics_collector.interfaces import KeyMemory
from analytics_collector.model import ApiKey
from analytics_collector.project_settings import Privacy, ProjectSettings
from analytics_collector.remembered_keys import RememberedKeys

GRACE_S = 900.0
KEY = ApiKey(
    7,
    3,
    frozenset({"ingest", "read"}),
    datetime(2030, 1, 1, tzinfo=UTC),
    ("https://a.example",),
    ProjectSettings(privacy=Privacy(ip="drop", deny_properties=("a", "b"))),
)
ONE, OTHER = [b"1" * 32], [b"2" * 32]


class Store:
    """Knows the keys by their digest; can be away, or hang."""

    def __init__(self) -> None:
        self.keys = {ONE[0]: KEY, OTHER[0]: KEY}
        self.is_away = False
        self.hangs = False
        self.asked = 0

    async def find_key(self, digests: Sequence[bytes]) -> ApiKey | None:
        self.asked += 1
        if self.hangs:
            await asyncio.Event().wait()
        if self.is_away:
            raise StoreUnavailable("away")
        return self.keys.get(digests[0])

    async def keep_digest(self, key_id: int, digest: bytes, pepper: str) -> None:
        """Do nothing: no key is moved here."""


class Scene:
    """A store, the time, and what is remembered."""

    def __init__(self, memory: KeyMemory | None = None) -> None:
        self.now = 1_000_000.0
        self.store = Store()
        self.keys = RememberedKeys(self.store, GRACE_S, memory, lambda: self.now)

    async def finds(self, digests: list[bytes] = ONE) -> bool | str:
        try:
            return await self.keys.find_key(digests) == KEY
        except StoreUnavailable:
            return "503"


def test_a_key_that_was_valid_stays_valid_for_the_grace_and_no_longer(run):
    """Fifteen minutes without Postgres let those in who were in, and nobody afterwards."""

    async def scenario() -> None:
        s = Scene()
        assert await s.finds() is True
        s.store.is_away = True
        answers = []
        for _ in range(4):
            s.now += GRACE_S / 3 - 0.01
            answers.append(await s.finds())
        await s.keys.stop()

        assert answers == [True, True, True, "503"]

    run(scenario())


def test_a_key_that_was_never_seen_is_told_to_come_again(run):
    """It may be valid or not: 503, neither 202 nor 401."""

    async def scenario() -> None:
        s = Scene()
        s.store.is_away = True

        assert await s.finds() == "503"

    run(scenario())


def test_a_key_known_to_be_revoked_is_never_let_in(run):
    """Once the store has said no, an outage does not bring the key back."""

    async def scenario() -> None:
        s = Scene()
        await s.finds()
        del s.store.keys[ONE[0]]
        assert await s.keys.find_key(ONE) is None
        s.store.is_away = True

        assert await s.finds() == "503"

    run(scenario())


def test_the_store_counts_again_as_soon_as_it_is_back(run):
    """What was revoked meanwhile is refused within seconds, whoever asks and how often."""

    async def scenario() -> None:
        s = Scene()
        await s.finds()
        s.store.is_away = True
        assert await s.finds() is True
        s.store.is_away = False
        del s.store.keys[ONE[0]]
        async with asyncio.timeout(5):
            while await s.keys.find_key(ONE) is not None:
                await asyncio.sleep(0.02)
        await s.keys.stop()

    run(scenario())


def test_a_store_that_hangs_costs_one_wait_and_not_one_each(run):
    """While Postgres hangs a request is let in at once, not after a timeout of its own."""

    async def scenario() -> None:
        s = Scene()
        await s.finds()
        await s.finds(OTHER)
        s.store.hangs = True
        assert await s.finds() is True  # this one waits
        asked = s.store.asked
        async with asyncio.timeout(0.5):
            assert [await s.finds(), await s.finds(OTHER), await s.finds()] == [True] * 3
        await s.keys.stop()

        assert s.store.asked <= asked + 1

    run(scenario())


def test_a_store_that_comes_and_goes_is_watched_once(run):
    """However often it is back for a moment, one task asks whether it is back."""

    async def scenario() -> None:
        s = Scene()
        await s.finds()
        before = asyncio.all_tasks()
        for number in range(5):
            s.store.is_away = True
            assert await s.finds() is True
            s.store.is_away = False
            # One that is not known yet is asked for, and shows that the store is back.
            await s.finds([b"%d" % number])
        s.store.is_away = True
        assert await s.finds() is True

        assert len(asyncio.all_tasks() - before) == 1
        await s.keys.stop()

    run(scenario())


def test_a_clock_that_was_set_back_makes_no_key_valid_for_longer(run):
    """From the future nothing is known."""

    async def scenario() -> None:
        s = Scene()
        await s.finds()
        s.store.is_away = True
        s.now -= 3600

        assert await s.finds() == "503"

    run(scenario())


def test_after_a_restart_the_same_keys_are_valid(tmp_path, run):
    """All of a key comes back: its project, scopes, origins and what its project has set."""

    async def scenario() -> None:
        spool = SqliteSpool(tmp_path, "events-test", 1_000_000)
        await spool.open()
        before = Scene(spool)
        await before.finds()
        async with asyncio.timeout(5):
            while not await spool.kept_keys():
                await asyncio.sleep(0.005)
        await before.keys.stop()
        after = Scene(spool)
        after.store.is_away = True
        await after.keys.recall()
        found = await after.keys.find_key(ONE)
        after.now += GRACE_S + 1
        late = await after.finds()
        await after.keys.stop()
        await spool.close()

        assert found == KEY
        assert late == "503"

    run(scenario())


def test_a_key_known_to_be_revoked_is_forgotten_on_disk_too(tmp_path, run):
    """Neither does a restart bring it back."""

    async def scenario() -> None:
        spool = SqliteSpool(tmp_path, "events-test", 1_000_000)
        await spool.open()
        s = Scene(spool)
        await s.finds()
        async with asyncio.timeout(5):
            while not await spool.kept_keys():
                await asyncio.sleep(0.005)
        del s.store.keys[ONE[0]]
        await s.keys.find_key(ONE)

        assert await spool.kept_keys() == []
        await spool.close()

    run(scenario())


@pytest.mark.parametrize("document", [b"", b"{}", b"[]", b'{"key_id": 1, "other": 2}', b"\xff"])
def test_what_another_version_has_kept_is_left_out(tmp_path, run, document):
    """An upgrade, or a downgrade, in the middle of an outage lets nobody in by mistake."""

    async def scenario() -> None:
        spool = SqliteSpool(tmp_path, "events-test", 1_000_000)
        await spool.open()
        await spool.keep_keys([(ONE[0], document, 1_000_000.0)], 0)
        s = Scene(spool)
        s.store.is_away = True
        await s.keys.recall()

        assert await s.finds() == "503"
        await spool.close()

    run(scenario())
