"""Funnels against the enumeration of every attempt, and simultaneous events."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics_collector.analytics.funnel import depth_of, enough_events
from analytics_collector.analytics.params import Moment

START = datetime(2025, 3, 3, 10, tzinfo=UTC)
FIRST_S, END_S = 2, 7  # the range, in seconds after START

PLAIN = [{"event": name} for name in "ab"]
NARROW = [
    {"event": "a", "where": [{"property": "x", "op": op, "value": 1}]} for op in ("eq", "neq")
]


def at(seconds: float) -> str:
    return (START + timedelta(seconds=seconds)).isoformat()


def event(name: str, seconds: float, x: int = 0, user: str = "u1") -> dict[str, Any]:
    return {"ts": at(seconds), "event": name, "user_id": user, "properties": {"x": x}}


def satisfies(step: dict[str, Any], name: str, x: int) -> bool:
    where = step.get("where")
    return step["event"] == name and (not where or (where[0]["op"] == "eq") == (x == 1))


def depth_by_enumeration(steps, events, window_s) -> int:
    """Try every sequence of distinct events; nothing clever, straight from docs/analyses.md."""

    def longest(k: int, used: tuple[int, ...]) -> int:
        if k == len(steps):
            return k
        best = k
        for i, (name, t, x) in enumerate(events):
            if i in used or not satisfies(steps[k], name, x):
                continue
            if k == 0 and not FIRST_S <= t < END_S:
                continue
            if k > 0 and (t < events[used[-1]][1] or t - events[used[0]][1] > window_s):
                continue
            best = max(best, longest(k + 1, (*used, i)))
        return best

    return longest(0, ())


happenings = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(0, 9), st.integers(0, 1)), max_size=7
)


@settings(max_examples=150, deadline=None, database=None)
@given(
    steps=st.lists(st.sampled_from(PLAIN + NARROW), min_size=2, max_size=4),
    persons=st.lists(happenings, min_size=1, max_size=6),
    window_s=st.integers(1, 5),
)
def test_a_funnel_counts_as_if_every_attempt_had_been_tried(
    new_project, run, steps, persons, window_s
):
    """Ties, repeated steps and events that satisfy two steps never cost or give a person a step."""
    project = new_project()
    events = [
        event(name, t, x, user=f"u{who}")
        for who, person in enumerate(persons)
        for name, t, x in person
    ]
    if events:
        run(project.add(*events))

    counts = run(
        project.counts(
            steps=steps, windowSeconds=window_s, **{"from": at(FIRST_S), "to": at(END_S)}
        )
    )

    depths = [depth_by_enumeration(steps, person, window_s) for person in persons]
    assert counts == [sum(depth > k for depth in depths) for k in range(len(steps))]


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([("a", 3), ("b", 3)], [1, 1, 0]),
        ([("a", 3), ("b", 3), ("a", 3)], [1, 1, 1]),
        ([("a", 2), ("b", 3), ("a", 3)], [1, 1, 1]),
        ([("a", 2), ("b", 3)], [1, 1, 0]),
    ],
)
def test_simultaneous_events_count_in_the_order_that_gets_furthest(project, run, events, expected):
    """a, b, a: within one millisecond no single order of the rows is right for all of these."""
    run(project.add(*[event(name, seconds) for name, seconds in events]))

    assert run(project.counts(steps=["a", "b", "a"])) == expected


def test_events_of_one_millisecond_have_no_order_whatever_their_microseconds(project, run):
    """B.0.2: time counts in whole milliseconds, so a later microsecond may be the earlier step."""
    earlier_b = [event("b", 3.0001), event("a", 3.0009)]
    window_and_a_bit = [event("a", 3.0001, user="u2"), event("b", 4.0008, user="u2")]
    run(project.add(*earlier_b, *window_and_a_bit))

    assert run(project.counts(steps=["a", "b"], windowSeconds=1)) == [2, 2]


def test_ten_thousand_simultaneous_events_of_one_person_are_settled_quickly(project, run):
    """A burst in one millisecond costs by its kinds of events, not by their number."""
    run(project.add(*[event("a", 3, x) for x in range(10_000)]))

    answer = run(project.counts(steps=["a"] * 20))

    assert answer == [1] * 20


def test_only_as_many_events_are_matched_as_there_are_steps():
    """Of many events in one moment a few suffice: the rest can't change the depth."""
    moment = Moment(START, may_enter=True, masks=[0b11] * 100_000 + [0b100])

    assert len(enough_events(moment.masks, 3)) == 4
    assert depth_of([moment], 3, 60) == 3


def test_an_event_gives_way_to_one_that_can_serve_nothing_else():
    """The first event found for step 1 moves to step 2 when only it can serve there."""
    moment = Moment(START, may_enter=True, masks=[0b011, 0b001, 0b110, 0b010])

    assert depth_of([moment], 2, 60) == 2
    assert depth_of([moment], 3, 60) == 3


def test_no_attempt_begins_behind_the_end_of_the_range():
    """A moment that may not be entered can still continue what began before it."""
    late = Moment(START, may_enter=False, masks=[0b11, 0b11])
    early = Moment(START - timedelta(seconds=1), may_enter=True, masks=[0b01])

    assert depth_of([late], 2, 60) == 0
    assert depth_of([early, late], 2, 60) == 2
