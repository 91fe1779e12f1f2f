"""What did not fit its event schema: counted in memory, written in the background.

What was not written yet is lost when the process is killed: it is a report, and no event depends
on it. All of it is bounded, for the names of events are the client's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from analytics_collector import metrics
from analytics_collector.interfaces import SchemaFinding
from analytics_collector.model import Violation

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
