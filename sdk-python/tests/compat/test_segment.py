"""Programs written for segment-analytics-python: what they track here, and what they get back."""

import inspect
import json
import logging
import threading
from datetime import datetime, timedelta, timezone
from uuid import UUID, uuid4

import pytest

import analytics_sdk
from analytics_sdk import ConfigError, MisuseError
from analytics_sdk.compat import segment as module
from analytics_sdk.testing import capture_events

KEY = "ak_live_test0SECRET"
SEGMENTS_KEY = "s3gm3ntWr1teKeyOf32Characters012"
EVENT_METHODS = ("track", "identify", "group", "alias", "page", "screen")
SETTINGS = (
    *("write_key", "host", "on_error", "debug", "log_handler", "send", "sync_mode"),
    *("max_queue_size", "gzip", "timeout", "max_retries", "oauth_client_id", "oauth_client_key"),
    *("oauth_key_id", "oauth_auth_server", "oauth_scope"),
)

# Later than every time that PROGRAM gives itself.
RUNS_AFTER = datetime(2026, 3, 2, tzinfo=timezone.utc)
# What a program does with the module, but for the line that imports it.
PROGRAM = """
    import json
    from datetime import date, datetime, timedelta, timezone
    from decimal import Decimal
    from enum import Enum

    class Plan(Enum):
        PRO = "pro"

    analytics.write_key = os.environ["ANALYTICS_API_KEY"]
    analytics.host = os.environ["ANALYTICS_API_URL"] + "/"
    analytics.gzip, analytics.timeout, analytics.max_retries = True, 5, 3
    analytics.on_error = lambda error, items: print(error, items, file=sys.stderr)

    zoned = datetime(2026, 3, 1, 12, 30, 15, 250_000, timezone(timedelta(hours=5, minutes=30)))
    naive = datetime(2026, 3, 1, 12, 30, 15)
    everything = {
        "context": {"ip": "1.2.3.4", "active": True}, "timestamp": zoned, "anonymous_id": "a-1",
        "integrations": {"All": False, "Mixpanel": True},
        "message_id": "0193f2e5-1c00-7000-8000-000000000001",
    }
    answers = [
        analytics.track("u-1", "Order Done", {
            "total": Decimal("9.5"), "on": date(2026, 3, 1), "at": zoned, "plan": Plan.PRO,
            "items": [{"sku": "x", "n": 2}], "tags": ("a", "b"), "none": None, "gift": False,
        }),
        analytics.track("u-1", "Everything", {"a": 1}, **everything),
        analytics.track(anonymous_id="a-1", event="Anonymous"),
        analytics.track(42, "Number", timestamp=naive),
        analytics.track("u-1", "Just now", timestamp=datetime.now()),
        analytics.identify("u-1", {"email": "a@b.c"}),
        analytics.identify("u-1", {"plan": "pro"}, **everything),
        analytics.group("u-1", "g-1", {"name": "Initech"}),
        analytics.group("u-1", "g-1", **everything),
        analytics.alias("a-1", "u-1"),
        analytics.alias("a-1", "u-1", {"ip": "1.2.3.4"}, zoned, {"All": True}, "m-1"),
        analytics.page("u-1", "Docs", "Python", {"url": "https://x.example/"}),
        analytics.page("u-1", name="No category"),
        analytics.page("u-1"),
        analytics.page("u-1", name=""),
        analytics.screen("u-1", "Settings", "Profile", {"dark": True}, **everything),
        analytics.track("u-1", "Foreign id", message_id="order-7"),
    ]
    analytics.flush()
    analytics.track("u-1", "Last")
    analytics.shutdown()
    print(json.dumps(answers, default=str))
"""


@pytest.fixture
def segment(collector, monkeypatch):
    """The module, as a program that just started finds it, with its two settings."""
    for name in (*SETTINGS, "default_client"):
        monkeypatch.setattr(module, name, getattr(module, name))
    module.write_key, module.host = KEY, collector.url
    yield module
    collector.released.set()
    if module.default_client is not None:
        module.default_client.join()


