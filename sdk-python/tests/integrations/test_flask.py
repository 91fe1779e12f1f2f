"""The Flask extension, with real apps on a real server and in Flask's own test client."""

import threading
from wsgiref.util import setup_testing_defaults

import httpx
import pytest

pytest.importorskip("flask")

import flask
from flask import Blueprint, Flask, abort, g, session, stream_with_context

import analytics_sdk
from analytics_sdk import ConfigError
from analytics_sdk.integrations.flask import Analytics

KEY = "ak_live_test0SECRET"


def user_of_session(request):
    return session.get("user")


def make_app(track, **config):
    """A shop whose views track with *track*."""
    app = Flask(__name__, static_folder=None)
    app.secret_key = "test"
    app.config.update(config)
    orders = Blueprint("orders", __name__, url_prefix="/orders")

    @orders.post("/<int:order_id>")
    def order(order_id):
        track("ordered")
        return "ok"

    @app.get("/enter/<name>")
    def enter(name):
        session["user"] = name
        track("entered")
        return "ok"

    @app.get("/boom")
    def boom():
        raise KeyError("no such order")

    @app.get("/gone")
    def gone():
        abort(410)

    @app.get("/stream")
    def stream():
        @stream_with_context
        def pieces():
            for number in range(3):
                track(f"made_{number}")
                yield str(number)

        return pieces()

    @app.get("/bare")
    def bare():
        def pieces():
            track("made")
            yield "made"

        return pieces()

    @app.get("/file")
    def file():
        return flask.send_file(__file__)

    app.register_blueprint(orders)
    return app


@pytest.fixture
def app(client):
    app = make_app(client.track)
    Analytics(app, client=client, user_id=user_of_session)
    return app


def outcome(event):
    facts = {**event["properties"], "name": event["name"]}
    assert facts.pop("durationMs") >= 0
    return facts


def test_all_events_of_a_request_say_who_and_where(app, arrived, client, serve_wsgi):
    """Those that it tracks, and its own."""
    url = serve_wsgi(app)
    cookies = {"analytics_anonymous_id": "anon-1", "analytics_session_id": "session-1"}
    with httpx.Client(base_url=url, cookies=cookies, headers={"x-request-id": "r"}) as http:
        http.get("/enter/u-1")
        http.post("/orders/5?token=SECRET")

    entered, enter, ordered, order = arrived(client, 4)
    assert [entered["name"], ordered["name"]] == ["entered", "ordered"]
    assert enter["name"] == "GET /enter/{name}"
    assert outcome(order) == {
        "name": "POST /orders/{order_id}",
        "route": "/orders/{order_id}",
        "method": "POST",
        "statusCode": 200,
        "status": "SUCCESS",
    }
    assert order["context"]["category"] == "USER_ACTION"
    for event in (entered, enter, ordered, order):
        assert event["userId"] == "u-1"
        assert event["anonymousId"] == "anon-1"
        assert event["sessionId"] == "session-1"
        assert event["context"]["requestId"] == "r"
        assert event["context"]["ip"] == "127.0.0.1"
    assert ordered["context"]["page"] == {"url": f"{url}/orders/5", "path": "/orders/5"}


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("/boom", {"name": "GET /boom", "route": "/boom", "statusCode": 500}),
        ("/gone", {"name": "GET /gone", "route": "/gone", "statusCode": 410}),
        ("/wp-login.php", {"name": "GET (no route)", "statusCode": 404}),
    ],
)
def test_errors_become_answers_and_events(app, arrived, client, address, expected):
    """A failure is what the app broke."""
    assert app.test_client().get(address).status_code == expected["statusCode"]

    is_broken = expected["statusCode"] == 500
    status = {"status": "FAILURE", "errorType": "KeyError"} if is_broken else {"status": "SUCCESS"}
    [operation] = arrived(client)
    assert outcome(operation) == {**expected, "method": "GET", **status}


