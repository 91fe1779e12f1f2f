"""The decorator for AWS Lambda, in Lambda's own runtime, which is frozen between invocations."""

import http.server
import json
import os
import queue
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

from analytics_sdk import ConfigError
from analytics_sdk.context import current
from analytics_sdk.integrations.aws_lambda import analytics_handler

EXAMPLES = Path(__file__).parents[2] / "examples"
REQUEST_ID = "8476a536-e9f4-11e8-9739-2dfe598c3fcd"
ROOT = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
TRACE_ID = "5759e988bd862e3fe1be46a994272793"

# As AWS documents them, shortened.
HTTP_API = {
    "version": "2.0",
    "routeKey": "GET /orders/{id}",
    "rawPath": "/orders/17",
    "rawQueryString": "coupon=secret",
    "cookies": ["theme=dark", "analytics_anonymous_id=a-1"],
    "headers": {
        "host": "shop.example.com",
        "user-agent": "Mozilla/5.0",
        "accept-language": "de-AT,de;q=0.9",
        "x-analytics-session-id": "s-1",
        "x-amzn-trace-id": ROOT,
        "x-forwarded-proto": "https",
    },
    "requestContext": {
        "authorizer": {"jwt": {"claims": {"sub": "u-1"}}},
        "http": {"method": "GET", "path": "/orders/17", "sourceIp": "203.0.113.7"},
    },
    "pathParameters": {"id": "17"},
}
REST_API = {
    "resource": "/orders/{id}",
    "path": "/orders/17",
    "httpMethod": "GET",
    "headers": {"Host": "shop.example.com", "User-Agent": "Mozilla/5.0"},
    "multiValueHeaders": {
        "Host": ["shop.example.com"],
        "Cookie": ["theme=dark", "analytics_anonymous_id=a-1; analytics_session_id=s-1"],
        "X-Amzn-Trace-Id": [ROOT],
        "Accept-Language": ["de-AT,de;q=0.9"],
    },
    "queryStringParameters": {"coupon": "secret"},
    "multiValueQueryStringParameters": {"coupon": ["secret"]},
    "requestContext": {"identity": {"sourceIp": "203.0.113.7"}, "stage": "prod"},
}
LOAD_BALANCER = {
    "requestContext": {"elb": {"targetGroupArn": "arn:aws:elasticloadbalancing:eu-west-1:1"}},
    "httpMethod": "GET",
    "path": "/orders/17",
    "queryStringParameters": {"coupon": "secret"},
    "headers": {
        "accept-language": "de-AT,de;q=0.9",
        "cookie": "theme=dark; analytics_anonymous_id=a-1; analytics_session_id=s-1",
        "host": "shop.example.com",
        "user-agent": "Mozilla/5.0",
        "x-amzn-trace-id": ROOT,
        "x-forwarded-for": "198.51.100.1, 203.0.113.7",
        "x-forwarded-proto": "https",
    },
}


