"""A shop in one file of Django, with product analytics.

    export ANALYTICS_API_KEY=ak_live_... ANALYTICS_API_URL=http://127.0.0.1:8000
    python django_shop.py migrate
    python django_shop.py runserver 8080

    curl -c jar -b jar -X POST http://127.0.0.1:8080/login/ada
    curl -c jar -b jar -X POST http://127.0.0.1:8080/orders/teapot

Each request is an event, `POST /orders/{product}`, with user, session, duration and outcome; so is
the order itself.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from django.conf import settings
from django.contrib.auth import get_user_model, login
from django.core.management import execute_from_command_line
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.http import require_GET, require_POST

import analytics_sdk as analytics

settings.configure(
    DEBUG=True,
    SECRET_KEY="only for a demonstration",  # noqa: S106
    ALLOWED_HOSTS=["127.0.0.1", "localhost"],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": os.environ.get("SHOP_DATABASE", Path(__file__).with_name("shop.sqlite3")),
        }
    },
    INSTALLED_APPS=[
        "analytics_sdk.integrations.django",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
    ],
    MIDDLEWARE=[
        # First, so that it sees every answer.
        "analytics_sdk.integrations.django.AnalyticsMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    ROOT_URLCONF=__name__,
    ANALYTICS={
        "api_key": os.environ.get("ANALYTICS_API_KEY"),
        "api_url": os.environ.get("ANALYTICS_API_URL"),
        "ignore": ["/health"],
    },
)

PRICES = {"teapot": 42.5, "cup": 7.0}


@require_POST
def log_in(request: HttpRequest, name: str) -> JsonResponse:
    """Believe the visitor; a real shop asks for more."""
    user, is_new = get_user_model().objects.get_or_create(username=name)
    login(request, user, backend="django.contrib.auth.backends.ModelBackend")
    if is_new:
        analytics.identify(user.pk, {"name": name})
    return JsonResponse({"hello": name})


@require_POST
async def order(request: HttpRequest, product: str) -> JsonResponse:
    """Sell one; the event knows the user, because the view asked for it."""
    user = await request.auser()
    if product not in PRICES:
        return JsonResponse({"error": "we have none"}, status=404)
    analytics.track("order_placed", {"product": product, "price": PRICES[product]})
    return JsonResponse({"sold": product, "to": user.get_username()})


@require_GET
def health(request: HttpRequest) -> JsonResponse:
    """Answer the load balancer, of whom analytics need not know."""
    return JsonResponse({"status": "ok"})


urlpatterns = [
    path("login/<slug:name>", log_in),
    path("orders/<slug:product>", order),
    path("health", health),
]

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