@pytest.fixture
def run_on_both(run_program, collector):
    """Run PROGRAM on Segment's library and on ours; return what each answered and sent."""
    pytest.importorskip("segment.analytics")

    def run(name):
        collector.stored.clear()
        done = run_program(f"    import {name} as analytics\n{PROGRAM}", TZ="Asia/Tokyo")
        assert (done.returncode, done.stderr) == (0, "")
        return json.loads(done.stdout), list(collector.stored)

    return run("segment.analytics"), run("analytics_sdk.compat.segment")


def without(mapping, *names):
    """Return the mapping without some members, and without those that are None."""
    return {key: value for key, value in mapping.items() if key not in names and value is not None}


def as_on_our_wire(event):
    """Return an event of Segment's library spelled as docs/migrating.md says."""
    ours = without(event, "integrations", "event", "category")
    if "event" in event:
        ours["name"] = event["event"]
    if ours.get("name") == "":
        del ours["name"]
    if event.get("category"):
        ours["properties"] = {**event["properties"], "category": event["category"]}
    if event["integrations"]:
        ours["context"] = {**event["context"], "integrations": event["integrations"]}
    return ours


def in_utc(text):
    """Return a time of the wire in UTC, with at least milliseconds."""
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return moment.astimezone(timezone.utc).isoformat(timespec="microseconds")


def are_one_moment(their_time, our_time):
    """Tell whether both are the same time, or both that of their call, one run after the other."""
    theirs, ours = (datetime.fromisoformat(text[:23] + "+00:00") for text in (their_time, our_time))
    return theirs == ours or (
        theirs > RUNS_AFTER and timedelta(0) < ours - theirs < timedelta(seconds=60)
    )


def test_a_program_sends_the_same_events_as_with_segments_library(run_on_both):
    """The same members with the same values, spelled as the table in docs/migrating.md says."""
    (_, theirs), (_, ours) = run_on_both

    assert len(ours) == len(theirs) == 18
    for their, our in zip(map(as_on_our_wire, theirs), ours, strict=True):
        varying = ("timestamp", "messageId", "context")
        assert without(our, *varying) == without(their, *varying)
        assert without(our["context"], "library") == without(their["context"], "library")
        assert our["context"]["library"]["name"] == "analytics-sdk-python"
        assert are_one_moment(in_utc(their["timestamp"]), in_utc(our["timestamp"]))


def test_message_ids_stay_if_they_are_uuids(run_on_both):
    """What is none becomes the same UUID on every retry, in every program."""
    (_, theirs), (_, ours) = run_on_both
    given = {their["messageId"]: our["messageId"] for their, our in zip(theirs, ours, strict=True)}

    assert given["0193f2e5-1c00-7000-8000-000000000001"] == "0193f2e5-1c00-7000-8000-000000000001"
    assert given["order-7"] == "5aa17f41-c3f5-55ca-b506-65bce9d2ad14"
    assert given["m-1"] == "480ee9ee-a069-586a-b513-74fc8d3463c2"
    assert {UUID(our["messageId"]).version for our in ours} == {5, 7}


def test_a_program_gets_the_same_answers(run_on_both):
    """Each call returns whether the event was taken, and a message with the same members."""
    (theirs, _), (ours, sent) = run_on_both

    for (is_queued, their), (is_taken, our), event in zip(theirs, ours, sent, strict=False):
        assert is_queued is is_taken is True
        assert our.keys() == their.keys()
        varying = ("timestamp", "messageId", "context", "properties")
        assert without(our, *varying) == without(their, *varying)
        assert without(our["context"], "library") == without(their["context"], "library")
        assert our.get("properties", {}).keys() == their.get("properties", {}).keys()
        assert our["messageId"] == event["messageId"]
        assert in_utc(our["timestamp"])[:23] == in_utc(event["timestamp"])[:23]


