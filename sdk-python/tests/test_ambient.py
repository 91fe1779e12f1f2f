import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest

from analytics_sdk import context


@pytest.fixture
def arrived(collector):
    """Flush a client and return the members of what arrived that it adds by itself."""

    def members(client):
        assert client.flush()
        return [
            {
                name: event.get(name)
                for name in ("name", "userId", "anonymousId", "properties")
                if event.get(name) is not None
            }
            for event in collector.stored
        ]

    return members


def test_super_properties_go_with_each_event_that_has_properties(make_client, collector):
    """Not with those that have traits."""
    client = make_client(super_properties={"app": "shop", "plan": "free"})
    client.register({"plan": "pro"})
    client.track("a", {"x": 1})
    client.page("b")
    client.screen("c")
    client.identify("u", {"age": 7})
    client.group("g")
    client.alias("old", "u")
    assert client.flush()

    supers = {"app": "shop", "plan": "pro"}
    properties = [event.get("properties") for event in collector.stored]
    assert properties == [{**supers, "x": 1}, supers, supers, None, None, None]
    traits = [event.get("traits") for event in collector.stored]
    assert traits == [None, None, None, {"age": 7}, None, None]


def test_what_is_nearer_to_the_call_wins(make_client, arrived):
    """The call, then the block, then the super properties."""
    client = make_client(super_properties={"a": 1, "b": 1, "c": 1})
    with context(properties={"b": 2, "c": 2}):
        client.track("x", {"c": 3})

    assert arrived(client)[0]["properties"] == {"a": 1, "b": 2, "c": 3}


def test_registering_is_by_name(make_client, arrived):
    """One more, one changed, one taken back, and one that never was."""
    client = make_client()
    client.track("none")
    client.register({"a": 1, "b": 1})
    client.register({"b": 2})
    client.track("both")
    client.unregister("a", "z")
    client.track("one")
    client.unregister("b")
    client.track("none")

    assert [event.get("properties") for event in arrived(client)] == [
        None,
        {"a": 1, "b": 2},
        {"b": 2},
        None,
    ]


def test_an_event_has_the_super_properties_of_its_moment(make_client, arrived):
    """And what was given stays as it was."""
    given, registered = {"a": 1}, {"b": 1}
    client = make_client(super_properties=given)
    client.register(registered)
    client.track("first")
    given["a"] = registered["b"] = 2
    client.track("second")
    client.register({"c": 3})
    client.reset()
    client.track("third")
    properties = [event["properties"] for event in arrived(client)]

    assert properties == [{"a": 1, "b": 1}, {"a": 1, "b": 1}, {"a": 1}]
    assert (given, registered) == ({"a": 2}, {"b": 2})


class HostileMapping(dict):
    def keys(self):
        raise RuntimeError("no")

    __iter__ = keys


@pytest.mark.parametrize("wrong", ["a", ["a"], None, HostileMapping(a=1)], ids=repr)
def test_wrong_super_properties_do_not_raise(make_client, arrived, wrong):
    """They are left out, and so is what can't be taken back."""
    client = make_client()
    client.register({"a": 1})
    client.register(wrong)
    client.unregister(["a"], wrong)
    client.track("x")

    # A text is a name.
    kept = {"properties": {"a": 1}} if wrong != "a" else {}
    assert arrived(client) == [{"name": "x", **kept}]


def test_threads_may_register_at_the_same_time(make_client, arrived):
    """None undoes what another did."""
    client = make_client()
    start = threading.Barrier(4, timeout=10)

    def register(thread):
        start.wait()
        for number in range(200):
            client.register({f"{thread} {number}": 1, "gone": 1})
            client.unregister("gone")

    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(register, range(4)))
    finally:
        sys.setswitchinterval(interval_s)
    client.track("x")

    names = {f"{thread} {number}" for thread in range(4) for number in range(200)}
    assert set(arrived(client)[0]["properties"]) == names


def test_reset_forgets_what_was_registered(make_client, arrived):
    """The settings stay: they are the program's, not the user's."""
    client = make_client(super_properties={"app": "shop"})
    client.register({"plan": "pro", "app": "other"})
    client.reset()
    client.track("x")

    assert arrived(client)[0]["properties"] == {"app": "shop"}


def test_identify_is_not_remembered_unless_asked_for(make_client, arrived):
    """A server would mix up its users."""
    client = make_client()
    client.identify("u")
    client.track("x")
    with context():
        client.identify("u")
        client.track("x")

    assert arrived(client) == [{"userId": "u"}, {"name": "x"}] * 2


def test_a_program_with_one_user_may_have_it_remembered(make_client, arrived):
    """Before that it is a visitor, whose id goes along: both become one person."""
    client = make_client(remember_identity=True)
    client.track("before")
    client.identify(7)
    client.track("after")
    client.group("g")
    before, identified, after, group = arrived(client)

    visitor = before["anonymousId"]
    assert str(UUID(visitor)) == visitor
    assert before == {"name": "before", "anonymousId": visitor}
    assert identified == group == {"userId": "7", "anonymousId": visitor}
    assert after == {"name": "after", "userId": "7", "anonymousId": visitor}


