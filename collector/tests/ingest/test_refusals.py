"""When a project that is over its limits hears of it."""

from __future__ import annotations

import pytest

from analytics_collector.ingest.refusals import MAX_HOLD_S, PER_SECOND, Refusals

NOW = 100.0


def test_refusals_of_a_flood_leave_one_after_the_other():
    """So that it does not take the processor from the others (RES-16)."""
    refusals = Refusals()

    holds = [refusals.hold_s(1, NOW) for _ in range(4)]

    assert holds == pytest.approx([number / PER_SECOND for number in range(4)])


def test_nobody_waits_for_the_refusals_of_another_project():
    """Who is refused now and then hears it at once, however much another one floods."""
    refusals = Refusals()
    for _ in range(10):
        refusals.hold_s(1, NOW)

    assert refusals.hold_s(2, NOW) == 0
    assert refusals.hold_s(1, NOW + 10 / PER_SECOND) == 0


def test_no_refusal_is_held_for_ever():
    """A thousand clients at once hear in time, and when they are gone all is as before."""
    refusals = Refusals()

    holds = [refusals.hold_s(1, NOW) for _ in range(1000)]

    assert max(holds) == MAX_HOLD_S
    assert refusals.hold_s(1, NOW + MAX_HOLD_S + 1) == 0


def test_projects_that_are_not_refused_any_more_are_forgotten():
    """Whoever was refused once takes no memory for ever."""
    refusals = Refusals(max_projects=3)

    for project_id in range(20):
        refusals.hold_s(project_id, NOW + project_id)

    assert len(refusals._next_at) <= 3
