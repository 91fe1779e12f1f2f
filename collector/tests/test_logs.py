"""One JSON line a record, whatever is in it: a log can't be forged, and never breaks its writer."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from analytics_collector.logs import JsonFormatter


def line_of(message: str = "It happened", exc_info: Any = None, **facts: Any) -> str:
    record = logging.makeLogRecord(
        {"name": "analytics_collector.x", "levelno": 30, "levelname": "WARNING", "msg": message}
        | {"exc_info": exc_info}
        | facts
    )
    return JsonFormatter().format(record)


def test_a_record_is_one_json_object_with_its_facts():
    """Whoever reads the log finds the time, the level, who said it, what, and the facts."""
    line = json.loads(line_of(status=413, reason="too large"))

    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "warning",
        "logger": "analytics_collector.x",
        "message": "It happened",
        "status": 413,
        "reason": "too large",
    }


class Unfriendly:
    """Something that was never meant for a log."""

    def __repr__(self) -> str:
        return "<unfriendly\r\nlevel=error>"


circle: list[Any] = []
circle.append(circle)


@pytest.mark.parametrize(
    "value",
    [
        "two\r\nlines",
        "\x1b[31mred\x1b[0m\x07",
        '"}\n{"level": "error", "message": "forged"}',
        "half a pair: \ud800",
        "\0",
        2**64,
        -(2**70),
        float("nan"),
        b"bytes\n\xff",
        {1: "a key that is a number", (1, 2): "or a pair"},
        {"nested": {"deeper": ["\n", Unfriendly()]}},
        Unfriendly(),
        {1, 2},
        circle,
        ValueError("a\nb"),
    ],
    ids=repr,
)
def test_any_value_stays_on_its_line(value):
    """Line ends, escape sequences and what JSON can't hold neither forge a record nor lose one."""
    line = line_of(value=value, reason="kept")

    assert not set(map(chr, range(32))) & set(line)
    found = json.loads(line)
    assert (found["message"], found["reason"]) == ("It happened", "kept")
    assert "value" in found


def test_a_message_from_elsewhere_stays_on_its_line():
    """What a library says is no safer than what a client sends."""
    assert json.loads(line_of("bad\r\n\x1b[2J"))["message"] == "bad\r\n\x1b[2J"
    assert "\n" not in line_of("bad\r\n")


def test_a_traceback_is_a_member_of_its_record():
    """A fault is one line too, with all of its traceback."""
    try:
        raise ValueError("first\nsecond")
    except ValueError as exc:
        line = line_of(exc_info=(type(exc), exc, exc.__traceback__))

    assert "\n" not in line
    assert "ValueError: first\nsecond" in json.loads(line)["exception"]


@pytest.mark.parametrize("name", ["time", "level", "logger"])
def test_a_fact_does_not_replace_what_every_record_has(name):
    """An `extra` of an unlucky name can't change who said it, when, or how bad it was."""
    line = json.loads(line_of(**{name: "forged"}))

    assert line[name] != "forged"