@pytest.mark.parametrize("name", [*EVENT_METHODS, "flush", "join", "shutdown", "__init__"])
def test_the_arguments_are_those_of_segments_library(name):
    """The same names in the same order with the same defaults; what is ours comes by name only."""
    theirs = pytest.importorskip("segment.analytics").Client
    parameters = inspect.signature(getattr(module.Client, name)).parameters.values()
    shared = [(each.name, each.default) for each in parameters if each.kind != each.KEYWORD_ONLY]

    assert shared == [
        (each.name, each.default)
        for each in inspect.signature(getattr(theirs, name)).parameters.values()
    ]


def test_the_settings_are_those_of_segments_library():
    """The same names with the same defaults."""
    theirs = pytest.importorskip("segment.analytics")
    public = {name for name in vars(theirs) if name in vars(theirs.Client.DefaultConfig)}

    assert {name for name in public if not name.startswith("_")} == set(SETTINGS)
    assert {name: getattr(module, name) for name in SETTINGS} == {
        name: getattr(theirs, name) for name in SETTINGS
    }


def test_the_functions_show_their_arguments(segment):
    """An editor and help() tell what to give, although one decorator makes them all."""
    for name in EVENT_METHODS:
        function, method = getattr(segment, name), getattr(segment.Client, name)
        assert [*inspect.signature(function).parameters] == [*inspect.signature(method).parameters][
            1:
        ]
        assert function.__doc__ == method.__doc__


def test_settings_reach_the_client(segment, collector):
    """Under the names that ours have."""
    segment.host, segment.timeout, segment.max_queue_size = f"{collector.url}/", 7, 3
    segment.track("u", "a")
    config = segment.default_client.client._config

    assert (config.api_key, config.api_url) == (KEY, collector.url)
    assert (config.timeout_s, config.max_queue_size) == (7, 3)
    assert (config.batch_size, config.flush_interval_s) == (100, 0.5)


def test_without_a_key_the_functions_use_the_default_client(segment, analytics, collector):
    """A program may move call by call: old and new ones share one client and one order."""
    segment.write_key = None
    analytics.init(KEY, collector.url)
    for number in range(3):
        assert segment.track("u-1", f"old {number}")[0]
        assert analytics.track(f"new {number}", user_id="u-1")

    assert segment.flush()
    assert collector.names == ["old 0", "new 0", "old 1", "new 1", "old 2", "new 2"]
    assert analytics.stats().delivered == 6
    assert segment.default_client is None


def test_without_any_client_calls_are_refused_and_counted(segment, analytics, sdk_log):
    """As those of analytics_sdk, with the same line in the log."""
    segment.write_key = None

    assert segment.track("u-1", "a")[0] is False
    assert analytics.stats().refused == {"not_initialised": 1}
    assert sdk_log.reasons() == ["not_initialised"]


def test_tests_of_a_program_see_what_it_tracks(segment, analytics):
    """Without a key, for a client of its own would not record."""
    segment.write_key = None
    with capture_events() as events:
        assert segment.track("u-1", "Order Completed", {"total": 42})[0]

    events.assert_tracked("Order Completed", {"total": 42}, user_id="u-1")


def test_a_block_gives_its_ids_and_properties(segment, collector):
    """What a middleware of ours knows about the request holds for the old calls too."""
    with analytics_sdk.context(user_id="u-9", session_id="s-1", properties={"plan": "pro"}):
        assert segment.track(event="a")[0]
    segment.flush()

    [event] = collector.stored
    assert (event["userId"], event["sessionId"]) == ("u-9", "s-1")
    assert event["properties"] == {"plan": "pro"}


def test_settings_that_still_point_to_segment_are_told_clearly():
    """Every mistake at once, in the words that the program uses."""
    with pytest.raises(ConfigError) as caught:
        module.Client(
            SEGMENTS_KEY, "https://api.segment.io", upload_size=0, proxies={"https": "http://p"},
            oauth_client_id="id",
        )  # fmt: skip

    words = [mistake.split()[0] for mistake in caught.value.mistakes]
    assert words == ["write_key", "host", "proxies", "oauth_*", "upload_size"]
    assert "analytics-collector keys create" in str(caught.value)
    assert "address of your collector" in str(caught.value)
    assert SEGMENTS_KEY not in str(caught.value)


