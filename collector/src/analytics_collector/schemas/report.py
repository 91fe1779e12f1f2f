"""What did not fit its event schema: counted in memory, written in the background.

What was not written yet is lost when the process is killed: it is a report, and no event depends
on it. All of it is bounded, for the names of events are the client's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from analytics_collector import metrics
from analytics_collector.errors import StoreUnavailable
from analytics_collector.interfaces import SchemaFinding, SchemaStore
from analytics_collector.model import Violation

logger = logging.getLogger(__name__)

FLUSH_S: Final = 2.0
MAX_WAITING: Final = 10_000
MAX_WAITING_A_PROJECT: Final = 2_000
MAX_FAULTS: Final = 20


@dataclass(slots=True)
class _Count:
    first_seen_at: datetime
    last_seen_at: datetime
    events: int = 0
    rejected: int = 0
    faults: dict[tuple[str, str], int] = field(default_factory=dict)


class SchemaReport:
    """Counts what was not written yet, by project, event name and version of its schema."""

    def __init__(self) -> None:
        self._counts: dict[int, dict[tuple[str, int], _Count]] = {}
        self._waiting = 0

    def add(
        self,
        project_id: int,
        name: str,
        version: int,
        seen_at: datetime,
        *,
        events: int = 1,
        rejected: int = 0,
        violations: Sequence[Violation] = (),
    ) -> None:
        """Count *events* that did not fit *version* of their schema; 0: none is known for them."""
        count = self._count(project_id, name, version, seen_at)
        if count is None:
            metrics.SCHEMA_FINDINGS_DROPPED.inc(events)
            return
        count.events += events
        count.rejected += rejected
        count.last_seen_at = max(count.last_seen_at, seen_at)
        faults = count.faults
        for fault in {(violation.place, violation.keyword) for violation in violations}:
            if fault in faults or len(faults) < MAX_FAULTS:
                faults[fault] = faults.get(fault, 0) + 1

    def take(self) -> list[SchemaFinding]:
        """Return what was counted since the last time, in the order in which it is written."""
        counts, self._counts, self._waiting = self._counts, {}, 0
        return [
            SchemaFinding(
                project_id,
                name,
                version,
                count.events,
                count.rejected,
                count.first_seen_at,
                count.last_seen_at,
                count.faults,
            )
            for project_id, of_project in sorted(counts.items())
            for (name, version), count in sorted(of_project.items())
        ]

    def put_back(self, findings: Sequence[SchemaFinding]) -> None:
        """Count *findings* again: they could not be written."""
        for found in findings:
            count = self._count(found.project_id, found.name, found.version, found.first_seen_at)
            if count is None:
                metrics.SCHEMA_FINDINGS_DROPPED.inc(found.events)
                continue
            count.events += found.events
            count.rejected += found.rejected
            count.first_seen_at = min(count.first_seen_at, found.first_seen_at)
            count.last_seen_at = max(count.last_seen_at, found.last_seen_at)
            for fault, events in found.faults.items():
                if fault in count.faults or len(count.faults) < MAX_FAULTS:
                    count.faults[fault] = count.faults.get(fault, 0) + events

    def _count(self, project_id: int, name: str, version: int, seen_at: datetime) -> _Count | None:
        """Return the count, or None if too many wait."""
        of_project = self._counts.setdefault(project_id, {})
        count = of_project.get((name, version))
        if count is None:
            if self._waiting >= MAX_WAITING or len(of_project) >= MAX_WAITING_A_PROJECT:
                return None
            self._waiting += 1
            count = of_project[name, version] = _Count(seen_at, seen_at)
        return count


class ReportWriter:
    """Writes what was counted, every `FLUSH_S` seconds and at the end."""

    def __init__(self, report: SchemaReport, store: SchemaStore, every_s: float = FLUSH_S) -> None:
        self._report = report
        self._store = store
        self._every_s = every_s
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write; needs a running event loop."""
        self._task = asyncio.create_task(self._run(), name="schema report writer")

    async def stop(self) -> None:
        """Write what was counted, then stop."""
        self._stopping.set()
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                async with asyncio.timeout(self._every_s):
                    await self._stopping.wait()
            except TimeoutError:
                pass  # the time has come
            await self.flush()

    async def flush(self) -> None:
        """Write what was counted; what can't be written waits for the next time."""
        findings = self._report.take()
        if not findings:
            return
        try:
            await self._store.add_findings(findings)
        except StoreUnavailable as exc:
            self._report.put_back(findings)
            logger.warning("Report on schemas not written", extra={"reason": str(exc)})
        except Exception:
            # A fault of ours: it costs a report, and must neither pass unseen nor end the task.
            logger.exception("Report on schemas lost")
