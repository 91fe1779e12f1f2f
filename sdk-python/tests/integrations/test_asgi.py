"""The ASGI middleware, with Starlette, FastAPI and plain applications, on uvicorn and bare."""

# ruff: noqa: E402 - the rest is imported only where the frameworks are installed

import asyncio
import threading
from contextlib import suppress

import httpx
import pytest

from analytics_sdk import ConfigError
from analytics_sdk.context import current
from analytics_sdk.integrations.asgi import AnalyticsMiddleware

starlette = pytest.importorskip("starlette")
fastapi = pytest.importorskip("fastapi")

from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Host, Mount, Route, Router
from starlette.staticfiles import StaticFiles


def scope_of(path="/", **changes):
    return {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "query_string": b"",
        "headers": [],
        "client": ("192.0.2.1", 4711),
        "server": ("shop.test", 80),
        **changes,
    }


def visit(app, scope=None):
    """Call *app* as a server does that has no client behind; returns the messages."""
    messages = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        messages.append(message)

    async def run():
        await app(scope or scope_of(), receive, send)

    asyncio.run(run())
    return messages


async def hello(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


def ok(request):
    return PlainTextResponse("ok")


def leaf(request):
    return PlainTextResponse("a leaf")


def hosted(request):
    return PlainTextResponse("hosted")


# Starlette and FastAPI, on a real server


def test_all_events_of_a_request_say_who_and_where(client, arrived, serve_asgi):
    """In a coroutine, in a view that runs in a thread, and after the answer."""
    app = FastAPI()
    app.add_middleware(
        AnalyticsMiddleware,
        client=client,
        user_id=lambda scope: dict(scope["headers"]).get(b"x-user", b"").decode() or None,
    )

    @app.post("/orders/{order_id}")
    async def order(order_id: int):
        client.track("ordered")
        return {}

    @app.post("/carts/{cart_id}")
    def cart(cart_id: int):
        assert threading.current_thread() is not threading.main_thread()
        client.track("filled")
        return {}

    @app.post("/mails")
    def mail(tasks: fastapi.BackgroundTasks):
        tasks.add_task(client.track, "mailed")
        return {}

    url = serve_asgi(app)
    headers = {
        "x-user": "u-1",
        "x-request-id": "req-1",
        "x-analytics-anonymous-id": "anon-1",
        "cookie": "a=b; analytics_session_id=session-1",
        "accept-language": "fr",
    }
    for path in ("/orders/5?token=SECRET", "/carts/7", "/mails"):
        assert httpx.post(url + path, headers=headers).status_code == 200

    events = arrived(client, 6)
    assert [event["name"] for event in events] == [
        *("ordered", "POST /orders/{order_id}"),
        *("filled", "POST /carts/{cart_id}"),
        # A background task begins when the answer is out.
        *("POST /mails", "mailed"),
    ]
    for event in events:
        assert event["userId"] == "u-1"
        assert event["anonymousId"] == "anon-1"
        assert event["sessionId"] == "session-1"
        assert event["context"]["requestId"] == "req-1"
        assert event["context"]["locale"] == "fr"
        assert event["context"]["ip"] == "127.0.0.1"
        assert "SECRET" not in str(event)
    assert events[0]["context"]["page"] == {"url": f"{url}/orders/5", "path": "/orders/5"}
    assert events[1]["properties"]["status"] == "SUCCESS"
    assert events[1]["properties"]["route"] == "/orders/{order_id}"
    assert events[1]["context"]["category"] == "USER_ACTION"


def shop(tmp_path):
    """Every way to come by a route that the two frameworks have."""
    (tmp_path / "a.css").write_text("")
    inner = APIRouter(prefix="/items")
    inner.add_api_route("/{item_id:int}", lambda item_id: {}, methods=["GET"])
    outer = APIRouter(prefix="/v1/{tenant}")
    outer.include_router(inner)
    organisation = FastAPI()
    organisation.add_api_route("/users/{user_id}", lambda user_id: {})
    included = APIRouter(prefix="/teams")
    included.add_api_route("/{team_id}", lambda team_id: {})
    organisation.include_router(included)
    api = FastAPI()
    api.include_router(outer, prefix="/api")
    api.add_api_route("/direct/{name}", lambda name: {})
    api.mount("/orgs/{org}", organisation)
    api.mount("/static", StaticFiles(directory=tmp_path))
    return Starlette(
        routes=[
            Route("/plain/{number:int}", ok),
            Mount("/tree/{branch}", routes=[Route("/leaf/{leaf}", leaf)]),
            Mount("/files", app=StaticFiles(directory=tmp_path)),
            Host("other.test", app=Router([Route("/hosted/{name}", hosted)])),
            Mount("/fast", app=api),
            Mount("/", app=api),
        ]
    )


ROUTES = [
    ("GET /plain/7", "GET /plain/{number}"),
    ("POST /tree/oak/leaf/elm", "POST /tree/{branch}/leaf/{leaf}"),
    ("GET /tree/oak/leaf/oak", "GET /tree/{branch}/leaf/{leaf}"),
    ("GET /files/a.css", "GET /files/{path}"),
    ("GET /files/none.css", "GET /files/{path}"),
    ("GET /api/v1/acme/items/5", "GET /api/v1/{tenant}/items/{item_id}"),
    ("GET /direct/x", "GET /direct/{name}"),
    ("PUT /direct/x", "PUT /direct/{name}"),
    ("GET /fast/direct/x", "GET /fast/direct/{name}"),
    ("GET /fast/api/v1/acme/items/5", "GET /fast/api/v1/{tenant}/items/{item_id}"),
    ("GET /orgs/acme/users/5", "GET /orgs/{org}/users/{user_id}"),
    ("GET /orgs/acme/teams/5", "GET /orgs/{org}/teams/{team_id}"),
    ("GET /orgs/acme/none", "GET /orgs/{org}/{path}"),
    ("GET /static/a.css", "GET /static/{path}"),
    ("GET /docs", "GET /docs"),
    ("GET /wp-login.php", "GET /{path}"),
]


def test_routes_are_templates_with_all_their_prefixes(client, arrived, serve_asgi, tmp_path):
    """Mounts and included routers too; a path that strangers try gives no name of its own."""
    url = serve_asgi(AnalyticsMiddleware(shop(tmp_path), client=client))
    with httpx.Client(base_url=url) as http:
        for request, _ in ROUTES:
            http.request(*request.split())
        http.get("/hosted/x", headers={"host": "other.test"})

    events = arrived(client, len(ROUTES) + 1)
    assert [event["name"] for event in events[:-1]] == [name for _, name in ROUTES]
    assert events[-1]["name"] == "GET /hosted/{name}"


@pytest.mark.parametrize("root_path", ["", "/proxy"])
def test_what_a_proxy_took_off_the_path_is_no_route(client, arrived, root_path):
    """The prefix is the same for all, and another on each machine."""
    inner = FastAPI()
    inner.add_api_route("/users/{user_id}", lambda user_id: {})
    app = FastAPI()
    app.mount("/orgs/{org}", inner)
    app.add_middleware(AnalyticsMiddleware, client=client)
    visit(app, scope_of(f"{root_path}/orgs/acme/users/5", root_path=root_path))

    assert [event["name"] for event in arrived(client)] == ["GET /orgs/{org}/users/{user_id}"]


def test_without_a_route_the_name_says_so(client, arrived):
    """One name for all that nobody has a route for."""
    visit(AnalyticsMiddleware(FastAPI(), client=client), scope_of("/wp-login.php"))

    [event] = arrived(client)
    assert event["name"] == "GET (no route)"
    assert event["properties"]["statusCode"] == 404
    assert event["properties"]["status"] == "SUCCESS"


def test_starlettes_that_do_not_tell_their_routes_are_asked_for_the_endpoint(client, arrived):
    """Before 1.7 the scope had the endpoint only."""
    router = Router([Mount("/a/{b}", routes=[Route("/c/{d}", ok)])])

    async def older(scope, receive, send):
        async def send_without_route(message):
            scope.pop("route", None)
            await send(message)

        await router(scope, receive, send_without_route)

    visit(AnalyticsMiddleware(older, client=client), scope_of("/a/1/c/2"))

    assert arrived(client)[0]["name"] == "GET /a/{b}/c/{d}"


@pytest.mark.parametrize(
    "found",
    [
        {"endpoint": ok},
        {"endpoint": ok, "route": "/a"},
        {"endpoint": ok, "router": object()},
        {"endpoint": ok, "fastapi": 5},
        {"path_params": 7, "app_root_path": 3, "route": Route("/a", ok), "endpoint": ok},
    ],
)
def test_a_framework_that_is_not_as_we_know_it_does_no_harm(client, arrived, found):
    """Its next version may keep other things under the same names."""

    async def app(scope, receive, send):
        scope.update(found)
        await hello(scope, receive, send)

    assert len(visit(AnalyticsMiddleware(app, client=client))) == 2
    assert arrived(client)[0]["name"].startswith("GET ")


def test_another_framework_can_say_its_routes(client, arrived):
    """Litestar, for one, keeps the template in the scope."""

    async def app(scope, receive, send):
        scope["path_template"] = "/a/{b}"
        await hello(scope, receive, send)

    visit(AnalyticsMiddleware(app, client=client, route=lambda scope: scope["path_template"]))

    assert arrived(client)[0]["name"] == "GET /a/{b}"


def test_a_stream_is_passed_on_piece_by_piece(client, arrived, serve_asgi):
    """Nothing is kept back; what it tracks on the way is of the request, which ends with it."""
    steps = threading.Semaphore(0)

    def pieces():
        for number in range(3):
            if number:
                assert steps.acquire(timeout=20)
            client.track(f"made_{number}")
            yield b"%d" % number

    app = Starlette(routes=[Route("/", lambda request: StreamingResponse(pieces()))])
    app.add_middleware(AnalyticsMiddleware, client=client)
    with httpx.stream("GET", serve_asgi(app), headers={"x-request-id": "r"}) as response:
        for number, text in enumerate(response.iter_raw(1)):
            assert text == b"%d" % number
            made = [event["name"] for event in arrived(client) if "made" in event["name"]]
            assert made == [f"made_{each}" for each in range(number + 1)]
            steps.release()

    events = arrived(client, 4)
    assert events[-1]["name"] == "GET /"
    assert {event["context"]["requestId"] for event in events} == {"r"}


def test_what_a_view_raises_goes_on(client, arrived, serve_asgi):
    """The framework answers; the event says what it was."""

    async def boom(request):
        raise KeyError("no such order")

    app = Starlette(routes=[Route("/orders/{id}", boom)])
    app.add_middleware(AnalyticsMiddleware, client=client)
    assert httpx.get(f"{serve_asgi(app)}/orders/5").status_code == 500

    [operation] = arrived(client, 1)
    assert operation["name"] == "GET /orders/{id}"
    assert operation["properties"]["status"] == "FAILURE"
    assert operation["properties"]["errorType"] == "KeyError"
    assert operation["properties"]["statusCode"] == 500


def test_a_background_task_that_fails_does_not_fail_the_request(client, arrived):
    """The answer was right, and is out."""

    def boom():
        raise KeyError

    def view(request):
        return PlainTextResponse("ok", background=BackgroundTask(boom))

    app = Starlette(routes=[Route("/", view)])
    with pytest.raises(KeyError):
        visit(AnalyticsMiddleware(app, client=client))

    [operation] = arrived(client)
    assert operation["properties"]["status"] == "SUCCESS"


def test_a_client_that_hangs_up_costs_no_event_and_doubles_none(client, arrived, serve_asgi):
    """However far the answer was."""
    is_waiting = threading.Event()

    async def pieces():
        yield b"1"
        is_waiting.set()
        await asyncio.sleep(20)

    app = Starlette(routes=[Route("/", lambda request: StreamingResponse(pieces()))])
    url = serve_asgi(AnalyticsMiddleware(app, client=client))
    with httpx.stream("GET", url) as response:
        next(response.iter_raw())
        assert is_waiting.wait(20)

    [operation] = arrived(client, 1)
    assert operation["name"] == "GET /"


def test_the_example_runs(collector, eventually, run_example):
    """As its first lines say."""
    pytest.importorskip("uvicorn")
    url = run_example("-m", "uvicorn", "fastapi_shop:app", "--port", "PORT")
    headers = {"authorization": "Bearer ada", "cookie": "analytics_session_id=s-1"}
    assert httpx.post(f"{url}/orders/teapot", headers=headers).json() == {"sold": "teapot"}
    assert httpx.post(f"{url}/orders/car", headers=headers).status_code == 404

    eventually(lambda: len(collector.stored) == 4)
    assert collector.names == [
        *("order_placed", "POST /orders/{product}", "mail_sent", "POST /orders/{product}"),
    ]
    assert {event["userId"] for event in collector.stored} == {"ada"}
    assert {event["sessionId"] for event in collector.stored} == {"s-1"}


# Plain applications


def test_a_request_that_is_cancelled_is_a_failure(client, arrived):
    """Its work was cut short; who cancelled it gets what it asked for."""
    scopes = []

    async def slow(scope, receive, send):
        scopes.append(current.get())
        await asyncio.sleep(20)

    async def cancel():
        app = AnalyticsMiddleware(slow, client=client)
        task = asyncio.create_task(app(scope_of(), None, None))
        while not scopes:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())

    [operation] = arrived(client)
    assert operation["properties"]["errorType"] == "CancelledError"
    assert operation["properties"]["status"] == "FAILURE"
    assert "statusCode" not in operation["properties"]


