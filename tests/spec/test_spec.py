"""The specification agrees with itself, and every guard that says so can go red.

Both tools run on this checkout as scripts, and on broken copies of it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, TypeAlias

import pytest

ROOT = Path(__file__).parents[2]


class Answer(NamedTuple):
    """What a tool said."""

    code: int
    sentences: str


class Break(NamedTuple):
    """One slip in one file: *old* becomes *new*, once."""

    file: str
    old: str
    new: str
    sentence: str


Check: TypeAlias = Callable[[str, Path], Answer]


def run(tool: str, *arguments: str) -> Answer:
    """Run *tool* of spec/tools/ as a contributor does."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "spec/tools" / tool), *arguments],
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    return Answer(done.returncode, done.stderr)


@pytest.fixture
def check(load_tool: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str]) -> Check:
    """Return a function that runs a tool on a checkout, without the price of a process."""

    def check(tool: str, root: Path) -> Answer:
        code: int = load_tool(tool).main(["--check", "--root", str(root)])
        return Answer(code, capsys.readouterr().err)

    return check


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a copy of what the tools read."""
    elsewhere = json.loads((ROOT / "spec/coverage.json").read_text(encoding="utf-8"))["elsewhere"]
    packages = ("sdk-python/src/analytics_sdk", "collector/src/analytics_collector")

    shutil.copytree(ROOT / "spec", tmp_path / "spec")
    for file in {*(file for file, _ in elsewhere.values()), *(f"{p}/_limits.py" for p in packages)}:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / file)
    for package in packages:
        shutil.copytree(ROOT / package / "_spec", tmp_path / package / "_spec")
    return tmp_path


def damage(root: Path, slip: Break) -> None:
    """Make *slip* in the checkout at *root*."""
    path = root / slip.file
    text = path.read_text(encoding="utf-8")
    assert slip.old in text, "the case no longer fits the file"
    path.write_text(text.replace(slip.old, slip.new, 1), encoding="utf-8")


@pytest.mark.parametrize("tool", ["limits.py", "agree.py"])
def test_everything_agrees(tool: str) -> None:
    """Nothing in this checkout contradicts itself; if something does, the sentences say where."""
    assert run(tool, "--check") == Answer(0, "")


@pytest.mark.parametrize("tool", ["limits.py", "agree.py"])
def test_a_copy_agrees_like_the_original(checkout: Path, check: Check, tool: str) -> None:
    """What the broken copies below begin with is whole."""
    assert check(tool, checkout) == Answer(0, "")


def test_a_changed_number_makes_every_generated_module_old(checkout: Path, check: Check) -> None:
    """Nobody can change a limit without the packages getting it."""
    damage(checkout, Break("spec/limits.json", '"max_depth": 32', '"max_depth": 33', ""))

    code, sentences = check("limits.py", checkout)

    assert code == 1
    assert "sdk-python/src/analytics_sdk/_limits.py is not what" in sentences
    assert "collector/src/analytics_collector/_limits.py is not what" in sentences


def test_an_edited_module_is_found(checkout: Path, check: Check) -> None:
    """A number changed in one package alone is a slip, whichever way it was meant."""
    module = "sdk-python/src/analytics_sdk/_limits.py"
    damage(checkout, Break(module, "MAX_DEPTH: Final = 32", "MAX_DEPTH: Final = 64", ""))

    assert check("limits.py", checkout) == Answer(
        1, f"{module} is not what spec/limits.json says; run python spec/tools/limits.py.\n"
    )


def test_a_missing_module_is_found(checkout: Path, check: Check) -> None:
    """A package without its limits is not up to date."""
    (checkout / "collector/src/analytics_collector/_limits.py").unlink()

    assert check("limits.py", checkout).code == 1


def test_limits_are_written_where_they_are_missing(checkout: Path) -> None:
    """Without --check the tool makes what it would have asked for."""
    module = checkout / "collector/src/analytics_collector/_limits.py"
    whole = module.read_text(encoding="utf-8")
    module.unlink()

    assert run("limits.py", "--root", str(checkout)).code == 0

    assert module.read_text(encoding="utf-8") == whole


EVENT = "spec/schema/event.json"
ERRORS = "spec/errors.json"
API = "spec/openapi.yaml"
VECTORS = "spec/vectors/event.json"
BATCHES = "spec/vectors/batch.json"

BREAKS = {
    "a schema with a type that does not exist": Break(
        EVENT, '"type": "object"', '"type": "thing"', "schema/event.json is not a valid schema"
    ),
    "a schema of no draft": Break(
        "spec/schema/answer.json", '"$schema"', '"schema"', "answer.json does not say that it is"
    ),
    "a schema that refers to nothing": Break(
        "spec/schema/batch.json", '"event.json"}', '"events.json"}', "batch.json is not a valid"
    ),
    "a refusal that no table has": Break(
        EVENT, '"x-refusal": "INVALID_TRAITS"', '"x-refusal": "BAD_TRAITS"', "refuses with BAD_TR"
    ),
    "an event code that the answer's schema does not list": Break(
        "spec/schema/rejection.json", '"INVALID_NAME", ', "", "does not list the event codes"
    ),
    "a request code that the error's schema does not list": Break(
        "spec/schema/error.json", '"CONFLICT", ', "", "does not list the request codes"
    ),
    "a code without a status": Break(
        ERRORS, '{"status": 409, ', "{", "gives CONFLICT no status of 4xx or 5xx"
    ),
    "a code that may or may not be sent again": Break(
        ERRORS, '"status": 409, "retryable": false', '"status": 409', "whether CONFLICT is retry"
    ),
    "a code without a sentence": Break(
        ERRORS, '"An event must be a JSON object."', '""', "no sentence for INVALID_EVENT"
    ),
    "a code in small letters": Break(
        ERRORS, '"CONFLICT"', '"conflict"', "which is not UPPER_SNAKE"
    ),
    "a name limit that only the schema has": Break(
        EVENT, '"maxLength": 255, "pattern"', '"maxLength": 256, "pattern"', "as max_name_chars"
    ),
    "a batch limit that only the schema has": Break(
        "spec/schema/batch.json", '"maxItems": 500', '"maxItems": 1000', "as max_batch_events"
    ),
    "an identifier limit that only the table has": Break(
        "spec/limits.json",
        '"max_identifier_chars": 255',
        '"max_identifier_chars": 200',
        "as max_identifier_chars",
    ),
    "a sentence with another number": Break(
        ERRORS, "deeper than 32 levels", "deeper than 64 levels", "does not say “32 levels”"
    ),
    "an interface of another version": Break(
        API, "openapi: 3.1.0", "openapi: 3.0.3", "not OpenAPI"
    ),
    "an interface without its answers": Break(
        API, "  title: Analytics collector\n", "", "openapi.yaml is not valid"
    ),
    "an interface that refers to nothing": Break(
        API,
        "schema: {$ref: schema/answer.json}",
        "schema: {$ref: schema/no.json}",
        "schema/no.json, which is not there",
    ),
    "a code with another code's status": Break(
        API,
        "x-codes: [CONFLICT]",
        "x-codes: [NOT_FOUND]",
        "NOT_FOUND with 409, errors.json with 404",
    ),
    "a code that the interface invented": Break(
        API, "x-codes: [CONFLICT]", "x-codes: [CONFLICT, MOVED]", "lists MOVED, which errors.json"
    ),
    "a code that sending events lost": Break(
        API, "            - EMPTY_BATCH\n", "", "does not list EMPTY_BATCH for sending events"
    ),
    "a status that sending events lost": Break(
        API,
        '        "431": {$ref: "#/components/responses/headersTooLarge"}\n',
        "",
        "does not list HEADERS_TOO_LARGE for sending events",
    ),
    "a refusal of sending events that is another address's": Break(
        API,
        "            - EMPTY_BATCH\n",
        "            - EMPTY_BATCH\n            - INVALID_QUERY\n",
        "lists INVALID_QUERY for sending events, which never gets it",
    ),
    "a status without a code": Break(
        API,
        "          x-codes: [CONFLICT]\n",
        "",
        "lists no code for 409 of post /api/v1/workflows",
    ),
    "a code that the interface forgot": Break(
        API,
        "TOO_MANY_LISTENERS, ",
        "",
        "openapi.yaml lists TOO_MANY_LISTENERS nowhere",
    ),
    "a vector with another verdict than the schema": Break(
        VECTORS,
        '"rejected", "code": "INVALID_TRAITS"',
        '"rejected", "code": "INVALID_CONTEXT"',
        "should be INVALID_CONTEXT by the schema and is INVALID_TRAITS",
    ),
    "a schema that lost a rule": Break(
        EVENT,
        '"page", "screen", "group", "alias"]\n',
        '"page", "screen", "group"]\n',
        "“alias is a",
    ),
    "a rule that needs a collector no more": Break(
        EVENT,
        '"maxLength": 40',
        '"maxLength": 19',
        "should be valid by the schema and is INVALID_T",
    ),
    "a vector with a code that no table has": Break(
        VECTORS, '"code": "TOO_DEEP"', '"code": "DEEP"', "expects DEEP, which errors.json"
    ),
    "two vectors of one name": Break(
        VECTORS,
        '"a number is not an event"',
        '"a list is not an event"',
        "more than one case named",
    ),
    "a batch with another verdict than the schema": Break(
        BATCHES,
        '{"status": 400, "code": "EMPTY_BATCH"}',
        '{"status": 202, "code": null}',
        "valid by schema/batch.json",
    ),
    "a batch with another status than the table": Break(
        BATCHES,
        '{"status": 400, "code": "INVALID_UTF8"}',
        '{"status": 415, "code": "INVALID_UTF8"}',
        "expects 415 with INVALID_UTF8, errors.json does not",
    ),
    "a MUST that nobody tests": Break(
        "spec/06-time-and-order.md",
        "\nTogether with",
        "- **TIM-16** A collector MUST know what day it is.\n\nTogether with",
        "TIM-16 is a MUST that no vector and no test carries",
    ),
    "a MUST that lost its vectors": Break(
        "spec/coverage.json",
        '"EVT-10": [',
        '"EVT-9": [',
        "EVT-10 is a MUST that no vector and no test carries",
    ),
    "a MUST without a number": Break(
        "spec/05-delivery.md", "The simplest way to obey", "One MUST obey", "binds without a number"
    ),
    "a requirement that binds nobody": Break(
        "spec/05-delivery.md",
        "**DLV-5** A client MUST NOT",
        "**DLV-5** A client does not",
        "DLV-5 is not one sentence with MUST or SHOULD",
    ),
    "a number that was given twice": Break(
        "spec/05-delivery.md", "**DLV-9**", "**DLV-8**", "DLV-8 stands in 05-delivery.md a second"
    ),
    "a number that was left out": Break(
        "spec/05-delivery.md",
        "**DLV-8**",
        "**DLV-88**",
        "DLV-8 stands in no chapter",
    ),
    "a vector for a requirement that does not exist": Break(
        VECTORS, '"requirement": "EVT-2"', '"requirement": "EVT-200"', "carries EVT-200, which no"
    ),
    "a requirement that is pending and tested": Break(
        "spec/coverage.json", '"pending": [', '"pending": [ "EVT-2",', "EVT-2 is tested now"
    ),
    "a test that went away": Break(
        "spec/coverage.json", "auth_case_changed.json", "auth_case.json", "for BAT-1; it has not"
    ),
    "a pending requirement that does not exist": Break(
        "spec/coverage.json",
        '"pending": [',
        '"pending": [ "XYZ-1",',
        "names XYZ-1, which no chapter",
    ),
    "a chapter with a limit that does not exist": Break(
        "spec/03-batch.md", "`max_gzip_members`", "`max_members`", "names the limit max_members"
    ),
    "a chapter with a code that does not exist": Break(
        "spec/03-batch.md", "`EMPTY_BATCH`", "`NO_EVENTS`", "names the code NO_EVENTS"
    ),
    "a table of codes that is old": Break(
        ERRORS, "There is nothing at this address.", "Nothing here.", "The tables of 04-answers.md"
    ),
    "a chapter that lost its table": Break(
        "spec/04-answers.md", "<!-- codes: event -->\n", "", "The tables of 04-answers.md"
    ),
}


@pytest.mark.parametrize("slip", BREAKS.values(), ids=BREAKS.keys())
def test_a_contradiction_is_found(checkout: Path, check: Check, slip: Break) -> None:
    """Each guard of the tool goes red for the slip that it is there for, and says what it saw."""
    damage(checkout, slip)

    code, sentences = check("agree.py", checkout)

    assert code == 1
    assert slip.sentence in sentences


def test_a_copy_in_the_collector_that_is_old_is_found(checkout: Path, check: Check) -> None:
    """The schema that the collector runs is the one of the specification."""
    copy = checkout / "collector/src/analytics_collector/_spec/event.json"
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_text("{}", encoding="utf-8")

    code, sentences = check("agree.py", checkout)

    assert code == 1
    assert "_spec/event.json is not as spec/ has it" in sentences


def test_a_file_that_is_not_json_is_named(checkout: Path) -> None:
    """A slip of the pen gets a sentence, too, and no stack trace."""
    damage(checkout, Break(ERRORS, "{", "", ""))

    code, sentences = run("agree.py", "--check", "--root", str(checkout))

    assert code == 1
    assert sentences.startswith("spec/errors.json is not JSON: ")


def test_tables_are_written_where_they_are_old(checkout: Path) -> None:
    """Without --check the tool makes the tables that it would have asked for."""
    chapter = checkout / "spec/04-answers.md"
    whole = chapter.read_text(encoding="utf-8")
    damage(checkout, Break("spec/04-answers.md", "| `TOO_DEEP` | 400 ", "| `DEEP` | 418 ", ""))

    assert run("agree.py", "--root", str(checkout)) == Answer(0, "")

    assert chapter.read_text(encoding="utf-8") == whole