def test_each_client_is_a_visitor_of_its_own(make_client, arrived):
    """The id is new for each program that starts."""
    first, second = make_client(remember_identity=True), make_client(remember_identity=True)
    first.track("a")
    second.track("b")
    assert first.flush()

    assert len({event["anonymousId"] for event in arrived(second)}) == 2


def test_a_call_about_somebody_else_has_nothing_of_the_user(make_client, arrived):
    """But a call that names the user has the visitor, as one that names nobody."""
    client = make_client(remember_identity=True)
    client.identify("7")
    client.track("own", user_id=7)
    client.track("other", user_id="8")
    client.alias("old", "9")
    client.track("given", anonymous_id="a")
    identified, own, other, alias, given = arrived(client)

    assert own["anonymousId"] == identified["anonymousId"]
    assert other == {"name": "other", "userId": "8"}
    assert alias == {"userId": "9"}
    assert given == {"name": "given", "userId": "7", "anonymousId": "a"}


def test_another_user_is_another_visitor(make_client, arrived):
    """One visitor who was both would make them one person."""
    client = make_client(remember_identity=True)
    for user in ("u", "u", "v"):
        client.identify(user)
    client.track("x")
    first, again, second, after = [event["anonymousId"] for event in arrived(client)]

    assert first == again
    assert second == after != first


def test_reset_forgets_the_user_and_the_visitor(make_client, arrived):
    """As a log-out does."""
    client = make_client(remember_identity=True)
    client.identify("u")
    client.reset()
    client.track("x")
    identified, after = arrived(client)

    assert "userId" not in after
    assert after["anonymousId"] != identified["anonymousId"]


def test_what_is_identified_in_a_block_stays_in_it(make_client, arrived):
    """Not outside, not in the next block, not in one that is open in another thread."""
    client = make_client(remember_identity=True)
    inside, tracked = threading.Event(), threading.Event()

    def other_request():
        with context():
            inside.set()
            assert tracked.wait(10)
            client.track("other")

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(other_request)
        assert inside.wait(10)
        with context():
            client.identify("u")
            client.track("same")
            with context(session_id="s"):
                client.track("inner")
        tracked.set()
        other.result()
    with context():
        client.track("next")
    client.track("outside")
    told = {event.get("name"): event.get("userId") for event in arrived(client)}

    assert told == {
        None: "u",
        "same": "u",
        "inner": "u",
        "other": None,
        "next": None,
        "outside": None,
    }


def test_what_is_remembered_outside_stays_outside(make_client, arrived):
    """A block knows by itself who its user is, or that it has none."""
    client = make_client(remember_identity=True)
    client.identify("u")
    with context(session_id="s"):
        client.track("x")

    assert arrived(client)[1] == {"name": "x"}


@pytest.mark.parametrize("wrong", [["u"], "x" * 256, "a\0b", True, ""], ids=repr)
def test_an_identity_that_is_refused_is_not_remembered(make_client, arrived, wrong):
    """Else it would be the reason to refuse all that follows."""
    client = make_client(remember_identity=True)
    assert client.identify(wrong) is False
    assert client.track("x")
    with context(user_id="u"):
        assert client.identify(wrong) is False
        assert client.track("y")
    x, y = arrived(client)

    assert "userId" not in x
    assert y == {"name": "y", "userId": "u"}
    assert sum(client.stats().refused.values()) == 2


def test_a_wrong_user_is_refused_with_its_reason(make_client):
    """As without a memory."""
    client = make_client(remember_identity=True)
    client.identify("u")
    client.track("x", user_id=["v"])

    assert client.stats().refused == {"invalid_identifier": 1}


def test_who_opted_out_is_not_tracked(make_client, collector):
    """What was taken before arrives; the rest is refused and counted, until opting in again."""
    client = make_client(remember_identity=True)
    assert client.track("before")
    client.opt_out()
    client.opt_out()
    assert not client.track("secret")
    assert not client.identify("u")
    client.opt_in()
    assert client.track("after")
    assert client.flush()

    assert client.stats().refused == {"opted_out": 2}
    assert [event["name"] for event in collector.stored] == ["before", "after"]
    assert "userId" not in collector.stored[1]


def test_opting_in_does_not_switch_on_what_is_switched_off(make_client):
    """`enabled=False` is stronger."""
    client = make_client(enabled=False)
    client.opt_out()
    client.opt_in()

    assert not client.track("x")
    assert client.stats().refused == {"disabled": 1}


def test_the_module_does_it_with_the_default_client(analytics, collector):
    """And nothing, if there is none."""
    analytics.register({"a": 0})
    analytics.unregister("a")
    analytics.reset()
    analytics.opt_out()
    analytics.opt_in()
    analytics.init("ak_live_1", collector.url)
    analytics.register({"a": 1, "b": 1})
    analytics.unregister("a")
    assert analytics.track("x")
    analytics.reset()
    assert analytics.track("y")
    analytics.opt_out()
    assert not analytics.track("z")
    analytics.opt_in()
    assert analytics.track("z")
    assert analytics.flush()

    assert [event.get("properties") for event in collector.stored] == [{"b": 1}, None, None]
    assert analytics.stats().refused == {"opted_out": 1}
