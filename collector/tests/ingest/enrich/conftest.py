"""Contexts to read, batches to enrich, and a small geo database."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from analytics_collector.ingest.enrich.geo import GeoDatabase
from analytics_collector.ingest.enrich.seen import Seen, read_context
from analytics_collector.ingest.enrich.stage import Enricher
from analytics_collector.ingest.validate import validate
from analytics_collector.model import NO_SENDER, ApiKey, EventRow, RawBatch, Sender, ValidBatch
from analytics_collector.project_settings import read_project_settings

DATABASES = Path(__file__).parents[2] / "data"
RECEIVED_AT = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)


@pytest.fixture
def city_database() -> Path:
    """Return MaxMind's own test database."""
    return DATABASES / "GeoLite2-City-Test.mmdb"


@pytest.fixture
def seen() -> Callable[..., Seen]:
    """Read a context from its members."""

    def read(**context: Any) -> Seen:
        return read_context(context, NO_SENDER)

    return read


def _batch(*events: dict[str, Any]) -> ValidBatch:
    """Return the valid batch of *events*, received at noon of a Thursday."""
    whole = [{"type": "track", "name": "e", "messageId": str(uuid4()), **event} for event in events]
    return validate(RawBatch(whole, None, exact=True), 1, RECEIVED_AT)


@pytest.fixture(scope="session")
def make_batch() -> Callable[..., ValidBatch]:
    """Make the valid batch of some events, received at noon of a Thursday."""
    return _batch


class Stored:
    """What is stored of one event."""

    def __init__(self, row: EventRow) -> None:
        self.row = row
        self.properties = json.loads(row.properties)
        self.traits = json.loads(row.traits) if row.traits else None
        self.context = json.loads(row.context)
        self.extra = json.loads(row.extra) if row.extra else None
        self.enrichment = json.loads(row.enrichment) if row.enrichment else None


@pytest.fixture(scope="session")
def enricher() -> Enricher:
    """Return the stage, with MaxMind's test database."""
    return Enricher("a secret for tests", GeoDatabase(DATABASES / "GeoLite2-City-Test.mmdb"))


@pytest.fixture
def store(enricher: Enricher) -> Callable[..., Stored]:
    """Enrich one event under a project's settings, and return what is stored of it."""

    def enrich(
        event: dict[str, Any],
        sender: Sender = NO_SENDER,
        project_id: int = 1,
        **settings: dict[str, Any],
    ) -> Stored:
        key = ApiKey(
            1, project_id, frozenset({"ingest"}), None, settings=read_project_settings(settings)
        )
        (row,) = enricher.enrich(_batch(event), key, sender).rows
        return Stored(row)

    return enrich
