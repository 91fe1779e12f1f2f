"""While the store is away events wait in the spool; nothing overtakes them, and all come home."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from analytics_collector import metrics
from analytics_collector.adapters.spool.sqlite import SqliteSpool
from analytics_collector.errors import StoreUnavailable
from analytics_collector.ingest.rejected import RejectedEvents, RejectedWriter
from analytics_collector.ingest.spooling import Spooling
from analytics_collector.ingest.validate import validate
from analytics_collector.ingest.write import GroupWriter
from analytics_collector.interfaces import RowsRefused
from analytics_collector.model import DeadLetter, EventRow, RawBatch

AT = datetime(2026, 1, 2, tzinfo=UTC)


def event(name: str, message_id: str | None = None) -> EventRow:
    raw = {"type": "track", "name": name, "messageId": message_id or str(uuid.uuid4())}
    return validate(RawBatch([raw], None, exact=False), 1, datetime.now(UTC)).rows[0]


class Store:
    """An event store in memory that can be away, answer late, or refuse a row named `poison`."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.known: set[str] = set()
        self.is_away = False
        self.loses_answers = False
        self.groups: list[int] = []
        self.most_rows = 10**9
        self.worked_s = 0.0

    async def append(self, rows: Sequence[EventRow]) -> list[int]:
        await asyncio.sleep(0)
        if self.is_away:
            raise StoreUnavailable("away")
        if len(rows) > self.most_rows:
            self.worked_s += 5
            raise StoreUnavailable("too late")
        if any(row.name == "poison" for row in rows):
            raise RowsRefused("poison")
        duplicates = [n for n, row in enumerate(rows) if row.message_id in self.known]
        self.names += [row.name for row in rows if row.message_id not in self.known]
        self.known |= {row.message_id for row in rows}
        self.groups.append(len(rows))
        if self.loses_answers:
            raise StoreUnavailable("the answer was lost")
        return duplicates


class HeldSpool(SqliteSpool):
    """A spool on a disk that takes its time."""

    def __init__(self, folder: Path, name: str, max_bytes: int) -> None:
        super().__init__(folder, name, max_bytes)
        self.is_asked, self.may_write = asyncio.Event(), asyncio.Event()

    async def append(self, rows: Sequence[EventRow]) -> None:
        self.is_asked.set()
        await self.may_write.wait()
        await super().append(rows)


class Scene:
    """A writer with a spool on disk behind it, and a store to harm."""

    def __init__(self, folder: Path, max_bytes: int, kind: type[SqliteSpool]) -> None:
        self.store = Store()
        self.spool = kind(folder, "events-test", max_bytes)
        self.rejected = RejectedEvents()
        self.spooling = Spooling(
            self.spool,
            GroupWriter(self.store),
            lambda: time.monotonic() + self.store.worked_s,
            rejected=self.rejected,
        )
        self.writer = GroupWriter(self.store, self.spooling)

    async def write(self, *names: str) -> str:
        """Return how safe events of these *names* are."""
        return (await self.writer.write([event(name) for name in names], 100)).durability

    async def come_home(self) -> None:
        async with asyncio.timeout(10):
            while not self.spooling.is_empty:
                await asyncio.sleep(0.005)


@asynccontextmanager
async def scene(
    folder: Path, max_bytes: int = 10_000_000, kind: type[SqliteSpool] = SqliteSpool
) -> AsyncIterator[Scene]:
    made = Scene(folder, max_bytes, kind)
    await made.spool.open()
    made.spooling.start()
    made.writer.start()
    try:
        yield made
    finally:
        await made.writer.stop()
        await made.spooling.stop()


def count(outcome: str) -> float:
    return metrics.SPOOL_DRAINED.labels(outcome)._value.get()  # the library tells it nowhere else


def test_with_the_store_at_hand_nothing_is_spooled(tmp_path, run):
    """The spool is for outages; else a 202 is a commit."""

    async def scenario() -> None:
        async with scene(tmp_path) as s:
            assert await s.write("a", "b") == "committed"
            assert s.store.names == ["a", "b"]
            assert s.spooling.is_empty

    run(scenario())


def test_nobody_is_answered_before_the_disk_has_it(tmp_path, run):
    """202 means safe: as long as the spool is written there is no answer."""

    async def scenario() -> None:
        async with scene(tmp_path, kind=HeldSpool) as s:
            s.store.is_away = True
            answering = asyncio.create_task(s.write("a"))
            await s.spool.is_asked.wait()
            early, _ = await asyncio.wait([answering], timeout=0.1)
            s.spool.may_write.set()

            assert await answering == "spooled"
            assert not early

    run(scenario())


