"""A shop in one file of Flask, with product analytics.

    export ANALYTICS_API_KEY=ak_live_... ANALYTICS_API_URL=http://127.0.0.1:8000
    flask --app flask_shop run --port 8080

    curl -c jar -b jar -X POST http://127.0.0.1:8080/login/ada
    curl -c jar -b jar -X POST http://127.0.0.1:8080/orders/teapot

Each request is an event, `POST /orders/{product}`, with user, session, duration and outcome; so is
the order itself.
"""

from __future__ import annotations

import os
from typing import Any

from flask import Flask, Request, session

import analytics_sdk as analytics
from analytics_sdk.integrations.flask import Analytics

PRICES = {"teapot": 42.5, "cup": 7.0}


def customer_of(request: Request) -> str | None:
    """Return who is logged in."""
    return session.get("customer")


extension = Analytics(user_id=customer_of, ignore=["/health"])


def create_app() -> Flask:
    """Make the shop; `flask run` finds it by this name."""
    app = Flask(__name__, static_folder=None)
    app.secret_key = "only for a demonstration"  # noqa: S105
    app.config["ANALYTICS"] = {
        "api_key": os.environ.get("ANALYTICS_API_KEY"),
        "api_url": os.environ.get("ANALYTICS_API_URL"),
    }
    extension.init_app(app)

    @app.post("/login/<name>")
    def log_in(name: str) -> dict[str, Any]:
        """Believe the visitor; a real shop asks for more."""
        session["customer"] = name
        analytics.identify(name, {"name": name})
        return {"hello": name}

    @app.post("/orders/<product>")
    def order(product: str) -> dict[str, Any] | tuple[dict[str, Any], int]:
        """Sell one."""
        if product not in PRICES:
            return {"error": "we have none"}, 404
        analytics.track("order_placed", {"product": product, "price": PRICES[product]})
        return {"sold": product, "to": session.get("customer")}

    @app.get("/health")
    def health() -> dict[str, Any]:
        """Answer the load balancer, of whom analytics need not know."""
        return {"status": "ok"}

    return app
