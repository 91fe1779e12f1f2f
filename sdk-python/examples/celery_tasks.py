"""Celery tasks of a shop: each runs in the context of the request that published it.

Set ANALYTICS_API_URL and ANALYTICS_API_KEY, then start a worker, and publish from a second shell:

celery -A celery_tasks worker
python celery_tasks.py
"""

from pathlib import Path

from celery import Celery, chain

import analytics_sdk as analytics
from analytics_sdk.integrations.celery import install

# A broker of files, so that nothing has to be installed; in production it is redis:// or amqp://.
app = Celery("shop", broker="filesystem://")
folder = Path("celery-messages").absolute()
folder.mkdir(exist_ok=True)
app.conf.broker_transport_options = {
    name: str(folder) for name in ("data_folder_in", "data_folder_out", "control_folder")
}

# In the module that workers import and those who publish: both need it.
install(app)


@app.task(name="shop.send_receipt")
def send_receipt(order):
    """Track as if it were the request: the user is known."""
    analytics.track("receipt_sent", {"order": order})
    return order


@app.task(name="shop.award_points", autoretry_for=[ConnectionError], max_retries=3)
def award_points(order):
    """Come after the receipt, and still in the same context."""
    analytics.track("points_awarded", {"order": order, "points": 42})


if __name__ == "__main__":
    with analytics.context(user_id="u-1", session_id="s-1", properties={"plan": "pro"}):
        chain(send_receipt.s("o-17"), award_points.s())()