def test_what_takes_too_long_together_comes_home_in_parts(tmp_path, run):
    """Else the head of the spool would keep all behind it for ever."""

    async def scenario() -> None:
        async with scene(tmp_path) as s:
            s.store.is_away = True
            names = [f"{number}" for number in range(50)]
            await s.write(*names)
            await s.write("behind")
            s.store.most_rows = 3
            s.store.is_away = False
            await s.come_home()

            assert s.store.names == [*names, "behind"]

    run(scenario())


def test_what_comes_while_something_waits_waits_behind_it(tmp_path, run):
    """Also with the store back: the newer event must not be stored first."""

    async def scenario() -> None:
        async with scene(tmp_path) as s:
            s.store.is_away = True
            durabilities = [await s.write(f"{n}") for n in range(5)]
            s.store.is_away = False
            durabilities.append(await s.write("5"))
            await s.come_home()
            durabilities.append(await s.write("6"))

            assert durabilities == ["spooled"] * 6 + ["committed"]
            assert s.store.names == [str(n) for n in range(7)]

    run(scenario())


def test_many_small_groups_come_home_in_large_ones(tmp_path, run):
    """Draining is quicker than what comes in, or it would never end."""

    async def scenario() -> None:
        async with scene(tmp_path) as s:
            s.store.is_away = True
            for n in range(60):
                await s.write(f"{n}")
            s.store.is_away = False
            await s.come_home()

            assert s.store.names == [str(n) for n in range(60)]
            assert max(s.store.groups) >= 30

    run(scenario())


def test_an_event_that_was_stored_before_it_was_spooled_is_stored_once(tmp_path, run):
    """The commit was done and its answer lost: the spool has it again, and it is a duplicate."""
    before = count("duplicate")

    async def scenario() -> None:
        async with scene(tmp_path) as s:
            s.store.loses_answers = True
            assert await s.write("a", "b") == "spooled"
            s.store.loses_answers = False
            await s.come_home()
            async with asyncio.timeout(5):
                while count("duplicate") < before + 2:
                    await asyncio.sleep(0.005)

            assert s.store.names == ["a", "b"]

    run(scenario())


def test_a_batch_that_is_sent_again_while_it_waits_is_stored_once(tmp_path, run):
    """Nobody can tell that it is a duplicate yet; when it comes home it is."""
    twice = str(uuid.uuid4())

    async def scenario() -> None:
        async with scene(tmp_path) as s:
            s.store.is_away = True
            for name in ("first", "second"):
                stored = await s.writer.write([event(name, twice)], 100)
                assert (stored.durability, stored.duplicates) == ("spooled", [])
            s.store.is_away = False
            await s.come_home()

            assert s.store.names == ["first"]

    run(scenario())


def test_poison_in_the_spool_blocks_nobody_and_is_kept(tmp_path, run, caplog):
    """It was acknowledged, so it stays where its operator finds it; the others are stored."""
    before = count("refused")

    async def scenario() -> None:
        async with scene(tmp_path) as s:
            s.store.is_away = True
            for n in range(10):
                await s.write(f"{n}", "poison" if n == 3 else f"{n}b")
            s.store.is_away = False
            await s.come_home()

            assert len(s.store.names) == 19
            assert "poison" not in s.store.names
            assert (await s.spooling.state()).refused == 1
            async with asyncio.timeout(5):
                while count("refused") < before + 1:
                    await asyncio.sleep(0.005)

    run(scenario())