@pytest.mark.parametrize("kind", ["websocket", "of the future"])
def test_what_is_no_request_passes_through(client, kind):
    """With the very same scope and functions."""
    seen = []

    async def app(*arguments):
        seen.append((arguments, current.get()))

    given = ({"type": kind}, object(), object())
    asyncio.run(AnalyticsMiddleware(app, client=client)(*given))

    assert seen == [(given, None)]
    assert client.stats().taken == 0


def test_start_and_end_of_the_server_pass_through(client, serve_asgi):
    """What an application does then is none of our business."""
    steps = []

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            for step in ("startup", "shutdown"):
                await receive()
                steps.append(step)
                await send({"type": f"lifespan.{step}.complete"})
        else:
            await hello(scope, receive, send)

    url = serve_asgi(AnalyticsMiddleware(app, client=client), lifespan="on")
    assert httpx.get(url).text == "hello"

    assert steps == ["startup"]


def test_messages_reach_the_server_as_they_are(client, arrived):
    """The very objects, in their order, those that we do not know too."""
    sent = [
        {"type": "http.response.debug", "info": {}},
        {"type": "http.response.start", "status": 200, "headers": []},
        {"type": "http.response.body", "body": b"1", "more_body": True},
        {"type": "http.response.pathsend", "path": "/a"},
    ]

    async def app(scope, receive, send):
        for message in sent:
            await send(message)
            assert len(arrived(client)) == (message is sent[-1])

    messages = visit(AnalyticsMiddleware(app, client=client))

    assert [id(message) for message in messages] == [id(message) for message in sent]
    assert len(arrived(client)) == 1