@pytest.mark.parametrize(
    "host",
    ["https://api.segment.io", "https://events.eu1.segmentapis.com", "http://SEGMENT.com:80/v1"],
)
def test_hosts_of_segment_are_known(host):
    """Else events would go to somebody who can't read them."""
    with pytest.raises(ConfigError, match="host is Segment's"):
        module.Client(KEY, host)


@pytest.mark.parametrize("host", ["https://segment.io.example.com", "https://mysegment.io"])
def test_hosts_that_only_look_like_segments_are_taken(host):
    """They are somebody's collector."""
    assert module.Client(KEY, host).client


def test_a_client_needs_a_key_and_a_host(monkeypatch):
    """Both are named, as they are called here."""
    for name in ("ANALYTICS_API_KEY", "ANALYTICS_API_URL"):
        monkeypatch.delenv(name, raising=False)

    with pytest.raises(ConfigError, match=r"write_key must .* host must "):
        module.Client()


def test_wrong_settings_are_logged_and_no_call_raises(segment, collector, sdk_log):
    """Until they are corrected; then events go."""
    segment.write_key = SEGMENTS_KEY
    for _ in range(3):
        is_taken, message = segment.track("u-1", "lost")
        assert (is_taken, message["event"]) == (False, "lost")
    assert segment.flush()
    assert segment.shutdown()
    assert sdk_log.reasons() == ["bad_settings"]
    assert "write_key is a key of Segment's" in sdk_log.records[0].getMessage()

    segment.write_key = KEY
    assert segment.track("u-1", "kept")[0]
    assert segment.flush()
    assert collector.names == ["kept"]


def test_with_send_off_everything_is_taken_and_nothing_sent(segment, collector):
    """As the tests of a program have it; such a program needs no settings."""
    segment.send, segment.write_key, segment.host = False, SEGMENTS_KEY, None
    is_taken, message = segment.track("u-1", "a", {"b": 1})

    assert is_taken
    assert message["properties"] == {"b": 1}
    assert segment.flush()
    assert segment.default_client.client.stats().taken == 0
    assert collector.requests == []


def test_in_sync_mode_a_call_returns_after_delivery(segment, collector):
    """As short-lived functions want it."""
    segment.sync_mode = True
    for number in range(3):
        assert segment.track("u-1", f"e{number}")[0]
        assert collector.names[-1] == f"e{number}"


def test_on_error_gets_the_error_and_a_list(segment, collector, reply):
    """Segment's library calls it with a batch; here it is one event for each call."""
    calls = []
    segment.on_error = lambda error, items: calls.append((error, items))
    collector.script(reply.accept(0))
    segment.track("u-1", "refused")
    segment.flush()

    [(error, [item])] = calls
    assert error.code == "MISSING_NAME"
    assert item["name"] == "refused"


class Hostile(dict):
    """What a user tracks may raise anything."""

    def __iter__(self):
        raise KeyError("hostile")

    keys = items = values = __bool__ = __str__ = __iter__


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"user_id": None, "event": None}, "missing_name"),
        ({"user_id": ["u"], "event": "a"}, "invalid_identifier"),
        ({"user_id": b"u", "event": "a"}, "invalid_identifier"),
        ({"user_id": Hostile(), "event": "a"}, "invalid_identifier"),
        ({"user_id": "u", "event": "a", "properties": "text"}, "invalid_properties"),
        ({"user_id": "u", "event": "a", "context": [1]}, "invalid_context"),
        ({"user_id": "u", "event": "a", "timestamp": "now"}, "invalid_timestamp"),
        ({"user_id": "u", "event": "a", "timestamp": datetime(1, 1, 1)}, "invalid_timestamp"),  # noqa: DTZ001
        ({"user_id": "u", "event": "a", "message_id": Hostile()}, "invalid_message_id"),
        ({"user_id": "u", "event": "a", "message_id": "\ud800"}, "invalid_message_id"),
    ],
)
def test_calls_that_segments_library_raises_for_are_refused_and_counted(segment, arguments, reason):
    """Nothing raises, and the answer has the members that a program may read."""
    is_taken, message = segment.track(**arguments)

    assert is_taken is False
    assert {"event", "messageId", "timestamp", "properties", "context"} <= message.keys()
    assert segment.default_client.client.stats().refused == {reason: 1}


