"""What kind of place the user came from, by `data/referrers.json`. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from importlib.resources import files
from typing import Any, Final

import orjson

from analytics_collector.ingest.enrich.seen import Seen, fact, short, text

_KINDS: Final = ("search", "social", "email", "ai")
_MAX_HOST_CHARS: Final = 253
# Enough for any host; the cache holds what strangers send.
_MAX_READ_CHARS: Final = 512
_BEFORE_COUNTRY: Final = ("co", "com", "net", "org")  # `.co.uk`, `.com.au`


def referrer(seen: Seen) -> str | None:
    """Return the facts as JSON; None for an event that happened on no page."""
    if seen.page is None:
        return None
    get = seen.page.get
    came_from, url = text(get("referrer")), text(get("url"))
    return _facts(came_from[:_MAX_READ_CHARS], url[:_MAX_READ_CHARS])


def host_of(url: str) -> str:
    """Return the host of *url* in lower case, or "" if it has none that could be one."""
    _, separator, rest = url.partition("://")
    if not separator:
        return ""
    for end in "/?#\\":
        rest, _, _ = rest.partition(end)
    host = rest.rpartition("@")[2]
    if not host.startswith("["):
        host = host.partition(":")[0]
    return host.lower().rstrip(".") if len(host) <= _MAX_HOST_CHARS else ""


@lru_cache(maxsize=4096)
def _facts(came_from: str, url: str) -> str:
    host, own_host = host_of(came_from), host_of(url)
    if not host:
        return fact({"kind": "direct"})
    if own_host and _is_same_site(host, own_host):
        kind, name = "internal", None
    else:
        kind, name = _classify(host)
    facts = {"kind": kind, "name": name, "host": short(host)}
    return fact({key: value for key, value in facts.items() if value})


def _is_same_site(host: str, own_host: str) -> bool:
    host, own_host = host.removeprefix("www."), own_host.removeprefix("www.")
    return host == own_host or host.endswith("." + own_host) or own_host.endswith("." + host)


def _classify(host: str) -> tuple[str, str | None]:
    known = _known_hosts()
    for candidate in _candidates(host):
        if candidate in known:
            return known[candidate]
    return "referral", None


def _candidates(host: str) -> Iterator[str]:
    """Yield the names under which *host* may be known, the longest first."""
    labels = host.split(".")
    for start in range(len(labels)):
        rest = labels[start:]
        yield ".".join(rest)
        yield ".".join([*rest[:-1], "*"])
        if len(rest) > 2 and len(rest[-1]) == 2 and rest[-2] in _BEFORE_COUNTRY:
            yield ".".join([*rest[:-2], "*"])


@lru_cache(maxsize=1)
def _known_hosts() -> dict[str, tuple[str, str | None]]:
    path = files("analytics_collector").joinpath("ingest/enrich/data/referrers.json")
    document: dict[str, Any] = orjson.loads(path.read_bytes())
    return {
        host: (kind, name)
        for kind in _KINDS
        for name, hosts in document[kind].items()
        for host in hosts
    }