def test_an_application_that_answers_nothing_has_failed(client, arrived):
    """A server says 500 in its place."""

    async def silent(scope, receive, send):
        pass

    visit(AnalyticsMiddleware(silent, client=client))

    assert arrived(client)[0]["properties"]["status"] == "FAILURE"


def test_what_is_ignored_is_left_alone(client):
    """By path or by anything else that the scope says."""
    seen = []

    async def app(scope, receive, send):
        seen.append((scope, receive, send, current.get()))

    async def receive():
        raise AssertionError

    for ignore in (["/health"], lambda scope: scope["path"].startswith("/health")):
        given = (scope_of("/health"), receive, receive)
        asyncio.run(AnalyticsMiddleware(app, client=client, ignore=ignore)(*given))
        assert seen.pop() == (*given, None)

    assert client.stats().taken == 0


def test_cookies_may_come_one_by_one(client, arrived):
    """As HTTP/2 sends them; a second of another header is no way to smuggle an id in."""
    headers = [
        (b"cookie", b"a=b"),
        (b"cookie", b"analytics_session_id=s-1"),
        (b"x-request-id", b"one"),
        (b"x-request-id", b"two"),
    ]
    visit(AnalyticsMiddleware(hello, client=client), scope_of(headers=headers))

    [event] = arrived(client)
    assert event["sessionId"] == "s-1"
    assert event["context"]["requestId"] not in ("one", "two")


