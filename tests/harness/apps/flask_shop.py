"""A shop in Flask."""

import os

from flask import Flask, request

import analytics_sdk as analytics
from analytics_sdk.integrations.flask import Analytics

HAS_ANALYTICS = "BARE_SHOP" not in os.environ

application = Flask(__name__)
if HAS_ANALYTICS:
    analytics.init()
    Analytics(application, user_id=lambda request: request.headers["x-user"])


@application.get("/orders/<int:number>")
def order(number):
    """Show an order."""
    facts = {"number": number, "user": request.args["user"]}
    taken = HAS_ANALYTICS and analytics.track("order_viewed", facts)
    return {"taken": taken, "pid": os.getpid()}
