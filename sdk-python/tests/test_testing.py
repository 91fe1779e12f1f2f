"""What the tests of our users get: events recorded instead of sent, and claims about them."""

import asyncio
import inspect
import subprocess
import sys
import textwrap
import threading
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from unittest.mock import ANY
from uuid import UUID

import numpy
import pytest

import analytics_sdk
from analytics_sdk import Client, MisuseError
from analytics_sdk.testing import Recorder, RecordingClient, capture_events

ROOT = Path(__file__).parents[2]
ORDER = UUID("0197b0c8-0000-7000-8000-000000000001")
AT = datetime(2026, 11, 20, 10, 0, 31, tzinfo=timezone.utc)


def calls_of_every_type(client):
    """Each event method once, with all that may be given."""
    ids = {"anonymous_id": "a", "session_id": "s", "context": {"ip": "::1"}, "timestamp": AT}
    answers = [
        client.track("bought", {"total": Decimal("9.90"), "at": AT}, user_id=7, **ids),
        client.identify(7, {"email": "a@b"}, **ids),
        client.page("Home", {"path": "/"}, **ids),
        client.screen("Start", **ids),
        client.group("g", {"seats": 5}, user_id=7, **ids),
        client.alias("old", "new", **ids),
    ]
    assert answers == [True] * 6


def without_ids(events):
    return [{key: event[key] for key in event if key != "messageId"} for event in events]


# The client


def test_a_recording_client_has_the_events_that_a_client_sends(make_client, collector):
    """To the last member, for each type: what a test sees is what production does."""
    client, recording = make_client(), RecordingClient()

    calls_of_every_type(client)
    calls_of_every_type(recording)

    assert client.flush()
    assert without_ids(recording.recorder.events) == without_ids(collector.stored)


def test_settings_do_to_a_recorded_event_what_they_do_to_a_sent_one(make_client, collector):
    """Hooks, lists and super properties are part of the program under test."""
    settings = {
        "super_properties": {"plan": "pro"},
        "deny_keys": ["password"],
        "before_send": lambda event: {**event, "name": event["name"].upper()},
    }
    client, recording = make_client(**settings), RecordingClient(**settings)

    for each in (client, recording):
        each.register({"beta": True})
        with analytics_sdk.context(user_id="u-1"):
            each.track("bought", {"password": "x"})

    assert client.flush()
    assert without_ids(recording.recorder.events)[0] | {"timestamp": ANY} == (
        without_ids(collector.stored)[0] | {"timestamp": ANY}
    )
    assert recording.recorder.events[0]["name"] == "BOUGHT"


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.track(""),
        lambda client: client.track("a", ["not a dict"]),
        lambda client: client.track("a", user_id=[1]),
        lambda client: client.track("a", timestamp="now"),
        lambda client: client.identify(None),
        lambda client: client.track("a", {"long": "x" * 200_000}),
    ],
)
def test_a_recording_client_refuses_what_a_client_refuses(make_client, call):
    """For the same reason; and with `debug` it raises the same."""
    client, recording = make_client(), RecordingClient()

    assert call(client) is False
    assert call(recording) is False
    assert recording.stats().refused == client.stats().refused
    assert recording.recorder.events == []
    with pytest.raises(MisuseError):
        call(RecordingClient(debug=True))


def test_a_recording_client_takes_the_settings_of_a_client_and_no_others():
    """A slip in a setting is one here too."""
    settings = set(inspect.signature(Client).parameters) - {"api_key", "api_url"}
    RecordingClient("ak_live_x", "http://x", **dict.fromkeys(settings))

    with pytest.raises(TypeError, match="bach_size"):
        RecordingClient(bach_size=3)
    with pytest.raises(analytics_sdk.ConfigError, match="batch_size"):
        RecordingClient(batch_size=0)


def test_the_environment_has_no_say(monkeypatch):
    """A test gives the same result on a machine where analytics is switched off."""
    monkeypatch.setenv("ANALYTICS_ENABLED", "false")
    monkeypatch.setenv("ANALYTICS_SAMPLE_RATE", "0")
    monkeypatch.setenv("ANALYTICS_BATCH_SIZE", "nonsense")

    assert RecordingClient().track("a") is True


def test_recording_starts_no_thread_and_opens_no_socket_and_no_file(run_program):
    """Nothing is left behind by a test, whatever the settings."""
    done = run_program(
        """
        from analytics_sdk.testing import RecordingClient
        seen = []
        client = RecordingClient(durable=True, batch_size=1, spool_dir="/nowhere")
        client.track("first")
        kinds = ("socket.", "open", "_thread.", "os.")
        sys.addaudithook(lambda name, _: seen.append(name) if name.startswith(kinds) else None)
        assert client.track("a") and client.flush() and client.shutdown()
        print(threading.active_count(), seen)
        """
    )

    assert done.stdout == "1 []\n", done.stderr


