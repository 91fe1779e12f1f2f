"""Check events against the schemas that their project registered for them.

A schema is of an event's name. `identify`, `group`, `page` and `screen` that have no name, or one
without a schema, go by `$identify`, `$group`, `$page` and `$screen`; `alias` has nothing to check.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from analytics_collector import metrics
from analytics_collector.ingest.plans import Plans
from analytics_collector.model import ApiKey, Rejection, ValidBatch, Violation
from analytics_collector.schemas.plan import EventCheck, Plan
from analytics_collector.schemas.report import SchemaReport

logger = logging.getLogger(__name__)

CODE: Final = "SCHEMA_VIOLATION"
# In an answer, which clients read up to 64 KiB of.
MAX_VIOLATIONS: Final = 20
MAX_VIOLATIONS_A_BATCH: Final = 200
MAX_DRY_VIOLATIONS: Final = 1_000
# Looking closer takes ten times as long as the look: a few of each kind are enough for a report.
MAX_EXPLAINED: Final = 3
# A batch of 500 takes a millisecond. What takes so much longer was made for that, and its project
# does without checks for a while.
MAX_CHECK_S: Final = 0.1
SUSPENDED_S: Final = 30.0

_PART: Final = {
    "track": "properties",
    "page": "properties",
    "screen": "properties",
    "identify": "traits",
    "group": "traits",
}
_STORED = metrics.SCHEMA_VIOLATIONS.labels("stored")
_REJECTED = metrics.SCHEMA_VIOLATIONS.labels("rejected")
_UNKNOWN = metrics.SCHEMA_UNCHECKED.labels("unknown")
_SLOW = metrics.SCHEMA_UNCHECKED.labels("slow")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a dry run found about one event; without violations it is one that no schema knows."""

    index: int
    message_id: str | None
    name: str
    version: int
    mode: str
    violations: list[Violation]


class SchemaChecks:
    """The stage of the schemas."""

    def __init__(self, plans: Plans, report: SchemaReport) -> None:
        self._plans = plans
        self._report = report
        self._suspended_until: dict[int, float] = {}

    async def check(self, batch: ValidBatch, key: ApiKey) -> ValidBatch:
        """Return *batch* without the events that their schema rejects; count what does not fit."""
        plan = self._plans.get(key.project_id) or await self._plans.load(key.project_id)
        if not plan.checks:
            if not plan.is_known:
                _UNKNOWN.inc(len(batch.rows))
            return batch
        if self._is_suspended(key.project_id):
            _SLOW.inc(len(batch.rows))
            return batch
        return self._checked(batch, key, plan)

    def _checked(self, batch: ValidBatch, key: ApiKey, plan: Plan) -> ValidBatch:
        refused: dict[int, Rejection] = {}
        explained: dict[str, int] = {}
        room = MAX_VIOLATIONS_A_BATCH
        for position, name, check, mode in self._found(batch, key, plan):
            seen_at = batch.rows[position].received_at
            if check is None:
                self._report.add(key.project_id, name, 0, seen_at)
                continue
            rejects = mode == "reject"
            explained[name] = explained.get(name, 0) + 1
            violations: list[Violation] = []
            if rejects or explained[name] <= MAX_EXPLAINED:
                limit = _limit(room) if rejects else MAX_VIOLATIONS
                violations = _explain(batch, position, check, limit)
            self._report.add(
                key.project_id,
                name,
                check.version,
                seen_at,
                rejected=int(rejects),
                violations=violations,
            )
            if rejects:
                room -= len(violations)
                refused[position] = _rejection(batch, position, violations)
            else:
                _STORED.inc()
        if not refused:
            return batch
        _REJECTED.inc(len(refused))
        return _without(batch, refused)

    def _found(
        self, batch: ValidBatch, key: ApiKey, plan: Plan, *, is_dry: bool = False
    ) -> Iterator[tuple[int, str, EventCheck | None, str]]:
        """Yield position, name, schema and mode of events that theirs refuses, or that have none.

        A dry run is told even what is off.
        """
        default = key.settings.schemas.mode
        checks, events = plan.checks, batch.events
        cpu_began = time.thread_time()
        deadline = time.perf_counter() + MAX_CHECK_S
        for position, row in enumerate(batch.rows):
            part = _PART.get(row.type)
            if part is None:
                continue
            name = row.name
            check = checks.get(name)
            if check is None and row.type != "track":
                name = f"${row.type}"
                check = checks.get(name)
            if check is None:
                if is_dry or default != "off":
                    yield position, name, None, default
                continue
            mode = check.mode or default
            if (is_dry or mode != "off") and not check.is_valid(events[position].get(part) or {}):
                yield position, name, check, mode
            # The clock is cheap to ask, but goes on while others have the processor.
            if time.perf_counter() > deadline and time.thread_time() - cpu_began > MAX_CHECK_S:
                self._suspend(key.project_id)
                _SLOW.inc(len(batch.rows) - position - 1)
                return

    def _is_suspended(self, project_id: int) -> bool:
        until = self._suspended_until.get(project_id)
        if until is None:
            return False
        if time.monotonic() < until:
            return True
        del self._suspended_until[project_id]
        return False

    def _suspend(self, project_id: int) -> None:
        self._suspended_until[project_id] = time.monotonic() + SUSPENDED_S
        logger.warning("Checks of event schemas suspended", extra={"project_id": project_id})

    async def examine(self, batch: ValidBatch, key: ApiKey) -> tuple[ValidBatch, list[Verdict]]:
        """Return what `check` would, and what schemas have to say in any mode; count nothing."""
        plan = self._plans.get(key.project_id) or await self._plans.load(key.project_id)
        if not plan.checks or self._is_suspended(key.project_id):
            return batch, []
        verdicts = []
        refused: dict[int, Rejection] = {}
        room, answer_room = MAX_DRY_VIOLATIONS, MAX_VIOLATIONS_A_BATCH
        for position, name, check, mode in self._found(batch, key, plan, is_dry=True):
            violations = [] if check is None else _explain(batch, position, check, max(room, 1))
            room -= len(violations)
            message_id = batch.events[position].get("messageId")
            version = 0 if check is None else check.version
            verdicts.append(
                Verdict(batch.indexes[position], message_id, name, version, mode, violations)
            )
            if check is not None and mode == "reject":
                told = violations[: _limit(answer_room)]
                answer_room -= len(told)
                refused[position] = _rejection(batch, position, told)
        return (_without(batch, refused) if refused else batch), verdicts


def _limit(room: int) -> int:
    """Return how much is said of one event where there is *room* for so much in the answer."""
    return min(MAX_VIOLATIONS, max(room, 1))


def _explain(batch: ValidBatch, position: int, check: EventCheck, limit: int) -> list[Violation]:
    part = _PART[batch.rows[position].type]
    value: Any = batch.events[position].get(part) or {}
    return check.explainer.explain(value, part, limit)


def _rejection(batch: ValidBatch, position: int, violations: list[Violation]) -> Rejection:
    return Rejection(
        batch.indexes[position],
        batch.events[position].get("messageId"),
        CODE,
        violations[0].path,
        tuple(violations),
    )


def _without(batch: ValidBatch, refused: dict[int, Rejection]) -> ValidBatch:
    kept = [position for position in range(len(batch.rows)) if position not in refused]
    return ValidBatch(
        [batch.rows[position] for position in kept],
        [batch.indexes[position] for position in kept],
        [batch.events[position] for position in kept],
        [*batch.rejected, *refused.values()],
    )
