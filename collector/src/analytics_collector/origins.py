"""Which web pages may use a key from a browser: origins, as the header `Origin` names them.

An origin is `scheme://host` or `scheme://host:port`, such as `https://shop.example.org`. In
`https://*.example.org` the star stands for any subdomain, but not for none.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

from analytics_collector.errors import InvalidQuery

MAX_ORIGINS: Final = 50
MAX_ORIGIN_CHARS: Final = 255
_LABEL: Final = "[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?"
_ORIGIN: Final = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://"
    rf"(?P<host>(?:\*\.)?{_LABEL}(?:\.{_LABEL})*|\[[0-9a-f:.]+\])"
    r"(?P<port>:[0-9]{1,5})?"
)
# A browser leaves out the port that its scheme implies.
_IMPLIED: Final = {"http": ":80", "https": ":443"}


def read_origins(value: Any, field: str = "allowedOrigins") -> list[str] | None:
    """Return the origins that *value*, decoded JSON, lists, each once; None is any.

    Raises `InvalidQuery` that names *field*.
    """
    if value is None:
        return None
    if not isinstance(value, list) or len(value) > MAX_ORIGINS:
        raise InvalidQuery(field, f"must be null (any) or a list of at most {MAX_ORIGINS} origins")
    return list(dict.fromkeys(_read_origin(entry, field) for entry in value))


@lru_cache(maxsize=4_096)
def allows(allowed: tuple[str, ...] | None, origin: bytes) -> bool:
    """Return whether a page of *origin*, as its header has it, may use a key that allows these."""
    if allowed is None:
        return True
    name = origin.decode("latin-1").lower()
    return any(_matches(pattern, name) for pattern in allowed)


def names(allowed: tuple[str, ...] | None, origin: bytes) -> bool:
    """Return whether *origin* itself is among these: not by a star, nor because any is allowed."""
    return allowed is not None and origin.decode("latin-1").lower() in allowed


def _matches(pattern: str, name: str) -> bool:
    before, star, after = pattern.partition("*")
    if not star:
        return name == pattern
    # What the star stands for must be one host's beginning, or `evil.org/.example.org` would do.
    rest = name.removeprefix(before).removesuffix(after)
    return name == f"{before}{rest}{after}" and bool(re.fullmatch(r"[a-z0-9_.-]+", rest))


def _read_origin(entry: Any, field: str) -> str:
    match = None
    if isinstance(entry, str) and len(entry) <= MAX_ORIGIN_CHARS:
        match = _ORIGIN.fullmatch(entry.lower().removesuffix("/"))
    if match is None:
        raise InvalidQuery(
            field, "an origin reads like https://shop.example.org or https://*.example.org"
        )
    scheme, host, port = match["scheme"], match["host"], match["port"] or ""
    return f"{scheme}://{host}{'' if port == _IMPLIED.get(scheme) else port}"