def test_recording_goes_with_asyncio():
    """`aflush()` is awaited as ever."""
    client = RecordingClient()

    async def work():
        client.track("a")
        return await client.aflush()

    assert asyncio.run(work()) is True


def test_a_recording_client_that_was_shut_down_is_closed(adds_up):
    """As any other; the account holds all the while."""
    client = RecordingClient()
    client.track("a")
    client.shutdown()

    assert client.track("b") is False
    assert (client.stats().taken, client.stats().delivered) == (1, 1)
    assert client.stats().refused == {"closed": 1}
    adds_up(client.stats())


def test_threads_record_every_event():
    """Eight at once, none lost."""
    client = RecordingClient()

    def work():
        for _ in range(250):
            client.track("a")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(client.recorder.events) == client.stats().taken == 2000


def test_a_forked_child_records_its_own(run_program, collector):
    """It counts anew, like every client."""
    done = run_program(
        """
        from analytics_sdk.testing import RecordingClient
        client = RecordingClient()
        client.track("a")
        if os.fork() == 0:
            client.track("b")
            print(client.stats().taken, flush=True)
            os._exit(0)
        os.wait()
        print(client.stats().taken)
        """
    )

    assert done.stdout.split() == ["1", "1"], done.stderr
    assert collector.requests == []


# The block


def test_the_functions_of_the_module_are_captured(analytics):
    """Without an init(), and with nothing sent."""
    with capture_events() as events:
        calls_of_every_type(analytics)
        with analytics.operation("rendered"):
            pass

        assert analytics.flush()
        assert analytics.stats().taken == 7

    assert [event["type"] for event in events.events] == [
        *("track", "identify", "page", "screen", "group", "alias", "track")
    ]
    assert analytics.stats().taken == 0


def test_the_client_of_before_is_back_after_the_block(analytics, collector):
    """It got nothing of the block, and works as before."""
    client = analytics.init("ak_live_x", collector.url)

    with capture_events() as events:
        analytics.track("inside")
    analytics.track("outside")

    assert client.flush()
    assert collector.names == ["outside"]
    events.assert_tracked("inside", times=1)


def test_the_client_of_before_is_back_after_an_exception(analytics, collector):
    """Which goes on as it is, even with an event that the collector would refuse."""
    client = analytics.init("ak_live_x", collector.url)

    with pytest.raises(KeyError), capture_events():
        analytics.track("inside", context={"ip": 5})
        raise KeyError
    analytics.track("outside")

    assert client.flush()
    assert collector.names == ["outside"]


def test_blocks_nest(analytics):
    """The innermost has the events, each its own."""
    with capture_events() as outer:
        analytics.track("a")
        with capture_events() as inner:
            analytics.track("b")
        analytics.track("c")

    assert [event["name"] for event in outer.events] == ["a", "c"]
    assert [event["name"] for event in inner.events] == ["b"]


def test_tasks_and_threads_are_captured(analytics):
    """The block is not of one task alone, unlike a context."""

    async def shop():
        with capture_events() as events:
            await asyncio.gather(*(buy(number) for number in range(3)))
            await asyncio.to_thread(analytics.track, "paid")
        return events

    async def buy(number):
        await asyncio.sleep(0)
        analytics.track("bought", {"number": number})

    events = asyncio.run(shop())
    events.assert_tracked("bought", times=3)
    events.assert_tracked("paid", times=1)


def test_an_init_inside_the_block_counts_after_it(analytics, collector):
    """An application that is made inside a test does not send its events."""
    with capture_events() as events:
        client = analytics.init("ak_live_x", collector.url)
        analytics.track("inside")
    analytics.track("outside")

    assert client.flush()
    assert collector.names == ["outside"]
    events.assert_tracked("inside")


def test_an_application_may_start_and_stop_again_inside_the_block(analytics, collector):
    """As a test of a server does with every client it makes."""
    with capture_events() as events:
        for _ in range(2):
            analytics.init("ak_live_x", collector.url)
            assert analytics.track("started")
            analytics.shutdown()
        assert analytics.track("late") is False

    events.assert_tracked("started", times=2)
    events.assert_not_tracked("late")


def test_a_block_takes_settings(analytics):
    """Those of a client."""
    with capture_events(super_properties={"plan": "pro"}, deny_properties=["card"]) as events:
        analytics.track("a", {"card": "4111"})

    assert events.events[0]["properties"] == {"plan": "pro"}


