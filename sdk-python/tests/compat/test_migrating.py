"""What docs/migrating.md says about calls is true: its programs and the cells of its tables run."""

import re
from pathlib import Path

import pytest

TEXT = (Path(__file__).parents[2] / "docs" / "migrating.md").read_text()
BLOCKS = [
    block for block in re.findall(r"```python\n(.*?)```", TEXT, re.S) if "# before" not in block
]
NAMES = """
import datetime, uuid
when, id = datetime.datetime.now(datetime.timezone.utc), uuid.uuid4()
url, day, error = "https://x.example/", "2026-11-20", KeyError("k")
"""


def calls_in(header):
    """Return the code in the two columns of the table with this header."""
    _, _, table = TEXT.partition(f"{header}\n|---|---|\n")
    rows = [row.split(" | ") for row in table.partition("\n\n")[0].splitlines()]
    return [[re.findall(r"`([^`]+)`", cell) for cell in row] for row in rows]


def in_essence(event):
    """Return what two events have to share in order to be the same."""
    return {name: event[name] for name in event if name not in ("messageId", "timestamp")}


@pytest.mark.parametrize("block", BLOCKS)
def test_the_programs_run(run_program, collector, block):
    """What stands there as the new way arrives."""
    done = run_program(block.replace("http://127.0.0.1:8000", collector.url))

    assert (done.returncode, done.stderr) == (0, "")
    names = {name.lower().replace(" ", "_") for name in collector.names}
    assert names == {"order_completed"}


def test_both_columns_about_segment_track_the_same(run_program, collector):
    """Whoever replaces one call by the other gets the same events."""
    rows = calls_in("| with Segment's arguments | without the stand-in |")
    tracked = []
    for start, column in (
        ("import analytics_sdk.compat.segment as analytics", 0),
        ("import analytics_sdk", 1),
    ):
        collector.stored.clear()
        done = run_program("\n".join([start, *(row[column][0] for row in rows)]))
        assert (done.returncode, done.stderr) == (0, "")
        tracked.append([in_essence(event) for event in collector.stored])

    old, new = tracked
    assert len(new) == len(rows) - 2
    assert [event["type"] for event in new] == [
        *("track", "track", "identify", "group", "alias", "page", "screen"),
    ]
    assert [without_nothing(event) for event in old] == new


def without_nothing(event):
    """Return the event without empty members, which Segment's library sends and we leave out."""
    return {name: value for name, value in event.items() if value != {}}


def test_the_calls_for_those_of_posthog_are_taken(run_program, collector):
    """Each of them, with the arguments that stand there."""
    rows = calls_in("| posthog | here |")
    calls = [call for _, cell in rows for call in cell if call.startswith("analytics.")]
    assert len(calls) >= len(rows) - 1
    checked = [call if ".operation" in call else f"assert {call} is True" for call in calls]
    done = run_program("\n".join(["import analytics_sdk as analytics", NAMES, *checked]))

    assert (done.returncode, done.stderr) == (0, "")
    kinds = {event["type"] for event in collector.stored}
    assert kinds == {"track", "page", "screen", "identify", "group", "alias"}
