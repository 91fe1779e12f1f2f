"""The monthly quota while nobody can tell what was stored."""

from __future__ import annotations

import asyncio

from analytics_collector.errors import StoreUnavailable
from analytics_collector.ingest.quota import MonthlyQuota
from analytics_collector.interfaces import UsageUnknown
from analytics_collector.model import ApiKey
from analytics_collector.project_settings import Limits, ProjectSettings

KEY = ApiKey(1, 1, frozenset(), None, None, ProjectSettings(Limits(monthly_events=5)))


class Away:
    """A ledger and a board that answer nobody."""

    def __init__(self) -> None:
        self.asked = 0

    async def exchange(self, month, known):
        self.asked += 1
        raise UsageUnknown

    async def read(self, projects, month):
        raise StoreUnavailable("away")


def test_what_could_not_be_learnt_is_not_asked_again_at_once():
    """An outage costs a project with a quota one wait a second, not one a batch."""
    away = Away()
    clock = [100.0]

    async def run() -> list[int]:
        quota = MonthlyQuota(away, away, clock=lambda: clock[0])
        quota.start()
        asked = []
        for _ in range(2):
            for _ in range(5):
                await quota.check(KEY)
            asked.append(away.asked)
            clock[0] += 1.0
        quota._task.cancel()
        return asked

    assert asyncio.run(run()) == [1, 2]
