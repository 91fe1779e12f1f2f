"""The funnels and filters of `spec/vectors/analytics/`, on a real Postgres."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

VECTORS = Path(__file__).parents[3] / "spec" / "vectors" / "analytics"
FUNNELS = {path.stem: json.loads(path.read_text()) for path in sorted(VECTORS.glob("F*.json"))}
FILTERS = json.loads((VECTORS / "C02_filter_types.json").read_text())

# What is answered today; of vectors that also ask for more (time to convert, a trend, maturity)
# the counts are compared.
ANSWERED = {
    "order": "ordered",
    "entry": "best",
    "count": "unique",
    "conversion_until": "window",
    "exclusions": [],
    "hold_constant": [],
    "breakdown": None,
}
NEEDS_MORE = {
    "F05b_first_attempt": "entry=first",
    "F12_strict_restart": "order=strict",
    "F14_strict_ignores_system": "order=strict",
    "F15_unordered": "order=unordered",
    "F17_exclusion": "exclusions",
    "F18_exclusion_partial": "exclusions",
    "F20_exclusion_whole_range": "exclusions",
    "F22a_hold_constant": "hold_constant",
    "F22b_hold_constant_pairs": "count=user_property",
    "F27_totals_exclusion": "count=totals",
    "F34_first_ever_step": "occurrence of a step",
}


def is_answered(query: dict[str, Any]) -> bool:
    return all(query[name] == value for name, value in ANSWERED.items()) and not any(
        "occurrence" in step for step in query["steps"]
    )


def test_every_funnel_vector_is_run_or_waits_for_a_named_feature():
    """No vector falls through: a new one must be run, or be put on the list with a reason."""
    answered = {name for name, vector in FUNNELS.items() if is_answered(vector["query"])}

    assert len(answered) >= 14
    assert answered.isdisjoint(NEEDS_MORE)
    assert answered | NEEDS_MORE.keys() == FUNNELS.keys()


@pytest.mark.parametrize("name", sorted(FUNNELS.keys() - NEEDS_MORE.keys()))
def test_a_funnel_counts_what_its_vector_expects(name, project, run):
    """Every funnel vector that asks for what we answer gets the counts written in it."""
    vector = FUNNELS[name]
    query = vector["query"]
    run(project.add(*vector["events"]))

    counts = run(
        project.counts(
            steps=query["steps"],
            windowSeconds=query["window_s"],
            timezone=query["timezone"],
            **{"from": query["date_from"], "to": query["date_to"]},
        )
    )

    assert counts == vector["expected"]["counts"]


@pytest.mark.parametrize("condition", FILTERS["query"]["filters"], ids=lambda given: given["name"])
def test_a_condition_matches_whom_its_vector_expects(condition, new_project, run):
    """Each condition of C02 finds exactly its users: each of them alone in a project."""
    condition = dict(condition)
    expected = FILTERS["expected"]["matches"][condition.pop("name")]
    matching = []
    for event in FILTERS["events"]:
        project = new_project()
        run(project.add(event))
        step = {"event": FILTERS["query"]["event"], "where": [condition]}
        if run(project.counts(steps=[step, "never"]))[0]:
            matching.append(event["user_id"])

    assert matching == expected
