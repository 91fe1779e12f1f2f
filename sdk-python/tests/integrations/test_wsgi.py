"""The WSGI middleware, with plain applications and a real server."""

import threading
from io import BytesIO
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import httpx
import pytest

import analytics_sdk
from analytics_sdk import ConfigError
from analytics_sdk.context import current
from analytics_sdk.integrations.wsgi import AnalyticsMiddleware

TRACE = "0af7651916cd43dd8448eb211c80319c"


def environ_of(**changes):
    environ = {}
    setup_testing_defaults(environ)
    return {**environ, "REMOTE_ADDR": "192.0.2.1", "QUERY_STRING": "", **changes}


def call(app, environ=None):
    """Call *app* as a server does, and return the status and the answer, still to be read."""
    started = []

    def start_response(status, headers, exc_info=None):
        started.append(status)
        return lambda data: None

    return started, app(environ or environ_of(), start_response)


def read(app, environ=None):
    started, answer = call(app, environ)
    try:
        return started[0] if started else None, b"".join(answer)
    finally:
        if hasattr(answer, "close"):
            answer.close()


def hello(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


def test_all_events_of_a_request_say_who_and_where(client, arrived, serve_wsgi):
    """Those that it tracks, and its own."""

    def shop(environ, start_response):
        client.track("order_placed", {"amount": 5})
        return hello(environ, start_response)

    app = AnalyticsMiddleware(
        shop,
        client=client,
        user_id=lambda environ: environ["HTTP_X_USER"],
        route=lambda environ: "/orders/{id}",
    )
    headers = {
        "x-user": "u-1",
        "x-request-id": "req-1",
        "traceparent": f"00-{TRACE}-b7ad6b7169203331-01",
        "user-agent": "curl/8",
        "accept-language": "de-DE,de;q=0.9",
        "referer": "https://search.test/find?q=SECRET",
        "cookie": "analytics_anonymous_id=anon-1; analytics_session_id=session-1",
    }
    url = serve_wsgi(app)
    assert httpx.post(f"{url}/orders/5?token=SECRET", headers=headers).text == "hello"

    placed, operation = arrived(client)
    assert placed["name"] == "order_placed"
    assert operation["name"] == "POST /orders/{id}"
    assert operation["properties"].pop("durationMs") > 0
    assert operation["properties"] == {
        "route": "/orders/{id}",
        "method": "POST",
        "statusCode": 200,
        "status": "SUCCESS",
    }
    shared = {
        "requestId": "req-1",
        "traceId": TRACE,
        "userAgent": "curl/8",
        "locale": "de-DE",
        "ip": "127.0.0.1",
        "page": {
            "url": f"{url}/orders/5",
            "path": "/orders/5",
            "referrer": "https://search.test/find",
        },
    }
    del placed["context"]["library"], operation["context"]["library"]
    assert placed["context"] == shared
    assert operation["context"] == {**shared, "category": "USER_ACTION"}
    for event in (placed, operation):
        assert event["userId"] == "u-1"
        assert event["anonymousId"] == "anon-1"
        assert event["sessionId"] == "session-1"


def test_the_default_client_is_that_of_the_moment(analytics, collector):
    """Middleware is often made before `init()` was called."""
    app = AnalyticsMiddleware(hello)
    analytics.init("ak_live_test0SECRET", collector.url)
    read(app)

    assert analytics_sdk.flush()
    assert collector.names == ["GET (no route)"]


PIECES = ["first_made", "second_made", "third_made"]


def test_a_stream_is_passed_on_piece_by_piece(client, arrived, serve_wsgi):
    """Nothing is kept back; what it tracks on the way is of the request, which ends with it."""
    steps = threading.Semaphore(0)

    def stream(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])

        def pieces():
            for number in range(3):
                if number:
                    assert steps.acquire(timeout=20)
                client.track(PIECES[number])
                yield b"%d" % number

        return pieces()

    app = AnalyticsMiddleware(stream, client=client)
    with httpx.stream("GET", serve_wsgi(app), headers={"x-request-id": "r"}) as response:
        for number, text in enumerate(response.iter_raw(1)):
            # Only who has read a piece has the next made.
            assert text == b"%d" % number
            made = [event["name"] for event in arrived(client) if event["name"] in PIECES]
            assert made == PIECES[: number + 1]
            steps.release()

    *pieces, operation = arrived(client)
    assert len(pieces) == 3
    assert operation["name"] == "GET (no route)"
    assert {event["context"]["requestId"] for event in (*pieces, operation)} == {"r"}