def test_nothing_of_a_request_outlives_it(client, outlives):
    """Its body may be large, its connection one of few."""
    app = AnalyticsMiddleware(hello, client=client, user_id=lambda scope: None)

    async def receive():
        raise AssertionError

    async def send(message):
        pass

    def use(thing):
        # Without a loop, for that has cycles of its own.
        with suppress(StopIteration):
            app(scope_of(thing=thing), receive, send).send(None)

    assert not outlives(use)


def test_headers_may_be_gone_through_once(client, arrived):
    """ASGI promises no more; the application still finds them."""
    seen = []

    async def app(scope, receive, send):
        seen.extend(scope["headers"])
        await hello(scope, receive, send)

    headers = [(b"x-request-id", b"r")]
    visit(AnalyticsMiddleware(app, client=client), scope_of(headers=iter(headers)))

    assert seen == headers
    assert arrived(client)[0]["context"]["requestId"] == "r"


@pytest.mark.parametrize(
    ("scope", "path"),
    [
        ({"path": "/ä b"}, "/%C3%A4%20b"),
        ({"path": "/ä", "raw_path": b"/%c3%a4"}, "/%c3%a4"),
        ({"path": "/a", "raw_path": b"/a?token=SECRET"}, "/a"),
        ({"path": "/a", "raw_path": None}, "/a"),
    ],
)
def test_paths_are_those_of_the_browser(client, arrived, scope, path):
    """As they came, where the server says."""
    visit(AnalyticsMiddleware(hello, client=client), scope_of(**scope))

    assert arrived(client)[0]["context"]["page"]["path"] == path


