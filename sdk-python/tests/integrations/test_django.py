"""The Django integration, with a real project: sessions, users, a database, two servers."""

# ruff: noqa: E402 - the rest is imported only where Django is installed

import asyncio
import shutil
import tempfile
import threading
from importlib.metadata import version
from pathlib import Path
from uuid import uuid4
from wsgiref.util import setup_testing_defaults

import httpx
import pytest

pytest.importorskip("django")

import django
from django.conf import settings

# Made when the tests begin: who only collects them leaves nothing behind.
HOME = Path(tempfile.gettempdir(), f"analytics-django-{uuid4().hex}")
APP = "analytics_sdk.integrations.django"
OURS = f"{APP}.AnalyticsMiddleware"
SESSIONS = "django.contrib.sessions.middleware.SessionMiddleware"
AUTHENTICATION = "django.contrib.auth.middleware.AuthenticationMiddleware"

settings.configure(
    SECRET_KEY="test",
    ALLOWED_HOSTS=["*"],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": HOME / "db",
            "OPTIONS": {"timeout": 20},
        }
    },
    INSTALLED_APPS=[
        APP,
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
    ],
    MIDDLEWARE=[OURS, SESSIONS, AUTHENTICATION],
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    LOGGING_CONFIG=None,
    USE_TZ=True,
)
django.setup()

from asgiref.sync import async_to_sync
from django.contrib.auth import alogin, get_user_model, login, logout
from django.core.checks import run_checks
from django.core.exceptions import PermissionDenied
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.db import connection, connections
from django.http import FileResponse, Http404, HttpResponse, StreamingHttpResponse
from django.test import AsyncClient, Client, override_settings
from django.test.utils import CaptureQueriesContext
from django.urls import include, path, re_path
from django.utils.deprecation import MiddlewareMixin
from django.utils.functional import SimpleLazyObject

import analytics_sdk
from analytics_sdk import ConfigError
from analytics_sdk.context import current
from analytics_sdk.integrations.django import configured

KEY = "ak_live_test0SECRET"
SERVERS = ["wsgi", "asgi"]


# The project


def look(request, number=0):
    analytics_sdk.track("looked")
    return HttpResponse("ok")


async def alook(request, number=0):
    analytics_sdk.track("looked")
    return HttpResponse("ok")


def quiet(request, **arguments):
    return HttpResponse("ok")


async def aquiet(request):
    return HttpResponse("ok")


def greet(request):
    text = str(request.user.pk)
    analytics_sdk.track("looked")
    return HttpResponse(text)


async def agreet(request):
    user = await request.auser()
    analytics_sdk.track("looked")
    return HttpResponse(str(user.pk))


def enter(request, number):
    login(request, get_user_model().objects.get(pk=number))
    analytics_sdk.track("looked")
    return HttpResponse("ok")


async def aenter(request, number):
    await alogin(request, await get_user_model().objects.aget(pk=number))
    analytics_sdk.track("looked")
    return HttpResponse("ok")


def leave(request):
    logout(request)
    return HttpResponse("ok")


def raising(error):
    def view(request):
        raise error

    return view


def araising(error):
    async def view(request):
        raise error

    return view


def stream(request):
    def pieces():
        for number in range(3):
            analytics_sdk.track(f"made_{number}")
            yield b"%d" % number
            if number == 1 and "break" in request.GET:
                raise OSError("disk")

    return StreamingHttpResponse(pieces())


async def astream(request):
    async def pieces():
        for number in range(3):
            analytics_sdk.track(f"made_{number}")
            yield b"%d" % number
            if number == 1 and "break" in request.GET:
                raise OSError("disk")

    return StreamingHttpResponse(pieces())


def file(request):
    return FileResponse(Path(__file__).open("rb"))


class Patient:
    """Views in which requests wait for each other."""

    barrier = threading.Barrier(6)

    def view(self, request):
        analytics_sdk.track("before")
        self.barrier.wait(20)
        analytics_sdk.track("after")
        return HttpResponse("ok")

    async def aview(self, request):
        user = await request.auser()
        for _ in range(3):
            analytics_sdk.track("step")
            await asyncio.sleep(0)
        return HttpResponse(str(user.pk))