def test_poison_from_the_spool_becomes_a_dead_letter_that_can_be_sent_again(tmp_path, run):
    """As it was to be stored, once, although nobody waits for an answer to it any more."""
    said = {
        "type": "identify",
        "name": "poison",
        "messageId": str(uuid.uuid4()),
        "userId": "u",
        "anonymousId": "a",
        "timestamp": "2026-01-01T00:00:00.125Z",
        "properties": {"n": 2**64 - 1},
        "traits": {"plan": "pro"},
        "context": {"ip": "hmac:0123", "page": {"url": "/?token=[scrubbed]"}},
        "more": [1],
    }

    def row_of(raw: dict[str, Any]) -> EventRow:
        return validate(RawBatch([raw], None, exact=True), 1, AT).rows[0]

    letters: list[DeadLetter] = []

    class Letters:
        async def add(self, added: Sequence[DeadLetter]) -> None:
            letters.extend(added)

        async def bound(self, project_ids: Sequence[int], max_per_project: int) -> int:
            return 0

    async def scenario() -> None:
        async with scene(tmp_path) as s:
            s.store.is_away = True
            await s.writer.write([row_of(said), event("good")], 100)
            s.store.is_away = False
            await s.come_home()
            writer = RejectedWriter(s.rejected, Letters(), "secret", 100, pause_s=0.001)
            writer.start()
            async with asyncio.timeout(5):
                while not letters:
                    await asyncio.sleep(0.005)
            await writer.stop()

    run(scenario())
    [letter] = letters
    assert (letter.stage, letter.reason, letter.name) == ("store", "INTERNAL_INVALID", "poison")
    assert (letter.key_id, letter.message_id) == (None, said["messageId"])
    assert (letter.received_at, letter.is_whole) == (AT, True)
    assert json.loads(letter.payload) == said
    assert row_of(json.loads(letter.payload)) == row_of(said)


def test_what_a_newer_version_has_spooled_blocks_nobody_and_is_kept(tmp_path, run, caplog):
    """After a downgrade nobody here can read it; what waits behind it comes home."""
    before = count("refused")

    async def scenario() -> None:
        async with scene(tmp_path) as s:
            s.store.is_away = True
            await s.write("first")
            await s.spool.append([(*event("newer"), "member")])  # type: ignore[list-item]
            await s.write("last")
            s.store.is_away = False
            await s.come_home()

            assert s.store.names == ["first", "last"]
            assert (await s.spooling.state()).refused == 1

    run(scenario())
    assert count("refused") == before + 1
    assert "can't be read" in caplog.text


def test_a_full_spool_tells_when_to_come_again(tmp_path, run):
    """Nothing is acknowledged that has no place; what waits is not touched."""

    async def scenario() -> None:
        async with scene(tmp_path, max_bytes=4_000) as s:
            s.store.is_away = True
            taken = 0
            with pytest.raises(StoreUnavailable, match="full") as refused:
                while taken < 100:
                    await s.write(f"{taken}")
                    taken += 1
            s.store.is_away = False
            await s.come_home()

            assert 1 <= refused.value.retry_after_s <= 300
            assert s.store.names == [str(n) for n in range(taken)]
            assert await s.write("again") == "committed"

    run(scenario())


def test_the_time_to_come_again_is_as_it_was_drained_lately(tmp_path, run):
    """Half a spool at a tenth of it a second takes about five seconds, not thirty."""
    now = 0.0

    async def scenario() -> None:
        nonlocal now
        spool = SqliteSpool(tmp_path, "events-test", 10_000)
        await spool.open()
        store = Store()
        home = GroupWriter(store)
        home.start()
        spooling = Spooling(spool, home, lambda: now)
        unknown = spooling.retry_after_s
        while (await spooling.state()).bytes < 9_700:
            await spool.append([event("e")])
        for _ in range(3):
            now += 1
            await spooling.drain_some()
        await spooling.state()
        emptied = spooling.retry_after_s
        now += 60
        await home.stop()
        await spool.close()

        assert unknown == 30
        assert emptied == 1
        assert spooling.retry_after_s == 30

    run(scenario())


def _put_file_in_place_of(folder: Path) -> None:
    """Leave no directory, nor room for one, though somebody may just make it again."""
    while not folder.is_file():
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(FileExistsError):
            folder.touch(exist_ok=False)


def test_a_spool_that_fails_is_a_503_and_no_more(tmp_path, run):
    """Without a disk it is as without a spool: the store is used when it is there."""

    async def scenario() -> None:
        async with scene(tmp_path / "spool") as s:
            await s.spool._do(s.spool._file.close)
            _put_file_in_place_of(tmp_path / "spool")
            s.store.is_away = True
            with pytest.raises(StoreUnavailable, match="spool"):
                await s.write("refused")
            s.store.is_away = False

            assert await s.write("kept") == "committed"
            assert not await s.spooling.has_room()

    run(scenario())


def test_what_a_dead_process_left_is_brought_home_by_one_that_lives(tmp_path, run):
    """Nobody has to start again what has died: any process of the host sees what waits."""

    async def scenario() -> None:
        async with scene(tmp_path) as living:
            dead = SqliteSpool(tmp_path, "events-test", 10_000_000)
            await dead.open()
            await dead.append([event("left")])
            await dead.close()
            await living.come_home()

            assert living.store.names == ["left"]

    run(scenario())
