"""Enrichment: run the steps that a project has switched on, and make one JSON text of them. Pure,
but for the file of the geo database.

The facts of closed sets (user agent, place, time of day, screen) are worked out of what the client
sent. Then members and patterns that the project denies are taken out, then the facts that quote
the client (campaign, referrer) are read, and at last URLs are cleaned and addresses shortened.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, NamedTuple

import orjson

from analytics_collector.ingest.enrich.address import kept_address
from analytics_collector.ingest.enrich.campaign import campaign
from analytics_collector.ingest.enrich.geo import GeoDatabase
from analytics_collector.ingest.enrich.local_time import local_time
from analytics_collector.ingest.enrich.referrer import referrer
from analytics_collector.ingest.enrich.screen import screen
from analytics_collector.ingest.enrich.scrub import Scrubber
from analytics_collector.ingest.enrich.seen import Seen, fact, read_context
from analytics_collector.ingest.enrich.urls import clean_page, clean_properties, may_hold_urls
from analytics_collector.ingest.enrich.user_agent import user_agent, warm_up
from analytics_collector.model import ApiKey, EventRow, Sender, ValidBatch
from analytics_collector.project_settings import ProjectSettings

_Step = Callable[[Seen], str | None]

# A row is built anew from its members up to here and the five that may have changed.
_KEPT: Final = EventRow._fields.index("properties")
assert EventRow._fields[_KEPT:] == ("properties", "traits", "context", "extra", "enrichment")


class _Known(NamedTuple):
    """What was worked out of one context, for all events of a batch that share it."""

    facts: str
    """JSON members, joined by commas, each with one before it."""
    context: str
    timezone: str


class Enricher:
    """The stage. Geography needs *geo*, and hashed addresses the server's *secret*."""

    def __init__(self, secret: str, geo: GeoDatabase | None = None) -> None:
        self._secret = secret.encode()
        self._geo = geo
        self._plans: dict[int, _Plan] = {}
        warm_up()

    def enrich(self, batch: ValidBatch, key: ApiKey, sender: Sender) -> ValidBatch:
        """Return *batch* with what was worked out of its events, without what may not be stored.

        *sender* stands in for an address or user agent that an event does not name.
        """
        if not batch.rows:
            return batch
        if self._geo is not None:
            self._geo.refresh()
        plan = self._plan(key)
        rows = plan.enrich(batch, sender)
        return ValidBatch(rows, batch.indexes, batch.events, batch.rejected)

    def _plan(self, key: ApiKey) -> _Plan:
        plan = self._plans.get(key.project_id)
        if plan is None or (plan.settings is not key.settings and plan.settings != key.settings):
            plan = _Plan(key.project_id, key.settings, self._secret, self._geo)
            self._plans[key.project_id] = plan
        return plan


class _Plan:
    """What one project's settings ask for."""

    def __init__(
        self, project_id: int, settings: ProjectSettings, secret: bytes, geo: GeoDatabase | None
    ) -> None:
        self.settings = settings
        self._privacy = settings.privacy
        # An address has another hash in each project.
        self._ip_secret = b"%d " % project_id + secret
        self._scrubber = Scrubber(self._privacy.deny_properties, self._privacy.scrub)
        self._scrubs = bool(self._scrubber)
        self._cleans_urls = self._privacy.url_query != "keep"
        on = settings.enrichment
        self._local_time = on.local_time
        self._closed_steps: list[tuple[str, _Step]] = []
        if on.user_agent:
            self._closed_steps.append((',"userAgent":', user_agent))
        if on.geo and geo is not None:
            self._closed_steps.append((',"geo":', lambda seen: geo.facts(seen.ip)))
        if on.screen:
            self._closed_steps.append((',"screen":', screen))
        self._quoting_steps: list[tuple[str, _Step]] = []
        if on.campaign:
            self._quoting_steps.append((',"campaign":', campaign))
        if on.referrer:
            self._quoting_steps.append((',"referrer":', referrer))

    def enrich(self, batch: ValidBatch, sender: Sender) -> list[EventRow]:
        """Return the rows of *batch* as they are to be stored."""
        known: dict[str, _Known] = {}
        rows = []
        for row, event in zip(batch.rows, batch.events, strict=True):
            context = known.get(row.context)
            if context is None:
                context = self._read(event.get("context"), row.context, sender, row.received_at)
                known[row.context] = context
            facts = context.facts
            if self._local_time and context.timezone:
                value = local_time(context.timezone, row.timestamp)
                facts += f',"localTime":{value}' if value else ""
            rows.append(self._row(row, context.context, facts))
        return rows

    def _row(self, row: EventRow, context: str, facts: str) -> EventRow:
        enrichment = f"{{{facts[1:]}}}" if facts else None
        properties, traits, extra = row.properties, row.traits, row.extra
        if self._scrubs:
            properties = self._scrubber.clean(properties)
            traits = traits and self._scrubber.clean(traits)
            extra = extra and self._scrubber.clean(extra)
        # What `clean_url` looks for, asked here since nearly all events have none of it.
        if self._cleans_urls and ("?" in properties or "#" in properties or "@" in properties):
            properties = self._without_urls(properties)
        if not (facts or self._scrubs) and context is row.context and properties is row.properties:
            return row
        return EventRow._make((*row[:_KEPT], properties, traits, context, extra, enrichment))

    def _read(
        self, context: dict[str, Any] | None, text: str, sender: Sender, received_at: datetime
    ) -> _Known:
        """Return what *context*, whose JSON is *text*, makes of the event it belongs to."""
        seen = read_context(context, sender)
        facts = ""
        for start, step in self._closed_steps:
            if value := step(seen):
                facts += start + value
        context = context or {}
        kept = context
        if self._scrubber and (cleaned := self._scrubber.clean(text)) is not text:
            kept = orjson.loads(cleaned)
            seen = read_context(kept, sender)
        for start, step in self._quoting_steps:
            if value := step(seen):
                facts += start + value
        said_ip = context.get("ip")
        if not said_ip and sender.ip:
            address = self._kept_address(sender.ip, received_at)
            facts += f',"ip":{fact(address)}' if address else ""
        kept = self._without_secrets(kept, received_at)
        return _Known(
            facts, text if kept is context else orjson.dumps(kept).decode(), seen.timezone
        )

    def _without_urls(self, text: str) -> str:
        if not may_hold_urls(text):
            return text
        properties = orjson.loads(text)
        cleaned = clean_properties(properties, self._privacy.url_query)
        return text if cleaned is properties else orjson.dumps(cleaned).decode()

    def _kept_address(self, ip: str, received_at: datetime) -> str | None:
        return kept_address(ip, self._privacy.ip, self._ip_secret, received_at)

    def _without_secrets(self, context: dict[str, Any], received_at: datetime) -> dict[str, Any]:
        """Return *context* with clean URLs and what is kept of its address."""
        page, ip = context.get("page"), context.get("ip")
        cleaned = clean_page(page, self._privacy.url_query)
        address = self._kept_address(ip, received_at) if ip else ip
        if cleaned is page and address == ip:
            return context
        context = context.copy()
        if page is not None:
            context["page"] = cleaned
        if address:
            context["ip"] = address
        else:
            context.pop("ip", None)
        return context
