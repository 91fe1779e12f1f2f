"""uvicorn lets SIGTERM end its process once the application has ended: `atexit` never runs."""

import signal
import sys

import pytest

pytest.importorskip("uvicorn")

UVICORN = [sys.executable, "-m", "uvicorn", "--port", "0", "application:application"]
APPLICATION = """
    import analytics_sdk as analytics
    from analytics_sdk.integrations.asgi import AnalyticsMiddleware

    async def hello(scope, receive, send):
        if scope["type"] == "lifespan":
            for step in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{step}.complete"})
            return
        analytics.track("looked")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})

    application = AnalyticsMiddleware(hello)
"""


def test_the_end_of_the_application_delivers(serve, fetch, eventually, collector):
    """What was in memory is delivered before the server may be ended by the signal."""
    server = serve(*UVICORN, application=APPLICATION, ANALYTICS_FLUSH_INTERVAL_S="600")
    assert fetch(server.url(eventually)) == "hello"
    code = server.stop()

    assert code == -signal.SIGTERM
    assert collector.names == ["looked", "GET (no route)"]


def test_the_end_of_the_application_leaves_on_disk_what_it_cannot_deliver(
    serve, fetch, eventually, collector, reply, make_client, tmp_path
):
    """The next process delivers it."""
    collector.always(reply.hang)
    spool = str(tmp_path / "spool")
    server = serve(*UVICORN, application=APPLICATION, ANALYTICS_SPOOL_DIR=spool)
    assert fetch(server.url(eventually)) == "hello"
    server.stop()
    collector.always(reply.accept())
    assert make_client(spool_dir=spool).recover(20)

    assert collector.names == ["looked", "GET (no route)"]