def test_an_answer_that_is_never_closed_leaks_into_no_other_request(client):
    """A server thread serves many strangers; an abandoned stream leaves nothing behind."""
    seen = []

    def stream(environ, start_response):
        start_response("200 OK", [])
        seen.append(current.get().user_id())
        yield b"1"
        yield b"2"

    app = AnalyticsMiddleware(
        stream, client=client, user_id=lambda environ: environ["user"], operations=False
    )
    answers = [call(app, environ_of(user=user))[1] for user in ("a", "b")]
    for answer in answers:
        assert next(answer) == b"1"
        assert current.get() is None

    assert seen == ["a", "b"]


def test_what_the_application_raises_goes_on(client, arrived):
    """The server answers; the event says what it was."""

    def boom(environ, start_response):
        raise KeyError("no such order")

    with pytest.raises(KeyError, match="no such order"):
        read(AnalyticsMiddleware(boom, client=client))

    [operation] = arrived(client)
    assert operation["properties"]["status"] == "FAILURE"
    assert operation["properties"]["errorType"] == "KeyError"
    assert operation["properties"]["statusCode"] == 500
    assert current.get() is None


def test_a_stream_that_breaks_is_a_failure(client, arrived):
    """Though its status went out as 200."""

    def stream(environ, start_response):
        start_response("200 OK", [])
        yield b"1"
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        read(AnalyticsMiddleware(stream, client=client))

    [operation] = arrived(client)
    assert operation["properties"]["statusCode"] == 200
    assert operation["properties"]["status"] == "FAILURE"
    assert operation["properties"]["errorType"] == "OSError"


def test_a_stream_that_is_closed_early_has_ended(client, arrived):
    """The server closes it when the client is gone; its own closing runs in the scope."""
    scopes = []

    def stream(environ, start_response):
        start_response("200 OK", [])
        try:
            yield b"1"
            yield b"2"
        finally:
            scopes.append(current.get())

    _, answer = call(AnalyticsMiddleware(stream, client=client))
    next(answer)
    assert arrived(client) == []
    answer.close()

    [operation] = arrived(client)
    assert operation["properties"]["status"] == "SUCCESS"
    assert scopes[0].context["requestId"] == operation["context"]["requestId"]


def test_a_stream_that_is_exhausted_has_ended(client, arrived):
    """Though the server has yet to close it."""
    _, answer = call(AnalyticsMiddleware(answer_stream, client=client))
    assert list(answer) == [b"a", b"b"]
    assert len(arrived(client)) == 1

    answer.close()
    assert len(arrived(client)) == 1


def test_a_server_gets_lists_and_files_as_they_are(client, arrived):
    """It takes the length of a one and the descriptor of the other."""
    file = FileWrapper(BytesIO(b"a"))
    answers = {"/list": [b"a"], "/tuple": (b"a",), "/file": file}

    def app(environ, start_response):
        start_response("200 OK", [])
        return answers[environ["PATH_INFO"]]

    app = AnalyticsMiddleware(app, client=client)
    for path, answer in answers.items():
        environ = environ_of(PATH_INFO=path, **{"wsgi.file_wrapper": FileWrapper})
        assert call(app, environ)[1] is answer

    assert len(arrived(client)) == 3


def test_the_old_way_to_write_still_works(client, arrived):
    """`start_response()` returns what the server gave."""
    written = []

    def app(environ, start_response):
        start_response("200 OK", [])(b"hello")
        return []

    AnalyticsMiddleware(app, client=client)(
        environ_of(), lambda status, headers, exc_info=None: written.append
    )

    assert written == [b"hello"]
    assert len(arrived(client)) == 1


