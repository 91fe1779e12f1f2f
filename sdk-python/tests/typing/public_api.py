"""How programs use the SDK, for mypy and pyright to check; never run.

A line with `type: ignore` is a mistake that both must see: an ignore that nothing needs is an
error of its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from flask import Flask
from starlette.applications import Starlette
from starlette.middleware import Middleware
from typing_extensions import assert_type

import analytics_sdk as analytics
from analytics_sdk import codegen
from analytics_sdk.compat import segment
from analytics_sdk.context import Scope
from analytics_sdk.integrations import celery
from analytics_sdk.integrations.asgi import AnalyticsMiddleware as AsgiMiddleware
from analytics_sdk.integrations.aws_lambda import analytics_handler
from analytics_sdk.integrations.django import AnalyticsMiddleware as DjangoMiddleware
from analytics_sdk.integrations.flask import Analytics
from analytics_sdk.integrations.logging import AnalyticsHandler
from analytics_sdk.integrations.wsgi import AnalyticsMiddleware as WsgiMiddleware
from analytics_sdk.testing import Recorder, RecordingClient, capture_events

KEY = "ak_live_..."
URL = "http://127.0.0.1:8000"


def keep_back(event: dict[str, Any]) -> dict[str, Any] | None:
    return None if event["type"] == "page" else event


def report(error: analytics.EventRejectedError) -> None:
    assert_type(error.code, str)
    assert_type(error.advice, str)
    assert_type(error.event, "dict[str, Any]")


def settings() -> None:
    client = analytics.init(
        KEY,
        URL,
        batch_size=50,
        flush_interval_s=1,
        max_queue_size=1_000,
        timeout_s=2.5,
        shutdown_timeout_s=0,
        durable="fsync",
        spool_dir=Path("spool"),
        spool_max_bytes=2**20,
        before_send=keep_back,
        on_error=report,
        sample_rate=0.5,
        super_properties={"plan": "pro"},
        remember_identity=True,
        allow_properties=["plan"],
        deny_properties={"email"},
        allow_keys=("a", "b"),
        deny_keys=frozenset({"password"}),
        handle_sigterm=True,
        enabled=False,
        debug=True,
        http_transport=httpx.MockTransport(lambda request: httpx.Response(202)),
    )
    assert_type(client, analytics.Client)
    assert_type(analytics.Client(), analytics.Client)
    analytics.Client(api_key=KEY, api_url=URL, durable=True, spool_dir="spool")

    analytics.init(KEY, URL, batch_size="ten")  # type: ignore[arg-type]
    analytics.init(KEY, URL, batchsize=10)  # type: ignore[call-arg]
    analytics.init(KEY, URL, 10)  # type: ignore[call-arg]
    analytics.Client(KEY, URL, durable="sometimes")  # type: ignore[arg-type]
    analytics.Client(KEY, URL, before_send=report)  # type: ignore[arg-type]
    analytics.Client(KEY, URL, on_error=print)
    analytics.Client(KEY, URL, on_error=keep_back)  # type: ignore[arg-type]


def events() -> None:
    assert_type(analytics.track("a"), bool)
    analytics.track("a", {"amount": 42.5, "items": ["x"]}, user_id="u-1")
    analytics.track(
        name="a",
        properties=None,
        user_id=42,
        anonymous_id=UUID(int=1),
        session_id="s-1",
        timestamp=datetime.now(timezone.utc),
        context={"ip": "1.2.3.4"},
        message_id=UUID(int=2),
    )
    assert_type(analytics.identify("u-1", {"email": "a@b.c"}, anonymous_id="a-1"), bool)
    assert_type(analytics.page(), bool)
    analytics.page("Docs", {"url": URL}, session_id="s-1")
    assert_type(analytics.screen("Settings", user_id="u-1"), bool)
    assert_type(analytics.group("g-1", {"name": "Initech"}, user_id="u-1"), bool)
    assert_type(analytics.alias("a-1", "u-1"), bool)

    analytics.track()  # type: ignore[call-arg]
    analytics.track(1)  # type: ignore[arg-type]
    analytics.track("a", "text")  # type: ignore[arg-type]
    analytics.track("a", {}, "u-1")  # type: ignore[call-arg]
    analytics.track("a", usr_id="u-1")  # type: ignore[call-arg]
    analytics.track("a", user_id=1.5)  # type: ignore[arg-type]
    analytics.track("a", timestamp="2026-01-01")  # type: ignore[arg-type]
    analytics.identify()  # type: ignore[call-arg]
    analytics.alias("a-1")  # type: ignore[call-arg]


def methods(client: analytics.Client) -> None:
    assert_type(client.track("a", {"b": 1}, user_id="u-1"), bool)
    assert_type(client.identify("u-1", {"b": 1}), bool)
    assert_type(client.page("a"), bool)
    assert_type(client.screen("a"), bool)
    assert_type(client.group("g-1"), bool)
    assert_type(client.alias("a-1", "u-1"), bool)
    assert_type(client.flush(), bool)
    assert_type(client.flush(timeout_s=1), bool)
    assert_type(client.shutdown(1.5), bool)
    assert_type(client.stats(), analytics.Stats)
    client.register({"plan": "pro"})
    client.unregister("plan", "team")
    client.reset()
    client.opt_out()
    client.opt_in()

    client.flush("1")  # type: ignore[arg-type]
    client.register("plan")  # type: ignore[arg-type]
    client.track("a", user_id=["u-1"])  # type: ignore[arg-type]


def functions() -> None:
    assert_type(analytics.flush(), bool)
    assert_type(analytics.flush(1), bool)
    assert_type(analytics.shutdown(timeout_s=1), bool)
    analytics.register({"plan": "pro"})
    analytics.unregister("plan")
    analytics.reset()
    analytics.opt_out()
    analytics.opt_in()
    assert_type(analytics.__version__, str)


async def in_asyncio(client: analytics.Client) -> None:
    assert_type(await client.aflush(), bool)
    assert_type(await client.aflush(timeout_s=1), bool)
    with analytics.context(session_id="s-1"):
        assert_type(await asyncio.gather(work(1), work(2)), "tuple[str, str]")
        await work()  # type: ignore[call-arg]


def account() -> None:
    stats = analytics.stats()
    assert_type(
        stats.taken
        + stats.delivered
        + stats.queued
        + stats.spooled
        + stats.rejected
        + stats.expired
        + stats.duplicates
        + stats.requests
        + stats.retries
        + stats.bytes_sent,
        int,
    )
    assert_type(stats.dropped, "dict[str, int]")
    assert_type(stats.refused, "dict[str, int]")
    assert_type(stats.repaired, "dict[str, int]")

    stats.taken = 0  # type: ignore[misc]
    print(stats.lost)  # type: ignore[attr-defined]


def current_user() -> int | None:
    return None


def blocks() -> int:
    with analytics.context(
        user_id=current_user,
        anonymous_id="a-1",
        session_id="s-1",
        properties={"plan": "pro"},
        context={"ip": "1.2.3.4"},
    ) as scope:
        assert_type(scope, Scope)
        scope.user_id = "u-1"
        scope.session_id = UUID(int=1)
        scope.properties = {**scope.properties, "plan": "free"}
        scope.user_id = 1.5  # type: ignore[assignment]

    with analytics.context(), analytics.operation("a"):
        # That a block swallows nothing shows in that nothing need follow it.
        return 1


def more_blocks() -> None:
    with analytics.operation("a", category="QUERY", properties={"rows": 3}) as operation:
        assert_type(operation, analytics.Operation)
        operation.name = "b"
        operation.category = "AUTHENTICATION"
        operation.properties["rows"] = 4
        operation.fail("Timeout")
        operation.status = "SUCCESS"
        operation.status = "DONE"  # type: ignore[assignment]
    with analytics.Client().operation("a"):
        pass

    analytics.context("u-1")  # type: ignore[call-arg]
    analytics.context(user_id=lambda name: name)  # type: ignore[arg-type]
    analytics.operation("a", category="OTHER")  # type: ignore[arg-type]


@analytics.context(properties={"job": "nightly"})
def decorated(number: int, *, text: str = "") -> str:
    return text * number


@analytics.operation("work_done", category="USER_ACTION")
async def work(number: int) -> str:
    return str(number)


def decorators() -> None:
    assert_type(decorated(1, text="a"), str)
    assert_type(analytics.in_context(decorated)(1), str)

    decorated("1")  # type: ignore[arg-type]
    analytics.in_context(decorated)("1")  # type: ignore[arg-type]


def errors() -> None:
    try:
        analytics.init()
    except analytics.ConfigError as error:
        assert_type(error.mistakes, "tuple[str, ...]")
    try:
        analytics.track("")
    except analytics.MisuseError as error:
        assert_type(error.reason, str)
    except (analytics.AnalyticsError, ValueError):
        pass


def report_all(error: analytics.EventRejectedError, events: list[dict[str, Any]]) -> None:
    print(error, events)


def moved_from_segment() -> None:
    segment.write_key = KEY
    segment.host = URL
    segment.on_error = report_all
    segment.log_handler = logging.StreamHandler()
    is_taken, message = segment.track("u-1", "a", {"b": 1}, integrations={"All": True})
    assert_type(is_taken, bool)
    assert_type(message, "dict[str, Any]")
    segment.identify("u-1", {"b": 1}, message_id="order-7")
    segment.group("u-1", "g-1", {"name": "Initech"})
    segment.alias("a-1", "u-1")
    segment.page("u-1", "Docs", "Python", {"url": URL})
    segment.screen(anonymous_id="a-1", name="Settings")
    assert_type(segment.flush(), bool)
    segment.join()
    segment.shutdown()
    client = segment.Client(KEY, URL, upload_size=10, upload_interval=1, sync_mode=True)
    assert_type(client.track("u-1", "a"), "tuple[bool, dict[str, Any]]")
    segment.default_client = segment.Client(client=analytics.Client())

    segment.track("u-1", {"b": 1})  # type: ignore[arg-type]
    segment.track("u-1", "a", timestamp=1)  # type: ignore[arg-type]


async def asgi_app(
    scope: MutableMapping[str, Any],
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
) -> None:
    await send({"type": "http.response.start", "status": 204})


def wsgi_app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("204 No Content", [])
    return []


def user_of(request: Any) -> str | None:
    return str(request) or None


def web_frameworks(client: analytics.Client) -> None:
    AsgiMiddleware(asgi_app)
    AsgiMiddleware(
        asgi_app,
        client=client,
        operations=False,
        category="QUERY",
        user_id=user_of,
        route=user_of,
        ignore=["/health"],
        failure_from_status=400,
        capture_ip=False,
        capture_query=True,
        trust_forwarded=2,
    )
    WsgiMiddleware(wsgi_app, client=client, ignore=lambda environ: environ["x"])
    DjangoMiddleware(lambda request: None)
    Analytics(Flask("shop"), client=client)
    Analytics().init_app(Flask("shop"))
    Starlette(middleware=[Middleware(AsgiMiddleware, client=client)])
    app = Starlette()
    app.add_middleware(AsgiMiddleware, client=client, ignore=["/health"])
    AsgiMiddleware(app)

    app.add_middleware(AsgiMiddleware, ignored=["/health"])  # type: ignore[call-arg]
    AsgiMiddleware(wsgi_app)  # type: ignore[arg-type]
    WsgiMiddleware(asgi_app)  # type: ignore[arg-type]
    AsgiMiddleware(asgi_app, category="OTHER")  # type: ignore[arg-type]
    WsgiMiddleware(wsgi_app, clients=client)  # type: ignore[call-arg]
    Analytics(capture_ip="no")  # type: ignore[arg-type]


@analytics_handler
def bare_handler(event: dict[str, Any], context: object) -> dict[str, int]:
    return {"statusCode": 204}


@analytics_handler(category="USER_ACTION", user_id=user_of, flush_timeout_s=1, margin_s=0.5)
def handler(event: dict[str, Any], context: object) -> dict[str, int]:
    return {"statusCode": 204}


def workers(client: analytics.Client) -> None:
    celery.install(client=client, operations=True, category="SYSTEM_EVENT", ignore=["ping"])
    celery.uninstall()
    assert_type(bare_handler({}, None), "dict[str, int]")
    assert_type(handler({}, None), "dict[str, int]")
    logging.getLogger().addHandler(
        AnalyticsHandler(
            logging.WARNING,
            client=client,
            event_name="warned",
            formatted=True,
            max_per_interval=10,
            interval_s=30,
        )
    )

    celery.install(category="OTHER")  # type: ignore[arg-type]
    AnalyticsHandler(interval="30")  # type: ignore[call-arg]


def tests() -> None:
    with capture_events(super_properties={"plan": "pro"}) as recorded:
        assert_type(recorded, Recorder)
        analytics.track("a")
    assert_type(recorded.events, "list[dict[str, Any]]")
    found = recorded.assert_tracked("a", {"b": 1}, user_id="u-1", times=1)
    assert_type(found, "list[dict[str, Any]]")
    recorded.assert_not_tracked("b")
    recorded.assert_nothing_tracked()
    assert_type(recorded.named("a"), "list[dict[str, Any]]")
    assert_type(recorded.of_type("page"), "list[dict[str, Any]]")
    recorded.clear()
    client = RecordingClient(debug=True)
    assert_type(client.recorder, Recorder)
    AsgiMiddleware(asgi_app, client=client)

    recorded.assert_tracked("a", times="once")  # type: ignore[arg-type]


def test_of_a_user(analytics_events: Recorder) -> None:
    analytics_events.assert_tracked("a")


def generated(schemas: Mapping[str, Any]) -> None:
    assert_type(codegen.generate(schemas, "events.json"), str)
    assert_type(codegen.load(Path("events.json")), "dict[str, Any]")
    try:
        codegen.events_of({}, "events.json", event="a")
    except codegen.CodegenError as error:
        assert_type(error.where, str)
