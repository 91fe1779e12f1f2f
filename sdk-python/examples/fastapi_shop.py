"""A shop in one file of FastAPI, with product analytics.

    export ANALYTICS_API_KEY=ak_live_... ANALYTICS_API_URL=http://127.0.0.1:8000
    uvicorn fastapi_shop:app --port 8080

    curl -H 'authorization: Bearer ada' -X POST http://127.0.0.1:8080/orders/teapot

Each request is an event, `POST /orders/{product}`, with user, session, duration and outcome; so is
the order itself.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import BackgroundTasks, FastAPI, HTTPException
from starlette.requests import Request

import analytics_sdk as analytics
from analytics_sdk.integrations.asgi import AnalyticsMiddleware

PRICES = {"teapot": 42.5, "cup": 7.0}


def customer_of(scope: MutableMapping[str, Any]) -> str | None:
    """Return whose token it is; a real shop looks more closely."""
    kind, _, name = Request(scope).headers.get("authorization", "").partition(" ")
    return name if kind == "Bearer" else None


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Make the client from the environment before the first request, so that mistakes show."""
    analytics.init()
    yield


app = FastAPI(lifespan=lifespan)
app.add_middleware(AnalyticsMiddleware, user_id=customer_of, ignore=["/health"])


def send_mail(product: str) -> None:
    """Thank the customer, after the answer; the event still knows whose order it was."""
    analytics.track("mail_sent", {"about": product})


@app.post("/orders/{product}")
async def order(product: str, tasks: BackgroundTasks) -> dict[str, Any]:
    """Sell one."""
    if product not in PRICES:
        raise HTTPException(404, "we have none")
    analytics.track("order_placed", {"product": product, "price": PRICES[product]})
    tasks.add_task(send_mail, product)
    return {"sold": product}


@app.get("/health")
def health() -> dict[str, Any]:
    """Answer the load balancer, of whom analytics need not know."""
    return {"status": "ok"}
