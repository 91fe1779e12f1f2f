"""What a funnel answers besides its counts, whom it counts, and what conditions compare."""

from __future__ import annotations

import pytest

from analytics_collector.analytics.funnel import percent, results
from analytics_collector.analytics.steps import Step

TS = "2025-03-03T10:00:00Z"
HOSTILE_NAMES = ["a'}", '"', ";--", "$1", "%_\\", "{}", "{property}", "a,b", "'::text", " ", "ключ"]


def event(name="a", user="u1", at="10:00:00", **properties):
    return {
        "event": name,
        "user_id": user,
        "ts": f"2025-03-03T{at}Z",
        "properties": properties,
    }


@pytest.mark.parametrize(
    ("part", "whole", "expected"),
    [
        (1, 8, 13),
        (7, 8, 88),
        (1, 200, 1),
        (1, 201, 0),
        (29, 200, 15),
        (2, 3, 67),
        (0, 0, 0),
        (5, 5, 100),
    ],
)
def test_halves_of_a_percent_are_rounded_up(part, whole, expected):
    """12.5 % is 13 %, and 14.5 % is 15 % although no float is exactly 14.5 %."""
    assert percent(part, whole) == expected


def test_the_answer_tells_what_was_lost_at_each_step():
    """Whole percentages of the step before, the exact numbers beside them."""
    answer = results((Step("a"), Step("b"), Step("c")), [8, 7, 0])

    assert answer["steps"][0] == {
        "position": 1,
        "eventName": "a",
        "userCount": 8,
        "dropOff": 0,
        "dropOffCount": 0,
        "conversionFromPrevious": 100,
        "conversionFromPreviousExact": 1.0,
    }
    assert answer["steps"][1] == {
        "position": 2,
        "eventName": "b",
        "userCount": 7,
        "dropOff": 13,
        "dropOffCount": 1,
        "conversionFromPrevious": 88,
        "conversionFromPreviousExact": 0.875,
    }
    assert answer["totalUsers"] == 8
    assert answer["overallConversion"] == 0
    assert answer["overallConversionExact"] == 0.0


def test_a_ratio_of_nobody_is_null(project, run):
    """B.0.10: nobody came, so nothing can be said about how many converted."""
    answer = run(project.answer(steps=["a", "b"]))

    assert answer["totalUsers"] == 0
    assert answer["overallConversion"] == 0
    assert answer["overallConversionExact"] is None
    assert answer["steps"][1]["conversionFromPreviousExact"] is None
    assert answer["steps"][1]["dropOff"] == 0


def test_the_answer_says_what_was_computed(project, run):
    """The range as instants, the window and a definition in words come with the numbers."""
    question = {"from": "2025-03-03", "to": "2025-03-04", "timezone": "Europe/Berlin"}
    answer = run(project.answer(steps=["a", "b"], windowSeconds=60, **question))

    assert (answer["from"], answer["to"]) == (
        "2025-03-02T23:00:00.000Z",
        "2025-03-03T23:00:00.000Z",
    )
    assert (answer["workflowId"], answer["timeWindow"]) == (None, None)
    assert (answer["timezone"], answer["windowSeconds"]) == ("Europe/Berlin", 60)
    assert "within 60 s of their first step" in answer["definition"]
    assert "from 2025-03-02T23:00:00.000Z and before" in answer["definition"]


def test_a_visitor_and_a_user_of_the_same_id_are_two_persons(project, run):
    """An anonymous id can be anybody's choice, and must not slip into a user's funnel."""
    visitor = {"event": "b", "anonymous_id": "u1", "ts": "2025-03-03T10:00:01Z"}
    run(project.add(event(), visitor))

    assert run(project.counts(steps=["a", "b"])) == [1, 0]


def test_events_of_nobody_are_in_no_funnel(project, run):
    """An event without user and visitor is no person, least of all the same one each time."""
    run(project.add({"event": "a", "ts": TS}, {"event": "b", "ts": TS}))

    assert run(project.counts(steps=["a", "b"])) == [0, 0]


