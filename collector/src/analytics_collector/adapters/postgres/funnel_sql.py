"""Put the statement of a funnel together from the parts in `queries/funnel.sql`.

Pure. The text depends on the shape of the funnel only (how many steps, which operators); names,
properties and values travel as parameters, so no request can write SQL.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from analytics_collector.adapters.sqlfile import load_blocks
from analytics_collector.analytics.params import FunnelQuery
from analytics_collector.analytics.steps import Condition

_COMMENT = re.compile(r"^\s*--.*\n", re.MULTILINE)
_PARTS = {
    name: _COMMENT.sub("", text)
    for name, text in load_blocks(
        "analytics_collector.adapters.postgres", "queries/funnel.sql"
    ).items()
}


@dataclass(frozen=True, slots=True)
class FunnelSql:
    """The statements of one funnel, each with its parameters.

    `depths` returns one row with one array, the persons at each step. `ties` returns the events
    of the persons that `depths` left out; it is None when no event can satisfy two steps.
    """

    depths: str
    depths_parameters: list[object]
    ties: str | None
    ties_parameters: list[object]


@dataclass(slots=True)
class _Parameters:
    values: list[object] = field(default_factory=list)

    def add(self, value: object) -> str:
        """Keep *value* and return its place in the text, such as `$4`."""
        self.values.append(value)
        return f"${len(self.values)}"


def funnel_sql(project_id: int, query: FunnelQuery) -> FunnelSql:
    """Return the statements that answer *query* for the events of the project."""
    parameters = _Parameters()
    names = [step.event for step in query.steps]
    for value in (project_id, sorted(set(names))):
        parameters.add(value)
    end = parameters.add(query.range.end) + "::timestamptz" if query.range.end else None
    tie_possible = len(set(names)) < len(names)
    count = len(names)

    ranked = _matched(query, parameters, end) + ",\n" + _ranked(count)
    if tie_possible:
        ranked += ",\n" + _PARTS["tied"]
    ties_parameters = list(parameters.values)
    window = _PARTS["window"].format(seconds=parameters.add(float(query.window_s)))
    depths = _PARTS["depths"].format(
        ctes=f"{ranked},\n{_levels(count, end, window, tie_possible)}",
        depth=_case(count, range(count, 0, -1), "v{k} is not null"),
        counts=_each(count, lambda k: _PARTS["count"].format(k=k)),
        n=count,
    )
    ties = _PARTS["ties"].format(
        ctes=ranked,
        mask=_each(count, lambda k: f"s{k}::int * {1 << (k - 1)}", " + "),
        in_range=f"t < {end}" if end else "true",
        n=count,
    )
    return FunnelSql(depths, parameters.values, ties if tie_possible else None, ties_parameters)


def _matched(query: FunnelQuery, parameters: _Parameters, end: str | None) -> str:
    steps = []
    for k, step in enumerate(query.steps, 1):
        event = parameters.add(step.event) + "::text"
        conditions = "\n".join(_condition(condition, parameters) for condition in step.where)
        steps.append(_PARTS["step"].format(event=event, conditions=conditions, k=k))
    bounds = []
    if query.range.start:
        start = parameters.add(query.range.start) + "::timestamptz"
        bounds.append(_PARTS["since"].format(start=start))
    if end:
        window = _PARTS["window"].format(seconds=parameters.add(float(query.window_s)))
        bounds.append(_PARTS["until"].format(end=end, window=window))
    return _PARTS["matched"].format(
        person=_PARTS["person"], steps=",\n".join(steps), range="\n".join(bounds)
    )


def _condition(condition: Condition, parameters: _Parameters) -> str:
    name = parameters.add(condition.property)
    value = parameters.add(condition.operand) if condition.operand is not None else ""
    return _PARTS[condition.op].format(
        canonical=_PARTS["canonical"].format(property=name),
        numeric=_PARTS["numeric"].format(property=name),
        property=name,
        value=value,
    )


def _ranked(count: int) -> str:
    return _PARTS["ranked"].format(
        low=_case(count, range(1, count + 1), "s{k}"),
        high=_case(count, range(count, 0, -1), "s{k}"),
        any_step=_each(count, lambda k: f"s{k}", " or "),
    )


def _levels(count: int, end: str | None, window: str, tie_possible: bool) -> str:
    entry = _PARTS["entry"].format(end=end) if end else ""
    untied = _PARTS["untied"] if tie_possible else ""
    levels = [_PARTS["level_1"].format(entry=entry, untied=untied)]
    for k in range(2, count + 1):
        levels.append(_PARTS["level"].format(k=k, before=k - 1, window=window))
    return ",\n".join(levels)


def _each(count: int, text: Callable[[int], str], separator: str = ", ") -> str:
    return separator.join(text(k) for k in range(1, count + 1))


def _case(count: int, order: range, test: str) -> str:
    branches = " ".join(f"when {test.format(k=k)} then {k}" for k in order)
    return f"case {branches} else 0 end"
