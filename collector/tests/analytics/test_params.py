"""What a question may say, and that every mistake in it is told."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from analytics_collector.analytics.params import read_funnel, read_workflow
from analytics_collector.errors import InvalidQuery

NOW = datetime(2026, 11, 20, 10, 0, 31, 120_999, tzinfo=UTC)
STEPS = ["a", "b"]


def mistakes(read, *arguments):
    with pytest.raises(InvalidQuery) as caught:
        read(*arguments)
    return [found["field"] for found in caught.value.details["mistakes"]]


def where(**condition):
    return {"steps": [{"event": "a", "where": [condition]}, "b"]}


def test_steps_alone_ask_about_all_events_with_a_window_of_seven_days():
    """The defaults are the widest range, UTC and a week."""
    asked = read_funnel({"steps": STEPS}, NOW)

    assert (asked.range.start, asked.range.end) == (None, None)
    assert asked.window_s == 7 * 86_400
    assert asked.timezone == "UTC"


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("90m", datetime(2026, 11, 20, 8, 30, 31, 120_000, tzinfo=UTC)),
        ("24h", datetime(2026, 11, 19, 10, 0, 31, 120_000, tzinfo=UTC)),
        ("7d", datetime(2026, 11, 13, 10, 0, 31, 120_000, tzinfo=UTC)),
        ("4w", datetime(2026, 10, 23, 10, 0, 31, 120_000, tzinfo=UTC)),
    ],
)
def test_a_time_window_ends_now(text, start):
    """`7d` is the range of the last seven times 24 hours, in whole milliseconds."""
    asked = read_funnel({"workflowId": "wf_1", "timeWindow": text}, NOW)

    assert asked.range.start == start
    assert asked.range.end == datetime(2026, 11, 20, 10, 0, 31, 120_000, tzinfo=UTC)
    assert asked.time_window == text


@pytest.mark.parametrize(
    ("text", "timezone", "instant"),
    [
        ("2025-03-03", None, "2025-03-03T00:00:00+00:00"),
        ("2025-03-03", "Europe/Berlin", "2025-03-02T23:00:00+00:00"),
        ("2025-03-31", "Europe/Berlin", "2025-03-30T22:00:00+00:00"),
        ("2024-04-26", "Africa/Cairo", "2024-04-25T22:00:00+00:00"),
        ("2025-03-03T10:00:00.1239Z", None, "2025-03-03T10:00:00.123000+00:00"),
        ("2025-03-03T10:00+05:30", None, "2025-03-03T04:30:00+00:00"),
    ],
)
def test_a_date_is_the_first_instant_of_its_local_day(text, timezone, instant):
    """B.0.4, B.0.5: also where that day begins at one o'clock, as in Cairo in spring."""
    asked = read_funnel({"steps": STEPS, "from": text, "timezone": timezone}, NOW)

    assert asked.range.start == datetime.fromisoformat(instant)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "steps"),
        ({"steps": ["a"]}, "steps"),
        ({"steps": ["a"] * 21}, "steps"),
        ({"steps": "ab"}, "steps"),
        ({"steps": ["a", ""]}, "steps[1]"),
        ({"steps": ["a", "x" * 256]}, "steps[1]"),
        ({"steps": ["a", "nul\x00"]}, "steps[1]"),
        ({"steps": ["a", 1]}, "steps[1]"),
        ({"steps": ["a", {}]}, "steps[1].event"),
        ({"steps": ["a", {"event": "b", "were": []}]}, "steps[1].were"),
        ({"steps": ["a", {"event": "b", "where": {}}]}, "steps[1].where"),
        ({"steps": ["a", {"event": "b", "where": ["x"]}]}, "steps[1].where[0]"),
        (where(op="eq", value=1), "steps[0].where[0].property"),
        (where(property="x\x00", op="eq", value=1), "steps[0].where[0].property"),
        (where(property="x", op="like", value=1), "steps[0].where[0].op"),
        (where(property="x", op=["eq"], value=1), "steps[0].where[0].op"),
        (where(property="x", op="eq"), "steps[0].where[0].value"),
        (where(property="x", op="eq", value={}), "steps[0].where[0].value"),
        (where(property="x", op="neq", value="\x00"), "steps[0].where[0].value"),
        (where(property="x", op="gt", value="ten"), "steps[0].where[0].value"),
        (where(property="x", op="gt", value=True), "steps[0].where[0].value"),
        (where(property="x", op="gt", value=float("inf")), "steps[0].where[0].value"),
        (where(property="x", op="lt", value="1e9999"), "steps[0].where[0].value"),
        (where(property="x", op="contains", value=""), "steps[0].where[0].value"),
        (where(property="x", op="contains", value=5), "steps[0].where[0].value"),
        (where(property="x", op="in", value="a"), "steps[0].where[0].value"),
        (where(property="x", op="in", value=[]), "steps[0].where[0].value"),
        (where(property="x", op="in", value=[None]), "steps[0].where[0].value[0]"),
        (where(property="x", op="is_set", value=1), "steps[0].where[0].value"),
        (where(property="x", op="is_set", values=1), "steps[0].where[0].values"),
        ({"steps": STEPS, "windowSeconds": 0}, "windowSeconds"),
        ({"steps": STEPS, "windowSeconds": True}, "windowSeconds"),
        ({"steps": STEPS, "windowSeconds": 1.5}, "windowSeconds"),
        ({"steps": STEPS, "windowSeconds": 10**12}, "windowSeconds"),
        ({"steps": STEPS, "windowSecond": 60}, "windowSecond"),
        ({"steps": STEPS, "timezone": "Berlin"}, "timezone"),
        ({"steps": STEPS, "timezone": "../etc/passwd"}, "timezone"),
        ({"steps": STEPS, "timezone": "Europe"}, "timezone"),
        ({"steps": STEPS, "timezone": "x" * 9999}, "timezone"),
        ({"steps": STEPS, "timezone": "\x00"}, "timezone"),
        ({"steps": STEPS, "timezone": 1}, "timezone"),
        ({"steps": STEPS, "from": "2025-02-30"}, "from"),
        ({"steps": STEPS, "from": "yesterday"}, "from"),
        ({"steps": STEPS, "from": "2025-03-03T10:00:00"}, "from"),
        ({"steps": STEPS, "from": "0001-01-01"}, "from"),
        ({"steps": STEPS, "to": "9999-12-31"}, "to"),
        ({"steps": STEPS, "to": 1741000000}, "to"),
        ({"steps": STEPS, "from": "2025-03-03", "to": "2025-03-03"}, "to"),
        ({"steps": STEPS, "from": "2025-03-04", "to": "2025-03-03"}, "to"),
        ({"steps": STEPS, "timeWindow": "7"}, "timeWindow"),
        ({"steps": STEPS, "timeWindow": "0d"}, "timeWindow"),
        ({"steps": STEPS, "timeWindow": "9999999w"}, "timeWindow"),
        ({"steps": STEPS, "timeWindow": 7}, "timeWindow"),
        ({"steps": STEPS, "timeWindow": "7d", "from": "2025-03-03"}, "from"),
        ({"workflowId": 7}, "workflowId"),
        ({"workflowId": "nul\x00"}, "workflowId"),
        ({"workflowId": "wf_1", "steps": STEPS}, "steps"),
        ({"workflowId": "wf_1", "windowSeconds": 60}, "windowSeconds"),
    ],
)
def test_a_mistake_is_told_with_its_place(body, field):
    """The field path says where, and there is nothing else to complain of."""
    assert mistakes(read_funnel, body, NOW) == [field]


