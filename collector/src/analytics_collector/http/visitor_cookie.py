"""The cookie in which a browser keeps its `anonymousId`, for pages that forget it.

Browsers throw away what scripts store, Safari after seven days without a visit; a cookie that the
server sets they keep. It is no third-party cookie: `SameSite=Lax` lets it come only with requests
of pages of the collector's own site, and what a page of another site is sent is ignored. No script
reads it, so the answer tells it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from analytics_collector.model import ApiKey

# The one that the SDKs in servers read, too.
NAME: Final = "analytics_anonymous_id"
# 400 days are the longest that browsers keep one.
_MAX_AGE_S: Final = 400 * 86_400
_FOUND: Final = re.compile(rf"(?:^|;)\s*{NAME}=([^;]*)".encode())
# What needs no escaping, whoever writes or reads it.
_ID: Final = re.compile(r"[A-Za-z0-9._~-]{1,255}")


def is_wanted(key: ApiKey, headers: Mapping[bytes, bytes]) -> bool:
    """Return whether the project of *key* remembers its visitors, and this one does not object.

    It is only asked for pages that the key names.
    """
    return key.settings.browser.anonymous_id_cookie and headers.get(b"sec-gpc") != b"1"


def recall(headers: Mapping[bytes, bytes]) -> str:
    """Return the id in the cookie of a request, or "" if it has none that could be one."""
    found = _FOUND.search(headers.get(b"cookie", b""))
    value = found[1].strip(b' "').decode("latin-1") if found else ""
    return value if _ID.fullmatch(value) else ""


def remember(anonymous_id: str, *, is_secure: bool) -> list[tuple[bytes, bytes]]:
    """Return the header that sets the cookie; none for an id that a cookie can't hold."""
    if not _ID.fullmatch(anonymous_id):
        return []
    cookie = f"{NAME}={anonymous_id}; Path=/; Max-Age={_MAX_AGE_S}; HttpOnly; SameSite=Lax"
    return [(b"set-cookie", (cookie + "; Secure" * is_secure).encode())]
