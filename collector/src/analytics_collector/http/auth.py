"""Who is asking, and may they: the one place that reads `x-api-key`."""

from __future__ import annotations

import re
from typing import Any, Final

from starlette.requests import Request

from analytics_collector.errors import Refusal, StoreUnavailable
from analytics_collector.model import ApiKey
from analytics_collector.origins import allows

# Where the scope of a request may hold a function that is told, as soon as it is known, whether
# the key is valid: True, False, or None if that could not be looked up.
ON_KEY_CHECK: Final = "analytics_on_key_check"


async def authorize(request: Request, scope: str, *, is_use: bool = True) -> ApiKey:
    """Return the key of *request*, and count a use of it, unless it is only looked at again.

    `Refusal` if there is none, none with *scope*, or none that a page of this origin may use.
    """
    values = []
    origins = []
    for name, value in request.scope["headers"]:
        if name == b"x-api-key":
            values.append(value)
        elif name == b"origin":
            origins.append(value)
    if len(values) != 1:
        raise Refusal("AUTH_FAILED")
    key = await _find(request, values[0], is_use)
    if key is None:
        raise Refusal("AUTH_FAILED")
    if scope not in key.scopes:
        raise Refusal("INSUFFICIENT_SCOPE", f"This needs a key with the scope `{scope}`.")
    for origin in origins:
        if not allows(key.allowed_origins, origin):
            raise Refusal("ORIGIN_NOT_ALLOWED")
    return key


def within(key: ApiKey) -> int | None:
    """Return the id of the one project that *key* looks after, or None for all."""
    return None if key.of_installation else key.project_id


def project_asked(asked: Any, key: ApiKey) -> int:
    """Return the id of the project that *asked*, text of an address or decoded JSON, names.

    `Refusal` (NOT_FOUND) if *key* does not look after it.
    """
    if isinstance(asked, str) and re.fullmatch("[0-9]{1,18}", asked):
        asked = int(asked)
    if type(asked) is int and asked == key.project_id:
        return asked
    if type(asked) is int and key.of_installation and 0 < asked < 10**18:
        return asked
    raise Refusal("NOT_FOUND", "There is no project of that id.")


async def _find(request: Request, value: bytes, is_use: bool) -> ApiKey | None:
    keys = request.app.state.services.keys
    tell = request.scope.get(ON_KEY_CHECK)
    try:
        key: ApiKey | None = await (keys.find if is_use else keys.peek)(value)
    except StoreUnavailable:
        if tell is not None:
            tell(None)
        raise
    if tell is not None:
        tell(key is not None)
    return key
