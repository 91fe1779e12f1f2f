"""What no honest client sends: each file of the corpus, to a real server over a real socket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from harness.client import Mint, Sender
from harness.collector import Collector, Serve
from harness.corpus import Case, load_cases
from harness.database import Database
from harness.processes import peak_rss_bytes
from harness.raw_http import RawAnswer, talk

CASES = load_cases()
MAX_SECONDS = 5.0
MAX_GROWTH_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True)
class Target:
    """A running server, and keys for it."""

    serve: Serve
    database: Database
    ingest_key: str
    read_key: str

    def send(self, case: Case) -> RawAnswer:
        """Send a case as it is meant."""
        return talk(self.serve.url, case.request(self.ingest_key, self.read_key))

    def takes_events(self) -> bool:
        """Return whether an honest client still gets what it came for."""
        with Sender(self.serve.url, self.ingest_key) as sender:
            return sender.send(Mint(1).events(2)).status == 202


@pytest.fixture(scope="module")
def target(collector: Collector) -> Iterator[Target]:
    """The one server that gets the whole corpus."""
    database = collector.database
    with collector.serve() as serve:
        yield Target(serve, database, database.new_key("ingest"), database.new_key("read"))


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES])
def test_a_bad_request_is_answered_as_the_manifest_says(target: Target, case: Case) -> None:
    """The right status, code and verdicts; nothing leaks; what was taken is stored exactly."""
    answer = target.send(case)

    assert _mistakes(case, answer) == []
    assert target.ingest_key.encode() not in answer.received
    assert b"Traceback" not in answer.received
    assert b'File "' not in answer.received
    assert answer.seconds < MAX_SECONDS
    if case.facts["expected_status"] in (202, "accepted_partial") and "mid" in case.facts:
        assert _differences(case, _read_back(target.database, case.facts["mid"])) == []
    assert target.takes_events()


def test_bad_requests_leave_no_memory_behind(collector: Collector) -> None:
    """After all of them once, all of them twice more cost (almost) nothing."""
    database = collector.database
    with collector.serve() as serve:
        target = Target(serve, database, database.new_key("ingest"), database.new_key("read"))
        peaks = []
        for _ in range(3):
            for case in CASES:
                target.send(case)
            peaks.append(peak_rss_bytes(serve.pid))

        assert peaks[2] - peaks[0] < MAX_GROWTH_BYTES, peaks
        assert target.takes_events()
        assert serve.faults == []


def _mistakes(case: Case, answer: RawAnswer) -> list[str]:
    """Return in what the answer is not as expected."""
    expected = case.facts["expected_status"]
    verdicts = [(verdict["index"], verdict["code"]) for verdict in answer.body.get("rejected", [])]
    wanted = [(verdict["index"], verdict["code"]) for verdict in case.facts.get("rejected", [])]
    mistakes = []
    if not _is_expected(expected, answer):
        mistakes.append(f"status {answer.status}, not {expected}: {answer.received[:300]!r}")
    if answer.status is not None and answer.status >= 500 and answer.status != 503:
        mistakes.append(f"status {answer.status}")
    if expected in (202, "accepted_partial") or "rejected" in case.facts:
        if verdicts != wanted:
            mistakes.append(f"rejected {verdicts}, not {wanted}")
    if isinstance(expected, int) and expected >= 400 and not case.is_raw:
        code = case.facts["expected_code"]
        if answer.body.get("code") != code or not isinstance(answer.body.get("error"), str):
            mistakes.append(f"code {answer.body.get('code')}, not {code}")
    if answer.count > case.facts.get("max_responses", 1):
        mistakes.append(f"{answer.count} answers: a request was smuggled")
    return mistakes


def _is_expected(expected: int | str, answer: RawAnswer) -> bool:
    """Return whether the status is one of those that the manifest allows."""
    if expected == "accepted_partial":
        return answer.status == 202
    if isinstance(expected, int):
        return answer.status == expected
    allowed = expected.split("|")
    is_closed = answer.status is None or answer.status >= 400
    return (
        str(answer.status) in allowed
        or "any" in allowed
        or ("close" in allowed and is_closed)
    )


def _read_back(database: Database, message_id: str) -> list[dict[str, Any]]:
    """Return each stored event of this id, in the words of the manifest."""
    rows = database.fetch(
        "select name, project_id, properties from events where message_id = $1", message_id
    )
    return [
        {"name": row["name"], "project": row["project_id"]}
        | {f"properties.{key}": value for key, value in json.loads(row["properties"]).items()}
        for row in rows
    ]


def _differences(case: Case, stored: list[dict[str, Any]]) -> list[str]:
    """Return in what the stored events are not what was sent; a type counts as well."""
    count = case.facts.get("stored_rows", 1)
    if len(stored) != count:
        return [f"{len(stored)} rows, not {count}"]
    return [
        f"{member} is {event.get(member)!r}, not {value!r}"
        for event in stored
        for member, value in case.facts.get("stored", {}).items()
        if repr(event.get(member)) != repr(value)
    ]
