"""The Django app: nothing but system checks, and the default client for commands and tasks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from difflib import get_close_matches
from inspect import signature
from typing import Any, Final

from django.apps import AppConfig
from django.conf import settings
from django.core import checks

import analytics_sdk
from analytics_sdk.client import Client
from analytics_sdk.config import load
from analytics_sdk.errors import ConfigError
from analytics_sdk.integrations._options import GivenOptions, checked_options
from analytics_sdk.integrations.django import configured, settings_given

MIDDLEWARE: Final = "analytics_sdk.integrations.django.AnalyticsMiddleware"
SESSIONS: Final = "django.contrib.sessions.middleware.SessionMiddleware"


class AnalyticsConfig(AppConfig):  # type: ignore[misc]
    """`INSTALLED_APPS = ["analytics_sdk.integrations.django"]` finds it."""

    name = "analytics_sdk.integrations.django"
    # Projects call apps of their own "analytics".
    label = "analytics_sdk"
    verbose_name = "Analytics"

    def ready(self) -> None:
        """Register the checks, and make the client; what is wrong is for the checks to tell."""
        checks.register(check_analytics, "analytics")
        with suppress(ConfigError):
            configured()


def check_analytics(**_: Any) -> list[Any]:
    """Return what is wrong with `ANALYTICS`, and what to do about it."""
    return [*_errors(), *_warnings(list(settings.MIDDLEWARE))]


def _errors() -> Iterator[Any]:
    given = getattr(settings, "ANALYTICS", {})
    known = (*signature(Client).parameters, *GivenOptions.__annotations__)
    for name in given if isinstance(given, Mapping) else ():
        if name in known:
            continue
        alike = get_close_matches(str(name), known, n=1)
        hint = f"Did you mean {alike[0]!r}?" if alike else f"There are: {', '.join(known)}."
        yield checks.Error(f"ANALYTICS has no option {name!r}.", hint=hint, id="analytics.E002")
    for mistake in _mistakes(known):
        is_access = mistake.startswith(("api_key", "api_url"))
        yield checks.Error(
            f"ANALYTICS: {mistake}",
            hint=(
                'ANALYTICS = {"api_key": "ak_live_...", "api_url": "http://127.0.0.1:8000"}; '
                'in tests {"enabled": False} will do.'
                if is_access
                else "The module analytics_sdk.integrations.django says what may stand here."
            ),
            id="analytics.E001" if is_access else "analytics.E003",
        )


def _mistakes(known: Iterable[str]) -> Iterator[str]:
    try:
        for_client, options = settings_given()
    except ConfigError as error:
        yield from error.mistakes
        return
    # A client of the project's own, or one that it made by init(), has no settings here.
    is_elsewhere = options.get("client") or analytics_sdk._default.get()
    pairs: list[tuple[Any, dict[str, Any]]] = [
        (checked_options, {name: options[name] for name in options if name in known})
    ]
    if for_client or not is_elsewhere:
        pairs.append((load, for_client))
    for check, values in pairs:
        try:
            check(values)
        except ConfigError as error:
            yield from error.mistakes


def _warnings(middleware: list[str]) -> Iterator[Any]:
    if MIDDLEWARE not in middleware:
        yield checks.Warning(
            "The analytics app is installed, but not its middleware.",
            hint=f"Put {MIDDLEWARE!r} first in MIDDLEWARE, or take the app out.",
            id="analytics.W001",
        )
    elif SESSIONS in middleware and middleware.index(SESSIONS) < middleware.index(MIDDLEWARE):
        yield checks.Warning(
            "AnalyticsMiddleware stands behind SessionMiddleware.",
            hint=(
                "Put it first in MIDDLEWARE. Where it stands, to look up the user for an event is "
                "to access the session, so that every answer gets `Vary: Cookie`."
            ),
            id="analytics.W002",
        )