URLS = (
    path("look/<int:number>", look),
    path("alook/<int:number>", alook),
    path("quiet", quiet),
    path("aquiet", aquiet),
    path("greet", greet),
    path("agreet", agreet),
    path("enter/<int:number>", enter),
    path("aenter/<int:number>", aenter),
    path("leave", leave),
    path("boom", raising(KeyError("no such order"))),
    path("aboom", araising(KeyError("no such order"))),
    path("lost", raising(Http404())),
    path("denied", raising(PermissionDenied())),
    path("stream", stream),
    path("astream", astream),
    path("file", file),
    path("patient", Patient().view),
    path("apatient", Patient().aview),
    re_path(r"^articles/(?P<year>[0-9]{4})/$", quiet),
    path("shop/<slug:shop>/", include(([path("orders/<uuid:order>", quiet)], "shop"))),
)


@pytest.fixture(scope="module", autouse=True)
def _database():
    # Perhaps not for the first time: who has done with its tests may take over some of another's.
    HOME.mkdir()
    call_command("migrate", verbosity=0)
    for number in range(1, 9):
        get_user_model().objects.create(pk=number, username=f"user-{number}")
    yield
    connections.close_all()
    shutil.rmtree(HOME)


@pytest.fixture(autouse=True)
def project(request, analytics, collector):
    """Change `ANALYTICS`, and other settings, for the rest of the test."""
    overrides = []

    def change(options=None, **others):
        if options is not None:
            others["ANALYTICS"] = {"api_key": KEY, "api_url": collector.url, **options}
        overrides.append(override_settings(**others))
        overrides[-1].enable()

    change({}, ROOT_URLCONF=URLS)
    yield change
    for each in reversed(overrides):
        each.disable()


@pytest.fixture
def serve(serve_wsgi, serve_asgi):
    """Serve the project, and return its address."""

    def start(server):
        if server == "wsgi":
            return serve_wsgi(get_wsgi_application())
        from django.core.asgi import get_asgi_application

        return serve_asgi(get_asgi_application())

    return start


def cookies_of(number):
    """Return the cookies of a browser in which the user is logged in."""
    browser = Client()
    browser.force_login(get_user_model().objects.get(pk=number))
    return {name: morsel.value for name, morsel in browser.cookies.items()}


def outcome(event):
    facts = {**event["properties"], "name": event["name"]}
    assert facts.pop("durationMs") >= 0
    return facts


# Events of a request


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("view", ["look", "alook"])
def test_all_events_of_a_request_say_who_and_where(arrived, serve, server, view):
    """Under both kinds of server, in both kinds of view."""
    url = serve(server)
    headers = {
        "x-request-id": "req-1",
        "x-analytics-anonymous-id": "anon-1",
        "accept-language": "fr-CH,fr",
        "referer": "https://search.test/?q=SECRET",
    }
    cookies = {"analytics_session_id": "session-1"}
    with httpx.Client(base_url=url, headers=headers, cookies=cookies) as http:
        assert http.post(f"/{view}/7?token=SECRET").text == "ok"

    looked, operation = arrived(analytics_sdk, 2)
    assert looked["name"] == "looked"
    assert outcome(operation) == {
        "name": f"POST /{view}/{{number}}",
        "route": f"/{view}/{{number}}",
        "method": "POST",
        "statusCode": 200,
        "status": "SUCCESS",
    }
    assert operation["context"]["category"] == "USER_ACTION"
    for event in (looked, operation):
        assert event["anonymousId"] == "anon-1"
        assert event["sessionId"] == "session-1"
        assert "userId" not in event
        assert event["context"]["requestId"] == "req-1"
        assert event["context"]["locale"] == "fr-CH"
        assert event["context"]["ip"] == "127.0.0.1"
        assert event["context"]["page"] == {
            "url": f"{url}/{view}/7",
            "path": f"/{view}/7",
            "referrer": "https://search.test/",
        }


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("view", ["look/1", "greet", "agreet", "enter/3", "aenter/3"])
def test_the_user_is_the_one_who_is_logged_in(arrived, serve, server, view):
    """In the events of the view and in that of the request; logging in counts at once."""
    with httpx.Client(base_url=serve(server), cookies=cookies_of(3)) as http:
        assert http.get(f"/{view}").status_code == 200

    assert [event["userId"] for event in arrived(analytics_sdk, 2)] == ["3", "3"]


@pytest.mark.parametrize("server", SERVERS)
def test_an_async_view_that_did_not_ask_for_the_user_is_no_error(
    arrived, serve, server, caplog, sdk_log
):
    """Its events do without; that of the request, which may wait for the database, does not."""
    with httpx.Client(base_url=serve(server), cookies=cookies_of(3)) as http:
        response = http.get("/alook/1")

    looked, operation = arrived(analytics_sdk, 2)
    assert response.status_code == 200
    # Nothing was tried in vain.
    assert "vary" not in response.headers
    assert looked.get("userId") is None
    assert operation["userId"] == "3"
    assert caplog.records == []
    assert sdk_log.records == []


