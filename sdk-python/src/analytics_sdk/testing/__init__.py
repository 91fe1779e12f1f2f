"""For tests of programs that track: events are recorded instead of sent, and checked.

    def test_checkout():
        with capture_events() as events:
            checkout("o-1")

        events.assert_tracked("checkout_completed", {"orderId": "o-1"}, user_id="u-1")

With pytest the fixture `analytics_events` does the same. Needs jsonschema-rs, for every event is
checked against the schema by which the collector judges it.
"""

from __future__ import annotations

from analytics_sdk.testing.client import RecordingClient, capture_events
from analytics_sdk.testing.recorder import Recorder

__all__ = ["Recorder", "RecordingClient", "capture_events"]
