"""Errors that are logged become events: of the user, and without what is private in them.

ANALYTICS_API_URL=http://127.0.0.1:8000 ANALYTICS_API_KEY=ak_live_... python logging_events.py
"""

import logging

import analytics_sdk as analytics
from analytics_sdk.integrations.logging import AnalyticsHandler

logging.basicConfig(level=logging.INFO)
logging.getLogger().addHandler(AnalyticsHandler())

logger = logging.getLogger("shop")


def pay(order, card):
    """Log what happens. Neither the order nor the card ends up in an event."""
    logger.info("Paying order %s", order)
    logger.error("Card of order %s was declined", order, extra={"analytics": {"method": "card"}})
    try:
        print(len(card) / 0)
    except ZeroDivisionError:
        logger.exception("Receipt not printed")


if __name__ == "__main__":
    with analytics.context(user_id="u-1"):
        pay(order=17, card="4000 0000 0000 0002")