@pytest.mark.parametrize("server", SERVERS)
def test_who_logs_out_is_nobody(arrived, serve, server):
    """From then on."""
    with httpx.Client(base_url=serve(server), cookies=cookies_of(3)) as http:
        http.get("/leave")

    assert "userId" not in arrived(analytics_sdk, 1)[0]


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (
            "/boom",
            {"name": "GET /boom", "route": "/boom", "statusCode": 500, "errorType": "KeyError"},
        ),
        (
            "/aboom",
            {"name": "GET /aboom", "route": "/aboom", "statusCode": 500, "errorType": "KeyError"},
        ),
        ("/lost", {"name": "GET /lost", "route": "/lost", "statusCode": 404}),
        ("/denied", {"name": "GET /denied", "route": "/denied", "statusCode": 403}),
        ("/wp-login.php", {"name": "GET (no route)", "statusCode": 404}),
    ],
)
def test_errors_become_answers_and_events(arrived, serve, server, address, expected):
    """A failure is what the project broke."""
    assert httpx.get(serve(server) + address).status_code == expected["statusCode"]

    status = "FAILURE" if expected["statusCode"] == 500 else "SUCCESS"
    [operation] = arrived(analytics_sdk, 1)
    assert outcome(operation) == {**expected, "method": "GET", "status": status}


def test_what_is_raised_through_us_goes_on(arrived, project):
    """A project in debugging lets its errors out."""
    project(DEBUG_PROPAGATE_EXCEPTIONS=True)
    for browser in (Client(), None):
        with pytest.raises(KeyError, match="no such order"):
            browser.get("/boom") if browser else async_to_sync(AsyncClient().get)("/aboom")

    assert [outcome(event)["errorType"] for event in arrived(analytics_sdk)] == ["KeyError"] * 2


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("/articles/1999/", "GET /articles/{year}/"),
        (
            "/shop/acme/orders/01935a2e-7c1b-7d10-a3a4-5b0c6f1c9d11",
            "GET /shop/{shop}/orders/{order}",
        ),
    ],
)
def test_routes_are_templates_with_all_their_prefixes(arrived, address, name):
    """Never the path itself."""
    assert Client().get(address).status_code == 200

    assert arrived(analytics_sdk)[0]["name"] == name


@pytest.mark.parametrize("kind", [("wsgi", "stream"), ("asgi", "astream")])
def test_a_stream_belongs_to_its_request_to_the_end(arrived, serve, kind):
    """What it tracks on the way is of the request, which ends with it."""
    server, view = kind
    with httpx.Client(base_url=serve(server), headers={"x-request-id": "r"}) as http:
        assert http.get(f"/{view}").text == "012"

    events = arrived(analytics_sdk, 4)
    assert [event["name"] for event in events] == ["made_0", "made_1", "made_2", f"GET /{view}"]
    assert {event["context"]["requestId"] for event in events} == {"r"}


def test_a_stream_that_breaks_is_a_failure(arrived):
    """Though its status went out as 200."""

    async def read():
        response = await AsyncClient().get("/astream?break")
        return [piece async for piece in response.streaming_content]

    with pytest.raises(OSError, match="disk"):
        list(Client().get("/stream?break").streaming_content)
    with pytest.raises(OSError, match="disk"):
        async_to_sync(read)()

    operations = [event for event in arrived(analytics_sdk) if "GET" in event["name"]]
    assert [event["name"] for event in operations] == ["GET /stream", "GET /astream"]
    for event in operations:
        assert outcome(event)["errorType"] == "OSError"
        assert outcome(event)["status"] == "FAILURE"
        assert outcome(event)["statusCode"] == 200


def test_a_stream_that_nobody_reads_has_ended_when_it_is_closed(arrived):
    """In the event loop too."""

    async def abandon():
        response = await AsyncClient().get("/astream")
        pieces = aiter(response.streaming_content)
        await anext(pieces)
        await pieces.aclose()

    async_to_sync(abandon)()
    response = Client().get("/stream")
    next(response.streaming_content)
    response.close()

    names = [event["name"] for event in arrived(analytics_sdk)]
    assert names == ["made_0", "GET /astream", "made_0", "GET /stream"]


