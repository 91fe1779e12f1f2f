"""Browser, operating system, kind of device and whether it is a program, of a user agent. Pure."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

from ua_parser import parse

from analytics_collector.ingest.enrich.seen import Seen, fact, short

# The longest that real browsers send; what is longer costs time and tells no more.
_MAX_CHARS: Final = 512
# Crawlers name themselves so; below them programs that fetch pages for nobody in front of them.
# CUBOT is a maker of telephones.
_BOT: Final = re.compile(
    r"(?<!cu)bot\b|bot[/;_-]|crawl|spider|slurp|archiver|headless|lighthouse|facebookexternalhit"
    r"|preview|monitor|pingdom|uptime|phantomjs|mediapartners|google-read-aloud|bytespider"
    r"|^(?:curl|wget|python|go-http-client|java/|okhttp|axios|node|ruby|php|perl|libwww|httpie"
    r"|postman|insomnia|aiohttp|scrapy|guzzle|apache-httpclient|k6/|undici|got |deno|bun/)"
    r"|chatgpt-user|perplexity-user|claude-user|cohere-ai",
    re.IGNORECASE,
)
_TV: Final = re.compile(
    r"smart-?tv|apple ?tv|google ?tv|hbbtv|netcast|web0s|webos\.tv|tizen.*tv|\baft[a-z]+\b|roku"
    r"|bravia|crkey",
    re.IGNORECASE,
)
_CONSOLE: Final = re.compile(r"playstation|xbox|nintendo", re.IGNORECASE)
_TABLET: Final = re.compile(r"ipad|tablet|kindle|silk/|playbook", re.IGNORECASE)
_MOBILE: Final = re.compile(r"mobi|iphone|ipod|windows phone|blackberry|opera mini", re.IGNORECASE)
_DESKTOP: Final = re.compile(r"windows nt|macintosh|x11|cros|linux x86_64", re.IGNORECASE)


def user_agent(seen: Seen) -> str | None:
    """Return the facts as JSON; None where no user agent is known."""
    return _facts(seen.user_agent[:_MAX_CHARS]) if seen.user_agent else None


def warm_up() -> None:
    """Compile the patterns of the library, which takes a third of a second, before it matters."""
    parse("")


@lru_cache(maxsize=8192)
def _facts(value: str) -> str:
    found = parse(value)
    is_bot = bool(_BOT.search(value)) or (
        found.device is not None and found.device.family == "Spider"
    )
    facts: dict[str, Any] = {}
    if found.user_agent is not None:
        facts["browser"] = _product(found.user_agent)
    if found.os is not None:
        facts["os"] = _product(found.os)
    if found.device is not None and not is_bot:
        device = {"brand": found.device.brand, "model": found.device.model}
        facts["device"] = {name: short(part) for name, part in device.items() if part}
    facts["deviceType"] = "bot" if is_bot else _device_type(value)
    facts["bot"] = is_bot
    return fact(facts)


def _product(found: Any) -> dict[str, str]:
    product = {"name": short(found.family)}
    version = ".".join(part for part in (found.major, found.minor) if part)
    if version:
        product["version"] = short(version)
    return product


def _device_type(value: str) -> str:
    if _TV.search(value):
        return "tv"
    if _CONSOLE.search(value):
        return "console"
    # Android says "Mobile" on telephones only.
    if _TABLET.search(value) or ("Android" in value and "Mobi" not in value):
        return "tablet"
    if _MOBILE.search(value):
        return "mobile"
    return "desktop" if _DESKTOP.search(value) else "other"
