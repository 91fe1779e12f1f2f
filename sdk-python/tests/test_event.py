import re
import time
import uuid
from datetime import datetime, timedelta, timezone
from enum import Enum

import pytest

from analytics_sdk import event
from analytics_sdk.errors import MisuseError
from analytics_sdk.version import __version__


def test_a_tracked_event_has_what_the_wire_asks_for():
    """And nothing that was not given."""
    built = event.build("track", name="signed_up", properties={"plan": "pro"}, user_id="u-1")

    assert re.fullmatch(r"2\d{3}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", built.pop("timestamp"))
    assert uuid.UUID(built.pop("messageId")).version == 7
    assert built == {
        "type": "track",
        "name": "signed_up",
        "userId": "u-1",
        "properties": {"plan": "pro"},
        "context": {"library": {"name": "analytics-sdk-python", "version": __version__}},
    }


def test_a_caller_may_add_context_but_not_another_library():
    """The library's version tells which client made an odd event."""
    built = event.build("track", name="a", context={"ip": "::1", "library": {"name": "mine"}})

    assert built["context"] == {"ip": "::1", **event.CONTEXT}


def test_message_ids_are_uuid_7_and_in_order_of_time():
    """RFC 9562: version 7, variant 10, milliseconds first."""
    before = time.time_ns() // 1_000_000
    ids = [event.build("track", name="a")["messageId"] for _ in range(2000)]
    after = time.time_ns() // 1_000_000

    assert len(set(ids)) == 2000
    for each in ids:
        parsed = uuid.UUID(each)
        assert str(parsed) == each
        assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
        assert before <= parsed.int >> 80 <= after


class Id(Enum):
    ONE = 1


@pytest.mark.parametrize(
    ("given", "sent"),
    [("u", "u"), (1, "1"), (2.5, "2.5"), (uuid.UUID(int=5), str(uuid.UUID(int=5))), (Id.ONE, "1")],
)
def test_identifiers_become_text(given, sent):
    """1 and "1" are the same user, whichever column they came from."""
    built = event.build(
        "track",
        name="a",
        user_id=given,
        anonymous_id=given,
        session_id=given,
        group_id=given,
        previous_id=given,
    )

    names = ("userId", "anonymousId", "sessionId", "groupId", "previousId")
    assert [built[name] for name in names] == [sent] * 5


class Silent:
    def __str__(self):
        raise RuntimeError("no")


@pytest.mark.parametrize(
    "given", ["x" * 256, "a\0", "\ud800", True, b"u", ["u"], {"id": 1}, {1}, Silent(), object()]
)
@pytest.mark.parametrize("member", ["user_id", "anonymous_id", "session_id"])
def test_what_is_no_identifier_is_refused(member, given):
    """An identifier that was repaired might be another user's."""
    with pytest.raises(MisuseError, match="invalid_identifier"):
        event.build("track", name="a", **{member: given})


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("identify", {}),
        ("identify", {"user_id": ""}),
        ("identify", {"anonymous_id": "a"}),
        ("alias", {"previous_id": "a"}),
        ("group", {"user_id": "u"}),
    ],
)
def test_identity_is_needed_where_the_wire_needs_it(kind, arguments):
    """An identify that names nobody would be rejected later; better now."""
    with pytest.raises(MisuseError, match="missing_identity"):
        event.build(kind, **arguments)


@pytest.mark.parametrize("kind", ["track", "page", "screen"])
def test_events_of_the_system_have_no_identity(kind):
    """A cron job tracks, too."""
    assert "userId" not in event.build(kind, name="backup_done")


@pytest.mark.parametrize("name", [None, "", 7, b"a", ["a"], Id.ONE])
def test_track_needs_a_name(name):
    """A name is text."""
    with pytest.raises(MisuseError, match="missing_name"):
        event.build("track", name=name)


@pytest.mark.parametrize("name", ["x" * 256, "a\nb", "\0", "a\x7f", "\ud800"])
def test_names_are_printable_and_short(name):
    """A name ends up in logs, columns and legends."""
    with pytest.raises(MisuseError, match="invalid_name"):
        event.build("track", name=name)