def test_a_server_gets_files_as_they_are(arrived, serve):
    """It may have faster ways to send one."""
    seen = []

    class Wrapper:
        def __init__(self, file, size):
            seen.append(file.name)
            self.close = file.close
            self.pieces = iter([b"sent"])

        def __iter__(self):
            return self.pieces

    application = get_wsgi_application()

    def app(environ, start_response):
        return application({**environ, "wsgi.file_wrapper": Wrapper}, start_response)

    transport = httpx.WSGITransport(app)
    with httpx.Client(transport=transport, base_url="http://shop.test") as http:
        assert http.get("/file").text == "sent"

    assert seen == [__file__]
    assert arrived(analytics_sdk)[0]["name"] == "GET /file"


def test_what_is_ignored_is_left_alone(arrived, project, serve):
    """By prefix here; its events say nothing of a request."""
    project({"ignore": ["/look"], "operations": True})
    for server in SERVERS:
        httpx.get(f"{serve(server)}/look/1")

    for event in arrived(analytics_sdk, 2):
        assert event["name"] == "looked"
        assert "requestId" not in event["context"]


# Being a good guest


def test_no_query_is_made_for_a_request_that_tracks_nothing(project, arrived):
    """Nor the session read."""
    project({"operations": False})
    browser, async_browser = Client(), AsyncClient()
    for each in (browser, async_browser):
        each.force_login(get_user_model().objects.get(pk=3))
    with CaptureQueriesContext(connection) as queries:
        browser.get("/quiet")
        async_to_sync(async_browser.get)("/aquiet")

    assert len(queries) == 0
    assert arrived(analytics_sdk) == []


@pytest.mark.parametrize("address", ["/quiet", "/look/1", "/greet"])
def test_the_user_is_looked_up_once_whatever_is_tracked(project, arrived, address):
    """The session, the user, and never again."""
    browser = Client()
    browser.force_login(get_user_model().objects.get(pk=3))
    with CaptureQueriesContext(connection) as queries:
        browser.get(address)

    assert len(queries) == 2
    assert {event["userId"] for event in arrived(analytics_sdk)} == {"3"}


@pytest.mark.parametrize("address", ["/aquiet", "/alook/1", "/agreet", "/greet"])
def test_the_user_is_looked_up_once_in_the_event_loop_too(arrived, address):
    """Whoever asked first."""
    browser = AsyncClient()
    browser.force_login(get_user_model().objects.get(pk=3))
    with CaptureQueriesContext(connection) as queries:
        async_to_sync(browser.get)(address)

    assert len(queries) == 2
    assert arrived(analytics_sdk)[-1]["userId"] == "3"


def test_nobody_is_looked_up_for_a_visitor_without_a_session(arrived):
    """Most visitors have none."""
    with CaptureQueriesContext(connection) as queries:
        Client().get("/look/1")
        async_to_sync(AsyncClient().get)("/alook/1")

    assert len(queries) == 0
    assert len(arrived(analytics_sdk)) == 4


def test_the_answer_is_what_it_would_be_without_us(arrived, project):
    """To look the user up at the end touches neither cookies nor caches."""
    answers = []
    for middleware in ([OURS, SESSIONS, AUTHENTICATION], [SESSIONS, AUTHENTICATION]):
        project(MIDDLEWARE=middleware)
        browser = Client()
        browser.force_login(get_user_model().objects.get(pk=3))
        for address in ("/quiet", "/greet", "/wp-login.php"):
            answers.append((address, dict(browser.get(address).headers)))

    assert answers[:3] == answers[3:]
    assert "Vary" not in answers[0][1]
    assert answers[1][1]["Vary"] == "Cookie"
    operations = [event for event in arrived(analytics_sdk) if event["name"] != "looked"]
    assert [event["userId"] for event in operations] == ["3"] * 3


class BrokenAuthentication(MiddlewareMixin):
    """Users that can't be looked up, as when the database is away."""

    def process_request(self, request):
        async def auser():
            raise ZeroDivisionError

        request.user, request.auser = SimpleLazyObject(lambda: 1 / 0), auser


def test_a_user_who_can_not_be_looked_up_is_nobody(arrived, project):
    """The request is answered, and its event is there."""
    project(MIDDLEWARE=[OURS, f"{__name__}.BrokenAuthentication"])
    assert Client().get("/look/1").status_code == 200
    assert async_to_sync(AsyncClient().get)("/alook/1").status_code == 200

    assert ["userId" in event for event in arrived(analytics_sdk)] == [False] * 4