def test_events_of_another_project_are_not_counted(new_project, run):
    """A funnel reads its own project only."""
    mine, theirs = new_project(), new_project()
    run(theirs.add(event()))

    assert run(mine.counts(steps=["a", "b"])) == [0, 0]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_property_of_any_name_is_found_and_changes_nothing_else(name, project, run):
    """What a request says is a parameter, in whatever it is written."""
    run(project.add(event("a", **{name: name}), event("a", "u2", **{name: "other"})))
    itself = [{"property": name, "op": "eq", "value": name}]
    others = [{"property": name, "op": "neq", "value": name}]
    part = [{"property": name, "op": "contains", "value": name}]
    listed = [{"property": name, "op": "in", "value": [name, "never"]}]

    for where, expected in ((itself, 1), (others, 1), (part, 1), (listed, 1)):
        step = {"event": "a", "where": where}
        assert run(project.counts(steps=[step, step])) == [expected, 0]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_an_event_of_any_name_is_found(name, project, run):
    """The same for the names of events."""
    run(project.add(event(name), event(name, at="10:00:01"), event("a", "u2")))

    assert run(project.counts(steps=[name, name])) == [1, 1]


@pytest.mark.parametrize(
    ("stored", "op", "value", "matches"),
    [
        (1.50, "eq", "1.5", True),
        (1e3, "eq", 1000, True),
        ("1000", "eq", 1e3, True),
        (-0.0, "eq", 0, True),
        (0, "eq", -0.0, True),
        (2**64 - 1, "eq", 2**64 - 1, True),
        (1e300, "eq", 1e300, True),
        ("1.0", "eq", 1, False),
        ("A", "eq", "a", False),
        (False, "eq", "false", True),
        (2, "in", ["1", 2.0], True),
        (True, "in", [True], True),
        (None, "neq", "x", True),
        ("ÄPFEL", "contains", "äpf", True),
        ("100%", "contains", "%", True),
        ("100", "contains", "%", False),
        (12345, "contains", "234", True),
        ("9", "gt", "10", False),
        ("1e2", "gte", 100, True),
        (".5", "lt", 1, True),
        (3, "lte", "3.0", True),
        ("", "lt", 1, False),
        ("NaN", "gt", 1, False),
        ("Infinity", "gt", 1, False),
        ("1e999999999", "gt", 1, False),
        ("9" * 500, "gt", 1, False),
        ("٣", "gt", 1, False),
        (True, "gte", 0, False),
        ([5], "gt", 1, False),
        ("", "is_set", None, True),
        (None, "is_set", None, False),
        (None, "is_not_set", None, True),
        (0, "is_not_set", None, False),
    ],
)
def test_a_condition_compares_by_text_or_by_number(stored, op, value, matches, project, run):
    """B.0.8: equality compares canonical text, order needs a finite number or a numeric text."""
    run(project.add(event(x=stored)))
    where = {"property": "x", "op": op} | ({} if value is None else {"value": value})

    counts = run(project.counts(steps=[{"event": "a", "where": [where]}, "never"]))

    assert counts == [int(matches), 0]


def test_all_conditions_of_a_step_must_hold(project, run):
    """`where` narrows: each condition takes persons away, and none adds any."""
    run(project.add(event(x=1, y=1), event(user="u2", x=1, y=2)))
    where = [{"property": name, "op": "eq", "value": 1} for name in "xy"]

    assert run(project.counts(steps=[{"event": "a", "where": where}, "never"])) == [1, 0]


def test_a_day_is_as_long_as_its_seconds_when_clocks_change(pool, project, run):
    """F33 on a server that lives in New York: 86,400 s, not until the same hour next day."""
    first, second = "2025-03-08T17:00:00Z", "2025-03-09T17:00:00Z"
    run(
        project.add(
            {"event": "a", "user_id": "u1", "ts": first},
            {"event": "b", "user_id": "u1", "ts": second},
        )
    )
    database = run(pool.fetchval("select current_database()"))
    run(pool.execute(f"alter database {database} set timezone = 'America/New_York'"))
    run(pool.expire_connections())
    question = {"from": first, "to": "2025-03-08T17:00:01Z"}
    try:
        assert run(pool.fetchval("show timezone")) == "America/New_York"
        assert run(project.counts(steps=["a", "b"], windowSeconds=86_400, **question)) == [1, 1]
        assert run(project.counts(steps=["a", "b"], windowSeconds=86_399, **question)) == [1, 0]
    finally:
        run(pool.execute(f"alter database {database} reset timezone"))
        run(pool.expire_connections())
