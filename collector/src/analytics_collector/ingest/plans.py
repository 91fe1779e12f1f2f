"""The event schemas of the projects that send, kept at hand and up to date.

The first batch of a project waits for its schemas, once and not for long; from then on they are
looked at in the background, so that a change is seen everywhere within 5 seconds. While they
can't be loaded events are taken without them, and counted: a plan must not cost an event.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from analytics_collector.background import Rounds
from analytics_collector.errors import StoreUnavailable
from analytics_collector.interfaces import SchemaStore
from analytics_collector.schemas.plan import Plan, compile_plan, unknown_plan

logger = logging.getLogger(__name__)

REFRESH_S: Final = 1.5
FIRST_LOAD_S: Final = 1.0
MAX_PLANS: Final = 10_000
# Rounds without a batch after which the schemas of a project are forgotten: ten minutes.
_IDLE_ROUNDS: Final = 400


class Plans:
    """Knows the plan of each project that sent something not long ago."""

    def __init__(self, store: SchemaStore, refresh_s: float = REFRESH_S) -> None:
        self._store = store
        self._plans: dict[int, Plan] = {}
        self._idle_rounds: dict[int, int] = {}
        self._loads: dict[int, asyncio.Task[Plan]] = {}
        self._rounds = Rounds("event schemas", self._look, refresh_s)
        self.start = self._rounds.start
        self._is_away = False

    async def stop(self) -> None:
        """Stop looking."""
        await self._rounds.stop()
        loads = list(self._loads.values())
        for load in loads:
            load.cancel()
        await asyncio.gather(*loads, return_exceptions=True)

    def get(self, project_id: int) -> Plan | None:
        """Return the plan of the project if it is at hand."""
        plan = self._plans.get(project_id)
        if plan is not None:
            plan.was_used = True
        return plan

    async def load(self, project_id: int) -> Plan:
        """Return the plan of the project; one that is unknown if that takes long."""
        load = self._loads.get(project_id)
        if load is None:
            load = asyncio.create_task(self._first(project_id))
            self._loads[project_id] = load
            load.add_done_callback(lambda _: self._loads.pop(project_id, None))
        # Others may be waiting for the same: it goes on when one of them is cancelled.
        return await asyncio.shield(load)

    async def _first(self, project_id: int) -> Plan:
        try:
            async with asyncio.timeout(FIRST_LOAD_S):
                plan = await self._compiled(project_id)
        except (StoreUnavailable, TimeoutError) as exc:
            self._go_away(exc)
            plan = unknown_plan()
        if len(self._plans) >= MAX_PLANS:
            self._forget(next(iter(self._plans)))
        self._plans[project_id] = plan
        return plan

    async def _look(self) -> None:
        try:
            await self.refresh()
        except StoreUnavailable as exc:
            self._go_away(exc)

    async def refresh(self) -> None:
        """Load the plans that were changed, and forget those that nobody used for long.

        Raises `StoreUnavailable`.
        """
        self._forget_idle()
        if not self._plans:
            return
        revisions = await self._store.plan_revisions(list(self._plans))
        if self._is_away:
            self._is_away = False
            logger.info("Event schemas can be loaded again")
        for project_id, plan in list(self._plans.items()):
            if revisions.get(project_id, 0) != plan.revision:
                fresh = await self._compiled(project_id)
                if project_id in self._plans:
                    self._plans[project_id] = fresh

    async def _compiled(self, project_id: int) -> Plan:
        stored = await self._store.load_plan(project_id)
        # A thousand schemas take a while, in which the door stays open.
        return await asyncio.to_thread(compile_plan, stored, self._plans.get(project_id))

    def _forget_idle(self) -> None:
        for project_id, plan in list(self._plans.items()):
            idle_rounds = 0 if plan.was_used else self._idle_rounds.get(project_id, 0) + 1
            plan.was_used = False
            self._idle_rounds[project_id] = idle_rounds
            if idle_rounds >= _IDLE_ROUNDS:
                self._forget(project_id)

    def _forget(self, project_id: int) -> None:
        self._plans.pop(project_id, None)
        self._idle_rounds.pop(project_id, None)

    def _go_away(self, exc: Exception) -> None:
        if not self._is_away:
            self._is_away = True
            logger.warning("Event schemas can't be loaded", extra={"reason": type(exc).__name__})
