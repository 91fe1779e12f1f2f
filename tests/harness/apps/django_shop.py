"""A shop in Django."""

import os
from types import SimpleNamespace

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import JsonResponse
from django.urls import path

import analytics_sdk as analytics

INTEGRATION = "analytics_sdk.integrations.django"
HAS_ANALYTICS = "BARE_SHOP" not in os.environ


def authentication(get_response):
    """Set the user, as Django's own middleware does, but without a database."""

    def answer(request):
        name = request.headers["x-user"]
        request.user = SimpleNamespace(pk=name, is_authenticated=True)
        return get_response(request)

    return answer


def order(request, number):
    """Show an order."""
    facts = {"number": number, "user": request.GET["user"]}
    taken = HAS_ANALYTICS and analytics.track("order_viewed", facts)
    return JsonResponse({"taken": taken, "pid": os.getpid()})


urlpatterns = [path("orders/<int:number>", order)]

settings.configure(
    ALLOWED_HOSTS=["*"],
    SECRET_KEY="a secret of the shop",
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=[INTEGRATION] * HAS_ANALYTICS,
    MIDDLEWARE=[
        *[f"{INTEGRATION}.AnalyticsMiddleware"] * HAS_ANALYTICS,
        f"{__name__}.authentication",
    ],
)
if HAS_ANALYTICS:
    analytics.init()
application = get_wsgi_application()
