import asyncio

import pytest

import analytics_sdk
from analytics_sdk import MisuseError, context
from analytics_sdk.operation import Operation


class Recorder:
    """In place of `track()`: what it was called with."""

    def __init__(self):
        self.calls = []

    def __call__(self, name, properties=None, *, context=None):
        self.calls.append((name, properties, context))
        return True

    @property
    def outcomes(self):
        return [
            (name, properties["status"], properties.get("errorType"))
            for name, properties, _ in self.calls
        ]


@pytest.fixture
def track():
    return Recorder()


def test_a_block_is_one_event(make_client, collector, eventually):
    """Tracked when it ends, with how it went and how long it took."""
    client = make_client()
    waited = []
    with context(user_id="u", context={"ip": "::1"}):
        with client.operation("rendered", category="QUERY", properties={"pages": 3}):
            eventually(lambda: waited.append(1) or len(waited) > 3)
            assert client.stats().taken == 0
        assert client.stats().taken == 1
    assert client.flush()

    [event] = collector.stored
    assert (event["type"], event["name"], event["userId"]) == ("track", "rendered", "u")
    assert event["context"].items() >= {"category": "QUERY", "ip": "::1"}.items()
    duration_ms = event["properties"].pop("durationMs")
    # Three waits of 5 ms, and no minute.
    assert 15 <= duration_ms < 60_000
    assert event["properties"] == {"pages": 3, "status": "SUCCESS"}


def test_a_block_that_raises_has_failed(track):
    """The event names the class of the exception, which goes on as it is."""
    error = ValueError("jane@example.com")
    with pytest.raises(ValueError, match="jane") as caught, Operation(track, "sent"):
        raise error

    assert caught.value is error
    assert track.outcomes == [("sent", "FAILURE", "ValueError")]
    assert "jane" not in repr(track.calls)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
def test_what_ends_a_program_or_a_task_is_a_failure_too(track, error):
    """And goes on."""
    with pytest.raises(error), Operation(track, "sent"):
        raise error

    assert track.outcomes == [("sent", "FAILURE", error.__name__)]


def test_a_block_may_say_that_it_failed(track):
    """Without raising."""
    with Operation(track, "paid") as paid:
        paid.fail("CardDeclined")
    with Operation(track, "paid") as paid:
        paid.fail()

    assert track.outcomes == [("paid", "FAILURE", "CardDeclined"), ("paid", "FAILURE", None)]


def test_a_block_that_said_why_it_fails_knows_better_than_its_exception(track):
    """What it raises may be the answer of a web framework."""
    with pytest.raises(RuntimeError), Operation(track, "paid") as paid:
        paid.fail("CardDeclined")
        raise RuntimeError

    assert track.outcomes == [("paid", "FAILURE", "CardDeclined")]


def test_a_block_may_change_everything(track):
    """A request learns late what route it is."""
    with Operation(track, "request", properties={"a": 1}) as request:
        request.name = "GET /orders/{id}"
        request.category = "USER_ACTION"
        request.properties["statusCode"] = 500
        request.status = "FAILURE"
        request.error_type = "Timeout"

    [(name, properties, sent_context)] = track.calls
    assert (name, sent_context) == ("GET /orders/{id}", {"category": "USER_ACTION"})
    assert properties.pop("durationMs") >= 0
    assert properties == {"a": 1, "statusCode": 500, "status": "FAILURE", "errorType": "Timeout"}


def test_the_properties_are_the_blocks_own(track):
    """What one block adds, neither its caller sees nor the next call."""
    given = {"a": 1}

    @Operation(track, "counted", properties=given)
    def count():
        return 1

    with Operation(track, "counted", properties=given) as counted:
        counted.properties["b"] = 2
    count()

    assert given == {"a": 1}
    assert [set(properties) for _, properties, _ in track.calls] == [
        {"a", "b", "status", "durationMs"},
        {"a", "status", "durationMs"},
    ]


def test_each_call_of_a_decorated_function_is_an_event(track):
    """It keeps its name, arguments, result and exceptions."""

    @Operation(track, "divided", "QUERY")
    def divide(number, *, by):
        """Divide."""
        return number / by

    assert divide(6, by=3) == 2
    with pytest.raises(ZeroDivisionError):
        divide(1, by=0)

    assert (divide.__name__, divide.__doc__) == ("divide", "Divide.")
    assert track.outcomes == [
        ("divided", "SUCCESS", None),
        ("divided", "FAILURE", "ZeroDivisionError"),
    ]
    assert {sent_context["category"] for _, _, sent_context in track.calls} == {"QUERY"}


def test_a_decorated_coroutine_function_is_awaited_first(track):
    """Calls may overlap: each has its own outcome."""

    @Operation(track, "fetched")
    async def fetch(first, may_end):
        await may_end.wait()
        if first:
            raise ConnectionError
        return "b"

    async def main():
        may_end = [asyncio.Event(), asyncio.Event()]
        tasks = [asyncio.create_task(fetch(place == 0, may_end[place])) for place in range(2)]
        await asyncio.sleep(0)
        assert track.calls == []
        may_end[0].set()
        with pytest.raises(ConnectionError):
            await tasks[0]
        may_end[1].set()
        return await tasks[1]

    assert asyncio.run(main()) == "b"
    assert track.outcomes == [
        ("fetched", "FAILURE", "ConnectionError"),
        ("fetched", "SUCCESS", None),
    ]


def test_a_generator_function_is_not_decorated(track):
    """It would be a success before it began."""
    with pytest.raises(TypeError, match="generator"):

        @Operation(track, "read")
        def lines():
            yield 1


def test_an_operation_may_be_used_again(track):
    """The failure of the first time is not that of the second."""
    operation = Operation(track, "tried")
    with pytest.raises(OSError, match="no"), operation:
        raise OSError("no")
    with operation:
        pass

    assert track.outcomes == [("tried", "FAILURE", "OSError"), ("tried", "SUCCESS", None)]


def test_the_outcome_is_the_blocks_to_say(track):
    """A property of the same name is not."""
    with Operation(track, "tried", properties={"status": "mine", "errorType": "mine"}) as tried:
        tried.fail("Timeout")

    assert track.outcomes == [("tried", "FAILURE", "Timeout")]


@pytest.mark.parametrize("wrong", ["text", [1], 7], ids=repr)
def test_wrong_properties_do_not_raise(make_client, wrong):
    """They are refused and counted, whether they came first or last."""
    client = make_client()
    with client.operation("a", properties=wrong):
        pass
    with client.operation("a") as operation:
        operation.properties = wrong
    with client.operation("a", properties=wrong) as operation:
        operation.name = ""

    assert client.stats().refused == {"invalid_properties": 2, "missing_name": 1}


def test_a_mistake_does_not_hide_what_the_block_raised(make_client):
    """Even with `debug`, which raises on misuse."""
    client = make_client(debug=True)
    with pytest.raises(ZeroDivisionError) as caught, client.operation(""):
        1 / 0  # noqa: B018
    with pytest.raises(MisuseError, match="missing_name"), client.operation(""):
        pass

    assert caught.value.__context__ is None


def test_the_module_has_an_operation_of_the_default_client(analytics, collector):
    """That of the moment when the block ends."""

    @analytics.operation("worked", category="AUTHENTICATION", properties={"a": 1})
    def work():
        return 7

    with analytics_sdk.operation("started"):
        analytics.init("ak_live_1", collector.url)
    assert work() == 7
    assert analytics.flush()

    assert collector.names == ["started", "worked"]
    assert [event["context"]["category"] for event in collector.stored] == [
        "SYSTEM_EVENT",
        "AUTHENTICATION",
    ]
