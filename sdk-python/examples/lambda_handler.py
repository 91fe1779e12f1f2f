"""An AWS Lambda function behind API Gateway, of which every invocation is an event.

Set ANALYTICS_API_URL, ANALYTICS_API_KEY and ANALYTICS_SPOOL_DIR=/tmp/analytics in the function's
configuration, and the handler to `lambda_handler.handler`.
"""

import analytics_sdk as analytics
from analytics_sdk.integrations.aws_lambda import analytics_handler

PRICES = {"17": 42, "18": 7}


def customer_of(event):
    """Return the id of the user whom API Gateway has authenticated."""
    return event["requestContext"]["authorizer"]["jwt"]["claims"]["sub"]


@analytics_handler(user_id=customer_of)
def handler(event, context):
    """Answer `GET /orders/{id}`."""
    price = PRICES.get(event["pathParameters"]["id"])
    if price is None:
        return {"statusCode": 404}
    analytics.track("order_viewed", {"price": price})
    return {"statusCode": 200, "body": f"{price} EUR"}
