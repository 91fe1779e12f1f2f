"""Which session an event belongs to, by when it happened. Pure.

An event belongs to the session whose span it lies in, or at most 30 minutes before or after, as
long as the session then takes no more than 24 hours; of several to the one that began first. An
event that belongs to none begins a session. So the order of arrival does not matter but for events
that come so late that two sessions, or a session and a gap, have been told apart by then: what
has been stored stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

GAP_MS: Final = 30 * 60 * 1000
CAP_MS: Final = 24 * 60 * 60 * 1000
# Of one stream, the latest are kept: those that late events may still belong to.
MAX_SPANS: Final = 8


@dataclass(slots=True)
class Span:
    """A session as far as it is known; times in ms since 1970."""

    origin: int
    """Of the event that began it, as it arrived: its name for good."""
    first: int
    last: int

    def covers(self, at: int) -> bool:
        """Return whether an event at *at* belongs to the session."""
        first, last = self.first, self.last
        if first <= at <= last:
            return True
        if at < first:
            return first - at <= GAP_MS and last - at <= CAP_MS
        return at - last <= GAP_MS and at - first <= CAP_MS


Spans = list[Span]
"""The sessions of one stream, in the order of `first`."""


def find(spans: Spans, at: int) -> Span | None:
    """Return the session of *spans* that an event at *at* belongs to, or None."""
    for span in spans:
        if span.covers(at):
            return span
    return None


def place(spans: Spans, at: int) -> Span:
    """Return the session that an event at *at* belongs to, grown to it; begin one if need be."""
    span = find(spans, at)
    if span is None:
        span = Span(at, at, at)
        spans.append(span)
    span.first, span.last = min(span.first, at), max(span.last, at)
    _settle(spans)
    return span


def merge(spans: Spans, others: Iterable[Span]) -> None:
    """Make *spans* know what *others*, of the same stream, know."""
    known = {span.origin: span for span in spans}
    for other in others:
        span = known.get(other.origin)
        if span is None:
            span = Span(other.origin, other.first, other.last)
            known[span.origin] = span
            spans.append(span)
        span.first, span.last = min(span.first, other.first), max(span.last, other.last)
    _settle(spans)


def _settle(spans: Spans) -> None:
    if len(spans) > 1:
        spans.sort(key=lambda span: (span.first, span.origin))
        del spans[:-MAX_SPANS]


def write_spans(spans: Iterable[Span]) -> str:
    """Return *spans* as text, as the store keeps them."""
    return ";".join(f"{span.origin},{span.first},{span.last}" for span in spans)


def read_spans(text: str) -> Spans:
    """Return the spans that `write_spans` wrote."""
    return [Span(*map(int, part.split(","))) for part in text.split(";") if part]
