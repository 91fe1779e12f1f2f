"""Take secrets out of the URLs of a page: its query, its fragment, its user information. Pure."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final, Literal
from urllib.parse import unquote_plus

from analytics_collector.ingest.enrich.campaign import CAMPAIGN_PARAMETERS

UrlQuery = Literal["keep", "scrub", "campaign"]

SCRUBBED: Final = "[scrubbed]"
_MEMBERS: Final = ("url", "referrer", "search", "path")
_MAX_CACHED_CHARS: Final = 1024
# No page has more parameters; what is not looked at is not kept.
_MAX_PARAMETERS: Final = 200
# How much of a name or value is searched: patterns that may begin anywhere take long on long ones.
_MAX_SEARCHED_CHARS: Final = 512
# Parts of names, between what separates words: `access_token`, `x-api-key`, `resetToken`.
_SECRET_NAME: Final = re.compile(
    r"(?:^|[_.\-\[])(?:auth|authorization|bearer|code|cookie|credentials?|csrf|hash|hmac|jwt|key|nonce"
    r"|otp|pass|passcode|passwd|password|pin|pwd|secret|session|sessionid|sid|sig|sign|signature"
    r"|ssn|state|ticket|token|xsrf)(?:$|[_.\-\]])"
    r"|token|secret|passw|apikey|api_key|session_?id|signature|credential",
    re.IGNORECASE,
)
_EMAIL_NAME: Final = re.compile(r"e-?mail", re.IGNORECASE)
_SECRET_VALUE: Final = re.compile(
    r"eyJ[\w-]++\.[\w-]*|(?:[a-z]{2,4}_(?:live|test)_|gh[opsu]_|xox[abp]-|sk-)\w{8,}|AKIA[A-Z0-9]{12,}"
    # From where its word begins: tried anywhere it would take as long as the word squared.
    r"|(?<![^@\s])[^@\s]+@[^@\s]+\.\w+"
)
# No word, and no identifier that analyses go by: those are UUIDs or shorter.
_RANDOM: Final = re.compile(r"(?=[^0-9]*[0-9])(?=[^A-Za-z]*[A-Za-z])[\w.~+/=-]{32,}", re.ASCII)
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_USER_INFO: Final = re.compile(r"^([A-Za-z][\w+.-]*:)?//[^/?#\\]*@")


def clean_page(page: Any, mode: UrlQuery) -> Any:
    """Return the page of a context without what *mode* takes out; the same object if nothing is."""
    if mode == "keep":
        return page
    if isinstance(page, str):
        return clean_url(page, mode)
    return _clean_members(page, mode) if isinstance(page, dict) else page


def may_hold_urls(text: str) -> bool:
    """Return whether the JSON *text* of properties may have one where `clean_properties` looks."""
    return '"url"' in text or '"referrer"' in text or '"search"' in text or '"path"' in text


def clean_properties(properties: dict[str, Any], mode: UrlQuery) -> dict[str, Any]:
    """Return *properties* with their URLs, as pages send them, as clean as those of a context.

    The same object if nothing is taken out.
    """
    if mode == "keep":
        return properties
    search = properties.get("search")
    if isinstance(search, str) and not search.startswith("?"):
        # What somebody searched for: a browser's begins with the mark.
        others = {name: value for name, value in properties.items() if name != "search"}
        cleaned = _clean_members(others, mode)
        return properties if cleaned is others else {**properties, **cleaned}
    return _clean_members(properties, mode)


def _clean_members(page: dict[str, Any], mode: UrlQuery) -> dict[str, Any]:
    changed = {}
    for member in _MEMBERS:
        value = page.get(member)
        if value and isinstance(value, str):
            clean = _clean_search if member == "search" else clean_url
            cleaned = clean(value, mode)
            if cleaned is not value:
                changed[member] = cleaned
    return {**page, **changed} if changed else page


def clean_url(url: str, mode: UrlQuery) -> str:
    """Return *url* without what *mode* takes out; the same object if nothing is."""
    if "?" not in url and "#" not in url and "@" not in url:
        return url
    cleaned = _cached(url, mode) if len(url) <= _MAX_CACHED_CHARS else _clean(url, mode)
    return url if cleaned == url else cleaned


def _clean_search(search: str, mode: UrlQuery) -> str:
    if search.startswith("?"):
        return clean_url(search, mode)
    cleaned = clean_url("?" + search, mode).removeprefix("?")
    return search if cleaned == search else cleaned


def _clean(url: str, mode: UrlQuery) -> str:
    url, hash_mark, fragment = url.partition("#")
    url, question_mark, query = url.partition("?")
    if "@" in url:
        url = _USER_INFO.sub(lambda match: f"{match[1] or ''}//", url)
    if query:
        query = _clean_query(query, mode)
    # Some sign-ins hand their tokens over in the fragment, and some applications keep their
    # whole address there.
    if "=" in fragment:
        before, inner_mark, inner = fragment.rpartition("?")
        fragment = before + inner_mark + _clean_query(inner, mode)
        fragment = fragment.removesuffix("?")
    return (
        url
        + (question_mark and query and f"?{query}")
        + (hash_mark and fragment and f"#{fragment}")
    )


_cached = lru_cache(maxsize=4096)(_clean)


def _clean_query(query: str, mode: UrlQuery) -> str:
    parts = query.split("&", _MAX_PARAMETERS)[:_MAX_PARAMETERS]
    if mode == "campaign":
        return "&".join(
            part for part in parts if _decoded_name(part.partition("=")[0]) in CAMPAIGN_PARAMETERS
        )
    return "&".join(_without_secret(part) for part in parts)


def _without_secret(part: str) -> str:
    raw_name, equals, value = part.partition("=")
    if not value:
        # A link may carry a bare token: `/reset?3f9c…`.
        return SCRUBBED if _looks_secret(unquote_plus(part)) else part
    name = _decoded_name(raw_name)
    if name in CAMPAIGN_PARAMETERS:
        return part
    if _SECRET_NAME.search(name) or _EMAIL_NAME.search(name) or _looks_secret(unquote_plus(value)):
        return f"{raw_name}{equals}{SCRUBBED}"
    return part


def _looks_secret(value: str) -> bool:
    if _SECRET_VALUE.search(value[:_MAX_SEARCHED_CHARS]):
        return True
    return bool(_RANDOM.fullmatch(value)) and not _UUID.fullmatch(value)


def _decoded_name(raw_name: str) -> str:
    return unquote_plus(raw_name[:_MAX_SEARCHED_CHARS]).lower()
