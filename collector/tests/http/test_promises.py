"""What /openapi.json promises is what is answered, whatever is asked: found out by schemathesis."""

from __future__ import annotations

from pathlib import Path

import httpx
import hypothesis
import pytest
import schemathesis
from schemathesis.core.parameters import ParameterLocation
from schemathesis.generation.feedback import FeedbackSources
from schemathesis.pytest._test_builder import build_operation_test
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    negative_data_rejection,
    positive_data_acceptance,
    unsupported_method,
)

import analytics_collector

DOCUMENT = Path(analytics_collector.__file__).parent / "_spec/openapi.json"
# An answer without an end; `test_live` asks it.
interface = schemathesis.openapi.from_path(DOCUMENT).exclude(path="/api/v1/live")
# Too many are refused with a status of their own.
interface.config.checks.negative_data_rejection.expected_statuses.append("413")
# Above all that a search for small numbers tries: it may end what it finds, but not its own key.
OWN_IDS = 777_000_000_000


@pytest.fixture(scope="module")
def key(site):
    """An admin key of the installation's own project, which looks after all others."""
    site.sql(f"alter table projects alter project_id restart with {OWN_IDS}")
    site.sql(f"alter table api_keys alter key_id restart with {OWN_IDS}")
    return site.new_key(["ingest", "read", "admin"], project="default")


def test_the_document_is_the_one_that_is_served(site):
    """The cases below come from the file, so that each address is a test."""
    assert httpx.get(f"http://127.0.0.1:{site.port}/openapi.json").content == DOCUMENT.read_bytes()


# Where a form that is right can mean something wrong: a name that does not print, a time zone that
# there is not, a schema that is none, a range that is empty, a key that was replaced.
REFUSED_FOR_THEIR_MEANING = {
    "askFunnel",
    "changeKey",
    "changeProject",
    "createKey",
    "createProject",
    "listDeadLetters",
    "editDeadLetter",
    "registerSchema",
    "saveWorkflow",
}
# An event is judged for itself: a batch that is wrong in one is not refused, and one whose times do
# not exist is. `test_vectors` has these, one by one.
JUDGED_ONE_BY_ONE = {"sendEvents", "validateEvents"}
# Another address, with a parameter in this place, takes the methods that they do not have.
SHARED = {"/api/v1/dead-letters/replay"}


def wrong_in_headers(case):
    """Return whether *case* would be refused for a header: the key that it lacks it gets here."""
    header = case.meta and case.meta.components.get(ParameterLocation.HEADER)
    return header is not None and header.mode.is_negative


@hypothesis.settings(max_examples=10, deadline=None)
def check(site, key, case):
    """Send one case, and see that what comes back is in the document."""
    # What is generated is never compressed; `test_ingest` sends bodies that are.
    if case.headers.get("Content-Encoding") == "gzip":
        del case.headers["Content-Encoding"]
    excluded = []
    operation = case.operation.definition.raw["operationId"]
    if operation in REFUSED_FOR_THEIR_MEANING | JUDGED_ONE_BY_ONE:
        excluded.append(positive_data_acceptance)
    if operation in JUDGED_ONE_BY_ONE or wrong_in_headers(case):
        excluded.append(negative_data_rejection)
    if case.operation.path in SHARED:
        excluded += [allow_header_conformance, unsupported_method]
    case.call_and_validate(
        base_url=f"http://127.0.0.1:{site.port}",
        headers={"x-api-key": key},
        excluded_checks=excluded,
    )


@pytest.mark.parametrize(
    "operation", [found.ok() for found in interface.get_all_operations()], ids=lambda o: o.label
)
def test_every_answer_is_as_promised(site, key, operation):
    """Status, headers, content type and form are documented, and nothing is a fault of ours."""
    # By `interface.parametrize()` all cases are made up at collection, for seconds, by each worker.
    test = build_operation_test(
        config=interface.config,
        operation=operation,
        test_func=check,
        given_kwargs={},
        feedback=FeedbackSources(),
    )
    test(site=site, key=key)
