"""Which session an event belongs to."""

from __future__ import annotations

from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from analytics_collector.spans import (
    CAP_MS,
    GAP_MS,
    MAX_SPANS,
    Span,
    find,
    merge,
    place,
    read_spans,
    write_spans,
)

HOUR = 60 * 60 * 1000


def sessions(*times: int) -> list[int]:
    """Return for each time the origin of its session, in order of arrival."""
    spans: list[Span] = []
    return [place(spans, at).origin for at in times]


def test_a_session_lasts_until_thirty_minutes_of_silence():
    """Exactly thirty minutes still belong to it."""
    assert sessions(0, GAP_MS, 2 * GAP_MS) == [0, 0, 0]
    assert sessions(0, GAP_MS + 1) == [0, GAP_MS + 1]


def test_a_session_ends_after_a_day_however_busy():
    """Exactly a day still belongs to it."""
    times = [*range(0, CAP_MS + 1, GAP_MS), CAP_MS + 1]

    assert sessions(*times)[-2:] == [0, CAP_MS + 1]


def test_a_late_event_belongs_to_the_session_it_happened_in():
    """Not to the one that is open when it arrives."""
    assert sessions(0, 10, 5 * HOUR, 5) == [0, 0, 5 * HOUR, 0]


def test_an_event_from_just_before_a_session_belongs_to_it():
    """The session keeps its name, which others may have stored already."""
    assert sessions(HOUR, HOUR - GAP_MS, HOUR - 2 * GAP_MS) == [HOUR, HOUR, HOUR]


def test_an_event_between_two_sessions_belongs_to_the_earlier():
    """What was stored as two stays two."""
    assert sessions(0, GAP_MS + 5, GAP_MS - 5) == [0, GAP_MS + 5, 0]


def test_the_order_of_arrival_does_not_tear_a_session_apart():
    """As long as each event is near one that came before it."""
    for times in permutations((0, HOUR // 4, HOUR // 3)):
        assert len(set(sessions(*times))) == 1


def test_what_is_known_of_a_stream_is_bounded():
    """However far apart its events lie."""
    spans: list[Span] = []
    for day in range(100):
        place(spans, day * CAP_MS)

    assert [span.origin for span in spans] == [day * CAP_MS for day in range(100 - MAX_SPANS, 100)]


@given(st.lists(st.integers(0, 3 * CAP_MS)))
def test_every_event_lies_in_its_session(times):
    """No session is longer than a day, and each reads back as it was written."""
    spans: list[Span] = []
    for at in times:
        span = place(spans, at)
        assert span.first <= at <= span.last
        assert span.last - span.first <= CAP_MS
        assert len(spans) == MAX_SPANS or find(spans, at) is not None

    assert read_spans(write_spans(spans)) == spans


@given(st.lists(st.integers(0, CAP_MS)), st.lists(st.integers(0, CAP_MS)))
def test_what_two_processes_know_can_be_joined_in_any_order(ours, theirs):
    """Joining is the same from either side, and twice is once."""
    a: list[Span] = []
    b: list[Span] = []
    for at in ours:
        place(a, at)
    for at in theirs:
        place(b, at)
    ab, ba = read_spans(write_spans(a)), read_spans(write_spans(b))
    merge(ab, b)
    merge(ba, a)
    if len({span.origin for span in a + b}) <= MAX_SPANS:
        assert ab == ba
    again = read_spans(write_spans(ab))
    merge(again, b)

    assert again == ab or len({span.origin for span in a + b}) > MAX_SPANS
