"""The events of a test, and what a test may claim about them, in messages that say what to see."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from analytics_sdk.context import Identifier
from analytics_sdk.event import identifier
from analytics_sdk.testing.compare import differences, shown
from analytics_sdk.testing.schema import faults_of

# Refusals that somebody asked for; any other is a mistake in the program.
INTENDED = frozenset({"disabled", "opted_out", "sampled_out", "before_send", "closed"})
ADVICE = "The log says why; with debug=True it is raised where it happens."
MAX_SHOWN_EVENTS = 3
MAX_SHOWN_NAMES = 20
INDENT = "\n  "


class Recorder:
    """
    What was tracked, and the claims of a test about it.

    `events` has each event as it would go on the wire, in the order of the calls.
    """

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self._faults: list[str] = []
        self._refused: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"<Recorder of {_count(len(self.events), 'event')}>"

    def record(self, event: dict[str, Any]) -> list[str]:
        """Add *event*, and return why the collector would refuse it."""
        self.events.append(event)
        faults = [f"{self._label(event)}: {fault}" for fault in faults_of(event)]
        self._faults += faults
        return faults

    def refuse(self, reason: str) -> None:
        """Remember that a call was refused."""
        self._refused[reason] += 1

    def clear(self) -> None:
        """Forget everything so far, mistakes included."""
        self.events.clear()
        self._faults.clear()
        self._refused.clear()

    def named(self, name: str) -> list[dict[str, Any]]:
        """Return the events of that name, of whatever type."""
        return [event for event in self.events if event.get("name") == name]

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        """Return the events of one type: track, identify, page, screen, group or alias."""
        return [event for event in self.events if event["type"] == kind]

    def assert_tracked(
        self,
        name: str,
        properties: Mapping[str, Any] | None = None,
        *,
        user_id: Identifier | None = None,
        anonymous_id: Identifier | None = None,
        session_id: Identifier | None = None,
        context: Mapping[str, Any] | None = None,
        times: int | None = None,
    ) -> list[dict[str, Any]]:
        """
        Claim that `track()` was called so, at least once or *times* times; return those events.

        What is given must be there, and more may be: of dicts at any level the members that are
        given count, of lists all elements. A value equals what it looks like on the wire (a UUID
        its text), and matchers such as `unittest.mock.ANY` and `pytest.approx` work.
        """
        __tracebackhide__ = True
        ids = {"userId": user_id, "anonymousId": anonymous_id, "sessionId": session_id}
        parts = {"properties": properties, "context": context}
        wanted = {
            **{member: identifier(value) for member, value in ids.items() if value is not None},
            **{member: part for member, part in parts.items() if part is not None},
        }
        compared = [(differences(wanted, event), event) for event in self._tracked(name)]
        matching = [event for lacks, event in compared if not lacks]
        if len(matching) == times or (matching and times is None):
            return matching

        lines = [f"{name!r} was not tracked{' as wanted' if wanted else ''}."]
        if times is not None:
            lines[0] = f"{name!r} was tracked {_count(len(matching), 'time')}, not {times}."
        if wanted:
            lines.append(f"wanted: {shown(wanted)}")
        if len(matching) > (times or 0):
            lines += self._listed(matching)
        elif unlike := [pair for pair in compared if pair[0]]:
            lines += self._closest(unlike)
        else:
            lines += self._similar(name)
        raise AssertionError(INDENT.join([*lines, *self._summary()]))

    def assert_not_tracked(self, name: str) -> None:
        """Claim that `track()` was never called with that name."""
        __tracebackhide__ = True
        if found := self._tracked(name):
            head = f"{name!r} was tracked {_count(len(found), 'time')}, and should not have been."
            raise AssertionError(INDENT.join([head, *self._listed(found), *self._summary()]))

    def assert_nothing_tracked(self) -> None:
        """Claim that there is no event at all, of whatever type."""
        __tracebackhide__ = True
        if self.events:
            head = f"{_count(len(self.events), 'event')} too many: nothing should be tracked."
            raise AssertionError(INDENT.join([head, *self._listed(self.events), *self._summary()]))

    def assert_valid(self) -> None:
        """Claim that the collector would take every event, and that no call was misuse."""
        __tracebackhide__ = True
        misuse = {reason: n for reason, n in self._refused.items() if reason not in INTENDED}
        told = []
        if self._faults:
            told.append(INDENT.join(["The collector would refuse:", *self._faults]))
        if misuse:
            calls = _count(sum(misuse.values()), "call")
            told.append(f"{calls} returned False: {_counted(misuse)}. {ADVICE}")
        if told:
            raise AssertionError("\n".join(told))

    def _tracked(self, name: str) -> list[dict[str, Any]]:
        return [event for event in self.named(name) if event["type"] == "track"]

    def _label(self, event: Mapping[str, Any]) -> str:
        # By identity, for a program may track the same twice, message id included.
        number = [other is event for other in self.events].index(True) + 1
        who = event.get("userId") or event.get("anonymousId")
        return f"#{number} {_title(event)}" + (f" of {who!r}" if who else "")

    def _listed(self, events: Sequence[Mapping[str, Any]]) -> list[str]:
        lines = []
        for event in events[:MAX_SHOWN_EVENTS]:
            facts = event.get("properties") or event.get("traits") or {}
            lines.append(f"{self._label(event)}: {shown(facts)}")
        if (more := len(events) - MAX_SHOWN_EVENTS) > 0:
            lines.append(f"... and {more} more")
        return lines

    def _closest(self, compared: Sequence[tuple[list[str], dict[str, Any]]]) -> list[str]:
        lines = []
        ranked = sorted(compared, key=lambda pair: len(pair[0]))
        for lacks, event in ranked[:MAX_SHOWN_EVENTS]:
            lines += [f"{self._label(event)} differs:", *(f"  {line}" for line in lacks)]
        if (more := len(ranked) - MAX_SHOWN_EVENTS) > 0:
            lines.append(f"... and {more} more that differ")
        return lines

    def _similar(self, name: str) -> list[str]:
        names = {str(event["name"]) for event in self.events if event.get("name")} - {name}
        similar = get_close_matches(name, sorted(names), n=MAX_SHOWN_EVENTS)
        return [f"a name like it: {', '.join(map(repr, similar))}"] if similar else []

    def _summary(self) -> list[str]:
        head = f"recorded: {_count(len(self.events), 'event')}"
        lines = [f"{head}: {_counted(Counter(map(_title, self.events)))}" if self.events else head]
        if self._refused:
            lines.append(f"refused: {_counted(self._refused)}. {ADVICE}")
        return lines


def _title(event: Mapping[str, Any]) -> str:
    name = event.get("name")
    return f"{event['type']} {name!r}" if name else str(event["type"])


def _counted(counts: Mapping[str, int]) -> str:
    told = [key if count == 1 else f"{key} ({count})" for key, count in counts.items()]
    return ", ".join(told if len(told) <= MAX_SHOWN_NAMES else [*told[:MAX_SHOWN_NAMES], "..."])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
