"""How a program that tracks is tested: pytest gives each test the events that it caused.

Run it in this folder: `pytest test_checkout_example.py`. The fixture comes with the package, and
needs its extra `testing`.
"""

from __future__ import annotations

from unittest.mock import ANY

import pytest
from typed_events import checkout

import analytics_sdk as analytics
from analytics_sdk.testing import Recorder, capture_events


def test_an_order_is_tracked(analytics_events: Recorder) -> None:
    """With its number, its value and what is in it; once."""
    order_id = checkout.buy("u-1", {"tea": 2})

    analytics_events.assert_tracked(
        "checkout_completed",
        {"orderId": order_id, "cartValue": 9.0, "items": [{"sku": "tea", "quantity": 2}]},
        user_id="u-1",
        times=1,
    )


def test_a_coupon_is_tracked_with_the_price_that_was_paid(analytics_events: Recorder) -> None:
    """What a test does not know or not care about is left to matchers."""
    checkout.buy("u-1", {"tea": 2}, coupon="WELCOME")

    analytics_events.assert_tracked(
        "checkout_completed", {"orderId": ANY, "cartValue": pytest.approx(8.1), "coupon": "WELCOME"}
    )


def test_without_a_coupon_none_is_sent(analytics_events: Recorder) -> None:
    """The events are plain dicts, as they go on the wire."""
    checkout.buy("u-1", {"mug": 1})

    [event] = analytics_events.named("checkout_completed")
    assert "coupon" not in event["properties"]


def test_an_empty_cart_is_no_order(analytics_events: Recorder) -> None:
    """What is not tracked can be claimed as well."""
    checkout.view("u-1", {})
    with pytest.raises(ValueError, match="empty"):
        checkout.buy("u-1", {})

    analytics_events.assert_not_tracked("checkout_completed")
    analytics_events.assert_tracked("cart_viewed", {"itemCount": 0})


def test_events_of_a_block(analytics_events: Recorder) -> None:
    """Without pytest, or for a part of a test: a block that has its own events."""
    with capture_events() as events, analytics.context(session_id="s-1"):
        checkout.view("u-1", {"tea": 1, "mug": 3})

    events.assert_tracked("cart_viewed", {"itemCount": 4}, session_id="s-1")
    analytics_events.assert_nothing_tracked()
