"""What the collector works out has the form that the specification gives it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import orjson
import pytest

from analytics_collector.errors import Refusal
from analytics_collector.ingest import decode
from analytics_collector.ingest.validate import validate
from analytics_collector.model import NO_SENDER, ApiKey, Sender, ValidBatch

ROOT = Path(__file__).parents[4]
IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 "
    "(KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1"
)
SENDERS = [NO_SENDER, Sender("81.2.69.142", IPHONE), Sender("2001:218::1", "Googlebot/2.1")]
CONTEXTS = [
    {"timezone": "America/St_Johns", "screen": {"width": 390, "height": 844}, "page": "/?gclid=1"},
    {"page": {"url": "https://a.example/?utm_id=7&UTM_TERM=t", "referrer": "https://x.com/a"}},
    {"campaign": {"source": "s", "medium": "m", "name": "n"}, "screen": {"width": 9, "height": 9}},
    *({"screen": {"width": shorter, "height": 2_000}} for shorter in (700, 1_000, 1_200)),
]


def corpus() -> Iterator[bytes]:
    """Yield every body that is kept for tests, as it is when it is inflated."""
    for path in sorted((ROOT / "tests" / "corpus").iterdir()):
        body = path.read_bytes()
        try:
            yield decode.inflate(body) if body.startswith(b"\x1f\x8b") else body
        except (Refusal, gzip.BadGzipFile):
            continue
    for case in json.loads((ROOT / "spec/vectors/event.json").read_bytes())["cases"]:
        if "event" in case["given"]:
            yield orjson.dumps({"batch": [case["given"]["event"]]})


def valid_batches(make_batch: Any, received_at: Any) -> Iterator[ValidBatch]:
    for body in corpus():
        try:
            yield validate(decode.parse(body), 1, received_at)
        except Refusal:
            continue
    yield make_batch(*({"context": context} for context in CONTEXTS))


@pytest.mark.parametrize("sender", SENDERS, ids=["server", "phone", "bot"])
def test_what_is_worked_out_has_the_form_of_the_specification(
    enricher, make_batch, enrichment_form, sender
):
    """EVT-34: of every event that is kept for tests; each member of the form was seen."""
    received_at = make_batch({}).rows[0].received_at
    key = ApiKey(1, 1, frozenset(), None)
    batches = valid_batches(make_batch, received_at)
    rows = chain.from_iterable(enricher.enrich(batch, key, sender).rows for batch in batches)
    found = [orjson.loads(row.enrichment) for row in rows if row.enrichment]

    for enrichment in found:
        enrichment_form(enrichment)
    members = set(chain.from_iterable(found))
    assert {"campaign", "referrer", "localTime", "screen", "userAgent"} <= members
