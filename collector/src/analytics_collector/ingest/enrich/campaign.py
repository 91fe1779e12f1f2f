"""Which campaign brought the user: UTM parameters, click ids, and what the client says. Pure."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote_plus

from analytics_collector.ingest.enrich.seen import Seen, fact, short, text

UTM: Final = {
    "utm_source": "source",
    "utm_medium": "medium",
    "utm_campaign": "name",
    "utm_term": "term",
    "utm_content": "content",
    "utm_id": "id",
}
# Google (gclid, gbraid, wbraid, dclid), Meta, Microsoft, TikTok, LinkedIn, X, Snap, Pinterest,
# Reddit, Yandex, Instagram.
CLICK_IDS: Final = frozenset(
    {"gclid", "gbraid", "wbraid", "dclid", "fbclid", "msclkid", "ttclid", "li_fat_id", "twclid"}
    | {"sccid", "epik", "rdt_cid", "yclid", "igshid"}
)
CAMPAIGN_PARAMETERS: Final = CLICK_IDS | UTM.keys()
_SAID: Final = ("source", "medium", "name", "term", "content")
# Longer queries are read up to here: the cache holds them, and strangers choose them.
_MAX_QUERY_CHARS: Final = 2048
_Pairs = tuple[tuple[str, str], ...]


def campaign(seen: Seen) -> str | None:
    """Return the facts as JSON; None where there is no trace of a campaign.

    What the client says of the campaign goes before what its URL says.
    """
    said: _Pairs = ()
    if seen.campaign:
        get = seen.campaign.get
        said = tuple((name, short(value)) for name in _SAID if (value := text(get(name))))
    page = seen.page
    if page is None:
        return _facts(said, "") if said else None
    query = text(page.get("url")).partition("?")[2] or text(page.get("search")).removeprefix("?")
    if not said and "=" not in query:
        return None
    return _facts(said, query[:_MAX_QUERY_CHARS])


@lru_cache(maxsize=2048)
def _facts(said: _Pairs, query: str) -> str | None:
    facts: dict[str, Any] = {}
    click_ids: dict[str, str] = {}
    for name, value in parameters(query):
        if name in UTM:
            facts.setdefault(UTM[name], short(value))
        elif name in CLICK_IDS:
            click_ids.setdefault(name, short(value))
    facts.update(said)
    if click_ids:
        facts["clickIds"] = click_ids
    return fact(facts) if facts else None


def parameters(query: str) -> list[tuple[str, str]]:
    """Return the parameters of *query* that have a value, names in lower case."""
    query, _, _ = query.partition("#")
    pairs = []
    for part in query.split("&"):
        name, _, value = part.partition("=")
        if value:
            pairs.append((unquote_plus(name).lower(), unquote_plus(value)))
    return pairs