def test_all_mistakes_are_told_at_once():
    """Who made three mistakes does not have to ask three times."""
    body = {"steps": ["", {"event": "b", "where": [{}]}], "timezone": "?", "windowSeconds": -1}

    assert mistakes(read_funnel, body, NOW) == [
        "steps[0]",
        "steps[1].where[0].property",
        "steps[1].where[0].op",
        "windowSeconds",
        "timezone",
    ]


@pytest.mark.parametrize("body", [None, [], "steps", 1])
def test_a_question_is_an_object(body):
    """Anything else is told so."""
    with pytest.raises(InvalidQuery, match="body: must be a JSON object"):
        read_funnel(body, NOW)


@pytest.mark.parametrize("name", [None, "", "  ", "x" * 256, "nul\x00", 5])
def test_a_workflow_needs_a_name_that_can_be_seen(name):
    """The name is how people find it again."""
    assert mistakes(read_workflow, {"name": name, "steps": STEPS}) == ["name"]


def test_the_steps_of_a_workflow_are_kept_as_they_were_sent():
    """Who reads a workflow back gets what they wrote."""
    steps = ["a", {"event": "b"}, {"event": "c", "where": [{"property": "x", "op": "is_set"}]}]

    assert read_workflow({"name": "n", "steps": steps}).steps == steps