def test_a_project_without_users_needs_none(arrived, project):
    """Neither sessions nor authentication."""
    project(MIDDLEWARE=[OURS])
    Client().get("/look/1")
    async_to_sync(AsyncClient().get)("/alook/1")

    assert len(arrived(analytics_sdk)) == 4


def test_nothing_of_a_request_outlives_it(project, outlives):
    """Its body may be large, its connection one of few."""
    project(MIDDLEWARE=[OURS])
    application = get_wsgi_application()

    def visit(thing):
        environ = {"PATH_INFO": "/look/1", "thing": thing}
        setup_testing_defaults(environ)
        application(environ, lambda *_: None).close()

    visit(None)
    assert not outlives(visit)


@pytest.mark.parametrize("server", SERVERS)
def test_parallel_requests_never_mix(arrived, serve, together, server):
    """Each has its own user, before and after it waited for the others."""
    url = serve(server)
    cookies = {number: cookies_of(number) for number in range(1, 7)}
    address = "/patient" if server == "wsgi" else "/apatient"

    def visit(number):
        with httpx.Client(base_url=url, cookies=cookies[number]) as http:
            for _ in range(5):
                http.get(address, headers={"x-request-id": str(number)})

    together(visit, list(cookies))

    events = arrived(analytics_sdk, 6 * 5 * (3 if server == "wsgi" else 4))
    assert {event["userId"] for event in events} == {"1", "2", "3", "4", "5", "6"}
    for event in events:
        assert event["userId"] == event["context"]["requestId"]


# Settings


def user_hook(request):
    return request.headers["x-user"]


def drop_all(event):
    return None


def test_hooks_may_be_given_by_their_path(arrived, project):
    """Settings can't import the project's code."""
    project(
        {"user_id": f"{__name__}.user_hook", "ignore": lambda request: request.path == "/quiet"}
    )
    browser = Client(headers={"x-user": "u-9"})
    browser.get("/look/1")
    browser.get("/quiet")
    assert [event["userId"] for event in arrived(analytics_sdk)] == ["u-9"] * 2

    project({"before_send": f"{__name__}.drop_all"})
    Client().get("/look/1")
    assert analytics_sdk.stats().refused == {"before_send": 2}


def test_the_default_client_is_made_once(project):
    """However many handlers there are, and again when the settings changed."""
    Client().get("/quiet")
    first = analytics_sdk._default.get()
    Client().get("/quiet")
    async_to_sync(AsyncClient().get)("/aquiet")
    assert analytics_sdk._default.get() is first

    project({"batch_size": 1})
    Client().get("/quiet")
    assert analytics_sdk._default.get() is not first


def test_a_client_of_ones_own_gets_the_events_of_requests(arrived, project, make_client):
    """And nothing makes a default one."""
    own = make_client()
    project(ANALYTICS={"client": own})
    Client().get("/quiet")

    assert [event["name"] for event in arrived(own)] == ["GET /quiet"]
    assert analytics_sdk._default.get() is None


def test_without_settings_the_program_makes_the_client(arrived, project, collector):
    """By `init()`, whenever it likes."""
    project(ANALYTICS={"capture_ip": False})
    browser = Client()
    browser.get("/quiet")
    analytics_sdk.init(KEY, collector.url)
    browser.get("/greet")

    assert [event["name"] for event in arrived(analytics_sdk)] == ["looked", "GET /greet"]


@pytest.mark.parametrize(
    "given", [{"batch_size": 0}, {"oops": 1}, {"user_id": "no.such.function"}, {"ignore": "/a"}]
)
def test_wrong_settings_stop_the_start(project, given):
    """Never a request."""
    project(given)
    with pytest.raises(ConfigError, match=next(iter(given))):
        get_wsgi_application()


def test_a_client_that_is_not_enabled_takes_the_middleware_out(project):
    """As in the tests of a project: no query, no time."""
    project(ANALYTICS={"enabled": False})
    browser = Client()
    browser.force_login(get_user_model().objects.get(pk=3))
    with CaptureQueriesContext(connection) as queries:
        browser.get("/quiet")

    assert len(queries) == 0
    assert analytics_sdk.stats().refused == {}


ALL = [OURS, SESSIONS, AUTHENTICATION]