# The check against the specification


def test_an_event_that_the_collector_would_refuse_fails_the_block(analytics):
    """By its number, with the collector's code, the field, and what is wrong with it."""
    with pytest.raises(AssertionError) as caught, capture_events():
        analytics.track("fine")
        analytics.track("a", user_id="u-1", context={"ip": 5, "screen": {"width": "wide"}})

    assert str(caught.value).splitlines() == [
        "The collector would refuse:",
        "  #2 track 'a' of 'u-1': INVALID_CONTEXT at context.ip: "
        '5 is not of types "null", "string"',
        "  #2 track 'a' of 'u-1': INVALID_CONTEXT at context.screen.width: "
        '"wide" is not of types "null", "number"',
    ]


def test_a_hook_that_breaks_an_event_is_found(analytics):
    """What is checked is what would go on the wire; the code is the deepest that applies."""

    def hook(event):
        return {**event, "userId": 7, "name": ""}

    with pytest.raises(AssertionError) as caught, capture_events(before_send=hook):
        analytics.track("a")

    assert "#1 track of 7: INVALID_IDENTIFIER at userId: 7 is not of types" in str(caught.value)
    assert '#1 track of 7: MISSING_NAME at name: "" is shorter than 1 character' in str(
        caught.value
    )


def test_with_debug_the_call_itself_raises(analytics):
    """The traceback then leads to the place in the program."""
    with capture_events(debug=True) as events:
        with pytest.raises(AssertionError, match=r"#1 track 'a': INVALID_CONTEXT at context\.ip"):
            analytics.track("a", context={"ip": 5})
        with pytest.raises(MisuseError, match="missing_name"):
            analytics.track("")
        events.clear()


def test_misuse_fails_the_block(analytics):
    """A False that nobody looks at is an event that production will miss."""
    with pytest.raises(AssertionError) as caught, capture_events():
        assert analytics.track("") is False
        assert analytics.track("") is False
        assert analytics.track("a", properties=[]) is False

    assert str(caught.value) == (
        "3 calls returned False: missing_name (2), invalid_properties. "
        "The log says why; with debug=True it is raised where it happens."
    )


def test_what_the_settings_refuse_does_not_fail_the_block(analytics):
    """Somebody asked for it."""
    with capture_events(before_send=lambda event: None) as events:
        assert analytics.track("a") is False
        analytics.opt_out()
        assert analytics.track("a") is False
        analytics.shutdown()
    with capture_events(enabled=False):
        assert analytics.track("a") is False
    with capture_events(sample_rate=0):
        assert analytics.track("a") is False

    assert events.events == []


def test_cleared_mistakes_do_not_fail_the_block(analytics):
    """So that a test may claim that its program is refused."""
    with capture_events() as events:
        analytics.track("")
        analytics.track("a", context={"ip": 5})
        events.clear()

        events.assert_nothing_tracked()


def test_the_schema_is_the_one_of_the_specification():
    """A copy, since spec/ is in no wheel; `nox -s spec` writes it."""
    copy = ROOT / "sdk-python/src/analytics_sdk/_spec/event.json"

    assert copy.read_bytes() == (ROOT / "spec/schema/event.json").read_bytes(), "run `nox -s spec`"