@pytest.mark.parametrize("peer", [None, ("", 0)])
def test_a_peer_without_an_address_has_none(client, arrived, peer):
    """A unix socket, for one."""
    visit(AnalyticsMiddleware(hello, client=client), scope_of(client=peer))

    assert "ip" not in arrived(client)[0]["context"]


def test_wrong_options_are_told_at_the_start():
    """Never in a request."""
    with pytest.raises(ConfigError, match="ignore must be"):
        AnalyticsMiddleware(hello, ignore="/health")


def test_parallel_requests_never_mix(client, arrived):
    """Tasks take turns, and so do the threads of sync views; each keeps its own user."""
    barrier = threading.Barrier(16)

    async def in_task(request):
        for _ in range(3):
            client.track("step")
            await asyncio.sleep(0)
        return PlainTextResponse()

    def in_thread(request):
        client.track("step")
        barrier.wait(20)
        client.track("step")
        barrier.wait(20)
        client.track("step")
        return PlainTextResponse()

    app = Starlette(routes=[Route("/task", in_task), Route("/thread", in_thread)])
    app = AnalyticsMiddleware(
        app, client=client, user_id=lambda scope: dict(scope["headers"])[b"x-user"].decode()
    )

    async def visit_all():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop.test") as http:
            await asyncio.gather(
                *(
                    http.get(
                        "/thread" if number < 16 else "/task",
                        headers={"x-user": f"u{number}", "x-request-id": f"u{number}"},
                    )
                    for number in range(200)
                )
            )

    asyncio.run(visit_all())

    events = arrived(client, 800)
    for event in events:
        assert event["userId"] == event["context"]["requestId"]
    for number in range(200):
        names = [event["name"] for event in events if event["userId"] == f"u{number}"]
        route = "GET /thread" if number < 16 else "GET /task"
        assert names == ["step", "step", "step", route]