def test_an_application_may_change_its_mind_about_the_status(client, arrived):
    """With `exc_info`, as error handlers do."""

    def app(environ, start_response):
        start_response("200 OK", [])
        try:
            raise KeyError
        except KeyError as error:
            start_response("503 Busy", [], (type(error), error, error.__traceback__))
        return [b""]

    started, _ = call(AnalyticsMiddleware(app, client=client))

    assert started == ["200 OK", "503 Busy"]
    assert arrived(client)[0]["properties"]["statusCode"] == 503


@pytest.mark.parametrize("status", ["weird", "", "²00 OK"])
def test_a_status_that_is_none_is_the_servers_business(client, arrived, status):
    """It is passed on."""

    def app(environ, start_response):
        start_response(status, [])
        return [b""]

    assert call(AnalyticsMiddleware(app, client=client))[0] == [status]
    assert "statusCode" not in arrived(client)[0]["properties"]


def answer_list(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"a", b"b"]


def answer_stream(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])

    def pieces():
        yield b"a"
        yield b"b"

    return pieces()


def answer_late(environ, start_response):
    yield b""
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"ab"


@pytest.mark.parametrize("app", [answer_list, answer_stream])
def test_both_sides_keep_to_pep_3333(client, app):
    """`wsgiref.validate` looks at the middleware from the server's side and the application's."""
    linted = validator(AnalyticsMiddleware(validator(app), client=client))

    assert read(linted) == ("200 OK", b"ab")


def test_an_application_may_start_late(client, arrived):
    """A generator runs when the first piece is asked for."""
    assert read(AnalyticsMiddleware(answer_late, client=client)) == (None, b"ab")

    assert arrived(client)[0]["properties"]["statusCode"] == 200


@pytest.mark.parametrize("app", [answer_list, answer_stream])
def test_nothing_of_a_request_outlives_it(client, outlives, app):
    """Its body may be large, its connection one of few."""
    app = AnalyticsMiddleware(app, client=client, user_id=lambda environ: None)

    assert not outlives(lambda thing: read(app, environ_of(thing=thing)))


def test_what_is_ignored_is_left_alone(client):
    """No scope, no event, not even another environ."""
    seen = []

    def app(environ, start_response):
        seen.append((environ, current.get()))
        return hello(environ, start_response)

    environ = environ_of(SCRIPT_NAME="/shop", PATH_INFO="/health/live")
    before = dict(environ)
    read(AnalyticsMiddleware(app, client=client, ignore=["/shop/health"]), environ)

    assert seen == [(before, None)]
    assert client.stats().taken == 0


def test_paths_are_those_of_the_browser(client, arrived):
    """Servers decode them, mounts split them."""
    environ = environ_of(SCRIPT_NAME="/shop", PATH_INFO="/ä b".encode().decode("latin-1"))
    read(AnalyticsMiddleware(hello, client=client), environ)

    assert arrived(client)[0]["context"]["page"]["path"] == "/shop/%C3%A4%20b"


def test_wrong_options_are_told_at_the_start():
    """Never in a request."""
    with pytest.raises(ConfigError, match="categry"):
        AnalyticsMiddleware(hello, categry="QUERY")


def test_parallel_requests_never_mix(client, arrived, serve_wsgi, together):
    """Each thread has its own user, before and after it waited for the others."""
    barrier = threading.Barrier(8)

    def app(environ, start_response):
        client.track("before")
        barrier.wait(20)
        client.track("after")
        return answer_stream(environ, start_response)

    url = serve_wsgi(
        AnalyticsMiddleware(app, client=client, user_id=lambda environ: environ["HTTP_X_USER"])
    )

    def visit(number):
        with httpx.Client() as http:
            for turn in range(12):
                name = f"u{number}-{turn}"
                cookie = f"analytics_session_id={name}"
                http.get(url, headers={"x-user": name, "x-request-id": name, "cookie": cookie})

    together(visit, range(8))

    events = arrived(client)
    assert len(events) == 8 * 12 * 3
    for event in events:
        assert event["userId"] == event["sessionId"] == event["context"]["requestId"]
    assert len({event["userId"] for event in events}) == 8 * 12