def test_without_jsonschema_rs_the_import_says_what_to_install():
    """Unchecked events would be a promise that is not kept."""
    source = """
    import sys
    sys.modules["jsonschema_rs"] = None
    try:
        import analytics_sdk.testing
    except ImportError as error:
        print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source)],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip

    assert done.stdout == (
        "analytics_sdk.testing checks events with jsonschema-rs, which is not installed: "
        "pip install jsonschema-rs, or analytics-sdk with its extra `testing`.\n"
    )


# The claims


@pytest.fixture
def client():
    return RecordingClient()


@pytest.fixture
def events(client):
    return client.recorder


def test_events_are_found_by_name_and_type(client, events):
    """In the order of the calls."""
    client.track("a", {"n": 1})
    client.page("a")
    client.identify("u")
    client.track("a", {"n": 2})

    assert [event["type"] for event in events.named("a")] == ["track", "page", "track"]
    assert [event["userId"] for event in events.of_type("identify")] == ["u"]
    assert events.named("b") == events.of_type("group") == []
    assert repr(events) == "<Recorder of 4 events>"
    assert repr(Recorder()) == "<Recorder of 0 events>"


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"orderId": str(ORDER)},
        {"orderId": ORDER},
        {"total": Decimal("9.90"), "at": AT},
        {"total": 9.9},
        {"total": pytest.approx(10, abs=0.5)},
        {"coupon": None},
        {"items": [{"sku": "a"}, {"sku": "b"}]},
        {"items": ({"sku": "a"}, ANY)},
        {"items": ANY},
        {"cart": {"currency": "EUR"}},
        {"cart": {}},
        {"count": 3, "paid": True},
        {"count": 3.0},
        {"sizes": numpy.array([1, 2])},
        {"sizes": [1, 2]},
    ],
)
def test_what_was_tracked_is_found(client, events, wanted):
    """As the wire has it, by as much as a test cares to say, and by matchers."""
    cart = {"currency": "EUR", "rows": 2}
    sent = {"orderId": ORDER, "total": Decimal("9.90"), "at": AT, "coupon": None, "cart": cart}
    more = {
        "items": [{"sku": "a", "n": 1}, {"sku": "b"}],
        "count": 3,
        "paid": True,
        "sizes": [1, 2],
    }
    client.track("other")
    client.track("bought", sent | more, user_id=1)

    assert events.assert_tracked("bought", wanted, user_id="1") == [events.events[1]]


@pytest.mark.parametrize(
    ("wanted", "line"),
    [
        ({"total": 8}, "properties.total: wanted 8, was 9.9"),
        ({"count": True}, "properties.count: wanted True, was 1"),
        ({"paid": 1}, "properties.paid: wanted 1, was True"),
        ({"coupon": "X"}, "properties.coupon: wanted 'X', was None"),
        ({"missing": None}, "properties.missing: wanted None, is missing"),
        ({"missing": {"a": 1}}, "properties.missing.a: wanted 1, is missing"),
        ({"missing": {}}, "properties.missing: wanted {}, is missing"),
        ({"cart": {"currency": "USD"}}, "properties.cart.currency: wanted 'USD', was 'EUR'"),
        ({"cart": {"a": {"b": 1}}}, "properties.cart.a.b: wanted 1, is missing"),
        ({"cart": "EUR"}, "properties.cart: wanted 'EUR', was {'currency': 'EUR'}"),
        ({"items": [1]}, "properties.items: wanted [1], was [1, {'sku': 'b'}]"),
        ({"items": [1, {"sku": "c"}]}, "properties.items[1].sku: wanted 'c', was 'b'"),
        ({"sizes": numpy.array([1, 3])}, "properties.sizes: wanted array([1, 3]), was [1, 2]"),
        ({"orderId": "0197"}, f"properties.orderId: wanted '0197', was '{ORDER}'"),
        ({1: 2}, "properties.1: wanted 2, is missing"),
    ],
)
def test_what_differs_is_named(client, events, wanted, line):
    """One line for each place, with the way to it."""
    sent = {"orderId": ORDER, "total": 9.9, "count": 1, "paid": True, "coupon": None}
    more = {"cart": {"currency": "EUR"}, "items": [1, {"sku": "b"}], "sizes": [1, 2]}
    client.track("bought", sent | more)

    with pytest.raises(AssertionError) as caught:
        events.assert_tracked("bought", wanted)
    assert f"\n    {line}\n" in str(caught.value)


def test_the_message_shows_the_closest_events_and_all_names(client, events):
    """The fewest differences first; what else was tracked; what was refused."""
    client.track("viewed", user_id="u-1")
    client.track("viewed", anonymous_id="a-1")
    client.page("Home")
    client.identify("u-1")
    client.track("bought")
    for number in range(5):
        client.track("bought", {"orderId": "o-1", "total": number, "extra": 1}, user_id="u-1")
    client.track("bought", {"orderId": "o-1", "total": 42}, user_id="u-2")
    client.track("", user_id="u-2")

    with pytest.raises(AssertionError) as caught:
        events.assert_tracked("bought", {"orderId": "o-1", "total": 42}, user_id="u-1")

    assert str(caught.value).splitlines() == [
        "'bought' was not tracked as wanted.",
        "  wanted: {'userId': 'u-1', 'properties': {'orderId': 'o-1', 'total': 42}}",
        "  #6 track 'bought' of 'u-1' differs:",
        "    properties.total: wanted 42, was 0",
        "  #7 track 'bought' of 'u-1' differs:",
        "    properties.total: wanted 42, was 1",
        "  #8 track 'bought' of 'u-1' differs:",
        "    properties.total: wanted 42, was 2",
        "  ... and 4 more that differ",
        "  recorded: 11 events: track 'viewed' (2), page 'Home', identify, track 'bought' (7)",
        "  refused: missing_name. The log says why; with debug=True it is raised where it happens.",
    ]


def test_the_message_names_a_name_like_the_wanted_one(client, events):
    """The usual slip."""
    client.track("checkout_complete")
    client.page("Cart")

    with pytest.raises(AssertionError) as caught:
        events.assert_tracked("checkout_completed")

    assert str(caught.value).splitlines() == [
        "'checkout_completed' was not tracked.",
        "  a name like it: 'checkout_complete'",
        "  recorded: 2 events: track 'checkout_complete', page 'Cart'",
    ]


def test_the_message_of_an_empty_recorder(events):
    """It says that there is nothing."""
    with pytest.raises(AssertionError) as caught:
        events.assert_tracked("a", {"b": 1}, times=2)

    assert str(caught.value).splitlines() == [
        "'a' was tracked 0 times, not 2.",
        "  wanted: {'properties': {'b': 1}}",
        "  recorded: 0 events",
    ]


def test_ids_and_context_are_compared(client, events):
    """The types of ids as on the wire, the context by its members."""
    client.track("a", user_id=1, anonymous_id="x", session_id=ORDER, context={"ip": "::1"})
    events.assert_tracked(
        "a", user_id=1, anonymous_id="x", session_id=str(ORDER), context={"ip": "::1"}
    )

    with pytest.raises(AssertionError) as caught:
        events.assert_tracked("a", user_id=2, anonymous_id="y", session_id="z", context={"ip": "1"})
    for line in (
        "userId: wanted '2', was '1'",
        "anonymousId: wanted 'y', was 'x'",
        f"sessionId: wanted 'z', was '{ORDER}'",
        "context.ip: wanted '1', was '::1'",
    ):
        assert f"    {line}\n" in str(caught.value)


def test_times_are_counted(client, events):
    """Of the events that are as wanted."""
    for number in (1, 1, 2):
        client.track("a", {"n": number})
    events.assert_tracked("a", times=3)
    events.assert_tracked("a", {"n": 1}, times=2)
    events.assert_tracked("a", {"n": 3}, times=0)

    with pytest.raises(AssertionError, match="'a' was tracked 3 times, not 4"):
        events.assert_tracked("a", times=4)
    with pytest.raises(AssertionError) as too_few:
        events.assert_tracked("a", {"n": 1}, times=3)
    assert "#3 track 'a' differs:\n    properties.n: wanted 1, was 2" in str(too_few.value)
    with pytest.raises(AssertionError) as too_many:
        events.assert_tracked("a", {"n": 1}, times=1)
    assert "'a' was tracked 2 times, not 1." in str(too_many.value)
    assert "#1 track 'a': {'n': 1}\n  #2 track 'a': {'n': 1}\n" in str(too_many.value)


def test_only_track_counts_as_tracked(client, events):
    """A page of the same name is another event."""
    client.page("a")

    events.assert_not_tracked("a")
    with pytest.raises(AssertionError) as caught:
        events.assert_tracked("a")
    assert str(caught.value) == "'a' was not tracked.\n  recorded: 1 event: page 'a'"


def test_events_that_are_equal_keep_their_numbers(client, events):
    """A program may send one twice, message id and all."""
    for _ in range(2):
        client.track("a", timestamp=AT, message_id=ORDER)

    with pytest.raises(AssertionError, match=r"#1 track 'a': \{\}\n  #2 track 'a': \{\}\n"):
        events.assert_not_tracked("a")


def test_what_should_not_be_tracked_is_shown(client, events):
    """With its properties, for that is what one looks for next."""
    client.track("a", {"b": "x" * 1000}, anonymous_id="anon")
    events.assert_not_tracked("b")

    with pytest.raises(AssertionError) as caught:
        events.assert_not_tracked("a")
    head, event, recorded = str(caught.value).splitlines()
    assert head == "'a' was tracked 1 time, and should not have been."
    assert event.startswith("  #1 track 'a' of 'anon': {'b': 'xxx") and event.endswith("xxx...")
    assert len(event) < 400
    assert recorded == "  recorded: 1 event: track 'a'"


def test_nothing_means_nothing(client, events):
    """Not even an identify; a long list is cut."""
    events.assert_nothing_tracked()
    client.identify("u", {"plan": "pro"})
    for number in range(30):
        client.track(f"a{number}")

    with pytest.raises(AssertionError) as caught:
        events.assert_nothing_tracked()
    lines = str(caught.value).splitlines()
    assert lines[:2] == [
        "31 events too many: nothing should be tracked.",
        "  #1 identify of 'u': {'plan': 'pro'}",
    ]
    assert lines[4] == "  ... and 28 more"
    assert lines[5].startswith("  recorded: 31 events: identify, track 'a0', ")
    assert lines[5].endswith("track 'a18', ...")
