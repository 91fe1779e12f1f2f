"""The event schemas of one project, ready to be asked."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from analytics_collector.errors import InvalidQuery
from analytics_collector.interfaces import StoredPlan, StoredSchema
from analytics_collector.schemas.compiled import compiled
from analytics_collector.schemas.document import expanded
from analytics_collector.schemas.explain import Explainer

logger = logging.getLogger(__name__)

UNKNOWN_REVISION: Final = -1


@dataclass(frozen=True, slots=True)
class EventCheck:
    """One schema: `is_valid` tells whether properties, or traits, are as it wants them."""

    version: int
    mode: str | None
    """None: as the project has it."""
    is_valid: Callable[[Any], bool]
    explainer: Explainer


@dataclass(slots=True)
class Plan:
    """All schemas of a project, by the name of the event, as they were at `revision`."""

    revision: int
    checks: dict[str, EventCheck]
    was_used: bool = field(default=True)
    """Set by those who use it, so that it can be forgotten if nobody does."""

    @property
    def is_known(self) -> bool:
        """Whether it could be loaded at all."""
        return self.revision != UNKNOWN_REVISION


def unknown_plan() -> Plan:
    """Return what stands for the schemas of a project while they can't be loaded."""
    return Plan(UNKNOWN_REVISION, {})


def compile_plan(stored: StoredPlan, before: Plan | None = None) -> Plan:
    """Return the plan of what is *stored*; schemas that *before* has already are kept from it."""
    checks = {}
    known = {} if before is None else before.checks
    for schema in stored.schemas:
        check = known.get(schema.name)
        if check is None or check.version != schema.version:
            check = _compile(schema)
        elif check.mode != schema.mode:
            check = EventCheck(check.version, schema.mode, check.is_valid, check.explainer)
        if check is not None:
            checks[schema.name] = check
    return Plan(stored.revision, checks)


def _compile(stored: StoredSchema) -> EventCheck | None:
    schema = expanded(orjson.loads(stored.document))
    try:
        validator = compiled(schema)
    except InvalidQuery as exc:
        # It was registered by a version of this program that saw it otherwise. One schema that
        # can't be used must not take the others with it.
        logger.error("An event schema can't be used", extra={"reason": str(exc)[:200]})
        return None
    return EventCheck(stored.version, stored.mode, validator.is_valid, Explainer(schema))