@pytest.mark.parametrize("member", ["properties", "context", "integrations", "name", "category"])
@pytest.mark.usefixtures("swallowed_errors")
def test_hostile_values_raise_nowhere(segment, member):
    """Whether the event is taken is the client's to say."""
    is_taken, _ = segment.page("u", **{member: Hostile()})
    stats = segment.default_client.client.stats()

    assert is_taken is bool(stats.taken)
    assert stats.taken + sum(stats.refused.values()) == 1


def test_first_calls_of_many_threads_lose_nothing(segment, collector, eventually):
    """Each may have made a client; those that were not kept deliver all the same."""
    start = threading.Barrier(8)

    def track(number):
        start.wait()
        segment.track("u-1", f"e{number}")

    threads = [threading.Thread(target=track, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert segment.flush()
    assert eventually(lambda: len(collector.stored) == 8)


def test_with_debug_misuse_raises(segment, capsys):
    """As it always does in Segment's library, though under another name."""
    segment.debug = True
    with pytest.raises(MisuseError, match="missing_name"):
        segment.track("u-1")

    segment.track("u-1", "shown")
    assert '"name":"shown"' in capsys.readouterr().err


def test_an_anonymous_identify_is_refused(segment):
    """The wire has no traits for visitors without a user id; docs/migrating.md says so."""
    assert segment.identify(anonymous_id="a-1", traits={"a": 1})[0] is False
    assert segment.default_client.client.stats().refused == {"missing_identity": 1}


def test_what_the_caller_has_stays_as_it_is(segment, collector):
    """Segment's library writes into the context it is given; the answer here is a copy."""
    context, properties = {"ip": "1.2.3.4"}, {"a": 1}
    _, message = segment.track("u-1", "a", properties, context)
    message["properties"]["a"] = message["context"]["library"]["name"] = "changed"
    segment.track("u-1", "b", properties, context)
    segment.flush()

    assert (context, properties) == ({"ip": "1.2.3.4"}, {"a": 1})
    assert [event["properties"] for event in collector.stored] == [{"a": 1}] * 2
    libraries = {event["context"]["library"]["name"] for event in collector.stored}
    assert libraries == {"analytics-sdk-python"}


def test_message_ids_may_be_uuid_objects(segment, collector):
    """A program that makes them need not write them out."""
    message_id = uuid4()
    _, message = segment.track("u-1", "a", message_id=message_id)
    segment.flush()

    assert message["messageId"] == collector.stored[0]["messageId"] == str(message_id)


def test_a_client_can_be_wrapped(collector, make_client):
    """One client for a program that has both kinds of calls and makes no default one."""
    client = make_client()
    wrapped = module.Client(client=client)
    wrapped.track("u-1", "old")
    client.track("new", user_id="u-1")

    assert wrapped.flush()
    assert collector.names == ["old", "new"]


def test_the_default_client_may_be_replaced(segment, collector, make_client):
    """As programs do, and their tests."""
    segment.default_client = segment.Client(client=make_client())
    segment.write_key = "wrong key"
    segment.track("u-1", "a")

    assert segment.flush()
    assert collector.names == ["a"]


def test_shutdown_delivers_and_ends(segment, collector):
    """A call that comes later is refused, not forgotten."""
    segment.track("u-1", "a")

    assert segment.shutdown()
    assert collector.names == ["a"]
    assert segment.track("u-1", "late")[0] is False
    assert segment.default_client.client.stats().refused == {"closed": 1}


def test_a_log_handler_gets_our_log(segment):
    """The logger is called analytics_sdk here."""
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    segment.log_handler = handler
    try:
        segment.track("u-1")
    finally:
        logging.getLogger("analytics_sdk").removeHandler(handler)

    assert [record.reason for record in records] == ["missing_name"]