@pytest.mark.parametrize("name", ["x" * 255, "Bestellung übermittelt 🎉", "a\u200bb", "a\u00a0b"])
def test_names_may_be_in_any_script(name):
    """Not printable to Python is not a control character."""
    assert event.build("track", name=name)["name"] == name


def test_a_page_may_have_no_name():
    """Its URL is in the context."""
    assert "name" not in event.build("page")


@pytest.mark.parametrize("argument", ["properties", "traits", "context"])
@pytest.mark.parametrize("value", ["text", ["a"], 5, object()])
def test_what_is_no_mapping_is_refused(argument, value):
    """`track("a", "b")` is a slip, not an event."""
    with pytest.raises(MisuseError, match=f"invalid_{argument}"):
        event.build("track", name="a", **{argument: value})


@pytest.mark.parametrize(
    "given",
    ["0197b0c8-0000-7000-8000-000000000001", uuid.UUID("0197b0c8-0000-7000-8000-000000000001")],
)
def test_a_caller_may_bring_the_message_id(given):
    """To make a job that runs twice track once."""
    assert event.build("track", name="a", message_id=given)["messageId"] == str(given)


@pytest.mark.parametrize(
    "given",
    [
        "order-7",
        "",
        7,
        "0197b0c8000070008000000000000001",
        "urn:uuid:0197b0c8-0000-7000-8000-000000000001",
        "\uff10197b0c8-0000-7000-8000-000000000001",
        "0197b0c8-0000-7000-8000-000000000001\n",
        uuid.UUID(int=0),
        "ffffffff-FFFF-ffff-ffff-ffffffffffff",
    ],
)
def test_a_message_id_is_a_canonical_uuid(given):
    """Others, the collector would reject."""
    with pytest.raises(MisuseError, match="invalid_message_id"):
        event.build("track", name="a", message_id=given)


def test_a_time_keeps_its_moment():
    """Whatever zone it is told in."""
    moment = datetime(2026, 7, 1, 12, tzinfo=timezone(timedelta(hours=2)))

    sent = event.build("track", name="a", timestamp=moment)["timestamp"]
    assert sent == "2026-07-01T10:00:00Z"


def test_a_naive_time_is_local():
    """That is what `datetime.now()` gives."""
    naive = datetime(2026, 7, 1, 12)  # noqa: DTZ001

    sent = event.build("track", name="a", timestamp=naive)["timestamp"]
    assert datetime.fromisoformat(sent.replace("Z", "+00:00")).timestamp() == naive.timestamp()


@pytest.mark.parametrize(
    "given",
    ["2026-07-01", 1_700_000_000, datetime(1960, 1, 1, tzinfo=timezone.utc)],
)
def test_what_is_no_time_is_refused(given):
    """A number could be seconds or milliseconds, and 1960 is a bug."""
    with pytest.raises(MisuseError, match="invalid_timestamp"):
        event.build("track", name="a", timestamp=given)


def test_sampling_keeps_or_leaves_a_user_for_good():
    """Funnels of sampled users stay whole."""
    users = [event.build("track", name="a", user_id=number) for number in range(4000)]
    kept = [user["userId"] for user in users if event.is_sampled(user, 0.25)]
    again = [event.build("identify", user_id=user) for user in kept]

    assert 800 < len(kept) < 1200
    assert all(event.is_sampled(each, 0.25) for each in again)
    assert all(event.is_sampled(each, 0.5) for each in again)


def test_sampling_all_or_none():
    """A rate of 0 is nobody, of 1 everybody."""
    built = event.build("track", name="a")

    assert not event.is_sampled(built, 0)
    assert event.is_sampled(built, 1)


def test_the_pattern_of_control_characters_is_the_schemas():
    """What we let through, the collector takes."""
    letters = [chr(code) for code in range(0x2FF)]
    schema = re.compile(r"^[^\u0000-\u001f\u007f]*$")
    taken = [letter for letter in letters if letter.isprintable() or event._is_clean(letter)]

    assert taken == [letter for letter in letters if schema.fullmatch(letter)]