def test_what_is_raised_through_us_goes_on(app, arrived, client):
    """An app under test lets its errors out."""
    app.testing = True
    with pytest.raises(KeyError, match="no such order"):
        app.test_client().get("/boom")

    assert outcome(arrived(client)[0]) == {
        "name": "GET /boom",
        "route": "/boom",
        "method": "GET",
        "statusCode": 500,
        "status": "FAILURE",
        "errorType": "KeyError",
    }


def test_an_error_that_a_handler_answered_counts_as_its_answer(app, arrived, client):
    """It is what the visitor saw."""
    app.register_error_handler(KeyError, lambda error: ("sorry", 404))
    app.test_client().get("/boom")

    assert outcome(arrived(client)[0])["status"] == "SUCCESS"


@pytest.mark.parametrize(
    ("address", "made"), [("/stream", ["made_0", "made_1", "made_2"]), ("/bare", ["made"])]
)
def test_a_stream_belongs_to_its_request_to_the_end(
    app, arrived, client, serve_wsgi, address, made
):
    """With Flask's context or without; the user is the one whom the session had."""
    with httpx.Client(base_url=serve_wsgi(app)) as http:
        http.get("/enter/u-1")
        http.get(address, headers={"x-request-id": "r"})

    events = arrived(client, 2 + len(made) + 1)[2:]
    assert [event["name"] for event in events] == [*made, f"GET {address}"]
    assert {event["context"]["requestId"] for event in events} == {"r"}
    assert {event["userId"] for event in events} == {"u-1"}


def test_a_file_is_an_answer_like_any_other(app, arrived, client, serve_wsgi):
    """However the server sends it."""
    assert httpx.get(f"{serve_wsgi(app)}/file").status_code == 200

    assert arrived(client, 1)[0]["name"] == "GET /file"


def test_flasks_test_client_may_keep_the_context(app, arrived, client):
    """A test looks into the session; the event of the request is there already."""
    with app.test_client() as browser:
        browser.get("/enter/u-1")
        [_, operation] = arrived(client)
        assert session["user"] == "u-1"

    assert operation["name"] == "GET /enter/{name}"
    assert operation["userId"] == "u-1"
    assert len(arrived(client)) == 2


def test_a_hook_that_fails_costs_the_request_nothing(arrived, client, sdk_log):
    """Neither in the view nor when Flask tears the request down."""
    app = make_app(client.track)
    Analytics(app, client=client, user_id=lambda request: g.nobody, route=lambda request: 1 / 0)
    assert app.test_client().get("/enter/u-1").text == "ok"

    events = arrived(client)
    assert ["userId" in event for event in events] == [False, False]
    # The hook failed, so Flask's own rule holds.
    assert events[1]["name"] == "GET /enter/{name}"
    assert set(sdk_log.reasons()) == {"user_id_failed", "route_failed"}


def test_hooks_get_flasks_request(arrived, client):
    """But for `ignore`, which is asked before there is one."""
    app = make_app(client.track)
    Analytics(
        app,
        client=client,
        user_id=lambda request: request.args["user"],
        route=lambda request: f"/mine/{request.endpoint}",
        ignore=lambda environ: environ["PATH_INFO"] == "/boom",
    )
    browser = app.test_client()
    browser.get("/gone?user=u-1")
    browser.get("/boom")

    [operation] = arrived(client)
    assert operation["name"] == "GET /mine/gone"
    assert operation["userId"] == "u-1"


def test_a_request_that_is_made_up_is_none(app, client):
    """Tests push a request context without any request."""
    with app.test_request_context("/orders/5"):
        assert flask.request.path == "/orders/5"

    assert client.stats().taken == 0


def test_the_settings_make_the_default_client(analytics, arrived, collector):
    """In a factory, with the extension made before; options stand beside."""
    extension = Analytics(category="QUERY", capture_ip=False)

    def create_app():
        settings = {"api_key": KEY, "api_url": collector.url, "capture_ip": True}
        app = make_app(analytics.track, ANALYTICS=settings)
        extension.init_app(app)
        return app

    create_app()
    create_app().test_client().post("/orders/5")

    ordered, order = arrived(analytics)
    assert ordered["context"]["requestId"] == order["context"]["requestId"]
    assert order["context"]["category"] == "QUERY"
    # What the program says wins over the configuration.
    assert "ip" not in order["context"]