class RuntimeHandler(http.server.BaseHTTPRequestHandler):
    """The HTTP API between Lambda and a runtime (2018-06-01)."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        sandbox = self.server.sandbox
        sandbox.freeze()
        invocation = sandbox.invocations.get()
        if invocation is None:
            self.close_connection = True
            return
        event, timeout_s = invocation
        self.answer(
            200,
            json.dumps(event).encode(),
            {
                "Lambda-Runtime-Aws-Request-Id": REQUEST_ID,
                "Lambda-Runtime-Deadline-Ms": str(int((time.time() + timeout_s) * 1000)),
                "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:eu-west-1:1:function:orders",
                "Lambda-Runtime-Trace-Id": ROOT,
                "Content-Type": "application/json",
            },
        )

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.sandbox.answers.put(body)
        self.answer(202, b"{}", {})

    def answer(self, status, body, headers):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


class Sandbox:
    """A function in AWS's own runtime: it runs only while it is invoked, as in Lambda."""

    def __init__(self, folder, handler, environment):
        self.invocations, self.answers = queue.SimpleQueue(), queue.SimpleQueue()
        self.is_frozen = threading.Event()
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), RuntimeHandler)
        self._server.daemon_threads = True
        self._server.sandbox = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "awslambdaric", handler],
            cwd=folder,
            env={
                **os.environ,
                **environment,
                "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self._server.server_port}",
                "AWS_LAMBDA_FUNCTION_NAME": "orders",
                "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
                "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def freeze(self):
        """Stop the process in the middle of whatever it does."""
        self._process.send_signal(signal.SIGSTOP)
        self.is_frozen.set()

    def invoke(self, event=None, timeout_s=30.0):
        """Return what the handler answers, and how long that took."""
        assert self.is_frozen.wait(20), self._process.communicate(timeout=1)
        self.is_frozen.clear()
        self._process.send_signal(signal.SIGCONT)
        began_at = time.monotonic()
        self.invocations.put((event, timeout_s))
        answer = self.answers.get(timeout=timeout_s)
        took_s = time.monotonic() - began_at
        assert self.is_frozen.wait(20)
        return answer, took_s

    def end(self):
        """Throw the sandbox away, as Lambda does, without a word to the function."""
        if self._process.returncode is None:
            self._process.kill()
            self._process.communicate()
        self.invocations.put(None)
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def deploy(tmp_path, collector):
    """Deploy a function; its client sends nothing on its own account."""
    sandboxes = []

    def deploy(source=None, handler="orders.handler", **environment):
        settings = {
            "ANALYTICS_API_KEY": "ak_live_test0SECRET",
            "ANALYTICS_API_URL": collector.url,
            "ANALYTICS_BATCH_SIZE": "500",
            "ANALYTICS_FLUSH_INTERVAL_S": "3600",
            "ANALYTICS_SPOOL_DIR": str(tmp_path / "spool"),
        }
        if source is not None:
            program = "import analytics_sdk as analytics\n"
            program += "from analytics_sdk.integrations.aws_lambda import analytics_handler\n"
            tmp_path.joinpath("orders.py").write_text(program + textwrap.dedent(source))
        sandbox = Sandbox(tmp_path, handler, {**settings, **environment})
        sandboxes.append(sandbox)
        return sandbox

    yield deploy
    for sandbox in sandboxes:
        sandbox.end()


HANDLER = """
    @analytics_handler
    def handler(event, context):
        analytics.track("worked")
        if event and event.get("fails"):
            raise KeyError("no such order")
        return {"statusCode": 200}
"""


def runtime_of(remaining_s=30.0):
    """What the runtime calls context, with the members that AWS documents."""
    deadline = time.monotonic() + remaining_s
    return SimpleNamespace(
        function_name="orders",
        function_version="$LATEST",
        memory_limit_in_mb="128",
        aws_request_id=REQUEST_ID,
        get_remaining_time_in_millis=lambda: max(int((deadline - time.monotonic()) * 1000), 0),
    )


# In the runtime


def test_events_are_delivered_before_the_function_is_frozen(deploy, collector):
    """Nothing would be delivered after; and each invocation is an event."""
    sandbox = deploy(HANDLER)
    for number in (1, 2, 3):
        answer, _ = sandbox.invoke()

        assert answer == {"statusCode": 200}
        assert collector.names == ["worked", "orders"] * number
    facts = [event["properties"] for event in collector.stored if event["name"] == "orders"]
    assert [fact["coldStart"] for fact in facts] == [True, False, False]


def test_the_event_of_an_invocation_tells_about_the_function(deploy, collector):
    """What Lambda says of it, and how it ended."""
    deploy(HANDLER).invoke(timeout_s=30)

    event = collector.stored[-1]
    assert 0 <= event["properties"].pop("durationMs") < 5_000
    assert 20_000 < event["properties"].pop("remainingTimeMs") <= 30_000
    assert event["properties"] == {
        "functionName": "orders",
        "functionVersion": "$LATEST",
        "memoryLimitMb": 128,
        "coldStart": True,
        "status": "SUCCESS",
    }
    assert event["context"]["category"] == "SYSTEM_EVENT"
    assert collector.stored[0]["context"]["requestId"] == REQUEST_ID
    assert event["context"]["requestId"] == REQUEST_ID
    assert event["context"]["traceId"] == TRACE_ID


def test_what_the_handler_raises_is_lambdas_to_see(deploy, collector):
    """Unchanged, and after the events went."""
    answer, _ = deploy(HANDLER).invoke({"fails": True})

    assert (answer["errorType"], answer["errorMessage"]) == ("KeyError", "'no such order'")
    assert collector.names == ["worked", "orders"]
    facts = collector.stored[-1]["properties"]
    assert (facts["status"], facts["errorType"]) == ("FAILURE", "KeyError")


def test_a_collector_that_hangs_costs_the_set_time_and_no_event(deploy, collector, reply):
    """What could not be delivered goes out with the next invocation, and once."""
    collector.always(reply.hang)
    sandbox = deploy(HANDLER.replace("handler\n", "handler(flush_timeout_s=0.4)\n", 1))
    answer, took_s = sandbox.invoke()
    assert answer == {"statusCode": 200}
    assert 0.35 < took_s < 3
    collector.always(reply.accept())
    collector.released.set()
    sandbox.invoke()

    assert collector.names == ["worked", "orders"] * 2
    assert len({event["messageId"] for event in collector.stored}) == 4


def test_a_collector_that_hangs_never_costs_the_function_its_time(deploy, collector, reply):
    """The answer is there before Lambda would kill the function, whatever the time that is set."""
    collector.always(reply.hang)
    options = "(flush_timeout_s=60, margin_s=2.8)"
    sandbox = deploy(HANDLER.replace("handler\n", f"handler{options}\n", 1))
    for _ in range(2):
        answer, took_s = sandbox.invoke(timeout_s=4)

        assert answer == {"statusCode": 200}
        assert 1 < took_s < 4


def test_a_process_that_is_killed_leaves_its_events_on_disk(deploy, collector, reply, eventually):
    """For the next one of that sandbox, which delivers them while it is invoked."""
    collector.always(reply.hang)
    settings = {"ANALYTICS_DURABLE": "true"}
    sandbox = deploy(HANDLER.replace("handler\n", "handler(flush_timeout_s=0.2)\n", 1), **settings)
    sandbox.invoke()
    sandbox.end()
    collector.always(reply.accept())
    collector.released.set()
    sandbox = deploy(HANDLER, **settings)

    def cold_starts():
        sandbox.invoke()
        operations = [event for event in collector.stored if event["name"] == "orders"]
        return [event for event in operations if event["properties"]["coldStart"]]

    assert eventually(lambda: len(cold_starts()) == 2)
    assert len({event["messageId"] for event in collector.stored}) == len(collector.stored)


def test_the_example_runs(deploy, collector):
    """Behind API Gateway, with the user that it authenticated."""
    folders = os.pathsep.join((str(EXAMPLES), os.environ.get("PYTHONPATH", "")))
    sandbox = deploy(handler="lambda_handler.handler", PYTHONPATH=folders)
    answer, _ = sandbox.invoke(HTTP_API)
    assert answer == {"statusCode": 200, "body": "42 EUR"}
    answer, _ = sandbox.invoke({**HTTP_API, "pathParameters": {"id": "99"}})
    assert answer == {"statusCode": 404}

    assert collector.names == ["order_viewed", "GET /orders/{id}", "GET /orders/{id}"]
    assert {event["userId"] for event in collector.stored} == {"u-1"}


# Requests


def handled(make_client, collector, event, answer=None, runtime=None, **options):
    """Return the event of one invocation in this process, and one that its handler tracked."""
    client = make_client()

    @analytics_handler(client=client, **options)
    def handler(event, context):
        client.track("worked")
        return {"statusCode": 200} if answer is None else answer

    assert handler(event, runtime or runtime_of()) == (
        {"statusCode": 200} if answer is None else answer
    )
    worked, operation = collector.stored[-2:]
    assert worked["name"] == "worked"
    return operation, worked


@pytest.mark.parametrize(
    ("request_event", "route"),
    [(HTTP_API, "/orders/{id}"), (REST_API, "/orders/{id}"), (LOAD_BALANCER, None)],
    ids=["HTTP API", "REST API", "load balancer"],
)
def test_a_request_is_a_request_operation(make_client, collector, request_event, route):
    """Called by method and route; all of its events belong to the visitor's browser."""
    operation, worked = handled(make_client, collector, request_event)

    assert operation["name"] == f"GET {route or '(no route)'}"
    facts = operation["properties"]
    assert (facts["method"], facts.get("route"), facts["statusCode"]) == ("GET", route, 200)
    assert (facts["functionName"], facts["status"]) == ("orders", "SUCCESS")
    assert operation["context"]["category"] == "USER_ACTION"
    for event in (operation, worked):
        assert (event["anonymousId"], event["sessionId"]) == ("a-1", "s-1")
        context = event["context"]
        assert context["ip"] == "203.0.113.7"
        assert context["userAgent"] == "Mozilla/5.0"
        assert context["locale"] == "de-AT"
        assert context["requestId"] == REQUEST_ID
        assert context["traceId"] == TRACE_ID
        assert context["page"] == {
            "path": "/orders/17",
            "url": "https://shop.example.com/orders/17",
        }
        assert "secret" not in str(event)


@pytest.mark.parametrize(
    "request_event",
    [HTTP_API, REST_API, LOAD_BALANCER],
    ids=["HTTP API", "REST API", "load balancer"],
)
def test_queries_and_addresses_are_a_matter_of_options(make_client, collector, request_event):
    """As in the web integrations."""
    operation, _ = handled(
        make_client, collector, request_event, capture_query=True, capture_ip=False
    )

    assert operation["context"]["page"]["search"] == "?coupon=secret"
    assert "ip" not in operation["context"]


@pytest.mark.parametrize("route_key", ["$default", None, 17])
def test_a_request_without_a_route_has_none(make_client, collector, route_key):
    """So that names of events stay few."""
    operation, _ = handled(make_client, collector, {**HTTP_API, "routeKey": route_key})

    assert operation["name"] == "GET (no route)"
    assert "route" not in operation["properties"]


def test_a_method_of_nobody_is_other(make_client, collector):
    """Strangers don't make names of events."""
    operation, _ = handled(make_client, collector, {**LOAD_BALANCER, "httpMethod": "BREW17"})

    assert operation["name"] == "OTHER (no route)"


@pytest.mark.parametrize(
    ("answer", "settings", "status"),
    [
        ({"statusCode": 404}, {}, "SUCCESS"),
        ({"statusCode": 500}, {}, "FAILURE"),
        ({"statusCode": 404}, {"failure_from_status": 400}, "FAILURE"),
        ({"statusCode": "none"}, {}, "SUCCESS"),
        ("an answer of format 2.0", {}, "SUCCESS"),
    ],
)
def test_the_status_code_tells_whether_a_request_failed(
    make_client, collector, answer, settings, status
):
    """From 500 on, unless set otherwise."""
    operation, _ = handled(make_client, collector, HTTP_API, answer, **settings)

    assert operation["properties"]["status"] == status


def test_a_status_code_of_what_is_no_request_means_nothing(make_client, collector):
    """A function may answer its caller whatever it likes."""
    operation, _ = handled(make_client, collector, {"Records": []}, {"statusCode": 500})

    assert operation["properties"]["status"] == "SUCCESS"
    assert "statusCode" not in operation["properties"]


@pytest.mark.parametrize(
    ("event", "runtime", "trace_id"),
    [
        ({}, {}, None),
        (
            {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
            {},
            "4bf92f3577b34da6a3ce929d0e0e4736",
        ),
        (
            {"x-amzn-trace-id": ROOT},
            {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
            "4bf92f3577b34da6a3ce929d0e0e4736",
        ),
        ({"x-amzn-trace-id": ROOT, "traceparent": "garbage"}, {}, TRACE_ID),
        ({"x-amzn-trace-id": f"Self=1-67891234-12456789abcdef012345678;{ROOT}"}, {}, TRACE_ID),
        ({"x-amzn-trace-id": "Root=garbage"}, {}, None),
        ({"x-amzn-trace-id": f"Up{ROOT}"}, {}, None),
    ],
    ids=["none", "W3C", "W3C of the runtime", "X-Ray", "X-Ray with more", "garbage", "another"],
)
def test_the_trace_has_one_id_whoever_names_it(make_client, collector, event, runtime, trace_id):
    """W3C's `traceparent` and AWS's header, in the form that W3C has."""
    request = {**HTTP_API, "headers": event}
    context = runtime_of()
    context.w3c = lambda: runtime
    operation, _ = handled(make_client, collector, request, runtime=context)

    assert operation["context"].get("traceId") == trace_id


@pytest.mark.parametrize(
    "event",
    [
        None,
        [],
        "text",
        {"requestContext": None},
        {"requestContext": {"http": {"method": 7}}},
        {"requestContext": {"http": "GET"}, "headers": []},
        {"httpMethod": None, "path": "/"},
        {"httpMethod": "GET", "path": 7, "headers": {"cookie": 7}, "multiValueHeaders": {"a": "b"}},
        {"httpMethod": "G\nET", "resource": 7, "requestContext": {"identity": None}},
        {"httpMethod": "GET", "resource": "/\n" + "x" * 999, "multiValueHeaders": {7: None}},
        {"httpMethod": "GET", "headers": {"cookie": [7]}, "multiValueHeaders": {"cookie": [7]}},
        {"httpMethod": "GET", "path": "/\ud800"},
        {"httpMethod": "GET", "path": "/", "queryStringParameters": {"q": "\ud800"}},
        {**HTTP_API, "cookies": [7]},
        {**HTTP_API, "cookies": "a=b", "rawPath": None, "rawQueryString": 7},
        {**REST_API, "queryStringParameters": [], "multiValueQueryStringParameters": {"a": None}},
    ],
    ids=lambda event: str(event)[:40],
)
def test_an_event_of_any_shape_is_handled(make_client, collector, event):
    """Whoever may invoke the function chooses it."""
    operation, _ = handled(make_client, collector, event, capture_query=True)

    assert operation["properties"]["status"] == "SUCCESS"


# The decorator


@pytest.mark.parametrize(
    "runtime", [None, MagicMock(), SimpleNamespace()], ids=["none", "mock", "empty"]
)
def test_tests_of_users_may_call_the_handler_with_anything(make_client, collector, runtime):
    """They have no runtime, and shall not need one."""
    client = make_client()

    @analytics_handler(client=client)
    def handler(event, context):
        return event["number"]

    assert handler({"number": 17}, runtime) == 17
    assert collector.names == ["handler"]
    assert set(collector.stored[0]["properties"]) == {"coldStart", "status", "durationMs"}


def test_a_handler_keeps_its_name_and_may_be_an_object(make_client, collector):
    """As adapters for ASGI and WSGI apps are."""
    client = make_client()

    class Adapter:
        def __call__(self, event, context):
            return "answer"

    @analytics_handler
    def handler(event, context):
        """Do it."""

    assert (handler.__name__, handler.__doc__) == ("handler", "Do it.")
    assert analytics_handler(client=client)(Adapter())({}, None) == "answer"
    assert collector.names == ["Adapter"]


def test_without_operations_events_are_delivered_all_the_same(make_client, collector):
    """And are inside the context of the invocation."""
    client = make_client()

    @analytics_handler(client=client, operations=False)
    def handler(event, context):
        client.track("worked")

    handler(HTTP_API, runtime_of())

    assert collector.names == ["worked"]
    assert collector.stored[0]["anonymousId"] == "a-1"


def test_a_category_can_be_chosen(make_client, collector):
    """For requests and for anything else."""
    for event in (HTTP_API, {}):
        operation, _ = handled(make_client, collector, event, category="QUERY")

        assert operation["context"]["category"] == "QUERY"


def test_the_user_is_asked_for_in_the_event(make_client, collector):
    """A hook that fails costs the user id, and not the invocation."""
    _, worked = handled(
        make_client,
        collector,
        HTTP_API,
        user_id=lambda event: event["requestContext"]["authorizer"]["jwt"]["claims"]["sub"],
    )
    assert worked["userId"] == "u-1"
    _, worked = handled(make_client, collector, {}, user_id=lambda event: event["nobody"])
    assert "userId" not in worked


def test_nothing_of_an_invocation_is_left_in_the_next(make_client, collector):
    """The process is the same."""
    handled(make_client, collector, HTTP_API)
    _, worked = handled(make_client, collector, {})

    assert "anonymousId" not in worked
    assert "traceId" not in worked["context"]
    assert current.get() is None


def test_without_time_left_nothing_is_waited_for(make_client, collector, reply):
    """The margin is the function's own."""
    collector.always(reply.hang)
    client = make_client()

    @analytics_handler(client=client, flush_timeout_s=60, margin_s=10.5)
    def handler(event, context):
        return "answer"

    for remaining_s in (10.0, 0.0):
        began_at = time.monotonic()
        assert handler({}, runtime_of(remaining_s)) == "answer"
        assert time.monotonic() - began_at < 8
    assert client.stats().queued == 2


def test_a_program_that_is_told_to_exit_delivers_before(make_client, collector):
    """SystemExit is no Exception, but goes the same way."""
    client = make_client()

    @analytics_handler(client=client)
    def handler(event, context):
        raise SystemExit(3)

    with pytest.raises(SystemExit, match="3"):
        handler({}, runtime_of())
    assert collector.stored[0]["properties"]["errorType"] == "SystemExit"


def test_mistakes_in_the_options_are_named():
    """When the function is deployed, not when it is invoked."""
    for settings, name in (
        ({"flush_timeout_s": -1}, "flush_timeout_s"),
        ({"margin_s": "0.2"}, "margin_s"),
        ({"margin_s": float("nan")}, "margin_s"),
        ({"category": "USER"}, "category"),
        ({"user_id": "u-1"}, "user_id"),
    ):
        with pytest.raises(ConfigError, match=name):
            analytics_handler(**settings)
