"""What is shipped for Grafana and Prometheus asks only for numbers that the collector has."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

from analytics_collector import metrics

DEPLOY = Path(__file__).parents[1] / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana/dashboard.json").read_text(encoding="utf-8"))
ALERTS = yaml.safe_load((DEPLOY / "prometheus/alerts.yaml").read_text(encoding="utf-8"))
PANELS = DASHBOARD["panels"]
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
QUERIES = [target["expr"] for panel in PANELS for target in panel.get("targets", [])]
QUERIES += [variable["query"] for variable in DASHBOARD["templating"]["list"][1:]]
EXPRESSIONS = [rule["expr"] for rule in RULES]
SUFFIXES = {
    "counter": ("_total", "_created"),
    "gauge": ("",),
    "histogram": ("_bucket", "_count", "_sum", "_created"),
}
# Of Prometheus itself, and the name of each metric's own labels.
LABELS_OF_THE_SCRAPE = {"job", "instance", "le"}


def series() -> dict[str, set[str]]:
    """Return the labels of each name that /metrics can tell."""
    return {
        metric.name + suffix: set(collector._labelnames)
        for collector in metrics.REGISTRY._collector_to_names
        for metric in collector.describe()
        for suffix in SUFFIXES[metric.type]
    }


SERIES = series()


def without_texts(query: str) -> str:
    return re.sub(r'"[^"]*"', '""', query)


@pytest.mark.parametrize("query", QUERIES + EXPRESSIONS)
def test_every_name_is_one_that_is_counted(query):
    """A name with a slip is no error in Prometheus: the graph is empty, the alert never comes."""
    names = re.findall(r"\banalytics_\w+", without_texts(query))

    assert names
    assert set(names) <= SERIES.keys()


@pytest.mark.parametrize("query", QUERIES + EXPRESSIONS)
def test_every_label_is_one_of_the_metric(query):
    """The same goes for a label, in braces or after `by`."""
    bare = without_texts(query)
    known = set().union(*(SERIES[name] for name in re.findall(r"\banalytics_\w+", bare)))
    used = re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", "".join(re.findall(r"{[^}]*}", bare)))
    used += re.findall(r"\w+", " ".join(re.findall(r"\bby \(([^)]*)\)", bare)))

    assert set(used) <= known | LABELS_OF_THE_SCRAPE


@pytest.mark.parametrize("query", QUERIES + EXPRESSIONS)
def test_counters_are_asked_for_their_rate(query):
    """Their value alone only tells how long a process has run."""
    for name in re.findall(r"\banalytics_\w+(?:_total|_bucket)\b", without_texts(query)):
        if not query.startswith("label_values("):
            assert re.search(rf"\b(?:rate|increase)\({name}\b", query)


@pytest.mark.parametrize("query", QUERIES + EXPRESSIONS)
def test_brackets_are_closed_in_order(query):
    """The least that a query must have to be read."""
    waiting = []
    for character in without_texts(query):
        if character in "([{":
            waiting.append({"(": ")", "[": "]", "{": "}"}[character])
        elif character in ")]}":
            assert waiting.pop() == character
    assert not waiting


def test_panels_are_told_apart_and_do_not_overlap():
    """Grafana shows one of two panels with the same id."""
    ids = Counter(panel["id"] for panel in PANELS)
    places = Counter(
        (x, y)
        for panel in PANELS
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    )

    assert ids.most_common(1)[0][1] == 1
    assert places.most_common(1)[0][1] == 1
    assert max(x for x, _ in places) < 24
    assert all(panel["title"] for panel in PANELS)


def test_alerts_are_told_apart_and_say_what_to_do():
    """Whoever is woken by one reads its summary and its description."""
    assert len({rule["alert"] for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert {"summary", "description"} <= rule["annotations"].keys()


@pytest.mark.parametrize(
    "names",
    [
        'analytics_events_total{outcome="rejected"}',
        'analytics_ingest_answers_total{status=~"5.."}',
        "analytics_commit_seconds_bucket",
        "analytics_spool_age_seconds",
        "analytics_lag_seconds",
        "analytics_limits_local_total",
        'analytics_rate_limited_total{limit="quota"}',
        "analytics_job_seconds_bucket",
    ],
)
def test_what_has_to_be_watched_is_watched(names):
    """A promise of the README: each of these has an alert and a panel."""
    name = names.partition("{")[0]

    assert any(names in expression for expression in EXPRESSIONS)
    assert any(name in query for query in QUERIES)
