"""Jobs beside the requests: what was counted is written once."""

from __future__ import annotations

import asyncio

from analytics_collector.background import CountWriter


class Waiting:
    """Counts that wait to be written."""

    def __init__(self, *items: str) -> None:
        self._items = list(items)

    def take(self) -> list[str]:
        items, self._items = self._items, []
        return items

    def put_back(self, items: list[str]) -> None:
        self._items += items


def test_a_flush_waits_for_what_another_one_is_writing() -> None:
    """Or who asks for the report after it would miss what is on its way."""
    written: list[str] = []

    async def run() -> list[str]:
        is_writing, may_end = asyncio.Event(), asyncio.Event()

        async def write(items: list[str]) -> None:
            is_writing.set()
            await may_end.wait()
            written.extend(items)

        writer = CountWriter("counts", Waiting("a"), write)
        first = asyncio.create_task(writer.flush())
        await is_writing.wait()
        second = asyncio.create_task(writer.flush())
        asyncio.get_running_loop().call_soon(may_end.set)
        await second
        found = list(written)
        await first
        return found

    assert asyncio.run(run()) == ["a"]
