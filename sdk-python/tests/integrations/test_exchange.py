"""How a request ends, and the event that tells it."""

import asyncio
import contextvars
import random
import types

import pytest

from analytics_sdk.context import Scope, current
from analytics_sdk.integrations._exchange import Body, Exchange, name_of
from analytics_sdk.integrations._options import checked_options
from analytics_sdk.integrations._request import HEADERS, quoted, scope_of


class Recorder:
    """A stand-in for a client at the only seam an exchange knows: `track()`."""

    def __init__(self):
        self.calls = []

    def track(self, name, properties, *, context):
        self.calls.append((name, properties, context, current.get()))
        return True


@pytest.fixture
def recorder():
    return Recorder()


def exchange(recorder, method="GET", request=None, **options):
    checked = checked_options({"client": recorder, **options})
    return Exchange(checked, request, method, Scope(None))


def test_a_request_that_another_task_closes_is_tracked(recorder):
    """As a server does with what is left when it ends, or the garbage collector."""
    request = exchange(recorder, route=lambda _: "/orders/{id}")

    @types.coroutine
    def serve():
        with request:
            yield

    coroutine = serve()
    contextvars.copy_context().run(coroutine.send, None)
    coroutine.close()

    assert [call[0] for call in recorder.calls] == ["GET /orders/{id}"]


@pytest.mark.parametrize(
    ("status_code", "options", "status"),
    [
        (200, {}, "SUCCESS"),
        (302, {}, "SUCCESS"),
        (404, {}, "SUCCESS"),
        (499, {}, "SUCCESS"),
        (500, {}, "FAILURE"),
        (503, {}, "FAILURE"),
        (404, {"failure_from_status": 400}, "FAILURE"),
        (404, {"failure_from_status": 405}, "SUCCESS"),
        (None, {}, "FAILURE"),
    ],
)
def test_the_status_code_decides(recorder, status_code, options, status):
    """What the server broke is a failure; what the client got wrong is not, unless one says so."""
    request = exchange(recorder, route=lambda _: "/orders/{id}", **options)
    request.status_code = status_code
    request.finish()

    [(name, properties, context, inside)] = recorder.calls
    assert name == "GET /orders/{id}"
    assert properties.pop("durationMs") >= 0
    code = {} if status_code is None else {"statusCode": status_code}
    assert properties == {"route": "/orders/{id}", "method": "GET", "status": status, **code}
    assert context == {"category": "USER_ACTION"}
    assert inside is request.scope
    assert current.get() is None


@pytest.mark.parametrize(
    ("error", "code"), [(KeyError("secret"), {"statusCode": 500}), (asyncio.CancelledError(), {})]
)
def test_what_is_raised_is_a_failure_and_goes_on(recorder, error, code):
    """Of a cancelled request nobody gets an answer, so it has no code."""
    request = exchange(recorder)
    with pytest.raises(type(error)), request:
        raise error

    [(_, properties, _, _)] = recorder.calls
    del properties["durationMs"]
    assert properties == {
        "method": "GET",
        "status": "FAILURE",
        "errorType": type(error).__name__,
        **code,
    }


def test_an_error_that_became_an_answer_is_named_only_if_that_is_a_failure(recorder):
    """A 404 that was raised is an answer like any other."""
    for status_code in (404, 500):
        request = exchange(recorder)
        request.error_type, request.status_code = "Oops", status_code
        request.finish()

    assert [call[1].get("errorType") for call in recorder.calls] == [None, "Oops"]


def test_an_exchange_ends_once(recorder):
    """However many signs of its end there are."""
    request = exchange(recorder)
    request.finish()
    request.finish()
    with pytest.raises(KeyError), request:
        raise KeyError

    assert len(recorder.calls) == 1


def test_without_operations_there_is_only_the_scope(recorder):
    """For those who track by hand."""
    request = exchange(recorder, operations=False)
    with request:
        assert current.get() is request.scope
    request.finish()

    assert recorder.calls == []


@pytest.mark.parametrize("method", ["get", "X" * 300, "PROPFIND\n", ""])
def test_methods_that_nobody_knows_share_a_name(recorder, method):
    """They are a stranger's to choose."""
    request = exchange(recorder, method)
    request.finish()

    assert recorder.calls[0][0] == "OTHER (no route)"


def test_a_block_that_spans_pieces_holds_between_them(recorder):
    """And nothing of it shows outside."""
    request = exchange(recorder)

    def pieces():
        from analytics_sdk import context

        with context(user_id="inner"):
            yield current.get().user_id
            yield current.get().user_id
        yield current.get().user_id

    body = Body(request, pieces())
    seen = []
    for piece in body:
        assert current.get() is None
        seen.append(piece)

    assert seen == ["inner", "inner", None]
    assert recorder.calls[0][3] is request.scope


def test_what_close_raises_goes_on_and_is_a_failure(recorder):
    """It is the host's own."""

    class Pieces(list):
        def close(self):
            raise OSError

    body = Body(exchange(recorder), Pieces())
    with pytest.raises(OSError):
        body.close()

    assert recorder.calls[0][1]["errorType"] == "OSError"


def test_a_hook_that_fails_costs_the_request_nothing(recorder, sdk_log):
    """It counts as None, and the log says which and where."""

    def fail(request):
        raise ZeroDivisionError("SECRET")

    request = exchange(recorder, user_id=fail, route=fail)
    options = checked_options({"ignore": fail})
    request.finish()

    assert request.scope.user_id() is None
    assert recorder.calls[0][0] == "GET (no route)"
    assert options.ignores("/", object()) is False
    assert sorted(sdk_log.reasons()) == ["ignore_failed", "route_failed", "user_id_failed"]
    assert "SECRET" not in str([vars(record) for record in sdk_log.records])


@pytest.mark.parametrize("answer", [["a"], 5, b"/a", object()])
def test_a_route_that_is_no_text_is_none(recorder, answer):
    """Nothing else can be a name."""
    exchange(recorder, route=lambda _: answer).finish()

    assert recorder.calls[0][0] == "GET (no route)"


def test_names_are_bounded_whatever_strangers_send():
    """A name for each path or method that a scanner tries would bury the others."""
    assert name_of("GET", None) == "GET (no route)"
    assert name_of("GET", "/a") == "GET /a"
    assert name_of("GET", "/\n\x00a") == "GET /  a"
    assert len(name_of("GET", "/" + "x" * 500)) == 255


def test_no_request_is_too_odd(make_client, arrived):
    """Whatever bytes a server lets through: an event, as the spec has it."""
    client = make_client()
    options = checked_options({"client": client, "trust_forwarded": True, "capture_query": True})
    dice = random.Random(7)
    alphabet = [*map(chr, range(256)), "analytics_session_id=", "%", "00-", ", ", ";", '"', "https"]

    def noise():
        return "".join(dice.choices(alphabet, k=dice.randrange(60)))

    for _ in range(500):
        headers = {name: noise() for name in HEADERS if dice.random() < 0.8}
        odd = scope_of(
            options, headers, scheme=noise(), path=quoted(noise()), query=noise(), ip=noise()
        )
        request = Exchange(options, None, noise(), odd)
        request.finish()

    assert len(arrived(client)) == 500
    assert client.stats().refused == {}
