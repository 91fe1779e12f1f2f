import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analytics_sdk.scrub import Scrubber

LIBRARY = {"name": "analytics-sdk-python", "version": "1"}
EVENT = {
    "type": "track",
    "messageId": "1",
    "name": "bought",
    "userId": "u",
    "properties": {
        "plan": "pro",
        "email": "a@b",
        "card": {"Email": "c@d", "last4": "1234", "bank": {"plan": 1}},
        "items": [{"sku": "a", "email": "e@f"}, [{"email": "g@h"}], "email"],
    },
    "context": {"library": LIBRARY, "ip": "::1", "page": {"email": "i@j", "url": "/"}},
}


def scrubbed(**lists):
    return Scrubber(**lists).scrub(EVENT)


def test_a_denied_key_is_taken_out_at_every_level():
    """In dicts, and in lists of dicts; a text that reads like it stays."""
    assert scrubbed(deny_keys={"email", "page"}) == {
        **EVENT,
        "properties": {
            "plan": "pro",
            "card": {"last4": "1234", "bank": {"plan": 1}},
            "items": [{"sku": "a"}, [{}], "email"],
        },
        "context": {"library": LIBRARY, "ip": "::1"},
    }


def test_a_denied_property_is_taken_out_at_the_top():
    """Of properties and traits, not of the context."""
    scrubber = Scrubber(deny_properties={"email", "ip"})

    assert scrubber.scrub(EVENT) == {
        **EVENT,
        "properties": {
            name: value for name, value in EVENT["properties"].items() if name != "email"
        },
    }
    assert scrubber.scrub({"traits": {"email": 1, "a": {"email": 1}}}) == {
        "traits": {"a": {"email": 1}}
    }


def test_only_an_allowed_property_stays():
    """With all that is in it."""
    assert scrubbed(allow_properties={"plan", "items"}) == {
        **EVENT,
        "properties": {"plan": "pro", "items": EVENT["properties"]["items"]},
    }


def test_only_an_allowed_key_stays():
    """At each level on the way to it; but the collector is told who we are."""
    assert scrubbed(allow_keys={"plan", "card", "bank"}) == {
        **EVENT,
        "properties": {"plan": "pro", "card": {"bank": {"plan": 1}}},
        "context": {"library": LIBRARY},
    }


def test_what_is_allowed_and_denied_is_denied():
    """The stricter word counts."""
    assert scrubbed(allow_properties={"plan", "email"}, deny_properties={"email"})[
        "properties"
    ] == {"plan": "pro"}
    assert scrubbed(allow_keys={"plan", "email"}, deny_keys={"email"})["properties"] == {
        "plan": "pro"
    }


def test_an_empty_allow_list_allows_nothing():
    """It is not the same as none."""
    assert scrubbed(allow_properties=set())["properties"] == {}


def test_the_library_keeps_its_name_and_nothing_else():
    """A hook may have put more there."""
    event = {"context": {"library": {**LIBRARY, "email": "a@b", "more": 1}}}

    assert Scrubber(deny_keys={"email", "name", "library"}).scrub(event) == {
        "context": {"library": {**LIBRARY, "more": 1}}
    }


@pytest.mark.parametrize("event", [{}, {"context": {}}, {"context": {"library": "a"}, "traits": 1}])
def test_an_event_need_not_have_all_parts(event):
    """A hook may have taken them out, or made something else of them."""
    assert Scrubber(deny_keys={"email"}).scrub(event) == event


def test_the_event_that_was_given_is_left_alone():
    """The result is another."""
    before = repr(EVENT)
    scrubbed(deny_keys={"email"}, deny_properties={"plan"})

    assert repr(EVENT) == before


def test_without_lists_there_is_nothing_to_do():
    """Then no event is taken apart for it."""
    assert not Scrubber()
    assert Scrubber(allow_keys=set())
    assert Scrubber(allow_properties=set())
    assert Scrubber(deny_keys={"a"})
    assert Scrubber(deny_properties={"a"})


# Other programs may keep the machine busy.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
NAMES = st.sampled_from(["email", "Email", "EMAIL", "straße", "STRASSE", "plan", "card", "a"])
VALUES = st.recursive(
    st.none() | st.integers() | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=10,
)
EVENTS = st.fixed_dictionaries(
    {},
    optional={part: st.dictionaries(NAMES, VALUES) for part in ("properties", "traits", "context")},
)


def keys_of(value):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from keys_of(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from keys_of(inner)


def without(value, denied):
    """Do it the plain way."""
    if isinstance(value, dict):
        return {
            key: without(inner, denied)
            for key, inner in value.items()
            if key.casefold() not in denied
        }
    return [without(inner, denied) for inner in value] if isinstance(value, list) else value


@PATIENT
@given(EVENTS, st.sets(NAMES.map(str.casefold)))
def test_no_denied_key_survives_and_all_others_do(event, denied):
    """At any depth, in any case."""
    clean = Scrubber(deny_keys=denied).scrub(event)

    assert not {key.casefold() for key in keys_of(list(clean.values()))} & denied
    assert clean == {part: without(content, denied) for part, content in event.items()}


@PATIENT
@given(EVENTS, st.sets(NAMES.map(str.casefold)))
def test_only_allowed_keys_survive(event, allowed):
    """At any depth, in any case."""
    everything = {key.casefold() for key in keys_of(event)}
    clean = Scrubber(allow_keys=allowed).scrub(event)

    assert clean == Scrubber(deny_keys=everything - allowed).scrub(event)


@pytest.mark.parametrize("kind", ["track", "identify"])
def test_a_client_scrubs_what_a_hook_added(make_client, collector, kind):
    """Last of all, so that nothing gets past it."""

    def add(event):
        part = "properties" if kind == "track" else "traits"
        return {**event, part: {**event.get(part, {}), "Email": "a@b", "b": {"e-mail": 1}}}

    client = make_client(before_send=add, deny_properties=["email"], deny_keys=["e-mail"])
    getattr(client, kind)("x", {"EMAIL": "a@b", "kept": 1})
    assert client.flush()

    [event] = collector.stored
    assert event.get("properties", event.get("traits")) == {"kept": 1, "b": {}}
    assert event["context"]["library"]["name"] == "analytics-sdk-python"
