"""Who is asking, and may they: the one place that reads `x-api-key`."""

from __future__ import annotations

from starlette.requests import Request

from analytics_collector.errors import Refusal
from analytics_collector.model import ApiKey


async def authorize(request: Request, scope: str) -> ApiKey:
    """Return the key of *request*; `Refusal` if there is none, or none with *scope*."""
    values = [value for name, value in request.scope["headers"] if name == b"x-api-key"]
    if len(values) != 1:
        raise Refusal("AUTH_FAILED")
    key = await request.app.state.services.keys.find(values[0])
    if key is None:
        raise Refusal("AUTH_FAILED")
    if scope not in key.scopes:
        raise Refusal("INSUFFICIENT_SCOPE", f"This needs a key with the scope `{scope}`.")
    found: ApiKey = key
    return found