@pytest.mark.parametrize(
    ("given", "middleware", "found"),
    [
        ({"api_key": KEY, "api_url": "http://c.test"}, ALL, {}),
        ({"enabled": False}, ALL, {}),
        ({}, ALL, {"analytics.E001": ["api_key", "api_url"]}),
        (
            {"api_key": "a b", "api_url": "ftp://c.test"},
            ALL,
            {"analytics.E001": ["api_key", "api_url"]},
        ),
        ({"enabled": False, "api_keys": "x"}, ALL, {"analytics.E002": ["'api_keys'"]}),
        (
            {"enabled": False, "batch_size": 0, "capture_ip": 1},
            ALL,
            {"analytics.E003": ["capture_ip", "batch_size"]},
        ),
        ({"enabled": False, "user_id": "no.such"}, ALL, {"analytics.E003": ["user_id"]}),
        (["api_key"], ALL, {"analytics.E003": ["must be a dict"]}),
        ({"client": "no.such"}, ALL, {"analytics.E003": ["client"]}),
        ({"client": f"{__name__}.nobody"}, ALL, {"analytics.E003": ["client"]}),
        ({"enabled": False}, [SESSIONS], {"analytics.W001": ["not its middleware"]}),
        ({"enabled": False}, [SESSIONS, OURS], {"analytics.W002": ["behind SessionMiddleware"]}),
    ],
)
def test_checks_tell_what_is_wrong(project, given, middleware, found):
    """`manage.py check` names every mistake, and what to do about it."""
    project(ANALYTICS=given, MIDDLEWARE=middleware)
    messages = [each for each in run_checks() if each.id.startswith("analytics.")]

    by_id = {}
    for message in messages:
        assert message.hint
        by_id.setdefault(message.id, []).append(message.msg)
    assert set(by_id) == set(found)
    for key, words in found.items():
        assert len(by_id[key]) == len(words)
        for text, word in zip(by_id[key], words, strict=True):
            assert word in text


nobody = object()


def test_a_wrong_name_is_met_with_the_right_one(project):
    """Most are slips."""
    project(ANALYTICS={"enabled": False, "capture_querry": True})
    [message] = [each for each in run_checks() if each.id == "analytics.E002"]

    assert message.hint == "Did you mean 'capture_query'?"


def test_a_program_with_a_client_of_its_own_needs_no_settings(project, collector):
    """The checks see that it called `init()`."""
    project(ANALYTICS={})
    analytics_sdk.init(KEY, collector.url)

    assert [each for each in run_checks() if each.id.startswith("analytics.")] == []


PROJECT = f"""
import django
from django.conf import settings

settings.configure(
    ALLOWED_HOSTS=["*"],
    INSTALLED_APPS=["{APP}"],
    MIDDLEWARE=["{OURS}"],
    ROOT_URLCONF=(),
    ANALYTICS={{
        "api_key": os.environ.pop("ANALYTICS_API_KEY"),
        "api_url": os.environ.pop("ANALYTICS_API_URL"),
    }},
)
"""


def test_commands_and_tasks_track_without_a_request(run_program, collector):
    """`django.setup()` is enough."""
    program = run_program(PROJECT + "django.setup()\nanalytics.track('invoices_sent')")

    assert (program.returncode, program.stderr) == (0, "")
    assert collector.names == ["invoices_sent"]


def test_a_server_that_forks_delivers_from_both_processes(run_program, collector):
    """The application was loaded before, as gunicorn's preload has it."""
    program = run_program(
        PROJECT
        + """
from django.core.wsgi import get_wsgi_application
from wsgiref.util import setup_testing_defaults

application = get_wsgi_application()

def visit(path):
    environ = {"PATH_INFO": path}
    setup_testing_defaults(environ)
    application(environ, lambda *_: None).close()

visit("/before")
child = os.fork()
visit("/child" if child == 0 else "/parent")
if child:
    os.waitpid(child, 0)
"""
    )

    assert program.returncode == 0, program.stderr
    paths = sorted(event["context"]["page"]["path"] for event in collector.stored)
    assert paths == ["/before", "/child", "/parent"]


def test_the_example_runs(run_example, buyers):
    """As its first lines say."""
    serve = ("django_shop.py", "runserver", "--noreload", "PORT")
    url = run_example(*serve, first=("django_shop.py", "migrate"))

    assert buyers(url) == {"1"}


def test_it_runs_on_the_django_that_is_installed():
    """5.2 and what came after."""
    assert tuple(map(int, version("django").split(".")[:2])) >= (5, 2)
    assert configured().operations
    assert current.get() is None
