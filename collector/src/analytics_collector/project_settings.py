"""What a project may set for itself: read, checked, and with its defaults.

The form is `_spec/project-settings.json`; what is left out is as that says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib.resources import files
from typing import Any, Final, Literal

import jsonschema_rs
import orjson

from analytics_collector.errors import InvalidQuery
from analytics_collector.wire import wire_name

_SCHEMA: Final = orjson.loads(
    files("analytics_collector").joinpath("_spec/project-settings.json").read_bytes()
)
_VALIDATOR: Final = jsonschema_rs.Draft202012Validator(_SCHEMA)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a project may send; None where the environment of the collector says it."""

    requests_per_minute_per_key: int | None = None
    requests_per_minute: int | None = None
    events_per_minute: int | None = None
    events_per_minute_per_user: int | None = None
    monthly_events: int | None = None


@dataclass(frozen=True, slots=True)
class Schemas:
    """What becomes of an event that its event schema refuses."""

    mode: Literal["off", "warn", "reject"] = "warn"


@dataclass(frozen=True, slots=True)
class Enrichment:
    """Which facts are worked out of what the client said."""

    user_agent: bool = True
    geo: bool = True
    campaign: bool = True
    referrer: bool = True
    local_time: bool = True
    screen: bool = True
    session: bool = True


@dataclass(frozen=True, slots=True)
class Privacy:
    """What is taken out before anything is stored."""

    ip: Literal["full", "truncate", "hash", "drop"] = "truncate"
    deny_properties: tuple[str, ...] = ()
    scrub: tuple[Literal["email", "card", "token"], ...] = ()
    url_query: Literal["keep", "scrub", "campaign"] = "scrub"


@dataclass(frozen=True, slots=True)
class Browser:
    """What the collector does for the browsers of a project's visitors."""

    anonymous_id_cookie: bool = False


@dataclass(frozen=True, slots=True)
class ProjectSettings:
    """All of it."""

    limits: Limits = field(default_factory=Limits)
    schemas: Schemas = field(default_factory=Schemas)
    enrichment: Enrichment = field(default_factory=Enrichment)
    privacy: Privacy = field(default_factory=Privacy)
    browser: Browser = field(default_factory=Browser)


SECTIONS: Final = {
    "limits": Limits,
    "schemas": Schemas,
    "enrichment": Enrichment,
    "privacy": Privacy,
    "browser": Browser,
}
"""The members of `ProjectSettings`, and what each is."""


def read_project_settings(document: Any) -> ProjectSettings:
    """Return the settings that *document*, decoded JSON, holds.

    Raises `InvalidQuery` that names the member at fault.
    """
    try:
        fault = next(_VALIDATOR.iter_errors(document), None)
    except ValueError as exc:
        raise InvalidQuery("settings", "is nested too deeply") from exc
    if fault is not None:
        place = ".".join(["settings", *map(str, fault.instance_path)])
        raise InvalidQuery(place, fault.message)
    sections = {name: _section(kind, document.get(name, {})) for name, kind in SECTIONS.items()}
    return ProjectSettings(**sections)


def merge_project_settings(document: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """Return *document* with *patch* merged into it: member by member, null takes one out.

    What comes out may be invalid; see `read_project_settings`.
    """
    merged = dict(document)
    for section, members in patch.items():
        if isinstance(members, Mapping):
            members = {**merged.get(section, {}), **members}
            merged[section] = {name: value for name, value in members.items() if value is not None}
        elif members is None:
            merged.pop(section, None)
        else:
            merged[section] = members
    return merged


def _section(kind: type[Any], document: Mapping[str, Any]) -> Any:
    values = {}
    for spec in fields(kind):
        value = document.get(wire_name(spec.name))
        if value is not None:
            values[spec.name] = tuple(value) if isinstance(value, list) else value
    return kind(**values)
