import asyncio
import inspect
import sys
import threading

import orjson
import pytest

import analytics_sdk

MESSAGE_ID = "0197b0c8-0000-7000-8000-000000000001"


def test_each_method_sends_its_type(make_client, collector):
    """With the members that the wire gives it."""
    client = make_client()
    client.track("bought", {"amount": 1}, user_id=7)
    client.identify("u", {"email": "a@b"})
    client.page("Home", {"path": "/"}, anonymous_id="a")
    client.screen("Start", session_id="s")
    client.group("g", {"seats": 5}, user_id="u")
    client.alias("old", "new")
    assert client.flush()

    ignored = ("messageId", "timestamp", "context")
    sent = [
        {name: value for name, value in event.items() if name not in ignored}
        for event in collector.stored
    ]
    assert sent == [
        {"type": "track", "name": "bought", "properties": {"amount": 1}, "userId": "7"},
        {"type": "identify", "userId": "u", "traits": {"email": "a@b"}},
        {"type": "page", "name": "Home", "properties": {"path": "/"}, "anonymousId": "a"},
        {"type": "screen", "name": "Start", "sessionId": "s"},
        {"type": "group", "groupId": "g", "userId": "u", "traits": {"seats": 5}},
        {"type": "alias", "previousId": "old", "userId": "new"},
    ]