def test_without_settings_the_program_makes_the_client(analytics, arrived, collector):
    """By `init()`, whenever it likes."""
    app = make_app(analytics.track)
    Analytics(app)
    analytics.init(KEY, collector.url)
    app.test_client().post("/orders/5")

    assert len(arrived(analytics)) == 2


def test_apps_of_several_projects_keep_their_events_apart(analytics, make_client, collector):
    """Each with a client of its own; none becomes the default."""
    clients = [make_client(super_properties={"app": number}) for number in range(2)]
    for client in clients:
        app = make_app(client.track, ANALYTICS={"api_key": KEY, "api_url": collector.url})
        Analytics(app, client=client)
        app.test_client().post("/orders/5")
        assert client.flush()

    assert [event["properties"]["app"] for event in collector.stored] == [0, 0, 1, 1]
    assert analytics.track("a") is False


def test_nothing_of_a_request_outlives_it(app, outlives):
    """Its body may be large, its connection one of few."""

    def visit(thing):
        environ = {"PATH_INFO": "/enter/u-1", "thing": thing}
        setup_testing_defaults(environ)
        app(environ, lambda *_: None).close()

    # The first request of an app leaves more behind.
    visit(None)
    assert not outlives(visit)


def test_an_app_is_served_once(app, client):
    """Twice would be two events for each request."""
    with pytest.raises(ConfigError, match="already"):
        Analytics(app, client=client)


@pytest.mark.parametrize(
    ("config", "options", "word"),
    [
        ({"ANALYTICS": {"oops": 1}}, {}, "oops"),
        ({"ANALYTICS": {"batch_size": 0}}, {}, "batch_size"),
        ({"ANALYTICS": "ak_live_x"}, {}, "dict"),
        ({}, {"capture_ip": "no"}, "capture_ip"),
    ],
)
def test_wrong_settings_stop_the_start(analytics, config, options, word):
    """Never a request."""
    with pytest.raises(ConfigError, match=word):
        Analytics(make_app(analytics.track, **config), **options)


def test_wrong_options_are_told_before_there_is_an_app():
    """Where they stand."""
    with pytest.raises(ConfigError, match="oops"):
        Analytics(oops=1)


def test_an_app_that_is_gone_leaves_nothing_behind(client):
    """Signals of Flask are global; a factory in tests makes many apps."""
    import gc
    import weakref

    app = make_app(client.track)
    Analytics(app, client=client)
    app.test_client().get("/gone")
    dead = [weakref.ref(each) for each in (app, app.extensions["analytics_sdk"])]
    del app
    gc.collect()

    assert [reference() for reference in dead] == [None, None]


def test_the_example_runs(run_example, buyers):
    """As its first lines say."""
    url = run_example("-m", "flask", "--app", "flask_shop", "run", "--port", "PORT")

    assert buyers(url) == {"ada"}


def test_parallel_requests_never_mix(app, arrived, client, serve_wsgi, together):
    """Each has its own user, before and after it waited for the others."""
    barrier = threading.Barrier(6)

    @app.get("/patient")
    def patient():
        client.track("before")
        barrier.wait(20)
        client.track("after")
        return "ok"

    url = serve_wsgi(app)

    def visit(name):
        with httpx.Client(base_url=url, headers={"x-request-id": name}) as http:
            http.get(f"/enter/{name}")
            for _ in range(5):
                http.get("/patient")

    together(visit, [f"u-{number}" for number in range(6)])

    events = arrived(client, 6 * (2 + 5 * 3))
    for event in events:
        assert event["userId"] == event["context"]["requestId"]
    assert analytics_sdk.stats().taken == 0
