"""How many persons come from step to step, in order, within a window of time.

Ordered, `entry=best`, `count=unique`, `conversion_until=window` of docs/analyses.md. For one
person an attempt of depth k is a sequence of k distinct events, the i-th of step i, with times
that never decrease; the first lies in the range, the last at most the window after the first
(inclusive). The depth of a person is the greatest over all attempts. Events of the same
millisecond have no order: any that gets further counts. An event without `userId` and
`anonymousId` belongs to nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Protocol

from analytics_collector.analytics.params import (
    FunnelQuery,
    FunnelRequest,
    Moment,
    Workflow,
)
from analytics_collector.analytics.steps import Mistakes, Step, read_steps
from analytics_collector.wire import wire_time

DEFINITION = (
    "Unique persons (userId, else anonymousId) that did the steps in this order, other events "
    "in between allowed, within {window_s} s of their first step (inclusive), counted by their "
    "best attempt. The first step lies {range}; later steps may lie behind its end, within the "
    "window. One event serves one step; events of the same millisecond may count in any order."
)


class FunnelReader(Protocol):
    """What a store must be able to count."""

    async def funnel_counts(
        self,
        project_id: int,
        query: FunnelQuery,
        depth_of: Callable[[list[Moment], int, int], int],
    ) -> list[int]:
        """Return how many persons came as far as each step."""
        ...


async def evaluate(
    reader: FunnelReader, project_id: int, request: FunnelRequest, workflow: Workflow | None
) -> dict[str, Any]:
    """Return the answer to *request* as JSON members; *workflow* is the one that it names."""
    if workflow is None:
        assert request.steps is not None
        steps, window_s = request.steps, request.window_s
    else:
        mistakes = Mistakes()
        steps, window_s = read_steps(workflow.steps, mistakes), workflow.window_s
        mistakes.raise_any()
    query = FunnelQuery(steps, window_s, request.range)
    counts = await reader.funnel_counts(project_id, query, depth_of)
    start, end = wire_time(query.range.start), wire_time(query.range.end)
    bounds = [f"from {start}" if start else "", f"before {end}" if end else ""]
    return {
        "workflowId": workflow.workflow_id if workflow else None,
        "timeWindow": request.time_window,
        "from": start,
        "to": end,
        "timezone": request.timezone,
        "windowSeconds": window_s,
        **results(steps, counts),
        "definition": DEFINITION.format(
            window_s=window_s, range=" and ".join(filter(None, bounds)) or "at any time"
        ),
    }


def results(steps: tuple[Step, ...], counts: list[int]) -> dict[str, Any]:
    """Return the members of the answer that follow from *counts*, the persons at each step.

    Percentages are whole numbers, halves rounded up, 0 when nobody could convert; the member
    named `...Exact` beside each is the ratio, null when nobody could (docs/analyses.md).
    """
    described = []
    for k, (step, count) in enumerate(zip(steps, counts, strict=True)):
        before = counts[k - 1] if k else count
        described.append(
            {
                "position": k + 1,
                "eventName": step.event,
                "userCount": count,
                "dropOff": percent(before - count, before),
                "dropOffCount": before - count,
                "conversionFromPrevious": percent(count, before) if k else 100,
                "conversionFromPreviousExact": ratio(count, before),
            }
        )
    return {
        "steps": described,
        "overallConversion": percent(counts[-1], counts[0]),
        "overallConversionExact": ratio(counts[-1], counts[0]),
        "totalUsers": counts[0],
    }


def percent(part: int, whole: int) -> int:
    """Return *part* of *whole* in percent, halves rounded up; 0 of nothing is 0."""
    return (200 * part + whole) // (2 * whole) if whole else 0


def ratio(part: int, whole: int) -> float | None:
    """Return *part* of *whole* as 0 to 1; None of nothing."""
    return part / whole if whole else None


def depth_of(moments: list[Moment], steps: int, window_s: int) -> int:
    """Return how far the person of *moments* comes, whatever the order inside each moment.

    As in SQL, a level keeps its latest entry, for that has the latest deadline. Inside a moment
    steps j+1, j+2, ... can follow each other as long as distinct events can be found for all of
    them: a matching, made longer by one step at a time.
    """
    window = timedelta(seconds=window_s)
    entries: list[datetime | None] = [None] * (steps + 1)
    for moment in moments:
        reached = list(entries)
        masks = enough_events(moment.masks, steps)
        for j in range(steps):
            entry = moment.at if j == 0 else entries[j]
            if entry is None or moment.at - entry > window or (j == 0 and not moment.may_enter):
                continue
            for k in range(j + 1, j + 1 + _steps_served(masks, j, steps)):
                reached[k] = max(reached[k] or entry, entry)
        entries = reached
    return max(k for k in range(steps + 1) if k == 0 or entries[k] is not None)


def enough_events(masks: list[int], steps: int) -> list[int]:
    """Return events that serve as well as all of *masks*: `steps` of them for each step will do.

    A matching uses fewer than `steps` others, so whatever an event left out could have served,
    one that was kept is free for. It bounds the work on thousands of events in one millisecond.
    """
    if len(masks) <= steps:
        return masks
    kept, missing = [], [steps] * steps
    for mask in masks:
        served = [k for k in range(steps) if mask >> k & 1]
        if any(missing[k] > 0 for k in served):
            kept.append(mask)
            for k in served:
                missing[k] -= 1
    return kept


def _steps_served(masks: list[int], after: int, steps: int) -> int:
    """Return for how many of the steps behind *after* there are distinct events in *masks*."""
    server: dict[int, int] = {}  # event -> the step that it serves

    def serve(step: int, tried: set[int]) -> bool:
        for event, mask in enumerate(masks):
            if mask >> (step - 1) & 1 and event not in tried:
                tried.add(event)
                if event not in server or serve(server[event], tried):
                    server[event] = step
                    return True
        return False

    for step in range(after + 1, steps + 1):
        if not serve(step, set()):
            return step - after - 1
    return steps - after
