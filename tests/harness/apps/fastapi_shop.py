"""A shop in FastAPI."""

import asyncio
import os

from fastapi import FastAPI

import analytics_sdk as analytics
from analytics_sdk.integrations.asgi import AnalyticsMiddleware

HAS_ANALYTICS = "BARE_SHOP" not in os.environ


def user_of(scope):
    """Return who makes a request."""
    return dict(scope["headers"])[b"x-user"].decode()


application = FastAPI()
if HAS_ANALYTICS:
    analytics.init()
    application.add_middleware(AnalyticsMiddleware, user_id=user_of)


@application.get("/orders/{number}")
async def order(number: int, user: str):
    """Show an order; others get their turn meanwhile."""
    await asyncio.sleep(0)
    taken = HAS_ANALYTICS and analytics.track("order_viewed", {"number": number, "user": user})
    return {"taken": taken, "pid": os.getpid()}