def test_every_id_arrives_once(make_client, collector):
    """Eight threads, 2,000 events."""
    client = make_client()

    def produce():
        for number in range(250):
            assert client.track("event", {"number": number})

    threads = [threading.Thread(target=produce) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert client.flush()

    assert len({event["messageId"] for event in collector.stored}) == len(collector.stored) == 2000


def test_the_event_is_as_it_was_when_tracked(make_client, collector):
    """Changing the dict afterwards does not show."""
    client = make_client()
    properties = {"items": [1], "none": None}
    client.track("bought", properties, context={"ip": "::1"})
    properties["items"].append(2)
    properties["more"] = 3
    assert client.flush()

    assert collector.stored[0]["properties"] == {"items": [1], "none": None}
    assert collector.stored[0]["context"]["ip"] == "::1"


def test_a_dict_that_another_thread_changes_is_no_danger(make_client, collector):
    """Some state of it arrives; nothing raises."""
    client = make_client(max_queue_size=100_000)
    shared = {f"key-{number}": {number} for number in range(50)}
    stop = threading.Event()

    def change():
        number = 0
        while not stop.is_set():
            number += 1
            shared[f"more-{number % 100}"] = [number]
            shared.pop(f"more-{(number + 50) % 100}", None)

    thread = threading.Thread(target=change)
    thread.start()
    answers = [client.track("event", shared) for _ in range(500)]
    stop.set()
    thread.join()

    assert all(answers)
    assert client.flush(20)


def test_nothing_is_imported_or_started_before_it_is_needed(run_program):
    """Importing takes no HTTP library, making a client no thread."""
    program = run_program("""
        heavy = {"httpx", "httpcore", "tenacity", "asyncio", "ssl"} & set(sys.modules)
        client = analytics.Client()
        print(heavy or "light", threading.active_count())
    """)

    assert program.stdout.split() == ["light", "1"], program.stderr


MISUSES = {
    "missing_name": lambda client: client.track(""),
    "invalid_name": lambda client: client.track("a\nb"),
    "missing_identity": lambda client: client.identify(None),
    "invalid_identifier": lambda client: client.track("a", user_id=["u"]),
    "invalid_properties": lambda client: client.track("a", "b"),
    "invalid_traits": lambda client: client.identify("u", 7),
    "invalid_context": lambda client: client.track("a", context=7),
    "invalid_message_id": lambda client: client.track("a", message_id="7"),
    "invalid_timestamp": lambda client: client.track("a", timestamp="now"),
    "event_too_large": lambda client: client.track("a", {"text": "x" * 1_500_000}),
    "too_deep": lambda client: client.track("a", {"deep": deep(10_000)}),
}


def deep(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("reason", MISUSES)
def test_a_call_that_makes_no_event_returns_false(make_client, collector, reason):
    """Counted under its reason, and the neighbours arrive."""
    client = make_client()
    assert client.track("before")
    assert MISUSES[reason](client) is False
    assert client.track("after")

    assert client.flush()
    assert client.stats().refused == {reason: 1}
    assert collector.names == ["before", "after"]


@pytest.mark.parametrize("reason", MISUSES)
def test_with_debug_it_raises(make_client, reason):
    """In development a mistake should be seen."""
    client = make_client(debug=True)
    with pytest.raises(analytics_sdk.MisuseError) as caught:
        MISUSES[reason](client)

    assert caught.value.reason == reason


def test_whatever_raises_behind_the_door_stays_there(
    make_client, collector, swallowed_errors, sdk_log
):
    """The program goes on, the count tells."""

    class Name(str):
        def __len__(self):
            raise RuntimeError("no")

    client = make_client()
    assert client.track(Name("a")) is False
    assert client.track("b")

    assert client.flush()
    assert client.stats().refused == {"internal": 1}
    assert sdk_log.reasons() == ["internal"]


def test_repairs_are_counted(make_client, collector):
    """By kind."""
    client = make_client()
    client.track("a", {"x": 2**70, "y": b"1", 3: 2**70})

    assert client.flush()
    assert client.stats().repaired == {"integer": 2, "bytes": 1, "key": 1}
    assert collector.stored[0]["properties"] == {"x": str(2**70), "y": "1", "3": str(2**70)}


def test_a_hook_that_adds_broken_json_poisons_nobody(make_client, collector):
    """What comes from `before_send` is as foreign as what is tracked."""

    def add(event):
        return {**event, "properties": {"broken": orjson.Fragment(b"{broken")}}

    client = make_client(before_send=add)
    client.track("a")

    assert client.flush()
    assert collector.names == ["a"]
    assert client.stats().repaired == {"text": 1}


def test_a_full_queue_returns_false(make_client, collector, reply, eventually):
    """Without a spool: the newest is turned away, and the old ones arrive."""
    collector.script(reply.hold)
    client = make_client(max_queue_size=20, spool_max_bytes=0)
    answers = [client.track(f"{number}") for number in range(30)]

    assert answers == [True] * 20 + [False] * 10
    assert client.stats().refused == {"queue_full": 10}
    collector.released.set()
    assert client.flush()
    assert collector.names == [f"{number}" for number in range(20)]


def test_before_send_may_change_an_event(make_client, collector):
    """Not the caller's dict, nor what makes the event one."""

    def mask(event):
        event["properties"]["email"] = "***"
        event["messageId"] = event["type"] = "mine"
        return event

    client = make_client(before_send=mask)
    properties = {"email": "a@b"}
    client.track("signed_up", properties, message_id=MESSAGE_ID)
    assert client.flush()

    [event] = collector.stored
    assert event["properties"] == {"email": "***"}
    assert (event["type"], event["messageId"]) == ("track", MESSAGE_ID)
    assert properties == {"email": "a@b"}


def test_before_send_may_keep_an_event_back(make_client, collector):
    """That is a refusal, not a loss."""
    client = make_client(before_send=lambda event: None)

    assert client.track("secret") is False
    assert client.stats().refused == {"before_send": 1}
    assert client.stats().taken == 0


@pytest.mark.parametrize("hook", [lambda event: 1 / 0, lambda event: "text"])
def test_an_event_whose_before_send_fails_stays_here(make_client, collector, hook):
    """What the hook should have taken out must not go."""
    client = make_client(before_send=hook)

    assert client.track("a", {"b": 1}) is False
    assert client.stats().refused == {"before_send_failed": 1}
    assert client.stats().taken == 0


def test_before_send_may_not_make_an_event_too_large(make_client):
    """The limits hold for what goes out."""
    client = make_client(before_send=lambda event: {**event, "more": "x" * 200_000})

    assert client.track("a") is False
    assert client.stats().refused == {"event_too_large": 1}


def test_sampled_out_users_are_refused(make_client, collector):
    """And counted, so that totals can be scaled."""
    client = make_client(sample_rate=0.5)
    first = {user: client.track("a", user_id=user) for user in range(200)}
    second = {user: client.identify(user) for user in range(200)}

    assert first == second
    assert 50 < sum(first.values()) < 150
    assert client.stats().refused["sampled_out"] == 2 * (200 - sum(first.values()))


def test_a_client_that_is_switched_off_does_nothing(make_client, collector):
    """Not even with what would be a mistake."""
    client = make_client(enabled=False, api_key=None, api_url=None)

    assert client.track("a") is False
    assert client.track("") is False
    assert client.flush()
    assert client.stats().refused == {"disabled": 2}
    assert client._worker._thread is None


@pytest.mark.parametrize("setting", ["durability", "batchsize"])
def test_a_setting_that_does_not_exist_is_told(make_client, setting):
    """Rather than accepted and ignored."""
    with pytest.raises(TypeError, match=setting):
        make_client(**{setting: True})


def test_aflush_leaves_the_event_loop_free(make_client, collector, reply, eventually):
    """Others run while it waits."""
    collector.script(reply.hold)
    client = make_client()
    client.track("a")

    async def main():
        async def release():
            await asyncio.to_thread(eventually, lambda: collector.requests)
            collector.released.set()

        flushed, _ = await asyncio.gather(client.aflush(10), release())
        return flushed

    assert asyncio.run(main())
    assert collector.names == ["a"]


def test_the_key_does_not_show(make_client):
    """Clients get printed."""
    assert "SECRET" not in repr(make_client())


def test_the_public_names_are_these():
    """A new name is a promise, and takes a line here."""
    assert analytics_sdk.__all__ == sorted(analytics_sdk.__all__)
    assert set(analytics_sdk.__all__) == {
        *("init", "track", "identify", "page", "screen", "group", "alias"),
        *("context", "in_context", "operation", "Operation", "register", "unregister", "reset"),
        *("opt_in", "opt_out", "recover", "Scope"),
        *("flush", "shutdown", "stats", "Client", "Stats", "__version__"),
        *("AnalyticsError", "ConfigError", "MisuseError", "EventRejectedError"),
    }
    assert all(hasattr(analytics_sdk, name) for name in analytics_sdk.__all__)


@pytest.mark.parametrize("name", ["track", "identify", "page", "screen", "group", "alias"])
def test_functions_take_what_methods_take(name):
    """Help and editors show the same, but for self."""
    function = inspect.signature(getattr(analytics_sdk, name))
    method = inspect.signature(getattr(analytics_sdk.Client, name))

    assert list(function.parameters) == list(method.parameters)[1:]
    assert getattr(analytics_sdk, name).__doc__ == getattr(analytics_sdk.Client, name).__doc__


def test_the_package_says_that_it_is_typed():
    """Type checkers look for py.typed."""
    from pathlib import Path

    assert (Path(sys.modules["analytics_sdk"].__file__).parent / "py.typed").exists()
